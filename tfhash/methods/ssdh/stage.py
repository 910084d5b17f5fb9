"""The stage of SSDH and its terms (Zhang & Peng, TCSVT 2017)."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from tfhash import losses
from tfhash.methods.ssdh.config import SSDHConfig
from tfhash.networks.hash_layer import HashNetwork
from tfhash.training.groups import bit_balance, grouped, items_of, share, ungrouped
from tfhash.training.stage import Stage

TERMS = ("loss", "rank", "rank_active", "graph", "graph_ramp", "bit_balance")
CLASS_TERMS = ("pseudo", "pseudo_kept", "class")


def rank_loss(
    margin: float, anchor: tf.Tensor, positive: tf.Tensor, negative: tf.Tensor
) -> tf.Tensor:
    """max(0, margin + ||a - p||² - ||a - n||²) / 2: three [..., k] -> [...]."""
    return losses.triplet_hinge(margin, anchor, positive, negative) / 2


def contrastive_loss(
    margin: float, anchor: tf.Tensor, positive: tf.Tensor, negative: tf.Tensor
) -> tf.Tensor:
    """(||a - p||² + max(0, margin - ||a - n||)²) / 2: three [..., k] -> [...].

    The distance in the hinge is not squared. Its gradient is 0 where a and n are the same.
    """
    squared = losses.squared_distance(anchor, negative)
    apart = squared > 0
    # The root of 0 has no gradient, and a `where` around it alone would answer 0 times infinity.
    distance = tf.where(apart, tf.sqrt(tf.where(apart, squared, 1.0)), 0.0)
    hinge = tf.nn.relu(margin - distance)
    return (losses.squared_distance(anchor, positive) + tf.square(hinge)) / 2


def nearest_first(points: tf.Tensor) -> tf.Tensor:
    """The others of its group for each point, the nearest first: [B, j, d] -> int32 [B, j, j - 1].

    Nearness is Euclidean. A point itself is never among them; a copy of it is. No gradient.
    """
    points = tf.stop_gradient(tf.cast(points, tf.float32))
    # Around 0, so that the squares below do not cancel all that the differences are.
    points -= tf.reduce_mean(points, axis=1, keepdims=True)
    squares = tf.reduce_sum(tf.square(points), axis=-1)
    inner = tf.matmul(points, points, transpose_b=True)
    distances = squares[:, :, tf.newaxis] - 2 * inner + squares[:, tf.newaxis]
    itself = tf.fill(tf.shape(squares), float("inf"))
    order = tf.argsort(tf.linalg.set_diag(distances, itself), axis=-1, stable=True)
    return order[..., :-1]


def far_ranks(others: int, far_from: float, far_to: float) -> tuple[int, int]:
    """The ranks, from the first up to but without the second, of far images among `others`.

    Ranks count from 0, the nearest. There is always one at least.
    """
    # Shares are decimal, so that .29 of 100 is 29 and not what the binary .29 falls short of it.
    first, end = (int(round(share * others, 6)) for share in (far_from, far_to))
    first = min(first, others - 1)
    return first, max(end, first + 1)


def graph_triplets(
    order: tf.Tensor, uniform: tf.Tensor, neighbours: int, far: tuple[int, int]
) -> tf.Tensor:
    """(anchor, neighbour, far image) with each image as an anchor: int32 [B, j t, 3].

    order: of `nearest_first`; uniform: float32 [B, j, t, 2] in [0, 1), which says what is drawn
    among the first `neighbours` of the order, and among the ranks from far[0] up to far[1].
    """
    near = _drawn(uniform[..., 0], neighbours)
    beyond = far[0] + _drawn(uniform[..., 1], far[1] - far[0])
    total, draws = uniform.shape[1:3]  # known, where the number of groups may not be
    anchor = tf.broadcast_to(tf.range(total)[:, tf.newaxis], tf.shape(near))
    chosen = [tf.gather(order, ranks, batch_dims=2) for ranks in (near, beyond)]
    return tf.reshape(tf.stack([anchor, *chosen], axis=-1), [-1, total * draws, 3])


def _drawn(uniform: tf.Tensor, count: tf.Tensor | int) -> tf.Tensor:
    """Of 0 .. count - 1 the one that a number in [0, 1) stands for, int32; 0 where count is 0."""
    count = tf.cast(count, tf.float32)
    drawn = tf.floor(uniform * count)
    return tf.cast(tf.maximum(tf.minimum(drawn, count - 1), 0), tf.int32)  # a product may round up


def pseudo_triplets(
    likelihood: tf.Tensor, labels: tf.Tensor, uniform: tf.Tensor, confidence: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """(unlabelled anchor, positive, negative) by pseudo-labels: int32 [B, u, 3], kept [B, u].

    likelihood: of each class, float [B, u, C] in [0, 1]; labels: multi-hot [B, m, C] of the
    labelled images, which come first in the group; uniform: [B, u, 2] in [0, 1). The positive is
    drawn among the labelled images that have the anchor's best class; the negative among those that
    have its worst of all classes that the group has images of, and not the best. kept: 1.0 where
    both are there and the best class is likelier than `confidence`, else 0.0. No gradient.
    """
    present = tf.reduce_any(labels > 0, axis=1)[:, tf.newaxis]  # [B, 1, C]
    best = tf.argmax(likelihood, axis=-1)
    worst = tf.argmin(tf.where(present, likelihood, float("inf")), axis=-1)
    has_best, has_worst = (_which_have(of_class, labels) for of_class in (best, worst))
    positive, some_positive = _one_of(has_best, uniform[..., 0])
    negative, some_negative = _one_of(has_worst & ~has_best, uniform[..., 1])
    sure = tf.reduce_max(likelihood, axis=-1) > confidence
    count, total = labels.shape[1], likelihood.shape[1]
    anchor = tf.broadcast_to(tf.range(count, count + total), tf.shape(positive))
    kept = tf.cast(some_positive & some_negative & sure, tf.float32)
    return tf.stack([anchor, positive, negative], axis=-1), kept


def _which_have(of_class: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Which labelled images have the class: int [B, u], multi-hot [B, m, C] -> bool [B, u, m]."""
    one_hot = tf.one_hot(of_class, labels.shape[2])
    return losses.similar_pairs(one_hot, labels) > 0


