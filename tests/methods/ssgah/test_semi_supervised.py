"""L_ssr: which triplets it has, their weight, and whom its gradient reaches."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.methods.ssgah.tiny_stage import (
    BITS,
    GAN_ITEM,
    ITEM,
    Dense,
    TinySpace,
    for_h,
    make_batch,
    make_stage,
)
from tfhash import losses
from tfhash.methods.ssgah.config import RANKINGS
from tfhash.methods.ssgah.stage import SSGAHStage


def test_ssr_weight_waits_and_ramps():
    """0 before step ssr_from = 2, then 1/4, 2/4, 3/4, 1 over ssr_ramp = 3 steps."""
    stage = make_stage("w_ssr", ssr_from=2, ssr_ramp=3)
    weights = []
    for _ in range(7):
        weights.append(float(stage.train_step(make_batch())["ssr_weight"]))
        stage.reset_metrics()
    np.testing.assert_allclose(weights, [0, 0, 0.25, 0.5, 0.75, 1, 1])


def test_no_unlabelled_images_leave_the_labelled_part_of_l_ssr():
    stage, batch = make_stage("w_ssr"), make_batch(unlabelled=0)
    terms = stage.gradients(batch)[1]
    assert np.isfinite(terms["ssr"]) and terms["ssr"] > 0


def loop_over_l_ssr(stage, batch, exchanges, confidence, real=False):
    """L_ssr by loops over groups and triplets: sum over kinds of the mean over those kept."""
    x = tf.concat([batch["images"], batch["unlabelled"]], 1)
    labelled, total = batch["images"].shape[1], x.shape[1]
    positive, negative, _ = stage._synthesise(x, batch["noise"])
    if stage.config.unlabelled_positives == "own":
        positive = x[..., :GAN_ITEM]
    item = {"x": x[..., :GAN_ITEM], "p": positive, "n": negative}
    of_h = {"x": x, "p": for_h(positive), "n": for_h(negative)}
    code = {name: stage.hash_network(items) for name, items in of_h.items()}

    def d(*triplet):
        return float(stage.discriminator.compare(*(i[None] for i in triplet))[0])

    means, kept = [], 0
    for group in range(len(x)):
        q_p_n = batch["triplets"][group].numpy()
        unlabelled = range(labelled, total)
        kinds = [
            [(("x", q), ("p", q), ("x", n)) for q, _, n in q_p_n],
            [(("x", q), ("x", p), ("n", q)) for q, p, _ in q_p_n],
            [(("x", u), ("p", u), ("n", u)) for u in unlabelled],
        ]
        if exchanges:
            kinds[2] = [
                (("x", u), ("p", u), ("p", v)) for u in unlabelled for v in unlabelled if u != v
            ]
        if real:  # as many a u as there are triplets: all of them, every second one swapped
            kinds = [[]]
            for number, u in enumerate(unlabelled):
                for turn in range(exchanges):
                    _, p, n = q_p_n[(number + turn) % len(q_p_n)]
                    pair = (n, p) if turn % 2 else (p, n)
                    kinds[0].append((("x", u), *(("x", place) for place in pair)))
        for triplets in kinds:
            hinges = []
            for triplet in triplets:
                q, p, n = (item[source][group, index] for source, index in triplet)
                asked = confidence is not None and triplets is kinds[-1]
                if not asked or d(q, p, n) - d(q, n, p) > confidence:
                    codes = (code[source][group, index] for source, index in triplet)
                    hinges.append(float(losses.triplet_hinge(BITS / 8, *codes)))
            kept += len(hinges)
            means.append(np.mean(hinges) if hinges else 0.0)
    return sum(means) / len(x), kept


@pytest.mark.parametrize(("exchanges", "confidence"), [(0, None), (0, 0.01), (6, 0.01)])
def test_l_ssr_by_loops(exchanges, confidence):
    """Generated and exchanged negatives of u, and what is left of them where D has to be sure."""
    stage = make_stage(
        "w_ssr",
        unlabelled_negatives="exchanged" if exchanges else "generated",
        exchanges=exchanges or 1,
        ssr_confidence=confidence,
    )
    batch = make_batch()
    expected, kept = loop_over_l_ssr(stage, batch, exchanges, confidence)
    everything = 2 * (3 + 3 + (6 if exchanges else 3))
    assert kept == everything if confidence is None else 12 < kept < everything
    np.testing.assert_allclose(stage.gradients(batch)[1]["ssr"], expected, rtol=1e-4)


def test_l_ssr_of_real_positives_by_loops():
    """The control: labelled images, in an order that D is sure of, and nothing of G."""
    options = {"unlabelled_positives": "real", "exchanges": 3, "ssr_confidence": 0.01}
    stage, batch = make_stage("w_ssr", **options), make_batch()
    expected, kept = loop_over_l_ssr(stage, batch, 3, 0.01, real=True)
    assert 0 < kept < 2 * 3 * 3
    np.testing.assert_allclose(stage.gradients(batch)[1]["ssr"], expected, rtol=1e-4)
    for generator in (stage.generator_p, stage.generator_n):
        generator.set_weights([2 * weight + 1 for weight in generator.get_weights()])
    np.testing.assert_allclose(stage.gradients(batch)[1]["ssr"], expected, rtol=1e-4)


def test_l_ssr_of_own_positives_by_loops():
    """The control: x in the place of G_p(x), whatever that is; L_ar has G_p(x) as ever."""
    options = {"unlabelled_positives": "own", "unlabelled_negatives": "exchanged"}
    options |= {"exchanges": 6, "ssr_confidence": 0.01}
    batch = make_batch()
    expected, kept = loop_over_l_ssr(make_stage(**options), batch, 6, 0.01)
    assert 12 < kept < 2 * (3 + 3 + 6)

    def terms(**options):
        stage = make_stage(**options)
        generator = stage.generator_p
        generator.set_weights([2 * weight + 1 for weight in generator.get_weights()])
        return stage.gradients(batch)[1]

    own, of_generator = terms(**options), terms(**options | {"unlabelled_positives": "generated"})
    np.testing.assert_allclose(own["ssr"], expected, rtol=1e-4)
    assert abs(own["ssr"] - of_generator["ssr"]) > 1e-3
    np.testing.assert_allclose(own["ar"], of_generator["ar"], rtol=1e-6)


class Trunk(keras.Model):
    """H as a HashNetwork has it: tanh of a product is its backbone, and above it a hash layer."""

    def __init__(self):
        super().__init__()
        self.backbone, self.above = keras.layers.Dense(GAN_ITEM, "tanh"), Dense(BITS, "sigmoid")

    def call(self, inputs, training=False, dropout_seed=None):
        return self.above(self.backbone(inputs))

    def above_backbone(self, features, training=False, dropout_seed=None):
        return self.above(features)


class TrunkSpace(TinySpace):
    """G and D see vectors of the backbone's size, and H sees what G made above its backbone."""

    made_features = True
    seen_shape = (GAN_ITEM,)

    def _to_gan(self, x):
        return x

    def _to_hash(self, synthetic):
        return 2 * synthetic + 1


