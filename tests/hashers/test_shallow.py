"""FeatureHasher: scaling, the encoder, what it keeps, and what it refuses."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest

from tfhash.data import sources, splits
from tfhash.data.sources import ImageSet
from tfhash.errors import UserError
from tfhash.hashers.shallow import FeatureData, FeatureHasher, ShallowSettings
from tfhash.methods.lsh import LSH, LSHConfig
from tfhash.training.run import Run


class Recorder(FeatureHasher):
    """Bit j: feature j above its mean. Keeps what it was given."""

    Config = LSHConfig

    def learn_functions(self, data):
        self.data = data
        width = data.labelled.shape[1]
        return {"projection": np.eye(width, self.code_length), "offset": np.zeros(self.code_length)}


@pytest.fixture(scope="module")
def digits():
    image_set = sources.load("digits")
    return image_set, splits.make(
        image_set, seed=0, queries_per_class=5, labelled_per_class=10, validation_fraction=0.2
    )


def make(tmp_path, bits=12, **settings):
    settings = ShallowSettings(cache_dir=str(tmp_path / "cache"), **settings)
    return Recorder.of(LSHConfig(), settings, code_length=bits, image_size=16, seed=0)


def raw_pixels(image_set):
    return image_set.images.reshape(len(image_set.images), -1) / 255.0


@pytest.mark.parametrize("scaling", ["standardise", "centre"])
def test_it_learns_from_scaled_features_of_all_but_the_queries(digits, tmp_path, scaling):
    image_set, parts = digits
    hasher = make(tmp_path, feature_scaling=scaling)
    facts = hasher.learn(image_set, parts, Run(tmp_path))
    assert facts["feature_count"] == 16 * 16 * 3
    pixels = raw_pixels(image_set)
    known = np.delete(pixels, parts.query, axis=0)
    deviation = known.std(axis=0) if scaling == "standardise" else np.ones(768)
    expected = (pixels - known.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    rest = np.concatenate([parts.validation, parts.unlabelled])
    np.testing.assert_allclose(hasher.data.labelled, expected[parts.labelled], atol=1e-4)
    np.testing.assert_allclose(hasher.data.unlabelled, expected[rest], atol=1e-4)
    np.testing.assert_array_equal(hasher.data.labels, image_set.labels[parts.labelled])
    assert len(hasher.data.everything) == len(known)


def test_labels_of_the_validation_part_are_not_among_the_labels(digits, tmp_path):
    image_set, parts = digits
    hasher = make(tmp_path)
    hasher.learn(image_set, parts, Run(tmp_path))
    assert len(parts.validation) == 20
    assert len(hasher.data.labels) == len(parts.labelled) == 80


def test_feature_components_are_principal_components(digits, tmp_path):
    image_set, parts = digits
    hasher = make(tmp_path, bits=5, feature_components=5, feature_scaling="centre")
    hasher.learn(image_set, parts, Run(tmp_path))
    everything = hasher.data.everything
    covariance = np.cov(everything.T.astype(np.float64))
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-3)
    known = np.delete(raw_pixels(image_set), parts.query, axis=0)
    largest = np.linalg.eigvalsh(np.cov(known.T))[:-6:-1]
    np.testing.assert_allclose(np.diag(covariance), largest / largest.mean(), rtol=1e-3)


def test_parameters_that_are_not_finite_are_told(digits, tmp_path):
    class Diverging(Recorder):
        def learn_functions(self, data):
            return {"projection": np.array([[1.0, np.nan]]), "offset": np.zeros(2)}

    settings = ShallowSettings(cache_dir=str(tmp_path))
    hasher = Diverging.of(LSHConfig(), settings, code_length=2, image_size=16, seed=0)
    with pytest.raises(UserError, match="`features`=pixels: the learned projection has values"):
        hasher.learn(*digits, Run(tmp_path))


def test_more_components_than_features_are_a_users_mistake(digits, tmp_path):
    with pytest.raises(UserError, match="`feature_components`: 769; allowed: 1 to 768"):
        make(tmp_path, feature_components=769).learn(*digits, Run(tmp_path))


def test_more_components_than_images_are_too(digits, tmp_path):
    """After 10 images no axis is left."""
    image_set, parts = digits
    rest = {"labelled": parts.labelled[:10], "validation": [], "unlabelled": []}
    few = dataclasses.replace(parts, **{k: np.array(v, np.int64) for k, v in rest.items()})
    with pytest.raises(UserError, match="`feature_components`: 11; allowed: 1 to 10"):
        make(tmp_path, feature_components=11).learn(image_set, few, Run(tmp_path))
    make(tmp_path, bits=9, feature_components=10).learn(image_set, few, Run(tmp_path))


@pytest.mark.parametrize("of_labels", [True, False])
def test_triplets_are_no_labels(of_labels, digits, tmp_path):
    """Images alone may be learned from where triplets judge, and where labels do, are not to be."""

    class OfLabels(Recorder):
        learns_from_labels = of_labels

    image_set, _ = digits
    listed = dataclasses.replace(image_set, triplets=np.array([[0, 10, 1], [2, 12, 3], [4, 5, 6]]))
    settings = ShallowSettings(cache_dir=str(tmp_path / "cache"))
    hasher = OfLabels.of(LSHConfig(), settings, code_length=4, image_size=16, seed=0)
    by_triplets = splits.from_triplets(listed, seed=0, held_out_fraction=0.3)
    for parts, taken in ((by_triplets, not of_labels), (digits[1], False)):
        if taken:
            hasher.learn(listed, parts, Run(tmp_path))
            continue
        with pytest.raises(UserError, match="`triplets_csv`: not with `method`="):
            hasher.learn(listed, parts, Run(tmp_path))


def power_scores(features, parameters, *, exponent):
    """An option beside features and parameters."""
    return features**exponent - parameters["threshold"]


def test_scores_of_a_hasher_follow_from_its_own_options(digits, tmp_path):
    class Powers(Recorder):
        scores = staticmethod(power_scores)

        def learn_functions(self, data):
            return {"threshold": np.zeros(data.labelled.shape[1])}

        def score_options(self):
            return {"exponent": 2}

    settings = ShallowSettings(cache_dir=str(tmp_path))
    hasher = Powers.of(LSHConfig(), settings, code_length=768, image_size=16, seed=0)
    image_set, parts = digits
    hasher.learn(image_set, parts, Run(tmp_path))
    features = hasher.standardise(hasher.describe(image_set)[:5]).numpy()
    expected = 1 / (1 + np.exp(-(features.astype(float) ** 2)))
    np.testing.assert_allclose(hasher.embed(image_set.images[:5]), expected, atol=1e-5)


def test_nothing_is_encoded_before_it_has_learned_or_loaded(digits, tmp_path):
    image_set, _ = digits
    hasher = make(tmp_path)
    for encode in (hasher.embed, hasher.encode):
        with pytest.raises(UserError, match="Recorder has not learned yet; call fit first"):
            encode(image_set.images[:2])
    with pytest.raises(UserError, match="Recorder has not learned yet; call fit first"):
        hasher.encoder  # noqa: B018
    with pytest.raises(UserError, match="Recorder has not learned yet; call fit first"):
        hasher.encode_set(image_set)
    hasher.learn(*digits, Run(tmp_path))
    hasher.save_weights(tmp_path / "kept")
    other = make(tmp_path)
    other.load_weights(tmp_path / "kept")
    for images in (image_set.images[:2], image_set.images[:0]):
        np.testing.assert_array_equal(other.encode(images), hasher.encode(images))
    assert other.encode(image_set.images[:0]).shape == (0, 2)
    hasher.build(16)
    with pytest.raises(UserError, match="has not learned yet"):
        hasher.encode(image_set.images[:2])


def test_of_nothing_the_embedding_is_empty(digits, tmp_path):
    hasher = make(tmp_path)
    hasher.learn(*digits, Run(tmp_path))
    assert hasher.embed_features(np.zeros((0, 768), np.float32)).shape == (0, 12)


def test_features_are_computed_once(digits, tmp_path, monkeypatch):
    hasher = make(tmp_path)
    hasher.learn(*digits, Run(tmp_path))
    other = make(tmp_path)

    class Broken:
        def __getattr__(self, name):
            return getattr(hasher.network, name)

        def __call__(self, *_, **__):
            raise AssertionError("computed again")

    other.__dict__["network"] = Broken()
    other.learn(*digits, Run(tmp_path))


def test_relevant_images_share_a_label():
    labels = np.array([[1, 0, 1], [0, 1, 1], [0, 1, 0]], np.uint8)
    data = FeatureData.of(np.zeros((3, 2), np.float32), labels, np.zeros((0, 2), np.float32))
    expected = [[True, True, False], [True, True, True], [False, True, True]]
    np.testing.assert_array_equal(data.relevant(), expected)
    np.testing.assert_array_equal(data.relevant(np.array([0, 2])), np.eye(2, dtype=bool))


def test_with_given_descriptors(digits, tmp_path):
    """Rows found by id, in any order, and others passed over; images alone cannot be encoded."""
    image_set, parts = digits
    pixels = raw_pixels(image_set).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(pixels))
    np.savez(
        tmp_path / "bow.npz",
        ids=[*np.array(image_set.ids)[order], "another"],
        features=np.concatenate([pixels[order], pixels[:1]]),
    )
    hasher = make(tmp_path, features="bow", features_file=str(tmp_path / "bow.npz"))
    facts = hasher.learn(image_set, parts, Run(tmp_path))
    by_pixels = make(tmp_path)
    assert "features_digest" not in by_pixels.learn(image_set, parts, Run(tmp_path))
    np.testing.assert_array_equal(hasher.encode_set(image_set), by_pixels.encode_set(image_set))
    assert (hasher.variant, by_pixels.variant) == ("bow", "pixels")
    # Two files of one name are two experiments: the digest is of the rows of the images.
    assert facts["features_digest"] == hashlib.sha256(pixels.tobytes()).hexdigest()[:16]
    with pytest.raises(UserError, match="`features`=bow"):
        hasher.encode(image_set.images)
    hasher.save_weights(tmp_path / "kept")
    other = make(tmp_path, features="bow", features_file=str(tmp_path / "bow.npz"))
    other.load_weights(tmp_path / "kept")
    np.testing.assert_array_equal(other.encode_set(image_set), hasher.encode_set(image_set))


def test_loading_where_nothing_was_saved_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match="`model_dir`: cannot read"):
        make(tmp_path).load_weights(tmp_path)
    (tmp_path / "hash_functions.npz").write_bytes(b"no zip")
    with pytest.raises(UserError, match="`model_dir`: cannot read"):
        make(tmp_path).load_weights(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": "fisher"}, "`features`: 'fisher'; allowed: pixels"),
        ({"features": "backbone"}, "`weights`: none"),
        ({"features_file": "x.npz"}, "`features_file`: goes with `features`=bow alone"),
        ({"feature_scaling": "unit"}, "`feature_scaling`: 'unit'"),
        ({"feature_components": 0}, "`feature_components`: 0"),
        ({"gist_size": 0}, "`gist_size`: 0"),
    ],
)
def test_wrong_settings_are_a_users_mistake(settings, message):
    with pytest.raises(UserError, match=message):
        ShallowSettings(**settings)


def test_given_descriptors_need_a_file(digits, tmp_path):
    with pytest.raises(UserError, match="`features_file`: missing; `features`=bow needs it"):
        make(tmp_path, features="bow").learn(*digits, Run(tmp_path))


def test_a_size_that_gist_cannot_have_is_a_users_mistake(digits, tmp_path):
    with pytest.raises(UserError, match="size: 34; a multiple of 4"):
        make(tmp_path, features="gist", gist_size=34).learn(*digits, Run(tmp_path))


def test_features_of_a_backbone_and_gist_are_those_of_the_encoder(digits, tmp_path):
    image_set, parts = digits
    few = ImageSet(
        "few", image_set.images[:300], image_set.labels[:300], image_set.class_names,
        image_set.ids[:300],
    )  # fmt: skip
    parts = splits.make(few, seed=0, queries_per_class=2, labelled_per_class=4)
    settings = ShallowSettings(features="gist", cache_dir=str(tmp_path))
    hasher = LSH.of(LSHConfig(), settings, code_length=16, image_size=16, seed=0)
    hasher.learn(few, parts, Run(tmp_path))
    assert hasher.describe(few).shape == (300, 512)
    direct = hasher.encoder(few.images[:20].astype(np.float32)).numpy()
    expected = hasher.embed_features(hasher.describe(few)[:20])
    np.testing.assert_allclose(direct, expected, atol=1e-3)
