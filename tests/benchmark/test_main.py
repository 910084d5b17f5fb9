"""The cells of a matrix, and the mistakes in its command, before anything is trained."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from tfhash import train
from tfhash.benchmark import __main__ as benchmark
from tfhash.benchmark import matrix, summary, workers
from tfhash.data import sources
from tfhash.errors import UserError
from tfhash.runs import experiment

OUT = Path("runs/matrix")


def cells(
    *entries: str,
    code_lengths: Sequence[int] = (12,),
    seeds: Sequence[int] = (0,),
    common: dict[str, str] | None = None,
    **axes: Sequence[str],
) -> list[matrix.Cell]:
    return matrix.cells(entries, code_lengths, seeds, axes, common or {}, OUT)


def names(found: Sequence[matrix.Cell]) -> list[str]:
    return [cell.name for cell in found]


@pytest.fixture
def flagfile(tmp_path) -> Path:
    path = tmp_path / "small.flags"
    path.write_text("--method=ssgah\n--steps=7\n--seed=5\n--code_length=99\n")
    return path


def test_a_cell_is_each_combination_of_method_axes_code_length_and_seed():
    found = cells("lsh", "ssgah", code_lengths=(12, 24), seeds=(0, 1), protocol=["per_class"])
    assert names(found) == [
        f"{method}_{bits}_protocol-per_class_seed{seed}"
        for seed in (0, 1)
        for method in ("lsh", "ssgah")
        for bits in (12, 24)
    ]


def test_an_axis_is_for_the_methods_that_know_it():
    """2 features x 2 amounts of lsh, 2 amounts x 2 sizes of ssgah: neither knows the other's."""
    axes = {"labelled_per_class": ["5", "10"], "ssgah.gan_size": ["16", "32"]}
    found = cells("lsh", "ssgah", features=["pixels", "gist"], **axes)
    assert sorted(names(found)) == sorted(
        [f"lsh_12_features-{f}_labelled_per_class-{n}_seed0"
         for f in ("pixels", "gist") for n in (5, 10)]
        + [f"ssgah_12_labelled_per_class-{n}_ssgah.gan_size-{s}_seed0"
           for s in (16, 32) for n in (5, 10)]
    )  # fmt: skip
    assert len({cell.row for cell in found}) == 8


def test_a_common_flag_goes_to_the_methods_that_know_it():
    common = {"steps": "--steps=3", "dataset": "--dataset=digits"}
    lsh, ssgah = cells("lsh", "ssgah", common=common)
    assert lsh.arguments[:-3] == ("--method=lsh", "--dataset=digits")
    assert ssgah.arguments[:-3] == ("--method=ssgah", "--steps=3", "--dataset=digits")
    assert ssgah.given.settings.steps == 3


def test_the_matrix_comes_after_a_flagfile(flagfile):
    """Its --seed and --code_length are those of a run of its own."""
    (cell,) = cells(str(flagfile), common={"batch_size": "--batch_size=6"}, steps=["9"])
    assert cell.name == "small_12_steps-9_seed0"
    config, settings = cell.given.experiment, cell.given.settings
    assert (config.method, config.seed, config.code_length) == ("ssgah", 0, 12)
    assert (settings.steps, settings.batch_size) == (9, 6)


def test_the_command_of_a_cell_says_all_of_it(flagfile):
    (cell,) = cells(str(flagfile), ties=["best"])
    python, m, module, *arguments = shlex.split(cell.command)
    assert (python, m, module) == ("python", "-m", "tfhash.train")
    assert train.parse(arguments) == cell.given
    assert f"--model_dir={OUT}/small_12_ties-best_seed0" in arguments


def test_names_are_folders_whatever_the_values():
    """No name is that of another folder, goes into one, or is the same as another."""
    values = ["a/b", "a-b", "a b", "../..", "a%2Fb", "ä"]
    found = names(cells("lsh", data_dir=values))
    assert len(set(found)) == len(values)
    assert all(Path(name).name == name and name.isascii() and " " not in name for name in found)


def test_cells_of_the_same_images_and_split_stand_together():
    found = cells("lsh", "ssgah", seeds=(0, 1), labelled_per_class=["5", "10"],
                  image_size=["8", "16"])  # fmt: skip
    experiments = [cell.given.experiment for cell in found]
    keys = [(e.image_size, e.seed, e.labelled_per_class) for e in experiments]
    changes = sum(one != other for one, other in zip(keys, keys[1:], strict=False))
    assert changes == len(set(keys)) - 1 == 7  # 2 sizes x 2 seeds x 2 amounts, each once
    assert names(found)[:2] == [
        f"{method}_12_labelled_per_class-5_image_size-8_seed0" for method in ("lsh", "ssgah")
    ]


