"""BGDH: semi-supervised deep hashing with a bipartite graph (Yan, Zhang, Li, IJCAI 2017).

The inductive form, BGDH-I: the transductive one has the queries in its graph. No code of the
authors is public; equations and defaults are from memory of the paper. What differs from it: all
parts learn in each step, where the paper takes steps of the graph and steps of the codes in turn;
both losses are means; contexts learn under Adam; the labelled images of a batch are among those
that walks begin at, so that they do so more often than others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from threadpoolctl import threadpool_limits

from tfhash import losses
from tfhash.data.learning import LearningData
from tfhash.data.pairs import InBatchPairs
from tfhash.data.walks import AnchorWalks, PairsAndWalks
from tfhash.features import descriptors
from tfhash.hashers.deep import HashNetworkHasher
from tfhash.hashers.deep_settings import HashConfig
from tfhash.hashers.linear.anchors import anchor_graph, kmeans_anchors
from tfhash.networks.embedding_network import EmbeddingHashNetwork
from tfhash.settings import setting
from tfhash.training.groups import grouped, items_of, ungrouped
from tfhash.training.stage import Stage

TERMS = ("loss", "pairs", "quantisation", "graph")
_BATCH = 256


@dataclass(frozen=True)
class BGDHConfig(HashConfig):
    """Hyperparameters; the paper's values are not known for certain."""

    weight_quantisation: float = setting(
        0.01,
        "weight of the squared distance between scores and their signs",
        least=0,
        search=(0.01, 0.03, 0.1),
        open=True,
    )
    balanced_pairs: bool = setting(
        False,
        "pairs that share a label weigh as much as all others together; the paper weighs each pair "
        "alike",
        search=(False, True),
    )
    weight_graph: float = setting(
        1.0, "weight of the loss of the graph (lambda)", least=0, search=(0.1, 1.0), open=True
    )
    anchors: int = setting(500, "anchors of the graph: centres of k-means", least=1, open=True)
    nearest: int = setting(
        3, "anchors that each image is linked to, the nearest ones", least=1, open=True
    )
    kmeans_iterations: int = setting(10, "iterations of k-means", least=1, open=True)
    graph_of: str = setting(
        "backbone",
        "by what images are near in the graph (space=pixels): backbone, its features before it "
        "learns; or pixels, at most 32 a side. With space=features by these",
        choices=("backbone", "pixels"),
        open=True,
    )
    contexts: int = setting(4, "walks from each image of a batch", least=1, open=True)
    negatives: int = setting(5, "images drawn at random for each walk", least=1, open=True)
    context_learning_rate: float = setting(
        0.01, "Adam's rate for the vectors of contexts", least=0, open=True
    )
    embedding_size: int = setting(100, "length of an embedding", least=1, open=True)
    embedding_units: int = setting(
        256, "units of the ReLU layer under the embedding", least=1, open=True
    )
    branch_units: int = setting(
        128, "units of the ReLU layer from the embedding to the hash layer", least=1, open=True
    )
    graph_trains_backbone: bool = setting(
        False, "the loss of the graph trains the backbone too (space=pixels)"
    )


def pair_loss(
    scores: tf.Tensor, pairs: tf.Tensor, labels: tf.Tensor, balanced: bool = False
) -> tf.Tensor:
    """The mean of -log p(s | u_i'u_j / 2) over pairs (DPSH, Eq. 1): a scalar.

    scores: u [B, m, k]; pairs: int32 [B, p, 2], positions among the m; labels: multi-hot [B, m, C].
    balanced: half the mean over pairs that share a label, and half that over the others; of groups
    one by one, a kind that a group lacks counts 0.
    """
    one, other = (tf.gather(scores, pairs[..., side], batch_dims=1) for side in range(2))
    similar = losses.similar_pairs(labels, labels)  # [B, m, m]
    similar = tf.gather_nd(similar, pairs, batch_dims=1)
    theta = tf.reduce_sum(one * other, axis=-1) / 2
    likelihood = losses.pair_likelihood(theta, similar)
    if not balanced:
        return tf.reduce_mean(likelihood)
    kinds = (losses.mean_of_kept(likelihood, kept) for kept in (similar, 1 - similar))
    return tf.add_n(list(kinds)) / 2


def graph_loss(embeddings: tf.Tensor, contexts: tf.Tensor, negatives: tf.Tensor) -> tf.Tensor:
    """The mean of -log sigmoid(gamma w_c'e_i) over triples (i, c, gamma): a scalar (skip-gram).

    embeddings: e [B, j, d]; contexts: w of the ends of walks from each, gamma = 1, [B, j, c, d];
    negatives: w of images drawn at random, gamma = -1, [B, j, r, d].
    """
    near, far = (tf.linalg.matvec(vectors, embeddings) for vectors in (contexts, negatives))
    return tf.reduce_mean(tf.nn.softplus(tf.concat([-near, far], axis=-1)))


