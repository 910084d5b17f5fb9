"""The REST API: predict by rows and columns, versions, labels, status, metadata, errors."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import tensorflow as tf

PREDICT = "/v1/models/tfhash:predict"
FILES = {"signature_name": "encode_bytes"}


@pytest.fixture(scope="module")
def encoded(images) -> list[dict[str, str]]:
    """The images as PNG files in the JSON form of bytes."""
    return [{"b64": base64.b64encode(tf.io.encode_png(image).numpy()).decode()} for image in images]


def column(rows: list[dict], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows])


@pytest.mark.parametrize("named", [False, True])
def test_rows_of_files(server, exports, images, encoded, named):
    rows = [{"image_bytes": one} for one in encoded] if named else encoded
    status, answer = server.rest("POST", PREDICT, FILES | {"instances": rows})
    assert status == 200
    assert set(answer) == {"predictions"}
    assert set(answer["predictions"][0]) == {"code", "bits", "embedding", "fingerprint"}
    expected = exports[2].code(images)
    np.testing.assert_array_equal(column(answer["predictions"], "code"), expected)
    np.testing.assert_allclose(
        column(answer["predictions"], "embedding"), exports[2].embedding(images), atol=1e-5
    )


@pytest.mark.parametrize("named", [False, True])
def test_columns_of_files(server, exports, images, encoded, named):
    columns = {"image_bytes": encoded} if named else encoded
    status, answer = server.rest("POST", PREDICT, FILES | {"inputs": columns})
    assert status == 200
    assert set(answer) == {"outputs"}
    assert set(answer["outputs"]) == {"code", "bits", "embedding", "fingerprint"}
    np.testing.assert_array_equal(answer["outputs"]["code"], exports[2].code(images))


@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_pixels_by_the_default_signature(server, exports, images, key):
    status, answer = server.rest("POST", PREDICT, {key: images.tolist()})
    assert status == 200
    code = answer["outputs"]["code"] if key == "inputs" else column(answer["predictions"], "code")
    np.testing.assert_array_equal(code, exports[2].code(images))


def test_bad_rows_of_the_partial_signature(server, encoded):
    rows = [encoded[0], {"b64": "bm8gaW1hZ2U="}, {"b64": ""}]
    content = {"signature_name": "encode_bytes_partial", "instances": rows}
    status, answer = server.rest("POST", PREDICT, content)
    assert status == 200
    assert [row["valid"] for row in answer["predictions"]] == [True, False, False]
    assert [row["code"] for row in answer["predictions"][1:]] == [[0, 0]] * 2


@pytest.mark.parametrize(
    ("place", "version"),
    [("/versions/1", 1), ("/versions/2", 2), ("/labels/stable", 1), ("/labels/newest", 2)],
)
def test_which_version_answers(server, exports, images, encoded, place, version):
    path = f"/v1/models/tfhash{place}:predict"
    status, answer = server.rest("POST", path, FILES | {"instances": encoded})
    assert status == 200
    expected = exports[version].code(images)
    np.testing.assert_array_equal(column(answer["predictions"], "code"), expected)


@pytest.mark.parametrize(
    ("place", "versions"),
    [("", ["2", "1"]), ("/versions/1", ["1"]), ("/labels/stable", ["2", "1"])],
)
def test_status(server, place, versions):
    """Of a label TF Serving answers every version."""
    status, answer = server.rest("GET", f"/v1/models/tfhash{place}")
    assert status == 200
    ok = {"error_code": "OK", "error_message": ""}
    assert answer == {
        "model_version_status": [
            {"version": version, "state": "AVAILABLE", "status": ok} for version in versions
        ]
    }


@pytest.mark.parametrize(
    ("place", "version"), [("", "2"), ("/versions/1", "1"), ("/labels/stable", "1")]
)
def test_metadata(server, place, version):
    status, answer = server.rest("GET", f"/v1/models/tfhash{place}/metadata")
    assert status == 200
    assert (answer["model_spec"]["name"], answer["model_spec"]["version"]) == ("tfhash", version)
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "encode_images", "encode_bytes", "encode_bytes_partial"} <= set(
        signatures
    )
    assert signatures["encode_bytes"]["inputs"]["image_bytes"]["dtype"] == "DT_STRING"
    dimensions = signatures["encode_bytes"]["outputs"]["bits"]["tensor_shape"]["dim"]
    assert [dimension["size"] for dimension in dimensions] == ["-1", "13"]


NOBODY = "/v1/models/nobody"
GREY = {"instances": [[[[127, 127, 127]]]]}


@pytest.mark.parametrize(
    ("path", "content", "status", "message"),
    [
        (f"{NOBODY}:predict", GREY, 404, "Servable not found for request: Latest(nobody)"),
        (
            "/v1/models/tfhash/versions/99:predict",
            GREY,
            404,
            "Servable not found for request: Specific(tfhash, 99)",
        ),
        (
            "/v1/models/tfhash/labels/none:predict",
            GREY,
            400,
            "Unrecognized servable version label: none",
        ),
        (
            PREDICT,
            {"signature_name": "none", **GREY},
            400,
            'Serving signature name: "none" not found in signature def',
        ),
        (PREDICT, b"", 400, "JSON Parse error: "),
        (PREDICT, b"{not JSON", 400, "JSON Parse error: "),
        (PREDICT, [1], 400, ""),
        (PREDICT, {"signature_name": 7, **GREY}, 400, ""),
        (PREDICT, {"inputs": [], **GREY}, 400, ""),
        (PREDICT, {"signature_name": "encode_images"}, 400, "Missing 'inputs' or 'instances' key"),
        (PREDICT, {"instances": []}, 400, ""),
        (PREDICT, {"instances": "text"}, 400, ""),
        (PREDICT, {"instances": [{"other": 1}]}, 400, "Failed to process element: 0"),
        (PREDICT, {"inputs": {"other": 1}}, 400, ""),
        (PREDICT, {"instances": ["text"]}, 400, ""),
        (PREDICT, {"instances": [[[[1.5, 2, 3]]]]}, 400, ""),
        (PREDICT, {"instances": [[[[1, 2, 3]], [[1, 2]]]]}, 400, ""),
        (PREDICT, FILES | {"instances": [{"b64": "a"}]}, 400, ""),
        (PREDICT, FILES | {"instances": ["not an image, but long enough"]}, 400, ""),
        (PREDICT, {"instances": [[[1, 2, 3]]]}, 400, ""),
        ("/v1/models/tfhash:encode", GREY, 400, "Malformed request: POST /v1/models/tfhash:encode"),
    ],
)
def test_errors_of_predict(server, path, content, status, message):
    answered, answer = server.rest("POST", path, content)
    assert answered == status, answer
    assert set(answer) == {"error"}
    assert answer["error"].startswith(message)
    assert len(answer["error"]) > 10


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        (NOBODY, 404, "Could not find any versions of model nobody"),
        ("/v1/models/tfhash/versions/9", 404, "Could not find version 9 of model tfhash"),
        (f"{NOBODY}/metadata", 404, "Servable not found for request: Latest(nobody)"),
        (PREDICT, 400, f"Malformed request: GET {PREDICT}"),
        ("/v1/models", 400, ""),
        (f"/v1/models/tfhash/versions/{2**64}", 400, f"Failed to convert version: {2**64} to"),
    ],
)
def test_errors_of_get(server, path, status, message):
    answered, answer = server.rest("GET", path)
    assert answered == status, answer
    assert answer["error"].startswith(message)


@pytest.mark.parametrize("method", ["classify", "regress"])
def test_a_hash_is_no_class_and_no_regression(server, method):
    content = {"examples": [{"a": 1}]}
    status, answer = server.rest("POST", f"/v1/models/tfhash:{method}", content)
    # TF Serving has the method, but no signature is made for it.
    assert status == (501 if server.name == "embedded" else 400)
    assert answer["error"]
