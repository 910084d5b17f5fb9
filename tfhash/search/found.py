"""What a search answers, and the checks of what it is asked: those of every kind of index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tfhash import codes as code_arrays
from tfhash.errors import UserError
from tfhash.names import shown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Found:
    """What a search found, one of each a query, nearest first; items at one distance by their id.

    ids: names; distances: int64, in bits; payload: what was stored with each item, None of none;
    ties_cut: int64 [q], how many other items are as far as the last one that was answered. scores:
    float32, where embeddings decided the order; else None. counts: int64 [q], how many were found,
    where a `limit` was given; else None.
    """

    ids: list[list[str]]
    distances: list[np.ndarray]
    payload: list[list[Any]]
    ties_cut: np.ndarray
    scores: list[np.ndarray] | None = None
    counts: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)


def check_codes(codes: ArrayLike, code_length: int) -> np.ndarray:
    """Packed codes of this length; UserError for others."""
    try:
        return code_arrays.validate_codes(codes, code_length)
    except ValueError as error:
        raise UserError(f"`codes`: {error}") from None


def check_search(k: int | None, radius: int | None) -> tuple[str, int]:
    """Which of the two was given and its value; k is 10 by default. UserError for others."""
    if k is not None and radius is not None:
        raise UserError("`k`: not with `radius`; allowed: one of them")
    name, value = ("k", 10 if k is None else k) if radius is None else ("radius", radius)
    return name, whole(name, value, 1 if name == "k" else 0)


def whole(name: str, value: Any, least: int) -> int:
    """The value as an int. UserError, by its name, for anything but whole numbers from `least`."""
    if not code_arrays.is_whole(value) or value < least:
        raise UserError(f"`{name}`: {value!r}; allowed: whole numbers from {least} on")
    return int(value)


def one_of_each(codes: np.ndarray, **given: Sequence[Any] | None) -> None:
    """UserError where what is given of the items, by its name, is not one of each code."""
    for name, values in given.items():
        if values is not None and len(values) != len(codes):
            raise UserError(
                f"`{name}`: {len(values):,}, but {len(codes):,} codes; allowed: one of each"
            )


def as_ids(ids: Iterable[Any]) -> list[str]:
    """Ids as text, numbers too. UserError for one text alone, whose letters would be taken."""
    if isinstance(ids, (str, bytes)):
        raise UserError(f"`ids`: {shown(repr(ids)):.80} is one text; allowed: a list of ids")
    return [*map(str, ids)]


def no_twice(ids: Sequence[str]) -> None:
    """UserError where an id comes twice."""
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(f"`ids`: {some_of(twice)} twice; allowed: each once")


def some_of(names: Sequence[str]) -> str:
    """Two of the names, and how many more there are."""
    shown_names = ", ".join(shown(name) for name in names[:2])
    more = f" and {len(names) - 2:,} more" if len(names) > 2 else ""
    return f"{shown_names}{more}"
