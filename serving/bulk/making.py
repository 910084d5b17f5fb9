"""A shard is made: what is known stays, the rest is read and encoded, one move writes it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from tfhash import files, shards
from tfhash.names import shown
from tfhash.serving.bulk import places
from tfhash.serving.bulk.inputs import Item, Source, reason
from tfhash.serving.bulk.models import Model
from tfhash.serving.bulk.places import UNKNOWN
from tfhash.serving.local import Tally
from tfhash.shards import Facts, Row

# Answers each batch of images with their codes, or why there is none, and adds to a tally.
Encoder = Callable[[Iterable[Sequence[bytes]], Tally], Iterator[list[bytes | str]]]
_ReadImage = tuple[bytes, bytes]  # and its SHA-256
_READERS = 8  # files that are read at a time: a file far away takes long to begin


@dataclass(frozen=True)
class Job:
    """What all shards share. name: their path before -00000-of-; limit: bytes of an image.

    batch, batch_bytes: images that are encoded at a time, both at most; one image may be larger.
    """

    name: str
    shards: int
    source: Source
    model: Model
    megapixels: int
    limit: int
    batch: int
    batch_bytes: int


@dataclass
class Counts:
    """What became of the images of a shard: `read` and `encoded` now, `unchanged` kept their code,
    `bad` have none. finished: whether the shard was found as it should be, and nothing was done."""

    images: int = 0
    read: int = 0
    encoded: int = 0
    unchanged: int = 0
    bad: int = 0
    finished: bool = False


def shard_of(name: str, count: int) -> int:
    """The shard of an image, by its id alone: always the same, whoever asks."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % count


