"""The papers' loss terms as pure functions of network outputs.

Codes are the relaxed ones, H(x) in [0, 1]^k; distances between them are squared Euclidean (SSGAH,
Eq. 8), which is the Hamming distance where H(x) is binary. A term that ranks triplets answers one
hinge a triplet, so that the caller can take the mean and see which share of them is active.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

Kind = tuple[tuple[str, tf.Tensor], tuple[str, tf.Tensor], tuple[str, tf.Tensor]]


def _check_last(one: str, a: tf.Tensor, other: str, b: tf.Tensor, remedy: str = "") -> None:
    """ValueError where the last axes are known and differ: TensorFlow would repeat one of them."""
    shapes = [tf.TensorShape(getattr(tensor, "shape", None)) for tensor in (a, b)]
    last = [shape[-1] if shape.rank else shape.rank for shape in shapes]  # None: not known yet
    if None not in last and last[0] != last[1]:
        raise ValueError(
            f"{one} {list(shapes[0])} and {other} {list(shapes[1])} must agree in their last "
            f"axis{remedy}"
        )


def squared_distance(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """||a - b||² over the last axis: [..., k], [..., k] -> [...]. ValueError for other k."""
    _check_last("codes", a, "codes", b)
    return tf.reduce_sum(tf.math.squared_difference(a, b), axis=-1)


def triplet_hinge(
    margin: float, query: tf.Tensor, positive: tf.Tensor, negative: tf.Tensor
) -> tf.Tensor:
    """max(0, margin - (||q - n||² - ||q - p||²)): three [..., k] -> [...] (SSGAH, Eq. 4 and 8)."""
    gap = squared_distance(query, negative) - squared_distance(query, positive)
    return tf.nn.relu(margin - gap)


def gather_triplets(codes: tf.Tensor, triplets: tf.Tensor, role: int) -> tf.Tensor:
    """The codes of one role (0 query, 1 positive, 2 negative) of each triplet of each group.

    codes [B, m, k], triplets int32 [B, t, 3] of positions in the group -> [B, t, k]. ValueError
    for triplets of other than three.
    """
    if triplets.shape[-1] not in (3, None):
        raise ValueError(f"triplets must be positions [B, t, 3], got {triplets.shape}")
    return tf.gather(codes, triplets[..., role], batch_dims=1)


def supervised_ranking(codes: tf.Tensor, triplets: tf.Tensor, margin: float) -> tf.Tensor:
    """L_sr over (q, p, n): codes [B, m, k], triplets [B, t, 3] -> hinges [B, t] (SSGAH, Eq. 8)."""
    query, positive, negative = (gather_triplets(codes, triplets, role) for role in range(3))
    return triplet_hinge(margin, query, positive, negative)


def semi_supervised_kinds(
    triplets: tf.Tensor, unlabelled: tf.Tensor, exchanges: int = 0, real: bool = False
) -> list[Kind]:
    """The kinds of triplets of L_ssr (SSGAH, Eq. 5), each as three (source, positions).

    The source is "x", "p" or "n" for x, G_p(x) or G_n(x); positions, int32 [B, t], stand in the
    group. (q, p_syn, n) and (q, p, n_syn) come from triplets, int32 [B, t, 3], and
    (u, p_syn, n_syn) from unlabelled, int32 [B, u], the positions of the unlabelled items. With
    exchanges = r > 0, the negatives of u are instead the G_p of the r unlabelled items after it, so
    that there are r triplets a u; whether they are negatives, is for D to say. With `real` there is
    one kind, without anything of G: (u, p, n) and (u, n, p) by turns, of p and n of r of the
    triplets, evenly spread and other ones for each u.
    """
    if real:
        return [_real_kind(triplets, unlabelled, exchanges)]
    q, p, n = (triplets[..., role] for role in range(3))
    kinds = [(("x", q), ("p", q), ("x", n)), (("x", q), ("x", p), ("n", q))]
    if unlabelled.shape[1] == 0:
        return kinds
    if not exchanges:
        return [*kinds, (("x", unlabelled), ("p", unlabelled), ("n", unlabelled))]
    rolls = range(1, 1 + min(exchanges, unlabelled.shape[1] - 1))
    u = tf.concat([unlabelled for _ in rolls], axis=1)
    others = tf.concat([tf.roll(unlabelled, -roll, axis=1) for roll in rolls], axis=1)
    return [*kinds, (("x", u), ("p", u), ("p", others))]


def _real_kind(triplets: tf.Tensor, unlabelled: tf.Tensor, count: int) -> Kind:
    """(u, p, n) and (u, n, p) by turns, `count` a u: positions [B, u * count]."""
    given, size = triplets.shape[1], unlabelled.shape[1]
    spread = tf.range(count) * max(given // count, 1)
    chosen = tf.reshape((tf.range(size)[:, None] + spread[None]) % given, [-1])
    swapped = tf.reshape(tf.tile(tf.range(count)[None] % 2 == 1, [size, 1]), [-1])
    p, n = (tf.gather(triplets[..., role], chosen, axis=1) for role in (1, 2))
    u = tf.repeat(unlabelled, count, axis=1)
    return ("x", u), ("x", tf.where(swapped, n, p)), ("x", tf.where(swapped, p, n))


def gather_kind(of: Mapping[str, tf.Tensor], kind: Kind) -> list[tf.Tensor]:
    """Query, positive, negative of a kind of triplets, of[source]: [B, j, ...] -> [B, t, ...]."""
    return [tf.gather(of[source], positions, batch_dims=1) for source, positions in kind]


def mean_of_kept(values: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """The mean over the groups of the mean over those kept: two [B, t] -> a scalar.

    kept: 1.0 or 0.0. A group that keeps none counts 0.
    """
    count = tf.maximum(tf.reduce_sum(kept, axis=1), 1.0)
    return tf.reduce_mean(tf.reduce_sum(values * kept, axis=1) / count)


def adversary_ranking(
    codes: tf.Tensor, positive_syn: tf.Tensor, triplets: tf.Tensor, margin: float
) -> tf.Tensor:
    """L_ar over (q, p, p_syn): H minimises it, G maximises it (SSGAH, Eq. 6).

    codes, positive_syn: [B, m, k]; triplets int32 [B, t, 3] -> hinges [B, t].
    """
    query, positive = (gather_triplets(codes, triplets, role) for role in range(2))
    return triplet_hinge(margin, query, positive, gather_triplets(positive_syn, triplets, 0))


def _cross_entropy(logits: tf.Tensor, target: float) -> tf.Tensor:
    """Mean of -target log s(logits) - (1 - target) log(1 - s(logits)), s the sigmoid: a scalar."""
    losses = tf.nn.sigmoid_cross_entropy_with_logits(tf.fill(tf.shape(logits), target), logits)
    return tf.reduce_mean(losses)


def discriminator_loss(
    real_logits: tf.Tensor,
    wrong_order_logits: tf.Tensor,
    synthetic_logits: tf.Tensor,
    label_smoothing: float = 0.0,
) -> tf.Tensor:
    """What D minimises: -L_GD without the KL term (SSGAH, Eq. 1), a scalar.

    Logits of D for (q, p, n), (q, n, p) and (x, G_p(x), G_n(x)); each is averaged over its own
    triplets, of which there may be different numbers. label_smoothing in [0, 1) lowers the target
    of the real triplets alone to 1 - label_smoothing.
    """
    return (
        _cross_entropy(real_logits, 1.0 - label_smoothing)
        + _cross_entropy(wrong_order_logits, 0.0)
        + _cross_entropy(synthetic_logits, 0.0)
    )


def generator_loss(synthetic_logits: tf.Tensor, minimax: bool = False) -> tf.Tensor:
    """What G minimises of the GAN game, a scalar.

    -log D(x, G_p(x), G_n(x)), the non-saturating form; with minimax, log(1 - D(...)) as Eq. 1 of
    SSGAH has it.
    """
    if minimax:
        return -_cross_entropy(synthetic_logits, 0.0)
    return _cross_entropy(synthetic_logits, 1.0)


def kl_to_standard_normal(mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    """D_KL(N(mean, exp(log_variance)) || N(0, I)), summed over dimensions: [n, d] -> [n]."""
    return 0.5 * tf.reduce_sum(tf.exp(log_variance) + tf.square(mean) - 1.0 - log_variance, axis=-1)


def source_loss(logits: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """l_a, -log of the probability of the right source (DSH-GANs, Eq. 1): [...], [...] -> [...].

    logits: of being real; real: 1.0 for real items, 0.0 for synthetic ones.
    """
    return tf.nn.sigmoid_cross_entropy_with_logits(real, logits)


def class_loss(logits: tf.Tensor, labels: tf.Tensor, multi_label: bool) -> tf.Tensor:
    """l_c of each item, 0 for one without a label: two [..., C] -> [...] (DSH-GANs, Eq. 5 and 6).

    labels: multi-hot, float. multi_label: whether an item can have several of them: then the cross
    entropies of all classes are added, otherwise it is that of a softmax. ValueError for labels
    that are class numbers.
    """
    _check_last(
        "logits", logits, "labels", labels, "; of class numbers, give tf.one_hot(labels, C)"
    )
    if multi_label:
        losses = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits), axis=-1)
    else:
        losses = tf.nn.softmax_cross_entropy_with_logits(labels, logits)
    return losses * has_label(labels)


def pseudo_label_loss(
    logits: tf.Tensor, weak_logits: tf.Tensor, confidence: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cross entropy with the class that another view names, where it is sure: two [..., C].

    weak_logits: those of a weak view, which get no gradient; its likeliest class counts where its
    probability is `confidence` or more. Answers the losses [...], 0 where it is not sure, and
    whether it is, 1.0 or 0.0 [...] (FixMatch, Sohn et al., NeurIPS 2020, Eq. 4).
    """
    _check_last("logits", logits, "weak_logits", weak_logits)
    probabilities = tf.stop_gradient(tf.nn.softmax(weak_logits))
    sure = tf.cast(tf.reduce_max(probabilities, axis=-1) >= confidence, tf.float32)
    named = tf.one_hot(tf.argmax(probabilities, axis=-1), logits.shape[-1])
    return sure * tf.nn.softmax_cross_entropy_with_logits(named, logits), sure


