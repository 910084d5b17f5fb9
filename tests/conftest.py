"""Commands in this process, as a user starts them: TensorFlow takes seconds to import."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import pytest
from absl import flags
from absl.testing import flagsaver


class Ended(NamedTuple):
    """The exit status of a command, and what it wrote to stdout and stderr."""

    status: int
    output: str
    errors: str


@contextlib.contextmanager
def defined_flags(module: ModuleType) -> Iterator[None]:
    """absl's global flags are those of this command, and afterwards what they were."""
    before = set(flags.FLAGS)
    with flagsaver.flagsaver():
        module.define_flags()
        own = set(flags.FLAGS) - before
        try:
            yield
        finally:
            for name in own:
                delattr(flags.FLAGS, name)


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Ctrl-C interrupts, also where a shell started the tests in its background and ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def command() -> Callable[..., Ended]:
    """Runs the command of a module with these arguments."""
    # Here, so that tests that start no command need not import TensorFlow.
    import keras

    from tfhash.cli import mains

    def run(module: ModuleType, *arguments: object) -> Ended:
        argv = [module.NAME, *map(str, arguments)]
        output, errors = io.StringIO(), io.StringIO()
        with (
            defined_flags(module),
            mock.patch.object(sys, "argv", argv),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
            pytest.raises(SystemExit) as ended,
        ):
            mains.run(module.NAME, module.main)
        keras.config.set_dtype_policy("float32")
        return Ended(ended.value.code or 0, output.getvalue(), errors.getvalue())

    return run


@pytest.fixture(scope="session")
def configurations() -> Callable[..., tuple[Any, Any, Any]]:
    """What `tfhash.train.configurations` makes of these arguments."""
    from tfhash import train

    def parse(*arguments: object) -> tuple[Any, Any, Any]:
        with defined_flags(train):
            flags.FLAGS([train.NAME, *map(str, arguments)])
            return train.configurations()

    return parse
