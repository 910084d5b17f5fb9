"""Keeps TensorFlow's start-up noise from a user; to be called before TensorFlow is imported."""

from __future__ import annotations

import os
import re
import sys
import tempfile

# What C++ says before anyone asked: no CUDA here, oneDNN rounds, a pass of Grappler failed.
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "GRPC_VERBOSITY": "NONE"}
_VERBOSITY = re.compile(r"--?(verbosity|v)(=|$)")  # as absl knows it


def start() -> None:
    """Silences C++ logs, unless --verbosity asks for them or the environment says otherwise.

    Imports TensorFlow: what it says while it is imported heeds no setting, so stderr is put aside
    for that long. Warnings of Python stay: those are about what the user does.
    """
    if any(_VERBOSITY.match(argument) for argument in sys.argv[1:]):
        return
    level = os.environ.get("TF_CPP_MIN_LOG_LEVEL", _QUIET["TF_CPP_MIN_LOG_LEVEL"])
    if level != _QUIET["TF_CPP_MIN_LOG_LEVEL"] or "tensorflow" in sys.modules:
        return
    os.environ.update(_QUIET)
    with tempfile.TemporaryFile() as aside:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(aside.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        except BaseException:
            os.dup2(stderr, 2)
            aside.seek(0)
            sys.stderr.write(aside.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
