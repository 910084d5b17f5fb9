"""Processes that train cell after cell; what one cell breaks, the others do not notice."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Generator, Hashable, Iterator, Mapping, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any, NamedTuple

import keras

from tfhash import train
from tfhash.benchmark import summary
from tfhash.benchmark.matrix import Cell
from tfhash.cli import mains
from tfhash.data.sources import ImageSet
from tfhash.errors import UserError
from tfhash.names import encoded
from tfhash.runs import experiment
from tfhash.training.checkpoints import NonFiniteError
from tfhash.training.run import Run


class Outcome(NamedTuple):
    """What came of a cell: its mAPs, None where there is none, or why it failed, in one line.

    broken: whether its process is better not used again.
    """

    metrics: Mapping[str, float | None]
    reason: str = ""
    broken: bool = False


def run(cells: Sequence[Cell], count: int) -> Generator[tuple[Cell, Outcome, float], None, None]:
    """Trains the cells in up to `count` processes at a time; yields each with its seconds.

    No process is left when the iterator is closed. To be called in the main thread.
    """
    waiting = list(cells)
    idle: list[Worker] = []
    busy: dict[Any, Worker] = {}  # by the pipe to it
    try:
        while waiting or busy:
            while len(busy) < count:
                cell = first_free(waiting, [worker.cell for worker in busy.values()])
                if cell is None:
                    break
                waiting.remove(cell)
                worker = idle.pop() if idle else Worker()
                if not worker.fits(cell):
                    worker.stop()
                    worker = Worker()
                busy[worker.pipe] = worker
                worker.begin(cell)
            for pipe in connection.wait(list(busy)):
                worker = busy[pipe]
                outcome = worker.outcome()
                del busy[pipe]
                if outcome.broken:
                    worker.stop()
                else:
                    idle.append(worker)
                assert worker.cell is not None
                yield worker.cell, outcome, time.monotonic() - worker.begun
    finally:
        for worker in (*idle, *busy.values()):
            worker.stop()


def first_free(waiting: Sequence[Cell], busy: Sequence[Cell | None]) -> Cell | None:
    """The first cell that needs no folder which one of the busy ones may be filling."""
    claimed = frozenset[str]().union(*(cell.claimed for cell in busy if cell))
    return next((cell for cell in waiting if claimed.isdisjoint(cell.claimed)), None)


class Worker:
    """A process of its own that trains one cell at a time."""

    def __init__(self):
        context = multiprocessing.get_context("spawn")
        self.pipe, other_end = context.Pipe()
        self._process = context.Process(target=_work, args=(other_end,))
        with _interrupt_ignored():  # Ctrl-C reaches every process; only the first one answers it
            self._process.start()
        other_end.close()
        self.cell: Cell | None = None
        self.begun = 0.0

    def fits(self, cell: Cell) -> bool:
        """Whether the process can be to the cell what a fresh one would be."""
        return self.cell is None or _lasting(self.cell) == _lasting(cell)

    def begin(self, cell: Cell) -> None:
        self.cell, self.begun = cell, time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # `outcome` tells of a process that has ended
            self.pipe.send(cell)

    def outcome(self) -> Outcome:
        """Waits until the cell has ended."""
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            return Outcome({}, f"its process {_ending(self._process.exitcode or 0)}", broken=True)

    def stop(self) -> None:
        """Ends the process, whatever it does: a run folder can be left at any moment."""
        self.pipe.close()
        self._process.kill()
        self._process.join()


def _lasting(cell: Cell) -> Hashable:
    """What TensorFlow decides once a process; an own process for cells that differ in it.

    Methods of no such settings go with those of the defaults, which change nothing.
    """
    given = cell.given
    return given.hasher_class.lasting(given.settings) or ("one_device", False)


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status}"
    reason = " (out of memory?)" if status == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-status).name}{reason}"


@contextlib.contextmanager
def _interrupt_ignored() -> Iterator[None]:
    """A process that is started meanwhile ignores Ctrl-C for good."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(pipe: connection.Connection) -> None:
    """The life of a worker process: cells in, outcomes out."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    mains.print_anything()
    loaded: dict[Hashable, ImageSet] = {}  # the images of the last cell
    while True:
        try:
            cell = pipe.recv()
        except EOFError:
            return
        pipe.send(_attempt(cell, loaded))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _attempt(cell: Cell, loaded: dict[Hashable, ImageSet]) -> Outcome:
    error_file = cell.directory / "error.txt"
    try:
        _log_to(cell.directory / "log.txt")
        print(cell.command, flush=True)
        error_file.unlink(missing_ok=True)
        if cell.images not in loaded:
            loaded.clear()  # first: two data sets may not fit into memory
            given = cell.given
            loaded[cell.images] = experiment.load_images(given.experiment, given.settings.storage)
        target = Run(cell.directory)
        found = train.run(cell.given, target, cell.command, loaded[cell.images])
        return Outcome({key: found[key] for key in summary.TITLES})
    except (UserError, NonFiniteError) as error:
        return Outcome({}, _line(str(error)))
    except Exception as error:
        error_file.write_bytes(encoded(traceback.format_exc()))
        reason = _line(f"{type(error).__name__}: {error}")
        return Outcome({}, f"{reason} ({error_file})", broken=True)
    finally:
        keras.backend.clear_session()
        gc.collect()
        sys.stdout.flush()
        sys.stderr.flush()


def _log_to(path: Path) -> None:
    """From now on, what this process prints, TensorFlow's own lines included, goes there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:
            for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
                os.dup2(file.fileno(), descriptor)
    except OSError as error:
        raise UserError(f"--out: cannot write to {path.parent} ({error})") from None


def _line(text: str, most: int = 300) -> str:
    return textwrap.shorten(text, most, placeholder="...")
