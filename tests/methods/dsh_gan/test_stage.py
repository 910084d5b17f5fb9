"""DSH-GANs' objectives by loops over single images, and which network each of them reaches."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.methods.numeric import numeric_gradient
from tests.methods.tiny_space import VectorSpace
from tfhash.methods.dsh_gan.config import DSHGANConfig
from tfhash.methods.dsh_gan.stage import HashStage, SemiSupervisedGAN, accuracy, choose
from tfhash.networks.discriminators import SourceClassDiscriminator
from tfhash.networks.hash_layer import HashNetwork
from tfhash.networks.streams import Streams

BITS, ITEM, GAN_ITEM, CLASSES, NOISE = 4, 6, 5, 3, 2
LABELLED, UNLABELLED, GROUPS = 5, 3, 2
# q p n of each group: q and p share a label below, q and n none, in both kinds of labels.
TRIPLETS = [[0, 1, 2], [1, 0, 3], [3, 4, 0]]
ONE_LABEL = np.eye(CLASSES, dtype=np.float32)[[0, 0, 1, 2, 2]]
SEVERAL_LABELS = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [1, 0, 1]], np.float32)
SEVERAL_LABELS_TRIPLETS = [[0, 1, 2], [1, 0, 3], [3, 4, 1]]

either_kind_of_labels = pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
either_form = pytest.mark.parametrize("minimax", [False, True], ids=["non_saturating", "minimax"])


class TinySpace(VectorSpace):
    """G and D see twice, and H one more than what the other one sees.

    G and D do not see the last number, and H gets 1 for it.
    """

    def __init__(self):
        super().__init__(ITEM, GAN_ITEM)

    def _to_gan(self, x):
        return for_d(x)

    def _synthetic(self, decoded, x):
        return tf.tanh(decoded)

    def _to_hash(self, synthetic):
        return for_h(synthetic)


def for_d(items):
    """What D sees of items of H, [..., ITEM]."""
    return 2.0 * items[..., :GAN_ITEM]


def for_h(synthetic):
    """What H sees of synthetic items, [..., GAN_ITEM]."""
    return tf.concat([synthetic, tf.zeros_like(synthetic[..., :1])], -1) + 1.0


def spread(network, seed):
    """Weights so large that every gradient shows: normal, of deviation 1/2."""
    rng = np.random.default_rng(seed)
    for variable in network.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    return network


def make_generator(batch_norm=False):
    layers = [keras.Input((CLASSES + NOISE,))]
    layers += [keras.layers.Dense(GAN_ITEM, use_bias=not batch_norm)]
    layers += [keras.layers.BatchNormalization()] if batch_norm else []
    return spread(keras.Sequential(layers), 1)


def make_stage_1(several=False, **options):
    trunk = [keras.layers.Dense(5, "tanh")]
    discriminator = SourceClassDiscriminator(trunk, CLASSES, 0.0, 0)
    discriminator(tf.zeros((1, GAN_ITEM)))
    networks = {"generator": make_generator(), "discriminator": spread(discriminator, 2)}
    return compiled(
        SemiSupervisedGAN(
            networks, TinySpace(), DSHGANConfig(**options), multi_label=several, seed=0
        )
    )


def make_stage_2(several=False, generator=None, **options):
    backbone = keras.Sequential([keras.Input((ITEM,)), keras.layers.Dense(5, "tanh")])
    hash_network = HashNetwork(BITS, backbone)
    hash_network.build((None, ITEM))
    networks = {"streams": spread(Streams(hash_network, CLASSES, 0), 3)}
    config = DSHGANConfig(**options)
    if config.real_fraction < 1:
        networks["generator"] = generator or make_generator()
    return compiled(HashStage(networks, TinySpace(), config, multi_label=several, seed=0))


def compiled(stage):
    stage.compile(
        {
            name: (keras.optimizers.SGD(0.1), variables)
            for name, variables in stage.variables_by_optimizer().items()
        }
    )
    return stage


def make_batch(several=False, unlabelled=UNLABELLED):
    rng = np.random.default_rng(0)

    def normal(*shape):
        return tf.constant(rng.normal(size=(GROUPS, *shape)), tf.float32)

    labels = SEVERAL_LABELS if several else ONE_LABEL
    triplets = SEVERAL_LABELS_TRIPLETS if several else TRIPLETS
    return {
        "images": normal(LABELLED, ITEM),
        "triplets": tf.constant([triplets] * GROUPS, tf.int32),
        "labels": tf.constant([labels, labels[:, ::-1]]),
        "unlabelled": normal(unlabelled, ITEM),
        "noise": normal(LABELLED + unlabelled, NOISE),
    }


def probability(logit):
    return 1 / (1 + np.exp(-np.float64(logit)))


def loss_of_source(logit, real):
    """l_a, Eq. 1, of one image."""
    return -np.log(probability(logit) if real else 1 - probability(logit))


def loss_of_class(logits, labels, several):
    """l_c, Eq. 5 or 6, of one image."""
    logits = np.asarray(logits, np.float64)
    if not several:
        (label,) = np.flatnonzero(labels)
        return -np.log(np.exp(logits[label]) / np.exp(logits).sum())
    chances = probability(logits)
    return -sum(np.log(p if label else 1 - p) for p, label in zip(chances, labels, strict=True))


def hits(logits, labels, several):
    if several:
        return np.mean((np.asarray(logits) > 0) == labels.astype(bool))
    return float(np.argmax(logits) == np.argmax(labels))


def synthesise(stage, labels, noise):
    """G([C, z]) of one image, as D sees it."""
    return np.tanh(stage.generator(np.concatenate([labels, noise])[None])[0].numpy())


def loop_over_stage_1(stage, batch, several, minimax, weight):
    """l_a over all images, real and synthetic; l_c over those that have or were made of a label."""
    of_source, fooling, right_sources = [], [], []
    of_class = {"real": [], "synthetic": []}
    right_classes = {"real": [], "synthetic": []}
    for group in range(GROUPS):
        images = [*batch["images"][group].numpy(), *batch["unlabelled"][group].numpy()]
        nothing = [np.zeros(CLASSES, np.float32)] * batch["unlabelled"].shape[1]
        labels = [*batch["labels"][group].numpy(), *nothing]
        for x, C, z in zip(images, labels, batch["noise"][group].numpy(), strict=True):
            items = {"real": for_d(x), "synthetic": synthesise(stage, C, z)}
            for name, item in items.items():
                source, classes = (answer[0].numpy() for answer in stage.discriminator(item[None]))
                of_source.append(loss_of_source(source, name == "real"))
                right_sources.append((source > 0) == (name == "real"))
                if name == "synthetic":
                    loss = -loss_of_source(source, False) if minimax else loss_of_source(source, 1)
                    fooling.append(loss)
                if C.any():
                    of_class[name].append(loss_of_class(classes, C, several))
                    right_classes[name].append(hits(classes, C, several))
    means = {name: np.mean(losses) for name, losses in of_class.items()}
    return {
        "discriminator": np.mean(of_source) + weight * (means["real"] + means["synthetic"]) / 2,
        "generator": np.mean(fooling) + weight * means["synthetic"],
        "source_accuracy": np.mean(right_sources),
        "class_accuracy": np.mean(right_classes["real"]),
        "class_accuracy_syn": np.mean(right_classes["synthetic"]),
    }


@pytest.mark.parametrize("unlabelled", [UNLABELLED, 0])
@either_form
@either_kind_of_labels
def test_terms_of_stage_1_by_loops(several, minimax, unlabelled):
    stage = make_stage_1(several, minimax=minimax, weight_class=0.7)
    batch = make_batch(several, unlabelled)
    terms = stage.gradients(batch)[1]
    expected = loop_over_stage_1(stage, batch, several, minimax, 0.7)
    assert terms.keys() == expected.keys()
    for term, value in expected.items():
        np.testing.assert_allclose(terms[term], value, rtol=1e-5, err_msg=term)


def make_stage_1_as_trained(seed=0):
    """With batch normalisation in G and D, and with dropout in D."""
    trunk = [keras.layers.Dense(5), keras.layers.BatchNormalization(momentum=0.0)]
    discriminator = SourceClassDiscriminator(trunk, CLASSES, 0.5, 0)
    discriminator(tf.zeros((1, GAN_ITEM)))
    networks = {"generator": make_generator(True), "discriminator": spread(discriminator, 2)}
    stage = SemiSupervisedGAN(networks, TinySpace(), DSHGANConfig(), multi_label=False, seed=seed)
    return compiled(stage)


def test_stage_1_drops_units_of_d_by_seed_and_step():
    batch = make_batch()
    first, same, other = (
        float(make_stage_1_as_trained(seed).gradients(batch)[1]["discriminator"])
        for seed in (0, 0, 1)
    )
    assert first == same != other
    stage = make_stage_1_as_trained()
    stage.optimizer.iterations.assign(1)
    assert float(stage.gradients(batch)[1]["discriminator"]) != first


def test_stage_1_normalises_real_and_synthetic_items_together():
    """Without momentum the statistics of D are those of its last batch: both halves at once."""
    stage, batch = make_stage_1_as_trained(), make_batch()
    before = [np.copy(v) for v in stage.generator.non_trainable_variables]
    stage.gradients(batch)
    real = tf.reshape(tf.concat([batch["images"], batch["unlabelled"]], 1), (-1, ITEM))
    labels = tf.pad(batch["labels"], [[0, 0], [0, UNLABELLED], [0, 0]])
    made_of = tf.reshape(tf.concat([labels, batch["noise"]], -1), (-1, CLASSES + NOISE))
    synthetic = tf.tanh(stage.generator(made_of, training=True))
    dense, normalisation = stage.discriminator.trunk.layers
    hidden = dense(tf.concat([for_d(real), synthetic], 0)).numpy()
    np.testing.assert_allclose(normalisation.moving_mean, hidden.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(normalisation.moving_variance, hidden.var(axis=0), rtol=1e-4)
    after = stage.generator.non_trainable_variables
    assert all((a != b).all() for a, b in zip(before, map(np.copy, after), strict=True))


def loop_over_stage_2(stage, batch, several, minimax, margin):
    """Eq. 3, 4 and 7 triplet by triplet; what replaces a synthetic image brings its own label."""
    replaced = stage._replaced(batch["triplets"]).numpy()
    hinges, of_source, fooling, of_class, right_sources = [], [], [], [], []
    for group in range(GROUPS):
        real = batch["images"][group].numpy()
        C = batch["labels"][group].numpy()
        noise = batch["noise"][group].numpy()
        synthetic = [for_h(synthesise(stage, C[i], noise[i])) for i in range(LABELLED)]
        triplets = batch["triplets"][group].numpy()
        for (q, p, n), (real_p, real_n) in zip(triplets, replaced[group], strict=True):
            positive = (real[p], C[p], True) if real_p else (synthetic[q], C[q], False)
            negative = (real[n], C[n], True) if real_n else (synthetic[n], C[n], False)
            codes, losses_a, losses_c, fools = [], [], [], []
            for image, labels, is_real in ((real[q], C[q], True), positive, negative):
                code, source, classes = (answer[0].numpy() for answer in stage.streams(image[None]))
                codes.append(code)
                losses_a.append(loss_of_source(source, is_real))
                losses_c.append(loss_of_class(classes, labels, several))
                right_sources.append((source > 0) == is_real)
                fooled = -loss_of_source(source, 0) if minimax else loss_of_source(source, 1)
                fools.append(0 if is_real else fooled)
            x, x_positive, x_negative = codes
            gap = ((x - x_negative) ** 2).sum() - ((x - x_positive) ** 2).sum()
            hinges.append(max(0, margin - gap))
            of_source.append(sum(losses_a) / 3)
            of_class.append(sum(losses_c) / 3)
            fooling.append(sum(fools) / 3)
    return {
        "triplet": np.mean(hinges),
        "triplet_active": np.mean(np.array(hinges) > 0),
        "adversary": np.mean(of_source),
        "fooling": np.mean(fooling),
        "source_accuracy": np.mean(right_sources),
        "class": np.mean(of_class),
    }


@pytest.mark.parametrize("real_fraction", [0.0, 0.5])
@either_form
@either_kind_of_labels
def test_terms_of_stage_2_by_loops(several, minimax, real_fraction):
    stage = make_stage_2(several, minimax=minimax, real_fraction=real_fraction, margin=0.3)
    batch = make_batch(several)
    replaced = stage._replaced(batch["triplets"]).numpy()
    both = {(0.0, 0.0)} if real_fraction == 0 else {(0.0, 1.0), (1.0, 0.0)}
    assert both <= {tuple(row) for row in replaced.reshape(-1, 2)}
    terms = stage.gradients(batch)[1]
    expected = loop_over_stage_2(stage, batch, several, minimax, 0.3)
    assert 0 < expected["triplet_active"]
    assert terms.keys() - expected.keys() == {"bit_balance", "class_accuracy"}
    for term, value in expected.items():
        np.testing.assert_allclose(terms[term], value, rtol=1e-5, err_msg=term)


@either_kind_of_labels
def test_class_accuracy_and_bit_balance_are_of_the_real_images(several):
    stage, batch = make_stage_2(several), make_batch(several)
    terms = stage.gradients(batch)[1]
    codes, _, classes = stage.streams(tf.reshape(batch["images"], (-1, ITEM)))
    labels = tf.reshape(batch["labels"], (-1, CLASSES)).numpy()
    pairs = zip(classes.numpy(), labels, strict=True)
    accuracy = np.mean([hits(*pair, several) for pair in pairs])
    np.testing.assert_allclose(terms["class_accuracy"], accuracy, rtol=1e-6)
    balance = np.abs((codes.numpy() > 0.5).mean(axis=0) - 0.5).mean()
    np.testing.assert_allclose(terms["bit_balance"], balance, rtol=1e-6)


def test_right_by_hand():
    """The largest of [1, 3, 2] is its second; of several labels, two of three signs agree."""
    logits = tf.constant([[1.0, 3.0, -2.0]])
    assert accuracy(logits, tf.constant([[0.0, 1.0, 0.0]]), False) == 1
    assert accuracy(logits, tf.constant([[1.0, 0.0, 0.0]]), False) == 0
    np.testing.assert_allclose(accuracy(logits, tf.constant([[0.0, 1.0, 0.0]]), True), 2 / 3)


def test_choose_by_hand():
    real, synthetic = tf.constant([[[1.0, 2.0], [3.0, 4.0]]]), tf.zeros((1, 2, 2))
    use_real = tf.constant([[0.0, 1.0]])
    assert choose(real, synthetic, use_real).numpy().tolist() == [[[0, 0], [3, 4]]]
    assert choose(real[..., 0], synthetic[..., 0], use_real).numpy().tolist() == [[0, 3]]


def test_real_fraction_is_the_share_of_positives_and_of_negatives_that_are_real():
    """Of 4000 draws of each role 30 % within 5 deviations of .0072; each role has its own."""
    many = tf.zeros((2, 2000, 3), tf.int32)
    replaced = make_stage_2(real_fraction=0.3)._replaced(many).numpy()
    assert np.abs(replaced.mean(axis=(0, 1)) - 0.3).max() < 5 * 0.0072
    assert abs(replaced.prod(axis=-1).mean() - 0.09) < 5 * 0.0045
    assert not make_stage_2()._replaced(many).numpy().any()


def test_which_images_are_real_changes_with_the_step():
    stage = make_stage_2(real_fraction=0.5)
    batch, many = make_batch(), tf.zeros((1, 50, 3), tf.int32)
    first = stage._replaced(many).numpy()
    np.testing.assert_array_equal(stage._replaced(many), first)
    stage.train_step(batch)
    assert stage._replaced(many).numpy().tolist() != first.tolist()


def assert_descends(stage, batch, optimizer, objective):
    """Its gradient is that of the objective, in one entry of each of its variables."""
    gradients, _ = stage.gradients(batch)
    of_optimizer = zip(stage.variables_by_optimizer()[optimizer], gradients[optimizer], strict=True)
    for variable, gradient in of_optimizer:
        entry = (1,) * len(variable.shape) if variable.shape[-1] > 1 else (0,) * len(variable.shape)
        expected = numeric_gradient(stage, batch, objective, variable, entry)
        np.testing.assert_allclose(gradient[entry], expected, atol=5e-4, err_msg=variable.path)
        assert np.abs(gradient).max() > 1e-3, variable.path


@either_form
@either_kind_of_labels
@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_each_player_of_stage_1_descends_its_own_objective(player, several, minimax):
    stage = make_stage_1(several, minimax=minimax, weight_class=0.7)
    assert_descends(stage, make_batch(several), player, lambda terms: terms[player])


@either_kind_of_labels
def test_g_minimises_l_c_minus_l_a(several):
    """In the minimax form: l_a of all images is D's mean, of which those of G are one half."""
    stage = make_stage_1(several, minimax=True, weight_class=0.0)
    batch = make_batch(several)
    assert_descends(stage, batch, "generator", lambda terms: -2 * terms["discriminator"])


