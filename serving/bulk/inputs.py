"""The images of an input: files of a pattern, paths of a CSV, records of TFRecord files.

Each source is found in two steps, so that the second is shared among workers: `find` answers
drafts, and `items` makes images of one of these.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from apache_beam.io.filesystems import FileSystems

from tfhash import files
from tfhash.errors import UserError
from tfhash.names import ERRORS, is_text, shown
from tfhash.serving.bulk import places, records
from tfhash.serving.bulk.places import UNKNOWN

COLUMN = "path"


class Item(NamedTuple):
    """An image of the input, not read yet.

    path, offset, length: where it is; an offset of -1 is the whole file. size: in bytes. modified:
    of its file, microseconds. sha256: where it is known already. error: why it cannot be read.
    """

    id: str
    path: str
    offset: int = -1
    length: int = 0
    size: int = UNKNOWN
    modified: int = UNKNOWN
    sha256: bytes | None = None
    error: str | None = None


def reason(error: Exception) -> str:
    """What went wrong with an image, in words."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return shown(" ".join(text.replace("`", "").split())[:300])


@dataclass(frozen=True)
class Files:
    """Image files of a pattern, as `tfhash.serving.encode` finds them; elsewhere by their names."""

    pattern: str
    limit: int

    def check(self) -> None:
        """UserError where nothing matches."""
        if next(self.find(), None) is None:
            hint = "; 'FOLDER/**' takes all in a folder" if os.path.isdir(self.pattern) else ""
            raise UserError(f"--input: no image file matches {shown(self.pattern)}{hint}")

    def find(self) -> Iterator[Item]:
        if places.is_remote(self.pattern):
            for path, status in places.match(self.pattern):
                if files.named_as_image(path):
                    yield Item(path, path, size=status.size, modified=status.modified)
            return
        try:
            folder, found = files.match(self.pattern)
        except OSError as error:
            raise UserError(f"--input: {shown(self.pattern)}: {reason(error)}") from None
        for name in found.files:
            path = os.path.join(folder, name)
            yield Item(path, places.absolute(path))
        for name, why in found.unreadable.items():
            yield Item(os.path.join(folder, name), "", error=why)

    def items(self, draft: Item) -> Iterator[Item]:
        yield _located(draft)

    def read(self, item: Item) -> bytes:
        """The image. files.FileError where it is none, else what the file system raises."""
        return places.read_image(item.path, self.limit)


@dataclass(frozen=True)
class Paths(Files):
    """The files that the column `path` of a CSV names; pattern: the CSV."""

    def check(self) -> None:
        try:
            columns = self._reader().fieldnames or []
        except Exception as error:
            raise UserError(f"--input: {shown(self.pattern)}: {reason(error)}") from None
        if COLUMN not in columns:
            found = ", ".join(shown(column) for column in columns) or "none"
            raise UserError(
                f"--input: {shown(self.pattern)} has the columns {found}; allowed: one of them "
                f"called {COLUMN}"
            )

    def find(self) -> Iterator[Item]:
        for row in self._reader():
            if row[COLUMN]:
                yield Item(row[COLUMN], places.absolute(row[COLUMN]))

    def _reader(self) -> csv.DictReader:
        file = places.open_to_read(places.absolute(self.pattern), unpack=True)
        # Excel's "CSV UTF-8" begins with a mark, which would be of the first column's name.
        return csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", ERRORS, newline=""))


@dataclass(frozen=True)
class Records:
    """The images in TFRecord files of tf.train.Example; image, name: features of bytes.

    An image without an id is called FILE:OFFSET, of its record's data.
    """

    pattern: str
    limit: int
    image: str
    name: str

    def check(self) -> None:
        """UserError where nothing matches."""
        if next(self.find(), None) is None:
            raise UserError(f"--input: no file matches {shown(records.glob_of(self.pattern))}")

    def find(self) -> Iterator[Item]:
        for match in FileSystems.match([records.glob_of(self.pattern)]):
            for metadata in match.metadata_list:
                yield Item(metadata.path, places.absolute(metadata.path))

    def items(self, draft: Item) -> Iterator[Item]:
        end = 0
        try:
            with places.open_to_read(draft.path, unpack=True) as file:
                for record in records.records(file, self.limit):
                    end = record.offset + record.length
                    yield self._item(draft, record)
        except Exception as error:  # of many file systems and ways to pack
            yield draft._replace(id=f"{draft.id}:{end}", error=reason(error))

    def _item(self, draft: Item, record: records.Record) -> Item:
        item = draft._replace(
            id=f"{draft.id}:{record.offset}",
            offset=record.offset,
            length=record.length,
            size=record.length,
        )
        if record.data is None:
            return item._replace(error=record.error)
        try:
            image, name = records.image_of(record.data, self.image, self.name, self.limit)
        except files.FileError as error:
            return item._replace(error=reason(error))
        digest = hashlib.sha256(image).digest()
        return item._replace(id=name or item.id, size=len(image), sha256=digest)

    def read(self, item: Item) -> bytes:
        """The image. files.FileError where it is none, else what the file system raises."""
        with places.open_to_read(item.path, unpack=True) as file:
            file.seek(item.offset)
            data = file.read(item.length)
        return records.image_of(data, self.image, self.name, self.limit)[0]


Source = Files | Records


def source_of(pattern: str, limit: int, image: str, name: str) -> Source:
    """The source that a pattern means: by `.tfrecord` in its name, or `.csv` at its end."""
    pattern = os.path.expanduser(pattern)
    last = pattern.rpartition("/")[2]
    if ".tfrecord" in last:
        return Records(pattern, limit, image, name)
    if last.endswith((".csv", ".csv.gz")):
        return Paths(pattern, limit)
    return Files(pattern, limit)


def _located(draft: Item) -> Item:
    """With the size and time of its file, and a name that Parquet can hold."""
    if not is_text(draft.id):
        return Item(shown(draft.id), "", error="its name is no UTF-8, and Parquet cannot hold it")
    if draft.error or draft.size != UNKNOWN:
        return draft
    try:
        return draft._replace(**places.status(draft.path)._asdict())
    except Exception as error:
        return draft._replace(error=reason(error))
