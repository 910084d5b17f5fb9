"""Trials: what is drawn, which is chosen, and by what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tfhash import methods, train
from tfhash.benchmark import __main__ as benchmark
from tfhash.benchmark import matrix, summary, tuning, workers
from tfhash.benchmark.tuning import Trial
from tfhash.errors import UserError
from tfhash.evaluation.validation import HELD_OUT
from tfhash.settings import fields_of

SPACE = {"a": ["1", "2", "3"], "b": ["x", None]}
GIVEN = {"a": 1, "b": "y"}


def test_the_first_trial_is_what_is_given_and_no_other_repeats_it_or_another():
    """a in 1 (as given), 2, 3 and b in x or as given: six settings, with the given one."""
    found = tuning.trials("one", SPACE, 99, GIVEN)
    assert [trial.number for trial in found] == list(range(6))
    assert found[0].flags == {}
    sets = [tuple(sorted(trial.flags.items())) for trial in found]
    every = [(), (("a", "2"),), (("a", "3"),), (("b", "x"),)]
    every += [(("a", a), ("b", "x")) for a in "23"]
    assert sorted(sets) == sorted(every)
    assert tuning.trials("one", SPACE, 3, GIVEN) == found[:3]


def test_draws_follow_from_the_name_alone():
    of_one, again, of_other = (tuning.trials(n, SPACE, 4, GIVEN) for n in ("one", "one", "other"))
    assert of_one == again
    assert [t.flags for t in of_one] != [t.flags for t in of_other]


def test_values_are_those_that_a_command_line_has():
    """True and a tuple are as the fields are given: neither is a trial beside the first one."""
    given = {"flag": True, "list": (2.0, 4.0), "none": None}
    space = {"flag": ["true", "false"], "list": ["2.0,4.0"], "none": ["7", None]}
    found = [trial.flags for trial in tuning.trials("one", space, 9, given)]
    assert sorted(map(str, found)) == sorted(
        map(str, [{}, {"flag": "false"}, {"none": "7"}, {"flag": "false", "none": "7"}])
    )


def test_nothing_to_draw_is_one_trial():
    assert tuning.trials("lsh", {}, 6, {}) == [Trial("lsh", 0, {})]
    assert tuning.trials("one", {"a": []}, 6, GIVEN) == [Trial("one", 0, {})]


def test_the_space_of_a_method_is_that_of_its_fields_or_what_is_given_instead():
    found = tuning.space_of("dpsh", {"dpsh.dropout": ["0.1"], "steps": ["5", "6"]})
    assert found["dpsh.balanced_pairs"] == ["false", "true"]
    assert found["dpsh.dropout"] == ["0.1"] and found["steps"] == ["5", "6"]
    assert "dpsh.steps" not in found and "batch_size" not in found
    assert found["dpsh.hash_learning_rate"][0] == "0.0005"
    assert tuning.space_of("ssgah", {})["ssgah.margin_sr"] == [None, "3.0", "6.0", "12.0"]
    assert tuning.space_of("drsch", {})["drsch.beta"][0] == "2.0,4.0,8.0,16.0"


@pytest.mark.parametrize("name", methods.names())
def test_every_value_of_a_search_is_one_that_its_flag_takes(name):
    for flag, values in tuning.space_of(name, {}).items():
        for value in values:
            if value is not None:
                given = train.parse([f"--method={name}", f"--{flag}={value}"]).values[flag]
                field = fields_of(methods.get(name).Config).get(flag.rpartition(".")[2])
                assert given in field.metadata["search"]


def test_texts_of_search_are_read():
    assert tuning.read_space(["a=1|2", "b=2,4|8", "c="]) == {
        "a": ["1", "2"],
        "b": ["2,4", "8"],
        "c": [],
    }
    for text in ("a", "=1"):
        with pytest.raises(UserError, match="--search: .*allowed: FLAG=VALUE"):
            tuning.read_space([text])


def test_the_best_has_the_highest_mean_and_of_equal_ones_is_the_first():
    attempts = [Trial("one", number, {}) for number in range(4)]
    rows = [trial.row for trial in attempts]
    found = dict(zip(rows, [[0.5, 0.7], [0.9, None], [0.2, 1.0], [0.4, 0.5]], strict=True))
    trial, mean = tuning.best(attempts, found)
    assert trial.number == 0 and mean == pytest.approx(0.6)
    found[rows[3]] = [0.61, 0.6]
    assert tuning.best(attempts, found)[0].number == 3
    assert tuning.best(attempts, {row: [None, 0.5] for row in rows}) is None


def test_a_seed_of_a_table_is_refused():
    tuning.check_seeds([100, 2000])
    with pytest.raises(UserError, match="--seeds: 99; allowed with --tune: 100 and up"):
        tuning.check_seeds([100, 99])


def test_cells_of_trials_have_folders_and_seeds_of_their_own():
    common = {"name": "--name=of_{seed}"}
    found = matrix.tried_cells(["klsh"], [8, 12], [100, 101], 2, {}, common, Path("out"))
    cells, attempts = found
    (trials,) = attempts.values()
    assert [cell.name for cell in cells] == [
        f"klsh_{bits}_trial{trial}_seed{seed}"
        for seed in (100, 101)
        for trial in (0, 1)
        for bits in (8, 12)
    ]
    assert [cell.row for cell in cells[:4]] == ["klsh trial 0"] * 2 + ["klsh trial 1"] * 2
    assert all(f"--name=of_{cell.given.experiment.seed}" in cell.arguments for cell in cells)
    (drawn,) = trials[1].flags.items()
    assert f"--{drawn[0]}={drawn[1]}" in cells[2].arguments
    assert not any(argument.startswith(f"--{drawn[0]}=") for argument in cells[0].arguments)


def test_nor_is_a_split_of_a_table(command, tmp_path):
    arguments = ["--methods=klsh", "--code_lengths=12", "--seeds=100", f"--out={tmp_path}"]
    line = command(benchmark, "--tune=2", *arguments, "--split_seed=10").line(benchmark.NAME)
    assert "--split_seed of klsh: 10; allowed with --tune: 100 and up" in line


def test_without_validation_images_nothing_is_trained_to_the_end(command, tmp_path, monkeypatch):
    ended = []

    def run(cells, count):
        for cell in cells:
            ended.append(cell.name)
            yield cell, workers.Outcome(dict.fromkeys(summary.TITLES) | {"map": 0.5}), 1.0

    monkeypatch.setattr(workers, "run", run)
    arguments = ["--methods=klsh", "--code_lengths=12", "--seeds=100", f"--out={tmp_path}"]
    line = command(benchmark, "--tune=2", *arguments).line(benchmark.NAME)
    assert "--tune: chooses by validation images, and klsh_12_trial0_seed100 has none" in line
    assert len(ended) == 1


def test_what_is_given_for_all_cells_is_not_drawn():
    common = {"ksh.anchors": "--ksh.anchors=77"}
    cells, _ = matrix.tried_cells(["ksh"], [8], [100], 9, {}, common, Path("out"))
    assert [cell.given.config.anchors for cell in cells] == [77]


@pytest.mark.parametrize(
    ("options", "title"),
    [([], "validation mAP"), (["--tune_by=held_out"], "validation mAP, held out")],
)
def test_the_choice_is_by_validation_and_is_a_flagfile(
    options, title, command, tmp_path, monkeypatch
):
    """mAP of queries, and the other one of validation images, would choose trial 0."""
    measure = {title: key for key, title in summary.TITLES.items()}[title]

    def run(cells, count):
        for cell in cells:
            second = "trial1" in cell.name
            found = dict.fromkeys(summary.TITLES, 0.2 if second else 0.9)
            found[measure] = 0.8 if second else 0.3
            yield cell, workers.Outcome(found), 1.0

    monkeypatch.setattr(workers, "run", run)
    out = tmp_path / "tune"
    arguments = ["--methods=klsh", "--code_lengths=12", "--seeds=100", f"--out={out}"]
    ended = command(benchmark, "--tune=2", *arguments, "--search=klsh.anchors_per_bit=7", *options)
    assert ended.status == 0 and "0.9" not in ended.output
    path = out / "chosen" / "klsh.flags"
    assert ended.output.splitlines()[-4:] == [
        f"{title}  12 bits",
        f"{'klsh trial 0':{len(title)}}  0.300",
        f"{'klsh trial 1':{len(title)}}  0.800",
        f"klsh: trial 1, --klsh.anchors_per_bit=7; wrote {path}",
    ]
    given = train.parse([f"--flagfile={path}"])
    assert given.experiment.method == "klsh" and given.config.anchors_per_bit == 7
    first, second = path.read_text().splitlines()[:2]
    assert first == "# klsh: trial 1, mAP 0.8000 of validation images. Made by"
    assert second.startswith("# python -m tfhash.benchmark ")


def test_a_judge_that_a_cell_does_not_have_is_told_at_the_first_one(command, tmp_path, monkeypatch):
    """One validation image a class has no other; the cell itself is not lost."""
    ended = []

    def run(cells, count):
        for cell in cells:
            ended.append(cell.name)
            yield cell, workers.Outcome(dict.fromkeys(summary.TITLES, 0.5) | {HELD_OUT: None}), 1.0

    monkeypatch.setattr(workers, "run", run)
    arguments = ["--methods=klsh", "--code_lengths=12", "--seeds=100", f"--out={tmp_path}"]
    asked = command(benchmark, "--tune=2", "--tune_by=held_out", *arguments)
    assert "--tune_by: held_out, which klsh_12_trial0_seed100" in asked.line(benchmark.NAME)
    assert ended == ["klsh_12_trial0_seed100"]
    assert command(benchmark, "--tune=2", *arguments).status == 0
    monkeypatch.setattr(matrix.Cell, "finished", lambda cell: {"map": 0.5, "validation_map": 0.5})
    again = command(benchmark, "--tune=2", "--tune_by=held_out", *arguments)
    assert "klsh_12_trial0_seed100" in again.line(benchmark.NAME)


def test_trials_are_trained_judged_by_validation_images_and_not_made_twice(command, tmp_path):
    out = tmp_path / "tune"
    arguments = [
        *("--tune=2", "--methods=klsh,lsh", "--code_lengths=12", "--seeds=100", f"--out={out}"),
        *("--dataset=digits", "--queries_per_class=20", "--validation_fraction=0.3"),
    ]
    ended = command(benchmark, *arguments)
    assert ended.status == 0
    found = {
        path.parent.name: json.loads(path.read_text())["validation_map"]
        for path in out.rglob("metrics.json")
    }
    assert set(found) == {
        f"{one}_12_trial{n}_seed100" for one, n in [("klsh", 0), ("klsh", 1), ("lsh", 0)]
    }
    differs = {
        path.parent.name: json.loads(path.read_text())["not_as_published"]
        for path in out.rglob("metrics.json")
    }
    assert json.loads(next(out.rglob("metrics.json")).read_text())["labels_used"] == 0
    assert differs["klsh_12_trial0_seed100"] == differs["lsh_12_trial0_seed100"] == {}
    assert list(differs["klsh_12_trial1_seed100"]) == ["anchors_per_bit"]
    for name, value in found.items():
        assert f"{name}: validation mAP {value:.4f}" in ended.output
    best = max((0, 1), key=lambda n: found[f"klsh_12_trial{n}_seed100"])
    assert f"\nklsh: trial {best}," in ended.output and "\nlsh: trial 0, as given" in ended.output
    again = command(benchmark, *arguments)
    assert again.output.splitlines()[0] == "3 of 3 cells are done already"
    assert again.output.splitlines()[-2:] == ended.output.splitlines()[-2:]
