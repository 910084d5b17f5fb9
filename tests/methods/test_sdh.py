"""SDH: each of its three steps against exhaustive search, and its objective."""

import dataclasses
import itertools

import numpy as np
import pytest

from tfhash.errors import UserError
from tfhash.hashers.shallow import FeatureData
from tfhash.methods import sdh
from tfhash.methods.sdh import SDH, SDHConfig

CONFIG = SDHConfig(hash_weight=0.1)


def objective(codes, labels, classifier, kernel, projection, config=CONFIG):
    """Image by image, as the paper writes it, and the ridge."""
    total = config.classifier_weight * (classifier**2).sum()
    total += config.hash_weight * config.ridge * (projection**2).sum()
    for b, y, k in zip(codes, labels, kernel, strict=True):
        total += ((y - classifier.T @ b) ** 2).sum()
        total += config.hash_weight * ((b - projection.T @ k) ** 2).sum()
    return total


@pytest.fixture
def tiny():
    """Eight images in three classes, three anchors, four bits."""
    rng = np.random.default_rng(0)
    return {
        "codes": rng.choice([-1.0, 1.0], (8, 4)),
        "labels": np.eye(3)[[0, 0, 0, 1, 1, 1, 2, 2]],
        "classifier": rng.standard_normal((4, 3)),
        "kernel": rng.uniform(size=(8, 3)),
        "projection": rng.standard_normal((3, 4)),
    }


def one_update(tiny, monkeypatch, cycles):
    monkeypatch.setattr(sdh, "_CYCLES", cycles)
    codes = tiny["codes"].copy()
    hashed = CONFIG.hash_weight * tiny["kernel"] @ tiny["projection"]
    sdh.update_codes(codes, tiny["labels"], tiny["classifier"], hashed)
    return codes


def test_each_bit_becomes_the_best_of_all_sign_vectors(tiny, monkeypatch):
    """One cycle: bit after bit, the best of the 2^8 columns, the other bits fixed."""
    codes = tiny["codes"].copy()
    for bit in range(4):
        choices = []
        for column in itertools.product([-1.0, 1.0], repeat=8):
            codes[:, bit] = column
            choices.append((objective(**tiny | {"codes": codes}), column))
        codes[:, bit] = min(choices)[1]
    assert (codes != tiny["codes"]).any()
    np.testing.assert_array_equal(one_update(tiny, monkeypatch, 1), codes)


def test_the_update_ends_where_no_single_bit_can_improve(tiny, monkeypatch):
    codes = one_update(tiny, monkeypatch, 100)
    best = objective(**tiny | {"codes": codes})
    for image, bit in itertools.product(range(8), range(4)):
        other = codes.copy()
        other[image, bit] *= -1
        assert objective(**tiny | {"codes": other}) >= best


def test_a_bit_without_a_preference_stays(tiny):
    codes = tiny["codes"].copy()
    sdh.update_codes(codes, tiny["labels"], np.zeros((4, 3)), np.zeros((8, 4)))
    np.testing.assert_array_equal(codes, tiny["codes"])


def test_regression_ends_where_the_gradient_is_zero(tiny):
    """Central differences of the objective in every entry of W and P."""
    tiny["classifier"] = sdh.regress(tiny["codes"], tiny["labels"], CONFIG.classifier_weight)
    tiny["projection"] = sdh.regress(tiny["kernel"], tiny["codes"], CONFIG.ridge)
    for name in ("classifier", "projection"):
        for index in np.ndindex(tiny[name].shape):
            step = np.zeros_like(tiny[name])
            step[index] = 1e-4
            one, other = (objective(**tiny | {name: tiny[name] + d}) for d in (step, -step))
            assert (one - other) / 2e-4 == pytest.approx(0, abs=1e-6)


