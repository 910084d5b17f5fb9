"""The owners' bags of words: from their file to the features of a shallow method."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("dill", reason="the tests of TFDS need dill")

from tests.data.nus_wide.test_builder import PATHS, write_lists, write_owners  # noqa: E402
from tfhash import prepare_nus_wide, train  # noqa: E402
from tfhash.data.nus_wide import words  # noqa: E402
from tfhash.errors import UserError  # noqa: E402
from tfhash.runs import experiment  # noqa: E402
from tfhash.training.run import Run  # noqa: E402


def counts() -> np.ndarray:
    """A bag of words of each of the 30 listed images: [30, 500], no two alike."""
    bags = np.random.default_rng(0).poisson(0.6, (30, 500))
    bags[:, 0] = np.arange(30)
    bags[7, 3] = 65535
    return bags


def write_words(path: Path, bags: np.ndarray) -> Path:
    """As the owners have it: numbers with blanks between them, and one at the end of a line."""
    path.write_text("".join(" ".join(map(str, row)) + " \n" for row in bags))
    return path


def write_both(root: Path) -> None:
    """The lists of papers, and the owners' list of images."""
    write_lists(root)
    (root / "ImageList").mkdir()
    (root / "ImageList" / "Imagelist.txt").write_text("\n".join(PATHS))


@pytest.fixture
def prepared(command, tmp_path):
    """prepared(write_both, *flags): tfhash.prepare_nus_wide with the file of words in tmp_path."""
    write_words(tmp_path / "BoW_int.dat", counts())

    def run(write, *flags):
        source = tmp_path / "source"
        if not source.is_dir():
            source.mkdir()
            write(source)
        where = (f"--source={source}", f"--data_dir={tmp_path / 'tfds'}")
        return command(prepare_nus_wide, *where, *flags)

    return run


def numbers_of(ids) -> list[int]:
    """The lines of the images, counted from 0: their file names begin with them."""
    return [int(Path(id_).name.split("_")[0]) for id_ in ids]


def test_each_image_keeps_its_line(prepared, tmp_path):
    """Also where the images were prepared before; those left out are not in the file."""
    assert "words:" not in prepared(write_owners).output
    ended = prepared(write_owners, f"--bow={tmp_path / 'BoW_int.dat'}")
    assert ended.status == 0, ended.errors
    assert "there already" in ended.output and "\nwords:      bags of words" in ended.output
    found = np.load(tmp_path / "tfds" / "nus_wide" / "owners" / "bow.npz")
    assert len(found["ids"]) == 26 and found["features"].dtype == np.uint16
    np.testing.assert_array_equal(found["features"], counts()[numbers_of(found["ids"])])


def test_lists_find_their_images_by_file_name(prepared, tmp_path):
    """Lists of papers say images/0004_904.jpg, the owners zoo\\0004_904.jpg."""

    assert prepared(write_both, "--config=lists", f"--bow={tmp_path / 'BoW_int.dat'}").status == 0
    found = np.load(tmp_path / "tfds" / "nus_wide" / "lists" / "bow.npz")
    assert set(numbers_of(found["ids"])) == {0, 1, 2, 4, 6, 7, *range(8, 20)}
    np.testing.assert_array_equal(found["features"], counts()[numbers_of(found["ids"])])


LEARN = ("--dataset=nus_wide", "--features=bow", "--method=itq", "--code_length=4")
PARTS = ("--image_size=8", "--protocol=lists")


