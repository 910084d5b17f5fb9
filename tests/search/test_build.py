"""An index of image files: what is encoded, kept, dropped and told; a fake encoder counts calls."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from tfhash import files
from tfhash.errors import UserError
from tfhash.search import build
from tfhash.search.encoder import Limits
from tfhash.search.index import Index

BITS = 12


@pytest.fixture(autouse=True)
def _names(fake_encoder, draw):
    """The fixtures of all tests here, by short names."""
    global FakeEncoder, picture
    FakeEncoder, picture = fake_encoder, draw


def new_index():
    return Index(code_length=BITS, model="m1")


def everything(index):
    ids = index.ids()
    return ids, index.codes(ids).tolist()


def updated(index, encoder=None, pattern="photos/**", drop=True):
    return build.update(index, encoder or FakeEncoder(), pattern, drop=drop)


def test_all_files_of_a_pattern_are_encoded_in_batches(photos):
    index, encoder, counts = new_index(), FakeEncoder(), []
    build.update(
        index, encoder, "photos/**", drop=True, progress=counts.append, total=counts.append
    )
    assert index.ids() == sorted(str(path) for path in photos.rglob("*.png"))
    assert encoder.asked == [32, 32, 6]
    assert counts[0] == sum(counts[1:]) == 70
    data = (photos / "a/0.png").read_bytes()
    np.testing.assert_array_equal(index.codes(["photos/a/0.png"]), FakeEncoder()([data])[0])
    assert str(updated(index, encoder)) == "0 encoded, 70 as they were"
    assert encoder.asked == [32, 32, 6]


def test_a_second_build_is_as_a_fresh_one_and_encodes_what_changed(photos):
    index = new_index()
    updated(index)
    for number in range(0, 9, 3):
        picture(photos / f"a/{number}.png", 500 + number)  # changed
        picture(photos / f"b/new{number}.png", 600 + number)
        (photos / f"c/{number + 2}.png").unlink()
    shutil.move(photos / "c/68.png", photos / "a/moved.png")
    shutil.copy(photos / "b/1.png", photos / "b/copy.png")
    os.utime(photos / "b/4.png")  # another time, the same content
    encoder = FakeEncoder()
    changes = updated(index, encoder)
    assert sum(encoder.asked) == 6
    assert str(changes) == "6 encoded, 63 as they were, 2 moved or copied, 4 removed"
    fresh = new_index()
    updated(fresh)
    assert everything(index) == everything(fresh)


def test_adding_drops_nothing(photos):
    index = new_index()
    updated(index, pattern="photos/a/*")
    changes = updated(index, pattern="photos/b/*", drop=False)
    assert changes.removed == 0 and len(index) == 24 + 23
    assert updated(index, pattern="photos/b/*").removed == 24


def test_what_has_no_code_is_told_and_no_longer_found(photos):
    index = new_index()
    updated(index)
    (photos / "a/0.png").write_bytes(b"\x89PNG\r\n\x1a\n REFUSED by the graph")
    (photos / "a/3.png").write_bytes(b"")
    (photos / "b/text.png").write_text("no image")
    (photos / "notes.txt").write_text("nothing")
    changes = updated(index)
    assert changes.unreadable == {
        "photos/a/0.png": "damaged, or refused by the model",
        "photos/a/3.png": "empty",
        "photos/b/text.png": "not a JPEG or PNG image",
    }
    assert changes.notes == ["1 files that are no images passed over: .txt 1"]
    assert str(changes) == "0 encoded, 68 as they were, 3 not read or refused"
    assert len(index) == 68 and "photos/a/0.png" not in index


def test_an_interrupted_build_goes_on(photos, monkeypatch):
    monkeypatch.setattr(build, "KEPT", 20)

    class Stops(FakeEncoder):  # type: ignore[misc, valid-type]
        def __call__(self, contents):
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            return super().__call__(contents)

    index = new_index()
    with pytest.raises(KeyboardInterrupt):
        updated(index, Stops())
    assert len(index) == 40
    encoder = FakeEncoder()
    updated(index, encoder)
    assert sum(encoder.asked) == 30 and len(index) == 70


def label(index, name, words):
    content = [index.content()[name]]
    index.change(index.codes([name]), ids=[name], payload=[words], content=content, replace=True)


def test_payload_goes_with_the_content_of_a_file(photos):
    index = new_index()
    updated(index)
    names = [f"photos/a/{n}.png" for n in (0, 3, 6)]
    for number, name in enumerate(names):
        label(index, name, {"x": number})
    os.utime(names[0])
    shutil.move(names[1], photos / "moved.png")
    picture(photos / "a/6.png", 300)
    updated(index)
    assert index.payload([names[0], "photos/moved.png", names[2]]) == [{"x": 0}, {"x": 1}, None]


@pytest.mark.parametrize("backwards", [False, True])
def test_files_that_are_renumbered_keep_their_own_codes(photos, monkeypatch, backwards):
    """A photo is inserted in front: each file takes the name of the next, over several groups."""
    monkeypatch.setattr(build, "KEPT", 7)
    shutil.rmtree(photos)
    photos.mkdir()
    for number in range(40):
        picture(photos / f"{number:03d}.png", number)
    index, encoder = new_index(), FakeEncoder()
    updated(index)
    for number in range(40):
        label(index, f"photos/{number:03d}.png", number)
    order = range(40) if backwards else reversed(range(40))
    step = -1 if backwards else 1
    if backwards:  # the first one goes, each takes the name of the one before
        (photos / "000.png").unlink()
        order = range(1, 40)
    for number in order:
        os.rename(photos / f"{number:03d}.png", photos / f"{number + step:03d}.png")
    if not backwards:
        picture(photos / "000.png", 999)
    changes = updated(index, encoder)
    fresh = new_index()
    updated(fresh)
    assert everything(index) == everything(fresh)
    assert sum(encoder.asked) == (not backwards)
    assert (changes.moved, changes.removed) == ((39, 1) if backwards else (40, 0))
    payload = [*range(1, 40)] if backwards else [None, *range(40)]
    assert index.payload(index.ids()) == payload
    assert updated(index, encoder).unchanged == len(index)


def test_files_that_change_places_keep_their_own_codes(photos, monkeypatch):
    monkeypatch.setattr(build, "KEPT", 1)
    index = new_index()
    updated(index)
    for one, other in (("a/0.png", "b/1.png"), ("a/3.png", "c/2.png")):
        os.rename(photos / one, "aside")
        os.rename(photos / other, photos / one)
        os.rename("aside", photos / other)
    encoder = FakeEncoder()
    updated(index, encoder)
    fresh = new_index()
    updated(fresh)
    assert everything(index) == everything(fresh) and encoder.asked == []


def test_one_new_content_under_several_names_is_encoded_once(photos, monkeypatch):
    monkeypatch.setattr(build, "KEPT", 2)
    index, encoder = new_index(), FakeEncoder()
    updated(index)
    picture(photos / "a/new.png", 800)
    for name in ("b", "c", "d", "e"):
        shutil.copy(photos / "a/new.png", photos / f"a/{name}.png")
    (photos / "a/bad.png").write_bytes(b"\x89PNG\r\n\x1a\n REFUSED by the graph")
    shutil.copy(photos / "a/bad.png", photos / "a/worse.png")
    changes = updated(index, encoder)
    assert sum(encoder.asked) == 2
    assert (changes.encoded, changes.moved, len(changes.unreadable)) == (1, 4, 2)
    assert len({tuple(code) for code in index.codes([f"photos/a/{n}.png" for n in "bcde"])}) == 1


def test_what_a_disk_does_not_give_keeps_its_codes(photos, monkeypatch):
    """A folder and a file have I/O errors; a file is gone, another is no image any more."""
    index = new_index()
    updated(index)
    listdir, read = os.listdir, files.read

    def failing_listdir(path):
        if str(path).endswith("photos/b"):
            raise OSError(5, "Input/output error")
        return listdir(path)

    def failing_read(path, *limit):
        if str(path).endswith("a/3.png"):
            raise files.NotReadError("Input/output error")
        return read(path, *limit)

    os.utime(photos / "a/3.png")
    (photos / "a/0.png").unlink()
    (photos / "a/6.png").write_text("no image any more")
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", failing_listdir)
        patch.setattr(files, "read", failing_read)
        changes = updated(index)
    assert len(index) == 68 and "photos/a/3.png" in index and "photos/b/1.png" in index
    assert "photos/a/6.png" not in index and "photos/a/0.png" not in index
    assert set(changes.unreadable) == {"photos/b", "photos/a/3.png", "photos/a/6.png"}
    assert str(changes) == (
        "0 encoded, 44 as they were, 1 removed, 3 not read or refused, "
        "24 that were not read keep their codes"
    )
    assert str(updated(index)) == "0 encoded, 68 as they were, 1 not read or refused"


def test_a_file_may_be_as_large_as_the_model_takes(photos):
    """33 MiB, one more than usual: it is encoded, keeps its code, and may be asked for."""
    large, encoder = photos / "a/0.png", FakeEncoder()
    os.truncate(large, 33 << 20)
    encoder.limits = Limits(max_bytes=33 << 20)
    index = new_index()
    assert updated(index, encoder).unreadable == {}
    os.utime(large)
    assert updated(index, encoder).unchanged == 70
    assert build.encode_files(encoder, str(large))[0] == [str(large)]
    os.utime(large)
    reason = "33.0 MiB; allowed: 32.0 MiB, by max_image_megapixels"
    assert build.encode_files(FakeEncoder(), str(large))[2] == {str(large): reason}
    assert updated(index).unreadable == {str(large): reason}


def test_a_name_that_the_index_cannot_hold_is_told(photos):
    (photos / "a/0.png").rename(photos / os.fsdecode(b"a/caf\xe9.png"))
    index = new_index()
    changes = build.update(index, FakeEncoder(), "photos/**", drop=True, text_only=True)
    assert changes.unreadable == {
        "photos/a/caf\udce9.png": "its name is no UTF-8, and the index cannot hold it"
    }
    assert len(index) == 69


def test_an_index_without_a_model_is_tied_to_the_first_one(photos):
    index = Index(code_length=BITS)
    updated(index)
    assert index.model == "m1"
    with pytest.raises(UserError, match="`model`: its fingerprint is m2"):
        updated(index, FakeEncoder(fingerprint="m2"))


def test_codes_of_an_unknown_model_get_none_of_a_known_one_beside_them(photos):
    """Adding keeps them; building keeps those of files that are as they were."""
    index = Index(code_length=BITS)
    index.change(np.zeros((1, 2), np.uint8), ids=["photos/a/0.png"])
    unknown = "`model`: its fingerprint is m1; which model made the codes .* is not known; allowed"
    with pytest.raises(UserError, match=f"{unknown}: build, or another index"):
        updated(index, drop=False)
    assert index.model == "" and len(index) == 1
    assert updated(index).encoded == 70 and index.model == "m1"
    other = Index(code_length=BITS)
    updated(other, FakeEncoder(fingerprint=""))
    with pytest.raises(UserError, match=f"{unknown}: another index"):
        updated(other)


@pytest.mark.parametrize(
    ("encoder", "line"),
    [
        (
            {"code_length": 16},
            "`model`: makes codes of 16 bits, the index has 12; allowed: the model",
        ),
        ({"fingerprint": "m2"}, "`model`: its fingerprint is m2, that of the index m1: co"),
    ],
)
def test_codes_of_another_model_are_refused(photos, encoder, line):
    with pytest.raises(UserError, match=line):
        updated(new_index(), FakeEncoder(**encoder))


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        ("photos", "`images`: no image file matches photos; 'FOLDER/\\*\\*' takes all in a folder"),
        ("photos/*.gif", r"`images`: no image file matches photos/\*.gif"),
        ("nowhere/*", r"`images`: nowhere/\*: No such file or directory"),
    ],
)
def test_patterns_without_a_file_are_one_line(photos, pattern, line):
    with pytest.raises(UserError, match=line):
        updated(new_index(), pattern=pattern)
