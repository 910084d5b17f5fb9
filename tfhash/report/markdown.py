"""Texts of users in Markdown: as what they are, and no markup."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tfhash.names import shown

# An underscore within a word marks nothing up. The last two: what would become a link by itself.
_MARKUP = re.compile(
    r"[\\`*~$\[\]<>&|#]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.", re.IGNORECASE
)
_IN_CELL = re.compile(r"(?<!\\)\|")


def plain(text: object) -> str:
    """A text that reads as it is, in one line: what would mark it up has a backslash before it."""
    return _MARKUP.sub(r"\\\g<0>", shown(text))


def code(text: object) -> str:
    """A text in one line of code, between as many backticks as it takes."""
    line = shown(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if line[:1] == "`" or line[-1:] == "`" else ""
    return f"{fence}{space}{line}{space}{fence}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: set[str]) -> str:
    """A table of cells that are Markdown; left: the columns that are aligned so."""
    alignment = [":--" if name in left else "--:" for name in header]
    lines = [[_IN_CELL.sub(r"\\|", cell) for cell in line] for line in (header, alignment, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
