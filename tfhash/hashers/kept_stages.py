"""Stages before the last that other runs may use: where they are, and what they were made with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tfhash.errors import unwritable
from tfhash.storage.locks import lock
from tfhash.training.checkpoints import Checkpoints
from tfhash.training.run import Run, claim, write_text


@contextlib.contextmanager
def kept_checkpoints(
    name: str,
    setting: str,
    folder: str | None,
    steps: int,
    deciding: Mapping[str, Any],
    run: Run,
) -> Iterator[Checkpoints]:
    """The checkpoints of a stage of so many steps, in a folder for other runs or else in the run's.

    name: of the stage; setting: what names the folder, stage0_dir or stage1_dir; deciding: what a
    kept stage must have been made with. NotNowError where another process makes it, UserError
    where it was made with something else, or the folder cannot be written.
    """
    directory = run.folder("checkpoints") if folder is None else Path(folder)
    writes = run.writes or (folder is not None and run.directory is None)
    named_by = "model_dir" if folder is None else setting
    checkpoints = Checkpoints(directory, name, writes, named_by)
    with contextlib.ExitStack() as stack:
        if folder is not None and writes:
            # Who holds a finished stage only reads it, and soon lets go of it.
            finished = steps in checkpoints.steps()
            stack.enter_context(lock(Path(folder), setting, wait=finished))
        if directory is not None:
            # In a run's own folder config.json tells already whose work it is.
            begun = folder is not None and bool(checkpoints.steps())
            path = directory / f"{setting.removesuffix('_dir')}.json"
            claim(path, deciding, writes, named_by, begun)
        yield checkpoints


def kept_seconds(folder: Path | None, digest: str, spent: float, writes: bool) -> float:
    """Seconds that the features of a network took: `spent`, or those that are kept beside them.

    digest: of the network; writes: whether `spent` is kept, where nothing is yet. UserError where
    the folder cannot be written.
    """
    if folder is None:
        return spent
    path = folder / f"{digest}.seconds"
    with contextlib.suppress(OSError, ValueError):
        return float(path.read_text(encoding="utf-8"))
    if writes:
        try:
            write_text(path, f"{spent}\n")
        except OSError as error:
            raise unwritable("`stage0_dir`", folder, error) from None
    return spent
