"""The command, run as a user runs it, in this process."""

from __future__ import annotations

import csv
import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("apache_beam", reason="needs Apache Beam: `make beam`")

from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem

from tests.beam import rows
from tests.serving.conftest import JPEG, FakeServer
from tfhash.search import coded_shards
from tfhash.serving.bulk import pipeline, places, running
from tfhash.serving.bulk.__main__ import NAME
from tfhash.serving.local import Tally

REPOSITORY = Path(__file__).parents[2]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_what_a_run_tells_and_lists(photos, bulk, fingerprint):
    ended = bulk()
    *told, profile = ended.output.splitlines()
    assert told == [
        f"out/codes@4.parquet: 40 codes of 13 bits, fingerprint {fingerprint}",
        "41 images read, 40 encoded, 0 as they were; 0 of 4 shards were finished before",
    ]
    assert re.fullmatch(
        "ms an image: .* network .*; bound by (reading|decoding|the network)", profile
    )
    line = ended.line(NAME, 1)
    assert line.endswith(f"2 of 42 images have no code: {Path.cwd()}/out/codes-errors.csv")
    with open("out/codes-errors.csv", newline="") as file:
        listed = [*csv.reader(file)]
    assert [row[0] for row in listed] == ["id", "photos/bad.jpg", "photos/empty.png"]
    assert listed[1][1].startswith("refused by the model: ") and listed[2][1] == "empty"
    (photos / "bad.jpg").unlink()
    (photos / "empty.png").unlink()
    ended = bulk()
    assert (ended.status, ended.errors) == (0, "")
    assert "0 images read, 0 encoded" in ended.output
    assert Path("out/codes-errors.csv").read_text() == "id,error\n"


def test_counts_are_metrics_of_beam(photos, export):
    """Run by the parts that the command puts together."""
    from tfhash.serving.bulk import inputs, models
    from tfhash.serving.bulk.making import Job

    source = inputs.source_of("photos/**", 2**20, "image", "id")
    model = models.of_directory(str(export), 1)
    job = Job(str(Path("out/codes").absolute()), 4, source, model, 40, 2**20, 8, 2**20)
    counted = running.run(running.options_of([]), job)
    expected = {"images": 42, "read": 41, "encoded": 40, "unchanged": 0, "bad": 2}
    expected |= {"shards_made": 4, "shards_finished": 0}
    seen = pipeline.tally_of(counted)
    assert expected.items() <= counted.items() and counted.keys() == {*pipeline.NAMES}
    assert 0 < seen.images < 41 and min(seen.decoding_us, seen.network_us) > 0
    assert (seen.compared, seen.differing) == (0, 0)
    counted = running.run(running.options_of([]), job)
    expected = {"images": 42, "read": 0, "encoded": 0, "unchanged": 0, "bad": 2}
    expected |= {"shards_made": 0, "shards_finished": 4}
    assert expected.items() <= counted.items() and pipeline.tally_of(counted) == Tally()


def test_an_index_takes_the_shards(photos, bulk, codes_of, fingerprint):
    """By the reader of `tfhash.search build`, which itself needs more than is installed here."""
    bulk()
    codes, ids, code_length, model = coded_shards.read("out/codes@4.parquet")
    assert (code_length, model) == (13, fingerprint)
    assert sorted(ids) == sorted(map(str, photos.glob("[ab]/*.png")))
    assert [*map(bytes, codes)] == codes_of([Path(path).read_bytes() for path in ids])


class Elsewhere(LocalFileSystem):
    """A file system behind a scheme: mem://NAME is NAME below a folder of this machine."""

    root = ""

    @classmethod
    def scheme(cls):
        return "mem"

    def _own(self, path):
        return self.root + "/" + path.removeprefix("mem://")

    def join(self, base, *paths):
        return "/".join([base.rstrip("/"), *paths])

    def split(self, path):
        head, _, tail = path.rpartition("/")
        return head, tail

    def _list(self, folder):
        for found in super()._list(self._own(folder)):
            path = found.path.replace(self.root + "/", "mem://", 1)
            yield FileMetadata(path, found.size_in_bytes, found.last_updated_in_seconds)

    def _path_open(self, path, *arguments, **more):
        return super()._path_open(path, *arguments, **more)

    def open(self, path, *arguments, **more):
        return super().open(self._own(path), *arguments, **more)

    def create(self, path, *arguments, **more):
        return super().create(self._own(path), *arguments, **more)

    def rename(self, sources, targets):
        return super().rename([*map(self._own, sources)], [*map(self._own, targets)])

    def exists(self, path):
        return super().exists(path if path.startswith("/") else self._own(path))

    def metadata(self, path):
        return super().metadata(self._own(path))

    def delete(self, paths):
        for path in paths:
            os.remove(self._own(path))


