"""SSGAH as a Hasher: its stages, what it keeps, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

from tests.methods.ssgah.tiny_hasher import CONFIG, SETTINGS, make
from tfhash import methods
from tfhash.data import sources, splits
from tfhash.data.learning import LearningData
from tfhash.errors import UserError
from tfhash.hashers.deep import Pace
from tfhash.methods.ssgah import SSGAH, SSGAHConfig
from tfhash.methods.ssgah.stage import GAN_TERMS, RANKING_TERMS
from tfhash.networks import backbones
from tfhash.training.checkpoints import Checkpoints
from tfhash.training.run import Run

pytestmark = pytest.mark.usefixtures("eagerly")


@pytest.fixture(scope="module")
def digits():
    image_set = sources.load("digits")
    return image_set, splits.make(
        image_set, seed=0, queries_per_class=5, labelled_per_class=10, validation_fraction=0.2
    )


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


class Learned(NamedTuple):
    """One that has learned, what it said, and where it keeps its stages before the last."""

    hasher: SSGAH
    facts: dict[str, Any]
    stage1: Path
    stage0: Path | None = None


@pytest.fixture(scope="module")
def learned(digits, tmp_path_factory) -> Learned:
    folder = tmp_path_factory.mktemp("learned")
    hasher = make(dataclasses.replace(CONFIG, stage1_dir=str(folder / "stage1")))
    facts = hasher.learn(*digits, Run(folder / "run"))
    return Learned(hasher, facts, folder / "stage1")


def test_it_learns_encodes_saves_and_loads(digits, learned, tmp_path):
    image_set, _ = digits
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


def test_the_encoder_and_embed_agree_in_feature_space(digits, weights, tmp_path):
    """embed takes cached features, the encoder computes them from the images."""
    image_set, parts = digits
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


def test_statistics_of_features_leave_the_queries_out(digits, weights, tmp_path):
    image_set, parts = digits
    settings = dataclasses.replace(SETTINGS, weights=weights, cache_dir=str(tmp_path))
    hasher = make(dataclasses.replace(CONFIG, space="features", variant="baseline"), settings)
    hasher.learn(image_set, parts, Run(tmp_path / "run"))
    raw = hasher.space.backbone.predict(image_set.images.astype(np.float32), verbose=0)
    learned = np.setdiff1d(np.arange(len(raw)), parts.query)
    mean = keras.ops.convert_to_numpy(hasher.space.standardise.mean)
    np.testing.assert_allclose(mean, raw[learned].mean(axis=0), atol=1e-4)
    assert np.abs(mean - raw.mean(axis=0)).max() > 1e-4


def test_stage_1_is_reused_over_bits_and_seeds(digits, learned, tmp_path):
    image_set, parts = digits
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


def test_stage_1_of_another_split_or_network_is_refused(digits, learned, tmp_path):
    image_set, parts = digits
    config = dataclasses.replace(CONFIG, stage1_dir=str(learned.stage1))
    other = splits.make(image_set, seed=1, queries_per_class=5, labelled_per_class=10)
    with pytest.raises(UserError, match="`split_fingerprint`: "):
        make(config).learn(image_set, other, Run(tmp_path / "b"))
    with pytest.raises(UserError, match="`gan_width`: 8, but .* was made with 4;"):
        make(dataclasses.replace(config, gan_width=8)).learn(image_set, parts, Run(tmp_path / "c"))


def test_the_gate_scales_l_ssr_by_the_gauges(digits, tmp_path):
    """weight = weight_ssr * max(0, class_p - class_n), as metrics.json reports it."""
    image_set, parts = digits
    config = dataclasses.replace(CONFIG, gate=True, variant="w_ssr", weight_ssr=2.0)
    facts = make(config).learn(image_set, parts, Run(tmp_path))
    gauges = facts["stage1_gauges"]
    assert facts["gate"] == max(gauges["gauge/class_p"] - gauges["gauge/class_n"], 0.0)


def test_the_baseline_has_no_gan_and_the_same_labelled_batches(digits, tmp_path):
    image_set, parts = digits
    baseline = make(dataclasses.replace(CONFIG, variant="baseline"))
    facts = baseline.learn(image_set, parts, Run(tmp_path))
    assert set(baseline.networks) == {"hash_network"} and "stage1_gauges" not in facts
    assert baseline.variant == "baseline" and make().variant is None
    assert baseline.draw(image_set, parts, tmp_path) == []


def test_without_a_condition_module_both_stages_learn(digits, tmp_path):
    image_set, parts = digits
    hasher = make(dataclasses.replace(CONFIG, condition=False))
    hasher.learn(image_set, parts, Run(tmp_path))
    assert "condition" not in hasher.networks and hasher.history["gan"]["kl"] == [0.0]
    one, other = (hasher.synthesise(x)[0] for x in (image_set.images[:3], image_set.images[3:6]))
    np.testing.assert_array_equal(one, other)
    assert hasher.draw(image_set, parts, tmp_path)[0].is_file()


def test_no_unlabelled_images_are_allowed(digits, tmp_path):
    """What labelled images there are then feed G, D and L_ssr."""
    image_set, parts = digits
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


ON_TRUNK = dataclasses.replace(
    CONFIG, stage0_steps=2, gan_space="trunk", hash_optimizer="adamw", hash_learning_rate=1e-3
)


@pytest.fixture(scope="module")
def on_trunk(digits, tmp_path_factory) -> Learned:
    """SSGAH whose G and D work on features of what H learned alone."""
    folder = tmp_path_factory.mktemp("on_trunk")
    kept = {"stage0_dir": str(folder / "stage0"), "stage1_dir": str(folder / "stage1")}
    config = dataclasses.replace(ON_TRUNK, **kept)
    hasher = make(config, dataclasses.replace(SETTINGS, unlabelled_view="strong"))
    facts = hasher.learn(*digits, Run(folder / "run"))
    return Learned(hasher, facts, folder / "stage1", folder / "stage0")


class FirstWeights(keras.callbacks.Callback):
    """The weights of H at the start of each stage that is not finished yet."""

    def __init__(self):
        super().__init__()
        self.weights: list[list[np.ndarray]] = []

    def on_train_begin(self, logs=None):
        self.weights.append(self.model.hash_network.get_weights())


def test_a_kept_stage_0_is_what_h_alone_learns(digits, on_trunk, tmp_path):
    """The baseline goes on from the one that SSGAH left, as from its own; others are refused."""
    settings = dataclasses.replace(SETTINGS, unlabelled_view="strong")
    config = dataclasses.replace(ON_TRUNK, variant="baseline")
    kept = dataclasses.replace(config, stage0_dir=str(on_trunk.stage0))
    starts = []
    for name, of_run in (("own", config), ("kept", kept)):
        hasher, watch = make(of_run, settings), FirstWeights()
        hasher.callbacks = [watch]
        facts = hasher.learn(*digits, Run(tmp_path / name))
        assert set(facts) == {"stage0_seconds", "stage2_seconds"}
        starts.append(watch.weights)
    (first, own), (shared,) = starts
    assert any(np.abs(a - b).max() > 0 for a, b in zip(first, own, strict=True))
    for one, other in zip(own, shared, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(UserError, match="`dropout`: 0.5, but .* was made with 0.0"):
        other = make(dataclasses.replace(kept, dropout=0.5), settings)
        other.learn(*digits, Run(tmp_path / "other"))


@pytest.mark.parametrize(
    "options",
    [{"hash_learning_rate": 0.5, "stage0_learning_rate": 1e-3}, {"gan_width": 8}, {"exchanges": 2}],
    ids=str,
)
def test_a_kept_stage_0_serves_what_does_not_decide_about_it(options, digits, on_trunk, tmp_path):
    """Nor do strength and cut_out, where labelled images have weak views, or unlabelled ones."""
    settings = dataclasses.replace(SETTINGS, strength=0.1, cut_out=0.2, unlabelled_batch_size=4)
    config = dataclasses.replace(ON_TRUNK, variant="baseline", stage0_dir=str(on_trunk.stage0))
    hasher, watch = make(dataclasses.replace(config, **options), settings), FirstWeights()
    hasher.callbacks = [watch]
    hasher.learn(*digits, Run(tmp_path))
    assert len(watch.weights) == 1  # that of the last stage


def test_a_kept_stage_0_of_other_bits_leaves_all_but_its_hash_layer(digits, tmp_path):
    """24 bits after a stage 0 of 12: backbone and hidden layer as it left them, and G and D too."""
    kept = {"stage0_dir": str(tmp_path / "stage0"), "stage1_dir": str(tmp_path / "stage1")}
    config = dataclasses.replace(ON_TRUNK, hidden_units=5, **kept)
    settings = dataclasses.replace(SETTINGS, trunk_from=2)
    make(config, settings).learn(*digits, Run(tmp_path / "12"))
    other = make(dataclasses.replace(config, stage0_code_length=12), settings, bits=24)
    watch = FirstWeights()
    other.callbacks = [watch]
    facts = other.learn(*digits, Run(tmp_path / "24"))
    (weights,) = watch.weights
    alone = make(dataclasses.replace(config, variant="baseline"), settings)
    of_12 = FirstWeights()
    alone.callbacks = [of_12]
    alone.learn(*digits, Run(tmp_path / "baseline"))
    *below, kernel, bias = of_12.weights[0]
    for ours, theirs in zip(weights, below, strict=False):
        np.testing.assert_array_equal(ours, theirs)
    assert len(weights) == len(below) + 2 and weights[-2].shape == (5, 24)
    # Its hash layer is new, so the backbone waits for it once more.
    trunk = other.hash_network.backbone.get_weights()
    for ours, theirs in zip(trunk, weights, strict=False):
        np.testing.assert_array_equal(ours, theirs)
    assert {"stage0_seconds", "features_seconds"} <= set(facts) and other.code_length == 24


def test_the_seconds_of_the_features_are_told_also_where_they_are_kept(
    digits, on_trunk, tmp_path, monkeypatch
):
    """As those of a kept stage are: a run that finds them had not been possible without."""
    spent = on_trunk.facts["features_seconds"]
    assert spent > 0
    config = dataclasses.replace(ON_TRUNK, stage0_dir=str(on_trunk.stage0), variant="w_ssr")
    facts = make(config).learn(*digits, Run(tmp_path))
    assert facts["features_seconds"] == pytest.approx(spent)


def test_the_updates_of_stage_0_are_updates_of_h_too():
    assert make(ON_TRUNK).steps == 4 and make().steps == 2
    assert [make(c).stages() for c in (ON_TRUNK, CONFIG)] == [3, 2]
    baseline = dataclasses.replace(ON_TRUNK, variant="baseline")
    assert make(baseline).stages() == 2


@pytest.mark.parametrize("name", ["images", "unlabelled"])
def test_what_h_sees_is_strong_where_a_flag_says_so_and_what_the_gan_sees_never(name, digits):
    """A square of .375 of the side is grey in a strong view."""
    image_set, parts = digits
    options = {"view" if name == "images" else "unlabelled_view": "strong"}
    data = LearningData(image_set.images[:, None], image_set.labels, parts)
    hasher = make(settings=dataclasses.replace(SETTINGS, strength=0.0, **options))

    def grey(stage: int, key: str) -> float:
        batch = hasher.make_batches(data, stage)(0)
        return float((batch[key] == 128).all(axis=-1).mean())

    other = {"images": "unlabelled", "unlabelled": "images"}[name]
    assert grey(1, name) > 0.1 > max(grey(1, other), grey(1, f"other_{name}"))
    assert max(grey(0, name), grey(0, other)) < 0.1


def test_g_and_d_see_the_backbone_as_stage_0_left_it(digits, on_trunk):
    hasher, facts, _, kept = on_trunk
    assert {"stage0_seconds", "stage1_seconds", "stage2_seconds"} <= set(facts)
    assert set(hasher.history) == {"alone", "gan", "hash"}
    image_set, parts = digits
    before = make(ON_TRUNK)
    before.hash_network.set_weights(hasher.hash_network.get_weights())
    moved = before.space.look(image_set.images, splits.learnable(parts), None)
    assert np.abs(moved - hasher._gan_inputs).max() > 1e-3
    stage = before._stage({"hash_network": before.hash_network}, rankings=("sr",),
                          train_gan=False, weight_ssr=0.0)  # fmt: skip
    Checkpoints(kept, "alone").restore(before.compile(stage, Pace(2, 1e-3)))
    seen = before.space.look(image_set.images, splits.learnable(parts), None)
    np.testing.assert_allclose(seen, hasher._gan_inputs, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"space": "features", "stage0_steps": 2}, "`gan_space`: trunk, not with `space`=features"),
        ({}, "`gan_space`: trunk needs a trained backbone; allowed with `stage0_steps` above 0"),
    ],
)
def test_on_a_trunk_h_learns_first_and_from_images(options, line):
    with pytest.raises(UserError, match=line):
        SSGAHConfig(gan_space="trunk", **options)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"stage0_learning_rate": 0.1}, "`stage0_learning_rate`: there is no stage 0"),
        ({"stage0_code_length": 12}, "`stage0_code_length`: there is no stage 0"),
        (
            {
                "unlabelled_positives": "real",
                "unlabelled_negatives": "exchanged",
                "ssr_confidence": 1.0,
            },
            "`unlabelled_negatives`: exchanged, not with `unlabelled_positives`=real",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_would_do_nothing_is_refused(options, line):
    with pytest.raises(UserError, match=line):
        SSGAHConfig(**options)


def test_the_control_needs_unlabelled_images(digits, tmp_path):
    image_set, parts = digits
    parts = dataclasses.replace(parts, unlabelled=parts.unlabelled[:0])
    hasher = make(dataclasses.replace(CONFIG, unlabelled_positives="real", ssr_confidence=0.0))
    with pytest.raises(UserError, match="`unlabelled_positives`: needs unlabelled images"):
        hasher.learn(image_set, parts, Run(tmp_path))


def test_only_in_stage_0_the_backbone_waits(digits, tmp_path):
    """trunk_from=2: it is as it was after two steps alone, and moves in the first step after."""
    settings = dataclasses.replace(SETTINGS, trunk_from=2, steps=1, checkpoint_every=1)
    hasher = make(dataclasses.replace(ON_TRUNK, variant="baseline"), settings)
    first = hasher.hash_network.backbone.get_weights()
    watch = FirstWeights()
    hasher.callbacks = [watch]
    hasher.learn(*digits, Run(tmp_path))
    count = len(first)
    of_stages = [weights[:count] for weights in watch.weights]
    last = hasher.hash_network.backbone.get_weights()
    for weights in of_stages:
        assert all(np.array_equal(a, b) for a, b in zip(first, weights, strict=True))
    assert any(np.abs(a - b).max() > 0 for a, b in zip(first, last, strict=True))


class Interrupt(keras.callbacks.Callback):
    """Ends a run in the second step of a stage that begins, once its first one is kept."""

    begun = False

    def on_train_begin(self, logs=None):
        self.begun = self.model.steps_done() == 0

    def on_train_batch_begin(self, batch, logs=None):
        if self.begun and self.model.steps_done() == 1:
            raise KeyboardInterrupt


def test_interrupted_in_each_of_three_stages_it_ends_with_the_same_bits(digits, tmp_path):
    settings = dataclasses.replace(
        SETTINGS, checkpoint_every=1, unlabelled_view="strong", trunk_from=1, warmup_steps=1
    )
    whole = make(ON_TRUNK, settings)
    whole.learn(*digits, Run(tmp_path / "whole"))
    for stage in ("alone", "gan", "hash"):
        hasher = make(ON_TRUNK, settings)
        hasher.callbacks = [Interrupt()]
        with pytest.raises(KeyboardInterrupt):
            hasher.learn(*digits, Run(tmp_path / "parts"))
        assert (tmp_path / f"parts/checkpoints/{stage}-00000001.weights.h5").is_file()
    again = make(ON_TRUNK, settings)
    again.learn(*digits, Run(tmp_path / "parts"))
    assert set(again.history) == {"hash"}
    for one, other in zip(whole.encoder.get_weights(), again.encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
