"""The command of bulk where Apache Beam is not installed; its own tests are in tests/beam."""

from __future__ import annotations

import importlib
import importlib.util

import pytest


@pytest.mark.skipif(importlib.util.find_spec("apache_beam") is not None, reason="Beam is here")
def test_without_beam_the_extra_is_told(capsys):
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("tfhash.serving.bulk.__main__")
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tfhash.serving.bulk: error: not installed: apache_beam")
    assert line.endswith("; the extra bulk of tfhash brings it")
