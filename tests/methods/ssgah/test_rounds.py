"""SSGAH in rounds: G and D learn anew on what H has become, and H goes on."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from tests.methods.ssgah.test_stage_0 import ON_TRUNK, Interrupt
from tests.methods.ssgah.tiny_hasher import SETTINGS, make
from tfhash.data import splits
from tfhash.errors import UserError
from tfhash.hashers.deep import Pace
from tfhash.methods.ssgah import SSGAHConfig
from tfhash.training.checkpoints import Checkpoints
from tfhash.training.run import Run

pytestmark = pytest.mark.usefixtures("eagerly")

TWICE = dataclasses.replace(ON_TRUNK, rounds=2)
STRONG = dataclasses.replace(
    SETTINGS, unlabelled_view="strong", trunk_from=1, warmup_steps=1, checkpoint_every=1
)


class Starts(keras.callbacks.Callback):
    """The weights that each network has when a stage begins, by name, and when it ends."""

    def __init__(self):
        super().__init__()
        self.begin: list[dict[str, list[np.ndarray]]] = []
        self.end: list[dict[str, list[np.ndarray]]] = []

    def _weights(self):
        parts = ("hash_network", "generator_p", "generator_n", "discriminator", "condition")
        there = {name: getattr(self.model, name, None) for name in parts}
        return {name: part.get_weights() for name, part in there.items() if part is not None}

    def on_train_begin(self, logs=None):
        self.begin.append(self._weights())

    def on_train_end(self, logs=None):
        self.end.append(self._weights())


class LaterInterrupt(Interrupt):
    """That, but not in the first stages that begin, of which there are `skip`."""

    def __init__(self, skip: int):
        super().__init__()
        self.skip = skip

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        if self.begun and self.skip:
            self.begun, self.skip = False, self.skip - 1


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def learned(few_digits, tmp_path_factory):
    """The hasher of two rounds, its facts, what its stages began with, and its folder."""
    folder = tmp_path_factory.mktemp("rounds")
    kept = {"stage0_dir": str(folder / "stage0"), "stage1_dir": str(folder / "stage1")}
    hasher, starts = make(dataclasses.replace(TWICE, **kept), STRONG), Starts()
    hasher.callbacks = [starts]
    facts = hasher.learn(*few_digits, Run(folder / "run"))
    return hasher, facts, starts, folder


def test_h_goes_on_and_g_and_d_begin_anew(learned):
    hasher, facts, starts, _ = learned
    assert list(hasher.history) == ["alone", "gan", "hash", "gan-2", "hash-2"]
    _, gan, h, gan_2, h_2 = starts.begin
    assert same(starts.end[2]["hash_network"], h_2["hash_network"])
    assert not same(h["hash_network"], h_2["hash_network"])
    for name in ("generator_p", "generator_n", "discriminator", "condition"):
        assert same(gan[name], gan_2[name]), name
        assert same(starts.end[3][name], h_2[name]), name
        assert not same(h[name], h_2[name]), name
    own = {"features_seconds", "stage1_seconds", "stage1_gauges", "stage2_seconds"}
    assert set(facts) == {"stage0_seconds", *own, *(f"round2_{fact}" for fact in own)}


def test_g_and_d_see_the_backbone_as_the_round_before_left_it(few_digits, learned):
    hasher, _, _, folder = learned
    image_set, parts = few_digits
    before = make(ON_TRUNK, STRONG)
    before._build_gan()
    stage = before._stage(before.networks, rankings=("sr", "ssr", "ar"),
                          train_gan=True, weight_ssr=1.0)  # fmt: skip
    before.compile(stage, Pace(2, 0.1, first=False))
    Checkpoints(folder / "run/checkpoints", "hash").restore(stage)
    seen = before.space.look(image_set.images, splits.learnable(parts), None)
    np.testing.assert_allclose(seen, hasher._gan_inputs, atol=1e-4)


def test_what_is_kept_for_other_runs_is_of_the_first_round(learned):
    """The features of later rounds, and their stages, are in the run's own folder."""
    _, _, _, folder = learned
    assert not list(folder.glob("stage?/*-2-*"))
    kept, own = folder / "stage0/features", folder / "run/features"
    assert len(list(kept.glob("*.seconds"))) == len(list(own.glob("*.seconds"))) == 1
    assert {path.name for path in kept.iterdir()}.isdisjoint(p.name for p in own.iterdir())


