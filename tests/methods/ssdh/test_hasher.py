"""SSDH: settings that reach what they say, batches, resuming, and codes that follow the classes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import tfhash
from tfhash.data.learning import LearningData
from tfhash.data.splits import RetrievalSplits
from tfhash.errors import UserError
from tfhash.hashers.deep_settings import DeepSettings
from tfhash.methods.ssdh import SSDHConfig
from tfhash.methods.ssdh import stage as ssdh


def make(code_length=16, settings=None, image_size=8, seed=0, **options) -> tfhash.SSDH:
    sizes = {"batch_size": 8, "unlabelled_batch_size": 6, **(settings or {})}
    config = SSDHConfig(**{"neighbours": 3, **options})
    of = {"code_length": code_length, "image_size": image_size, "seed": seed}
    return tfhash.SSDH.of(config, DeepSettings(**sizes), **of)


def make_data(labels=None, unlabelled=10, listed=None) -> LearningData:
    """30 vectors in place of images; each holds its position, for whoever looks at a batch."""
    labels = np.eye(4, dtype=np.uint8)[np.arange(30) % 3] if labels is None else labels
    ends = {"query": (0, 4), "labelled": (4, 16), "validation": (16, 20), "database": (4, 30)}
    parts = {name: np.arange(*bounds) for name, bounds in ends.items()}
    splits = RetrievalSplits(
        protocol="toy",
        seed=0,
        unlabelled=np.arange(20, 20 + unlabelled),
        fingerprint="0" * 16,
        **parts,
    )
    images = np.tile(np.arange(30, dtype=np.uint8)[:, None, None, None, None], (1, 1, 8, 8, 3))
    return LearningData(images, labels, splits, listed)


def test_a_batch_has_labelled_and_unlabelled_images_and_never_others():
    """Labels are those of the three classes that labelled images have; class 3 has none."""
    data = make_data()
    batches = make(settings={"groups": 2}).make_batches(data, 1)
    seen = {"images": set(), "unlabelled": set()}
    for step in range(20):
        batch = batches(step)
        assert batch["images"].shape[:2] == (2, 4) and batch["unlabelled"].shape[:2] == (2, 3)
        for name, of_name in seen.items():
            of_name |= set(batch[name][:, :, 0, 0, 0].ravel().tolist())
        positions = batch["images"][:, :, 0, 0, 0]
        np.testing.assert_array_equal(batch["labels"], data.labels[positions][..., :3])
    assert seen == {"images": set(range(4, 16)), "unlabelled": set(range(20, 30))}


def test_without_unlabelled_images_a_batch_has_labelled_ones_alone():
    batch = make().make_batches(make_data(unlabelled=0), 1)(0)
    assert batch["images"].shape[1] == 8 and batch["unlabelled"].shape[1] == 0


def test_batches_are_augmented_and_differ_by_seed_and_stage():
    """Pictures of a ramp, which a flip turns around."""
    data = make_data()
    ramp = np.broadcast_to(np.arange(8, dtype=np.uint8)[:, None], data.inputs.shape)
    flipping = make(settings={"flip": True, "shift": 0})
    of_ramp = dataclasses.replace(data, inputs=ramp)
    batch = flipping.make_batches(of_ramp, 1)(0)
    for name in ("images", "unlabelled"):
        assert set(batch[name][..., 0, 0, 0].ravel()) == {0, 7}

    def images(seed, stage):
        hasher = make(seed=seed)
        assert hasher.make_stage(data).seed == seed
        return hasher.make_batches(data, stage)(0)["images"].tobytes()

    assert len({images(seed, stage) for seed in (0, 1) for stage in (0, 1)}) == 4


def test_the_class_head_knows_the_classes_of_labelled_images():
    """Of three classes and not of four, so that the worst one is never one without images."""
    stage = make().make_stage(make_data())
    (head,) = stage.heads
    assert head.units == 3 and not stage.multi_label and stage.seed == 0
    assert "labels" in make().make_batches(make_data(), 1)(0)
    without = make(classification=False)
    assert without.make_stage(make_data()).heads == ()
    assert "labels" not in without.make_batches(make_data(), 1)(0)


@pytest.mark.parametrize(("row", "expected"), [(5, True), (1, False), (18, False), (25, False)])
def test_several_labels_of_labelled_images_make_the_head_one_of_sigmoids(row, expected):
    """Those of queries, of validation images and of unlabelled ones are nobody's business."""
    labels = np.eye(4, dtype=np.uint8)[np.arange(30) % 3]
    labels[row] = 1
    assert make().make_stage(make_data(labels)).multi_label is expected


