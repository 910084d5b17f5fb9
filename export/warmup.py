"""Warm-up requests: what TF Serving answers to itself before a version gets its first request.

It reads them from a TFRecord file of PredictionLog messages, and loads no version of which one
fails: https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from tfhash.export import signatures

FILE = Path("assets.extra", "tf_serving_warmup_requests")
BATCH_SIZES = (1, 8, 32)

_GREY = 127
# What of tensorflow_serving.apis a warm-up request takes: prediction_log.proto, predict.proto and
# model.proto with their field numbers. The package tensorflow-serving-api would bring them along
# with a server's dependencies, and is bound to one release of TensorFlow.
_MESSAGES = """
  name: "tfhash/export/warmup.proto"
  package: "tfhash"
  syntax: "proto3"
  dependency: "tensorflow/core/framework/tensor.proto"
  message_type {
    name: "PredictionLog"
    field { name: "predict_log" number: 6 type: TYPE_MESSAGE type_name: ".tfhash.PredictLog" }
  }
  message_type {
    name: "PredictLog"
    field { name: "request" number: 1 type: TYPE_MESSAGE type_name: ".tfhash.PredictRequest" }
  }
  message_type {
    name: "PredictRequest"
    field { name: "model_spec" number: 1 type: TYPE_MESSAGE type_name: ".tfhash.ModelSpec" }
    field {
      name: "inputs" number: 2 label: LABEL_REPEATED
      type: TYPE_MESSAGE type_name: ".tfhash.PredictRequest.InputsEntry"
    }
    nested_type {
      name: "InputsEntry"
      field { name: "key" number: 1 type: TYPE_STRING }
      field { name: "value" number: 2 type: TYPE_MESSAGE type_name: ".tensorflow.TensorProto" }
      options { map_entry: true }
    }
  }
  message_type {
    name: "ModelSpec"
    field { name: "name" number: 1 type: TYPE_STRING }
    field { name: "signature_name" number: 3 type: TYPE_STRING }
  }
"""


def _message_class() -> Any:
    pool = descriptor_pool.Default()  # which has the messages of TensorFlow
    file = text_format.Parse(_MESSAGES, descriptor_pb2.FileDescriptorProto())
    pool.AddSerializedFile(file.SerializeToString())
    descriptor = pool.FindMessageTypeByName("tfhash.PredictionLog")
    return message_factory.GetMessageClass(descriptor)


_PredictionLog = _message_class()


def write(folder: Path, image_size: int, model_name: str = "tfhash") -> int:
    """Writes the requests of a SavedModel: each signature, each of BATCH_SIZES; returns how many.

    folder: the SavedModel. The images are grey, of the encoder's own size, as JPEG in a file.
    model_name: a label for readers of the file; TF Serving does not look at it.
    """
    jpeg = tf.io.encode_jpeg(tf.fill([image_size, image_size, 3], tf.constant(_GREY, tf.uint8)))
    names = {tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY: signatures.DEFAULT}
    names |= {name: name for name in signatures.INPUTS}
    path = folder / FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for name, endpoint in names.items():
            spec = signatures.INPUTS[endpoint]
            for count in BATCH_SIZES:
                if spec.dtype == tf.string:
                    tensor = tf.make_tensor_proto([jpeg.numpy()] * count)
                else:  # of one value in this form, however many pixels
                    tensor = tf.make_tensor_proto(
                        _GREY, spec.dtype, [count, image_size, image_size, 3]
                    )
                log = _PredictionLog()
                log.predict_log.request.model_spec.name = model_name
                log.predict_log.request.model_spec.signature_name = name
                log.predict_log.request.inputs[spec.name].CopyFrom(tensor)
                writer.write(log.SerializeToString())
    return len(names) * len(BATCH_SIZES)


def read(folder: Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """The requests of a SavedModel, as TF Serving reads them: the signature and inputs of each."""
    for record in tf.data.TFRecordDataset(os.fspath(folder / FILE)).as_numpy_iterator():
        request = _PredictionLog.FromString(record).predict_log.request
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        yield request.model_spec.signature_name, inputs
