"""The serving signatures: pixels or image files in, codes out, everything inside the graph."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras
import tensorflow as tf

from tfhash.data import images as image_ops
from tfhash.export import fingerprint

THRESHOLD = 0.5
_PARALLEL_DECODES = 8

# Ranks are left open: a server should not be relied on to check the shapes it is fed, so the
# graph does, with messages that name the input.
INPUTS = {
    "encode_images": tf.TensorSpec(None, tf.uint8, name="images"),
    "encode_bytes": tf.TensorSpec(None, tf.string, name="image_bytes"),
    "encode_bytes_partial": tf.TensorSpec(None, tf.string, name="image_bytes"),
}
DEFAULT = "encode_images"  # the first: Keras makes it serving_default too


def build(
    encoder: keras.Model,
    code_length: int,
    image_size: int,
    megapixels: int = image_ops.MEGAPIXELS,
    fingerprint_digits: str = "",
    inlined: bool = False,
) -> dict[str, Callable[[tf.Tensor], dict[str, tf.Tensor]]]:
    """The functions behind the signatures, by name, in the order of INPUTS.

    encoder: float32 [n, image_size, image_size, 3] in [0, 255] to [n, code_length] in [0, 1].
    megapixels: the limit of `images.decode`.
    Each function answers `code` uint8 [n, ceil(code_length / 8)], big-endian as numpy.packbits;
    `bits` uint8 [n, code_length]; `embedding` float32 [n, code_length]. An empty batch gets an
    empty answer; a malformed input raises InvalidArgumentError, its message naming the input.
    `encode_bytes_partial` answers `valid` bool [n] too: where a file cannot be decoded, that row
    has valid False and all zeros, and the others are as they would be without it.
    fingerprint_digits: what each function answers in every row of `fingerprint` string [n], a row
    an image, so that a server can merge and part batches; "": there is no such output.
    inlined: as of `build_decoders`.
    """

    def answer(images: tf.Tensor, valid: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        count = tf.shape(images)[0]
        # oneDNN's fused convolution gives an empty batch a wrong shape, so it never gets one.
        padding = [[0, tf.cast(count == 0, tf.int32)], [0, 0], [0, 0], [0, 0]]
        batch = tf.cast(tf.pad(images, padding), tf.float32)
        embedding = tf.cast(encoder(batch, training=False), tf.float32)[:count]
        if embedding.shape[1:] != [code_length]:
            raise ValueError(
                f"code_length: received {code_length}, but the encoder answers "
                f"{embedding.shape.as_list()}"
            )
        if valid is not None:
            embedding = tf.where(valid[:, tf.newaxis], embedding, 0.0)
        bits = tf.cast(embedding > THRESHOLD, tf.uint8)
        outputs = {"code": pack(bits), "bits": bits, "embedding": embedding}
        if fingerprint_digits:
            outputs[fingerprint.OUTPUT] = tf.fill([count], tf.constant(fingerprint_digits))
        return outputs

    def encode_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(image_ops.resize(_checked_images(images), image_size))

    def encode_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(decoders["decode_bytes"](image_bytes)["images"])

    def encode_bytes_partial(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        decoded = decoders["decode_bytes_partial"](image_bytes)
        return {**answer(decoded["images"], decoded["valid"]), "valid": decoded["valid"]}

    decoders = build_decoders(image_size, megapixels, inlined)

    return {
        "encode_images": encode_images,
        "encode_bytes": encode_bytes,
        "encode_bytes_partial": encode_bytes_partial,
    }


def build_decoders(
    image_size: int, megapixels: int = image_ops.MEGAPIXELS, inlined: bool = False
) -> dict[str, Callable[[tf.Tensor], dict[str, tf.Tensor]]]:
    """What stands before the encoder where files are encoded, by name: files in, pixels out.

    image_bytes string [n] to `images` uint8 [n, image_size, image_size, 3]. `decode_bytes` raises
    InvalidArgumentError for a file that cannot be decoded; `decode_bytes_partial` answers `valid`
    bool [n] too, and zeros for such a file. megapixels: the limit of `images.decode`. inlined: they
    hold the operations of `images.decode` themselves, and not a call of one function of them.
    """
    decode = (_decode if inlined else _decode_once_traced)(image_size, megapixels)

    def decode_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = tf.map_fn(
            decode,
            _checked_image_bytes(image_bytes),
            parallel_iterations=_PARALLEL_DECODES,
            fn_output_signature=tf.TensorSpec([image_size, image_size, 3], tf.uint8),
        )
        return {"images": images}

    def decode_bytes_partial(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images, valid = _decode_valid(_checked_image_bytes(image_bytes), image_size, decode)
        return {"images": images, "valid": valid}

    return {"decode_bytes": decode_bytes, "decode_bytes_partial": decode_bytes_partial}


def _decode(image_size: int, megapixels: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """From a file, scalar string, to its pixels, uint8 [image_size, image_size, 3]."""

    def decode(one: tf.Tensor) -> tf.Tensor:
        image = image_ops.resize(image_ops.decode(one, megapixels), image_size)
        return tf.ensure_shape(image, [image_size, image_size, 3])

    return decode


@functools.cache
def _decode_once_traced(image_size: int, megapixels: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """The same: an export has it seven times, and to trace it takes a third of a second."""
    return tf.function(
        _decode(image_size, megapixels),
        input_signature=[tf.TensorSpec([], tf.string)],
        autograph=False,
    )


def fingerprint_of(
    encoder: keras.Model,
    code_length: int,
    image_size: int,
    megapixels: int = image_ops.MEGAPIXELS,
) -> str:
    """The fingerprint of an export of this encoder, of all from a file to its code.

    Arguments and errors as of `build`.
    """
    name = "encode_bytes"
    encode = tf.function(
        # Inlined, as in exports from before there was a choice: theirs stay what they are.
        build(encoder, code_length, image_size, megapixels, inlined=True)[name],
        input_signature=[INPUTS[name]],
        autograph=False,
    )
    return fingerprint.of(encode.get_concrete_function())


def pack(bits: tf.Tensor) -> tf.Tensor:
    """Packs bits in the graph as numpy.packbits(axis=-1) does.

    bits: uint8 [n, k] of 0 and 1, k known statically. Returns uint8 [n, ceil(k / 8)].
    """
    code_length = bits.shape[-1]
    width = -(-code_length // 8)
    padded = tf.pad(tf.cast(bits, tf.int32), [[0, 0], [0, 8 * width - code_length]])
    weights = tf.constant([128, 64, 32, 16, 8, 4, 2, 1])
    return tf.cast(tf.reduce_sum(tf.reshape(padded, [-1, width, 8]) * weights, -1), tf.uint8)


def describe(code_length: int) -> dict[str, dict[str, dict[str, str]]]:
    """Inputs and outputs of each signature in words, for people and for the metadata."""
    outputs = {
        "code": f"uint8 [N, {-(-code_length // 8)}]",
        "bits": f"uint8 [N, {code_length}]",
        "embedding": f"float32 [N, {code_length}]",
        fingerprint.OUTPUT: "string [N]",
    }
    files = {"image_bytes": "string [N]"}
    return {
        "encode_images": {"inputs": {"images": "uint8 [N, H, W, 3]"}, "outputs": outputs},
        "encode_bytes": {"inputs": files, "outputs": outputs},
        "encode_bytes_partial": {"inputs": files, "outputs": {**outputs, "valid": "bool [N]"}},
    }


def _decode_valid(
    image_bytes: tf.Tensor, size: int, decode: Callable[[tf.Tensor], tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes the files that can be: uint8 [n, size, size, 3], zeros for the others; bool [n].

    Only a tf.data pipeline goes on after an operation has failed. There is one for the whole
    batch, because to start one takes longer than to decode an image.
    """
    count = tf.size(image_bytes, tf.int64)

    decoded = (
        tf.data.Dataset.from_tensor_slices((tf.range(count), image_bytes))
        .map(lambda row, one: (row, decode(one)), num_parallel_calls=_PARALLEL_DECODES)
        .ignore_errors()
    )
    # A row more, so that there is an element to get even where no file can be decoded.
    extra = tf.data.Dataset.from_tensors((count, tf.zeros([size, size, 3], tf.uint8)))
    rows, images = decoded.concatenate(extra).batch(count + 1).get_single_element()

    def in_place(values: tf.Tensor) -> tf.Tensor:
        shape = tf.concat([[count + 1], tf.shape(values, tf.int64)[1:]], 0)
        return tf.scatter_nd(rows[:, tf.newaxis], values, shape)[:count]

    return in_place(images), in_place(tf.ones_like(rows, tf.bool))


