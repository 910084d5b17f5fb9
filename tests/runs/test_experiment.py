"""What a run says of itself beside the judgement of its queries."""

from __future__ import annotations

import numpy as np
import pytest

from tfhash.data import splits
from tfhash.data.sources import ImageSet
from tfhash.evaluation import validation
from tfhash.runs import experiment
from tfhash.runs.experiment_settings import Experiment


def test_of_several_labels_their_number_is_judged_unasked():
    """The query has a and b. Ranks: r = 1, then r = 2; so ACG is 1, then 3/2, at the hits."""
    query = {"codes": np.uint8([[0]]), "labels": np.uint8([[1, 1]])}
    database = {"codes": np.uint8([[0], [128]]), "labels": np.uint8([[1, 0], [1, 1]])}
    found = experiment.judge(Experiment(code_length=8), query, database)
    gain = (1 + 3 / np.log2(3)) / (3 + 1 / np.log2(3))
    graded = {"weighted_map": 1.25, "ndcg_at100": gain, "acg_at100": 1.5}
    assert {key: found[key] for key in graded} == pytest.approx(graded)
    assert not any(key.startswith("weighted_map_at") for key in found)
    asked = Experiment(code_length=8, ndcg_at=(1,), acg_at=(1,), weighted_map_at=(1,))
    found = experiment.judge(asked, query, database)
    graded |= {"ndcg_at1": 1 / 3, "acg_at1": 1.0, "weighted_map_at1": 1.0}
    assert {key: found[key] for key in graded} == pytest.approx(graded)


@pytest.mark.parametrize("of_database", [[[1, 0], [0, 1]], [[1, 0], [0, 0]]])
def test_of_one_label_only_what_is_asked_for(of_database):
    query = {"codes": np.uint8([[0]]), "labels": np.uint8([[1, 0]])}
    database = {"codes": np.uint8([[128], [0]]), "labels": np.uint8(of_database)}
    found = experiment.judge(Experiment(code_length=8), query, database)
    assert not any(key.startswith(("weighted", "ndcg", "acg")) for key in found)
    asked = Experiment(code_length=8, weighted_map_at=(1,))
    found = experiment.judge(asked, query, database)
    keys = [key for key in found if key.startswith(("weighted", "ndcg", "acg"))]
    assert keys == ["weighted_map", "weighted_map_at1"]
    assert (found["weighted_map"], found["weighted_map_at1"]) == (0.5, 0.0)


def test_the_validation_map_is_that_of_validation_images_against_labelled_ones():
    """By loops over ranks; codes differ, and labels of all other images would change it."""
    rng = np.random.default_rng(0)
    labels = np.eye(3, dtype=np.uint8)[np.arange(90) % 3]
    ids = tuple(map(str, range(90)))
    images = np.zeros((90, 8, 8, 3), np.uint8)
    image_set = ImageSet("noise", images, labels, tuple("abc"), ids)
    parts = splits.make(
        image_set,
        protocol="per_class",
        seed=0,
        queries_per_class=5,
        labelled_per_class=10,
        validation_fraction=0.3,
    )
    values = rng.permutation(90)  # as codes of 7 bits
    packed = np.uint8(values * 2)[:, None]
    found = experiment._validated(Experiment(code_length=7), packed, image_set, parts)
    precisions = []
    for query in parts.validation:
        distances = [bin(values[query] ^ values[image]).count("1") for image in parts.labelled]
        relevant = np.array([(labels[query] == labels[image]).all() for image in parts.labelled])
        precisions.append(expected_average_precision(np.array(distances), relevant))
    assert len(parts.validation) == 9 and len(parts.labelled) == 21
    assert found[validation.AMONG_LABELLED] == pytest.approx(np.mean(precisions), abs=2e-3)
    held_out = validation.held_out_map(packed[parts.validation], labels[parts.validation], 7)
    assert found[validation.HELD_OUT] == held_out > 0


def expected_average_precision(distances, relevant, draws=4000):
    """The mean over random orders of ties."""
    rng, found = np.random.default_rng(1), []
    for _ in range(draws):
        order = np.lexsort([rng.random(len(distances)), distances])
        hits = relevant[order]
        found.append((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())
    return np.mean(found)


def test_without_validation_images_there_is_none():
    labels = np.eye(2, dtype=np.uint8)[np.arange(40) % 2]
    images, ids = np.zeros((40, 8, 8, 3), np.uint8), tuple(map(str, range(40)))
    image_set = ImageSet("noise", images, labels, ("a", "b"), ids)
    parts = splits.make(
        image_set,
        protocol="per_class",
        seed=0,
        queries_per_class=5,
        labelled_per_class=5,
        validation_fraction=0.0,
    )
    packed = np.zeros((40, 1), np.uint8)
    found = experiment._validated(Experiment(code_length=7), packed, image_set, parts)
    assert found == {validation.AMONG_LABELLED: None, validation.HELD_OUT: None}