@either_kind_of_labels
@pytest.mark.parametrize("real_fraction", [0.0, 0.5])
def test_the_cnn_descends_eq_8(several, real_fraction):
    """triplet + l_a + l_c, here with weights: from the real and from the synthetic images."""
    stage = make_stage_2(
        several, real_fraction=real_fraction, weight_adversary=0.7, weight_class=0.4
    )
    assert_descends(
        stage,
        make_batch(several),
        "hash",
        lambda terms: terms["triplet"] + 0.7 * terms["adversary"] + 0.4 * terms["class"],
    )


@either_form
@either_kind_of_labels
def test_the_generator_descends_eq_9(several, minimax):
    """triplet - l_a + l_c with minimax; otherwise -log P(real) stands in the place of -l_a."""
    stage = make_stage_2(several, minimax=minimax, weight_adversary=0.7, weight_class=0.4)

    def objective(terms):
        adversary = -terms["adversary"] if minimax else terms["fooling"]
        return terms["triplet"] + 0.7 * adversary + 0.4 * terms["class"]

    assert_descends(stage, make_batch(several), "generator", objective)


def flat(arrays):
    return np.concatenate([np.ravel(array) for array in arrays])


@pytest.mark.parametrize(
    ("options", "trained", "terms"),
    [
        ({}, {"hash_network", "source", "classes", "generator"}, {"adversary", "class"}),
        ({"classification": False}, {"hash_network", "source", "generator"}, {"adversary"}),
        ({"train_generator": False}, {"hash_network", "source", "classes"}, {"adversary", "class"}),
        ({"real_fraction": 1.0}, {"hash_network", "classes"}, {"class"}),
        ({"real_fraction": 1.0, "classification": False}, {"hash_network"}, set()),
    ],
    ids=["dsh_gan", "without_classes", "frozen_generator", "real", "triplets_alone"],
)
def test_each_variant_trains_its_networks_and_no_other(options, trained, terms):
    stage = make_stage_2(**options)
    parts = {
        "hash_network": stage.streams.hash_network,
        "source": stage.streams.source,
        "classes": stage.streams.classes,
    }
    if hasattr(stage, "generator"):
        parts["generator"] = stage.generator
    before = {name: flat(part.trainable_variables) for name, part in parts.items()}
    found = stage.gradients(make_batch())[1]
    assert {"adversary", "class"} & set(found) == terms
    stage.train_step(make_batch())
    moved = {
        name
        for name, part in parts.items()
        if (flat(part.trainable_variables) != before[name]).any()
    }
    assert moved == trained


