"""Servable: a SavedModel in a v1 Session; its answers by hand, and TF Serving's words of errors."""

from __future__ import annotations

from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import prediction_log_pb2

from tfhash.serving.server.servable import Servable
from tfhash.serving.server.status import MAX_MESSAGE, RequestError

IMAGES = np.array([[1, 2], [250, 250]], np.uint8)  # sums 3 and 500


@pytest.fixture(scope="module")
def servable(saved_model):
    servable = Servable("model", 7, saved_model, max_tensor_bytes=1000)
    yield servable
    servable.close()


def arrays(response) -> dict[str, list]:
    return {name: tf.make_ndarray(proto).tolist() for name, proto in response.outputs.items()}


@pytest.mark.parametrize("as_content", [True, False])
@pytest.mark.parametrize("signature", ["", "serving_default"])
def test_predict(servable, request_of, signature, as_content):
    response = servable.predict(request_of(signature, images=IMAGES), as_content=as_content)
    assert arrays(response) == {
        "total": [3, 500],
        "half": [1.5, 250.0],
        "images": IMAGES.tolist(),
    }
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("model", 7, "serving_default")
    assert bool(response.outputs["half"].tensor_content) == as_content


def test_strings_keep_their_last_zeros(servable, request_of):
    request = request_of("text", image_bytes=[b"a\x00", b"", b"\xff"])
    assert arrays(servable.predict(request, as_content=True)) == {
        "length": [2, 0, 1],
        "image_bytes": [b"a\x00", b"", b"\xff"],
    }


def test_a_string_tensor_without_values_holds_empty_strings(servable, request_of):
    proto = tensor_pb2.TensorProto(dtype=tf.string.as_datatype_enum)
    proto.tensor_shape.dim.add(size=2)
    request = request_of("text", image_bytes=proto)
    assert arrays(servable.predict(request, as_content=False))["length"] == [0, 0]


def test_no_rows_give_no_rows(servable, request_of):
    response = servable.predict(request_of(images=IMAGES[:0]), as_content=True)
    assert arrays(response) == {"total": [], "half": [], "images": []}


@pytest.mark.parametrize("outputs", [("half",), ("total", "half"), ("half", "total")])
def test_output_filter(servable, request_of, outputs):
    response = servable.predict(request_of("", outputs, images=IMAGES), as_content=True)
    answers = {"total": [3, 500], "half": [1.5, 250.0]}
    assert arrays(response) == {name: answers[name] for name in outputs}


@pytest.mark.parametrize(
    ("signature", "outputs", "inputs", "message"),
    [
        (
            "",
            (),
            {},
            "input size does not match signature: 0!=1 len({}) != len({images}). "
            "Sent extra: {}. Missing but required: {images}.",
        ),
        (
            "wait",
            (),
            {"gate": [b""], "b": [b""], "a": [b""]},
            "input size does not match signature: 3!=2 len({a,b,gate}) != len({gate,started}). "
            "Sent extra: {a,b}. Missing but required: {started}.",
        ),
        (
            "text",
            (),
            {"image": [b""]},
            "Signature input alias: image_bytes(feed name: strings:0) not found in request and no "
            "default value provided. Inputs expected to be in the set {image_bytes}.",
        ),
        # Of the session, in TensorFlow's words alone.
        ("", (), {"images": IMAGES.astype(np.float32)}, "Type mismatch: actual float vs. expect "
            "uint8"),
        ("", (), {"images": [[b"a"]]}, "Type mismatch: actual string vs. expect uint8"),
        ("", (), {"images": np.zeros(1001, np.uint8)}, "tensor parsing error: images (1001 bytes; "
            "this server allows 1000)"),
        ("", ("other",), {"images": IMAGES}, "output tensor alias not found in signature: other "
            "Outputs expected to be in the set {half,images,total}."),
        ("", ("half", "total", "half"), {"images": IMAGES}, "duplicate output tensor alias: half"),
        ("", (), {"images": IMAGES[0]}, "Shape of tensor Cast [2] is not compatible with expected "
            "shape [?,?]."),
    ],
)  # fmt: skip
def test_wrong_requests(servable, request_of, signature, outputs, inputs, message):
    with pytest.raises(RequestError) as raised:
        servable.predict(request_of(signature, outputs, **inputs), as_content=True)
    assert raised.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.message.split("\n")[0] == message
    assert arrays(servable.predict(request_of(images=IMAGES), as_content=True))["total"] == [3, 500]


def test_an_unknown_signature(servable, request_of):
    with pytest.raises(RequestError) as raised:
        servable.predict(request_of("other", images=IMAGES), as_content=True)
    assert raised.value.code == grpc.StatusCode.FAILED_PRECONDITION
    assert raised.value.message == 'Serving signature key "other" not found.'


def test_a_long_message_is_cut():
    assert RequestError(grpc.StatusCode.UNKNOWN, "x" * 5000).message == "x" * MAX_MESSAGE


def test_many_threads(servable, request_of):
    """The first calls of a signature and a filter come at once too."""

    def totals(value: int) -> list[int]:
        outputs = [("total",), ("total", "half"), ("total", "images")][value % 3]
        request = request_of("", outputs, images=np.full((value, 2), value, np.uint8))
        return arrays(servable.predict(request, as_content=True))["total"]

    values = range(1, 101)
    with futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(totals, values)) == [[2 * value] * value for value in values]


def test_a_folder_that_is_no_saved_model(tmp_path):
    with pytest.raises(OSError, match="SavedModel"):
        Servable("model", 1, tmp_path, max_tensor_bytes=1)


def log_of(request) -> bytes:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request)
    return log.SerializeToString()


OTHER_LOG = prediction_log_pb2.PredictionLog(
    classify_log=prediction_log_pb2.ClassifyLog()
).SerializeToString()


def test_warm_up_answers_the_predict_records(servable, publish, request_of, write_warmup):
    good = log_of(request_of(images=IMAGES))
    text = log_of(request_of("text", image_bytes=[b"a"]))
    assert servable.warm_up(publish(1, warmup=write_warmup(good, OTHER_LOG, text))) == 2
    assert servable.warm_up(publish(2, warmup=write_warmup(*[good] * 1000))) == 1000
    assert servable.warm_up(publish(3)) == 0


def test_warm_up_fails_where_tf_serving_does(servable, publish, request_of, write_warmup):
    good = log_of(request_of(images=IMAGES))
    with pytest.raises(RequestError, match="Shape of tensor"):
        bad = log_of(request_of(images=IMAGES[0]))
        servable.warm_up(publish(1, warmup=write_warmup(good, bad)))
    with pytest.raises(RequestError, match=r"exceeds the maximum \(1000\)"):
        servable.warm_up(publish(2, warmup=write_warmup(*[good] * 1001)))
    with pytest.raises(Exception, match="parsing message"):
        servable.warm_up(publish(3, warmup=write_warmup(b"no PredictionLog")))
    cut = publish(4, warmup=write_warmup(good)) / "assets.extra" / "tf_serving_warmup_requests"
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.raises(tf.errors.DataLossError):
        servable.warm_up(cut.parents[1])
