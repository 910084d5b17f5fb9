"""Every shallow method as a SavedModel: features and hash functions in one graph."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfhash import codes, methods
from tfhash.errors import UserError
from tfhash.export import operations, signatures
from tfhash.hashers.shallow import FeatureHasher

NAMES = [name for name in methods.names() if issubclass(methods.get(name), FeatureHasher)]
OWN_FLAGS = {
    "agh": {"anchors": 50},
    "cca_itq": {"regularisation": 10.0},
    "mlh": {"updates": 20},
    "rbm": {"epochs": 2, "finetune_epochs": 1, "hidden_units": (32,)},
}


def test_they_are_found():
    assert {"lsh", "sh", "itq", "ksh", "sdh", "cca_itq", "ssh", "agh", "bre", "mlh"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_saved_model_gives_the_codes_of_the_method(learned, real_digits, tmp_path, name):
    image_set, _ = real_digits
    hasher_class = methods.get(name)
    hasher = learned(hasher_class, hasher_class.Config(**OWN_FLAGS.get(name, {})), bits=12)
    # The one signature that has nothing but the encoder; tests/export has the others.
    function = signatures.build(hasher.encoder, code_length=12, image_size=16)["encode_images"]
    archive = keras.export.ExportArchive()
    archive.track(hasher.encoder)
    specification = signatures.INPUTS["encode_images"]
    archive.add_endpoint("encode_images", function, input_signature=[specification])
    archive.write_out(str(tmp_path), verbose=False)
    operations.check(tmp_path)
    images = image_set.images[:64]
    answer = tf.saved_model.load(str(tmp_path)).signatures["encode_images"](
        images=tf.constant(images)
    )
    # The method itself computes features of all images at once: a score next to 0 may round apart.
    clear = np.abs(hasher.embed(images) - 0.5) > 1e-5
    bits = codes.unpack(hasher.encode_set(image_set)[:64], 12)
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(answer["bits"].numpy()[clear], bits[clear])
    np.testing.assert_array_equal(answer["code"], hasher.encode(images))


def test_given_descriptors_cannot_be_exported(learned, real_digits, tmp_path):
    image_set, _ = real_digits
    words = image_set.images.reshape(len(image_set.ids), -1)
    np.savez(tmp_path / "bow.npz", ids=image_set.ids, features=words)
    lsh = methods.get("lsh")
    of_file = {"features": "bow", "features_file": str(tmp_path / "bow.npz")}
    hasher = learned(lsh, lsh.Config(), bits=12, **of_file)
    with pytest.raises(UserError, match="`features`=bow: images have no features"):
        hasher.encoder  # noqa: B018