def test_stage_1_gives_each_optimizer_one_network():
    stage = make_stage_1()
    variables = stage.variables_by_optimizer()
    assert list(variables) == ["discriminator", "generator"]  # D first: it counts the steps
    for name, of_optimizer in variables.items():
        network = getattr(stage, name)
        assert [id(v) for v in of_optimizer] == [id(v) for v in network.trainable_variables]


def test_without_classification_eq_8_and_9_lose_l_c_alone():
    batch = make_batch()
    stage = make_stage_2(classification=False, weight_adversary=0.7)
    for optimizer, adversary in (("hash", "adversary"), ("generator", "fooling")):
        assert_descends(
            stage, batch, optimizer, lambda terms, a=adversary: terms["triplet"] + 0.7 * terms[a]
        )


def test_real_triplets_alone_have_no_adversary():
    stage = make_stage_2(real_fraction=1.0, weight_class=0.4)
    batch = make_batch()
    gradients, _ = stage.gradients(batch)
    assert set(gradients) == {"hash"}
    assert_descends(stage, batch, "hash", lambda terms: terms["triplet"] + 0.4 * terms["class"])


def test_g_learns_through_synthetic_images_alone():
    """Where each of them is replaced by a real one G has no gradient, and the CNN still has."""
    stage, batch = make_stage_2(real_fraction=1 - 1e-7), make_batch()
    assert stage._replaced(batch["triplets"]).numpy().all()
    gradients, terms = stage.gradients(batch)
    assert all(not gradient.numpy().any() for gradient in gradients["generator"])
    assert all(gradient.numpy().any() for gradient in gradients["hash"])
    assert terms["fooling"] == 0


