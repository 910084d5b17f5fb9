"""That SSGAH's switches reach what they are for: each test fails where one is left unconnected."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfhash import codes
from tfhash.data.learning import LearningData
from tfhash.data.splits import RetrievalSplits
from tfhash.evaluation import retrieval
from tfhash.evaluation.validation import AMONG_LABELLED, HELD_OUT, held_out_map
from tfhash.hashers.deep_settings import DeepSettings
from tfhash.methods.ssgah import SSGAH, SSGAHConfig
from tfhash.training.run import Run

SIZE = 16
LABELS = np.eye(3, dtype=np.uint8)[np.arange(30) % 3]
NONE = np.empty(0, np.int64)


def make(**options) -> SSGAH:
    config = SSGAHConfig(gan_size=16, gan_width=4, noise_size=2, condition_size=2, **options)
    settings = DeepSettings(batch_size=6, unlabelled_batch_size=4, steps=7)
    return SSGAH.of(config, settings, code_length=8, image_size=SIZE, seed=0)


@pytest.fixture(scope="module")
def data() -> LearningData:
    images = np.random.default_rng(0).integers(0, 256, (30, 1, SIZE, SIZE, 3)).astype(np.uint8)
    splits = RetrievalSplits(
        protocol="toy",
        seed=0,
        query=NONE,
        database=NONE,
        labelled=np.arange(12),
        validation=np.arange(12, 18),
        unlabelled=np.arange(18, 30),
        fingerprint="0" * 16,
    )
    return LearningData(images, LABELS, splits)


def second_stage(hasher: SSGAH, data: LearningData, facts: dict):
    """The stage 2 that the hasher would train, and the facts that it adds."""
    trained = []

    def keep(stage, *_):
        trained.append(stage)
        return 0.0

    hasher.train_hash = keep
    if hasher.config.variant != "baseline":
        hasher._build_gan()
    hasher._second_stage(data, dict, facts, Run())
    return trained[0]


def test_the_gate_scales_the_weight_of_ssr(data):
    """G_p keeps the class of .75 of the images, G_n of .25, so .5 of the weight 3 is left."""
    facts = {"stage1_gauges": {"gauge/class_p": 0.75, "gauge/class_n": 0.25}}
    stage = second_stage(make(gate=True, weight_ssr=3.0), data, facts)
    assert stage.weight_ssr == 1.5 and facts["gate"] == 0.5


def test_without_the_gate_the_weight_stays(data):
    facts = {"stage1_gauges": {"gauge/class_p": 0.75, "gauge/class_n": 0.25}}
    assert second_stage(make(weight_ssr=3.0), data, facts).weight_ssr == 3.0
    assert "gate" not in facts


def test_the_gate_never_turns_the_loss_around(data):
    """Where G_n keeps the class more often, L_ssr has no weight, and not a negative one."""
    facts = {"stage1_gauges": {"gauge/class_p": 0.2, "gauge/class_n": 0.6}}
    assert second_stage(make(gate=True), data, facts).weight_ssr == 0.0


@pytest.mark.parametrize(
    ("variant", "optimizers", "rankings"),
    [
        ("ssgah", {"hash", "generator", "discriminator"}, ("sr", "ssr", "ar")),
        ("w_ar", {"hash", "generator", "discriminator"}, ("sr", "ar")),
        ("w_ssr", {"hash"}, ("sr", "ssr")),
        ("baseline", {"hash"}, ("sr",)),
    ],
)
def test_who_learns_in_stage_2_of_each_ablation(data, variant, optimizers, rankings):
    """Table 3: G and D go on learning against L_ar, and stay as stage 1 left them in w_ssr."""
    stage = second_stage(make(variant=variant), data, {})
    variables = stage.variables_by_optimizer()
    assert set(variables) == optimizers and stage.rankings == rankings
    assert all(len(of_optimizer) for of_optimizer in variables.values())
    assert set(stage._trained) == optimizers


@pytest.mark.parametrize(
    ("options", "stage", "expected"),
    [
        ({"other_view": True}, 1, True),
        ({"other_view": True}, 0, False),
        ({}, 1, False),
        ({"other_view": True, "variant": "baseline"}, 1, False),
    ],
)
def test_g_sees_another_view_in_stage_2_where_it_is_asked_for(data, options, stage, expected):
    batch = make(**options).make_batches(data, stage)(0)
    assert ("other_images" in batch) is expected
    assert ("other_unlabelled" in batch) is expected


def test_batches_of_the_stages_are_different_ones(data):
    hasher = make()
    first, second = (hasher.make_batches(data, stage)(0)["images"] for stage in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("options", "unlabelled", "noise"), [({}, 4, 4), ({"variant": "baseline"}, 0, 0)]
)
def test_the_baseline_sees_neither_unlabelled_images_nor_noise(data, options, unlabelled, noise):
    batch = make(**options).make_batches(data, 1)(0)
    assert batch["unlabelled"].shape[1] == unlabelled
    assert batch["noise"].shape == (1, 6 + unlabelled, noise)


def test_validation_images_are_the_queries_and_labelled_ones_the_database(data, monkeypatch):
    """Codes by hand: where queries and database change places, the mAP is another one."""
    hasher = make()
    bits = np.random.default_rng(3).integers(0, 2, (30, 8)).astype(np.uint8)
    chosen = dataclasses.replace(data, inputs=np.arange(30)[:, None])
    monkeypatch.setattr(
        hasher.hash_network, "predict", lambda rows, **_: bits[rows].astype(np.float32)
    )
    packed = codes.pack(bits)
    query, database = data.splits.validation, data.splits.labelled

    def map_of(one, other):
        return retrieval.evaluate(
            packed[one], packed[other], LABELS[one], LABELS[other], code_length=8
        ).map[None]

    expected = map_of(query, database)
    assert abs(expected - map_of(database, query)) > 0.01
    held_out = held_out_map(packed[query], LABELS[query], 8)
    assert hasher.validate(chosen) == {AMONG_LABELLED: expected, HELD_OUT: held_out}


def test_without_validation_images_nothing_is_validated(data):
    splits = dataclasses.replace(data.splits, validation=NONE)
    assert make().validate(dataclasses.replace(data, splits=splits)) == {}
