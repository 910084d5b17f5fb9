"""What the commands of tfhash.search refuse: one line, and nothing is changed."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tfhash import npz
from tfhash.errors import UserError
from tfhash.search import __main__ as module
from tfhash.search import encoder as encoder_module
from tfhash.search.index import Index


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "command: 0 words; allowed: one of build, query, add, remove, info, duplicates"),
        ("find", "command: 'find'; allowed: one of build"),
        ("build query", "command: 2 words; allowed: one of"),
        ("build", "--images, --codes, --model_dir: allowed: exactly one of them"),
        ("build --images=x/* --codes=y", "allowed: exactly one of them"),
        ("build --images=photos/**", "--model: none, and the index names none"),
        ("build --images=nothing/* --model=e", "--images: nothing/*: No such file"),
        ("build --codes=none.npz", "--codes: none.npz: "),
        ("build --model_dir=none", "--model_dir: no finished run in none"),
        ("add --model=e", "--images: none; add takes files of images"),
        ("query", "--images, --ids: allowed: one of them"),
        ("query --ids=a", "--index: no index in i"),
        ("remove", "--index: no index in i"),
        ("info", "--index: no index in i"),
        ("duplicates", "--index: no index in i"),
        ("query --ids=a --k=0", "--k"),
        ("build --images=x --k=3", "--k: not of build; allowed: --index, --images, --model, --c"),
        ("info --radius=3", "--radius: not of info; allowed: --index"),
        ("add --images=x --backend=ivf", "--backend: not of add; allowed: --index, --images, "),
        ("remove --ids=a --recall=0.9", "--recall: not of remove; allowed: "),
        ("duplicates --where=a=b", "--where: not of duplicates; allowed: --index, --radius, --o"),
        ("build --images=x --recall=0.9", "--recall: without --backend; allowed: with --backend="),
        ("query --ids=a --sure_radius=1", "--sure_radius: without --backend; allowed: with --ba"),
        ("build --images=x --backend=exact --recall=0.9", "--recall: with --backend=exact, which"),
        ("build --codes=x.npz --model=e", "--model: not with --codes, whose codes are there"),
        ("query --ids=a --model=e", "--model: not with --ids, whose codes are there"),
        ("query --index=postgresql://h/d --ids=a --backend=ivf", "--backend: not with a database"),
    ],
)
def test_mistakes_are_one_line(photos, search, line, words):
    ended = search("--index=i", *line.split(), status=2)
    assert words in ended.line("tfhash.search")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("query --images=photos/a/0.png --model=m2", "--model: its fingerprint is m2, that of the"),
        ("build --images=photos/** --model=m2", "--model: its fingerprint is m2, that of the"),
        ("query --ids=nobody", "--ids: nobody not in the index"),
        ("remove", "--ids, --images: nothing to remove"),
        ("query --ids=photos/a/0.png --k=1 --radius=1", "--k: not with --radius"),
        ("query --ids=photos/a/0.png --where=x", "--where: 'x'; allowed: NAME=VALUE"),
    ],
)
def test_mistakes_with_an_index_are_one_line(built, search, line, words):
    ended = search("--index=i", *line.split(), status=2)
    assert words in ended.line("tfhash.search")


@pytest.mark.parametrize(
    "line",
    [
        "build --images=phtos/** --model=export",
        "build --images=photos/*.gif --model=export",
        "build --images=photos/** --model=none",
        "build --codes=twice.npz",
    ],
)
def test_what_is_refused_makes_no_index(photos, search, monkeypatch, line, encoders):
    def none(folder):
        raise UserError(f"`model`: no export in {folder}")

    codes = {"codes": np.zeros((2, 2), np.uint8), "paths": np.array(["a", "a"]), "code_length": 12}
    npz.write(photos.parent / "twice.npz", codes)
    if "none" in line:
        monkeypatch.setattr(module, "Encoder", none)
    search("--index=new/i", *line.split(), status=2)
    assert not (photos.parent / "new").exists()


def test_what_is_refused_changes_nothing_of_an_index(built, search, monkeypatch, tmp_path):
    before = search("info", "--index=i").output
    for command in ("add", "build"):
        images = ["--images=photos/a/*", "--model=m2"]
        ended = search(command, "--index=i", *images, status=2)
        assert "its fingerprint is m2, that of the index m1" in ended.line("tfhash.search")
        assert search("info", "--index=i").output == before


def test_relative_names_are_of_one_folder(built, search, monkeypatch, tmp_path):
    """From elsewhere they would mean other files, and the page would look for them there."""
    index = f"--index={tmp_path / 'i'}"
    (tmp_path / "photos" / "photos").mkdir()
    shutil.copy(built / "a/0.png", tmp_path / "photos" / "photos" / "0.png")
    monkeypatch.chdir(tmp_path / "photos")
    before = search("info", index).output
    for command in ("add", "build", "remove"):
        ended = search(command, index, "--images=photos/*", status=2)
        told = f"--images: photos/* from here, but names in the index are relative to {tmp_path};"
        assert told in ended.line("tfhash.search")
    assert search("info", index).output == before
    search("add", index, f"--images={tmp_path}/photos/a/*")
    assert f"folder:      {tmp_path}\n" in search("info", index).output
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "photos" / "0.png").unlink()
    (tmp_path / "moved").mkdir()
    shutil.move(tmp_path / "photos", tmp_path / "moved" / "photos")
    shutil.move(tmp_path / "i", tmp_path / "moved" / "i")
    with Index.load(tmp_path / "moved" / "i") as moved:
        moved.remember(folder=str(tmp_path / "was"))
    monkeypatch.chdir(tmp_path / "moved")  # all together: the former folder is there no more
    assert "0 encoded, 70 as" in search("build", "--index=i", "--images=photos/**").output
    assert f"folder:      {tmp_path / 'moved'}\n" in search("info", "--index=i").output


def test_a_damaged_index_says_what_to_do(built, search, tmp_path):
    (tmp_path / "i" / "codes-1.bin").write_bytes(b"short")
    for command in ("build", "query"):
        ended = search(command, "--index=i", "--images=photos/a/*", status=2)
        assert ended.line("tfhash.search").endswith("; move i away and build it again")


@pytest.mark.parametrize("where", ["n=99999999999999999999999", "n=NaN", "n=[", "caf\udce9=x"])
def test_odd_values_of_a_filter_are_no_traceback(built, search, where):
    ended = search(
        "query", "--index=i", "--ids=photos/a/0.png", f"--where={where}",
        status=2 if "caf" in where else 0,
    )  # fmt: skip
    assert "Traceback" not in ended.errors


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("no json", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"code_length": 12}', "cannot be read"),
    ],
)
def test_an_export_that_says_nothing_of_itself_is_refused(tmp_path, content, words):
    folder = tmp_path / "export" / "3"
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "saved_model.pb").touch()
    if content:
        (folder / "assets.extra" / "tfhash.json").write_text(content)
    with pytest.raises(ValueError, match=words):
        encoder_module.describe(encoder_module.newest(tmp_path / "export"))
    with pytest.raises(ValueError, match="`model`: no export in"):
        encoder_module.newest(folder / "assets.extra")
