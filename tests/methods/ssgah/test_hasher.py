"""SSGAH as a Hasher: its stages, what it keeps, and what it refuses."""

from __future__ import annotations

import dataclasses
import json

import keras
import numpy as np
import pytest

from tests.methods.ssgah.tiny_hasher import CONFIG, SETTINGS, Learned, make
from tfhash import methods
from tfhash.data import splits
from tfhash.data.learning import LearningData
from tfhash.errors import UserError
from tfhash.methods.ssgah import SSGAH, SSGAHConfig
from tfhash.methods.ssgah.stage import GAN_TERMS, RANKING_TERMS
from tfhash.networks import backbones
from tfhash.training.run import Run

pytestmark = pytest.mark.usefixtures("eagerly")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A weights file for small_cnn, with which features can be made."""
    keras.utils.set_random_seed(3)
    trunk = backbones.build("small_cnn").get_layer("small_cnn")
    path = tmp_path_factory.mktemp("weights") / "small.npz"
    np.savez(
        path,
        **{
            f"{layer.name}/{weight.name}": keras.ops.convert_to_numpy(weight)
            for layer in trunk.layers
            for weight in layer.weights
        },
    )
    return str(path)


def test_it_is_the_method_of_its_module():
    assert methods.get("ssgah") is SSGAH


@pytest.fixture(scope="module")
def learned(few_digits, tmp_path_factory) -> Learned:
    folder = tmp_path_factory.mktemp("learned")
    hasher = make(dataclasses.replace(CONFIG, stage1_dir=str(folder / "stage1")))
    facts = hasher.learn(*few_digits, Run(folder / "run"))
    return Learned(hasher, facts, folder / "stage1")


def test_it_learns_encodes_saves_and_loads(few_digits, learned, tmp_path):
    image_set, _ = few_digits
    hasher, facts, *_ = learned
    assert json.loads(json.dumps(facts)) == facts
    gauges = facts["stage1_gauges"]
    assert set(gauges) == {"gauge/order", "gauge/class_p", "gauge/class_n"}
    codes = hasher.encode(image_set.images[:50])
    assert codes.shape == (50, 2) and codes.dtype == np.uint8
    assert not (codes[:, 1] & 0b1111).any()  # 12 bits fill one byte and a half
    hasher.save_weights(tmp_path / "kept")
    other = make(seed=9)
    with pytest.raises(UserError, match="SSGAH has not learned yet"):
        other.encode(image_set.images[:50])
    before = other._embed(image_set.images[:50])
    assert np.abs(before - hasher.embed(image_set.images[:50])).max() > 1e-3
    other.load_weights(tmp_path / "kept")
    np.testing.assert_array_equal(other.encode(image_set.images[:50]), codes)


def test_loading_where_nothing_was_saved_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match="`model_dir`"):
        make().load_weights(tmp_path)


def test_the_encoder_and_embed_agree_in_feature_space(few_digits, weights, tmp_path):
    """embed takes cached features, the encoder computes them from the images."""
    image_set, parts = few_digits
    settings = dataclasses.replace(
        SETTINGS, weights=weights, flip=True, cache_dir=str(tmp_path / "cache")
    )
    config = dataclasses.replace(CONFIG, space="features", hidden_units=8)
    hasher = make(config, settings)
    hasher.learn(image_set, parts, Run(tmp_path))
    images = image_set.images[:20]
    direct = hasher.encoder.predict(images.astype(np.float32), verbose=0)
    np.testing.assert_allclose(hasher.embed(images), direct, atol=1e-5)
    assert hasher.draw(image_set, parts, tmp_path)[0].is_file()


def test_statistics_of_features_leave_the_queries_out(few_digits, weights, tmp_path):
    image_set, parts = few_digits
    settings = dataclasses.replace(SETTINGS, weights=weights, cache_dir=str(tmp_path))
    hasher = make(dataclasses.replace(CONFIG, space="features", variant="baseline"), settings)
    hasher.learn(image_set, parts, Run(tmp_path / "run"))
    raw = hasher.space.backbone.predict(image_set.images.astype(np.float32), verbose=0)
    learned = np.setdiff1d(np.arange(len(raw)), parts.query)
    mean = keras.ops.convert_to_numpy(hasher.space.standardise.mean)
    np.testing.assert_allclose(mean, raw[learned].mean(axis=0), atol=1e-4)
    assert np.abs(mean - raw.mean(axis=0)).max() > 1e-4


def test_stage_1_is_reused_over_bits_and_seeds(few_digits, learned, tmp_path):
    image_set, parts = few_digits
    config = dataclasses.replace(CONFIG, stage1_dir=str(learned.stage1), variant="w_ssr")
    kept = learned.stage1 / "gan-00000002.weights.h5"
    written = kept.stat().st_mtime_ns
    one, other = make(config, bits=24, seed=5), make(config, seed=6)
    for name, hasher in (("a", one), ("b", other)):
        hasher.learn(image_set, parts, Run(tmp_path / name))
    assert kept.stat().st_mtime_ns == written
    generators = (hasher.networks["generator_p"].get_weights() for hasher in (one, other))
    for weights, same in zip(*generators, strict=True):
        np.testing.assert_array_equal(weights, same)


def test_stage_1_of_another_split_or_network_is_refused(few_digits, learned, tmp_path):
    image_set, parts = few_digits
    config = dataclasses.replace(CONFIG, stage1_dir=str(learned.stage1))
    other = splits.make(image_set, seed=1, queries_per_class=5, labelled_per_class=10)
    with pytest.raises(UserError, match="`split_fingerprint`: "):
        make(config).learn(image_set, other, Run(tmp_path / "b"))
    with pytest.raises(UserError, match="`gan_width`: 8, but .* was made with 4;"):
        make(dataclasses.replace(config, gan_width=8)).learn(image_set, parts, Run(tmp_path / "c"))


def test_the_gate_scales_l_ssr_by_the_gauges(few_digits, tmp_path):
    """weight = weight_ssr * max(0, class_p - class_n), as metrics.json reports it."""
    image_set, parts = few_digits
    config = dataclasses.replace(CONFIG, gate=True, variant="w_ssr", weight_ssr=2.0)
    facts = make(config).learn(image_set, parts, Run(tmp_path))
    gauges = facts["stage1_gauges"]
    assert facts["gate"] == max(gauges["gauge/class_p"] - gauges["gauge/class_n"], 0.0)


def test_the_baseline_has_no_gan_and_the_same_labelled_batches(few_digits, tmp_path):
    image_set, parts = few_digits
    baseline = make(dataclasses.replace(CONFIG, variant="baseline"))
    facts = baseline.learn(image_set, parts, Run(tmp_path))
    assert set(baseline.networks) == {"hash_network"} and "stage1_gauges" not in facts
    assert baseline.variant == "baseline" and make().variant is None
    assert baseline.draw(image_set, parts, tmp_path) == []


def test_without_a_condition_module_both_stages_learn(few_digits, tmp_path):
    image_set, parts = few_digits
    hasher = make(dataclasses.replace(CONFIG, condition=False))
    hasher.learn(image_set, parts, Run(tmp_path))
    assert "condition" not in hasher.networks and hasher.history["gan"]["kl"] == [0.0]
    one, other = (hasher.synthesise(x)[0] for x in (image_set.images[:3], image_set.images[3:6]))
    np.testing.assert_array_equal(one, other)
    assert hasher.draw(image_set, parts, tmp_path)[0].is_file()


def test_no_unlabelled_images_are_allowed(few_digits, tmp_path):
    """What labelled images there are then feed G, D and L_ssr."""
    image_set, parts = few_digits
    alone = dataclasses.replace(parts, unlabelled=parts.unlabelled[:0])
    facts = make().learn(image_set, alone, Run(tmp_path))
    assert set(facts["stage1_gauges"]) == {"gauge/order"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("variant", "x"), ("space", "x"), ("discriminator", "x"), ("hash_optimizer", "x")],
)
def test_unknown_choices_name_the_setting(field, value):
    with pytest.raises(UserError, match=f"`{field}`: 'x'; allowed: "):
        SSGAHConfig(**{field: value})


def test_g_cannot_both_maximise_and_minimise_l_ssr():
    with pytest.raises(UserError, match="`cooperative_ssr`: not with `ssr_updates_generator`"):
        SSGAHConfig(cooperative_ssr=True, ssr_updates_generator=True)


def test_code_length_0_is_refused():
    with pytest.raises(UserError, match="`code_length`: 0"):
        make(bits=0)


@pytest.mark.parametrize("gan_size", [16, pytest.param(32, marks=pytest.mark.long)])
def test_images_of_g_may_be_smaller_or_larger_than_those_of_h(gan_size, check_both_stages):
    """Every term and every switch at once, with images of 24 px and unlabelled ones among them."""
    config = dataclasses.replace(
        CONFIG,
        gan_size=gan_size,
        residual=True,
        other_view=True,
        discriminator="siamese",
        unlabelled_negatives="exchanged",
        exchanges=2,
        ssr_confidence=-1e3,
        ssr_updates_generator=True,
        weight_ar_generator=0.5,
        hidden_units=4,
        dropout=0.2,
        discriminator_dropout=0.2,
    )
    settings = dataclasses.replace(SETTINGS, flip=True, groups=2)
    rankings = {term for terms in RANKING_TERMS.values() for term in terms}
    terms = {"gan": set(GAN_TERMS), "hash": set(GAN_TERMS) | rankings | {"validation_map"}}
    hasher = make(config, settings, image_size=24)
    check_both_stages(hasher, terms)
    assert hasher.history["hash"]["ssr_kept"] == [1.0]


@pytest.mark.parametrize("name", ["images", "unlabelled"])
def test_what_h_sees_is_strong_where_a_flag_says_so_and_what_the_gan_sees_never(name, few_digits):
    """A square of .375 of the side is grey in a strong view."""
    image_set, parts = few_digits
    options = {"view" if name == "images" else "unlabelled_view": "strong"}
    data = LearningData(image_set.images[:, None], image_set.labels, parts)
    hasher = make(settings=dataclasses.replace(SETTINGS, strength=0.0, **options))

    def grey(stage: int, key: str) -> float:
        batch = hasher.make_batches(data, stage)(0)
        return float((batch[key] == 128).all(axis=-1).mean())

    other = {"images": "unlabelled", "unlabelled": "images"}[name]
    assert grey(1, name) > 0.1 > max(grey(1, other), grey(1, f"other_{name}"))
    assert max(grey(0, name), grey(0, other)) < 0.1


REAL = {"unlabelled_positives": "real", "ssr_confidence": 0.0}
EXCHANGED = {"unlabelled_negatives": "exchanged", "ssr_confidence": 0.0}


def check(options, image_set, parts, **settings):
    """What `learn` asks first."""
    hasher = make(dataclasses.replace(CONFIG, **options), dataclasses.replace(SETTINGS, **settings))
    hasher._check(image_set.labels[parts.labelled], parts)


@pytest.mark.parametrize("of_split", [True, False])
def test_the_control_needs_unlabelled_images(of_split, few_digits, tmp_path):
    """In the split, and in its batches."""
    image_set, parts = few_digits
    settings = SETTINGS if of_split else dataclasses.replace(SETTINGS, unlabelled_batch_size=0)
    if of_split:
        parts = dataclasses.replace(parts, unlabelled=parts.unlabelled[:0])
    hasher = make(dataclasses.replace(CONFIG, **REAL), settings)
    with pytest.raises(UserError, match="`unlabelled_positives`: real needs unlabelled images"):
        hasher.learn(image_set, parts, Run(tmp_path))
    baseline = make(dataclasses.replace(CONFIG, variant="baseline", **REAL), settings)
    baseline.learn(image_set, parts, Run(tmp_path / "baseline"))  # it has no L_ssr


def test_exchanged_negatives_need_another_image_in_the_group(few_digits):
    with pytest.raises(UserError, match="`unlabelled_negatives`: exchanged needs two .* each gr"):
        check(EXCHANGED, *few_digits, unlabelled_batch_size=4, groups=4)
    check(EXCHANGED, *few_digits, unlabelled_batch_size=8, groups=4)
    check(EXCHANGED, *few_digits, unlabelled_batch_size=0)


@pytest.mark.parametrize("labels", ["several", "none", "one_class"])
def test_the_gate_needs_classes(labels, few_digits):
    """Told before G and D learn, not after."""
    image_set, parts = few_digits
    given = image_set.labels.copy()
    if labels == "one_class":
        given[:] = np.eye(10, dtype=given.dtype)[3]
    else:
        given[parts.labelled[0]] = labels == "several"
    with pytest.raises(UserError, match="`gate`: asks whether G keeps the class"):
        check({"gate": True}, dataclasses.replace(image_set, labels=given), parts)
    check({"gate": True}, image_set, parts)


def test_the_gate_needs_unlabelled_images(few_digits):
    image_set, parts = few_digits
    parts = dataclasses.replace(parts, unlabelled=parts.unlabelled[:0])
    with pytest.raises(UserError, match="`gate`: needs unlabelled images"):
        check({"gate": True}, image_set, parts)