@pytest.mark.parametrize("train_generator", [True, False])
def test_a_generator_that_does_not_train_stays_as_it_is_to_the_last_statistic(train_generator):
    generator = make_generator(batch_norm=True)
    before = generator.get_weights()
    stage = make_stage_2(generator=generator, train_generator=train_generator)
    stage.train_step(make_batch())
    same = [(a == b).all() for a, b in zip(before, generator.get_weights(), strict=True)]
    assert not any(same) if train_generator else all(same)


@either_kind_of_labels
def test_an_unlabelled_image_has_no_say_in_classes(several):
    """D's class layer has the same gradient whatever the unlabelled images show; its source layer
    has not."""
    stage, batch = make_stage_1(several), make_batch(several)
    other = batch | {"unlabelled": batch["unlabelled"] + 1.0}
    variables = [id(v) for v in stage.discriminator.trainable_variables]
    first, second = (stage.gradients(b)[0]["discriminator"] for b in (batch, other))
    for head in ("classes", "source"):
        index = variables.index(id(getattr(stage.discriminator, head).kernel))
        difference = np.abs(first[index] - second[index]).max()
        assert difference == 0 if head == "classes" else difference > 1e-3


def small_step(stage, batch, optimizer, rate=0.05):
    """One step of plain gradient descent of one player alone."""
    gradients, _ = stage.gradients(batch)
    of_optimizer = stage.variables_by_optimizer()[optimizer]
    for variable, gradient in zip(of_optimizer, gradients[optimizer], strict=True):
        variable.assign(variable - rate * gradient)


