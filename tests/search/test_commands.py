"""The commands of tfhash.search, run as a user runs them, with a fake encoder."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfhash import npz
from tfhash.search import commands
from tfhash.search.index import Index


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


def pictures(page):
    """(name, size) of the pictures of a page, by the order in which they stand there."""
    found = re.findall(r"base64,([^\"]+)\"><figcaption>[^<]*<br>([^<]*)<", page.read_text())
    images = [Image.open(io.BytesIO(base64.b64decode(data))) for data, _ in found]
    return [(name, image.size) for (_, name), image in zip(found, images, strict=True)]


def test_a_page_shows_what_was_asked_for_from_another_folder(built, search, tmp_path, monkeypatch):
    """The same name from there means another picture: 5 x 7, where those of the index are 9 x 9."""
    Path("there/photos/a").mkdir(parents=True)
    Image.new("RGB", (5, 7), "red").save("there/photos/a/0.png")
    monkeypatch.chdir("there")
    asked = (["--images=photos/a/0.png"], (5, 7)), (["--ids=photos/a/0.png"], (9, 9))
    for flags, size in asked:
        search("query", "--index=../i", *flags, "--k=1", "--html=q.html")
        (name, shown), (_, answer) = pictures(tmp_path / "there/q.html")
        assert (name, shown, answer) == ("photos/a/0.png", size, (9, 9))


def test_a_page_has_pictures_as_large_as_the_model_takes(built, search, tmp_path):
    told = tmp_path / "export/1/assets.extra/tfhash.json"
    told.parent.mkdir(parents=True)
    (tmp_path / "export/1/saved_model.pb").touch()
    content = {"fingerprint": "m1", "code_length": 12, "limits": {"max_bytes": 33 << 20}}
    os.truncate("photos/a/0.png", 33 << 20)
    for text, count in (("", 0), (json.dumps(content), 1)):
        told.write_text(text)
        search("query", "--index=i", "--ids=photos/a/0.png", "--k=1", "--html=q.html")
        shown = [name for name, _ in pictures(tmp_path / "q.html")]
        assert shown.count("photos/a/0.png") == 2 * count


@pytest.mark.parametrize("with_model", [True, False])
def test_the_page_of_an_index_in_a_folder(built, search, monkeypatch, with_model):
    """The server is asked in this process, in place of being started; then Ctrl-C ends it."""
    testclient = pytest.importorskip("starlette.testclient", reason="needs the extra page")
    uvicorn = pytest.importorskip("uvicorn", reason="needs the extra page")
    given = []
    if not with_model:
        with Index.load("i") as index:
            index.remember(export="")

    def serve(app, host, port, log_level):
        given.append((host, port))
        with testclient.TestClient(app, base_url=f"http://{host}:{port}") as client:
            about = client.get("/api/index").json()
            assert (about["count"], about["encodes"]) == (70, with_model)
            assert "Find images" in client.get("/").text
            answer = client.get(f"/api/search?number={about['first']}&k=2").json()
            assert answer["items"][0]["id"] == "photos/a/0.png"
            assert client.get(f"/thumbnail/{about['first']}").content[:2] == b"\xff\xd8"
            sent = client.post("/api/search", content=(built / "a/0.png").read_bytes())
            assert sent.status_code == (200 if with_model else 400)
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn, "run", serve)
    ended = search("page", "--index=i", "--port=8123", status=130)
    assert "page:       http://127.0.0.1:8123/ (Ctrl-C ends it)" in ended.output
    assert given == [("127.0.0.1", 8123)]


def test_a_page_may_have_an_address_of_ipv6(built, search, monkeypatch):
    testclient = pytest.importorskip("starlette.testclient", reason="needs the extra page")
    uvicorn = pytest.importorskip("uvicorn", reason="needs the extra page")

    def serve(app, host, port, log_level):
        assert host == "fd00::7"
        with testclient.TestClient(app, base_url="http://[fd00::7]:8123") as client:
            assert client.get("/api/index").json()["count"] == 70

    monkeypatch.setattr(uvicorn, "run", serve)
    ended = search("page", "--index=i", "--host=fd00::7", "--port=8123")
    assert "page:       http://[fd00::7]:8123/ (Ctrl-C ends it)" in ended.output


def test_a_page_needs_the_model_of_its_index_and_a_folder(built, search):
    ended = search("page", "--index=i", "--model=m2", status=2)
    assert "its fingerprint is m2, that of the index m1" in ended.line("tfhash.search")
    ended = search("page", "--index=postgresql://h/d", status=2)
    assert "--index: a database; page needs an index in a folder" in ended.line("tfhash.search")


def test_what_cannot_be_read_is_told_and_the_status_is_1(photos, search):
    (photos / "a/0.png").write_bytes(b"")
    images = "--images=photos/**"
    ended = search("build", "--index=i", images, "--model=export", status=1)
    assert "69 encoded, 0 as they were, 1 not read or refused" in ended.output
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


def test_a_run_of_one_label_each(run_folder, search):
    path = run_folder / "codes" / "database.npz"
    arrays = npz.read(path, ["codes", "labels", "ids"])
    npz.write(path, arrays | {"labels": np.array([[1, 0], [0, 1], [0, 1], [0, 0]], np.uint8)})
    search("build", "--index=i", "--model_dir=run")
    with Index.load("i") as index:
        payload = index.payload(index.ids())
    assert payload == [{"label": "cat"}, {"label": "dog"}, {"label": "dog"}, {}]
    ended = search("query", "--index=i", "--ids=x/1", "--where=label=dog")
    assert ended.output.splitlines()[1:] == ["     1  x/2", "    12  x/3"]


def test_the_codes_of_a_run_with_its_labels(run_folder, search):
    ended = search("build", "--index=i", "--model_dir=run")
    assert "4 codes, 0 removed\n" in ended.output
    with Index.load("i") as index:
        assert index.payload(index.ids()) == [
            {"labels": of_image} for of_image in (["cat"], ["cat"], ["dog"], ["cat", "dog"])
        ]
        assert index.model == ""
    ended = search("query", "--index=i", "--ids=x/3", "--where=labels=cat")
    assert ended.output.splitlines()[1:] == ["     1  x/4", "    11  x/2", "    12  x/1"]
    both = search("query", "--index=i", "--ids=x/1", "--where=labels=dog,labels=bird").output
    assert both.splitlines()[1:] == ["    11  x/4", "    12  x/3"]
    ended = search("duplicates", "--index=i", "--output=d.csv")
    assert "radius:     0 bits, the same code; " in ended.output
    assert "2 labelled pairs within 1 bits are too few to say that more is safe" in ended.output
    ended = search("duplicates", "--index=i", "--radius=1", "--output=d.csv", "--html=d.html")
    assert "groups:     2 of 4 items within 1 bits" in ended.output
    assert (run_folder.parent / "d.csv").read_text().splitlines()[1:] == [
        "1,x/1", "1,x/2", "2,x/3", "2,x/4"
    ]  # fmt: skip
    page = (run_folder.parent / "d.html").read_text()
    assert page.count("<section>") == 2 and page.count("1 bits<br>") == 2
    told = search("duplicates", "--index=i", "--radius=1").output
    assert told.splitlines()[1:] == ["  x/1  x/2", "  x/3  x/4"]
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


def test_codes_of_no_known_model_are_replaced_by_those_of_one(tmp_path, monkeypatch, search):
    monkeypatch.chdir(tmp_path)
    arrays = {"codes": np.zeros((2, 2), np.uint8), "paths": np.array(["b", "a"]), "code_length": 12}
    for name, told in (("none", {}), ("m1", {"fingerprint": "m1"}), ("m2", {"fingerprint": "m2"})):
        npz.write(tmp_path / f"{name}.npz", arrays | told)
    search("build", "--index=i", "--codes=none.npz")
    search("build", "--index=i", "--codes=m1.npz")
    assert "model:       m1" in search("info", "--index=i").output
    for name, words in (("m2", "is m2, that"), ("none", "is unknown, that")):
        ended = search("build", "--index=i", f"--codes={name}.npz", status=2)
        assert f"--model: its fingerprint {words} of the index m1" in ended.line("tfhash.search")


def test_images_are_not_added_to_codes_of_no_known_model(photos, search):
    codes = {"codes": np.zeros((1, 2), np.uint8), "paths": np.array(["b"]), "code_length": 12}
    npz.write(photos.parent / "none.npz", codes)
    search("build", "--index=i", "--codes=none.npz")
    before = search("info", "--index=i").output
    ended = search("add", "--index=i", "--images=photos/**", "--model=export", status=2)
    assert "is not known; allowed: build, or another index" in ended.line("tfhash.search")
    assert search("info", "--index=i").output == before
    search("build", "--index=i", "--images=photos/**", "--model=export")
    assert "model:       m1" in search("info", "--index=i").output


def test_an_index_of_no_codes_takes_some_again(tmp_path, monkeypatch, search):
    monkeypatch.chdir(tmp_path)
    for count in (2, 0, 3):
        names = np.array([f"x{n}" for n in range(count)], str)
        arrays = {"codes": np.zeros((count, 2), np.uint8), "paths": names, "code_length": 12}
        npz.write(tmp_path / "codes.npz", arrays)
        ended = search("build", "--index=i", "--codes=codes.npz")
        assert f"i, {count} codes of 12 bits" in ended.output


def test_an_approximate_backend_tells_how_it_was_set_up(run_folder, search):
    pytest.importorskip("faiss", reason="needs the extra faiss")
    made = ["--backend=multihash", "--sure_radius=2"]
    told = search("build", "--index=i", "--model_dir=run", *made).output
    assert "multihash, " in told and "bits are found" in told
    told = search("query", "--index=i", "--ids=x/3", "--k=1").output
    assert "multihash, " in told and "bits are found" in told and "     0  x/3" in told
    exact = search("query", "--index=i", "--ids=x/3", "--k=1", "--backend=exact").output
    assert "multihash" not in exact
    search("build", "--index=i", "--model_dir=run", "--backend=exact")
    assert "backend:     exact" in search("info", "--index=i").output
    told = search("build", "--index=i", "--model_dir=run", "--backend=ivf", "--recall=0.5").output
    assert "ivf, " in told
    assert "backend:     ivf" in search("info", "--index=i").output
    search("build", "--index=i", "--model_dir=run")  # the same as before
    with Index.load("i") as index:
        assert index._backend.settings["recall"] == "0.5"


def test_ctrl_c_says_how_to_go_on(photos, search, monkeypatch, fake_encoder):
    def interrupted(self, contents):
        raise KeyboardInterrupt

    monkeypatch.setattr(fake_encoder, "__call__", interrupted)
    ended = search("build", "--index=i", "--images=photos/**", "--model=export", status=130)
    assert "interrupted; what was done is kept, the same command goes on" in ended.errors


def test_values_of_a_filter_are_text_or_what_json_reads():
    assert commands.where_of(["n=3", "s=cat", "b=true", "q={"]) == {
        "n": ["3", 3], "s": ["cat"], "b": ["true", True], "q": ["{"]
    }  # fmt: skip
