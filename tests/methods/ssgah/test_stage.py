"""SSGAH's objectives: which network each loss reaches, and which it does not."""

import numpy as np
import pytest
import tensorflow as tf

from tests.methods.numeric import numeric_gradient
from tests.methods.ssgah.tiny_stage import (
    BITS,
    CONDITION,
    GAN_ITEM,
    NOISE,
    for_h,
    make_batch,
    make_stage,
)
from tfhash import losses
from tfhash.errors import UserError
from tfhash.methods.ssgah.config import RANKINGS, SSGAHConfig
from tfhash.methods.ssgah.stage import default_of


def as_vectors(gradients):
    return {
        name: np.concatenate([g.numpy().ravel() for g in of_variables])
        for name, of_variables in gradients.items()
    }


def test_each_variant_trains_the_networks_that_the_paper_names():
    """Section 4.6: the baseline trains H; w/ssr trains H with G and D fixed; the others all."""
    trained = {variant: set(make_stage(variant).gradients(make_batch())[0]) for variant in RANKINGS}
    everything = {"hash", "generator", "discriminator"}
    assert trained == {
        "baseline": {"hash"}, "w_ssr": {"hash"}, "w_ar": everything, "ssgah": everything
    }  # fmt: skip
    first = make_stage(rankings=(), train_gan=True).gradients(make_batch())[0]
    assert set(first) == {"generator", "discriminator"}


@pytest.mark.parametrize("variant", RANKINGS)
def test_every_trained_variable_has_a_gradient(variant):
    for name, of_variables in make_stage(variant).gradients(make_batch())[0].items():
        for gradient in of_variables:
            assert gradient is not None and np.abs(gradient).max() > 0, name


def test_terms_are_the_means_of_the_pure_functions():
    """The stage's terms, from the networks' outputs put together here one by one."""
    stage, batch = make_stage(weight_ssr=0.5), make_batch()
    terms = stage.gradients(batch)[1]
    x = tf.concat([batch["images"], batch["unlabelled"]], 1)
    mean, log_variance = stage.condition(x[..., :GAN_ITEM])
    c = mean + tf.exp(log_variance / 2) * batch["noise"][..., :CONDITION]
    c_and_z = tf.concat([c, batch["noise"][..., CONDITION:]], -1)
    positive, negative = stage.generator_p(c_and_z), stage.generator_n(c_and_z)
    h, h_p, h_n = map(stage.hash_network, (x, for_h(positive), for_h(negative)))
    sums = {"sr": 0.0, "with_p": 0.0, "with_n": 0.0, "ar": 0.0}
    for group in range(2):
        for q, p, n in batch["triplets"][group].numpy():
            code = h[group]
            sums["sr"] += losses.triplet_hinge(BITS / 4, code[q], code[p], code[n])
            sums["with_p"] += losses.triplet_hinge(BITS / 8, code[q], h_p[group, q], code[n])
            sums["with_n"] += losses.triplet_hinge(BITS / 8, code[q], code[p], h_n[group, q])
            sums["ar"] += losses.triplet_hinge(1.0, code[q], code[p], h_p[group, q])
    unlabelled = losses.triplet_hinge(BITS / 8, h[:, 5:], h_p[:, 5:], h_n[:, 5:])
    ssr = (sums["with_p"] + sums["with_n"]) / 6 + tf.reduce_mean(unlabelled)
    np.testing.assert_allclose(terms["sr"], sums["sr"] / 6, rtol=1e-5)
    np.testing.assert_allclose(terms["ssr"], ssr, rtol=1e-5)
    np.testing.assert_allclose(terms["ar"], sums["ar"] / 6, rtol=1e-5)
    kl = tf.reduce_mean(losses.kl_to_standard_normal(mean, log_variance))
    np.testing.assert_allclose(terms["kl"], kl, rtol=1e-5)
    assert terms["ssr_weight"] == 0.5