def mean_source_of_stage_1(stage, batch):
    labels = tf.pad(batch["labels"], [[0, 0], [0, UNLABELLED], [0, 0]])
    made_of = tf.reshape(tf.concat([labels, batch["noise"]], -1), (-1, CLASSES + NOISE))
    source, _ = stage.discriminator(tf.tanh(stage.generator(made_of)))
    return float(tf.reduce_mean(source))


@either_form
def test_in_stage_1_g_makes_d_take_its_images_for_real_and_d_does_not_let_it(minimax):
    batch = make_batch()
    for player, sign in (("generator", 1), ("discriminator", -1)):
        stage = make_stage_1(minimax=minimax, weight_class=0.0)
        before = mean_source_of_stage_1(stage, batch)
        small_step(stage, batch, player)
        assert sign * (mean_source_of_stage_1(stage, batch) - before) > 1e-3, player


def mean_source_of_stage_2(stage, batch):
    noise = batch["noise"][:, :LABELLED]
    made_of = tf.reshape(tf.concat([batch["labels"], noise], -1), (-1, CLASSES + NOISE))
    synthetic = for_h(tf.tanh(stage.generator(made_of)))
    return float(tf.reduce_mean(stage.streams(synthetic)[1]))


@either_form
def test_in_stage_2_g_makes_the_cnn_take_its_images_for_real_and_the_cnn_does_not_let_it(minimax):
    """What l_a adds to a step: that with a weight of 100 for it, where the others hardly count."""
    batch = make_batch()
    for player, sign in (("generator", 1), ("hash", -1)):
        stage = make_stage_2(minimax=minimax, weight_class=0.0, weight_adversary=100.0)
        before = mean_source_of_stage_2(stage, batch)
        small_step(stage, batch, player, rate=5e-4)
        assert sign * (mean_source_of_stage_2(stage, batch) - before) > 1e-3, player


