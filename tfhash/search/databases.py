"""Indexes in databases, by the address that stands in place of a folder."""

from __future__ import annotations

from typing import Any

from tfhash.search import milvus, milvus_connection, postgres

PREFIXES = (*postgres.PREFIXES, *milvus_connection.PREFIXES)


def is_address(index: str) -> bool:
    """Whether it is the address of a database, and no folder."""
    return index.startswith(PREFIXES)


def is_there(address: str) -> bool:
    """Whether a database has an index. UserError where it does not answer, or is none of these."""
    return _module(address).is_there(address)


def opened(address: str, *, code_length: int | None = None, model: str = "") -> Any:
    """The index at an address; with a code_length made there, where none is.

    It has what `tfhash.Index` has but for backends, embeddings and rows, and `place`, its address
    for people. UserError for an index of another code_length or model.
    """
    if _module(address) is milvus:
        return milvus.MilvusIndex(address, code_length=code_length, model=model)
    return postgres.PostgresIndex(address, code_length=code_length, model=model)


def _module(address: str) -> Any:
    return milvus if address.startswith(milvus_connection.PREFIXES) else postgres
