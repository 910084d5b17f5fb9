"""SSGAH whose H learns alone first: what it keeps of that, and G and D on its trunk."""

from __future__ import annotations

import dataclasses

import h5py
import keras
import numpy as np
import pytest

from tests.methods.ssgah.tiny_hasher import CONFIG, SETTINGS, Learned, make
from tfhash.data import splits
from tfhash.errors import UserError
from tfhash.hashers.deep import Pace
from tfhash.methods.ssgah import SSGAHConfig
from tfhash.training.checkpoints import Checkpoints
from tfhash.training.run import Run

pytestmark = pytest.mark.usefixtures("eagerly")

ON_TRUNK = dataclasses.replace(
    CONFIG, stage0_steps=2, gan_space="trunk", hash_optimizer="adamw", hash_learning_rate=1e-3
)


@pytest.fixture(scope="module")
def on_trunk(few_digits, tmp_path_factory) -> Learned:
    """SSGAH whose G and D work on features of what H learned alone."""
    folder = tmp_path_factory.mktemp("on_trunk")
    kept = {"stage0_dir": str(folder / "stage0"), "stage1_dir": str(folder / "stage1")}
    config = dataclasses.replace(ON_TRUNK, **kept)
    hasher = make(config, dataclasses.replace(SETTINGS, unlabelled_view="strong"))
    facts = hasher.learn(*few_digits, Run(folder / "run"))
    return Learned(hasher, facts, folder / "stage1", folder / "stage0")


class FirstWeights(keras.callbacks.Callback):
    """The weights of H at the start of each stage that is not finished yet."""

    def __init__(self):
        super().__init__()
        self.weights: list[list[np.ndarray]] = []

    def on_train_begin(self, logs=None):
        self.weights.append(self.model.hash_network.get_weights())


def test_a_kept_stage_0_is_what_h_alone_learns(few_digits, on_trunk, tmp_path):
    """The baseline goes on from the one that SSGAH left, as from its own; others are refused."""
    settings = dataclasses.replace(SETTINGS, unlabelled_view="strong")
    config = dataclasses.replace(ON_TRUNK, variant="baseline")
    kept = dataclasses.replace(config, stage0_dir=str(on_trunk.stage0))
    starts = []
    for name, of_run in (("own", config), ("kept", kept)):
        hasher, watch = make(of_run, settings), FirstWeights()
        hasher.callbacks = [watch]
        facts = hasher.learn(*few_digits, Run(tmp_path / name))
        assert set(facts) == {"stage0_seconds", "stage2_seconds"}
        starts.append(watch.weights)
    (first, own), (shared,) = starts
    assert any(np.abs(a - b).max() > 0 for a, b in zip(first, own, strict=True))
    for one, other in zip(own, shared, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(UserError, match="`dropout`: 0.5, but .* was made with 0.0"):
        other = make(dataclasses.replace(kept, dropout=0.5), settings)
        other.learn(*few_digits, Run(tmp_path / "other"))


@pytest.mark.parametrize(
    "options",
    [{"hash_learning_rate": 0.5, "stage0_learning_rate": 1e-3}, {"gan_width": 8}, {"exchanges": 2}],
    ids=str,
)
def test_a_kept_stage_0_serves_what_does_not_decide_about_it(
    options, few_digits, on_trunk, tmp_path
):
    """Nor do strength and cut_out, where labelled images have weak views, or unlabelled ones."""
    settings = dataclasses.replace(SETTINGS, strength=0.1, cut_out=0.2, unlabelled_batch_size=4)
    config = dataclasses.replace(ON_TRUNK, variant="baseline", stage0_dir=str(on_trunk.stage0))
    hasher, watch = make(dataclasses.replace(config, **options), settings), FirstWeights()
    hasher.callbacks = [watch]
    hasher.learn(*few_digits, Run(tmp_path))
    assert len(watch.weights) == 1  # that of the last stage


def test_a_kept_stage_0_of_other_bits_leaves_all_but_its_hash_layer(few_digits, tmp_path):
    """24 bits after a stage 0 of 12: backbone and hidden layer as it left them, and G and D too."""
    kept = {"stage0_dir": str(tmp_path / "stage0"), "stage1_dir": str(tmp_path / "stage1")}
    config = dataclasses.replace(ON_TRUNK, hidden_units=5, **kept)
    settings = dataclasses.replace(SETTINGS, trunk_from=2)
    make(config, settings).learn(*few_digits, Run(tmp_path / "12"))
    other = make(dataclasses.replace(config, stage0_code_length=12), settings, bits=24)
    watch = FirstWeights()
    other.callbacks = [watch]
    facts = other.learn(*few_digits, Run(tmp_path / "24"))
    (weights,) = watch.weights
    alone = make(dataclasses.replace(config, variant="baseline"), settings)
    of_12 = FirstWeights()
    alone.callbacks = [of_12]
    alone.learn(*few_digits, Run(tmp_path / "baseline"))
    *below, kernel, bias = of_12.weights[0]
    for ours, theirs in zip(weights, below, strict=False):
        np.testing.assert_array_equal(ours, theirs)
    assert len(weights) == len(below) + 2 and weights[-2].shape == (5, 24)
    # Its hash layer is new, so the backbone waits for it once more.
    trunk = other.hash_network.backbone.get_weights()
    for ours, theirs in zip(trunk, weights, strict=False):
        np.testing.assert_array_equal(ours, theirs)
    assert {"stage0_seconds", "features_seconds"} <= set(facts) and other.code_length == 24


def test_stage_0_of_other_bits_is_that_of_a_run_of_these_bits(few_digits, tmp_path):
    """Bit for bit, its first hash layer and the centring of it too; so either may be kept.

    What validation sees is the network that learns.
    """
    options = {"hidden_units": 5, "centred_start": True, "variant": "baseline"}
    settings = dataclasses.replace(SETTINGS, trunk_from=2)
    states, logged = [], []
    for bits in (12, 24):
        kept = tmp_path / str(bits)
        config = dataclasses.replace(
            ON_TRUNK, stage0_code_length=12, stage0_dir=str(kept), **options
        )
        hasher = make(config, settings, bits=bits)
        hasher.learn(*few_digits, Run(tmp_path / f"run_{bits}"))
        logged.append(hasher.history["alone"]["validation_map"])
        with h5py.File(Checkpoints(kept, "alone").path(2)) as file:
            states.append({name: file[name][()] for name in names_of_arrays(file)})
    assert logged[0] == logged[1]
    one, other = states
    assert one.keys() == other.keys() and any("hash_layer" in name for name in one)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)
    kept = tmp_path / "12"  # made by the run of 12 bits, it serves that of 24
    config = dataclasses.replace(ON_TRUNK, stage0_code_length=12, stage0_dir=str(kept), **options)
    again = make(config, settings, bits=24)
    again.learn(*few_digits, Run(tmp_path / "again"))
    assert "alone" not in again.history