def test_x_plus_is_made_of_the_noise_of_x_and_x_minus_of_that_of_the_other_image():
    """So each labelled image has one synthetic twin a step: other noise for image 4, which is a
    positive alone, moves no term; for image 2, a negative alone, it does."""
    plain = make_stage_2().gradients(make_batch())[1]
    for image, moves in ((4, False), (2, True)):
        batch = make_batch()
        bump = np.zeros(batch["noise"].shape, np.float32)
        bump[:, image] = 1.0
        terms = make_stage_2().gradients(batch | {"noise": batch["noise"] + bump})[1]
        assert (abs(float(terms["adversary"] - plain["adversary"])) > 1e-4) == moves, image


def with_weak_views(batch):
    rng = np.random.default_rng(1)
    shape = batch["unlabelled"].shape
    return batch | {"other_unlabelled": tf.constant(rng.normal(size=shape), tf.float32)}


def test_the_class_stream_learns_of_unlabelled_images_by_loops():
    """-log of the probability of the class that the weak view has; as many as are sure of one."""
    batch = with_weak_views(make_batch())
    stage = make_stage_2(unlabelled_confidence=0.6, weight_unlabelled=0.5)
    expected, sure = [], 0
    for group in range(GROUPS):
        pairs = (batch[name][group] for name in ("unlabelled", "other_unlabelled"))
        for item, weak in zip(*pairs, strict=True):
            logits, of_weak = (stage.streams(x[None])[2][0].numpy() for x in (item, weak))
            chances = np.exp(of_weak) / np.exp(of_weak).sum()
            sure += chances.max() >= 0.6
            named = np.eye(CLASSES)[chances.argmax()]
            loss = loss_of_class(logits, named, False)
            expected.append(loss if chances.max() >= 0.6 else 0.0)
    assert 0 < sure < len(expected)
    terms = stage.gradients(batch)[1]
    np.testing.assert_allclose(terms["unlabelled"], np.mean(expected), rtol=1e-5)
    np.testing.assert_allclose(terms["unlabelled_kept"], sure / len(expected), rtol=1e-6)
    plain = make_stage_2().gradients(batch)[1]
    assert terms.keys() - plain.keys() == {"unlabelled", "unlabelled_kept"}
    hash_objective = stage.objectives(terms)["hash"] - make_stage_2().objectives(plain)["hash"]
    np.testing.assert_allclose(hash_objective, 0.5 * terms["unlabelled"], rtol=1e-4)


