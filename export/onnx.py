"""The encoder as an ONNX file, for ONNX Runtime and other engines.

Input `images` uint8 [N, S, S, 3], RGB, S the encoder's own size; outputs `code` uint8
[N, ceil(k/8)], `bits` uint8 [N, k], `embedding` float32 [N, k], as of the SavedModel's
`encode_images`.

The description of the codes, tfhash.json, is in the model's metadata_props, which every engine
shows: `json.loads(session.get_modelmeta().custom_metadata_map["tfhash.json"])`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfhash.errors import UserError
from tfhash.export import portable

# tf2onnx's default, its best tested one. It has all that the encoders need, and every engine of
# the last years reads it: ONNX Runtime since 1.10.
OPSET = 15


def save(
    encoder: keras.Model,
    *,
    code_length: int,
    image_size: int,
    metadata: Mapping[str, Any],
    path: Path | str,
) -> Path:
    """Writes an encoder as an ONNX file, atomically; returns its path.

    encoder: float32 [n, image_size, image_size, 3] in [0, 255] to [n, code_length] in [0, 1].
    metadata: what the run adds to tfhash.json, JSON values.
    Raises UserError for a package that is not installed or an operation that ONNX lacks,
    ValueError for a wrong code_length; then nothing is written.
    """
    _require("tf2onnx", "onnx")
    import onnx
    import tf2onnx

    with portable.quiet():
        function = portable.trace(encoder, code_length, image_size)
        model, _ = tf2onnx.convert.from_function(
            function, input_signature=function.input_signature, opset=OPSET
        )
    _keep_constants(onnx, model.graph, function.get_concrete_function())
    # tf2onnx only logs what it has no operation for, and hands the name on.
    lacking = {node.op_type for node in model.graph.node if not _is_known(onnx, node)}
    if lacking:
        raise UserError(
            f"--format=onnx: tf2onnx has no {', '.join(sorted(lacking))}, which the encoder uses; "
            "export it as saved_model"
        )
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    description = portable.describe(code_length, image_size, metadata, weights="float32")
    onnx.helper.set_model_props(model, {portable.METADATA_FILE: portable.to_json(description)})
    return portable.write(path, model.SerializeToString())


def codes(path: Path | str, images: np.ndarray) -> np.ndarray:
    """The codes that ONNX Runtime gives on the CPU: packed uint8 [n, ceil(k / 8)].

    images: uint8 [n >= 1, S, S, 3]. Raises UserError where onnxruntime is not installed, and
    onnxruntime's own errors for other images.
    """
    _require("onnxruntime")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return portable.in_batches(lambda batch: session.run(["code"], {"images": batch})[0], images)


def _require(*packages: str) -> None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(
            f"--format=onnx: not installed: {', '.join(missing)}; the extra onnx installs it"
        )


def _keep_constants(onnx: Any, graph: Any, function: Any) -> None:
    """tf2onnx makes an input of each tensor that a layer keeps, such as the mean of Normalization.

    graph: the ONNX graph, changed in place. function: the tf.function's concrete function.
    """
    _, *kept = function.inputs
    values = {
        tensor.name: value for tensor, value in zip(kept, function.captured_inputs, strict=True)
    }
    used = {name for node in graph.node for name in node.input}
    for name in [value.name for value in graph.input if value.name in values]:
        if name in used:
            constant = onnx.numpy_helper.from_array(values[name].numpy(), name)
            graph.initializer.append(constant)
    inputs = [value for value in graph.input if value.name not in values]
    del graph.input[:]
    graph.input.extend(inputs)


def _is_known(onnx: Any, node: Any) -> bool:
    return onnx.defs.has(node.op_type, max_inclusive_version=OPSET, domain=node.domain)
