"""tests/warm.py: what a process of it has in common with one of Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

TOLD = """
import os, sys
print(sys.argv, os.getcwd(), os.environ.get("MARK"), sys.stdin.read(), sys.path[0] == "")
print("to stderr", file=sys.stderr)
sys.exit(7)
"""


def test_it_is_as_python_but_for_the_import(python, tmp_path):
    answers = [
        subprocess.run(
            [executable, "-c", TOLD, "a b", "--c"],
            cwd=tmp_path,
            env=os.environ | {"MARK": "here"},
            input="given",
            capture_output=True,
            text=True,
        )
        for executable in (sys.executable, python)
    ]
    expected, found = ((it.returncode, it.stdout, it.stderr) for it in answers)
    assert found == expected and expected[0] == 7


def test_tensorflow_is_there_and_nothing_of_ours(python, tmp_path):
    code = "import sys; print([n for n in ('tensorflow', 'keras', 'tfhash') if n in sys.modules])"
    ended = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "['tensorflow', 'keras']\n"
    (tmp_path / "mine.py").write_text("import sys; print(__name__, sys.argv[1:])")
    ended = subprocess.run([python, "-m", "mine", "x"], capture_output=True, text=True,
                           cwd=tmp_path.parent, env={"PYTHONPATH": str(tmp_path)})  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "__main__ ['x']\n", "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_who_ends_it_ends_the_process(python, number):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    process = subprocess.Popen([python, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(process.stdout.readline())
    process.send_signal(number)
    assert process.stdout.read() == ""  # nobody has it open any more
    assert process.wait() == -number
    with pytest.raises(ProcessLookupError):
        while True:
            os.kill(pid, 0)


def test_it_ends_as_the_process_does(python):
    code = "import os, sys; os.kill(os.getpid(), int(sys.argv[1]))"
    assert subprocess.run([python, "-c", code, "9"]).returncode == -9
    ended = subprocess.run([python, "-c", "1 / 0"], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