def test_the_images_of_a_cell_are_decided_by_all_that_their_source_is_given(monkeypatch):
    (cell,) = cells("lsh", common={"duplicates": "--duplicates=drop"})
    parameters = set(inspect.signature(sources.load).parameters) - {"storage"}  # no pixel differs
    monkeypatch.setattr("tfhash.data.sources.load", lambda **given: given)
    given = experiment.load_images(cell.given.experiment)
    assert given.pop("storage") is None
    assert given == dict(cell.images) and set(given) == parameters
    assert given["name"] == "digits" and given["duplicates"] == "drop"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--methods=lsh", "--out"),
        ("--out=@", "--methods"),
        ("--methods= --out=@", "--methods empty"),
        ("--methods=lsh --code_lengths= --out=@", "--code_lengths empty"),
        ("--methods=lsh --seeds=0,x --out=@", "--seeds 0,x ints"),
        ("--methods=lsh --seeds=0,0 --out=@", "--seeds 0 twice"),
        ("--methods=lsh --seeds=-1 --out=@", "lsh_12_seed-1 --seed -1"),
        ("--methods=lsh --code_lengths=0 --out=@", "lsh_0_seed0 --code_length 0"),
        ("--methods=nosuch,lsh --out=@", "--methods 'nosuch' lsh ssgah flagfile"),
        ("--methods=no/such.flags --out=@", "--methods 'no/such.flags' flagfile"),
        ("--methods=lsh,lsh --out=@", "--methods lsh twice"),
        ("--methods=ssgah,@ssgah.flags --out=@", "--methods 'ssgah' 2"),
        ("--methods=@typo.flags --out=@", "--methods typo.flags stepps"),
        ("--methods=@stray.flags --out=@", "--methods stray.flags 'steps=3'"),
        ("--methods=lsh --vary=features --out=@", "--vary 'features' FLAG=VALUE"),
        ("--methods=lsh --vary=features= --out=@", "--vary 'features=' FLAG=VALUE"),
        ("--methods=lsh --vary=feetures=gist --out=@", "--feetures lsh"),
        ("--methods=lsh --vary=features=feet --out=@", "lsh_12_features-feet_seed0 'feet' gist"),
        ("--methods=ssgah --vary=steps=many --out=@", "ssgah_12_steps-many_seed0 --steps=many"),
        ("--methods=ssgah --vary=features=gist --out=@", "--features ssgah"),
        ("--methods=lsh --steps=3 --out=@", "--steps lsh"),
        ("--methods=lsh --vary=radius=1,1 --out=@", "--vary=radius 1 twice"),
        ("--methods=lsh --vary=radius=1 --vary=radius=2 --out=@", "--vary radius twice"),
        ("--methods=lsh --vary=radius=1 --radius=2 --out=@", "--radius --vary"),
        ("--methods=lsh --vary=seed=1,2 --out=@", "--seed --seeds"),
        ("--methods=lsh --method=sh --out=@", "--method --methods"),
        ("--methods=lsh --workers=0 --out=@", "--workers=0 positive"),
        ("--methods=lsh --tune=-1 --out=@", "--tune=-1"),
        ("--methods=lsh --tune=2 --out=@", "--seeds: 0 100"),
        ("--methods=lsh --tune=2 --seeds=100,99 --out=@", "--seeds: 99 100"),
        ("--methods=lsh --tune=2 --seeds=100 --vary=radius=1 --out=@", "--vary --tune"),
        ("--methods=lsh --search=radius=1|2 --out=@", "--search --tune"),
        ("--methods=lsh --tune=2 --seeds=100 --search=radius --out=@", "--search 'radius' FLAG="),
        ("--methods=lsh --tune=2 --seeds=100 --search=dropout=0|1 --out=@", "--dropout lsh"),
        (
            "--methods=lsh --tune=2 --seeds=100 --search=radius=1 --search=radius=2 --out=@",
            "--search radius twice",
        ),
        (
            "--methods=lsh --tune=2 --seeds=100 --radius=1 --search=radius=1|2 --out=@",
            "--radius --search",
        ),
        (
            "--methods=lsh --tune=2 --seeds=100 --validation_fraction=0 --out=@",
            "--validation_fraction: 0 lsh",
        ),
        (
            "--methods=ksh --tune=9 --seeds=100 --search=ksh.anchors=0 --out=@",
            "ksh_12_trial1_seed100 anchors 0",
        ),
        ("--methods=lsh --nosuchflag=0 --out=@", "nosuchflag"),
        ("--methods=lsh --flagfile=no/such --out=@", "no/such"),
        ("--methods=lsh --out=@a_file/matrix", "--out @a_file/matrix"),
    ],
)
def test_a_mistake_is_one_line_before_the_first_cell(command, tmp_path, arguments, words):
    (tmp_path / "a_file").touch()
    (tmp_path / "ssgah.flags").write_text("--method=ssgah\n")
    (tmp_path / "typo.flags").write_text("--method=ssgah\n--stepps=3\n")
    (tmp_path / "stray.flags").write_text("--method=ssgah\nsteps=3\n")
    before = sorted(tmp_path.iterdir())
    arguments, words = (text.replace("@", f"{tmp_path}/").split() for text in (arguments, words))
    ended = command(benchmark, *arguments)
    line = ended.line("tfhash.benchmark")
    assert [word for word in words if word not in line] == []
    assert sorted(tmp_path.iterdir()) == before


