"""Image files below a folder: each real file once, only regular files of bounded size opened.

The one policy for training, `encode` and an index. Standard library only.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

MEGAPIXELS = 40  # what an image may have, unless told otherwise
MAX_BYTES = 32 * 2**20  # of its file, then

STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # of JPEG and PNG files
_HEAD = 16
# Images of other formats: left out in silence, a folder of a phone's photos would lose most.
_SUFFIXES = frozenset(
    ".avif .bmp .gif .heic .heif .jfif .jpe .jpeg .jpg .jxl .png .tif .tiff .webp".split()
)
_ANY_FOLDERS = "**"


class FileError(OSError):
    """A file without an image that can be read: the reason in words."""


class NotReadError(FileError):
    """The system cannot read it now; there may be an image in it."""


@dataclass
class Found:
    """What lies below a folder.

    files: sorted relative paths with "/", one for each real file that is an image by name or
    content. others: all other regular files. unreadable: the reason for each folder, link or file
    that could not be looked into. repeated: how many more ways lead to the same files and folders.
    special: how many pipes, sockets and devices there are.
    """

    files: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    repeated: int = 0
    special: int = 0

    def notes(self) -> list[str]:
        """A sentence each on what was passed over, but for what could not be read."""
        notes = []
        if self.others:
            kinds = self._kinds()
            notes.append(f"{len(self.others)} files that are no images passed over: {kinds}")
        if self.repeated:
            notes.append(f"{self.repeated} links to files or folders already found passed over")
        if self.special:
            notes.append(f"{self.special} pipes, sockets or devices passed over")
        return notes

    def _kinds(self) -> str:
        kinds = Counter(Path(path).suffix.lower() or "no ending" for path in self.others)
        return ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))


class Content(NamedTuple):
    """The bytes of a file, and its size and modification time (ns) before they were read."""

    data: bytes
    size: int
    modified: int


Wanted = Callable[[tuple[str, ...], bool], bool]


def find(root: str | os.PathLike, wanted: Wanted = lambda parts, is_folder: True) -> Found:
    """Everything below root, hidden names aside, once each by device and inode.

    Links are followed after all that is reached without them, so that a file keeps the name that
    it has where it lies, and a link to a folder around it ends there. wanted: given the names from
    root on, whether a folder is entered, or a file taken. OSError where root cannot be listed.
    """
    os.scandir(os.fspath(root)).close()
    walk = _Walk(root, wanted)
    walk.enter(())
    for link in walk.links:  # grows while links lead to folders with links
        walk.take(link, follow=True)
    walk.found.files.sort()
    walk.found.others.sort()
    return walk.found


class _Walk:
    """The state of `find`: what was found, the places seen, and the links to follow later."""

    def __init__(self, root: str | os.PathLike, wanted: Wanted):
        self.root, self.wanted = root, wanted
        self.found = Found()
        self.links: list[tuple[str, ...]] = []
        self._seen: set[tuple[int, int]] = set()

    def enter(self, parts: tuple[str, ...]) -> None:
        """Takes all that lies below a folder."""
        folders = [parts]
        while folders:
            parts = folders.pop()
            path = os.path.join(self.root, *parts)
            try:
                if not self._is_new(os.stat(path)):
                    continue
                names = sorted(name for name in os.listdir(path) if name[0] != ".")
            except OSError as error:
                self._leave(parts, error)
                continue
            inner = [self.take((*parts, name)) for name in names]
            folders += reversed([folder for folder in inner if folder])

    def take(self, parts: tuple[str, ...], *, follow: bool = False) -> tuple[str, ...] | None:
        """Takes a file, keeps a link for later; answers a folder that is to be entered.

        follow: takes what a link leads to, a folder with all below it.
        """
        try:
            status = os.stat(os.path.join(self.root, *parts), follow_symlinks=follow)
        except OSError as error:
            if self.wanted(parts, False):
                self._leave(parts, error)
            return None
        is_folder = stat.S_ISDIR(status.st_mode)
        if stat.S_ISLNK(status.st_mode):
            self.links.append(parts)
        elif not self.wanted(parts, is_folder):
            pass
        elif is_folder and follow:
            self.enter(parts)
        elif is_folder:
            return parts
        elif not stat.S_ISREG(status.st_mode):
            self.found.special += 1
        elif self._is_new(status):
            self._sort_in(parts)
        return None

    def _sort_in(self, parts: tuple[str, ...]) -> None:
        try:
            of_its_kind = self.found.files
            if not named_as_image(parts[-1]):
                with _open(os.path.join(self.root, *parts)) as file:
                    if not file.read(_HEAD).startswith(STARTS):
                        of_its_kind = self.found.others
            of_its_kind.append("/".join(parts))
        except OSError as error:
            self._leave(parts, error)

    def _leave(self, parts: tuple[str, ...], error: OSError) -> None:
        self.found.unreadable["/".join(parts)] = error.strerror or str(error)

    def _is_new(self, status: os.stat_result) -> bool:
        place = (status.st_dev, status.st_ino)
        if place in self._seen:
            self.found.repeated += 1
            return False
        self._seen.add(place)
        return True


def named_as_image(path: str) -> bool:
    """Whether the name of a file ends as those of images do."""
    return Path(path).suffix.lower() in _SUFFIXES


def match(pattern: str) -> tuple[str, Found]:
    """The files that match a pattern as of a shell, by the rules of `find`.

    *, ? and [...] stand for names or parts of one, ** for any folders in folders, and none of them
    for hidden names. Returns the folder before the first of these, and what was found below it.
    OSError where that folder cannot be listed.
    """
    head, last = os.path.split(pattern)
    names = [last]
    while _is_magic(head):
        head, last = os.path.split(head)
        names.insert(0, last)

    def wanted(parts: tuple[str, ...], is_folder: bool) -> bool:
        return _matches(parts, tuple(names), prefix=is_folder)

    return head, find(head or os.curdir, wanted)


def _is_magic(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _matches(parts: tuple[str, ...], names: tuple[str, ...], *, prefix: bool) -> bool:
    """Whether the parts fit the names of a pattern; prefix: or more parts could make them fit."""
    reached = {0}  # how many of the names are used up by the parts so far
    for part in parts:
        after = set()
        for used in _skipped(reached, names):
            if used == len(names):
                continue
            if names[used] == _ANY_FOLDERS:
                after.add(used)
            elif fnmatch.fnmatchcase(part, names[used]):
                after.add(used + 1)
        reached = after
    reached = _skipped(reached, names)
    # A final ** stands for files too.
    ends = {len(names)} | ({len(names) - 1} if names[-1] == _ANY_FOLDERS else set())
    return any(used < len(names) for used in reached) if prefix else bool(reached & ends)


def _skipped(reached: set[int], names: tuple[str, ...]) -> set[int]:
    """The same places, and those behind each ** that stands for no folder at all."""
    result = set(reached)
    for used in sorted(reached):
        while used < len(names) and names[used] == _ANY_FOLDERS:
            used += 1
            result.add(used)
    return result


def max_bytes(megapixels: int) -> int:
    """Bytes that the file of an image may have where it may have so many megapixels."""
    return MAX_BYTES * megapixels // MEGAPIXELS


def read(path: str | os.PathLike, limit: int = MAX_BYTES) -> Content:
    """The bytes of a JPEG or PNG file, told by its content.

    Nothing but a regular file is read, and of one over the limit, in bytes, or of another format,
    only its head. FileError says what is wrong with it; NotReadError where the system does.
    """
    try:
        with _open(path) as file:
            status = os.fstat(file.fileno())  # before reading: a later change is seen as one
            head = file.read(_HEAD)
            if not head:
                raise FileError("empty")
            if not head.startswith(STARTS):
                raise FileError("not a JPEG or PNG image")
            if status.st_size > limit:
                mib = f"{status.st_size / 2**20:.1f} MiB; allowed: {limit / 2**20:.1f} MiB"
                raise FileError(f"{mib}, by `max_image_megapixels`")
            # No more is asked for than there is: as much memory is taken at once.
            data = head + file.read(max(0, status.st_size - len(head)))
            return Content(data, status.st_size, status.st_mtime_ns)
    except FileError:
        raise
    except FileNotFoundError as error:
        raise FileError(error.strerror or str(error)) from None
    except OSError as error:
        raise NotReadError(error.strerror or str(error)) from None


def _open(path: str | os.PathLike) -> BinaryIO:
    """The file, opened to read. OSError for anything but a regular file."""
    # Without O_NONBLOCK a pipe that nobody writes to is waited for at its opening.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileError("not a regular file")
    return open(descriptor, "rb")
