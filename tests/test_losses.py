"""The loss terms against values derived by hand; codes are small integers or one-bit numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from tfhash import codes, losses

QUERY, POSITIVE, NEGATIVE = [0.0, 0.0], [1.0, 0.0], [1.0, 1.0]

# Two groups of three items, one number an item, so that a distance is a squared difference.
ITEMS = tf.constant([[[0.0], [1.0], [2.0]], [[4.0], [2.0], [1.0]]])
TRIPLETS = tf.constant([[[0, 1, 2], [1, 0, 2]], [[2, 1, 0], [0, 2, 1]]], tf.int32)
LOGIT = math.log(3)  # of the probability 3/4


def values(tensor):
    return np.asarray(tensor).tolist()


def test_squared_distance_sums_over_the_last_axis():
    """(0 - 3)² + (1 - 1)² = 9 and (2 - 0)² + (5 - 4)² = 5."""
    a, b = tf.constant([[0.0, 1.0], [2.0, 5.0]]), tf.constant([[3.0, 1.0], [0.0, 4.0]])
    assert values(losses.squared_distance(a, b)) == [9, 5]


def test_squared_distance_is_the_hamming_distance_of_binary_codes():
    bits = np.random.default_rng(0).integers(0, 2, (6, 13), dtype=np.uint8)
    relaxed = bits.astype(np.float32)
    expected = codes.hamming_distance(codes.pack(bits), codes.pack(bits))
    distance = losses.squared_distance(relaxed[:, None], relaxed[None])
    np.testing.assert_array_equal(distance, expected)


@pytest.mark.parametrize(("margin", "hinge"), [(3.0, 2.0), (1.0, 0.0), (0.5, 0.0)])
def test_triplet_hinge_by_hand(margin, hinge):
    """||q - n||² = 2 and ||q - p||² = 1, so the hinge is max(0, margin - 1)."""
    result = losses.triplet_hinge(margin, *(tf.constant([x]) for x in (QUERY, POSITIVE, NEGATIVE)))
    assert values(result) == [hinge]


def test_triplet_hinge_and_its_swap_add_up_to_twice_the_margin():
    """The gap changes its sign with the order of p and n, while both hinges are active."""
    q, p, n = tf.unstack(tf.random.stateless_uniform((3, 4, 5), (0, 0)))
    both = losses.triplet_hinge(6.0, q, p, n) + losses.triplet_hinge(6.0, q, n, p)
    np.testing.assert_allclose(both, [12.0] * 4, rtol=1e-5)


def hinge_gradients(margin):
    items = [tf.constant([x]) for x in (QUERY, POSITIVE, NEGATIVE)]
    with tf.GradientTape() as tape:
        tape.watch(items)
        hinge = losses.triplet_hinge(margin, *items)
    return [values(gradient[0]) for gradient in tape.gradient(hinge, items)]


def test_active_hinge_pulls_the_positive_and_pushes_the_negative():
    """d/dq = 2 (n - p), d/dp = 2 (p - q), d/dn = 2 (q - n)."""
    assert hinge_gradients(3.0) == [[0, 2], [2, 0], [-2, -2]]


def test_inactive_hinge_has_no_gradient():
    assert hinge_gradients(0.5) == [[0, 0]] * 3


def test_gather_triplets_stays_within_each_group():
    gathered = [losses.gather_triplets(ITEMS, TRIPLETS, role) for role in range(3)]
    assert [values(role[..., 0]) for role in gathered] == [
        [[0, 1], [1, 4]],
        [[1, 0], [2, 1]],
        [[2, 2], [4, 2]],
    ]


def test_supervised_ranking_by_hand():
    """max(0, 5 - ((q - n)² - (q - p)²)) of q p n = 0 1 2, 1 0 2; 1 2 4, 4 1 2.

    The gaps are 4 - 1, 1 - 1; 9 - 1, 4 - 9.
    """
    hinges = losses.supervised_ranking(ITEMS, TRIPLETS, 5.0)
    assert values(hinges) == [[2, 5], [0, 10]]


def kinds_by_hand(exchanges):
    """Items 0 to 2 are labelled, q p n = 0 1 2; items 3 to 5 are unlabelled."""
    kinds = losses.semi_supervised_kinds(
        tf.constant([[[0, 1, 2]]]), tf.constant([[3, 4, 5]]), exchanges
    )
    return [[(source, values(positions)[0]) for source, positions in kind] for kind in kinds]


def test_semi_supervised_kinds_are_those_of_equation_5():
    """(q, G_p(q), n), (q, p, G_n(q)), and (u, G_p(u), G_n(u)) for each u."""
    assert kinds_by_hand(0) == [
        [("x", [0]), ("p", [0]), ("x", [2])],
        [("x", [0]), ("x", [1]), ("n", [0])],
        [("x", [3, 4, 5]), ("p", [3, 4, 5]), ("n", [3, 4, 5])],
    ]


def test_real_positives_of_an_unlabelled_image_are_of_triplets_spread_evenly():
    """4 triplets, two a u: of u = 8 triplets 0 and 2, of 9 triplets 1 and 3; the second swapped."""
    triplets = tf.constant([[[0, 1, 2], [3, 4, 5], [6, 7, 0], [1, 2, 3]]])
    (of_u,) = losses.semi_supervised_kinds(triplets, tf.constant([[8, 9]]), 2, real=True)
    assert [source for source, _ in of_u] == ["x", "x", "x"]
    positions = np.stack([positions.numpy()[0] for _, positions in of_u], axis=1)
    assert positions.tolist() == [[8, 1, 2], [8, 0, 7], [9, 4, 5], [9, 3, 2]]


def test_exchanged_negatives_are_the_positives_of_the_next_items():
    """Each u with each of the two others, however many more are asked for."""
    for exchanges in (2, 9):
        *_, of_u = kinds_by_hand(exchanges)
        assert of_u == [
            ("x", [3, 4, 5, 3, 4, 5]), ("p", [3, 4, 5, 3, 4, 5]), ("p", [4, 5, 3, 5, 3, 4])
        ]  # fmt: skip


def test_without_unlabelled_items_two_kinds_are_left():
    triplets, nobody = tf.constant([[[0, 1, 2]]]), tf.zeros((1, 0), tf.int32)
    assert len(losses.semi_supervised_kinds(triplets, nobody)) == 2


def test_gather_kind_takes_each_role_from_its_source():
    of = {"x": tf.constant([[[1.0], [2.0]]]), "p": tf.constant([[[10.0], [20.0]]])}
    kind = (("x", tf.constant([[1]])), ("p", tf.constant([[1]])), ("x", tf.constant([[0]])))
    assert [values(role) for role in losses.gather_kind(of, kind)] == [[[[2]]], [[[20]]], [[[1]]]]


def test_mean_of_kept_averages_within_a_group_first():
    """Group means 2 (of 1 and 3) and 8, not the mean 4 of all three; none kept counts 0."""
    hinges = tf.constant([[1.0, 3.0, 9.0], [8.0, 0.0, 0.0], [5.0, 5.0, 5.0]])
    kept = tf.constant([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert losses.mean_of_kept(hinges[:2], kept[:2]).numpy() == 5.0
    assert losses.mean_of_kept(hinges, kept).numpy() == pytest.approx(10 / 3)


@pytest.mark.parametrize(("margin", "hinge", "gradient"), [(10.0, 2.0, -6.0), (1.0, 0.0, 0.0)])
def test_adversary_ranking_by_hand(margin, hinge, gradient):
    """q p = 0 1, G_p(q) = 3: the hinge is margin - (9 - 1), d/dp_syn = 2 (q - p_syn) = -6.

    The gradient, which G climbs, reaches the query's synthetic positive alone.
    """
    synthetic = tf.constant([[[3.0], [50.0], [60.0]]])
    with tf.GradientTape() as tape:
        tape.watch(synthetic)
        result = losses.adversary_ranking(ITEMS[:1], synthetic, TRIPLETS[:1, :1], margin)
    assert values(result) == [[hinge]]
    assert values(tape.gradient(result, synthetic)) == [[[gradient], [0], [0]]]


def test_discriminator_loss_of_a_coin_is_three_times_log_2():
    zeros = tf.zeros(4)
    assert float(losses.discriminator_loss(zeros, zeros, zeros)) == pytest.approx(3 * math.log(2))


def test_discriminator_loss_by_hand():
    """D = 3/4 for all: -log 3/4 for real triplets, -log 1/4 for each of the two others."""
    logit = tf.constant([LOGIT])
    expected = math.log(4 / 3) + 2 * math.log(4)
    assert float(losses.discriminator_loss(logit, logit, logit)) == pytest.approx(expected)


def test_discriminator_loss_averages_each_kind_over_its_own_triplets():
    """Wrong order: D = 1/2 and 3/4, so (log 2 + log 4) / 2; the single others log 2 each."""
    one, two = tf.zeros(1), tf.constant([0.0, LOGIT])
    expected = 2 * math.log(2) + (math.log(2) + math.log(4)) / 2
    assert float(losses.discriminator_loss(one, two, one)) == pytest.approx(expected)


def test_label_smoothing_moves_the_target_of_real_triplets_alone():
    """Real: -.9 log 3/4 - .1 log 1/4; the others as without it."""
    logit = tf.constant([LOGIT])
    expected = 0.9 * math.log(4 / 3) + 0.1 * math.log(4) + 2 * math.log(4)
    assert float(losses.discriminator_loss(logit, logit, logit, 0.1)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("minimax", "loss", "gradient"),
    [(False, math.log(4 / 3), -1 / 4), (True, -math.log(4), -3 / 4)],
)
def test_generator_loss_by_hand(minimax, loss, gradient):
    """D = 3/4: -log D with d/dlogit = -(1 - D); minimax: log(1 - D) with -D. Both ask for more."""
    logit = tf.constant([LOGIT])
    with tf.GradientTape() as tape:
        tape.watch(logit)
        result = losses.generator_loss(logit, minimax)
    assert float(result) == pytest.approx(loss)
    assert float(tape.gradient(result, logit)[0]) == pytest.approx(gradient)


def test_kl_to_standard_normal_by_hand():
    """0 for N(0, I). mean (1, 2), variance (1, 4): (1 + 1 - 1 - 0 + 4 + 4 - 1 - log 4) / 2."""
    mean = tf.constant([[0.0, 0.0], [1.0, 2.0]])
    log_variance = tf.constant([[0.0, 0.0], [0.0, math.log(4)]])
    kl = losses.kl_to_standard_normal(mean, log_variance)
    np.testing.assert_allclose(kl, [0.0, 4 - math.log(2)], rtol=1e-6)


def test_kl_is_least_at_the_standard_normal():
    """Its gradient there is 0 in both arguments: they are mean and (e^log_variance - 1) / 2."""
    zeros = tf.zeros((1, 3)), tf.zeros((1, 3))
    with tf.GradientTape() as tape:
        tape.watch(zeros)
        kl = losses.kl_to_standard_normal(*zeros)
    assert [values(gradient) for gradient in tape.gradient(kl, zeros)] == [[[0, 0, 0]]] * 2


@pytest.mark.parametrize(("real", "loss", "gradient"), [(1.0, 4 / 3, -1 / 4), (0.0, 4, 3 / 4)])
def test_source_loss_by_hand(real, loss, gradient):
    """P(real) = 3/4: -log 3/4 for a real item, -log 1/4 for another; d/dlogit = P - real."""
    logit = tf.constant([LOGIT])
    with tf.GradientTape() as tape:
        tape.watch(logit)
        result = losses.source_loss(logit, tf.constant([real]))
    assert float(result[0]) == pytest.approx(math.log(loss))
    assert float(tape.gradient(result, logit)[0]) == pytest.approx(gradient)


@pytest.mark.parametrize(
    ("minimax", "loss", "gradient"),
    [(False, math.log(4 / 3), -1 / 4), (True, -math.log(4), -3 / 4)],
)
def test_fooling_loss_by_hand(minimax, loss, gradient):
    """P(real) = 3/4: -log P with d/dlogit = -(1 - P); minimax: -l_a = log(1 - P) with -P.

    Both fall as the item is more often taken for real.
    """
    logit = tf.constant([LOGIT])
    with tf.GradientTape() as tape:
        tape.watch(logit)
        result = losses.fooling_loss(logit, minimax)
    assert float(result[0]) == pytest.approx(loss)
    assert float(tape.gradient(result, logit)[0]) == pytest.approx(gradient)


def test_source_and_fooling_loss_keep_the_shape():
    logits = tf.zeros((2, 3))
    for result in (losses.source_loss(logits, logits), losses.fooling_loss(logits)):
        np.testing.assert_allclose(result, np.full((2, 3), math.log(2)), rtol=1e-6)


# P of the classes by softmax 1/6, 2/6, 3/6 and by sigmoid 1/2, 2/3, 3/4.
CLASS_LOGITS = [0.0, math.log(2), math.log(3)]


@pytest.mark.parametrize(
    ("labels", "several", "chance"),
    [
        ([0, 0, 1], False, 3 / 6),
        ([0, 1, 0], False, 2 / 6),
        ([0, 0, 1], True, 1 / 2 * 1 / 3 * 3 / 4),
        ([0, 1, 1], True, 1 / 2 * 2 / 3 * 3 / 4),
    ],
)
def test_class_loss_by_hand(labels, several, chance):
    """-log of the label's chance; with several, of the product over having each label or not."""
    pair = tf.constant([CLASS_LOGITS]), tf.constant([labels], tf.float32)
    np.testing.assert_allclose(losses.class_loss(*pair, several), [-math.log(chance)], rtol=1e-6)


