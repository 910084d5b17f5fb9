"""What TensorFlow computes with, which it reads from the environment while it is imported."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

VARIABLE = "TF_ENABLE_ONEDNN_OPTS"
IS_ON = "from tensorflow.python.util import _pywrap_util_port as port; print(port.IsMklEnabled())"

on_x86 = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="oneDNN is left as it is here"
)


def printed(source: str, value: str | None = None) -> str:
    """The last line that a new process prints, whose environment has this value or none."""
    environment = {name: text for name, text in os.environ.items() if name != VARIABLE}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3"} | ({} if value is None else {VARIABLE: value})
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


@on_x86
def test_tfhash_turns_onednn_on():
    said = f"import os, tfhash; print(os.environ[{VARIABLE!r}], end=' '); {IS_ON}"
    assert printed(said) == "1 True"


@on_x86
def test_what_a_user_has_set_stays():
    assert printed(f"import tfhash; {IS_ON}", "0") == "False"


@pytest.mark.parametrize("machine", ["arm64", "aarch64", "ppc64le"])
def test_elsewhere_it_is_left_as_it_is(machine):
    source = f"import os, platform; platform.machine = lambda: {machine!r}; import tfhash"
    assert printed(f"{source}; print(os.environ.get({VARIABLE!r}))") == "None"
