"""What a payload and a filter may hold: JSON, with the limits of every database that keeps it."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from typing import Any

from tfhash.errors import UserError
from tfhash.names import is_text, shown

_WHOLE = 2**63  # a database keeps whole numbers in 64 bits
Value = str | int | float | bool


def as_json(value: Any) -> str | None:
    """A payload as text, in ASCII; None of None. UserError for what is no JSON, such as NaN."""
    try:
        return None if value is None else json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"`payload`: {shown(reprlib.repr(value))} is no JSON ({error})") from None


def check_where(where: Mapping[str, Any] | None) -> dict[str, list[Value]]:
    """Of each name of a filter its values, of which an item has to have one; {} of None.

    UserError for values but text that is UTF-8, whole numbers of 64 bits, numbers, True and False,
    and lists, tuples and sets of these.
    """
    if where is not None and not isinstance(where, Mapping):
        raise UserError(f"`where`: {shown(repr(where)):.60}; allowed: a dict such as {{'n': 3}}")
    found = {}
    for name, wanted in (where or {}).items():
        if not is_text(str(name)):
            raise UserError(f"`where`: {shown(name)}; allowed: names that are UTF-8")
        values = list(wanted) if isinstance(wanted, (list, tuple, set, frozenset)) else [wanted]
        for value in values:
            _check_value(str(name), value)
        found[str(name)] = values
    return found


def _check_value(name: str, value: Any) -> None:
    told = f"`where`: {shown(name)}={shown(repr(value)):.60}; allowed: "
    if not isinstance(value, (str, int, float, bool)):
        raise UserError(f"{told}text, numbers, True and False, and lists of these")
    if isinstance(value, str) and ("\0" in value or not is_text(value)):
        raise UserError(f"{told}text that is UTF-8, without NUL")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{told}finite numbers")
    if isinstance(value, int) and not -_WHOLE <= value < _WHOLE:
        raise UserError(f"{told}whole numbers of 64 bits")


def readings(text: str) -> list[Value]:
    """What a value of a command line may stand for in JSON: text, a number, true or false."""
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return [text]
    if not isinstance(value, (int, float, bool)):
        return [text]
    try:
        _check_value("", value)
    except UserError:  # a number that no item can have
        return [text]
    return [text, value]


def _no_number(name: str) -> None:
    raise ValueError(name)


def plain(value: Any) -> Any:
    """A payload with every text in it as people can read it: what is no UTF-8 is escaped."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {shown(name): plain(one) for name, one in value.items()}
    return value


def from_json(text: str | None) -> Any:
    """Undoes `as_json`."""
    return None if text is None else json.loads(text)
