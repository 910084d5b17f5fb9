"""BRE: its best step against a search over a fine grid, and what it learns."""

import numpy as np
import pytest

from tfhash.errors import UserError
from tfhash.hashers.linear.similarity import code_loss, similarity_factors
from tfhash.hashers.shallow import FeatureData
from tfhash.methods import bre
from tfhash.methods.bre import BRE, BREConfig

LABELS = np.eye(3, dtype=np.uint8)[[0, 0, 0, 1, 1, 1, 2, 2]]


def loss(codes):
    """The mean over all pairs of (share of different bits - [other class])^2."""
    losses = [
        ((a != b).mean() - (x != y).any()) ** 2
        for a, x in zip(codes, LABELS, strict=True)
        for b, y in zip(codes, LABELS, strict=True)
    ]
    return np.mean(losses)


@pytest.mark.parametrize("seed", range(10))
def test_the_best_step_is_the_best_of_a_fine_grid(seed):
    """The second of two bits is learned; t in [-20, 20] by steps of 0.001."""
    rng = np.random.default_rng(seed)
    values, column = rng.standard_normal((2, 8))
    column[3] = 0  # an image that this weight cannot move
    first = rng.choice([-1.0, 1.0], 8)

    def loss_of(steps):
        """The least of the losses after these steps."""
        scores = values + np.multiply.outer(steps, column)
        codes = np.unique(np.where(scores > 0, 1, -1), axis=0)
        return min(loss(np.column_stack([first, second])) for second in codes)

    factors, weights = similarity_factors(LABELS)
    residue = np.column_stack([factors, first])
    step = bre.best_step(values, column, residue, np.append(2 * weights, -1.0))
    assert loss_of([step]) == pytest.approx(loss_of(np.arange(-20, 20, 0.001)))
    again = bre.best_step(values + step * column, column, residue, np.append(2 * weights, -1.0))
    assert again == 0


def test_a_step_between_equal_thresholds_is_not_taken():
    """Two images of different classes with one threshold: only apart would they fit better."""
    labels = np.eye(2, dtype=np.uint8)
    factors, weights = similarity_factors(labels)
    step = bre.best_step(np.array([1.0, 1.0]), np.array([1.0, 1.0]), factors, weights)
    assert step == 0


def test_the_loss_never_rises():
    rng = np.random.default_rng(0)
    labels = np.eye(4, dtype=np.uint8)[rng.integers(4, size=60)]
    points = rng.standard_normal((60, 5)) + 2 * labels @ rng.standard_normal((4, 5))
    kernel = np.exp(-((points[:, np.newaxis] - points) ** 2).sum(axis=-1) / 20)
    kernel -= kernel.mean(axis=0)
    projection = np.where(rng.random((60, 6)) < 0.2, rng.standard_normal((60, 6)), 0)
    factors, weights = similarity_factors(labels)
    losses = []
    for _ in range(20):
        losses.append(code_loss(np.where(kernel @ projection > 0, 1.0, -1.0), factors, weights))
        if not bre.descend(kernel, projection, factors, weights):
            break
    assert (np.diff(losses) <= 1e-12).all()
    assert losses[-1] < 0.8 * losses[0]
    assert len(losses) < 20  # it ends where no weight gains anything


def test_each_function_has_its_own_anchors(learned):
    hasher = learned(BRE, BREConfig(anchors=7))
    np.testing.assert_array_equal(np.count_nonzero(hasher.parameters["projection"], axis=0), 7)


def test_it_beats_lsh(learned, map_of, lsh_map):
    assert map_of(learned(BRE, BREConfig())) > lsh_map + 0.15


def test_descent_helps(learned, map_of):
    start = map_of(learned(BRE, BREConfig(cycles=0)))
    assert map_of(learned(BRE, BREConfig(cycles=1))) > start + 0.1


def test_round_trip(check_round_trip):
    check_round_trip(BRE, BREConfig())


def test_images_without_a_label_change_nothing():
    features = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    hasher = BRE.of(BREConfig(anchors=4), BRE.Settings(), code_length=5, image_size=8, seed=0)
    without, those = (
        hasher.learn_functions(FeatureData.of(features, LABELS, rest))
        for rest in (features[:0], features + 1)
    )
    for name in without:
        np.testing.assert_array_equal(without[name], those[name])


def test_too_few_labelled_images_are_all_anchors_and_it_is_said(learned, capsys):
    learned(BRE, BREConfig(anchors=1000))
    assert "bre: 90 anchors, all labelled images, for 1000" in capsys.readouterr().out


def test_one_class_is_refused():
    data = FeatureData.of(np.eye(4, dtype=np.float32), np.ones((4, 1), np.uint8), np.eye(4))
    with pytest.raises(UserError, match="needs two classes"):
        BRE.of(BREConfig(), BRE.Settings(), code_length=2, image_size=8, seed=0).learn_functions(
            data
        )


@pytest.mark.parametrize(
    ("field", "value"), [("anchors", 0), ("labelled_images", 1), ("cycles", -1)]
)
def test_bad_values_are_refused(field, value):
    with pytest.raises(UserError, match=f"`{field}`: "):
        BREConfig(**{field: value})


def test_the_best_step_may_lie_below_all_thresholds():
    """The signs of 1 + t and 1 - t change at -1 and 1; -(sum of signs)^2 is best where they differ.

    That is below -1 and above 1 alike. The first is taken, in the middle of [-2, -1].
    """
    ones = np.ones((2, 1))
    step = bre.best_step(np.ones(2), np.array([1.0, -1.0]), ones, np.array([-1.0]))
    assert step == -1.5
