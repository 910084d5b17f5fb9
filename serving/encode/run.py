"""The work: files in, rows of the journal out, a few requests at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing

from tfhash.serving._parts import groups
from tfhash.serving.answers import Codes
from tfhash.serving.client import HashClient
from tfhash.serving.encode import files
from tfhash.serving.encode.files import Image
from tfhash.serving.encode.in_process import InProcess
from tfhash.serving.encode.journal import Journal
from tfhash.serving.encode.results import Row, Source
from tfhash.serving.errors import InvalidInput, VersionChanged

Client = HashClient | InProcess
_SIGNATURE = "encode_bytes_partial"  # what on_error="mask" asks


def encode(
    client: Client,
    source: Source,
    paths: Iterable[str],
    journal: Journal,
    batch: int,
    megapixels: int,
    advance: Callable[[int], None],
) -> None:
    """Adds a row for every path to the journal, but where it has one and the file is the same.

    batch: files in a request. megapixels: the limit of an image. advance: told how many more paths
    are done. At any time no more files are in memory than the requests in flight hold, and one
    batch. Raises HashServiceError, with all rows before it in the journal; VersionChanged where not
    `source` answers, of which no row gets there.
    """
    sent: deque[list[Image]] = deque()  # not itertools.tee, which keeps dozens more of them

    def contents() -> Iterator[list[bytes]]:
        reading = _read(paths, journal, megapixels, advance)
        for images in groups(reading, lambda image: len(image.content), batch):
            sent.append(images)
            yield [image.content for image in images]

    with closing(client.stream(contents(), on_error="mask")) as answers:
        for codes in answers:
            images = sent.popleft()
            swap = _swap(source, codes.version, codes.fingerprint, codes.code.shape[1])
            if swap:
                raise swap
            journal.add(dict(_rows(client, images, codes)))
            advance(len(images))
    # Of a server without fingerprints, that of a model in its place was never asked for.
    if isinstance(client, HashClient) and not source.fingerprint:
        now = client.metadata()
        swap = _swap(source, now.version, now.fingerprint, -(-(now.code_length or 0) // 8))
        if swap:
            journal.delete()  # which of its rows are of which model, nobody knows
            raise swap


def _swap(source: Source, version: int, fingerprint: str, width: int) -> VersionChanged | None:
    """What to raise where codes of these, width bytes each, are not of the source."""
    if (version, fingerprint, width) == (source.version, source.fingerprint, source.width):
        return None
    if version != source.version:
        message = f"version {source.version} was replaced by version {version}"
    elif fingerprint != source.fingerprint:
        message = (
            f"version {version} was replaced by another model of that version: its fingerprint was "
            f"{source.fingerprint or 'none'} and is {fingerprint or 'none'}"
        )
    else:
        message = f"codes of {width} bytes, expected {source.width} for {source.code_length} bits"
    return VersionChanged(source.model, _SIGNATURE, source.target, None, message)


def _rows(client: Client, images: Sequence[Image], codes: Codes) -> Iterator[tuple[str, Row]]:
    for image, code, valid in zip(images, codes.code, codes.valid, strict=True):
        if valid:
            yield image.path, Row(image.size, image.modified, code.tobytes())
        else:
            yield image.path, Row(image.size, image.modified, None, _reason(client, image))


def _reason(client: Client, image: Image) -> str:
    """Why the server refuses an image: encode_bytes_partial does not tell, encode_bytes does."""
    try:
        client.encode_bytes([image.content])
    except InvalidInput as error:
        return files.reason(error.message)
    return files.DAMAGED


def _read(
    paths: Iterable[str], journal: Journal, megapixels: int, advance: Callable[[int], None]
) -> Iterator[Image]:
    """The files to send, in order; what cannot be sent goes into the journal."""
    for path in paths:
        found = _open(path, journal.rows.get(path), megapixels)
        if isinstance(found, Image):
            yield found
            continue
        if found:
            journal.add({path: found})
        advance(1)


def _open(path: str, known: Row | None, megapixels: int) -> Image | Row | None:
    """The file, or a row that says why it cannot be sent, or None where it is as it was known."""
    try:
        status = os.stat(path)
        if known and (known.size, known.modified) == (status.st_size, status.st_mtime_ns):
            return None
        return files.read(path, megapixels)
    except OSError as error:
        return Row(-1, -1, None, error.strerror or str(error))