def test_discriminator_terms_take_the_triplets_in_both_orders():
    """D of (q, p, n) is 1, of (q, n, p) and of (x, G_p(x), G_n(x)) is 0 (Eq. 1)."""
    stage, batch = make_stage(label_smoothing=0.1), make_batch()
    terms = stage.gradients(batch)[1]
    images = batch["images"][..., :GAN_ITEM]
    q, p, n = (
        tf.reshape(losses.gather_triplets(images, batch["triplets"], role), (-1, GAN_ITEM))
        for role in range(3)
    )
    ordered, swapped = stage.discriminator.compare(q, p, n), stage.discriminator.compare(q, n, p)
    x = tf.concat([batch["images"], batch["unlabelled"]], 1)
    *synthetic, _ = stage._synthesise(x, batch["noise"])
    seen = (x[..., :GAN_ITEM], *synthetic)
    fake = stage.discriminator.compare(*(tf.reshape(s, (-1, GAN_ITEM)) for s in seen))
    expected = losses.discriminator_loss(ordered, swapped, fake, 0.1)
    np.testing.assert_allclose(terms["discriminator"], expected, rtol=1e-5)
    np.testing.assert_allclose(terms["generator"], losses.generator_loss(fake), rtol=1e-5)
    accuracy = np.mean(ordered.numpy() > swapped.numpy())
    np.testing.assert_allclose(terms["order_accuracy"], accuracy, rtol=1e-6)


# What stands before L_ssr in what G minimises.
SIGNS_OF_SSR = {"": 0.0, "ssr_updates_generator": -1.0, "cooperative_ssr": 1.0}


@pytest.mark.parametrize(
    ("reading", "ar_updates_generator"),
    [("", False), ("", True), ("ssr_updates_generator", True), ("cooperative_ssr", True)],
)
def test_generator_descends_its_own_objective(reading, ar_updates_generator):
    """G minimises -log D + KL - L_ar (Eq. 1, 6), in Eq. 9's reading also - L_ssr: by differences.

    Eq. 9: min over G of L_GD - L_sr - L_ssr - L_ar.
    """
    stage = make_stage(
        **({reading: True} if reading else {}),
        ar_updates_generator=ar_updates_generator,
        weight_ar=0.7,
        weight_kl=0.3,
        weight_ssr=0.5,
    )
    batch = make_batch()

    def objective(terms):
        total = terms["generator"] + 0.3 * terms["kl"]
        total -= 0.7 * terms["ar"] if ar_updates_generator else 0.0
        return total + SIGNS_OF_SSR[reading] * 0.5 * terms["ssr"]

    gradients, _ = stage.gradients(batch)
    variables = stage.variables_by_optimizer()["generator"]
    for index, variable in enumerate(variables):
        entry = (0,) * len(variable.shape)
        expected = numeric_gradient(stage, batch, objective, variable, entry)
        np.testing.assert_allclose(gradients["generator"][index][entry], expected, atol=2e-3)


def test_hash_network_descends_all_rankings():
    """H minimises L_sr + weight L_ssr + weight L_ar (Eq. 9), by differences."""
    stage = make_stage(weight_ar=0.7, weight_ssr=0.5)
    batch = make_batch()
    kernel = stage.hash_network.kernel
    gradients, _ = stage.gradients(batch)
    expected = numeric_gradient(
        stage, batch, lambda t: t["sr"] + 0.5 * t["ssr"] + 0.7 * t["ar"], kernel, (0, 0)
    )
    np.testing.assert_allclose(gradients["hash"][0][0, 0], expected, atol=2e-3)


def test_discriminator_hears_of_no_ranking():
    """D's gradient is that of stage 1, whatever H and the rankings are."""
    batch = make_batch()
    first = as_vectors(make_stage(rankings=(), train_gan=True).gradients(batch)[0])
    second = as_vectors(make_stage().gradients(batch)[0])
    np.testing.assert_allclose(first["discriminator"], second["discriminator"], rtol=1e-5)


@pytest.mark.parametrize("reading", ["ssr_updates_generator", "cooperative_ssr"])
def test_generator_hears_of_l_ssr_only_where_a_flag_says_so(reading):
    """Eq. 5: min over H alone. Scaling L_ssr then leaves G's gradient as it is."""
    batch = make_batch()

    def generator(weight_ssr, **options):
        stage = make_stage(weight_ssr=weight_ssr, **options)
        return as_vectors(stage.gradients(batch)[0])["generator"]

    np.testing.assert_array_equal(generator(1.0), generator(5.0))
    readings = [generator(weight, **{reading: True}) for weight in (1.0, 5.0)]
    assert np.abs(readings[0] - readings[1]).max() > 1e-3


