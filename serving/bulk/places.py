"""Files where they are: on this machine by the rules of tfhash.files, elsewhere through Beam."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from apache_beam.io.filesystem import CompressionTypes, FileMetadata
from apache_beam.io.filesystems import FileSystems

from tfhash import files
from tfhash.errors import UserError
from tfhash.names import shown

UNKNOWN = -1  # size or time
_TEMPORARY = ".tmp-"


@contextlib.contextmanager
def named(path: str, flag: str) -> Iterator[None]:
    """What a file system elsewhere objects to, of whatever kind, is a UserError that names a flag.

    It may not be installed, not know who asks, or not be there.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not is_remote(path):
            raise
        reason = shown(" ".join(str(error).split())[:300])
        raise UserError(f"--{flag}: {shown(path)}: {reason}") from None


class Status(NamedTuple):
    """Size in bytes, and time of the last change in microseconds since 1970 or UNKNOWN."""

    size: int
    modified: int


def is_remote(path: str) -> bool:
    """Whether Beam's file systems are asked for it: it has a scheme, as gs://bucket/name."""
    return "://" in path


def absolute(path: str) -> str:
    """The path as a worker finds it that runs in another folder."""
    return path if is_remote(path) else os.path.abspath(os.path.expanduser(path))


def status(path: str) -> Status:
    """Size and time of a file. Raises what the file system does."""
    if not is_remote(path):
        found = os.stat(path)
        return Status(found.st_size, found.st_mtime_ns // 1000)
    return _status(FileSystems.get_filesystem(path).metadata(path))


def match(pattern: str) -> Iterator[tuple[str, Status]]:
    """The files of a pattern of Beam; hidden ones below its folder are passed over."""
    head = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    (found,) = FileSystems.match([pattern])
    for metadata in found.metadata_list:
        if not any(name.startswith(".") for name in metadata.path[len(head) :].split("/")):
            yield metadata.path, _status(metadata)


def open_to_read(path: str, *, unpack: bool = False) -> BinaryIO:
    """A file, opened. unpack: whether .gz and such are read as what is in them."""
    compression = CompressionTypes.AUTO if unpack else CompressionTypes.UNCOMPRESSED
    return FileSystems.open(path, compression_type=compression)


def read(path: str) -> bytes:
    """All bytes of a file. Raises what the file system does."""
    with open_to_read(path) as file:
        return file.read()


def read_image(path: str, limit: int) -> bytes:
    """The bytes of a JPEG or PNG file of at most `limit` bytes. files.FileError where it is none.

    Raises, beside, what the file system does.
    """
    if not is_remote(path):
        return files.read(path, limit).data
    with open_to_read(path) as file:
        return checked(file.read(limit + 1), limit)


def checked(data: bytes, limit: int) -> bytes:
    """The bytes of an image, once they look like one. files.FileError where they do not."""
    if not data:
        raise files.FileError("empty")
    if not data.startswith(files.STARTS):
        raise files.FileError("not a JPEG or PNG image")
    if len(data) > limit:
        raise files.FileError(too_large(None, limit))
    return data


def too_large(size: int | None, limit: int) -> str:
    """Why an image of so many bytes is not read."""
    allowed = f"allowed: {limit / 2**20:.1f} MiB, by max_image_megapixels"
    return f"{size / 2**20:.1f} MiB; {allowed}" if size is not None else f"too large; {allowed}"


def exists(path: str) -> bool:
    return FileSystems.exists(path)


def write(path: str, data: bytes) -> None:
    """Writes a file in one move, so that no reader sees half of it, and makes its folder."""
    temporary = f"{path}{_TEMPORARY}{uuid.uuid4().hex}"
    with FileSystems.create(temporary, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(data)
    FileSystems.rename([temporary], [path])


def siblings(name: str) -> list[str]:
    """The files whose paths begin with this one, sorted; [] where there is no such folder."""
    folder, start = name.rpartition("/")[0], name
    if is_remote(name):
        return sorted(path for path, _ in match(f"{name}*"))
    try:
        found = [os.path.join(folder, entry) for entry in os.listdir(folder)]
    except FileNotFoundError:
        return []
    return sorted(path for path in found if path.startswith(start))


def delete_leftovers(name: str, is_own: Callable[[str], bool]) -> None:
    """Deletes what killed writers left of files whose paths begin with this one.

    is_own: says of the path of such a file whether it is the caller's; others may be written now.
    """
    leftovers = [
        path
        for path in siblings(name)
        if _TEMPORARY in path[len(name) :] and is_own(path.rpartition(_TEMPORARY)[0])
    ]
    if leftovers:
        FileSystems.delete(leftovers)


def make_folder(path: str, flag: str) -> None:
    """Makes the folder of a file of this machine. UserError where that cannot be."""
    if is_remote(path):
        return
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if not os.access(os.path.dirname(path), os.W_OK):
            raise PermissionError("it may not be written")
    except OSError as error:
        raise UserError(f"--{flag}: {shown(path)}: {error.strerror or error}") from None


def _status(metadata: FileMetadata) -> Status:
    seconds = metadata.last_updated_in_seconds  # None or 0 where the file system does not tell
    return Status(metadata.size_in_bytes, round(seconds * 1e6) if seconds else UNKNOWN)