@dataclass
class Making:
    """One shard. encoder: answers what encodes, asked only where there is something to encode.

    tally: what was seen of that.
    """

    job: Job
    shard: int
    encoder: Callable[[], Encoder]
    counts: Counts = field(default_factory=Counts)
    tally: Tally = field(default_factory=Tally)

    def run(self, items: Iterable[Item]) -> Counts:
        """Brings the shard up to these images. Raises what reading or writing of shards does."""
        ordered = sorted({*items}, key=lambda item: (item.id, item.path, item.offset))
        path = shards.path_of(self.job.name, self.shard, self.job.shards)
        before = places.read(path) if places.exists(path) else None
        facts, known = self._known(path, before)
        wanted = self._facts(ordered)
        if facts and facts.unread == 0 and wanted == facts._replace(rows=0, errors=0):
            self.counts = Counts(facts.rows, bad=facts.errors, finished=True)
            return self.counts
        rows = self._rows(ordered, known)
        data = shards.to_bytes(wanted, rows)
        if data != before:  # where a file could not be read again, nothing has changed
            places.write(path, data)
        self.counts.images = len(rows)
        self.counts.bad = sum(row.code is None for row in rows)
        return self.counts

    def _known(self, path: str, before: bytes | None) -> tuple[Facts | None, dict[str, Row]]:
        """The facts of the shard that is there, and what of its rows holds still.

        Nothing of one that is damaged: it is told, and made again.
        """
        if before is None:
            return None, {}
        model = self.job.model
        try:
            facts, table = shards.read(io.BytesIO(before))
            found = shards.rows_of(table)
        except ValueError as error:  # that it is a shard was known before the job began
            told = f"{shown(path)}: {reason(error)}; it is made again"
            print(told, file=sys.stderr, flush=True)  # on one machine the logs of workers are off
            return None, {}
        of_model = model.fingerprint, model.code_length, model.engine
        if (facts.fingerprint, facts.code_length, facts.engine) != of_model:
            return None, {}
        rows = [row for row in found if row.code is not None]
        if facts.megapixels == self.job.megapixels:
            refused = [row for row in found if row.code is None and row.size >= 0]
            rows = refused + rows  # of a name that came twice, the one with a code
        return facts, {row.id: row for row in rows}

    def _facts(self, ordered: Iterable[Item]) -> Facts:
        digest = hashlib.sha256()
        for item in ordered:
            parts = [item.id, item.size, item.modified, (item.sha256 or b"").hex(), item.error]
            digest.update(json.dumps(parts).encode())
        return Facts(
            self.job.model.fingerprint,
            self.job.model.code_length,
            self.shard,
            self.job.shards,
            self.job.megapixels,
            digest.hexdigest(),
            engine=self.job.model.engine,
        )

    def _rows(self, ordered: Sequence[Item], known: dict[str, Row]) -> list[Row]:
        """A row of each image, by id."""
        rows: list[Row] = []
        to_read: list[Item] = []
        seen: dict[str, Item] = {}
        for item in ordered:
            first = seen.setdefault(item.id, item)
            if first is not item:
                text = f"its id stands at {first.path or 'another name'} too, and counts there"
                item = item._replace(error=item.error or text, size=max(item.size, 0))
            row = self._without_reading(item, known.get(item.id))
            if row is None:
                to_read.append(item)
            else:
                rows.append(row)
        to_read.sort(key=lambda item: (item.path, item.offset))
        rows += self._read_and_encoded(to_read, known)
        return sorted(rows, key=lambda row: (row.id, row.code is None, row.error or ""))

    def _without_reading(self, item: Item, known: Row | None) -> Row | None:
        if item.error is not None:
            return _refused(item, item.error)
        if item.size > self.job.limit:
            return _refused(item, places.too_large(item.size, self.job.limit))
        if known is None:
            return None
        if item.sha256 is not None:
            same = known.sha256 == item.sha256
        else:
            same = known[2:4] == (item.size, item.modified) and item.modified != UNKNOWN
        self.counts.unchanged += same and known.code is not None
        return known if same else None

    def _read_and_encoded(self, items: Sequence[Item], known: dict[str, Row]) -> Iterator[Row]:
        """The rows of images that may be new. A batch is read while others are encoded."""
        settled: list[Row] = []
        asked: deque[list[tuple[Item, bytes]]] = deque()
        batches = self._batches(items, known, settled, asked)
        with contextlib.closing(batches):
            first = next(batches, None)
            if first is not None:
                encoder = self.encoder()
                for answers in encoder(itertools.chain([first], batches), self.tally):
                    for (item, digest), answer in zip(asked.popleft(), answers, strict=True):
                        code, why = (answer, None) if isinstance(answer, bytes) else (None, answer)
                        self.counts.encoded += code is not None
                        yield Row(item.id, code, item.size, item.modified, digest, why)
        yield from settled

    def _batches(
        self,
        items: Sequence[Item],
        known: dict[str, Row],
        settled: list[Row],
        asked: deque[list[tuple[Item, bytes]]],
    ) -> Generator[list[bytes], None, None]:
        """Images to encode. What they are, with their digests, goes into asked, a batch before it
        is taken; the rows of those that need no encoding go into settled."""
        ahead: tuple[list[Item], list[Future[bytes]]] = [], []
        with ThreadPoolExecutor(_READERS) as pool:
            for group in [*groups(items, self.job.batch, self.job.batch_bytes), []]:
                reading = [pool.submit(self.job.source.read, item) for item in group]
                new: list[tuple[Item, bytes]] = []
                contents: list[bytes] = []
                for item, future in zip(*ahead, strict=True):
                    found = self._read(item, future, known.get(item.id))
                    if isinstance(found, Row):
                        settled.append(found)
                    else:
                        new.append((item, found[1]))
                        contents.append(found[0])
                if new:
                    asked.append(new)
                    yield contents
                ahead = group, reading

    def _read(self, item: Item, future: Future[bytes], known: Row | None) -> Row | _ReadImage:
        """An image with its digest, or its row where it need not, or cannot, be encoded."""
        try:
            data = future.result()
        except files.NotReadError as error:
            return _refused(item._replace(size=UNKNOWN), reason(error))
        except files.FileError as error:
            return _refused(item, reason(error))
        except Exception as error:  # of many file systems
            return _refused(item._replace(size=UNKNOWN), reason(error))
        self.counts.read += 1
        digest = hashlib.sha256(data).digest()
        if known and known.sha256 == digest:
            self.counts.unchanged += known.code is not None
            return known._replace(size=item.size, modified=item.modified)
        return data, digest


def groups(items: Sequence[Item], most: int, most_bytes: int) -> Iterator[list[Item]]:
    """Items, in their order, in groups of at most so many and of so many bytes."""
    group: list[Item] = []
    size = 0
    for item in items:
        if group and (len(group) == most or size + max(item.size, 0) > most_bytes):
            yield group
            group, size = [], 0
        group.append(item)
        size += max(item.size, 0)
    if group:
        yield group


def _refused(item: Item, why: str) -> Row:
    return Row(item.id, None, item.size, item.modified, item.sha256, why)