def test_without_a_condition_module_c_is_noise_alone():
    """Another x gives the same synthetic items, and the KL term is 0; G_p and G_n still learn."""
    stage, batch = make_stage(condition=False), make_batch()
    x = tf.concat([batch["images"], batch["unlabelled"]], axis=1)
    one, other = (stage._synthesise(items, batch["noise"]) for items in (x, x + 1))
    for item, same in zip(one, other, strict=True):
        np.testing.assert_array_equal(item, same)
    expected = stage.generator_p(tf.reshape(batch["noise"], [-1, CONDITION + NOISE]))
    np.testing.assert_allclose(tf.reshape(one[0], expected.shape), expected, rtol=1e-6)
    assert float(one[2]) == 0
    with_module = make_stage()
    first, second = (with_module._synthesise(items, batch["noise"])[0] for items in (x, x + 1))
    assert np.abs(first - second).max() > 1e-3
    gradients, _ = stage.gradients(batch)
    assert len(gradients["generator"]) == 2 * len(stage.generator_p.trainable_variables)
    assert all(np.abs(gradient).max() > 0 for gradient in gradients["generator"])


def test_stage_2_leaves_a_frozen_gan_as_it_is():
    stage = make_stage("w_ssr")
    before = [v.numpy() for v in stage.generator_p.variables + stage.condition.variables]
    stage.train_step(make_batch())
    after = [v.numpy() for v in stage.generator_p.variables + stage.condition.variables]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_g_and_d_see_the_other_view_and_h_the_first():
    """With other_images = images nothing changes; with others L_sr stays and the GAN terms move."""
    batch = make_batch()
    plain = make_stage().gradients(batch)[1]
    same = batch | {"other_images": batch["images"], "other_unlabelled": batch["unlabelled"]}
    other = same | {"other_images": batch["images"] + 1.0}
    for term, value in make_stage().gradients(same)[1].items():
        np.testing.assert_allclose(value, plain[term], rtol=1e-5, err_msg=term)
    moved = make_stage().gradients(other)[1]
    np.testing.assert_allclose(moved["sr"], plain["sr"], rtol=1e-6)
    for term in ("discriminator", "generator", "kl", "ssr", "ar"):
        assert abs(float(moved[term]) - float(plain[term])) > 1e-6, term


def test_margins_are_parts_of_the_code_length_where_none_is_given():
    """code_length / 4 and code_length / 8 for 4 bits."""
    stage = make_stage()
    assert (stage.margin_sr, stage.margin_ssr) == (1.0, 0.5)


def test_a_margin_of_0_is_a_margin():
    """Not the default: each hinge is then max(0, d(q, p) - d(q, n)), which many triplets meet."""
    assert [default_of(margin, 3.0) for margin in (None, 0.0, 0.5)] == [3.0, 0.0, 0.5]
    stage, batch = make_stage(margin_sr=0.0, margin_ssr=0.0, margin_ar=0.0), make_batch()
    assert (stage.margin_sr, stage.margin_ssr) == (0.0, 0.0)
    codes = stage.hash_network(batch["images"]).numpy()
    hinges = []
    for group in range(2):
        for q, p, n in batch["triplets"][group].numpy():
            query, positive, negative = codes[group][[q, p, n]]
            gap = ((query - negative) ** 2).sum() - ((query - positive) ** 2).sum()
            hinges.append(max(0.0, -gap))
    terms = stage.gradients(batch)[1]
    np.testing.assert_allclose(terms["sr"], np.mean(hinges), rtol=1e-5)
    assert 0 < np.mean(np.array(hinges) > 0) < 1
    np.testing.assert_allclose(terms["sr_active"], np.mean(np.array(hinges) > 0), rtol=1e-6)


@pytest.mark.parametrize("field", ["margin_sr", "margin_ssr", "margin_ar"])
def test_a_negative_margin_is_refused(field):
    with pytest.raises(UserError, match=f"`{field}`: -0.5; allowed: at least 0$"):
        SSGAHConfig(**{field: -0.5})
    SSGAHConfig(**{field: 0.0})
