"""The files of a training with several workers, rendered from templates/ and written in one go."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from tfhash.errors import UserError
from tfhash.names import encoded
from tfhash.settings import Configuration, setting

FLAGFILE = "training.flags"
NAMES = ("README.md", "kubernetes.yaml", "run_local.sh", "slurm.sh", FLAGFILE)
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,40}[a-z0-9])?")  # a label of DNS, with room for a number
_IMAGE = re.compile(r"[\w][\w./:@-]*", re.ASCII)


@dataclass(frozen=True)
class Settings(Configuration):
    """What differs between trainings; fields are flags of `python -m tfhash.deploy_training`.

    UserError for a value that Kubernetes or Slurm would refuse.
    """

    workers: int = setting(2, "processes that train together", least=1, most=1000)
    restarts: int = setting(3, "how often all start again after one has ended badly", least=0)
    port: int = setting(
        12345,
        "where each worker listens; on one machine the first, and the next ones",
        least=1,
        most=65535,
    )
    job: str = setting("tfhash-training", "name of the job")
    namespace: str = setting("default", "namespace of Kubernetes")
    image: str = setting("tfhash:latest", "container image in which tfhash is installed")
    claim: str = setting("tfhash", "claim of a volume that all pods can write to at once")
    cpus: int = setting(2, "CPUs of each worker", least=1)
    memory: int = setting(8, "memory of each worker, GiB", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("job", "namespace", "claim"):
            if not _NAME.fullmatch(getattr(self, name)):
                raise UserError(
                    f"`{name}`: {getattr(self, name)!r}; allowed: a to z, 0 to 9 and - within, at "
                    "most 42, a letter first"
                )
        if not _IMAGE.fullmatch(self.image):
            raise UserError(f"`image`: {self.image!r}; allowed: a name such as tfhash:latest")
        if self.port + self.workers > 65536:
            raise UserError(
                f"`port`: {self.port}; allowed with `workers`={self.workers}: up to "
                f"{65536 - self.workers}, for on one machine each has the next one"
            )

    def of_workers(self, settings: Any) -> Any:
        """The settings of a method, for workers. UserError where they cannot share its batches."""
        if not hasattr(settings, "strategy"):
            raise UserError("`method`: it does not learn in steps; allowed: a deep method")
        if settings.groups % self.workers:
            raise UserError(
                f"`groups`: {settings.groups}; allowed with `workers`={self.workers}: multiples of "
                "it, for each worker takes its groups of a batch"
            )
        return dataclasses.replace(settings, strategy="multi_worker")


class _Template(Template):
    """%%name, for a dollar has its own meaning in a shell."""

    delimiter = "%%"


def render(settings: Settings, lines: Sequence[str]) -> dict[str, str]:
    """Texts of NAMES; lines: the flags of the training, one each."""
    indices = range(settings.workers)
    hosts = [f"{settings.job}-{index}.{settings.job}:{settings.port}" for index in indices]
    values = dataclasses.asdict(settings) | {
        "all_restarts": settings.restarts * settings.workers,
        "cluster": json.dumps({"worker": hosts}),
        "flagfile": FLAGFILE,
        # A JSON string is a YAML string.
        "flags": json.dumps("".join(f"{line}\n" for line in lines)),
        "model_dir": lines[-1].partition("=")[2],
    }
    templates = resources.files(__package__).joinpath("templates")
    texts = {
        name: _Template(templates.joinpath(name).read_text(encoding="utf-8")).substitute(values)
        for name in NAMES
        if name != FLAGFILE
    }
    return texts | {FLAGFILE: "".join(f"{line}\n" for line in lines)}


def write(texts: dict[str, str], output: Path, overwrite: bool = False) -> list[Path]:
    """Writes texts by their file names into the folder output; returns the paths that changed.

    UserError, before anything is written, where a file holds something else and overwrite is
    false; and where output cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        changed = {
            output / name: encoded(text)
            for name, text in texts.items()
            if not (output / name).exists() or (output / name).read_bytes() != encoded(text)
        }
        for path in changed:
            if path.exists() and not overwrite:
                raise UserError(
                    f"`output`: {path} exists and holds something else; --overwrite replaces it"
                )
        for path, content in changed.items():
            path.write_bytes(content)
    except OSError as error:
        raise UserError(f"`output`: {error}") from None
    return list(changed)
