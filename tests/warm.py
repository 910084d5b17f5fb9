"""A Python that has imported TensorFlow already, for tests that need a process of their own.

`start(folder)` starts it once and answers an executable, to be called as Python: -m or -c, with
arguments. What it is called for runs in a fork, which takes a tenth of a second where the import
takes seconds. The caller's folder, environment, files 0 to 2 and signals are those of the fork, and
the executable ends as that does. A test has to start `sys.executable` in its place where it looks

- at the number of the process, which is another one;
- at what is left by a process that is killed: who kills the executable kills the fork, but a moment
  later, so that it may do one more thing and still hold its locks;
- at what TensorFlow says: it is silent here;
- at what Python reads of its environment at its start, but for PYTHONPATH.
"""

from __future__ import annotations

import array
import contextlib
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
from pathlib import Path

_CLIENT = """#!{python} -SE
import array, json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
files = [socket.SCM_RIGHTS, array.array("i", [0, 1, 2])]
message = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
server.sendmsg([len(message).to_bytes(8, "big")], [(socket.SOL_SOCKET, *files)])
server.sendall(message)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: server.send(bytes([number])))
for file in range(3):
    os.close(file)
status = int(server.makefile().readline() or 1)
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
os._exit(status)
"""
_SILENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "GRPC_VERBOSITY": "NONE"}


def start(folder: Path) -> tuple[str, subprocess.Popen]:
    """The executable, in this folder, and the process that forks; its stdin's end is its own."""
    address, executable = folder / "socket", folder / "python"
    process = subprocess.Popen(
        [sys.executable, __file__, address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | _SILENT,
    )
    process.stdout.readline()
    executable.write_text(_CLIENT.format(python=sys.executable, address=str(address)))
    executable.chmod(0o755)
    return str(executable), process


class _Call:
    """What a caller wants to have run, and its connection."""

    def __init__(self, connection: socket.socket):
        self.connection = connection
        size, ancillary, *_ = connection.recvmsg(8, socket.CMSG_SPACE(3 * 4))
        self.files = array.array("i")
        self.files.frombytes(ancillary[0][2])
        with connection.makefile("rb", buffering=0) as file:
            message = b""
            while len(message) < int.from_bytes(size, "big"):
                message += file.read(int.from_bytes(size, "big") - len(message))
        self.arguments, self.directory, self.environment = json.loads(message)

    def take_over(self) -> None:
        """Makes this process that of the caller."""
        for number, file in enumerate(self.files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(self.directory)
        os.environ.clear()
        os.environ.update(self.environment | _SILENT)
        given = self.environment.get("PYTHONPATH", "").split(os.pathsep)
        first = self.directory if self.arguments[0] == "-m" else ""
        sys.path[:] = [first, *filter(None, given), *sys.path[1:]]
        buffered = {"encoding": "utf-8", "closefd": False}
        sys.stdin = open(0, **buffered)
        sys.stdout = open(1, "w", **buffered)
        sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", **buffered)


def _serve(listening: socket.socket) -> _Call:
    """Forks for each caller, and ends with stdin; comes back in a fork, with its call."""
    running: dict[int, _Call] = {}
    woken, wakes = socket.socketpair()
    wakes.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    for file in (listening, woken, 0):
        selector.register(file, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj == 0:
                for pid in running:
                    os.kill(pid, signal.SIGKILL)
                os._exit(0)
            elif key.fileobj is listening:
                call = _Call(listening.accept()[0])
                pid = os.fork()
                if not pid:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    signal.signal(signal.SIGINT, signal.default_int_handler)
                    for other in (selector, listening, woken, wakes, call.connection):
                        other.close()
                    for other in running.values():
                        other.connection.close()
                    return call
                for file in call.files:
                    os.close(file)
                running[pid] = call
                selector.register(call.connection, selectors.EVENT_READ, pid)
            elif key.data:
                sent = key.fileobj.recv(1)
                os.kill(key.data, sent[0] if sent else signal.SIGKILL)
                if not sent:
                    selector.unregister(key.fileobj)
            else:
                woken.recv(4096)
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                connection = running.pop(pid).connection
                with contextlib.suppress(KeyError):
                    selector.unregister(connection)
                with contextlib.suppress(OSError), connection:
                    connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C the tests decide
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    listening = socket.socket(socket.AF_UNIX)
    listening.bind(sys.argv[1])
    listening.listen(64)
    gc.freeze()  # what a fork never touches is not copied
    print("ready", flush=True)
    call = _serve(listening)
    call.take_over()
    option, what, *arguments = call.arguments
    if option == "-m":
        sys.argv = [what, *arguments]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    elif option == "-c":
        sys.argv = ["-c", *arguments]
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.exit(f"expected -m or -c: {option}")


if __name__ == "__main__":
    _main()
