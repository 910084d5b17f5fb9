"""The encoder of a real export: the codes of the hasher, for files."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import tfhash
from tfhash.errors import UserError
from tfhash.exports import newest
from tfhash.search import build
from tfhash.search.encoder import Encoder, Limits, limits_of
from tfhash.search.index import Index

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A hasher and the folder of its export."""
    hasher = tfhash.ITQ(code_length=12, seed=0).fit(IMAGES)
    folder = tmp_path_factory.mktemp("exported") / "export"
    tfhash.export_saved_model(hasher, folder)
    return hasher, folder


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def test_files_get_the_codes_of_the_hasher(exported):
    hasher, folder = exported
    encoder = Encoder(folder)
    content = json.loads((folder / "1" / "assets.extra" / "tfhash.json").read_text())
    assert (encoder.code_length, encoder.fingerprint) == (12, content["fingerprint"])
    codes, valid = encoder([png(image) for image in IMAGES[:9]] + [b"\xff\xd8\xff no image"])
    np.testing.assert_array_equal(codes[:9], hasher.encode(IMAGES[:9]))
    assert valid.tolist() == [True] * 9 + [False]
    assert Encoder(folder / "1").fingerprint == encoder.fingerprint


def test_an_index_of_a_folder_finds_what_the_hasher_would(exported, tmp_path, monkeypatch):
    hasher, folder = exported
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(IMAGES):
        (tmp_path / f"photos/{number:02d}.png").write_bytes(png(image))
    encoder = Encoder(folder)
    index = Index(code_length=12, model=encoder.fingerprint)
    build.update(index, encoder, "photos/*", drop=True)
    ids = [f"photos/{number:02d}.png" for number in range(40)]
    expected = Index(hasher.encode(IMAGES), ids=ids, code_length=12)
    queries = hasher.encode(IMAGES[::5])
    assert index.search(queries, k=7).ids == expected.search(queries, k=7).ids
    names, codes, bad = build.encode_files(encoder, "photos/0*")
    assert names == ids[:10] and bad == {}
    np.testing.assert_array_equal(codes, hasher.encode(IMAGES[:10]))


def test_the_limits_of_an_export_are_those_of_its_run(exported, tmp_path):
    """An export of before it told them has the usual ones: 32 MiB and 40 megapixels."""
    _, folder = exported
    shutil.copytree(folder / "1", tmp_path / "1")
    path = tmp_path / "1" / "assets.extra" / "tfhash.json"
    content = json.loads(path.read_text())
    assert Encoder(tmp_path).limits == limits_of(content) == Limits(32 << 20, 40 * 10**6)
    content["limits"] |= {"max_bytes": 80 << 20, "max_pixels": 10**8}
    path.write_text(json.dumps(content))
    assert Encoder(tmp_path).limits == Limits(80 << 20, 10**8)
    for odd in ({}, {"limits": None}, {"limits": {"max_bytes": "9"}}):
        assert limits_of(odd) == Limits()


def test_the_newest_version_is_taken(exported, tmp_path):
    for number in (2, 10, 9):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "saved_model.pb").touch()
    assert newest(tmp_path).name == "10"


def test_an_export_that_cannot_be_loaded_is_one_line(exported, tmp_path):
    _, folder = exported
    (tmp_path / "1" / "assets.extra").mkdir(parents=True)
    described = (folder / "1" / "assets.extra" / "tfhash.json").read_text()
    (tmp_path / "1" / "assets.extra" / "tfhash.json").write_text(described)
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"no model")
    with pytest.raises(UserError, match="`model`: .*/1 cannot be loaded") as caught:
        Encoder(tmp_path)
    assert "\n" not in str(caught.value)
