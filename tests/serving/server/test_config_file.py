"""Server: a configuration file that changes."""

from __future__ import annotations

import contextlib
import logging

import grpc
import pytest
from google.protobuf import text_format

from tests.serving.server.asking import IMAGES, PATIENCE, serves


class ConfigFile:
    def __init__(self, path):
        self.path = str(path)
        self._path = path

    def write(self, text: str) -> None:
        """In one rename, as an operator should."""
        new = self._path.with_suffix(".new")
        new.write_text(text)
        new.rename(self._path)


@pytest.fixture
def config_file(tmp_path) -> ConfigFile:
    return ConfigFile(tmp_path / "models.config")


def test_a_config_file_that_changes(
    start, publish, base_path, config_of, config_file, until, caplog
):
    publish(1)
    one, two = config_of(a=base_path), config_of(a=base_path, b=base_path)
    config_file.write(text_format.MessageToString(one))
    with caplog.at_level(logging.ERROR):
        server = start(one, model_config_file=config_file.path, config_poll_seconds=0.02)
        config_file.write(text_format.MessageToString(two))
        until(lambda: serves(server) == {"a": [1], "b": [1]})
        assert not caplog.records
        config_file.write("model_config_list { oh dear")
        until(lambda: "--model_config_file" in caplog.text)
        assert serves(server) == {"a": [1], "b": [1]}
        config_file.write("model_config_list {}")
        until(lambda: serves(server) == {})


def test_a_config_file_that_changed_while_the_server_started(
    start, publish, base_path, config_of, config_file, until
):
    publish(1)
    config_file.write(text_format.MessageToString(config_of(a=base_path, b=base_path)))
    server = start(
        config_of(a=base_path), model_config_file=config_file.path, config_poll_seconds=0.02
    )
    until(lambda: serves(server) == {"a": [1], "b": [1]})


def test_a_label_may_wait_in_the_config_file_for_its_version(
    start, publish, base_path, config_of, config_file, until, stub_of, request_of, caplog
):
    publish(1)
    config = config_of(model=base_path)
    config_file.write(text_format.MessageToString(config))
    with caplog.at_level(logging.ERROR):
        server = start(config, model_config_file=config_file.path, config_poll_seconds=0.02)
        labelled = config_of(model=base_path)
        labelled.model_config_list.config[0].version_labels["next"] = 2
        config_file.write(text_format.MessageToString(labelled))
        until(lambda: "Request to assign label to version 2 of model model" in caplog.text)
    publish(2)
    request = request_of("", ("total",), images=IMAGES)
    request.model_spec.version_label = "next"

    def answered() -> bool:
        with contextlib.suppress(grpc.RpcError):
            response = stub_of(server).Predict(request, timeout=PATIENCE)
            return response.model_spec.version.value == 2

    until(answered)


def test_an_unchanged_config_file_leaves_what_a_client_configured(
    start, publish, base_path, config_of, config_file
):
    publish(1)
    config = config_of(a=base_path)
    config_file.write(text_format.MessageToString(config))
    server = start(config, model_config_file=config_file.path, config_poll_seconds=3600.0)
    server.models.configure(config_of(b=base_path).model_config_list.config)
    server._reread()
    assert serves(server) == {"b": [1]}
