"""RBM: contrastive divergence in loops, the unrolled autoencoder, and its noise."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tfhash.errors import UserError
from tfhash.hashers.shallow import FeatureData
from tfhash.methods import rbm
from tfhash.methods.rbm import RBM, RBMConfig

SMALL = RBMConfig(
    hidden_units=(32,), epochs=5, visible_learning_rate=0.01, initial_epochs=1, finetune_epochs=10
)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture
def tiny():
    """Five images of three visible units, two hidden ones, float64."""
    rng = np.random.default_rng(0)
    return {
        "visible": rng.uniform(size=(5, 3)),
        "weights": rng.standard_normal((3, 2)),
        "hidden_bias": rng.standard_normal(2),
        "visible_bias": rng.standard_normal(3),
        "uniform": rng.uniform(size=(5, 2)),
    }


@pytest.mark.parametrize("gaussian", [False, True])
def test_a_step_of_contrastive_divergence_in_loops(tiny, gaussian):
    """Unit by unit: probabilities of the hidden ones, a draw of them, restored units, again."""
    w, c, b = tiny["weights"], tiny["hidden_bias"], tiny["visible_bias"]
    of_weights, of_hidden, of_visible = np.zeros((3, 2)), np.zeros(2), np.zeros(3)
    draws = []
    for v, uniform in zip(tiny["visible"], tiny["uniform"], strict=True):
        p = [sigmoid(sum(v[i] * w[i, j] for i in range(3)) + c[j]) for j in range(2)]
        h = [1.0 if uniform[j] < p[j] else 0.0 for j in range(2)]
        draws += h
        restored = [sum(h[j] * w[i, j] for j in range(2)) + b[i] for i in range(3)]
        if not gaussian:
            restored = [sigmoid(unit) for unit in restored]
        again = [sigmoid(sum(restored[i] * w[i, j] for i in range(3)) + c[j]) for j in range(2)]
        for i in range(3):
            of_visible[i] += (v[i] - restored[i]) / 5
            for j in range(2):
                of_weights[i, j] += (v[i] * p[j] - restored[i] * again[j]) / 5
        for j in range(2):
            of_hidden[j] += (p[j] - again[j]) / 5
    assert 0 < sum(draws) < len(draws)
    found = rbm.contrastive_divergence(**tiny, gaussian=gaussian)
    for step, expected in zip(found, (of_weights, of_hidden, of_visible), strict=True):
        np.testing.assert_allclose(step, expected, rtol=1e-12)


def test_an_epoch_has_momentum_and_weight_decay(monkeypatch):
    """By hand, steps of 1 in all: epoch 1 v = r(1 - dW), epoch 2 v = .5 v + ..., epoch 3 .9 v."""
    monkeypatch.setattr(
        rbm, "contrastive_divergence", lambda v, *parts: [np.ones_like(p) for p in parts[:3]]
    )
    config = RBMConfig(epochs=3, batch_size=9, initial_momentum=0.5, initial_epochs=2,
                       momentum=0.9, weight_decay=0.25, learning_rate=0.1,
                       visible_learning_rate=0.01)  # fmt: skip
    visible = np.zeros((9, 3), np.float32)
    for gaussian, rate in ((True, 0.01), (False, 0.1)):
        rng = np.random.default_rng(0)
        found = rbm.learn_rbm(visible, 2, config, gaussian=gaussian, rng=rng)
        first = np.random.default_rng(0).standard_normal((3, 2), np.float32) * 0.01
        expected = [first.astype(float), np.zeros(2), np.zeros(3)]
        for position, decay in enumerate((0.25, 0.0, 0.0)):
            velocity = 0.0
            for momentum in (0.5, 0.5, 0.9):
                velocity = momentum * velocity + rate * (1 - decay * expected[position])
                expected[position] = expected[position] + velocity
        for array, by_hand in zip(found, expected, strict=True):
            assert array.dtype == np.float32
            np.testing.assert_allclose(array, by_hand, rtol=1e-5)


def test_a_pass_takes_each_image_once_and_in_another_order():
    rng = np.random.default_rng(0)
    passes = [list(rbm.shuffled(7, 3, rng)) for _ in range(2)]
    assert [len(rows) for rows in passes[0]] == [3, 3, 1]
    orders = [np.concatenate(one) for one in passes]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert (orders[0] != orders[1]).any()


def restoration_error(visible, weights, hidden_bias, visible_bias, gaussian):
    restored = sigmoid(visible @ weights + hidden_bias) @ weights.T + visible_bias
    restored = restored if gaussian else sigmoid(restored)
    return np.mean((visible - restored) ** 2)


@pytest.mark.parametrize("gaussian", [False, True])
def test_an_rbm_learns_to_restore(gaussian):
    """Four patterns with noise, of 12 units: what a mean alone restores has error .25, or 1."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 2, (4, 12))[rng.integers(4, size=400)]
    visible = np.abs(patterns - (rng.random((400, 12)) < 0.05)).astype(np.float32)
    if gaussian:
        visible = (visible - visible.mean(axis=0)) / visible.std(axis=0)
    config = RBMConfig(epochs=40, batch_size=20, visible_learning_rate=0.02, learning_rate=0.2)
    learned = rbm.learn_rbm(visible, 8, config, gaussian=gaussian, rng=rng)
    nothing = np.mean((visible - visible.mean(axis=0)) ** 2)
    assert restoration_error(visible, *learned, gaussian) < 0.5 * nothing