def names_of_arrays(file) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, node: names.append(name) if hasattr(node, "shape") else None)
    return names


def test_the_seconds_of_the_features_are_told_also_where_they_are_kept(
    few_digits, on_trunk, tmp_path, monkeypatch
):
    """As those of a kept stage are: a run that finds them had not been possible without."""
    spent = on_trunk.facts["features_seconds"]
    assert spent > 0
    config = dataclasses.replace(ON_TRUNK, stage0_dir=str(on_trunk.stage0), variant="w_ssr")
    facts = make(config).learn(*few_digits, Run(tmp_path))
    assert facts["features_seconds"] == pytest.approx(spent)


def test_the_updates_of_stage_0_are_updates_of_h_too():
    assert make(ON_TRUNK).steps == 4 and make().steps == 2
    assert [make(c).stages() for c in (ON_TRUNK, CONFIG)] == [3, 2]
    baseline = dataclasses.replace(ON_TRUNK, variant="baseline")
    assert make(baseline).stages() == 2


def test_g_and_d_see_the_backbone_as_stage_0_left_it(few_digits, on_trunk):
    hasher, facts, _, kept = on_trunk
    assert {"stage0_seconds", "stage1_seconds", "stage2_seconds"} <= set(facts)
    assert set(hasher.history) == {"alone", "gan", "hash"}
    image_set, parts = few_digits
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
        (
            {"weight_ar_generator": 0.5, "ar_updates_generator": False},
            "`weight_ar_generator`: not without `ar_updates_generator`",
        ),
        (
            {"cooperative_ssr": True, "unlabelled_positives": "real", "ssr_confidence": 1.0},
            "`cooperative_ssr`: not with `unlabelled_positives`=real",
        ),
        (
            {"ssr_updates_generator": True, "unlabelled_positives": "real", "ssr_confidence": 1.0},
            "`ssr_updates_generator`: not with `unlabelled_positives`=real",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_would_do_nothing_is_refused(options, line):
    with pytest.raises(UserError, match=line):
        SSGAHConfig(**options)


def test_only_in_stage_0_the_backbone_waits(few_digits, tmp_path):
    """trunk_from=2: it is as it was after two steps alone, and moves in the first step after."""
    settings = dataclasses.replace(SETTINGS, trunk_from=2, steps=1, checkpoint_every=1)
    hasher = make(dataclasses.replace(ON_TRUNK, variant="baseline"), settings)
    first = hasher.hash_network.backbone.get_weights()
    watch = FirstWeights()
    hasher.callbacks = [watch]
    hasher.learn(*few_digits, Run(tmp_path))
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


def test_interrupted_in_each_of_three_stages_it_ends_with_the_same_bits(few_digits, tmp_path):
    settings = dataclasses.replace(
        SETTINGS, checkpoint_every=1, unlabelled_view="strong", trunk_from=1, warmup_steps=1
    )
    whole = make(ON_TRUNK, settings)
    whole.learn(*few_digits, Run(tmp_path / "whole"))
    for stage in ("alone", "gan", "hash"):
        hasher = make(ON_TRUNK, settings)
        hasher.callbacks = [Interrupt()]
        with pytest.raises(KeyboardInterrupt):
            hasher.learn(*few_digits, Run(tmp_path / "parts"))
        assert (tmp_path / f"parts/checkpoints/{stage}-00000001.weights.h5").is_file()
    again = make(ON_TRUNK, settings)
    again.learn(*few_digits, Run(tmp_path / "parts"))
    assert set(again.history) == {"hash"}
    for one, other in zip(whole.encoder.get_weights(), again.encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