def test_another_file_system(photos, bulk, export, monkeypatch):
    """Images, model and shards are there: the same codes under other ids."""
    monkeypatch.setattr(Elsewhere, "root", str(Path.cwd()))
    shutil.copytree(export, "model")
    (photos / ".hidden.png").write_bytes(b"")
    bulk()
    Path("elsewhere").mkdir()
    leftover = Path("elsewhere/codes-00000-of-00004.parquet.tmp-0")
    leftover.write_bytes(b"half")
    given = {"model": "mem://model", "input": "mem://photos/**"}
    ended = bulk(**given, output="mem://elsewhere/codes@4.parquet")
    assert ended.status == 1 and "41 images read, 40 encoded" in ended.output, ended
    expected = {f"mem://{name}": code for name, code in rows.codes().items()}
    assert rows.codes("elsewhere") == expected and not leftover.exists()
    ended = bulk(**given, output="mem://elsewhere/codes@4.parquet")
    assert "; 4 of 4 shards were finished before" in ended.output
    assert list(places.siblings("mem://elsewhere/codes-e")) == ["mem://elsewhere/codes-errors.csv"]


@pytest.fixture
def served():
    server = FakeServer()
    yield server
    server.stop()


def jpegs(count: int) -> None:
    Path("photos").mkdir()
    for number in range(count):
        Path(f"photos/{number:02}.jpg").write_bytes(JPEG + b"%c%d" % (ord("a") + number, number))


def test_a_server_in_place_of_a_model(bulk, served, tmp_path, monkeypatch):
    """The fake's codes are the first byte of a file and the high half of the second."""
    monkeypatch.chdir(tmp_path)
    jpegs(12)
    Path("photos/bad.jpg").write_bytes(JPEG)
    ended = bulk(model=None, target=served.target, timeout=5)
    assert "12 codes of 12 bits, fingerprint f3" in ended.output
    assert rows.codes() == {
        f"photos/{n:02}.jpg": bytes([ord("a") + n, ord(str(n)[0]) & 0xF0]) for n in range(12)
    }
    assert rows.rows()["photos/bad.jpg"]["error"] == "damaged"
    files = served.service.files()
    bulk(model=None, target=served.target, timeout=5)
    assert served.service.files() == files


def test_a_server_that_changes_its_model_ends_the_job(bulk, served, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jpegs(12)

    def before(number, context):
        served.service.fingerprint = "f3" if number < 2 else "f4"

    served.service.before = before
    ended = bulk(model=None, target=served.target, timeout=5)
    line = ended.line(NAME, 1)
    assert "the job failed: " in line and "fingerprint f4, expected f3" in line
    assert {rows.facts(path)["fingerprint"] for path in rows.shards()} <= {"f3"}


def test_a_server_that_is_not_there(bulk, photos):
    line = bulk(model=None, target="127.0.0.1:1", timeout=1).line(NAME, 1)
    assert "127.0.0.1:1" in line


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"output": "codes.parquet"}, "--output: codes.parquet; allowed: NAME@SHARDS.parquet"),
        ({"output": "codes@0.parquet"}, "--output: codes@0.parquet; allowed: NAME@SHARDS"),
        ({"output": "photos/note.txt/c@2.parquet"}, "--output: .*note.txt.*: "),
        ({"input": "photos/*.gif"}, "--input: no image file matches photos/"),
        ({"input": "photos"}, "'FOLDER/.*' takes all in a folder"),
        ({"input": "x.tfrecord@*"}, "--input: no file matches x.tfrecord-"),
        ({"input": "gone.csv"}, "--input: gone.csv: No such file"),
        ({"input": "two.csv"}, "--input: two.csv has the columns a, b; allowed: one of them"),
        ({"model": None}, "--model, --target: allowed: exactly one of them"),
        ({"target": "x:1"}, "--model, --target: allowed: exactly one of them"),
        ({"model": None, "target": "x:1", "engine": "tflite"}, "--engine: behind --target the"),
        ({"model": None, "target": "x:1", "tf_threads": 2}, "--tf_threads: behind --target the"),
        ({"timeout": 5}, "--timeout: no server is asked; allowed: with --target"),
        ({"model_name": "other"}, "--model_name: no server is asked"),
        ({"image_feature": "jpeg"}, "--image_feature: --input has no features; allowed: with .tf"),
        ({"input": "two.csv", "id_feature": "name"}, "--id_feature: --input has no features"),
        ({"engine": "torch"}, "--engine=torch"),
        ({"model": "photos"}, "--model: no export in photos"),
        ({"inptu": "x"}, "--inptu: unknown; allowed: the flags that --help tells, and Beam's"),
        ({"direct_num_workers": "two"}, "argument --direct_num_workers: invalid int value: 'two'"),
        ({"batch": 0}, "--batch"),
        ({"input": "gs://b/**"}, r"--input: gs://b/\*\*: .*apache.beam"),
        ({"model": "nobody://b"}, "--model: nobody://b: "),
        ({"output": "nobody://b/c@2.parquet"}, "--output: nobody://b/c: "),
    ],
)
def test_mistakes_are_one_line(photos, bulk, changes, expected):
    Path("two.csv").write_text("a,b\n1,2\n")
    assert re.search(expected, bulk(**changes).line(NAME))
    assert not Path("out").exists()


