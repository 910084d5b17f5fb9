"""A copy of an index in another folder, which is there whole or not at all."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from pathlib import Path

from tfhash.errors import UserError, unwritable
from tfhash.names import decoded, shown
from tfhash.search import scan
from tfhash.search.snapshot import Snapshot, sync_folder
from tfhash.search.store import Store
from tfhash.search.values import from_json


def save(store: Store, path: Path) -> None:
    """Writes the items and all that is known of the index to a new folder, in one move.

    UserError where something is there already, or nothing can be written.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"`path`: {shown(path)} is there already; allowed: a new folder")
    # Not of tempfile, whose folders nobody else may enter.
    temporary = path.parent / f".{path.name}.tmp-{secrets.token_hex(6)}"
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise unwritable("`path`", path, error) from None
    try:
        with store.reading() as now:
            _copy(store, now, temporary)
        temporary.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise unwritable("`path`", path, error) from None
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _copy(store: Store, now: Snapshot, directory: Path) -> None:
    numbers = store.numbers()
    with contextlib.closing(Store(directory, store.code_length, store.settings())) as copy:
        with copy.transaction():
            for start in range(0, len(numbers), scan.BLOCK):
                some = numbers[start : start + scan.BLOCK]
                ids = [decoded(name) for name in store.of_numbers("id", some)]
                payload = [*map(from_json, store.of_numbers("payload", some))]
                content = store.of_numbers("content", some)
                copy.append(now.codes[now.rows_of(some)], ids, payload, content)