def test_an_rbm_that_diverges_is_told():
    visible = 100 * np.random.default_rng(0).standard_normal((50, 20), np.float32)
    config = RBMConfig(visible_learning_rate=10.0)
    with pytest.raises(UserError, match="`visible_learning_rate`: 10.0; an RBM of 4 units diver"):
        rbm.learn_rbm(visible, 4, config, gaussian=True, rng=np.random.default_rng(0))


def autoencoder(rng, sizes=(4, 3, 2)):
    """Random layers from sizes[0] to sizes[-1], and back with weights of their own: float32."""

    def layers(widths):
        return [
            (rng.standard_normal(pair, np.float32), rng.standard_normal(pair[1], np.float32))
            for pair in zip(widths[:-1], widths[1:], strict=True)
        ]

    return layers(sizes), layers(sizes[::-1])


def error_in_loops(features, noise, encoder, decoder):
    total = 0.0
    for x, of_x in zip(features.astype(float), noise.astype(float), strict=True):
        unit = x
        for number, (weights, bias) in enumerate(encoder):
            unit = weights.T.astype(float) @ unit + bias
            unit = sigmoid(unit + (of_x if number == len(encoder) - 1 else 0))
        for number, (weights, bias) in enumerate(decoder):
            unit = weights.T.astype(float) @ unit + bias
            unit = unit if number == len(decoder) - 1 else sigmoid(unit)
        total += ((x - unit) ** 2).sum() / len(features)
    return total


@pytest.fixture
def deep():
    """Five images of four features, an autoencoder 4-3-2-3-4 and noise of deviation 4."""
    rng = np.random.default_rng(1)
    features = rng.standard_normal((5, 4), np.float32)
    noise = rbm.fixed_noise(5, 2, 16.0, seed=0)
    return features, noise, *autoencoder(rng)


def test_the_reconstruction_error_in_loops(deep):
    features, noise, *layers = deep
    found = float(rbm.reconstruction_error(*deep))
    assert found == pytest.approx(error_in_loops(*deep), rel=1e-5)
    assert found != pytest.approx(error_in_loops(features, 0 * noise, *layers), rel=1e-3)


def test_fine_tuning_follows_the_gradient_of_every_layer(deep, monkeypatch):
    """One step of plain descent at rate .01 is -.01 times the central difference of the error.

    Of images 3, 1 and 4, each with its own noise.
    """
    monkeypatch.setattr(rbm.keras.optimizers, "Adam", rbm.keras.optimizers.SGD)
    features, noise, encoder, decoder = deep
    rows = np.array([3, 1, 4])
    moved = rbm.finetune(features, noise, encoder, decoder, iter([rows]), 0.01)
    assert len(moved) == len(encoder) == 2
    for old, new in zip(encoder, moved, strict=True):
        for array, of_new in zip(old, new, strict=True):  # weights, then biases
            for index in np.ndindex(array.shape):
                start = array[index]
                errors = []
                for at in (start + 1e-2, start - 1e-2):
                    array[index] = at
                    errors.append(error_in_loops(features[rows], noise[rows], encoder, decoder))
                array[index] = start
                by_hand = -0.01 * (errors[0] - errors[1]) / 2e-2
                assert of_new[index] - start == pytest.approx(by_hand, abs=2e-5, rel=1e-2)


