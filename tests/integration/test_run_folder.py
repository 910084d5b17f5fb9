"""Run folders that are damaged, from elsewhere, in use, moved, on a full disk, or oddly named."""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tfhash
import tfhash.evaluate as evaluate  # as attribute of tfhash it may be the function
from tfhash import methods, places, top_results, train
from tfhash.benchmark import __main__ as benchmark
from tfhash.cli import flags as config_flags
from tfhash.errors import NO_ROOM
from tfhash.export import __main__ as export
from tfhash.export import verify
from tfhash.networks import backbones
from tfhash.report import __main__ as report
from tfhash.runs import folder
from tfhash.runs.configurations import Configurations
from tfhash.runs.experiment_settings import Experiment
from tfhash.training.run import lock

LSH = ["--method=lsh", "--code_length=16"]
BASELINE = """--ssgah.variant=baseline --code_length=8 --steps=6 --checkpoint_every=2 --batch_size=6
    --labelled_per_class=4 --queries_per_class=3""".split()


def line_of(ended, name: str, status: int = 2) -> str:
    """The one line of stderr, once it is sure that it is one."""
    assert ended.status == status, ended
    (line,) = ended.errors.splitlines()
    assert line.startswith(f"{name}: error: ")
    return line


@pytest.fixture(scope="module")
def lsh_run(command, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("lsh") / "run"
    assert command(train, f"--model_dir={directory}", *LSH).status == 0
    return directory


@pytest.fixture
def theirs(lsh_run, tmp_path):
    """theirs(flags): a run folder from elsewhere, whose metrics.json has these flags changed."""

    def make(**changes) -> Path:
        directory = tmp_path / "theirs"
        shutil.copytree(lsh_run, directory)
        path = directory / "metrics.json"
        metrics = json.loads(path.read_text())
        metrics["flags"] |= changes
        path.write_text(json.dumps(metrics))
        return directory

    return make


class Evil:
    """Its pickle makes a folder when it is read, as it could do anything."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (os.fspath(self.path),)


@pytest.fixture
def pickled(tmp_path) -> tuple[Path, Path]:
    """Weights that are a pickle, and what is there once it was read."""
    path, mark = tmp_path / "evil.npy", tmp_path / "its code has run"
    np.save(path, np.array({"conv1": Evil(mark)}, object), allow_pickle=True)
    return path, mark


def test_a_run_from_elsewhere_runs_no_code(command, theirs, pickled):
    weights, mark = pickled
    evil = {"features": "backbone", "weights": str(weights), "allow_pickle_weights": True}
    directory = theirs(**evil)
    for module, option in ((export, "--noverify"), (evaluate, "--encode")):
        line = line_of(command(module, f"--model_dir={directory}", option), module.NAME)
        assert f"--weights: {weights} is a pickle" in line and "--allow_pickle_weights" in line
    with pytest.raises(tfhash.UserError, match="`weights`: .* is a pickle"):
        tfhash.load(directory).encoder  # noqa: B018
    assert not mark.exists()
    # Its owner may still ask for it, which shows that the pickle would have done it.
    command(export, f"--model_dir={directory}", "--noverify", "--allow_pickle_weights")
    assert mark.is_dir()


def test_nor_does_a_saved_hasher_from_elsewhere(lsh_run, pickled, tmp_path):
    weights, mark = pickled
    directory = tmp_path / "saved"
    tfhash.load(lsh_run).save(directory)
    path = directory / "hasher.json"
    description = json.loads(path.read_text())
    description["settings"] |= {"features": "backbone", "weights": str(weights)}
    description["settings"] |= {"allow_pickle_weights": True}
    path.write_text(json.dumps(description))
    with pytest.raises(tfhash.UserError, match="`weights`: .* is a pickle"):
        tfhash.load(directory).encoder  # noqa: B018
    assert not mark.exists()


@pytest.mark.parametrize("module", [train, export, evaluate, benchmark])
def test_nor_does_a_flagfile(command, theirs, pickled, tmp_path, module):
    weights, mark = pickled
    flagfile = tmp_path / "flags.txt"
    flagfile.write_text(f"--weights={weights}\n--allow_pickle_weights\n")
    needed = {
        train: ["--method=lsh", "--features=backbone", f"--model_dir={tmp_path}/run"],
        benchmark: ["--methods=lsh", "--features=backbone", f"--out={tmp_path}/runs"],
    }.get(module, [f"--model_dir={theirs()}"])
    ended = command(module, "--noallow_pickle_weights", f"--flagfile={flagfile}", *needed)
    assert "--allow_pickle_weights: stands in a flagfile" in line_of(ended, module.NAME)
    assert not mark.exists()


def test_nor_a_flagfile_that_a_matrix_names(command, pickled, tmp_path):
    flagfile = tmp_path / "theirs.flags"
    flagfile.write_text(f"--method=lsh\n--weights={pickled[0]}\n--allow_pickle_weights=true\n")
    ended = command(benchmark, f"--methods={flagfile}", f"--out={tmp_path}/runs", "--dry_run")
    assert "--allow_pickle_weights: stands in a flagfile" in line_of(ended, benchmark.NAME)


@pytest.mark.parametrize("given", ["--allow_pickle_weights", "-allow_pickle_weights=true"])
def test_on_the_command_line_a_pickle_may_be_allowed(configurations, given):
    assert configurations(given).settings.allow_pickle_weights
    config_flags.check_own([given, "--flagfile=any"])


def test_what_a_run_folder_says_to_write_to_is_not_written_to(
    command, theirs, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    directory = theirs(cache_dir=str(tmp_path / "elsewhere"))
    assert command(evaluate, f"--model_dir={directory}", "--encode").status == 0
    tfhash.load(directory).encode(np.zeros((2, 16, 16, 3), np.uint8))
    assert not (tmp_path / "elsewhere").exists()
    assert (tmp_path / "home" / ".cache" / "tfhash").is_dir()
    own = f"--cache_dir={tmp_path}/mine"
    assert command(evaluate, f"--model_dir={directory}", "--encode", own).status == 0
    assert (tmp_path / "mine").is_dir()


def test_a_run_of_before_had_its_copies_anywhere(theirs):
    """Its split, and with it the fingerprint, is that of --duplicates=keep."""
    directory = theirs()
    assert folder.read(directory)[0].experiment.duplicates is None
    metrics = json.loads((directory / "metrics.json").read_text())
    del metrics["flags"]["duplicates"]
    (directory / "metrics.json").write_text(json.dumps(metrics))
    assert folder.read(directory)[0].experiment.duplicates == "keep"


# Contents of metrics.json, as the one of a finished run changed to them.
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"flags": {}}, "metrics.json has no 'method'"),
        ({"flags": {"method": 5}}, "no finished run"),
        ({"flags": []}, "no finished run"),
        ({"flags": {"method": "lsh", "map_at": "x"}}, "no finished run"),
        ({"flags": {"method": "lsh", "code_length": 16}, "places": [1]}, "metrics.json has no "),
    ],
)
@pytest.mark.parametrize("module", [export, evaluate])
def test_metrics_json_that_lacks_what_is_needed_is_one_line(
    command, lsh_run, tmp_path, module, content, words
):
    directory = tmp_path / "run"
    shutil.copytree(lsh_run, directory)
    (directory / "metrics.json").write_text(json.dumps(content))
    line = line_of(command(module, f"--model_dir={directory}"), module.NAME)
    assert "--model_dir: " in line and words in line


def test_weights_that_are_damaged_are_one_line(command, baseline, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(baseline, directory)
    os.truncate(directory / "checkpoints" / "encoder.weights.h5", 3000)
    line = line_of(command(export, f"--model_dir={directory}", "--noverify"), export.NAME)
    assert f"--model_dir: the weights in {directory}/checkpoints are damaged" in line


@pytest.fixture(scope="module")
def baseline(command, tmp_path_factory) -> Path:
    """A finished run with checkpoints of steps 4 and 6."""
    directory = tmp_path_factory.mktemp("baseline") / "run"
    ended = command(train, f"--model_dir={directory}", *BASELINE)
    assert ended.status == 0, ended
    return directory


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    import h5py

    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if hasattr(item, "dtype") else None
        )
    return found


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_after_a_damaged_checkpoint_the_end_is_that_of_the_undisturbed_run(
    command, baseline, tmp_path, damage
):
    directory = tmp_path / "run"
    shutil.copytree(baseline, directory)
    newest = directory / "checkpoints" / "hash-00000006.weights.h5"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    for name in ("metrics.json", "checkpoints/encoder.weights.h5"):
        (directory / name).unlink()
    ended = command(train, f"--model_dir={directory}", *BASELINE)
    assert ended.status == 0, ended
    assert f"{newest} is damaged" in ended.errors and "from step 4 on" in ended.output
    for name in ("hash-00000006.weights.h5", "encoder.weights.h5"):
        one, other = (arrays_of(d / "checkpoints" / name) for d in (baseline, directory))
        assert one.keys() == other.keys() and len(one) > 4
        for key, array in one.items():
            np.testing.assert_array_equal(array, other[key], err_msg=f"{name} {key}")
    assert newest.with_name(f"{newest.name}.damaged").is_file()


@pytest.mark.parametrize("content", [None, ""])
def test_config_json_that_is_gone_is_one_line(command, baseline, tmp_path, content):
    directory = tmp_path / "run"
    shutil.copytree(baseline, directory)
    (directory / "config.json").unlink()
    if content is not None:
        (directory / "config.json").write_text(content)
    line = line_of(command(train, f"--model_dir={directory}", *BASELINE), train.NAME)
    assert f"--model_dir: {directory}/config.json tells" in line


SMALL_GAN = """--code_length=8 --steps=1 --batch_size=6 --unlabelled_batch_size=6
    --checkpoint_every=1 --queries_per_class=3 --labelled_per_class=4 --ssgah.gan_steps=1
    --ssgah.gan_size=16 --ssgah.gan_width=2 --ssgah.condition_size=4 --ssgah.noise_size=4""".split()


def test_a_kept_stage_1_is_not_shared_while_it_is_made_and_not_taken_without_its_values(
    command, tmp_path
):
    kept = tmp_path / "stage1"
    arguments = [*SMALL_GAN, f"--ssgah.stage1_dir={kept}"]
    with lock(kept, "stage1_dir"):
        ended = command(train, f"--model_dir={tmp_path}/a", *arguments)
        line = line_of(ended, train.NAME, status=1)
        assert f"--ssgah.stage1_dir: process {os.getpid()} works in {kept}" in line
    assert command(train, f"--model_dir={tmp_path}/a", *arguments).status == 0
    (kept / "stage1.json").write_text("")
    ended = command(train, f"--model_dir={tmp_path}/b", *arguments)
    assert f"--ssgah.stage1_dir: {kept}/stage1.json tells" in line_of(ended, train.NAME)


def test_a_run_folder_in_use_is_left_alone(command, tmp_path):
    directory = tmp_path / "run"
    with lock(directory, "model_dir"):
        ended = command(train, f"--model_dir={directory}", *LSH)
        line = line_of(ended, train.NAME, status=1)
        assert f"--model_dir: process {os.getpid()} works in {directory}" in line
        hasher = tfhash.LSH(code_length=8)
        with pytest.raises(tfhash.UserError, match=f"works in {directory}"):
            hasher.fit(np.zeros((4, 8, 8, 3), np.uint8), [0, 0, 1, 1], run_dir=directory)
        assert [path.name for path in directory.iterdir()] == [".lock"]
    assert command(train, f"--model_dir={directory}", *LSH).status == 0
    with lock(directory, "model_dir"):  # who only reads is not kept out
        assert command(evaluate, f"--model_dir={directory}").status == 0


def test_a_training_on_a_full_disk_ends_in_one_line_and_goes_on_later(command, tmp_path):
    """A file may not grow beyond 16 KiB: the first checkpoint does not fit."""
    directory = tmp_path / "run"

    def full_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))

    process = subprocess.run(
        [sys.executable, "-m", "tfhash.train", f"--model_dir={directory}", *BASELINE],
        preexec_fn=full_disk,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 1, process
    (line,) = process.stderr.splitlines()
    assert line == (
        f"tfhash.train: error: File too large: {directory}/checkpoints/hash-00000000.weights.h5; "
        "what was written before is kept"
    )
    assert list(directory.glob("**/.*.h5")) == []
    assert command(train, f"--model_dir={directory}", *BASELINE).status == 0


def test_an_export_without_room_is_one_line_and_leaves_nothing(command, lsh_run, tmp_path):
    def full_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))

    target = tmp_path / "export"
    arguments = [f"--model_dir={lsh_run}", f"--export_dir={target}", "--noverify"]
    process = subprocess.run(
        [sys.executable, "-m", "tfhash.export", *arguments],
        preexec_fn=full_disk,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 1, process
    (line,) = process.stderr.splitlines()
    assert line.startswith(f"tfhash.export: error: --export_dir: cannot write to {target} (")
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("reason", sorted(NO_ROOM))
def test_a_folder_that_cannot_be_written_is_one_line_of_any_export(
    command, lsh_run, tmp_path, monkeypatch, reason
):
    """As of a file system that is full or read-only; the tests may run as root, who may write."""

    def refuse(self, *_, **__):
        raise OSError(reason, os.strerror(reason), os.fspath(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    ended = command(export, f"--model_dir={lsh_run}", f"--export_dir={tmp_path}/x", "--noverify")
    line = line_of(ended, export.NAME, status=1)
    assert f"--export_dir: cannot write to {tmp_path}/x" in line and os.strerror(reason) in line


ODD_NAME = " 50%s we[i]rd [a]*b? back\\slash "


@pytest.fixture
def verified_here(monkeypatch):
    """Verification without its second process, which takes seconds to import TensorFlow."""

    def answers(directory, cases):
        return verify._answers(str(directory), [case[:3] for case in cases])

    monkeypatch.setattr(verify, "_answers_of_new_process", answers)


def test_a_run_folder_of_any_name_is_trained_judged_drawn_exported_and_served(
    command, verified_here, tmp_path
):
    predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2", reason="needs serving")
    from tfhash.serving.server.servable import Servable

    run = tmp_path / ODD_NAME / "run"
    outputs = {
        train: [f"--model_dir={run}", *LSH],
        evaluate: [f"--model_dir={run}", "--encode", f"--output={run}/judged.json"],
        top_results: [run, f"--output={run}/top.png", "--queries=1"],
        report: [run, f"--output={run}/report.md", f"--csv={run}/report.csv"],
        export: [f"--model_dir={run}"],
    }
    for module, arguments in outputs.items():
        ended = command(module, *arguments)
        assert ended.status == 0, ended
    for path in ("judged.json", "top.png", "report.md", "report.csv"):
        assert (run / path).is_file()
    assert [path.name for path in (run / "export").iterdir()] == ["1"]
    servable = Servable("x", 1, run / "export" / "1", max_tensor_bytes=1 << 30)
    images = np.zeros((1, 16, 16, 3), np.uint8)
    request = predict_pb2.PredictRequest(inputs={"images": tf.make_tensor_proto(images)})
    request.model_spec.signature_name = "encode_images"
    answer = servable.predict(request, as_content=True).outputs["code"]
    np.testing.assert_array_equal(tf.make_ndarray(answer), tfhash.load(run).encode(images))


COMMANDS = ("train", "evaluate", "top_results", "report.__main__", "benchmark.__main__",
            "export.__main__", "serving.server.__main__", "serving.encode.__main__",
            "serving.deploy.__main__")  # fmt: skip
A_PATH = re.compile(r".*(_dir|_file|_path|_csv)$|(output|out|notes|csv|json|weights)$")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_flag_that_is_a_path_knows_the_home_folder(parse_only, monkeypatch, name):
    """The flags of configurations get to know it with these, see below."""
    monkeypatch.setenv("HOME", "/home/me")
    module = importlib.import_module(f"tfhash.{name}")
    required = ["--model_dir", "--output", "--export_dir", "--out"]
    required += ["--target", "--images", "--methods"]
    known = parse_only(module, "--undefok=" + ",".join(f[2:] for f in required),
                       *(f"{flag}=x" for flag in required))  # fmt: skip
    made = set()
    if module in (train, benchmark):
        every = (Configurations.of({"method": method}) for method in methods.names())
        made = {name for one in every for name in one.values}
    paths = [flag for flag in known if A_PATH.fullmatch(flag) and flag not in made]
    assert paths
    given = [f"--{flag}=~/x" for flag in paths]
    others = [f"{flag}=x" for flag in required[-3:] if flag[2:] in known]
    values = parse_only(module, *given, *others)
    # That of --cache_dir keeps the ~, as its default does, and is opened with it.
    expected = {flag: "~/x" if flag == "cache_dir" else "/home/me/x" for flag in paths}
    assert {flag: values[flag] for flag in paths} == expected


@pytest.mark.parametrize("method", ["ssgah", "itq"])
def test_so_does_each_setting_that_is_a_path(configurations, monkeypatch, method):
    monkeypatch.setenv("HOME", "/home/me")
    default = Configurations.of({"method": method}).values
    paths = [name for name in default if A_PATH.fullmatch(name.rpartition(".")[2])]
    if method == "itq":
        method = "itq --features=bow"
    given = configurations(
        *f"--method={method}".split(), *(f"--{name}=~/x" for name in paths)
    ).values
    assert {name: given[name] for name in paths} == dict.fromkeys(paths, "/home/me/x")
    assert default["cache_dir"] == "~/.cache/tfhash"


def test_arguments_without_a_flag_and_flagfiles_of_a_matrix_know_it_too(
    command, lsh_run, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(lsh_run.parent))
    ended = command(report, "~/run", f"--output={tmp_path}/report.md")
    assert ended.status == 0, ended
    (lsh_run.parent / "mine.flags").write_text("--method=lsh\n")
    ended = command(benchmark, "--methods=~/mine.flags", "--out=~/runs", "--dry_run")
    assert ended.status == 0 and f"{lsh_run.parent}/runs/mine_12_seed0" in ended.output, ended


def test_the_python_face_knows_it_too(lsh_run, monkeypatch):
    monkeypatch.setenv("HOME", str(lsh_run.parent))
    hasher = tfhash.load("~/run")
    hasher.save("~/saved")
    assert (lsh_run.parent / "saved" / "hasher.json").is_file()
    assert tfhash.LSH(weights="~/w.h5").settings.weights == str(lsh_run.parent / "w.h5")


@pytest.fixture
def project(command, tmp_path, monkeypatch) -> Path:
    """A folder with pictures, labels, weights and, on all of these, a run, trained from there."""
    root = tmp_path / "project"
    (root / "pictures").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(12):
        pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(root / "pictures" / f"{index}.png")
    rows = [f"{index}.png,{('even', 'odd')[index % 2]}" for index in range(12)]
    (root / "labels.csv").write_text("\n".join(["path,labels", *rows]) + "\n")
    backbones.build("small_cnn").get_layer("small_cnn").save_weights(root / "net.weights.h5")
    monkeypatch.chdir(root)
    ended = command(
        train, *LSH, "--dataset=csv", "--data_dir=pictures", "--labels_csv=labels.csv",
        "--image_size=16", "--features=backbone", "--weights=net.weights.h5",
        "--queries_per_class=2", "--labelled_per_class=2", "--model_dir=runs/x",
        f"--cache_dir={tmp_path}/cache",
    )  # fmt: skip
    assert ended.status == 0, ended
    return root


def readers(run: Path, tmp_path: Path) -> dict:
    return {
        evaluate: [f"--model_dir={run}", "--encode", f"--cache_dir={tmp_path}/cache"],
        top_results: [run, f"--output={tmp_path}/top.png", "--queries=1"],
        export: [f"--model_dir={run}", "--export_dir=" + str(tmp_path / "export")],
    }


def test_a_project_that_moved_as_a_whole_needs_no_flag(
    command, project, verified_here, tmp_path, monkeypatch
):
    moved = project.rename(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    for module, arguments in readers(moved / "runs" / "x", tmp_path).items():
        ended = command(module, *arguments)
        assert ended.status == 0, ended
    places = json.loads((moved / "runs" / "x" / "metrics.json").read_text())["places"]
    assert places == {
        "data_dir": "../../pictures",
        "labels_csv": "../../labels.csv",
        "weights": "../../net.weights.h5",
    }


def test_where_data_moved_the_error_names_the_flag_to_give(
    command, project, verified_here, tmp_path
):
    new = {"data_dir": "photos", "labels_csv": "table.csv", "weights": "w.weights.h5"}
    for old, name in zip(("pictures", "labels.csv", "net.weights.h5"), new.values(), strict=True):
        (project / old).rename(tmp_path / name)
    for module, arguments in readers(project / "runs" / "x", tmp_path).items():
        asked = list(arguments)
        for _ in range(len(new) + 1):
            ended = command(module, *asked)
            if ended.status == 0:
                break
            flag = re.search(r"--(\w+)", line_of(ended, module.NAME))[1]
            asked.append(f"--{flag}={tmp_path}/{new[flag]}")
        assert ended.status == 0, ended
        needed = 2 if module is top_results else 3
        assert len(asked) == len(arguments) + needed


def test_a_saved_hasher_finds_its_weights_and_is_told_where_they_moved(project, tmp_path):
    hasher = tfhash.load(project / "runs" / "x")
    expected = hasher.encode(np.zeros((1, 16, 16, 3), np.uint8))
    hasher.save(project / "saved")
    moved = project.rename(tmp_path / "elsewhere")
    (moved / "net.weights.h5").rename(tmp_path / "w.weights.h5")
    with pytest.raises(tfhash.UserError, match="`weights`: there is no file"):
        tfhash.load(moved / "saved").encoder  # noqa: B018
    again = tfhash.load(moved / "saved", weights=tmp_path / "w.weights.h5")
    np.testing.assert_array_equal(again.encode(np.zeros((1, 16, 16, 3), np.uint8)), expected)


def test_absolute_paths_stay_where_the_run_moves(tmp_path):
    """Data beside a run that were named from the root are found from wherever the run is now."""
    data, inside = tmp_path / "data", tmp_path / "run" / "data"
    for path in (data, inside):
        path.mkdir(parents=True)
    found = [
        places.of(Experiment(data_dir=str(path)), tmp_path / "run")["data_dir"]
        for path in (data, inside)
    ]
    assert found == [str(data), "data"]
    config = Experiment(data_dir="gone")
    for kept in ({"data_dir": str(data)}, {"data_dir": "nowhere"}, {"data_dir": 5}, [], None):
        taken = places.taken(config, kept, tmp_path, {})
        assert taken.data_dir == (str(data) if kept == {"data_dir": str(data)} else "gone")
