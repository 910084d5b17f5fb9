"""Commands in this process, as a user starts them: TensorFlow takes seconds to import."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import pytest
from absl import flags
from absl.testing import flagsaver

# Several processes test at a time: each, and what it starts, has one thread for operations. Two
# threads of OpenBLAS that share a core wait for each other at full load: a small decomposition
# takes a hundred times the time. It reads this when NumPy is imported, which is later.
if "PYTEST_XDIST_WORKER" in os.environ:
    for _name in ("TF_NUM_INTRAOP_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

# Before any file of tests imports TensorFlow: as in a user's process, tfhash says what it computes
# with. What a test starts inherits it.
import tfhash  # noqa: E402, F401

if TYPE_CHECKING:
    from tfhash.runs.configurations import Configurations


# First and in this order: what comes last runs while other processes have nothing left to do.
LONGEST = ("integration", "methods", "conformance", "export")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts by LONGEST, and skips what is marked `long` unless it is asked for."""
    starts = [f"tests/{folder}/" for folder in LONGEST]
    items.sort(key=lambda item: [not item.nodeid.startswith(start) for start in starts])
    if os.environ.get("TFHASH_LONG") != "1":
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="long: TFHASH_LONG=1 runs it"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """A network's first weights are the same at every run of a test, whatever ran before it."""
    import keras

    keras.utils.set_random_seed(0)


class Ended(NamedTuple):
    """The exit status of a command, and what it wrote to stdout and stderr."""

    status: int
    output: str
    errors: str

    def line(self, name: str, status: int = 2) -> str:
        """The one line of stderr, once it is sure that it is one of this command."""
        assert self.status == status, self
        (line,) = self.errors.splitlines()
        assert line.startswith(f"{name}: error: ")
        return line


@contextlib.contextmanager
def own_flags() -> Iterator[None]:
    """absl's global flags are afterwards what they were: those that are defined meanwhile go."""
    before = set(flags.FLAGS)
    with flagsaver.flagsaver():
        try:
            yield
        finally:
            for name in set(flags.FLAGS) - before:
                delattr(flags.FLAGS, name)


@pytest.fixture(scope="session")
def free_ports() -> Callable[..., list[int]]:
    """free_ports(count): ports of this machine that nobody listens on; in_a_row: one by one."""

    def find(count: int, in_a_row: bool = False) -> list[int]:
        while True:
            ports: list[int] = []
            with contextlib.ExitStack() as stack, contextlib.suppress(OSError, OverflowError):
                for _ in range(count):
                    one = stack.enter_context(socket.socket())
                    one.bind(("127.0.0.1", ports[-1] + 1 if in_a_row and ports else 0))
                    ports.append(one.getsockname()[1])
                return ports

    return find


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Ctrl-C interrupts, also where a shell started the tests in its background and ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def eagerly() -> Iterator[None]:
    """Two steps of a stage take less time than its graph.

    Graphs are made where a method learns to tell classes, and where a command trains.
    """
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="session")
def command() -> Callable[..., Ended]:
    """Runs the command of a module with these arguments."""
    import keras  # here, so that tests that start no command need not import TensorFlow

    def run(module: ModuleType, *arguments: object) -> Ended:
        argv = [module.NAME, *map(str, arguments)]
        output, errors = io.StringIO(), io.StringIO()
        with (
            own_flags(),
            mock.patch.object(sys, "argv", argv),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
            pytest.raises(SystemExit) as ended,
        ):
            module.entry_point()
        keras.config.set_dtype_policy("float32")
        return Ended(ended.value.code or 0, output.getvalue(), errors.getvalue())

    return run


@pytest.fixture(scope="session")
def python(tmp_path_factory) -> Iterator[str]:
    """An executable, called as Python is, that need not import TensorFlow: see tests/warm.py."""
    from tests import warm

    executable, process = warm.start(tmp_path_factory.mktemp("warm"))
    yield executable
    process.communicate()  # closes its stdin, with which it ends


@pytest.fixture(scope="session")
def file_size_limit() -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """No file of this process can grow beyond so many bytes meanwhile, as if a disk were full."""

    @contextlib.contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture(scope="session")
def parse_only() -> Callable[..., dict[str, Any]]:
    """Parses what a module's command would; absl's error for a flag that it does not know.

    Answers the values of all flags that the command defines.
    """

    def parse(module: ModuleType, *arguments: object) -> dict[str, Any]:
        with own_flags():
            before = set(flags.FLAGS)
            module.define_flags()
            flags.FLAGS([module.NAME, *map(str, arguments)])
            return {name: flags.FLAGS[name].value for name in set(flags.FLAGS) - before}

    return parse


@pytest.fixture(scope="session")
def configurations() -> Callable[..., Configurations]:
    """What `tfhash.train.configurations` makes of these arguments."""
    from tfhash import train

    def parse(*arguments: object) -> Configurations:
        with own_flags():
            train.define_flags()
            flags.FLAGS([train.NAME, *map(str, arguments)])
            return train.configurations()

    return parse
