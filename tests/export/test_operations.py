"""The operations of an export: what an older TF Serving does not know stops the publishing."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tfhash.data import images as image_ops
from tfhash.export import operations, saved_model
from tfhash.export.verify import VerificationError


def edited(published, tmp_path, edit):
    """A copy of the graph after edit(node), for each node of the functions."""
    model = SavedModel.FromString((published / "saved_model.pb").read_bytes())
    for function in model.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            edit(node)
    (tmp_path / "saved_model.pb").write_bytes(model.SerializeToString())
    return tmp_path


def test_what_was_published_passes(published):
    operations.check(published)


def test_the_list_is_that_of_2_18():
    """RaggedTensorToTensor came long before; DecodeWebP and Tshape of TensorListGetItem after."""
    known = operations.known_operations()
    assert known["MatMul"] == {"transpose_a", "transpose_b", "T", "grad_a", "grad_b"}
    assert known["NoOp"] == frozenset()
    assert "RaggedTensorToTensor" in known and "DecodeWebP" not in known
    assert known["TensorListGetItem"] == {"element_dtype"}
    assert len(known) == 1723


def test_an_unknown_operation_of_a_function_is_named(published, tmp_path):
    def edit(node):
        if node.op == "Sigmoid":
            node.op = "SigmoidOfTomorrow"

    with pytest.raises(VerificationError) as error:
        operations.check(edited(published, tmp_path, edit))
    assert str(error.value).startswith("operation SigmoidOfTomorrow (sequential")
    assert str(error.value).endswith("): unknown to TensorFlow 2.18")


def test_an_unknown_attribute_is_named_and_an_internal_one_is_not(published, tmp_path):
    def edit(node):
        if node.op == "Sigmoid":
            node.attr["_of_a_rewrite"].b = True

    operations.check(edited(published, tmp_path, edit))

    def edit_more(node):
        edit(node)
        if node.op == "Sigmoid":
            node.attr["precision"].i = 3

    with pytest.raises(VerificationError, match="attributes precision of operation Sigmoid "):
        operations.check(edited(published, tmp_path, edit_more))


def test_an_unknown_operation_stops_the_publishing(tiny, encoder, monkeypatch, tmp_path):
    known = operations.known_operations()
    del known["Sigmoid"]
    monkeypatch.setattr(operations, "known_operations", lambda: known)
    with pytest.raises(VerificationError, match=r"^operation Sigmoid \("):
        tiny.save(encoder, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_jit_compile_stops_the_publishing(tiny, tmp_path):
    """Keras itself puts the convolution of 8 channels in 2 groups under jit_compile."""
    with pytest.raises(VerificationError, match=r"^function .*_conv_xla.*: jit_compile"):
        tiny.save(tiny.encoder(keras.layers.Conv2D(8, 3, groups=2)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_training_with_xla_leaves_no_jit_compile(tiny, tmp_path):
    head = keras.layers.Dense(13, activation="sigmoid")
    encoder = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten(), head])
    encoder.compile("sgd", "binary_crossentropy", jit_compile=True)
    images = tiny.images(8)
    encoder.fit(images.astype(np.float32), np.zeros([8, 13]), verbose=0)
    arguments = (encoder, 13, 16, {}, "f0", tmp_path / "model", image_ops.Limits())
    saved_model._write(*arguments)
    operations.check(tmp_path / "model")