def has_label(labels: tf.Tensor) -> tf.Tensor:
    """1.0 for the items with a label, else 0.0: multi-hot [..., C] -> [...]."""
    return tf.cast(tf.reduce_any(labels > 0, axis=-1), tf.float32)


def fooling_loss(synthetic_logits: tf.Tensor, minimax: bool = False) -> tf.Tensor:
    """What G minimises of l_a, for each synthetic item: [...] -> [...].

    -log P(S = real | x_syn), the non-saturating form; with minimax, -l_a as Eq. 9 of DSH-GANs has
    it. Both fall as D takes the item for real.
    """
    if minimax:
        return -source_loss(synthetic_logits, tf.zeros_like(synthetic_logits))
    return source_loss(synthetic_logits, tf.ones_like(synthetic_logits))


def similar_pairs(labels: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """s, 1.0 for two items that share a label, else 0.0: [..., m, C], [..., n, C] -> [..., m, n].

    Labels are multi-hot; an item without one is similar to none.
    """
    _check_last("labels", labels, "labels", others)
    return tf.cast(tf.matmul(labels, others, transpose_b=True) > 0, tf.float32)


def pair_likelihood(theta: tf.Tensor, similar: tf.Tensor) -> tf.Tensor:
    """-log p(s | theta) of pairs, log(1 + exp(theta)) - s theta: two [...] -> [...] (DPSH, Eq. 1).

    theta: half the inner product of two items' scores; similar: s, 1.0 or 0.0. No theta overflows.
    """
    return tf.nn.softplus(theta) - similar * theta


def signs(scores: tf.Tensor) -> tf.Tensor:
    """1.0 where a score is above 0, so that its bit is 1, else -1.0 (of 0, too): [...] -> [...]."""
    return tf.where(scores > 0, 1.0, -1.0)


def quantisation_loss(scores: tf.Tensor, codes: tf.Tensor) -> tf.Tensor:
    """The mean over images of |b - u|²: scores u, codes b in {-1, 1}, two [..., k] -> a scalar.

    The codes get no gradient.
    """
    return tf.reduce_mean(squared_distance(scores, tf.stop_gradient(codes)))
