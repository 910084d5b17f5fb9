"""Trains a method, judges it and leaves a run folder: `python -m tfhash.train --flagfile=FILE`.

Run the same command again after an interruption, and it goes on from the last checkpoint.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfhash.cli import quiet

quiet.start()

from absl import flags  # noqa: E402

from tfhash import methods, settings  # noqa: E402
from tfhash.cli import flags as config_flags  # noqa: E402
from tfhash.cli import mains, pages  # noqa: E402
from tfhash.data.sources import ImageSet  # noqa: E402
from tfhash.errors import UserError  # noqa: E402
from tfhash.names import shown  # noqa: E402
from tfhash.runs import experiment, folder  # noqa: E402
from tfhash.runs.configurations import Configurations  # noqa: E402
from tfhash.runs.experiment_settings import Experiment  # noqa: E402
from tfhash.training.checkpoints import NonFiniteError  # noqa: E402
from tfhash.training.run import Run  # noqa: E402
from tfhash.training.workers import read_cluster  # noqa: E402

NAME = "tfhash.train"


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """The flags of the experiment, of each kind of method, and of each method under its name."""
    config_flags.define_path(
        "model_dir", None, "the run folder; by default runs/METHOD_DATASET_BITS", flag_values
    )
    config_flags.define(Experiment, flag_values=flag_values)
    hashers = {name: methods.get(name) for name in methods.names()}
    for shared in dict.fromkeys(hasher.Settings for hasher in hashers.values()):
        config_flags.define(shared, flag_values=flag_values)
    for name, hasher in hashers.items():
        config_flags.define(hasher.Config, f"{name}.", flag_values)


def configurations(flag_values: flags.FlagValues = flags.FLAGS) -> Configurations:
    """What the parsed flags say. UserError, in the names of flags, where they do not fit."""
    method: Any = flag_values["method"].value
    try:
        hasher = methods.get(method)
        return Configurations(
            config_flags.parsed(Experiment, flag_values=flag_values),
            config_flags.parsed(hasher.Settings, flag_values=flag_values),
            config_flags.parsed(hasher.Config, f"{method}.", flag_values),
        )
    except UserError as error:
        raise UserError(config_flags.in_flags(str(error), flag_values, method)) from None


def parse(arguments: Sequence[str]) -> Configurations:
    """What these arguments of the command say, apart from the flags of this process.

    UserError for what the command itself would refuse.
    """
    flag_values = flags.FlagValues()
    define_flags(flag_values)
    try:
        rest = flag_values([NAME, *arguments])
        config_flags.check_own(arguments, flag_values)
    except flags.Error as error:
        raise UserError(str(error)) from None
    if rest[1:]:
        raise UserError(f"unexpected argument {rest[1]!r}; every option is a --flag")
    return configurations(flag_values)


def command_line(arguments: Sequence[str]) -> str:
    """The command with these arguments, as metrics.json names it."""
    return shlex.join(["python", "-m", NAME, *arguments])


def help_groups() -> dict[str, list[str]]:
    """The flags that a user of the chosen --method can set, by what they are about."""
    method = flags.FLAGS.method
    hasher = methods.get(method)
    groups: dict[str, list[str]] = {group: [] for group in settings.GROUPS}
    for config_class, prefix in (
        (Experiment, ""),
        (hasher.Settings, ""),
        (hasher.Config, f"{method}."),
    ):
        for name, field in settings.fields_of(config_class).items():
            groups[field.metadata["group"]].append(prefix + name)
    groups["method"].insert(1, "model_dir")
    return groups


def default_directory(asked: Experiment) -> str:
    """The run folder of an experiment for which none is named."""
    return f"runs/{asked.method}_{asked.dataset}_{asked.code_length}"


def run(
    given: Configurations, target: Run, command: str, image_set: ImageSet | None = None
) -> dict[str, Any]:
    """Does the experiment in its run folder, or goes on there; the content of metrics.json.

    command: what makes the same again. image_set: as `experiment.run` takes it. UserError where
    the folder cannot be written, holds the work of other flags, or another process works in it;
    else as `experiment.run`.
    """
    try:
        with target.alone():
            folder.occupy(target, given)
            return experiment.run(given, target, command, image_set)
    except UserError as error:
        method = given.experiment.method
        raise type(error)(config_flags.in_flags(str(error), given.values, method)) from None


def main(argv: list[str]) -> int:
    given = configurations()
    directory = Path(flags.FLAGS.model_dir or default_directory(given.experiment))
    writes = True
    if getattr(given.settings, "strategy", None) == "multi_worker":
        writes = read_cluster(os.environ.get("TF_CONFIG")).is_first
    try:
        metrics = run(given, Run(directory, writes), command_line(sys.argv[1:]))
    except NonFiniteError as error:
        kept = error.checkpoints
        others = " and ".join(f"`{name}`" for name in dict.fromkeys(("model_dir", kept.setting)))
        line = (
            f"{error}; the last good checkpoint is kept in {kept.directory}. "
            f"A lower learning rate may help, in another {others}"
        )
        method = given.experiment.method
        mains.print_error(NAME, config_flags.in_flags(line, given.values, method))
        return 1
    if writes:
        mains.print_table(metrics)
        print(f"run folder: {shown(directory)}")
        for picture in sorted((directory / "figures").glob("*.png")):
            print(f"picture:    {shown(picture)}")
    return 0


def entry_point() -> None:
    define_flags()
    mains.run(NAME, main, lambda name, words: pages.of_groups(name, words, help_groups()))


if __name__ == "__main__":
    entry_point()
