"""An index of image files: what is encoded, kept, dropped and told; a fake encoder counts calls."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from tfhash.errors import UserError
from tfhash.search import build
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
    assert str(changes) == "0 encoded, 68 as they were, 3 without a code"
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


def test_payload_of_a_file_stays_where_its_content_does(photos):
    index = new_index()
    updated(index)
    name = "photos/a/0.png"
    stored = index.content()[name]
    index.change(
        index.codes([name]), ids=[name], payload=[{"x": 1}], content=[stored], replace=True
    )
    os.utime(name)
    updated(index)
    assert index.payload([name]) == [{"x": 1}]


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