def trunk_stage(variant="w_ssr", **options):
    keras.utils.set_random_seed(0)
    network = Trunk()
    network(tf.zeros((1, ITEM)))
    of_others = make_stage(variant, **options)
    networks = {name: getattr(of_others, name) for name in ("condition", "generator_p")}
    networks |= {name: getattr(of_others, name) for name in ("generator_n", "discriminator")}
    stage = SSGAHStage(
        {"hash_network": network, **networks},
        TrunkSpace(),
        of_others.config,
        rankings=RANKINGS[variant],
        train_gan=variant == "ssgah",
        weight_ssr=1.0,
        code_length=BITS,
        seed=0,
    )
    variables = stage.variables_by_optimizer()
    stage.compile({name: (keras.optimizers.SGD(0.1), of) for name, of in variables.items()})
    return stage


def with_features(batch):
    """The batch, with what G and D are given of its images."""
    return batch | {
        f"other_{name}": batch[name][..., :GAN_ITEM] * 0.5 for name in ("images", "unlabelled")
    }


def test_synthetic_features_are_seen_above_the_backbone():
    """L_ssr of u: H(u) by the whole network, those of G_p(u) and G_n(u) by what is above it."""
    stage, batch = trunk_stage(), with_features(make_batch())
    seen = tf.concat([batch["other_images"], batch["other_unlabelled"]], axis=1)
    positive, negative, _ = stage._synthesise(seen, batch["noise"])
    u = stage.hash_network(batch["unlabelled"])
    p, n = (stage.hash_network.above(2 * s[:, 5:] + 1) for s in (positive, negative))
    of_unlabelled = tf.reduce_mean(losses.triplet_hinge(BITS / 8, u, p, n))
    terms = stage.forward(batch)
    alone = stage.forward(batch | {k: batch[k][:, :0] for k in ("unlabelled", "other_unlabelled")}
                          | {"noise": batch["noise"][:, :5]})  # fmt: skip
    np.testing.assert_allclose(terms["ssr"], alone["ssr"] + of_unlabelled, rtol=1e-5)


def test_the_backbone_has_a_gradient_of_the_unlabelled_images():
    """And of nothing that G made: with u far from all margins, L_ssr does not move it for u."""
    batch = with_features(make_batch())

    def of_backbone(batch):
        stage = trunk_stage()
        with tf.GradientTape() as tape:
            ssr = stage.forward(batch)["ssr"]
        return tape.gradient(ssr, stage.hash_network.backbone.kernel).numpy()

    moved = batch | {"unlabelled": batch["unlabelled"] * 1.1}
    assert np.abs(of_backbone(batch) - of_backbone(moved)).max() > 1e-5
    stage = trunk_stage()
    with tf.GradientTape() as tape:
        code = stage._hash_synthetic(batch["other_images"], 0)
    kernels = [stage.hash_network.backbone.kernel, stage.hash_network.above.kernel]
    of_trunk, of_layer = tape.gradient(code, kernels)
    assert of_trunk is None and np.abs(of_layer).max() > 0
