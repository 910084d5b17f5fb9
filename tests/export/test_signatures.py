"""The signatures of the SavedModel, through a v1 Session, TF Serving's kind of loader."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfhash.data import image_files
from tfhash.data import images as image_ops
from tfhash.export import signatures

SIZE, CODE_LENGTH, WIDTH = 16, 13, 2
BYTES_SIGNATURES = ("encode_bytes", "encode_bytes_partial")


def byte_strings(values) -> np.ndarray:
    return np.array(values, object)


def png(image: np.ndarray) -> bytes:
    return tf.io.encode_png(image).numpy()


def jpeg(image: np.ndarray) -> bytes:
    return tf.io.encode_jpeg(image).numpy()


def undecodable(image: np.ndarray) -> dict[str, bytes]:
    """What no signature can make a code of, by what is wrong with it."""
    start = png(image)
    return {
        "empty": b"",
        "oversize": start + bytes(image_ops.Limits().bytes),
        "no image": b"this is text, not an image",
        "another format": b"GIF89a" + bytes(50),
        # The width of a PNG stands in its bytes 16 to 19, and decides before any pixel is read.
        "pixel bomb": start[:16] + struct.pack(">I", image_ops.MAX_SIDE + 1) + start[20:],
        "truncated PNG": start[: len(start) // 2],
        "truncated JPEG": jpeg(image)[:-200],
        "truncated JPEG header": jpeg(image)[:100],
    }


def test_outputs_are_those_of_the_encoder(tiny, encoder, answer):
    images = tiny.images(20)
    output = answer("encode_images", images)
    embedding = encoder(images.astype(np.float32), training=False).numpy()
    np.testing.assert_allclose(output["embedding"], embedding, atol=1e-5)
    assert output["embedding"].dtype == np.float32
    assert output["bits"].dtype == output["code"].dtype == np.uint8
    np.testing.assert_array_equal(output["bits"], output["embedding"] > 0.5)
    np.testing.assert_array_equal(output["code"], np.packbits(output["bits"], axis=-1))
    assert len(np.unique(output["code"], axis=0)) > 10  # else the comparisons show nothing


def test_serving_default_is_encode_images(tiny, answer):
    images = tiny.images(5)
    for name, value in answer("serving_default", images).items():
        np.testing.assert_array_equal(value, answer("encode_images", images)[name])


def test_images_of_any_size_are_resized_in_the_graph(tiny, answer):
    images = tiny.images(6, 40, 24)
    resized = image_ops.resize(tf.constant(images), SIZE).numpy()
    np.testing.assert_array_equal(
        answer("encode_images", images)["code"], answer("encode_images", resized)["code"]
    )


@pytest.mark.parametrize("signature", BYTES_SIGNATURES)
def test_files_of_mixed_formats_and_sizes_equal_their_decoded_images(tiny, answer, signature):
    sizes = [(40, 30), (16, 16), (9, 70), (20, 20)]
    encode = [jpeg, png, jpeg, png]
    files = [make(tiny.images(1, *size)[0]) for make, size in zip(encode, sizes, strict=True)]
    one_by_one = [
        answer("encode_images", image_ops.decode(file).numpy()[np.newaxis])["code"][0]
        for file in files
    ]
    np.testing.assert_array_equal(answer(signature, byte_strings(files))["code"], one_by_one)


@pytest.mark.parametrize("signature", BYTES_SIGNATURES)
def test_training_and_the_graph_see_the_same_pixels(tiny, answer, signature, tmp_path):
    """A photo of a camera held sideways, drawings on nothing, and a palette of four colours."""
    image = Image.fromarray(tiny.images(1, 40, 24)[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "0.jpg", exif=exif.tobytes())
    image.save(tmp_path / "1.jpg")
    drawing = image.convert("RGBA")
    drawing.putalpha(image.convert("L"))
    drawing.save(tmp_path / "2.png")
    image.quantize(4).save(tmp_path / "3.png")
    image.quantize(4).save(tmp_path / "4.png", transparency=1)
    names = sorted(path.name for path in tmp_path.iterdir())
    pixels, _, _ = image_files.read(tmp_path, names, image_files.Reading(SIZE))
    learned_from = answer("encode_images", pixels)
    files = byte_strings([(tmp_path / name).read_bytes() for name in names])
    for name in ("code", "embedding"):
        np.testing.assert_array_equal(answer(signature, files)[name], learned_from[name])
    assert len(np.unique(learned_from["code"], axis=0)) == len(names)


@pytest.mark.parametrize(
    ("signature", "empty"),
    [
        ("encode_images", np.zeros([0, SIZE, SIZE, 3], np.uint8)),
        ("encode_images", np.zeros([0, 5, 7, 3], np.uint8)),
        ("encode_bytes", byte_strings([])),
        ("encode_bytes_partial", byte_strings([])),
    ],
)
def test_an_empty_batch_gets_an_empty_answer(answer, signature, empty):
    shapes = {name: value.shape for name, value in answer(signature, empty).items()}
    expected = {"code": (0, WIDTH), "bits": (0, CODE_LENGTH), "embedding": (0, CODE_LENGTH)}
    expected["fingerprint"] = (0,)
    assert shapes == expected | ({"valid": (0,)} if signature.endswith("partial") else {})


@pytest.mark.parametrize(
    ("signature", "value", "message"),
    [
        ("encode_images", np.zeros([SIZE, SIZE, 3], np.uint8), "images: expected uint8 [N, H"),
        ("encode_images", np.uint8(7), "images: expected uint8 [N, H"),
        ("encode_images", np.zeros([1, SIZE, SIZE, 1], np.uint8), "images: expected uint8 [N, H"),
        ("encode_images", np.zeros([1, SIZE, SIZE, 4], np.uint8), "images: expected uint8 [N, H"),
        ("encode_images", np.zeros([1, 0, SIZE, 3], np.uint8), "images: expected uint8 [N, H"),
        ("encode_bytes", byte_strings([[b"x"]]), "image_bytes: expected string [N]"),
        ("encode_bytes", byte_strings(b"x"), "image_bytes: expected string [N]"),
        ("encode_bytes_partial", byte_strings([[b"x"]]), "image_bytes: expected string [N]"),
        ("encode_bytes_partial", byte_strings(b"x"), "image_bytes: expected string [N]"),
    ],
)
def test_a_malformed_input_is_named(answer, signature, value, message):
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        answer(signature, value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("flaw", "message"),
    [
        ("empty", "image_bytes: length out of range"),
        ("oversize", "image_bytes: length out of range"),
        ("no image", "image_bytes: not a JPEG or PNG image"),
        ("another format", "image_bytes: not a JPEG or PNG image"),
        ("pixel bomb", "image_bytes: image dimensions out of range"),
        ("truncated PNG", "Invalid PNG data"),
        ("truncated JPEG", "jpeg::Uncompress failed"),
        ("truncated JPEG header", "Invalid JPEG data"),
    ],
)
def test_a_file_that_cannot_be_decoded_fails_its_batch_or_its_row(tiny, answer, flaw, message):
    """In the partial signature the other rows, and their order, are as with a good file there."""
    images = tiny.images(20)
    files = byte_strings([png(image) for image in images])
    good = answer("encode_bytes", files)
    files[7] = undecodable(images[0])[flaw]
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        answer("encode_bytes", files)
    assert message in str(error.value)

    partial = answer("encode_bytes_partial", files)
    others = np.arange(20) != 7
    np.testing.assert_array_equal(partial.pop("valid"), others)
    assert set(partial) == set(good)
    for name, value in partial.items():
        np.testing.assert_array_equal(value[others], good[name][others])
        assert name == "fingerprint" or not value[7].any()


def test_a_batch_of_files_that_cannot_be_decoded_gets_zeros(tiny, answer):
    files = byte_strings(list(undecodable(tiny.images(1)[0]).values()))
    output = answer("encode_bytes_partial", files)
    assert {name: value.shape for name, value in output.items()} == {
        "code": (8, WIDTH),
        "bits": (8, CODE_LENGTH),
        "embedding": (8, CODE_LENGTH),
        "valid": (8,),
        "fingerprint": (8,),
    }
    output.pop("fingerprint")
    assert not any(value.any() for value in output.values())


@pytest.mark.parametrize("code_length", [1, 7, 8, 9, 64])
def test_packing_in_the_graph_is_numpy_packbits(code_length):
    bits = np.random.default_rng(0).integers(0, 2, (50, code_length), np.uint8)
    pack = tf.function(
        signatures.pack, input_signature=[tf.TensorSpec([None, code_length], tf.uint8)]
    )
    np.testing.assert_array_equal(pack(bits), np.packbits(bits, axis=-1))


def test_what_decodes_is_traced_once_for_all_signatures(encoder):
    """A limit of its own, for which no other test has asked."""
    for _ in range(2):
        built = signatures.build(encoder, CODE_LENGTH, SIZE, megapixels=3)
        decoders = signatures.build_decoders(SIZE, megapixels=3)
        for functions in (built, decoders):
            for name, function in functions.items():
                spec = tf.TensorSpec(None, tf.uint8 if name == "encode_images" else tf.string)
                tf.function(function, input_signature=[spec]).get_concrete_function()
    assert signatures._decode_once_traced(SIZE, 3).experimental_get_tracing_count() == 1
    assert signatures._decode_once_traced(SIZE, 3) is not signatures._decode_once_traced(SIZE, 4)


def test_the_limit_in_what_is_traced_once_is_that_of_the_call():
    many = png(np.zeros([1500, 1000, 3], np.uint8))
    for megapixels in (1, 2, 1):
        decode = signatures.build_decoders(SIZE, megapixels)["decode_bytes_partial"]
        assert tf.function(decode)(tf.constant([many]))["valid"].numpy() == [megapixels == 2]
