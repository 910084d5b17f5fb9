"""The commands of tfhash.search, run as a user runs them, with a fake encoder."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfhash import npz
from tfhash.search import __main__ as module
from tfhash.search import encoder as encoder_module
from tfhash.search.index import Index


@pytest.fixture(autouse=True)
def encoders(monkeypatch, fake_encoder):
    """The encoders that were loaded: of a folder with m2 in its name one of another model."""
    loaded = []

    def load(folder):
        loaded.append(fake_encoder(fingerprint="m2" if "m2" in str(folder) else "m1"))
        return loaded[-1]

    monkeypatch.setattr(module, "Encoder", load)
    return loaded


@pytest.fixture
def search(command):
    """search("build", ...): what came of the command, which must end well unless told."""

    def run(*arguments, status=0):
        ended = command(module, *arguments)
        assert ended.status == status, ended
        return ended

    return run


@pytest.fixture
def built(photos, search):
    search("build", "--index=i", "--images=photos/**", "--model=export")
    return photos


def test_build_query_add_remove_info(built, search, draw, encoders):
    ended = search("build", "--index=i", "--images=photos/**")
    assert "0 encoded, 70 as they were\n" in ended.output
    ended = search("query", "--index=i", "--images=photos/a/0.png", "--k=3")
    lines = ended.output.splitlines()
    assert lines[0].startswith("photos/a/0.png: 3 found")
    assert lines[1].split() == ["0", "photos/a/0.png"]
    draw(built / "a" / "new.png", 99)
    ended = search("add", "--index=i", "--images=photos/a/*")
    assert "1 encoded, 24 as they were" in ended.output and "71 codes of 12 bits" in ended.output
    ended = search("remove", "--index=i", "--images=photos/a/*", "--ids=photos/b/1.png")
    assert "26 removed" in ended.output
    info = search("info", "--index=i").output
    assert "45 codes of 12 bits" in info and "model:       m1" in info and "export/1" in info
    again = search("query", "--index=i", "--ids=photos/b/4.png", "--radius=0").output
    assert "     0  photos/b/4.png" in again


def test_a_page_of_answers(built, search, tmp_path):
    ended = search("query", "--index=i", "--images=photos/c/*", "--k=2", "--html=out/q.html")
    assert "page:       out/q.html" in ended.output
    assert (tmp_path / "out/q.html").read_text().count("<img ") == 23 * 3


def test_what_cannot_be_read_is_told_and_the_status_is_1(photos, search):
    (photos / "a/0.png").write_bytes(b"")
    images = "--images=photos/**"
    ended = search("build", "--index=i", images, "--model=export", status=1)
    assert "69 encoded, 0 as they were, 1 without a code" in ended.output
    assert ended.errors == "tfhash.search: error: photos/a/0.png: empty\n"
    ended = search("query", "--index=i", "--images=photos/a/*", status=1)
    assert "photos/a/0.png: empty" in ended.errors and "photos/a/12.png: 10 found" in ended.output


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    codes = np.array([[0, 0], [0, 16], [255, 240], [255, 224]], np.uint8)
    labels = np.array([[1, 0], [1, 0], [0, 1], [1, 1]], np.uint8)
    (tmp_path / "run").mkdir()
    metrics = {"code_length": 12, "class_names": ["cat", "dog"]}
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    ids = np.array(["x/1", "x/2", "x/3", "x/4"])
    arrays = {"codes": codes, "labels": labels, "ids": ids}
    npz.write(tmp_path / "run" / "codes" / "database.npz", arrays)
    return tmp_path / "run"


def test_the_codes_of_a_run_with_its_labels(run_folder, search):
    ended = search("build", "--index=i", "--model_dir=run")
    assert "4 codes, 0 removed\n" in ended.output
    with Index.load("i") as index:
        assert index.payload(index.ids()) == [
            {"label": "cat"}, {"label": "cat"}, {"label": "dog"}, {"labels": ["cat", "dog"]}
        ]  # fmt: skip
        assert index.model == ""
    ended = search("query", "--index=i", "--ids=x/3", "--where=label=cat")
    assert ended.output.splitlines()[1:] == ["    11  x/2", "    12  x/1"]
    both = search("query", "--index=i", "--ids=x/3", "--where=label=cat,label=dog").output
    assert both.splitlines()[1:] == ["     0  x/3", "    11  x/2", "    12  x/1"]
    ended = search("duplicates", "--index=i", "--output=d.csv", "--html=d.html")
    assert "radius:     10 bits, within which 100.00% of 1 labelled pairs" in ended.output
    assert "groups:     2 of 4 items within 10 bits" in ended.output
    assert (run_folder.parent / "d.csv").read_text().splitlines()[1:] == [
        "1,x/1", "1,x/2", "2,x/3", "2,x/4"
    ]  # fmt: skip
    told = search("duplicates", "--index=i", "--radius=0").output
    assert "groups:     0 of 0 items within 0 bits" in told


def test_the_codes_of_encode(tmp_path, monkeypatch, search):
    monkeypatch.chdir(tmp_path)
    arrays = {
        "codes": np.array([[1, 16], [2, 32]], np.uint8),
        "paths": np.array(["b", "a"]),
        "code_length": 12,
        "fingerprint": "m1",
    }
    npz.write(tmp_path / "codes.npz", arrays)
    search("build", "--index=i", "--codes=codes.npz")
    npz.write(tmp_path / "codes.npz", arrays | {"paths": np.array(["b", "c"])})
    assert "2 codes, 1 removed" in search("build", "--index=i", "--codes=codes.npz").output
    with Index.load("i") as index:
        assert (index.ids(), index.model) == (["b", "c"], "m1")
    npz.write(tmp_path / "codes.npz", arrays | {"fingerprint": "m9"})
    ended = search("build", "--index=i", "--codes=codes.npz", status=2)
    assert "its fingerprint is m9, that of the index m1" in ended.line("tfhash.search")


def test_an_approximate_backend_tells_how_it_was_set_up(run_folder, search):
    pytest.importorskip("faiss", reason="needs the extra faiss")
    search("build", "--index=i", "--model_dir=run", "--backend=multihash", "--sure_radius=2")
    told = search("query", "--index=i", "--ids=x/3", "--k=1").output
    assert "multihash, " in told and "bits are found" in told and "     0  x/3" in told
    exact = search("query", "--index=i", "--ids=x/3", "--k=1", "--backend=exact").output
    assert "multihash" not in exact


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


def test_ctrl_c_says_how_to_go_on(photos, search, monkeypatch, fake_encoder):
    def interrupted(self, contents):
        raise KeyboardInterrupt

    monkeypatch.setattr(fake_encoder, "__call__", interrupted)
    ended = search("build", "--index=i", "--images=photos/**", "--model=export", status=130)
    assert "interrupted; what was done is kept, the same command goes on" in ended.errors


def test_values_of_a_filter_are_text_or_what_json_reads():
    assert module._where(["n=3", "s=cat", "b=true", "q={"]) == {
        "n": ["3", 3], "s": ["cat"], "b": ["true", True], "q": ["{"]
    }  # fmt: skip


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
    if content:
        (folder / "assets.extra" / "tfhash.json").write_text(content)
    with pytest.raises(ValueError, match=words):
        encoder_module.describe(encoder_module.newest(tmp_path / "export"))
    with pytest.raises(ValueError, match="`model`: no export in"):
        encoder_module.newest(folder / "assets.extra")