def test_one_flag_trains_on_them_and_metrics_say_so(prepared, command, tmp_path):
    where = f"--data_dir={tmp_path / 'tfds'}"
    prepared(write_both, "--config=lists")
    ended = command(train, *LEARN, *PARTS, where, f"--model_dir={tmp_path / 'none'}")
    line = ended.line(train.NAME)
    assert "--features=bow: no bags of words" in line and "--bow=BoW_int.dat" in line
    prepared(write_both, "--config=lists", f"--bow={tmp_path / 'BoW_int.dat'}")
    ended = command(train, *LEARN, *PARTS, where, f"--model_dir={tmp_path / 'run'}")
    assert ended.status == 0, ended.errors
    kept = str(tmp_path / "tfds" / "nus_wide" / "lists" / "bow.npz")
    assert f"nus_wide: features are given descriptors, not of pixels: {kept}" in ended.output
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["data_notes"][-1] == f"features are given descriptors, not of pixels: {kept}"
    assert metrics["feature_count"] == 500 and metrics["flags"]["features_file"] == kept
    # The same file, named by the user: the same codes.
    named = command(
        train, *LEARN, *PARTS, where, f"--features_file={kept}", f"--model_dir={tmp_path / 'named'}"
    )
    assert named.status == 0, named.errors
    of_both = [np.load(tmp_path / run / "codes" / "database.npz") for run in ("run", "named")]
    np.testing.assert_array_equal(of_both[0]["codes"], of_both[1]["codes"])
    assert metrics["variant"] == "bow"
    # The images that a matrix has loaded already go with the same file.
    given = train.parse([*LEARN, *PARTS, where])
    images = experiment.load_images(given.experiment, given.settings.storage)
    again = train.run(given, Run(tmp_path / "again"), "", images)
    assert again["flags"]["features_file"] == kept
    assert again["features_digest"] == metrics["features_digest"]


def test_of_another_data_set_the_file_has_to_be_named(command, tmp_path):
    ended = command(train, "--dataset=digits", *LEARN[1:], f"--model_dir={tmp_path}")
    line = ended.line(train.NAME)
    assert "--features_file: missing; --features=bow needs it with --dataset=digits" in line


def spoilt(change) -> str:
    bags = [" ".join(map(str, row)) for row in counts()]
    return "\n".join(change(bags))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda rows: rows[:29], "29 lines; allowed: 30, one for each image of the list"),
        (lambda rows: [*rows, rows[0]], "31 lines; allowed: 30"),
        (lambda rows: [*rows[:4], rows[4] + " 1", *rows[5:]], "line 5: 501 values"),
        (lambda rows: [*rows[:4], "", *rows[5:]], "line 5: 0 values"),
        (lambda rows: ["-1" + rows[0][1:], *rows[1:]], "line 1: 500 values, '-1 "),
        (lambda rows: ["1.5" + rows[0][1:], *rows[1:]], "line 1: 500 values, '1.5 "),
        (lambda rows: ["65536" + rows[0][1:], *rows[1:]], "line 1: 500 values, '65536 "),
        (lambda rows: ["9" * 30 + rows[0][1:], *rows[1:]], "line 1: 500 values, '999"),
        (lambda rows: [*rows[:29], "\xff" + rows[29]], "line 30: 500 values"),
    ],
)
def test_other_lines_are_told_with_their_number(change, line, tmp_path):
    path = tmp_path / "BoW_int.dat"
    path.write_text(spoilt(change), encoding="latin-1")
    with pytest.raises(UserError) as raised:
        words.keep(path, PATHS, PATHS[:3], tmp_path / "bow.npz")
    assert line in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "bow.npz").exists()


def test_empty_lines_after_the_last_image_are_passed_over(tmp_path):
    path = write_words(tmp_path / "BoW_int.dat", counts())
    path.write_text(path.read_text() + "\n \n")
    words.keep(path, PATHS, [PATHS[4]], tmp_path / "bow.npz")
    np.testing.assert_array_equal(np.load(tmp_path / "bow.npz")["features"], counts()[[4]])


@pytest.mark.parametrize(
    ("listed", "ids"),
    [
        (["a/1.jpg", "b/2.jpg"], ["images/3.jpg"]),
        (["a/1.jpg", "b/1.jpg"], ["images/1.jpg"]),  # which of the two, cannot be told
        (["a/1.jpg"], ["images/1.jpg", "others/1.jpg"]),
    ],
)
def test_an_image_without_a_line_of_its_own_is_told(listed, ids, tmp_path):
    path = write_words(tmp_path / "BoW_int.dat", counts()[: len(listed)])
    with pytest.raises(UserError, match=f"for 1 of {len(ids)} images, the first is {ids[-1]}"):
        words.keep(path, listed, ids, tmp_path / "bow.npz")


def test_a_file_that_is_not_there_is_told_before_images_are_read(prepared, tmp_path):
    ended = prepared(write_owners, f"--bow={tmp_path / 'none.dat'}")
    assert "none.dat: no such file" in ended.line("tfhash.prepare_nus_wide")
    assert not (tmp_path / "tfds").exists()
