"""What a finished run left in its folder: its configurations, its metrics and what it learned."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tfhash import config_values, experiment, methods
from tfhash.data import sources
from tfhash.errors import UserError
from tfhash.experiment import Experiment
from tfhash.hasher import Hasher


def load(model_dir: str | Path) -> Hasher:
    """The Hasher of a finished run, ready to encode. UserError where the run is not finished."""
    model_dir = Path(model_dir)
    config, method_config, settings, metrics = read(model_dir)
    hasher = methods.get(config.method)(
        method_config,
        settings,
        code_length=config.code_length,
        image_size=metrics["image_size"],
        seed=config.seed,
    )
    hasher.load(model_dir / "checkpoints")
    return hasher


def read(model_dir: Path) -> tuple[Experiment, Any, Any, dict[str, Any]]:
    """The configurations of a finished run, and its metrics.json."""
    path = model_dir / "metrics.json"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        values = metrics["flags"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--model_dir: no finished run in {model_dir} ({error}); allowed: a folder that "
            "tfhash.train has finished"
        ) from None
    method = methods.get(values["method"])
    prefix = f"{values['method']}."
    own = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
    return (
        config_values.build(Experiment, values),
        config_values.build(method.Config, own),
        config_values.build(method.Settings, values),
        metrics,
    )


def sample_images(model_dir: str | Path, count: int) -> np.ndarray:
    """Images of a run's data set, evenly spread: uint8 [n, S, S, 3], n <= count.

    Of a data set that was made in Python, some of those that the run kept.
    """
    config, *_ = read(Path(model_dir))
    if config.dataset in sources.names():
        return experiment.spread(experiment.load_images(config).images, count)
    path = Path(model_dir) / experiment.SAMPLES
    try:
        with np.load(path, allow_pickle=False) as file:
            return experiment.spread(file["images"], count)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"--model_dir: cannot read images of {config.dataset!r} from {path} ({error}); "
            "--noverify does without"
        ) from None