def _checked_images(images: tf.Tensor) -> tf.Tensor:
    shape = tf.shape(images)
    # Slices, unlike indices, are valid at any rank, so that this check is what fails.
    valid = (
        tf.equal(tf.rank(images), 4)
        & image_ops.are_sides(shape[1:3])
        & tf.reduce_all(tf.equal(shape[3:4], 3))
    )
    form = "uint8 [N, H >= 1, W >= 1, 3]"
    expected = f"images: expected {form}, sides of {image_ops.SIDES}, received shape"
    return _require(images, valid, expected, [None, None, None, 3])


def _checked_image_bytes(image_bytes: tf.Tensor) -> tf.Tensor:
    expected = "image_bytes: expected string [N], received shape"
    return _require(image_bytes, tf.equal(tf.rank(image_bytes), 1), expected, [None])


def _require(tensor: tf.Tensor, valid: tf.Tensor, expected: str, shape: list) -> tf.Tensor:
    """The tensor, of a static shape, available only where it is valid."""
    received = tf.shape(tensor)
    check = tf.debugging.Assert(valid, [expected, received], summarize=8)
    with tf.control_dependencies([check]):
        # The reshape changes nothing. Through tf.identity, or a reshape to `received` itself,
        # Grappler infers the input's shape from what later operations need, and folds the check
        # of that very shape to True; it cannot see through tf.maximum.
        checked = tf.reshape(tensor, tf.maximum(received, 0))
    checked.set_shape(shape)
    return checked
