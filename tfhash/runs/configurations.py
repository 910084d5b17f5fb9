"""The three configurations of a run, in one object: experiment, settings of its kind, method."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfhash import methods, places, settings
from tfhash.hashers.base import Hasher
from tfhash.runs.experiment_settings import Experiment


@dataclass(frozen=True)
class Configurations:
    """What a run was told.

    experiment: which data, split and method, and how it is judged; settings: what the method shares
    with those of its kind; config: the method's own hyperparameters.
    """

    experiment: Experiment
    settings: Any
    config: Any

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Configurations:
        """Those of plain values by the names of flags, e.g. of the `flags` of a metrics.json."""
        method = methods.get(values["method"])
        prefix = f"{values['method']}."
        own = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
        return cls(
            settings.build(Experiment, values),
            settings.build(method.Settings, values),
            settings.build(method.Config, own),
        )

    def taken(self, kept: Any, directory: Path, own: Mapping[str, Any]) -> Configurations:
        """Those of a run folder, as who reads it may take them; see `places.taken`."""
        parts = [places.taken(part, kept, directory, own, p) for part, p in self._prefixed]
        return Configurations(*parts)

    def places(self, directory: Path) -> dict[str, str]:
        """Where the files that they name are, seen from a run folder; see `places.of`."""
        parts = [places.of(part, directory, prefix) for part, prefix in self._prefixed]
        return {name: path for part in parts for name, path in part.items()}

    @property
    def values(self) -> dict[str, Any]:
        """All of them by the names of their flags."""
        return {
            prefix + name: value
            for part, prefix in self._prefixed
            for name, value in dataclasses.asdict(part).items()
        }

    @property
    def deciding(self) -> dict[str, Any]:
        """The values that can change a result, by the names of their flags."""
        return {
            name: value
            for part, prefix in self._prefixed
            for name, value in settings.deciding(part, prefix).items()
        }

    @property
    def lines(self) -> list[str]:
        """The flagfile that gives these configurations again."""
        return [line for part, prefix in self._prefixed for line in settings.lines(part, prefix)]

    @property
    def _prefixed(self) -> tuple[tuple[Any, str], ...]:
        prefix = f"{self.experiment.method}."
        return (self.experiment, ""), (self.settings, ""), (self.config, prefix)

    @property
    def not_as_published(self) -> dict[str, Any]:
        """What differs from the method's paper, by the names of fields."""
        return self.hasher_class.not_as_published(self.settings, self.config)

    @property
    def hasher_class(self) -> type[Hasher]:
        return methods.get(self.experiment.method)

    def hasher(self, image_size: int) -> Hasher:
        """The hasher of these configurations, built for images of image_size px."""
        return self.hasher_class.of(
            self.config,
            self.settings,
            code_length=self.experiment.code_length,
            image_size=image_size,
            seed=self.experiment.seed,
        )
