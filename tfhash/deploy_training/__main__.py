"""Writes what trains with several workers, here or on a cluster.

python -m tfhash.deploy_training --flagfile=configs/ssgah.flags --groups=2 --workers=2 --output=DIR

Every flag of tfhash.train is taken too, and goes into DIR/training.flags. Paths among them are
those of the machines that train; relative ones count from the folder where the workers start.
"""

from __future__ import annotations

import dataclasses
import shlex
import stat
from pathlib import Path
from typing import Any

from tfhash.cli import quiet

quiet.start()

from absl import flags  # noqa: E402

from tfhash import deploy_training, train  # noqa: E402
from tfhash.cli import flags as config_flags  # noqa: E402
from tfhash.cli import mains, pages  # noqa: E402
from tfhash.names import shown  # noqa: E402
from tfhash.settings import fields_of  # noqa: E402

NAME = "tfhash.deploy_training"
_OF_FILES = ("output", "overwrite")


def define_flags() -> None:
    train.define_flags()
    config_flags.define(deploy_training.Settings)
    config_flags.define_path("output", None, "folder to write the files into", required=True)
    flags.DEFINE_bool("overwrite", False, "replace files of before that differ")


def help_page(name: str, words: str) -> str:
    own = [*_OF_FILES, *fields_of(deploy_training.Settings)]
    return pages.of_groups(name, words, {"files": own})


def main(argv: list[str]) -> None:
    values: Any = flags.FLAGS
    settings = config_flags.parsed(deploy_training.Settings)
    given = train.configurations()
    given = dataclasses.replace(given, settings=settings.of_workers(given.settings))
    directory = values.model_dir or train.default_directory(given.experiment)
    output = Path(values.output)
    lines = [*given.lines, f"--model_dir={directory}"]
    changed = deploy_training.write(
        deploy_training.render(settings, lines), output, values.overwrite
    )
    script = output / "run_local.sh"
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    for name in deploy_training.NAMES:
        print(f"{'wrote' if output / name in changed else 'unchanged'} {shown(output / name)}")
    print(f"to train with {settings.workers} workers on this machine, into {shown(directory)}:")
    print(f"  {shlex.quote(str(output / 'run_local.sh'))}")


def entry_point() -> None:
    define_flags()
    mains.run(NAME, main, help_page)


if __name__ == "__main__":
    entry_point()
