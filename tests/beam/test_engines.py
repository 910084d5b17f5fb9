"""The command with other engines: codes of the SavedModel, files that do not depend on workers."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("apache_beam", reason="needs Apache Beam: `make beam`")

from tests.beam import rows
from tests.beam.conftest import SECONDS
from tests.beam.test_commands import Elsewhere
from tests.beam.test_distributed import TWO, contents
from tfhash.serving.bulk import __main__ as module
from tfhash.serving.bulk import models
from tfhash.serving.bulk.__main__ import NAME

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnxruntime", "tf2onnx"))
each_engine = pytest.mark.parametrize(
    "engine",
    [
        pytest.param(
            "onnxruntime", marks=pytest.mark.skipif(not HAS_ONNX, reason="needs the extra onnx")
        ),
        "tflite",
    ],
)
FILES = {"onnxruntime": "encoder.onnx", "tflite": "encoder_float32.tflite"}


@pytest.fixture
def own(export, tmp_path) -> Path:
    """A copy of the export that a test may spoil."""
    return shutil.copytree(export, tmp_path / "own")


def compared(errors: str, engine: str) -> tuple[int, int]:
    found = re.search(
        rf"^--engine={engine}: (\d+) of (\d+) bits differ from the SavedModel's, in the first batch"
        " of each process$",
        errors,
        re.MULTILINE,
    )
    assert found, errors
    return int(found[1]), int(found[2])


@each_engine
def test_codes_are_those_of_the_saved_model_whatever_the_workers(
    photos, bulk, start, codes_of, engine
):
    two = start(*TWO, engine=engine, output="two/codes@4.parquet")
    ended = bulk(engine=engine)
    differing, total = compared(ended.errors, engine)
    assert differing == 0 and 0 < total <= 40 * 13 and total % 13 == 0
    paths = [str(path) for path in sorted(photos.glob("[ab]/*.png"))]
    expected = dict(zip(paths, codes_of([Path(path).read_bytes() for path in paths]), strict=True))
    assert rows.codes() == expected
    assert {rows.facts(path)["engine"] for path in rows.shards()} == {engine}
    output, errors = two.communicate(timeout=SECONDS)
    assert two.returncode == 1 and "40 codes of 13 bits" in output, errors
    assert compared(errors, engine)[0] == 0
    assert contents("two") == contents("out")
    again = bulk(engine=engine)
    assert "; 4 of 4 shards were finished before" in again.output
    assert "bits differ" not in again.errors and "ms an image" not in again.output


def test_shards_of_another_engine_are_refused(photos, bulk):
    bulk()
    before = contents()
    line = bulk(engine="tflite").line(NAME)
    assert (
        "out/codes-00000-of-00004.parquet is of --engine=tensorflow, not tflite, whose codes"
        in (line)
    )
    assert contents() == before


def test_after_a_new_export_another_engine_may_be_taken(photos, bulk, make_export, tmp_path):
    bulk()
    other = make_export(tmp_path / "other", 2)
    ended = bulk(model=other, engine="tflite")
    assert "4 shards are of another model" in ended.output
    assert {rows.facts(path)["engine"] for path in rows.shards()} == {"tflite"}


def test_shards_of_before_there_were_engines_are_of_tensorflow(photos, bulk, monkeypatch):
    from tfhash import shards

    bulk()
    with monkeypatch.context() as patch:
        fields = shards.Facts._asdict

        def without(self):
            return {name: value for name, value in fields(self).items() if name != "engine"}

        patch.setattr(shards.Facts, "_asdict", without)
        shutil.rmtree("out")
        bulk()
    assert "engine" not in rows.facts(rows.shards()[0])
    before = rows.times(rows.shards())
    assert "; 4 of 4 shards were finished before" in bulk().output
    assert rows.times(rows.shards()) == before
    assert "is of --engine=tensorflow, not tflite" in bulk(engine="tflite").line(NAME)


@each_engine
def test_a_file_of_another_model_ends_the_job(photos, bulk, own, make_export, tmp_path, engine):
    other = make_export(tmp_path / "other", 2)
    shutil.copy(other / FILES[engine], own / FILES[engine])
    ended = bulk(model=own, engine=engine)
    line = ended.line(NAME, 1)
    assert re.search(rf"the job failed: .*--engine={engine}: \d+ of \d+ bits differ", line)
    assert rows.shards() == []


@each_engine
def test_a_file_that_is_not_there(photos, bulk, own, engine):
    (own / FILES[engine]).unlink()
    line = bulk(model=own, engine=engine).line(NAME)
    assert f"--engine={engine}: there is no {own}/{FILES[engine]}; python -m tfhash.export" in line


def test_an_engine_elsewhere(photos, bulk, export, monkeypatch):
    """The export and its files are behind another file system."""
    monkeypatch.setattr(Elsewhere, "root", str(Path.cwd()))
    shutil.copytree(export, "model")
    assert compared(bulk(model="mem://model", engine="tflite").errors, "tflite")[0] == 0
    found = rows.codes()
    shutil.rmtree("out")
    bulk()
    assert rows.codes() == found
    Path("model/encoder_float32.tflite").unlink()
    line = bulk(model="mem://model", engine="tflite", output="x/c@2.parquet").line(NAME)
    assert "there is no mem://model/encoder_float32.tflite" in line


def test_flags_get_to_where_they_work(photos, bulk, export, monkeypatch):
    given = []

    class Stop(Exception):
        pass

    def of_directory(*arguments):
        given.append(arguments)
        raise Stop

    monkeypatch.setattr(models, "of_directory", of_directory)
    with pytest.raises(Stop):
        bulk(engine="tflite", tf_threads=3)
    assert given == [(str(export), 3, "tflite")] and module.NAME == NAME
