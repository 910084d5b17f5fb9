"""What the tests of run folders share: a finished run, and a faster verification of exports."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfhash import train
from tfhash.export import verify


@pytest.fixture(scope="module")
def lsh_run(command, tmp_path_factory) -> Path:
    """A finished run of LSH, 16 bits, on the digits."""
    directory = tmp_path_factory.mktemp("lsh") / "run"
    arguments = [f"--model_dir={directory}", "--method=lsh", "--code_length=16"]
    assert command(train, *arguments).status == 0
    return directory


@pytest.fixture
def verified_here(monkeypatch):
    """Verification without its second process, which takes seconds to import TensorFlow."""

    def answers(directory, cases):
        return verify._answers(str(directory), [case[:3] for case in cases])

    monkeypatch.setattr(verify, "_answers_of_new_process", answers)