def _one_of(allowed: tf.Tensor, uniform: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The place of one True in each row, int32 [B, u], and whether there is any: bool [B, u, m].

    uniform [B, u] in [0, 1) says which of them; 0 is the place where there is none.
    """
    so_far = tf.cumsum(tf.cast(allowed, tf.int32), axis=-1)
    count = so_far[..., -1]
    reached = so_far > _drawn(uniform, count)[..., tf.newaxis]
    return tf.argmax(tf.cast(reached, tf.int32), axis=-1, output_type=tf.int32), count > 0


class SSDHStage(Stage):
    """The one stage: the ranking of labelled triplets, the graph of a group, the class head.

    hash_network: H. class_head: a built linear layer on its features, where the configuration asks
    for classification, else None. margin_graph: that of the contrastive form. multi_label: whether
    an image may have several labels.
    """

    def __init__(
        self,
        hash_network: HashNetwork,
        class_head: keras.layers.Dense | None,
        config: SSDHConfig,
        *,
        margin_graph: float,
        multi_label: bool,
        seed: int,
    ):
        heads: tuple[keras.layers.Dense, ...] = () if class_head is None else (class_head,)
        super().__init__({"hash_network": hash_network}, TERMS + CLASS_TERMS * len(heads), seed)
        self.heads = heads
        self.config = config
        self.margin_graph = margin_graph
        self.multi_label = multi_label

    def variables_by_optimizer(self) -> dict[str, list[keras.Variable]]:
        """H and the class head learn together."""
        layers = (self.hash_network, *self.heads)
        return {"hash": [variable for layer in layers for variable in layer.trainable_variables]}

    def forward(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The terms of labelled images, triplets of them, and unlabelled images in groups."""
        config, network = self.config, self.hash_network
        x = items_of(batch, "images", "unlabelled")
        features = network.features(ungrouped(x))
        answers = network.scores_of(network.dropped(features, self.step_seed(0)), self.heads)
        scores, logits = tf.split(answers, [network.code_length, -1], axis=-1)
        codes = grouped(tf.sigmoid(scores), x)
        near_in = codes if config.graph == "codes" else grouped(features, x)
        kinds = {"rank": batch["triplets"], "graph": self._graph(near_in)}
        terms: dict[str, tf.Tensor] = {}
        if self.heads:
            kinds["pseudo"], kept = self._pseudo(features, x, batch["labels"])
            terms["class"] = self._class_loss(grouped(logits, x), batch["labels"])
        of = gather_kinds(codes, kinds)
        hinges = rank_loss(config.margin, *of["rank"])
        terms["rank"], terms["rank_active"] = tf.reduce_mean(hinges), share(hinges > 0)
        terms["graph"] = tf.reduce_mean(contrastive_loss(self.margin_graph, *of["graph"]))
        if self.heads:
            pseudo = contrastive_loss(self.margin_graph, *of["pseudo"])
            terms["pseudo"] = losses.mean_of_kept(pseudo, kept)
            terms["pseudo_kept"] = losses.mean_of_kept(kept, tf.ones_like(kept))
        terms["bit_balance"] = bit_balance(codes > 0.5)
        return terms | self._total(terms)

    def _total(self, terms: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """What H and the class head minimise, and the ramp in it."""
        config = self.config
        ramp = self.ramp(config.graph_from, config.graph_ramp)
        loss = terms["rank"] + ramp * config.weight_graph * terms["graph"]
        if self.heads:
            loss += ramp * config.weight_pseudo * terms["pseudo"]
            loss += config.weight_class * terms["class"]
        return {"loss": loss, "graph_ramp": ramp}

    def _graph(self, points: tf.Tensor) -> tf.Tensor:
        """Triplets of points [B, j, d] and their near and far ones in the group."""
        config = self.config
        order = nearest_first(points)
        far = far_ranks(points.shape[1] - 1, config.far_from, config.far_to)
        shape = [tf.shape(order)[0], points.shape[1], config.graph_pairs, 2]
        uniform = tf.random.stateless_uniform(shape, self.step_seed(1), alg="philox")
        return graph_triplets(order, uniform, config.neighbours, far)

    def _pseudo(
        self, features: tf.Tensor, x: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Triplets of the unlabelled images, and which of them are kept.

        The class head judges without dropout, and nothing of that has a gradient.
        """
        logits = grouped(self.heads[0](tf.stop_gradient(features)), x)[:, labels.shape[1] :]
        likelihood = tf.sigmoid(logits) if self.multi_label else tf.nn.softmax(logits)
        shape = [tf.shape(logits)[0], logits.shape[1], 2]
        uniform = tf.random.stateless_uniform(shape, self.step_seed(2), alg="philox")
        return pseudo_triplets(likelihood, labels, uniform, self.config.pseudo_confidence)

    def _class_loss(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """That of the labelled images, which come first: [B, j, C], [B, m, C] -> a scalar."""
        of_labelled = logits[:, : labels.shape[1]]
        return tf.reduce_mean(losses.class_loss(of_labelled, labels, self.multi_label))


def gather_kinds(
    codes: tf.Tensor, kinds: Mapping[str, tf.Tensor]
) -> dict[str, tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """Three codes [B, t, k] of each kind of triplets: codes [B, j, k], each kind int32 [B, t, 3].

    All are gathered at once, so that codes get one gradient: TensorFlow adds several in whichever
    order their memory is free, and a run would not repeat bit for bit.
    """
    gathered = tf.gather(codes, tf.concat(list(kinds.values()), axis=1), batch_dims=1)
    by_kind = tf.split(gathered, [triplets.shape[1] for triplets in kinds.values()], axis=1)
    return {
        kind: tuple(tf.unstack(of_kind, axis=2))
        for kind, of_kind in zip(kinds, by_kind, strict=True)
    }