def test_fine_tuning_lowers_the_error_and_every_layer_moves(deep, monkeypatch):
    """In the last step all layers are others than in the first, those of the decoder too."""
    seen = []
    real = rbm.reconstruction_error

    def watched(features, noise, encoder, decoder):
        error = real(features, noise, encoder, decoder)
        arrays = [array for layer in (*encoder, *decoder) for array in layer]
        tf.py_function(lambda *all: seen.append([one.numpy() for one in all]), [error, *arrays], [])
        return error

    monkeypatch.setattr(rbm, "reconstruction_error", watched)
    features, noise, encoder, decoder = deep
    rbm.finetune(features, noise, encoder, decoder, iter([np.arange(5)] * 100), 0.05)
    (begun, *first), (ended, *last) = seen[0], seen[-1]
    assert len(seen) == 100 and begun == pytest.approx(error_in_loops(*deep), rel=1e-5)
    assert ended < 0.5 * begun
    given = [array for layer in (*encoder, *decoder) for array in layer]
    for array, start, end in zip(given, first, last, strict=True):
        np.testing.assert_array_equal(start, array)
        assert np.abs(end - start).max() > 0.01


def test_the_noise_is_of_the_image():
    """Variance 16; the rows of few images are the first of those of many; another seed's differ."""
    many, few = rbm.fixed_noise(4000, 6, 16.0, 3), rbm.fixed_noise(10, 6, 16.0, 3)
    np.testing.assert_array_equal(many[:10], few)
    assert many.var() == pytest.approx(16, rel=0.05) and many.mean() == pytest.approx(0, abs=0.1)
    assert (few != rbm.fixed_noise(10, 6, 16.0, 4)).all() and few.dtype == np.float32


FEATURES = np.random.default_rng(5).standard_normal((60, 9), np.float32)
DATA = FeatureData.of(FEATURES[:20], np.eye(2, dtype=np.uint8)[np.arange(20) % 2], FEATURES[20:])
START = {"hidden_units": (6, 5), "epochs": 3, "batch_size": 20, "finetune_epochs": 0,
         "visible_learning_rate": 0.05, "initial_epochs": 1}  # fmt: skip


def functions(seed=0, **changed):
    config = RBMConfig(**{**START, **changed})
    hasher = RBM.of(config, RBM.Settings(), code_length=4, image_size=8, seed=seed)
    return hasher.learn_functions(DATA)


def test_the_stack_learns_layer_by_layer(monkeypatch):
    """Each RBM sees probabilities of the one below; the first alone has Gaussian visible units."""
    seen = []
    learn = rbm.learn_rbm

    def watched(visible, units, config, *, gaussian, rng):
        answer = learn(visible, units, config, gaussian=gaussian, rng=rng)
        seen.append((visible, units, gaussian, rng.bit_generator.seed_seq.entropy, answer))
        return answer

    monkeypatch.setattr(rbm, "learn_rbm", watched)
    parameters = functions(seed=7)
    assert [one[1:4] for one in seen] == [
        (6, True, [7, 0]), (5, False, [7, 1]), (4, False, [7, 2])
    ]  # fmt: skip
    expected = FEATURES
    for number, (visible, *_, (weights, hidden_bias, _)) in enumerate(seen, start=1):
        np.testing.assert_allclose(visible, expected, rtol=1e-5)
        expected = sigmoid(expected @ weights + hidden_bias)
        np.testing.assert_array_equal(parameters[f"weights{number}"], weights)
        np.testing.assert_array_equal(parameters[f"bias{number}"], hidden_bias)


def test_fine_tuning_begins_with_the_unrolled_stack(monkeypatch):
    """Transposed weights and visible biases as decoder; each image's own noise; two passes."""
    learned, given = [], {}
    learn = rbm.learn_rbm
    monkeypatch.setattr(
        rbm, "learn_rbm", lambda *a, **o: learned.append(learn(*a, **o)) or learned[-1]
    )

    def keep(features, noise, encoder, decoder, batches, rate):
        given.update(features=features, noise=noise, decoder=decoder, rate=rate)
        given["rows"] = list(batches)
        return encoder

    monkeypatch.setattr(rbm, "finetune", keep)
    functions(seed=2, finetune_epochs=2, finetune_learning_rate=0.3, noise_variance=9.0)
    np.testing.assert_array_equal(given["features"], FEATURES)
    np.testing.assert_array_equal(given["noise"], rbm.fixed_noise(60, 4, 9.0, 2))
    assert given["rate"] == 0.3
    for (weights, bias), (of_rbm, _, visible_bias) in zip(
        given["decoder"], learned[::-1], strict=True
    ):
        np.testing.assert_array_equal(weights, of_rbm.T)
        np.testing.assert_array_equal(bias, visible_bias)
    assert [len(rows) for rows in given["rows"]] == [20] * 6
    for start in (0, 3):
        assert sorted(np.concatenate(given["rows"][start : start + 3])) == list(range(60))
    of_seed_2 = np.concatenate(given["rows"])
    functions(seed=3, finetune_epochs=2)
    assert (np.concatenate(given["rows"]) != of_seed_2).any()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("hidden_units", (6,)),
        ("epochs", 4),
        ("batch_size", 30),
        ("visible_learning_rate", 0.1),
        ("learning_rate", 0.5),
        ("initial_momentum", 0.0),
        ("initial_epochs", 2),
        ("momentum", 0.5),
        ("weight_decay", 0.1),
        ("finetune_epochs", 1),
        ("threshold", "median"),
    ],
)
def test_each_setting_is_heard(setting, value):
    """Those of fine-tuning: see what it begins with, above."""
    one, other = functions(), functions(**{setting: value})
    if setting != "hidden_units":
        assert any(np.abs(one[name] - other[name]).max() > 1e-6 for name in one)
    else:
        assert set(one) - set(other) == {"weights3", "bias3"}


