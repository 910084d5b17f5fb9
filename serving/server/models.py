"""The models of a server: configured, watched, and given to requests."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
from tensorflow_serving.apis import model_pb2
from tensorflow_serving.config import model_server_config_pb2

from tfhash.serving.server.servable import Servable
from tfhash.serving.server.status import RequestError, invalid
from tfhash.serving.server.versions import Load, Model, Retries, State, Version


class Models:
    """All models of a server. Requests use versions while `poll` and `configure` change them."""

    def __init__(
        self,
        load: Load,
        retries: Retries = Retries(),  # noqa: B008 (frozen)
        *,
        labels_for_unavailable: bool = False,
    ):
        self._load = load
        self._retries = retries
        self._labels_for_unavailable = labels_for_unavailable
        self._models: dict[str, Model] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._changing = threading.RLock()

    def configure(self, configs: Sequence[model_server_config_pb2.ModelConfig]) -> None:
        """Serves these models and no others; loads what is new before it answers.

        Raises RequestError for a config that TF Serving would refuse, for a new model of which no
        version could be loaded, and for a label of a version that is not available.
        """
        _check(configs)
        with self._changing:
            models = {}
            for config in configs:
                models[config.name] = self._models.get(config.name) or Model(config)
                models[config.name].config = config
            gone = [model for name, model in self._models.items() if name not in models]
            new = [model for name, model in models.items() if name not in self._models]
            self._models = models
            self.poll()
            for model in gone:
                model.retire()
            _check_loaded(new)
            self._labels = self._checked_labels(configs)

    def poll(self) -> None:
        """Looks once for new and vanished version folders."""
        with self._changing:
            for model in self._models.values():
                model.poll(self._load, self._retries)

    @contextlib.contextmanager
    def use(self, spec: model_pb2.ModelSpec) -> Iterator[Servable]:
        """The version that a ModelSpec names, kept loaded inside."""
        version = self._resolve(spec)
        try:
            assert version.servable is not None  # while it is acquired
            yield version.servable
        finally:
            version.release()

    def statuses(self, spec: model_pb2.ModelSpec) -> list[Version]:
        """The versions, newest first, that were ever seen of a model, or the one that is named.

        As in TF Serving a number names one, and a label is not looked at.
        """
        model = self._models.get(spec.name)
        versions = model.versions.copy() if model else {}
        if spec.HasField("version"):
            number = spec.version.value
            if number not in versions:
                raise not_found(f"Could not find version {number} of model {spec.name}")
            return [versions[number]]
        if not versions:
            raise not_found(f"Could not find any versions of model {spec.name}")
        return [versions[number] for number in sorted(versions, reverse=True)]

    def available(self) -> dict[str, list[int]]:
        """The versions of each model that answer requests."""
        return {
            name: [v.number for v in model.versions.copy().values() if v.state == State.AVAILABLE]
            for name, model in self._models.items()
        }

    def close(self) -> None:
        with self._changing:
            for model in self._models.values():
                model.retire()

    def _resolve(self, spec: model_pb2.ModelSpec) -> Version:
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        number = self._number(spec)
        model = self._models.get(spec.name)
        while model:
            version = model.latest if number is None else model.versions.get(number)
            if version is None:
                break
            if version.acquire():
                return version
            if number is not None:
                break
            # The latest was retired between the two lines above: there is a newer one.
        asked = f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"
        raise not_found(f"Servable not found for request: {asked}")

    def _number(self, spec: model_pb2.ModelSpec) -> int | None:
        match spec.WhichOneof("version_choice"):
            case "version":
                return spec.version.value
            case "version_label":
                labels = self._labels.get(spec.name, {})
                if spec.version_label not in labels:
                    raise invalid(f"Unrecognized servable version label: {spec.version_label}")
                return labels[spec.version_label]
        return None

    def _checked_labels(
        self, configs: Sequence[model_server_config_pb2.ModelConfig]
    ) -> dict[str, dict[str, int]]:
        labels = {config.name: dict(config.version_labels) for config in configs}
        available = self.available()
        for name, of_model in labels.items():
            for label, number in of_model.items():
                moved = self._labels.get(name, {}).get(label, number) != number
                allowed = self._labels_for_unavailable and not moved
                if number not in available[name] and not allowed:
                    raise RequestError(
                        grpc.StatusCode.FAILED_PRECONDITION,
                        f"Request to assign label to version {number} of model {name}, which is "
                        "not currently available for inference",
                    )
        return labels


def not_found(message: str) -> RequestError:
    return RequestError(grpc.StatusCode.NOT_FOUND, message)


def _check(configs: Sequence[model_server_config_pb2.ModelConfig]) -> None:
    names = set()
    for config in configs:
        if not config.name:
            raise invalid("a model of the config list has no name")
        if config.name in names:
            raise invalid(f"Illegal to list model {config.name} multiple times in config list")
        names.add(config.name)
        if not Path(config.base_path).is_absolute():
            raise invalid(
                f"Expected model {config.name} to have an absolute path or URI; got "
                f"base_path()={config.base_path}"
            )
        old_type = config.model_type == model_server_config_pb2.TENSORFLOW
        if config.model_platform != "tensorflow" and not old_type:
            raise invalid(
                f"model {config.name}: model_platform is {config.model_platform!r}; allowed: "
                "tensorflow"
            )


def _check_loaded(models: Sequence[Model]) -> None:
    failed = [
        f"{{name: {model.config.name} version: {version.number}}} due to error: {version.error}"
        for model in models
        if not model.latest
        for version in model.versions.values()
        if version.error
    ]
    if failed:
        raise RequestError(
            grpc.StatusCode.UNKNOWN,
            f"{len(failed)} servable(s) did not become available: {'; '.join(failed)}",
        )
