"""DRSCH: settings that reach what they say, resuming, and codes that follow the classes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import tfhash
from tfhash.data.learning import LearningData
from tfhash.methods.drsch import DRSCH

SETTINGS = {
    "code_length": 16,
    "steps": 60,
    "checkpoint_every": 20,
    "hash_optimizer": "adamw",
    "hash_learning_rate": 2e-3,
    "image_size": 16,
    "batch_size": 48,
    "beta": (2.0, 4.0, 10.0),
}


@pytest.fixture(scope="module")
def learned(digits) -> DRSCH:
    images, labels = digits
    return DRSCH(**SETTINGS).fit(images[:300], labels[:300])


def test_codes_follow_the_classes(learned, map_of_others):
    assert map_of_others(learned) > 0.4
    history = learned.history["hash"]
    assert history["triplet"][-1] < history["triplet"][0]
    assert history["beta"] == [2, 4, 10]
    assert history["bit_weight_least"][-1] != history["bit_weight_most"][-1]


TINY = {"steps": 2, "checkpoint_every": 2, "batch_size": 12}


def built(tiny_images, **settings) -> tuple[DRSCH, LearningData]:
    """A hasher that has not learned, and what it would learn from."""
    hasher = DRSCH(**{**SETTINGS, **TINY, "image_size": 24, **settings})
    hasher.build(24)
    return hasher, hasher.learning_data(*tiny_images)


def test_the_stage_has_the_settings_and_the_seed_of_the_hasher(tiny_images):
    hasher, data = built(tiny_images, seed=7, steps=31, dropout=0.5)
    stage = hasher.make_stage(data)
    assert (stage.config, stage.seed, stage.total_steps) == (hasher.config, 7, 31)
    assert stage.bit_weights.shape == (16,) and stage.margin == 8
    assert stage.hash_network is hasher.networks["hash_network"]


def test_a_batch_has_the_groups_and_classes_asked_for(tiny_images):
    """Two groups of six of fifteen labelled images, each of two of the three classes."""
    hasher, data = built(tiny_images, classes_per_group=2, groups=2)
    sampler = hasher.make_sampler(data)
    assert (sampler.group_size, sampler.classes, len(sampler.labels)) == (6, 2, 15)
    labels = hasher.make_batches(data, 1)(0)["labels"]
    assert labels.shape == (2, 6, 3)
    assert [(of_group.sum(0) > 0).sum() for of_group in labels] == [2, 2]


def test_the_variant_has_its_name_in_the_report():
    assert DRSCH().variant is None and DRSCH(variant="dsch").variant == "dsch"


def fit_tiny(digits, labels, **settings) -> DRSCH:
    return DRSCH(**{**SETTINGS, **TINY, "image_size": 8, **settings}).fit(digits[0][:40], labels)


def test_images_may_have_several_labels_in_low_precision(digits):
    """The digit, and whether it is even: triplets of images that share a label or none."""
    several = np.zeros((40, 12), int)
    several[np.arange(40), digits[1][:40]] = 1
    several[np.arange(40), 10 + digits[1][:40] % 2] = 1
    hasher = fit_tiny(digits, several, mixed_bfloat16=True, hidden_units=8)
    assert hasher.encoder.hidden_layers[0].compute_dtype == "bfloat16"
    assert np.isfinite(hasher.history["hash"]["loss"]).all()


@pytest.mark.parametrize(
    ("settings", "labels", "line"),
    [
        ({}, np.full(40, -1), "labels: none; DRSCH learns from labelled images"),
        ({}, np.zeros(40, int), "`labelled_per_class`: no triplet can be made of the 40 labelled"),
        ({}, np.arange(40), "`labelled_per_class`: no triplet can be made of the 40 labelled"),
        ({"batch_size": 2}, None, "`batch_size`: 2 labelled images a group; at least 3"),
        ({"neighbours": 12}, None, "`neighbours`: 12; allowed: at most 11, the other images"),
        ({"neighbours": 6, "groups": 2}, None, "`neighbours`: 6; allowed: at most 5"),
        ({"beta": ()}, None, "`beta`: none; allowed: at least one number"),
        ({"beta": (2.0, 0.0)}, None, "`beta`: 0.0; allowed: above 0"),
        ({"classes_per_group": 1}, None, "`classes_per_group`: 1; allowed: at least 2"),
    ],
)
def test_what_it_cannot_learn_from_is_one_line(digits, settings, labels, line):
    with pytest.raises(tfhash.UserError, match=line) as raised:
        fit_tiny(digits, digits[1][:40] if labels is None else labels, **settings)
    assert "\n" not in str(raised.value)


def test_dsch_has_no_neighbours_to_be_short_of(tiny_images):
    hasher, data = built(tiny_images, variant="dsch", neighbours=99)
    assert hasher.make_stage(data).config.neighbours == 99


def test_a_user_s_own_triplets_are_refused(tiny_images):
    image_set, parts = tiny_images
    hasher, _ = built(tiny_images)
    listed = dataclasses.replace(image_set, triplets=np.array([[0, 3, 1]]))
    with pytest.raises(tfhash.UserError, match="`triplets_csv`: not with `method`=drsch"):
        hasher.learning_data(listed, parts)