def test_only_the_cnn_hears_of_unlabelled_images():
    batch = with_weak_views(make_batch())
    of = [
        make_stage_2(unlabelled_confidence=0.6, weight_unlabelled=weight).gradients(batch)[0]
        for weight in (0.0, 1.0)
    ]
    for one, other in zip(*(gradients["generator"] for gradients in of), strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(
        np.abs(one - other).max() > 1e-5
        for one, other in zip(*(gradients["hash"] for gradients in of), strict=True)
    )


def test_no_unlabelled_images_are_no_loss():
    batch = with_weak_views(make_batch(unlabelled=0))
    terms = make_stage_2(unlabelled_confidence=0.6).gradients(batch)[1]
    assert (float(terms["unlabelled"]), float(terms["unlabelled_kept"])) == (0, 0)


def test_what_g_makes_of_a_trunk_is_seen_above_the_backbone():
    """G's items are as wide as the backbone answers, 5; so its codes are those of the layer."""
    stage, batch = make_stage_2(), make_batch()
    stage.space.made_features = True
    stage.space._to_hash = lambda synthetic: 2 * synthetic
    terms = stage.gradients(batch)[1]
    C_z = tf.concat([batch["labels"], batch["noise"][:, :LABELLED]], -1)
    made = tf.tanh(stage.generator(tf.reshape(C_z, (-1, CLASSES + NOISE))))
    network = stage.streams.hash_network
    of_made = tf.reshape(network.hash_layer(2 * made), (GROUPS, LABELLED, BITS))
    of_real = tf.reshape(network(tf.reshape(batch["images"], (-1, ITEM))), of_made.shape)
    hinges = [
        max(0, 1 - float(((r[q] - m[n]) ** 2).sum() - ((r[q] - m[q]) ** 2).sum()))
        for r, m in zip(of_real.numpy(), of_made.numpy(), strict=True)
        for q, _, n in TRIPLETS
    ]
    np.testing.assert_allclose(terms["triplet"], np.mean(hinges), rtol=1e-5)
    with tf.GradientTape() as tape:
        code = stage._of_synthetic(tf.reshape(made, (GROUPS, LABELLED, GAN_ITEM)))[0]
    assert all(g is None for g in tape.gradient(code, network.backbone.trainable_variables))