def test_the_first_round_of_two_is_that_of_one(few_digits, learned, tmp_path):
    _, _, starts, _ = learned
    once, watch = make(ON_TRUNK, STRONG), Starts()
    once.callbacks = [watch]
    once.learn(*few_digits, Run(tmp_path))
    assert same(watch.end[2]["hash_network"], starts.end[2]["hash_network"])
    assert set(once.history) == {"alone", "gan", "hash"}


def test_labels_alone_in_rounds_have_the_last_stage_again(few_digits, tmp_path):
    hasher = make(dataclasses.replace(TWICE, variant="baseline"), STRONG)
    facts = hasher.learn(*few_digits, Run(tmp_path))
    assert list(hasher.history) == ["alone", "hash", "hash-2"]
    assert set(facts) == {"stage0_seconds", "stage2_seconds", "round2_stage2_seconds"}


def test_steps_and_stages_count_the_rounds(few_digits):
    """2 updates alone and twice 2; alone, G and D, H, G and D, H."""
    hasher, titles = make(TWICE, STRONG), []
    assert hasher.steps == 6 and hasher.stages() == 5
    assert make(dataclasses.replace(TWICE, variant="baseline")).stages() == 3
    hasher.train = lambda *arguments: titles.append(arguments[-1]) or 0.0
    hasher.learn(*few_digits, Run())
    assert titles == [
        "stage 1 of 5 (hash network alone)",
        "stage 2 of 5 (G and D)",
        "stage 3 of 5 (hash network)",
        "stage 4 of 5 (G and D)",
        "stage 5 of 5 (hash network)",
    ]


def test_a_new_hash_layer_waits_in_the_first_round_alone(few_digits, tmp_path):
    """24 bits after a stage 0 of 12, with trunk_from=2 and two updates a round: the backbone moves
    in the second round and not in the first."""
    config = dataclasses.replace(TWICE, stage0_code_length=12)
    hasher, starts = make(config, dataclasses.replace(SETTINGS, trunk_from=2), bits=24), Starts()
    hasher.callbacks = [starts]
    hasher.learn(*few_digits, Run(tmp_path))
    count = len(hasher.hash_network.backbone.get_weights())
    moved = [
        not same(begin["hash_network"][:count], end["hash_network"][:count])
        for begin, end in zip(starts.begin, starts.end, strict=True)
        if "hash_network" in begin
    ]
    assert moved[-2:] == [False, True]


def test_interrupted_in_the_second_round_it_ends_with_the_same_bits(few_digits, learned, tmp_path):
    for stage, skip in (("gan-2", 3), ("hash-2", 0)):
        hasher = make(TWICE, STRONG)
        hasher.callbacks = [LaterInterrupt(skip)]
        with pytest.raises(KeyboardInterrupt):
            hasher.learn(*few_digits, Run(tmp_path))
        assert (tmp_path / f"checkpoints/{stage}-00000001.weights.h5").is_file()
    again = make(TWICE, STRONG)
    again.learn(*few_digits, Run(tmp_path))
    assert set(again.history) == {"hash-2"}
    whole, *_ = learned
    assert same(whole.encoder.get_weights(), again.encoder.get_weights())


def test_a_row_tells_how_many_rounds_there_were():
    names = [
        make(dataclasses.replace(TWICE, **options)).variant
        for options in ({"rounds": 1}, {}, {"weight_class": 1.0, "variant": "w_ssr", "rounds": 3})
    ]
    assert names == [None, "2_rounds", "w_ssr_with_classes_3_rounds"]


def test_rounds_need_g_and_d_on_what_h_has_learned():
    with pytest.raises(UserError, match="`rounds`: 2, and G and D would learn the same again"):
        SSGAHConfig(rounds=2)
    with pytest.raises(UserError, match="`rounds`: 0; allowed"):
        SSGAHConfig(rounds=0)
