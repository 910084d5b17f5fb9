"""Trains a method, judges it and leaves a run folder: `python -m tfhash.train --flagfile=FILE`.

Run the same command again after an interruption, and it goes on from the last checkpoint.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import flags  # noqa: E402

from tfhash import config_flags, config_values, experiment, mains, methods  # noqa: E402
from tfhash.checkpoints import NonFiniteError, claim, write_text  # noqa: E402
from tfhash.data.sources import ImageSet  # noqa: E402
from tfhash.errors import UserError  # noqa: E402
from tfhash.hasher import Run  # noqa: E402

NAME = "tfhash.train"


class Configurations(NamedTuple):
    """What a command line says of the experiment, of the kind of method, and of the method."""

    config: experiment.Experiment
    settings: Any
    method_config: Any

    @property
    def deciding(self) -> dict[str, Any]:
        """The values that can change a result, by the names of their flags."""
        return {k: v for c, p in self._prefixed for k, v in config_values.deciding(c, p).items()}

    @property
    def lines(self) -> list[str]:
        """The flagfile that gives these configurations again."""
        return [line for c, p in self._prefixed for line in config_values.lines(c, p)]

    @property
    def _prefixed(self) -> tuple[tuple[Any, str], ...]:
        prefix = f"{self.config.method}."
        return (self.config, ""), (self.settings, ""), (self.method_config, prefix)


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """The flags of the experiment, of each kind of method, and of each method under its name."""
    flags.DEFINE_string(
        "model_dir",
        None,
        "the run folder; by default runs/METHOD_DATASET_BITS",
        flag_values=flag_values,
    )
    config_flags.define(experiment.Experiment, flag_values=flag_values)
    hashers = {name: methods.get(name) for name in methods.names()}
    for settings in dict.fromkeys(hasher.Settings for hasher in hashers.values()):
        config_flags.define(settings, flag_values=flag_values)
    for name, hasher in hashers.items():
        config_flags.define(hasher.Config, f"{name}.", flag_values)


def configurations(flag_values: flags.FlagValues = flags.FLAGS) -> Configurations:
    """What the parsed flags say. UserError where they do not fit together."""
    config = config_flags.parsed(experiment.Experiment, flag_values=flag_values)
    hasher = methods.get(config.method)
    return Configurations(
        config,
        config_flags.parsed(hasher.Settings, flag_values=flag_values),
        config_flags.parsed(hasher.Config, f"{config.method}.", flag_values),
    )


def parse(arguments: Sequence[str]) -> Configurations:
    """What these arguments of the command say, apart from the flags of this process.

    UserError for what the command itself would refuse.
    """
    flag_values = flags.FlagValues()
    define_flags(flag_values)
    try:
        rest = flag_values([NAME, *arguments])
    except flags.Error as error:
        raise UserError(str(error)) from None
    if rest[1:]:
        raise UserError(f"unexpected argument {rest[1]!r}; every option is a --flag")
    return configurations(flag_values)


def command_line(arguments: Sequence[str]) -> str:
    """The command with these arguments, as metrics.json names it."""
    return shlex.join(["python", "-m", NAME, *arguments])


def run(
    given: Configurations, target: Run, command: str, image_set: ImageSet | None = None
) -> dict[str, Any]:
    """Does the experiment in its run folder, or goes on there; the content of metrics.json.

    command: what makes the same again. image_set: as `experiment.run` takes it. UserError where
    the folder cannot be written or holds the work of other flags; else as `experiment.run`.
    """
    try:
        _occupy(target, given.deciding)
        if target.writes:
            write_text(target.directory / "flags.txt", "\n".join(given.lines) + "\n")
    except OSError as error:
        raise UserError(f"--model_dir: cannot write to {target.directory} ({error})") from None
    return experiment.run(
        given.config, given.method_config, given.settings, target, command, image_set
    )


def main(argv: list[str]) -> int:
    given = configurations()
    config = given.config
    directory = Path(
        flags.FLAGS.model_dir
        or f"runs/{config.method}_{config.dataset}_{config.code_length}"
    )
    writes = _is_first_process(os.environ.get("TF_CONFIG"))
    try:
        metrics = run(given, Run(directory, writes), command_line(sys.argv[1:]))
    except NonFiniteError as error:
        mains.print_error(
            NAME,
            f"{error}; the last good checkpoint is kept in {directory}/checkpoints. "
            "A lower learning rate may help, in another --model_dir",
        )
        return 1
    if writes:
        mains.print_table(metrics)
        print(f"run folder: {directory}")
        for picture in sorted((directory / "figures").glob("*.png")):
            print(f"picture:    {picture}")
    return 0


def _is_first_process(tf_config: str | None) -> bool:
    """Whether TensorFlow's TF_CONFIG makes this process the chief: it writes for all workers."""
    config = json.loads(tf_config or "{}")
    task = config.get("task", {"type": "chief"})
    if "chief" in config.get("cluster", {"chief": []}):
        return task["type"] == "chief"
    return task["index"] == 0


def _occupy(target: Run, deciding: dict[str, Any]) -> None:
    """Makes sure that the folder holds the work of these values, or no work yet."""
    path = target.directory / "config.json"
    begun = (target.directory / "checkpoints").is_dir()
    if target.writes and not begun:
        path.unlink(missing_ok=True)  # left by a run that ended at a mistake in its flags
    if target.writes or begun:
        claim(path, deciding, target.writes)


def entry_point() -> None:
    define_flags()
    mains.run(NAME, main)


if __name__ == "__main__":
    entry_point()
