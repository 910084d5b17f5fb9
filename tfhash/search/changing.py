"""Adding and removing items, for every kind of index: both are parts of one change."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Changing(abc.ABC):
    """The part of an index that adds and removes items by its `change`."""

    code_length: int

    def add(
        self,
        codes: ArrayLike,
        *,
        ids: Sequence[str],
        payload: Sequence[Any] | None = None,
        replace: bool = False,
    ) -> None:
        """Adds items: packed codes uint8 [n, ceil(code_length / 8)], an id of each, and payload.

        All or none of them; in Milvus, which has no transactions, in parts of 10,000. replace: an
        item of the same id goes; without it UserError, as for an id that comes twice.
        """
        self.change(codes, ids=ids, payload=payload, replace=replace)

    def remove(self, ids: Sequence[str]) -> None:
        """Removes items, all or none of them. UserError for an id that is not there."""
        nothing = np.zeros((0, -(-self.code_length // 8)), np.uint8)
        self.change(nothing, ids=(), remove=ids)

    @abc.abstractmethod
    def change(
        self,
        codes: ArrayLike,
        *,
        ids: Sequence[str],
        payload: Sequence[Any] | None = None,
        content: Sequence[str] | None = None,
        remove: Sequence[str] = (),
        replace: bool = False,
    ) -> None:
        """Removes items and adds others; `add` and `remove` are parts of it.

        content: of each added item what tells whether it has changed since, such as a digest.
        """