@pytest.mark.parametrize("several", [False, True])
def test_an_item_without_a_label_has_no_class_loss_and_no_gradient(several):
    logits = tf.constant([CLASS_LOGITS, CLASS_LOGITS])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        result = losses.class_loss(logits, tf.constant([[0.0, 1.0, 0.0], [0.0] * 3]), several)
    assert result[0] > 0 and result[1] == 0
    of_labelled, of_unlabelled = tape.gradient(result, logits).numpy()
    assert of_labelled.all() and not of_unlabelled.any()


def test_has_label_by_hand():
    labels = tf.constant([[[0.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 1.0]]])
    assert values(losses.has_label(labels)) == [[0, 1], [1, 1]]


def test_shapes_that_would_be_repeated_in_silence_are_refused():
    codes, numbers = tf.zeros([2, 4]), tf.constant([0.0, 1.0])
    with pytest.raises(ValueError, match=r"codes \[2, 4\] and codes \[2, 1\] must agree"):
        losses.squared_distance(codes, codes[:, :1])
    with pytest.raises(ValueError, match=r"of class numbers, give tf\.one_hot\(labels, C\)"):
        losses.class_loss(codes, numbers, multi_label=True)
    with pytest.raises(ValueError, match=r"triplets must be positions \[B, t, 3\]"):
        losses.supervised_ranking(codes[None], tf.zeros([1, 5, 2], tf.int32), margin=1.0)


