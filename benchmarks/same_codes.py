"""Counts the bits that differ from Keras on every path from an image to a code.

    python -m tfhash.export --model_dir=DIR         (and --format=tflite, --format=onnx)
    python -m tfhash.serving.server --model_base_path=DIR/export --rest_api_port=8501 &
    python benchmarks/same_codes.py --model_dir=DIR [--target=HOST:8500] [--rest=HOST:8501]

The images are those of the run's data set, evenly spread. Paths that take files get them as PNG,
which loses nothing, and decode them in the graph. A path whose file or server is not there says so.
"""

from __future__ import annotations

import argparse
import base64
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfhash.export import onnx, portable, tflite
from tfhash.runs import finished
from tfhash.serving import HashClient

INPUTS = {
    "encode_images": "images",
    "encode_bytes": "image_bytes",
    "encode_bytes_partial": "image_bytes",
}
Encode = Callable[[np.ndarray], np.ndarray]


def through_function(version: Path, signature: str) -> Encode:
    encode = tf.saved_model.load(str(version)).signatures[signature]
    return lambda batch: encode(**{INPUTS[signature]: tf.constant(batch)})["code"].numpy()


def through_session(version: Path, signature: str) -> Encode:
    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph)
    with graph.as_default():
        model = tf.compat.v1.saved_model.load(session, ["serve"], str(version))
    tensors = model.signature_def[signature]
    fed = tensors.inputs[INPUTS[signature]].name
    return lambda batch: session.run(tensors.outputs["code"].name, {fed: batch})


def through_grpc(client: HashClient, signature: str) -> Encode:
    if signature == "encode_images":
        return lambda batch: client.encode_images(batch).code
    on_error = "mask" if signature == "encode_bytes_partial" else "raise"
    return lambda batch: client.encode_bytes(list(batch), on_error=on_error).code


def through_rest(address: str, signature: str) -> Encode:
    def encode(batch: np.ndarray) -> np.ndarray:
        rows = batch.tolist()
        if signature != "encode_images":
            rows = [{"b64": base64.b64encode(row).decode()} for row in rows]
        body = json.dumps({"signature_name": signature, "instances": rows}).encode()
        url = f"http://{address}/v1/models/tfhash:predict"
        with urllib.request.urlopen(url, body) as response:
            predictions = json.load(response)["predictions"]
        return np.array([prediction["code"] for prediction in predictions], np.uint8)

    return encode


def paths(
    model_dir: Path, client: HashClient, rest: str
) -> Iterator[tuple[str, str, Callable[[], Encode]]]:
    """The name of each path, its signature, and what opens it."""
    exported = model_dir / "export"
    version = max(
        (path for path in exported.iterdir() if path.name.isdecimal()),
        key=lambda path: int(path.name),
    )
    for signature in INPUTS:
        yield "tf.saved_model.load", signature, lambda s=signature: through_function(version, s)
        yield "v1 Session", signature, lambda s=signature: through_session(version, s)
        yield "gRPC", signature, lambda s=signature: through_grpc(client, s)
        yield "REST", signature, lambda s=signature: through_rest(rest, s)
    for name, codes in (
        ("encoder_float32.tflite", tflite.codes),
        ("encoder_float16.tflite", tflite.codes),
        ("encoder.onnx", onnx.codes),
    ):
        file = exported / name
        yield name, "encode_images", lambda f=file, c=codes: lambda batch: c(f, batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_dir", type=Path, required=True)
    parser.add_argument("--target", default="localhost:8500")
    parser.add_argument("--rest", default="localhost:8501")
    parser.add_argument("--images", type=int, default=1000)
    options = parser.parse_args()
    images = finished.sample_images(options.model_dir, options.images)
    files = np.array([tf.io.encode_png(image).numpy() for image in images], object)
    hasher = finished.load(options.model_dir)
    expected = hasher.encode(images)
    print(f"{len(images):,} images, {len(images) * hasher.code_length:,} bits")
    with HashClient(options.target) as client:
        for name, signature, make in paths(options.model_dir, client, options.rest):
            source = images if signature == "encode_images" else files
            try:
                codes = portable.in_batches(make(), source)
                result = f"{int(np.bitwise_count(codes ^ expected).sum()):,} bits differ"
            except Exception as error:
                result = f"not compared: {' '.join(str(error).split())[:90]}"
            print(f"  {name:<24}{signature:<22}{result}", flush=True)


if __name__ == "__main__":
    main()
