"""CSV files that users write: their rows, and the files that their paths mean."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import PurePosixPath, PureWindowsPath

from tfhash import names
from tfhash.errors import UserError


def rows(path: str | os.PathLike, setting: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, as the number of the line and the fields without blanks around.

    setting: that which names the file, for errors. UserError for a file that cannot be read, and
    one that is no CSV in UTF-8; names in it may be of any bytes.
    """
    line = 0
    try:
        with open(path, newline="", encoding="utf-8-sig", errors=names.ERRORS) as file:
            reader = csv.reader(file)
            for fields in reader:
                line = reader.line_num
                if any("\0" in field for field in fields):
                    raise csv.Error("a byte 0; allowed: a CSV in utf-8")
                if fields:
                    yield line, [field.strip() for field in fields]
    except csv.Error as error:
        raise UserError(f"`{setting}`: {path}, line {line or 1}: {error}") from None
    except OSError as error:
        raise UserError(f"`{setting}`: {path}: {error}") from None


def other_separator(fields: Sequence[str]) -> str:
    """What seems to part the columns in place of a comma; nothing where they have commas."""
    if len(fields) > 1:
        return ""
    found = [f", with {mark!r} between the columns" for mark in ";\t|" if mark in "".join(fields)]
    return found[0] if found else ""


def finder(files: Collection[str]) -> Callable[[str], str]:
    """What answers, of a path in a CSV, which file it means, and the path itself where none.

    A path may differ from its file in composition, have the backslashes of Windows, or a detour,
    as `./a.png` has. A file that is called so goes before.
    """
    find, there = names.finder(files), set(files)

    def find_any_form(path: str) -> str:
        if path in there:
            return path
        forms = (path, PurePosixPath(path).as_posix(), PureWindowsPath(path).as_posix())
        return next((file for file in map(find, forms) if file in there), path)

    return find_any_form


def hint(path: str, files: Collection[str]) -> str:
    """The file that may be meant by a path that is none: in another case, or another folder."""
    last = PureWindowsPath(path).name.casefold()
    same = [file for file in files if PurePosixPath(file).name.casefold() == last]
    same.sort(key=lambda file: (file.casefold() != path.casefold(), file))
    return f" (there is {same[0]})" if same else ""