def test_a_cell_that_needs_a_fresh_process_gets_one():
    """TensorFlow keeps its strategy, and cannot leave determinism, which XLA goes without."""
    worker = object.__new__(workers.Worker)
    lsh, plain, xla = cells("lsh", "ssgah", xla=["false", "true"])
    (mirrored,) = cells("ssgah", strategy=["mirrored"])
    worker.cell = lsh
    assert worker.fits(plain) and not worker.fits(xla) and not worker.fits(mirrored)
    worker.cell = xla
    assert worker.fits(xla) and not worker.fits(lsh)


def test_cells_that_share_a_first_stage_do_not_run_at_a_time():
    """The first one makes it, and another process that works in its folder is refused."""
    lsh, *gans = cells("lsh", "ssgah", seeds=(1,), **{"ssgah.stage1_dir": ["a", "b"]})
    (plain,) = cells("ssgah", seeds=(2,))
    a, b = gans
    assert [set(cell.claimed) for cell in (lsh, a, b, plain)] == [set(), {"a"}, {"b"}, set()]
    assert workers.first_free([a, b], []) == a
    assert workers.first_free([a, b, lsh], [a]) == b
    assert workers.first_free([a], [a, None]) is None
    assert workers.first_free([lsh, a], [plain, a]) == lsh
    assert workers.first_free([], [a]) is None


def test_nor_do_cells_that_share_a_stage_0():
    folders = {"ssgah.stage0_dir": ["a"], "ssgah.stage1_dir": ["b", "c"]}
    one, other = cells("ssgah", seeds=(1,), **folders)
    assert (set(one.claimed), set(other.claimed)) == ({"a", "b"}, {"a", "c"})
    assert workers.first_free([other], [one]) is None
    assert workers.first_free([other], []) == other


def test_a_dry_run_only_prints_the_commands(command, tmp_path):
    out = tmp_path / "matrix"
    ended = command(benchmark, "--methods=lsh,ssgah", "--seeds=3", f"--out={out}", "--dry_run",
                    "--map_at=5,10", "--flip")  # fmt: skip
    lines = ended.output.splitlines()
    assert (ended.status, ended.errors, len(lines)) == (0, "", 8)
    assert lines[0] == (
        "python -m tfhash.train --method=lsh --map_at=5,10 --code_length=12 --seed=3 "
        f"--model_dir={out}/lsh_12_seed3  # to do"
    )
    assert lines[4].startswith("python -m tfhash.train --method=ssgah --map_at=5,10 --flip ")
    assert not out.exists()


def test_arguments_are_parsed_apart_from_the_flags_of_the_process():
    given = train.parse(["--method=lsh", "--code_length=7", "--noallow_pickle_weights"])
    assert (given.experiment.method, given.experiment.code_length) == ("lsh", 7)
    assert train.parse(given.lines) == given
    with pytest.raises(UserError, match="Unknown command line flag 'stepps'"):
        train.parse(["--stepps=3"])
    with pytest.raises(UserError, match="unexpected argument 'lsh'"):
        train.parse(["lsh"])


def test_the_table_has_mean_and_deviation_over_the_seeds():
    """Of .1, .2, .6 the mean is .3 and the deviation the root of (.04 + .01 + .09) / 2, .265."""
    found = cells("lsh", code_lengths=(12, 24), seeds=(0, 1, 2), radius=["1", "2"])
    values = {(12, 1): [0.1, 0.2, 0.6], (24, 1): [0.25, None, 0.75], (12, 2): [0.5, None, None]}
    done = {}
    for cell in found:
        config = cell.given.experiment
        value = values.get((config.code_length, config.radius), [None] * 3)[config.seed]
        done |= {} if value is None else {cell.name: value}
    assert summary.table(found, done).splitlines() == [
        "mAP           12 bits               24 bits",
        "lsh radius=1  0.300 ± 0.265         0.500 ± 0.354 (2 of 3 seeds)",
        "lsh radius=2  0.500 (1 of 3 seeds)  -",
    ]
