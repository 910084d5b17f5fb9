"""What of ids and payload a database can hold: text that is UTF-8, without the character 0."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tfhash.errors import UserError
from tfhash.names import is_text, shown
from tfhash.search import values


def is_storable(text: str) -> bool:
    """Whether a database can hold it."""
    return is_text(text) and "\0" not in text


def check_ids(ids: Sequence[str]) -> None:
    """UserError for an id that a database cannot hold."""
    for name in ids:
        if not is_storable(name):
            raise UserError(f"`ids`: {shown(name):.200} is no text that a database can hold")


def as_json(value: Any) -> str | None:
    """A payload as `values.as_json`. UserError also for text in it that a database cannot hold."""
    text = values.as_json(value)
    if text is not None:
        plain = json.dumps(value, ensure_ascii=False)
        # The backslashes that stand for themselves do not begin an escape.
        if not is_text(plain) or r"\u0000" in plain.replace("\\\\", ""):
            raise UserError(f"`payload`: {shown(plain):.100} has text that a database cannot hold")
    return text
