"""Warm-up requests: what TF Serving will read, and that one that fails stops the publishing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from tfhash import exports
from tfhash.export import verify, warmup

SIZE = 16
INPUTS = {
    "serving_default": "images",
    "encode_images": "images",
    "encode_bytes": "image_bytes",
    "encode_bytes_partial": "image_bytes",
}


def test_each_signature_has_a_request_of_1_8_and_32_images(published):
    requests = [
        (signature, *((name, value.shape) for name, value in inputs.items()))
        for signature, inputs in warmup.read(published)
    ]
    assert requests == [
        (signature, (name, (count, SIZE, SIZE, 3) if name == "images" else (count,)))
        for signature, name in INPUTS.items()
        for count in (1, 8, 32)
    ]
    content = json.loads((published / exports.METADATA).read_text())
    assert content["warmup"] == {"requests": 12, "images": [1, 8, 32]}


def test_every_request_is_answered_by_a_session(published, answer):
    for signature, inputs in warmup.read(published):
        (value,) = inputs.values()
        assert len(answer(signature, value)["code"]) == len(value)


def test_the_messages_are_those_of_tensorflow_serving(published):
    """Its own classes read the file, field by field, and find none that they do not know."""
    module = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    from google.protobuf.unknown_fields import UnknownFieldSet

    path = str(published / "assets.extra" / "tf_serving_warmup_requests")
    records = list(tf.data.TFRecordDataset(path).as_numpy_iterator())
    assert len(records) == 12
    for record, (signature, inputs) in zip(records, warmup.read(published), strict=True):
        log = module.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert request.model_spec.name == "tfhash"
        assert request.model_spec.signature_name == signature
        assert not request.model_spec.HasField("version")
        for message in (log, log.predict_log, request, request.model_spec):
            assert len(UnknownFieldSet(message)) == 0
        assert list(request.inputs) == list(inputs)
        for name, value in inputs.items():
            np.testing.assert_array_equal(tf.make_ndarray(request.inputs[name]), value)


def test_the_name_of_the_model_is_an_argument(tmp_path):
    assert warmup.write(tmp_path, SIZE, model_name="another") == 12
    assert b"another" in (tmp_path / warmup.FILE).read_bytes()


def test_a_request_that_fails_stops_the_publishing(
    tiny, encoder, in_this_process, monkeypatch, tmp_path
):
    requests = [
        ("encode_images", {"images": np.zeros([1, SIZE, SIZE, 3], np.uint8)}),
        ("encode_images", {"images": np.zeros([1, SIZE, SIZE, 4], np.uint8)}),
    ]
    monkeypatch.setattr(warmup, "read", lambda folder: requests)
    with pytest.raises(verify.VerificationError) as error:
        tiny.save(encoder, tmp_path, images=tiny.images(2))
    assert str(error.value).startswith(
        "tf.saved_model.load, warm-up request 1, encode_images: InvalidArgumentError: "
    )
    assert list(tmp_path.iterdir()) == []
