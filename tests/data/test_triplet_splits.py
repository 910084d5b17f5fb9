"""Splits by triplets alone."""

import numpy as np
import pytest

from tests.data.tiny_splits import TRIPLETS, make, same, single_label, with_triplets
from tfhash.data import splits
from tfhash.errors import UserError


@pytest.mark.parametrize("seed", range(20))
def test_no_query_of_a_held_out_triplet_is_learned_from(seed):
    """.4 of 5 query images are 2. By brute force over the rows, each of which is held out, learned
    from, or, where a query stands in it as positive or negative, neither."""
    split = splits.from_triplets(with_triplets(), seed=seed, held_out_fraction=0.4)
    query = set(split.query.tolist())
    assert len(query) == 2 and query < {0, 3, 6, 9, 11}
    assert split.held_out.tolist() == [row for row in TRIPLETS if row[0] in query]
    learned = [row for row in TRIPLETS if not query & set(row)]
    assert split.labelled.tolist() == sorted({image for row in learned for image in row})
    assert split.database.tolist() == [image for image in range(12) if image not in query]
    learnable = np.sort(splits.learnable(split))
    np.testing.assert_array_equal(learnable, split.database)
    assert split.validation.size == 0 and split.protocol == "triplets(held_out=0.4)"


def test_one_seed_holds_out_the_same_triplets_and_another_seed_others():
    one, again, other = (splits.from_triplets(with_triplets(), seed=seed) for seed in (0, 0, 1))
    assert one.query.tolist() == again.query.tolist() != other.query.tolist()
    assert one.fingerprint == again.fingerprint != other.fingerprint


def test_the_fingerprint_tells_which_triplets_there_are():
    """Those that judge and those that are learned from, also where the parts stay the same."""
    split = splits.from_triplets(with_triplets(), seed=0)
    fingerprints = {split.fingerprint}
    for held_out in (True, False):
        rows = [list(row) for row in TRIPLETS]
        row = next(r for r in rows if (r[0] in split.query) == held_out and 0 not in r[1:])
        row[1], row[2] = row[2], row[1]
        changed = splits.from_triplets(with_triplets(rows), seed=0)
        assert same(split, changed, *splits.PARTS)
        fingerprints.add(changed.fingerprint)
    assert len(fingerprints) == 3


@pytest.mark.parametrize(
    ("rows", "fraction", "message"),
    [
        (TRIPLETS, 0.0, "`held_out_fraction`: 0.0; allowed: above 0 and below 1"),
        (TRIPLETS, 1.0, "`held_out_fraction`: 1.0; allowed: above 0 and below 1"),
        ([[0, 1, 2]], 0.2, "`triplets_csv`: each of the 1 triplets holds one of 1 images that"),
        ([[0, 1, 2], [1, 0, 2]], 0.2, "each of the 2 triplets holds one of 1 images"),
        (TRIPLETS, 0.9, "each of the 7 triplets holds one of 4 images"),
    ],
)
def test_triplets_that_cannot_be_split(rows, fraction, message):
    """Of 5 queries round(4.5) = 4 are held out; Python rounds to the even number. Where one is
    left over it may be learned from, so the seed is one for which it is 0 or 3."""
    with pytest.raises(UserError, match=message):
        for seed in range(20):
            splits.from_triplets(with_triplets(rows), seed=seed, held_out_fraction=fraction)


def test_images_without_classes_have_no_other_split():
    with pytest.raises(UserError, match="`protocol`=per_class: the images have no classes; allow"):
        make(with_triplets())


def test_no_triplets_no_such_split():
    with pytest.raises(UserError, match="`triplets_csv`: missing; `protocol`=triplets needs it"):
        splits.from_triplets(single_label(3, 6), seed=0)