@pytest.mark.parametrize(
    ("bits", "given", "expected"), [(12, None, 2.5), (13, None, 3), (8, 0.0, 0), (48, 4.5, 4.5)]
)
def test_the_margin_of_the_graph(bits, given, expected):
    assert make(bits, margin_graph=given).make_stage(make_data()).margin_graph == expected


def test_a_group_too_small_for_its_neighbours_is_refused():
    """13 others: floor(.89 * 13) = 11 are nearer than any far one."""
    make(neighbours=11).make_batches(make_data(), 1)
    with pytest.raises(UserError, match=r"`neighbours`: 12; .*groups of 14 images: at most 11 "):
        make(neighbours=12).make_batches(make_data(), 1)
    with pytest.raises(UserError, match=r"`neighbours`: 7; .* groups of 8 images: at most 6"):
        make(neighbours=7).make_batches(make_data(unlabelled=0), 1)
    with pytest.raises(UserError, match=r"`neighbours`: 6; .* groups of 7 images: at most 5"):
        make(neighbours=6, settings={"groups": 2}).make_batches(make_data(), 1)


def test_far_images_have_a_rank():
    with pytest.raises(UserError, match="`far_from`: 0.5; allowed: below `far_to`=0.5"):
        SSDHConfig(far_from=0.5, far_to=0.5)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("margin", -1.0), ("graph", "pixels"), ("neighbours", 0), ("far_from", 1.0),
        ("far_to", 1.5), ("graph_pairs", 0), ("margin_graph", -0.1), ("weight_graph", -0.1),
        ("weight_pseudo", -1.0), ("pseudo_confidence", 1.0), ("graph_from", -1),
        ("graph_ramp", -1), ("weight_class", -0.1),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(field, wrong):
    with pytest.raises(UserError, match=f"`{field}`: '?{wrong}'?; allowed"):
        SSDHConfig(**{field: wrong})


def test_triplets_of_a_user_need_no_class_head(tiny_images):
    """Images of listed triplets may be unlabelled ones, whose classes nothing may be learned of."""
    image_set, splits = tiny_images
    listed = dataclasses.replace(image_set, triplets=np.array([[6, 9, 7], [8, 30, 10]]))
    with pytest.raises(UserError, match="`classification`: .*`triplets_csv`.*allowed there: False"):
        make().learning_data(listed, splits)
    hasher = make(classification=False, neighbours=2, image_size=24)
    data = hasher.learning_data(listed, splits)
    batch = hasher.make_batches(data, 1)(0)
    assert "labels" not in batch and batch["triplets"].shape == (1, 2, 3)


SMALL = {
    "code_length": 16, "image_size": 16, "batch_size": 40, "unlabelled_batch_size": 24,
    "hash_optimizer": "adamw", "hash_learning_rate": 2e-3,
}  # fmt: skip


@pytest.fixture(scope="module")
def learned(digits) -> tfhash.SSDH:
    """100 digits with a label, 200 without; 60 steps."""
    images, labels = digits
    labels = np.where(np.arange(300) < 100, labels[:300], -1)
    return tfhash.SSDH(steps=60, checkpoint_every=30, **SMALL).fit(images[:300], labels)


def test_codes_follow_the_classes(learned, map_of_others):
    assert map_of_others(learned) > 0.4
    terms = learned.history["hash"]
    assert set(ssdh.TERMS + ssdh.CLASS_TERMS) <= set(terms)
    assert terms["loss"][1] < terms["loss"][0]


def test_it_learns_of_several_labels_an_image(digits):
    """Label 0 to 9 by the digit, and 10 for the odd ones."""
    images, numbers = digits[0][:60], digits[1][:60]
    labels = np.eye(11, dtype=int)[numbers]
    labels[:, 10] = numbers % 2
    hasher = tfhash.SSDH(steps=2, checkpoint_every=1, **SMALL | {"unlabelled_batch_size": 0})
    terms = hasher.fit(images, labels).history["hash"]
    assert np.isfinite(terms["loss"]).all()
    # Of 11 sigmoids that know nothing: 11 log 2 = 7.6, where a softmax would have log 11 = 2.4.
    assert 4 < terms["class"][0] < 12