def scores_in_loops(features, parameters, layers):
    found = []
    for x in features.astype(float):
        for number in range(1, layers + 1):
            x = x @ parameters[f"weights{number}"] + parameters[f"bias{number}"]
            x = sigmoid(x) if number < layers else x
        found.append(x)
    return np.array(found)


def test_scores_in_loops():
    parameters = functions()
    hasher = RBM.of(RBMConfig(**START), RBM.Settings(), code_length=4, image_size=8, seed=0)
    assert hasher.score_options() == {"layers": 3}
    got = rbm.layered_scores(FEATURES, parameters, layers=3)
    np.testing.assert_allclose(got, scores_in_loops(FEATURES, parameters, 3), atol=1e-5)


def test_the_median_halves_each_bit():
    """Of 60 images 30 are above it; half of a sigmoid is a score of 0."""
    at_half, at_median = functions(), functions(threshold="median")
    scores = scores_in_loops(FEATURES, at_half, 3)
    np.testing.assert_allclose(
        at_half["bias3"] - at_median["bias3"], np.median(scores, axis=0), atol=1e-5
    )
    np.testing.assert_array_equal((scores_in_loops(FEATURES, at_median, 3) > 0).sum(axis=0), 30)
    for name in set(at_half) - {"bias3"}:
        np.testing.assert_array_equal(at_half[name], at_median[name])


def test_bits_that_never_change_are_told(capsys):
    """Biases of 9 and -9 outweigh what the features add to the scores of two of four bits."""
    hasher = RBM.of(RBMConfig(**START), RBM.Settings(), code_length=4, image_size=8, seed=0)
    weights = np.random.default_rng(0).standard_normal((9, 4))
    hasher._parameters([(0.1 * weights, np.array([9.0, 0, -9, 0]))], FEATURES)
    assert "rbm: 2 of 4 bits are the same for all images" in capsys.readouterr().out
    hasher._parameters([(weights, np.zeros(4))], FEATURES)
    assert capsys.readouterr().out == ""


def test_the_same_features_of_all_images_are_refused():
    hasher = RBM.of(RBMConfig(), RBM.Settings(), code_length=2, image_size=8, seed=0)
    data = FeatureData.of(np.ones((3, 4), np.float32), np.eye(3, dtype=np.uint8), np.ones((3, 4)))
    with pytest.raises(UserError, match="`method`=rbm: all images have the same features"):
        hasher.learn_functions(data)


def test_codes_follow_the_classes(learned, map_of, lsh_map):
    """Without labels; chance is .1, and random hyperplanes have what the fixture says."""
    hasher = learned(RBM, SMALL)
    assert map_of(hasher) > lsh_map + 0.03


def test_it_needs_no_labels(check_it_needs_no_labels):
    check_it_needs_no_labels(RBM, dataclasses.replace(SMALL, epochs=1, finetune_epochs=1))


def test_round_trip(check_round_trip):
    check_round_trip(RBM, SMALL)


@pytest.mark.parametrize(
    ("field", "value"),
    [("hidden_units", (0,)), ("epochs", 0), ("momentum", 1.0), ("threshold", "mean"),
     ("noise_variance", -1.0), ("learning_rate", 0.0)],
)  # fmt: skip
def test_bad_values_are_refused(field, value):
    with pytest.raises(UserError, match=f"`{field}`: "):
        RBMConfig(**{field: value})
