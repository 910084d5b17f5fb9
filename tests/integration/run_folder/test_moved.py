"""Run folders whose data moved: found again, or the error names the flag to give."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tfhash
import tfhash.evaluate as evaluate  # as attribute of tfhash it may be the function
from tfhash import places, top_results, train
from tfhash.export import __main__ as export
from tfhash.networks import backbones
from tfhash.runs.experiment_settings import Experiment

LSH = ["--method=lsh", "--code_length=16"]


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
            flag = re.search(r"--(\w+)", ended.line(module.NAME))[1]
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
