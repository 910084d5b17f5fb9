"""Run folders of any name, and paths that begin with the home folder, in every command."""

from __future__ import annotations

import importlib
import re

import numpy as np
import pytest
import tensorflow as tf

import tfhash
import tfhash.evaluate as evaluate  # as attribute of tfhash it may be the function
from tfhash import methods, top_results, train
from tfhash.benchmark import __main__ as benchmark
from tfhash.export import __main__ as export
from tfhash.report import __main__ as report
from tfhash.runs.configurations import Configurations

LSH = ["--method=lsh", "--code_length=16"]


ODD_NAME = " 50%s we[i]rd [a]*b? back\\slash "


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
            "serving.deploy.__main__", "deploy_training.__main__")  # fmt: skip
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
    if module in (train, benchmark) or name == "deploy_training.__main__":
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