def test_shapes_that_are_not_known_yet_are_no_mistake():
    @tf.function(input_signature=[tf.TensorSpec(None), tf.TensorSpec([None, None])])
    def distance(a, b):
        return losses.squared_distance(a, b)

    assert values(distance(tf.zeros([1, 3]), tf.ones([1, 3]))) == [3]


def test_pairs_are_similar_where_they_share_a_label():
    """An item without labels is similar to none, not even to itself."""
    labels = tf.constant([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    others = tf.constant([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    found = losses.similar_pairs(labels, others)
    np.testing.assert_array_equal(found, [[1, 0, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match="must agree in their last axis"):
        losses.similar_pairs(labels, others[:, :2])


def test_the_likelihood_of_pairs():
    """-log sigmoid(theta) of a similar pair, -log(1 - sigmoid(theta)) of another; no overflow."""
    theta, similar = np.array([0.0, 1.5, -2.0, 1.5, 200.0, -200.0]), np.array([1.0, 1, 1, 0, 0, 1])
    found = losses.pair_likelihood(tf.constant(theta, tf.float32), tf.constant(similar, tf.float32))
    sigmoid = 1 / (1 + np.exp(-theta[:4]))
    by_hand = -np.log(np.where(similar[:4] > 0, sigmoid, 1 - sigmoid))
    np.testing.assert_allclose(found[:4], by_hand, rtol=1e-6)
    np.testing.assert_allclose(found[4:], [200, 200])


def test_the_sign_of_0_is_that_of_its_bit():
    """A bit is 1 where its score is above 0."""
    found = losses.signs(tf.constant([0.0, -0.0, 1e-30, -2.0])).numpy()
    np.testing.assert_array_equal(found, [-1, -1, 1, -1])


def test_quantisation_by_hand():
    """(1 - 2)² + (-1 - 0)² = 2 and (-1 + 1)² + (1 - 4)² = 9; codes have no gradient."""
    scores, codes = tf.constant([[2.0, 0.0], [-1.0, 4.0]]), tf.constant([[1.0, -1.0], [-1.0, 1.0]])
    with tf.GradientTape() as tape:
        tape.watch([scores, codes])
        loss = losses.quantisation_loss(scores, codes)
    of_scores, of_codes = tape.gradient(loss, [scores, codes])
    assert loss.numpy() == pytest.approx(5.5)
    np.testing.assert_allclose(of_scores, [[1, 1], [0, 3]])
    assert of_codes is None


def test_pseudo_label_loss_by_hand():
    """Weak logits [0, ln 3]: class 1 at .75; [0, 0] is sure of nothing. -log softmax of class 1."""
    logits = tf.constant([[0.0, math.log(4.0)], [2.0, 0.0]])
    weak = tf.constant([[0.0, math.log(3.0)], [0.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch([logits, weak])
        of_items, sure = losses.pseudo_label_loss(logits, weak, 0.75 - 1e-6)
        total = tf.reduce_sum(of_items)
    np.testing.assert_allclose(of_items, [-math.log(4 / 5), 0], rtol=1e-6)
    assert sure.numpy().tolist() == [1, 0]
    of_logits, of_weak = tape.gradient(total, [logits, weak])
    np.testing.assert_allclose(of_logits, [[0.2, -0.2], [0, 0]], atol=1e-6)
    assert of_weak is None
    assert losses.pseudo_label_loss(logits, weak, 0.76)[1].numpy().tolist() == [0, 0]
    with pytest.raises(ValueError, match="logits .* and weak_logits .* must agree"):
        losses.pseudo_label_loss(logits, weak[:, :1], 0.5)