@tf.custom_gradient
def rows_of(table: tf.Tensor, places: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Rows of a table [n, d] at places int64 [...]: [..., d], with a dense gradient.

    That of tf.gather is a tf.IndexedSlices, which a stage cannot divide among replicas.
    """

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        rows = tf.reshape(upstream, [-1, table.shape[1]])
        return tf.math.unsorted_segment_sum(rows, tf.reshape(places, [-1]), table.shape[0]), None

    return tf.gather(table, places), gradient


class BGDHStage(Stage):
    """The one stage: H minimises L_s + lambda L_g, the vectors of contexts minimise L_g.

    hash_network: an EmbeddingHashNetwork. images: n, those of the graph; each has a vector w, a row
    of `contexts` [n, d], that stands in checkpoints and serves training alone. They begin at 0, as
    in word2vec.
    """

    def __init__(
        self, hash_network: EmbeddingHashNetwork, config: BGDHConfig, images: int, seed: int
    ):
        super().__init__({"hash_network": hash_network}, TERMS, seed)
        self.config = config
        self.contexts = self.add_weight(
            (images, config.embedding_size), "zeros", dtype="float32", name="contexts"
        )

    def variables_by_optimizer(self):
        return {**super().variables_by_optimizer(), "contexts": [self.contexts]}

    def objectives(self, terms):
        return {"hash": terms["loss"], "contexts": terms["graph"]}

    def forward(self, batch):
        config = self.config
        x = items_of(batch, "images", "unlabelled")  # [B, m + u, ...]
        features, embeddings = self.hash_network.features_and_embeddings(
            ungrouped(x),
            training=True,
            dropout_seed=self.step_seed(0),
            embeddings_reach_backbone=config.graph_trains_backbone,
        )
        labelled = grouped(features, x)[:, : batch["images"].shape[1]]
        scores = grouped(self.hash_network.scores_of(ungrouped(labelled)), labelled)
        table = tf.convert_to_tensor(self.contexts.value)
        near, far = (rows_of(table, batch[name]) for name in ("contexts", "negatives"))
        pairs = pair_loss(scores, batch["pairs"], batch["labels"], config.balanced_pairs)
        quantisation = losses.quantisation_loss(scores, losses.signs(scores))
        graph = graph_loss(grouped(embeddings, x), near, far)
        loss = pairs + config.weight_quantisation * quantisation + config.weight_graph * graph
        return {"loss": loss, "pairs": pairs, "quantisation": quantisation, "graph": graph}


class BGDH(HashNetworkHasher):
    """H trained with pairs of labelled images, and embeddings with walks among all images.

    Each labelled and each unlabelled image is linked to its nearest anchors, the centres of k-means
    over them, as in AGH. An embedding e(x), from which H has a branch of its own, is to tell which
    images walks from x over an anchor end at. Queries and validation images are in no graph.
    """

    Config = BGDHConfig
    config: BGDHConfig
    paper_backbones = ("cnn_f",)  # a VGG-F, which is not among the backbones
    takes_triplets = False

    @property
    def hash_network_kind(self) -> Callable[..., EmbeddingHashNetwork]:
        config = self.config
        return functools.partial(
            EmbeddingHashNetwork,
            embedding_size=config.embedding_size,
            embedding_units=config.embedding_units,
            branch_units=config.branch_units,
        )

    def make_stage(self, data: LearningData) -> Stage:
        return BGDHStage(self.hash_network, self.config, len(_images_of(data)), self.seed)

    def make_optimizer(self, name: str, all_names: list[str]) -> keras.optimizers.Optimizer:
        if name == "contexts":
            return keras.optimizers.Adam(self.config.context_learning_rate)
        return super().make_optimizer(name, all_names)

    def make_sampler(self, data: LearningData) -> PairsAndWalks:
        """To be called before H learns or a checkpoint is restored, for the sake of `graph_of`."""
        settings, config = self.settings, self.config
        pairs = InBatchPairs(data.labels[data.labelled], settings.group_size)
        # A second thread would add up in another order, and a resumed run have another graph.
        with threadpool_limits(1):
            features = self.graph_features(data)
            anchors = kmeans_anchors(
                features, config.anchors, config.nearest, config.kmeans_iterations, self.seed
            )
            links, _ = anchor_graph(features, anchors, config.nearest)
        return PairsAndWalks(
            pairs,
            AnchorWalks(links),
            settings.unlabelled_group_size,
            config.contexts,
            config.negatives,
        )

    def graph_features(self, data: LearningData) -> np.ndarray:
        """By what images are near in the graph, the labelled ones first: float32 [n, F]."""
        images = _images_of(data)
        network: Any = None
        if self.config.space == "pixels":
            on_pixels = self.config.graph_of == "pixels"
            network = (
                descriptors.pixels(self.image_size) if on_pixels else self.hash_network.backbone
            )
        width = data.inputs.shape[-1] if network is None else network.output_shape[-1]
        features = self.settings.storage.empty((len(images), width), np.float32)
        for start in range(0, len(images), _BATCH):
            batch = data.inputs[images[start : start + _BATCH], 0]
            if network is not None:
                answer = network(batch.astype(np.float32), training=False)
                batch = keras.ops.convert_to_numpy(answer)
            features[start : start + _BATCH] = batch
        return features


def _images_of(data: LearningData) -> np.ndarray:
    """The images of the graph, positions in the inputs: the labelled ones, then the others."""
    return np.concatenate([data.labelled, data.splits.unlabelled])
