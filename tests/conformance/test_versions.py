"""Versions come and go under load, and one that fails its warm-up requests never comes."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

CLIENTS = 4  # as many as may wait in the queue of the server
WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")


class Client(threading.Thread):
    """Asks a model the same again and again; keeps versions in the order in which they answered."""

    def __init__(self, server, model: str, images: np.ndarray, codes: dict[int, np.ndarray]):
        super().__init__(daemon=True)
        self._server, self._codes = server, codes
        self._request = server.request(model=model, outputs=["code"], images=images)
        self._stopping = threading.Event()
        self.versions: list[int] = []
        self.wrong: list[object] = []
        self.answers = 0

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                response = self._server.prediction.Predict(self._request, timeout=20)
                version = response.model_spec.version.value
                code = tf.make_ndarray(response.outputs["code"])
                assert np.array_equal(code, self._codes[version]), f"code of version {version}"
            except Exception as error:
                self.wrong.append(error)
                continue
            self.answers += 1
            if self.versions[-1:] != [version]:
                self.versions.append(version)

    def stop(self) -> None:
        self._stopping.set()
        self.join()


def test_a_new_version_and_back_again_under_load(server, exports, images):
    """No request fails, so a version is there before the other is gone: loading takes far longer
    than the time between two requests."""
    codes = {version: of_version.code(images) for version, of_version in exports.items()}
    with server.serving("reloaded", {1: exports[1].folder}):
        clients = [Client(server, "reloaded", images, codes) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            wait_for_answers(server, clients, 1)
            server.publish("reloaded", 2, exports[2].folder)
            wait_for_answers(server, clients, 2)
            server.withdraw("reloaded", 2)
            wait_for_answers(server, clients, 1)
        finally:
            for client in clients:
                client.stop()
    assert [client.wrong for client in clients] == [[]] * CLIENTS
    # Not once did an answer of the old version follow one of the new.
    assert [client.versions for client in clients] == [[1, 2, 1]] * CLIENTS


def wait_for_answers(server, clients: list[Client], version: int) -> None:
    """Until only this version is left, and has then answered each client some times."""

    def alone() -> bool:
        states = server.states("reloaded").items()
        return [number for number, state in states if state == "AVAILABLE"] == [version]

    server.wait(alone)
    for client in clients:
        enough = client.answers + 5
        server.wait(lambda client=client, enough=enough: client.answers >= enough or client.wrong)


def test_a_version_that_is_not_renamed_yet_is_not_served(server, exports):
    """Of two new folders only the one whose name is an integer is taken for a version."""
    with server.serving("aside", {1: exports[1].folder}, every=True):
        shutil.copytree(exports[2].folder, server.folder / "aside" / ".2.tmp-0badcafe")
        server.publish("aside", 3, exports[2].folder)
        server.wait(lambda: server.states("aside").get(3) == "AVAILABLE")
        assert server.states("aside") == {1: "AVAILABLE", 3: "AVAILABLE"}


@pytest.mark.parametrize("broken", ["a failing warm-up request", "no SavedModel"])
def test_a_version_that_does_not_load_leaves_the_old_one(server, exports, images, tmp_path, broken):
    model = "unloadable-" + broken.split()[1]
    shutil.copytree(exports[2].folder, tmp_path / "new")
    if broken == "no SavedModel":
        (tmp_path / "new" / "saved_model.pb").unlink()
    else:
        append_warmup(tmp_path / "new", server.request("encode_images", no_such_input=[b""]))
    with server.serving(model, {1: exports[1].folder}):
        server.publish(model, 2, tmp_path / "new")
        server.wait(lambda: server.states(model).get(2) == "END")
        (failed,) = server.statuses(model, 2)
        assert failed.status.error_code and failed.status.error_message
        if broken != "no SavedModel":
            assert "images(feed name: " in failed.status.error_message
        response = server.predict(model=model, images=images)
        assert response.model_spec.version.value == 1
        code = tf.make_ndarray(response.outputs["code"])
        np.testing.assert_array_equal(code, exports[1].code(images))


def append_warmup(folder: Path, request) -> None:
    """One more request, after those of the export, which the server answers without error."""
    path = str(folder / WARMUP_FILE)
    records = [record.numpy() for record in tf.data.TFRecordDataset(path)]
    assert len(records) == 12  # 1, 8 and 32 images of four signatures
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request)
    with tf.io.TFRecordWriter(path) as writer:
        for record in [*records, log.SerializeToString()]:
            writer.write(record)
