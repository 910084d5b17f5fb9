"""Keeps TensorFlow's start-up noise from a user; to be called before TensorFlow is imported."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator

from tfhash import stderr

# What C++ says before anyone asked: no CUDA here, oneDNN rounds, a pass of Grappler failed.
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "GRPC_VERBOSITY": "NONE"}
_VERBOSITY = re.compile(r"--?(verbosity|v)(=|$)")  # as absl knows it


def start() -> None:
    """Silences C++ logs, unless --verbosity asks for them or the environment says otherwise.

    Imports TensorFlow: what it says while it is imported heeds no setting, so stderr is put aside
    for that long. Warnings of Python stay: those are about what the user does.
    """
    if is_verbose():
        return
    level = os.environ.get("TF_CPP_MIN_LOG_LEVEL", _QUIET["TF_CPP_MIN_LOG_LEVEL"])
    if level != _QUIET["TF_CPP_MIN_LOG_LEVEL"] or "tensorflow" in sys.modules:
        return
    os.environ.update(_QUIET)
    with stderr.aside():
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def logs() -> Iterator[None]:
    """No logs of Python meanwhile, nor tracebacks of threads, unless --verbosity asks for them."""
    if is_verbose():
        yield
        return
    before, hook = logging.root.manager.disable, threading.excepthook
    logging.disable(logging.CRITICAL)
    threading.excepthook = lambda arguments: None
    try:
        yield
    finally:
        logging.disable(before)
        threading.excepthook = hook


def is_verbose() -> bool:
    """Whether --verbosity stands on the command line."""
    return any(_VERBOSITY.match(argument) for argument in sys.argv[1:])
