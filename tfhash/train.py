"""Trains a method, judges it and leaves a run folder: `python -m tfhash.train --flagfile=FILE`.

Run the same command again after an interruption, and it goes on from the last checkpoint.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import flags  # noqa: E402

from tfhash import config_flags, config_values, experiment, mains, methods  # noqa: E402
from tfhash.checkpoints import NonFiniteError, claim, write_text  # noqa: E402
from tfhash.errors import UserError  # noqa: E402
from tfhash.hasher import Run  # noqa: E402

NAME = "tfhash.train"


def define_flags() -> None:
    """The flags of the experiment, of each kind of method, and of each method under its name."""
    flags.DEFINE_string("model_dir", None, "the run folder; by default runs/METHOD_DATASET_BITS")
    config_flags.define(experiment.Experiment)
    hashers = {name: methods.get(name) for name in methods.names()}
    for settings in dict.fromkeys(hasher.Settings for hasher in hashers.values()):
        config_flags.define(settings)
    for name, hasher in hashers.items():
        config_flags.define(hasher.Config, f"{name}.")


def configurations() -> tuple[experiment.Experiment, Any, Any]:
    """What the parsed flags say of the experiment, of the kind of method, and of the method."""
    config = config_flags.parsed(experiment.Experiment)
    hasher = methods.get(config.method)
    settings = config_flags.parsed(hasher.Settings)
    return config, settings, config_flags.parsed(hasher.Config, f"{config.method}.")


def main(argv: list[str]) -> int:
    config, settings, method_config = configurations()
    directory = Path(
        flags.FLAGS.model_dir
        or f"runs/{config.method}_{config.dataset}_{config.code_length}"
    )
    configs = ((config, ""), (settings, ""), (method_config, f"{config.method}."))
    writes = _is_first_process(os.environ.get("TF_CONFIG"))
    deciding = {k: v for c, p in configs for k, v in config_values.deciding(c, p).items()}
    flag_lines = [line for c, p in configs for line in config_values.lines(c, p)]
    try:
        _occupy(directory, deciding, writes)
        if writes:
            write_text(directory / "flags.txt", "\n".join(flag_lines) + "\n")
    except OSError as error:
        raise UserError(f"--model_dir: cannot write to {directory} ({error})") from None
    command = shlex.join(["python", "-m", NAME, *sys.argv[1:]])
    try:
        metrics = experiment.run(
            config, method_config, settings, Run(directory, writes), command
        )
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


def _occupy(directory: Path, deciding: dict[str, Any], writes: bool) -> None:
    """Makes sure that the folder holds the work of these values, or no work yet."""
    path, begun = directory / "config.json", (directory / "checkpoints").is_dir()
    if writes and not begun:
        path.unlink(missing_ok=True)  # left by a run that ended at a mistake in its flags
    if writes or begun:
        claim(path, deciding, writes)


def entry_point() -> None:
    define_flags()
    mains.run(NAME, main)


if __name__ == "__main__":
    entry_point()
