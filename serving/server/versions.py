"""The versions of one model: loaded while it is asked for, retired with their last request."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tensorflow_serving.apis import get_model_status_pb2
from tensorflow_serving.config import model_server_config_pb2

from tfhash.serving.server.servable import Servable

State = get_model_status_pb2.ModelVersionStatus.State
Load = Callable[[str, int, Path], Servable]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retries:
    """How often a version that does not load is tried again, and after how many seconds."""

    count: int = 5
    interval: float = 60.0


@dataclass
class Version:
    """A version of a model, loaded or not; `users` requests are running on it."""

    number: int
    state: int = State.START
    servable: Servable | None = None
    users: int = 0
    failures: int = 0
    next_try: float = 0.0
    error: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def load(self, model: str, folder: Path, load: Load, retries: Retries) -> None:
        """Tries once to load; after the last retry the state is END and `error` says why."""
        if time.monotonic() < self.next_try:
            return
        self.state = State.LOADING
        try:
            servable = load(model, self.number, folder)
        except Exception as error:  # whatever is wrong with a folder, the server goes on
            self.failures += 1
            self.error = " ".join(str(getattr(error, "message", error)).split())
            self.next_try = time.monotonic() + retries.interval
            log.error("%s version %s: not loaded: %s", model, self.number, self.error)
            if self.failures > retries.count:
                self.state = State.END
            return
        with self.lock:
            self.servable, self.state, self.error = servable, State.AVAILABLE, ""
        log.info("%s version %s: available", model, self.number)

    def acquire(self) -> bool:
        with self.lock:
            if self.state != State.AVAILABLE:
                return False
            self.users += 1
            return True

    def release(self) -> None:
        with self.lock:
            self.users -= 1
            self._close_if_unused()

    def retire(self) -> None:
        """Takes no more requests; ends with the last one that is running."""
        with self.lock:
            if self.state == State.AVAILABLE:
                self.state = State.UNLOADING
                self._close_if_unused()
            elif self.state != State.UNLOADING:
                self.state = State.END

    def _close_if_unused(self) -> None:
        if self.state == State.UNLOADING and not self.users:
            assert self.servable is not None
            self.servable.close()
            self.servable, self.state = None, State.END


class Model:
    """The versions of one model under its base path; `latest` is the highest that is available."""

    def __init__(self, config: model_server_config_pb2.ModelConfig):
        self.config = config
        self.versions: dict[int, Version] = {}
        # Set before another is retired: requests that go by it always find one.
        self.latest: Version | None = None

    def poll(self, load: Load, retries: Retries) -> None:
        """Loads the versions that there should be, then retires the others."""
        wanted = self._wanted()
        if wanted is None:
            return  # a base path may be away for a while: what is served stays served
        for number in sorted(wanted):
            version = self.versions.get(number)
            if version is None or version.state == State.END and not version.failures:
                version = self.versions[number] = Version(number)
            if version.state in (State.START, State.LOADING):
                version.load(self.config.name, wanted[number], load, retries)
        available = [n for n in wanted if self.versions[n].state == State.AVAILABLE]
        if wanted and not available:
            return  # an old version serves on until a new one can
        self.latest = self.versions[max(available)] if available else None
        for number, version in self.versions.items():
            if number not in wanted:
                if version.state != State.END:
                    log.info("%s version %s: unloading", self.config.name, number)
                    version.retire()
                version.failures = 0  # should its folder come back, it is a new one

    def retire(self) -> None:
        self.latest = None
        for version in self.versions.values():
            version.retire()

    def _wanted(self) -> dict[int, Path] | None:
        """The folders that the version policy asks for, by version; None without a base path."""
        try:
            folders = {
                int(path.name): path
                for path in Path(self.config.base_path).iterdir()
                if path.name.isdecimal() and int(path.name) < 2**63 and path.is_dir()
            }
        except OSError as error:
            log.error("%s: %s", self.config.name, error)
            return None
        policy = self.config.model_version_policy
        match policy.WhichOneof("policy_choice"):
            case "all":
                return folders
            case "specific":
                return {n: path for n, path in folders.items() if n in policy.specific.versions}
        newest = sorted(folders)[-(policy.latest.num_versions or 1) :]
        return {number: folders[number] for number in newest}
