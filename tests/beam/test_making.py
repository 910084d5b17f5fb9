"""A shard, made without Beam's runners: what is read, what is encoded, and what stays."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("apache_beam", reason="needs Apache Beam: `make beam`")

from tests.beam import rows
from tfhash import files
from tfhash.serving.bulk import output
from tfhash.serving.bulk.inputs import Files, Item, reason
from tfhash.serving.bulk.making import Counts, Job, Making, groups, shard_of
from tfhash.serving.bulk.models import Model

SHARDS = 4
LIMIT = 2**20


def code_of(content: bytes) -> bytes:
    """13 bits: the low three of the second byte are 0."""
    digest = hashlib.md5(content).digest()
    return bytes([digest[0], digest[1] & 0xF8])


class FakeEncoder:
    """Keeps what it was asked; refuses files that say so."""

    def __init__(self):
        self.batches: list[list[bytes]] = []

    def __call__(self, batches, tally):
        for contents in batches:
            self.batches.append([*contents])
            tally.images += len(contents)
            yield ["refused" if b"REFUSED" in c else code_of(c) for c in contents]

    @property
    def asked(self) -> list[bytes]:
        return [content for batch in self.batches for content in batch]


@pytest.fixture
def job(photos, tmp_path) -> Job:
    source = Files("photos/**", LIMIT)
    return Job(
        str(tmp_path / "out" / "codes"), SHARDS, source, Model("f1", 13), 40, LIMIT, 8, 2**20
    )


def make(job: Job, *, backwards: bool = False) -> tuple[FakeEncoder, Counts]:
    """All shards of a job, one after the other, and the sums of what was counted."""
    of_shard = defaultdict(list)
    for draft in job.source.find():
        for item in job.source.items(draft):
            of_shard[shard_of(item.id, job.shards)].append(item)
    encoder = FakeEncoder()
    total = Counts()
    for shard in range(job.shards):
        items = of_shard[shard][::-1] if backwards else of_shard[shard]
        counts = Making(job, shard, lambda: encoder).run(items)
        for name in vars(total):
            setattr(total, name, getattr(total, name) + getattr(counts, name))
    return encoder, total


def test_the_shard_is_of_the_id_alone():
    """sha256 of the id, its first 16 digits as a number."""
    digits = hashlib.sha256("photos/ä.jpg".encode()).hexdigest()[:16]
    assert shard_of("photos/ä.jpg", 1000) == int(digits, 16) % 1000
    assert {shard_of(str(number), 7) for number in range(100)} == set(range(7))


def test_rows_are_of_the_files(job, photos):
    encoder, counts = make(job)
    found = rows.rows()
    paths = [str(path) for path in photos.rglob("*") if path.suffix in (".png", ".jpg")]
    assert sorted(found) == sorted(paths) and len(paths) == 42
    for path in photos.glob("[ab]/*.png"):
        row, content, status = found[str(path)], path.read_bytes(), path.stat()
        assert row["code"] == code_of(content) and row["error"] is None
        assert row["sha256"] == hashlib.sha256(content).digest()
        assert (row["size"], row["modified"]) == (len(content), status.st_mtime_ns // 1000)
    assert (found["photos/empty.png"]["code"], found["photos/empty.png"]["error"]) == (
        None,
        "empty",
    )
    assert counts == Counts(images=42, read=41, encoded=41, unchanged=0, bad=1, finished=0)
    assert max(map(len, encoder.batches)) == 8
    for shard, path in enumerate(rows.shards()):
        facts = rows.facts(path)
        assert (facts["fingerprint"], facts["code_length"], facts["shard"]) == ("f1", 13, shard)
        table = [*rows.rows_of(path)]
        assert [row["id"] for row in table] == sorted(row["id"] for row in table)
        assert {shard_of(row["id"], SHARDS) for row in table} <= {shard}


def test_made_again_nothing_is_touched(job):
    make(job)
    before = rows.times(rows.shards())
    encoder, counts = make(job, backwards=True)
    assert encoder.batches == [] and rows.times(rows.shards()) == before
    assert counts == Counts(images=42, bad=1, finished=SHARDS)


def test_what_was_seen_while_encoding_is_kept(job):
    """By the one of the shard, which Beam counts."""
    items = [item for draft in job.source.find() for item in job.source.items(draft)]
    making = Making(replace(job, shards=1), 0, FakeEncoder)
    assert making.run(items).encoded == making.tally.images == 41


class AheadEncoder(FakeEncoder):
    """Takes a batch before it answers the one before, as what decodes ahead does."""

    def __call__(self, batches, tally):
        ahead = None
        for contents in batches:
            if ahead:
                yield from super().__call__([ahead], tally)
            ahead = contents
        if ahead:
            yield from super().__call__([ahead], tally)


def test_an_encoder_may_take_batches_ahead(job, photos):
    items = [item for draft in job.source.find() for item in job.source.items(draft)]
    Making(replace(job, shards=1), 0, AheadEncoder).run(items)
    found = rows.codes()
    expected = {str(path): code_of(path.read_bytes()) for path in photos.glob("[ab]/*.png")}
    assert {name: code for name, code in found.items() if name in expected} == expected


def test_another_engine_encodes_all_anew(job):
    """Where one gets here: the command refuses it."""
    make(job)
    encoder, _ = make(replace(job, model=Model("f1", 13, engine="tflite")))
    assert len(encoder.asked) == 41
    assert {rows.facts(path)["engine"] for path in rows.shards()} == {"tflite"}


@pytest.mark.parametrize(("place", "size"), [(b"PAR1", 9), (b"photos/", 1)])
def test_a_damaged_shard_is_told_and_made_again(job, capsys, place, size):
    """Its footer is whole; a page has no header, or a name is no UTF-8."""
    make(job)
    path = rows.shards()[1]
    content = path.read_bytes()
    start = content.index(place) + len(place)
    path.write_bytes(content[:start] + b"\xff" * size + content[start + size :])
    output.prepare(job)  # does not mind
    _, counts = make(job)
    assert counts.finished == SHARDS - 1 and path.read_bytes() == content
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path.absolute()}: ") and line.endswith("; it is made again")


def test_leftovers_of_this_job_alone_are_cleared(job, tmp_path):
    """A job whose name begins with this one's may be running."""
    (tmp_path / "out").mkdir()
    files_of = ("-00001-of-00004.parquet.tmp-0", "-errors.csv.tmp-0")
    for name in ("codes", "codes-big"):
        for end in files_of:
            (tmp_path / "out" / f"{name}{end}").touch()
    output.prepare(job)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"codes-big{end}" for end in files_of
    }