def test_an_iteration_takes_the_three_steps_in_turn(tiny, monkeypatch):
    tiny["classifier"] = sdh.regress(tiny["codes"], tiny["labels"], CONFIG.classifier_weight)
    tiny["projection"] = sdh.regress(tiny["kernel"], tiny["codes"], CONFIG.ridge)
    expected = one_update(tiny, monkeypatch, 10)
    config = dataclasses.replace(CONFIG, iterations=1)
    codes, projection = sdh.discrete_hashing(tiny["kernel"], tiny["labels"], tiny["codes"], config)
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_allclose(projection, sdh.regress(tiny["kernel"], codes, config.ridge))


def test_the_objective_never_increases():
    rng = np.random.default_rng(3)
    kernel, labels = rng.uniform(size=(60, 10)), np.eye(4)[rng.integers(4, size=60)]
    start = rng.choice([-1.0, 1.0], (60, 8))
    values = []
    for iterations in range(1, 6):
        config = dataclasses.replace(CONFIG, iterations=iterations)
        codes, projection = sdh.discrete_hashing(kernel, labels, start, config)
        classifier = sdh.regress(codes, labels, config.classifier_weight)
        values.append(objective(codes, labels, classifier, kernel, projection, config))
    assert np.all(np.diff(values) <= 1e-9)
    assert values[-1] < values[0]


def test_it_beats_lsh(learned, map_of, lsh_map):
    assert map_of(learned(SDH, SDHConfig())) > lsh_map + 0.2


def test_scores_are_those_of_the_kernel_in_loops(learned, real_digits):
    image_set, _ = real_digits
    hasher = learned(SDH, SDHConfig(anchors=30), bits=6)
    parameters = {name: value.astype(float) for name, value in hasher.parameters.items()}
    rows = hasher.standardise(hasher.describe(image_set)).numpy()[:5].astype(float)
    width = parameters["width"]
    kernel = [
        [np.exp(-((x - a) ** 2).sum() / (2 * width**2)) for a in parameters["anchors"]]
        for x in rows
    ]
    expected = 1 / (1 + np.exp(-(np.array(kernel) @ parameters["projection"])))
    got = hasher.embed_features(hasher.describe(image_set))[:5]
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_it_learns_from_labelled_images_only(learned, real_digits):
    """Other labels, and other pictures, of all the rest change nothing but the mean."""
    image_set, parts = real_digits
    hasher = learned(SDH, SDHConfig())
    labelled = hasher.standardise(hasher.describe(image_set)).numpy()[parts.labelled]
    labels = image_set.labels[parts.labelled]
    for count in (0, 9):
        unlabelled = np.ones((count, labelled.shape[1]), np.float32)
        again = SDH.of(SDHConfig(), hasher.settings, code_length=24, image_size=16, seed=0)
        parameters = again.learn_functions(FeatureData.of(labelled, labels, unlabelled))
        np.testing.assert_allclose(
            parameters["projection"], hasher.parameters["projection"], rtol=1e-4, atol=1e-5
        )


def test_fewer_anchors_than_asked_for_are_told(learned, capsys):
    hasher = learned(SDH, SDHConfig(anchors=500))
    assert len(hasher.parameters["anchors"]) == 90
    assert "90 anchors, all images that there are, for 500" in capsys.readouterr().out


def test_round_trip(check_round_trip):
    check_round_trip(SDH, SDHConfig(anchors=50))


def test_one_class_is_refused():
    data = FeatureData.of(np.eye(4, dtype=np.float32), np.ones((4, 1), np.uint8), np.eye(4))
    hasher = SDH.of(SDHConfig(), SDH.Settings(), code_length=2, image_size=8, seed=0)
    with pytest.raises(UserError, match="needs two classes"):
        hasher.learn_functions(data)


@pytest.mark.parametrize("field", ["anchors", "iterations", "ridge", "classifier_weight"])
def test_bad_values_are_refused(field):
    with pytest.raises(UserError, match=f"`{field}`: 0"):
        SDHConfig(**{field: 0})