def test_an_argument_that_is_no_flag(photos, bulk):
    line = bulk("photos/a.png").line(NAME)
    assert "unexpected argument 'photos/a.png'; every option is a --flag=value" in line


def test_what_lies_at_the_output_is_not_overwritten(photos, bulk):
    bulk()
    line = bulk(output="out/codes@3.parquet").line(NAME)
    assert "is one of 4 shards, not 3; allowed: " in line
    path = Path("out/codes-00001-of-00004.parquet")
    for content in (b"mine", path.read_bytes()[:-9]):
        path.write_bytes(content)
        assert f"{path}: no shard of tfhash.serving.bulk, or damaged" in bulk().line(NAME)
        assert path.read_bytes() == content


def test_another_model_is_told(photos, bulk, make_export, tmp_path):
    bulk()
    ended = bulk(model=make_export(tmp_path / "other", 2))
    assert "4 shards are of another model: all of theirs is encoded anew" in ended.output
    assert "40 encoded, 0 as they were; 0 of 4 shards were finished" in ended.output
    assert len({rows.facts(path)["fingerprint"] for path in rows.shards()}) == 1


def documented() -> list[list[str]]:
    """The arguments of each line of bulk in the pages."""
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages).replace("\\\n", " ")
    found = re.findall(rf"^(?:\S*/)?python -m {re.escape(NAME)} +(.+)$", text, re.MULTILINE)
    return [shlex.split(line) for line in found]


def test_the_lines_of_the_pages_are_known(parse_only):
    from tfhash.serving.bulk import __main__ as module

    assert len(documented()) >= 5
    for arguments in documented():
        own = [
            a for a in arguments if re.match("--(model|target|input|output|model_name|engine)=", a)
        ]
        given = parse_only(module, *own)
        assert given["input"] and given["output"] and (given["model"] or given["target"])
        others = [argument for argument in arguments if argument not in own]
        options = running.options_of(others).get_all_options(drop_default=True)
        assert all(a[2:].partition("=")[0] in options for a in others), (others, options)


def test_pandas_reads_the_codes(photos, bulk):
    pandas = pytest.importorskip("pandas", reason="needs pandas")
    bulk()
    frame = pandas.concat(map(pandas.read_parquet, rows.shards()))
    coded = frame[frame["code"].notna()]
    assert dict(zip(coded["id"], coded["code"], strict=True)) == rows.codes()
    assert frame[frame["error"].notna()]["id"].tolist() == ["photos/bad.jpg", "photos/empty.png"]


def test_numpy_reads_the_codes(photos, bulk, fingerprint):
    """As the page says: pyarrow and NumPy are enough."""
    bulk()
    page = (REPOSITORY / "docs" / "bulk.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names: dict = {}
    exec(block.replace("codes-*", "out/codes-*"), names)
    assert names["fingerprint"] == fingerprint
    expected = rows.codes()
    assert names["codes"].dtype == np.uint8 and names["codes"].shape == (40, 2)
    assert dict(zip(names["ids"], map(bytes, names["codes"]), strict=True)) == expected


@pytest.mark.parametrize(
    ("runner", "expected"),
    [
        (None, True),
        ("DirectRunner", True),
        ("direct", True),
        ("PrismRunner", False),
        ("DataflowRunner", False),
    ],
)
def test_the_direct_runner_is_kept_from_fetching_another(runner, expected):
    """Beam takes Prism, a binary of the Internet, unless this option is set."""
    options = running.options_of([f"--runner={runner}"] if runner else [])
    assert options.get_all_options()["allow_unsafe_triggers"] is expected