def test_the_order_of_the_input_does_not_matter(job):
    make(job)
    before = {path: path.read_bytes() for path in rows.shards()}
    for path in before:
        path.unlink()
    make(job, backwards=True)
    assert {path: path.read_bytes() for path in rows.shards()} == before


def test_only_what_is_new_or_changed_is_encoded(job, photos):
    make(job)
    before = rows.rows()
    (photos / "a/00.png").write_bytes(files.STARTS[0] + b"changed")
    (photos / "new.jpg").write_bytes(files.STARTS[0] + b"new")
    os.utime(photos / "a/02.png", (1, 1))
    (photos / "a/04.png").unlink()
    encoder, counts = make(job)
    assert sorted(encoder.asked) == [files.STARTS[0] + b"changed", files.STARTS[0] + b"new"]
    assert (counts.read, counts.encoded) == (3, 2)
    after = rows.rows()
    assert after.keys() ^ before.keys() == {"photos/new.jpg", "photos/a/04.png"}
    touched = before["photos/a/02.png"] | {"modified": 1_000_000}
    assert after["photos/a/02.png"] == touched
    assert after["photos/a/00.png"]["code"] == code_of(files.STARTS[0] + b"changed")
    same = before.keys() & after.keys() - {"photos/a/00.png", "photos/a/02.png"}
    assert all(before[name] == after[name] for name in same)


def test_another_model_encodes_all_anew(job):
    make(job)
    encoder, _ = make(replace(job, model=Model("f2", 13)))
    assert len(encoder.asked) == 41
    assert {rows.facts(path)["fingerprint"] for path in rows.shards()} == {"f2"}


def test_what_the_model_refuses_is_asked_again_only_under_another_limit(job, photos):
    (photos / "refused.jpg").write_bytes(files.STARTS[0] + b"REFUSED")
    make(job)
    assert rows.rows()["photos/refused.jpg"]["error"] == "refused"
    (photos / "new.jpg").write_bytes(files.STARTS[0] + b"new")
    encoder, _ = make(replace(job, shards=SHARDS))
    assert encoder.asked == [files.STARTS[0] + b"new"]
    encoder, _ = make(replace(job, megapixels=41))
    assert encoder.asked == [files.STARTS[0] + b"REFUSED"]


def test_a_file_over_the_limit_is_not_read(job, photos):
    (photos / "large.jpg").write_bytes(files.STARTS[0] + bytes(LIMIT))
    make(job)
    error = rows.rows()["photos/large.jpg"]["error"]
    assert error == "1.0 MiB; allowed: 1.0 MiB, by max_image_megapixels"
    limit = 2 * LIMIT
    encoder, _ = make(
        replace(job, megapixels=80, limit=limit, source=Files("photos/**", limit)),
    )
    assert [len(content) for content in encoder.asked] == [LIMIT + 3]


def test_what_the_system_does_not_read_is_tried_each_time(job, monkeypatch):
    """And its shard is written anew only once it can be read."""
    broken = {"photos/a/00.png"}
    read = Files.read

    def failing(self, item):
        if item.id in broken:
            raise OSError(5, "Input/output error")
        return read(self, item)

    monkeypatch.setattr(Files, "read", failing)
    make(job)
    row = rows.rows()["photos/a/00.png"]
    assert (row["size"], row["code"], row["error"]) == (-1, None, "Input/output error")
    before = rows.times(rows.shards())
    encoder, counts = make(job)
    assert encoder.asked == [] and counts.finished == SHARDS - 1
    assert rows.times(rows.shards()) == before
    broken.clear()
    encoder, _ = make(job)
    assert encoder.asked == [Path("photos/a/00.png").read_bytes()]
    assert make(job)[1].finished == SHARDS


def test_an_id_that_comes_twice_counts_once(job):
    items = [
        Item("one", str(Path("photos/a/00.png").absolute()), size=9, modified=1),
        Item("one", str(Path("photos/a/02.png").absolute()), size=9, modified=1),
        Item("one", str(Path("photos/a/00.png").absolute()), size=9, modified=1),
    ]
    encoder = FakeEncoder()
    Making(replace(job, shards=1), 0, lambda: encoder).run(items)
    (path,) = rows.shards()
    found = [(row["id"], row["code"] is not None) for row in rows.rows_of(path)]
    assert found == [("one", True), ("one", False)]
    assert encoder.asked == [Path("photos/a/00.png").read_bytes()]


def test_groups_are_bounded_in_both_ways():
    items = [Item(str(size), "", size=size) for size in (3, 3, 3, 10, 1, 1, 1)]
    found = [[item.size for item in group] for group in groups(items, 2, 7)]
    assert found == [[3, 3], [3], [10], [1, 1], [1]]


def test_reasons_are_one_line_and_speak_of_no_setting():
    assert reason(files.FileError("over, by `max`\nof it")) == "over, by max of it"
    assert reason(ValueError()) == "ValueError"
