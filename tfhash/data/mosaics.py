"""Images of several labels made of CIFAR-10: 2x2 mosaics whose label sets are drawn after NUS-WIDE.

A proxy where the images of NUS-WIDE cannot be had; its figures say nothing about NUS-WIDE itself.
"""

from __future__ import annotations

import hashlib
import itertools

import numpy as np

from tfhash.data.protocols import random_order

NAME = "cifar10_mosaics"
PROXY = (
    "a proxy for real images of several labels: 2x2 mosaics of CIFAR-10 images, their label sets "
    "drawn after those of NUS-WIDE; no paper has figures of it"
)
COUNT = 60_000
SIDE = 64  # px
TILES = 4

# Counted in the lists of NUS-WIDE that DeepHash-pytorch uses (swuxyj/DeepHash-pytorch,
# data/nuswide_21: 10,500 + 2,100 images, 21 concepts), of the ten most frequent concepts alone,
# and of the 10,995 images that have one of these: images with 1, 2, 3 and at least 4 of them, and
# the images of each concept. A list of all 21 concepts cannot be matched with ten classes: there
# an image has 2.9 labels on average, and the shares of the ten most frequent add up to 2.0.
LISTED = 10_995
LISTED_SIZES = (3_686, 3_145, 2_101, 2_063)
LISTED_CONCEPTS = (6_222, 4_739, 3_760, 1_788, 1_727, 1_547, 1_482, 1_434, 1_356, 1_316)

# Above every seed of a split, whose orders these must not repeat; a stream for each decision.
_SEED = 2_000_000_000
_SET_ORDER, _REPEATED, _PLACES, _TURNS = range(4)


def label_sets(count: int) -> np.ndarray:
    """The label sets of `count` mosaics, multi-hot uint8 [count, 10], in a fixed random order.

    A set S of s of the ten classes has the share P(s) prod_{i in S} w_i / e_s(w), e_s being the sum
    of that product over all sets of s classes; P(s) is LISTED_SIZES, and w is such that the share
    of class i follows LISTED_CONCEPTS. Shares are rounded to whole mosaics, nothing is drawn.
    """
    sets = np.array(
        [
            np.isin(range(len(LISTED_CONCEPTS)), chosen)
            for size in range(1, TILES + 1)
            for chosen in itertools.combinations(range(len(LISTED_CONCEPTS)), size)
        ]
    )
    exact = count * _shares(sets)
    counts = np.floor(exact).astype(int)
    largest_rest = np.argsort(counts - exact, kind="stable")
    counts[largest_rest[: count - counts.sum()]] += 1
    labels = np.repeat(sets, counts, axis=0).astype(np.uint8)
    return labels[random_order(count, _SEED, _SET_ORDER)]


def _shares(sets: np.ndarray) -> np.ndarray:
    """The share of each label set, float64 [sets], of bool [sets, classes]."""
    sizes = sets.sum(axis=1)
    of_size = np.array(LISTED_SIZES) / LISTED
    wanted = np.array(LISTED_CONCEPTS) / LISTED
    # More than four labels count as four, so fewer labels than listed are to be given away.
    wanted *= of_size @ np.arange(1, TILES + 1) / wanted.sum()
    weights = wanted.copy()
    for _ in range(200):  # converges in far fewer
        shares = np.where(sets, weights, 1).prod(axis=1)
        shares *= (of_size / np.bincount(sizes - 1, shares))[sizes - 1]
        weights *= wanted / (shares @ sets)
    return shares


def tile_classes(labels: np.ndarray) -> np.ndarray:
    """The class of each tile, int [n, 4], of label sets [n, C]: each at least once, anywhere.

    Tiles are numbered row by row. Where a set has fewer than four classes, each further tile is of
    any of them, all as likely.
    """
    sizes = labels.sum(axis=1, dtype=int)[:, None]
    of_set = np.argsort(-labels.astype(int), axis=1, kind="stable")[:, :TILES]
    any_of_set = (_raw(_REPEATED, labels.shape[0], TILES) % sizes.astype(np.uint64)).astype(int)
    place = np.where(np.arange(TILES) < sizes, np.arange(TILES), any_of_set)
    classes = np.take_along_axis(of_set, place, axis=1)
    order = np.argsort(_raw(_PLACES, labels.shape[0], TILES), axis=1, kind="stable")
    return np.take_along_axis(classes, order, axis=1)


def tiles(images: np.ndarray, classes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The image for each tile, int [n, 4], positions in images uint8 [m, h, w, 3].

    classes: int [m], those of the images, at least six of each. wanted: int [n, 4], those of the
    tiles. The images of a class are taken in turns, each once a round, in a new random order every
    round; none is in a mosaic twice. The order in which images come changes nothing: they are
    sorted by the SHA-256 of their pixels.
    """
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    in_order = np.array(sorted(range(len(images)), key=digests.__getitem__))
    chosen = np.empty_like(wanted)
    for class_ in np.unique(wanted):
        members = in_order[classes[in_order] == class_]
        here = wanted == class_
        chosen[here] = members[_turns(len(members), int(np.count_nonzero(here)), int(class_))]
    return chosen


def _turns(items: int, count: int, class_: int) -> np.ndarray:
    """`count` numbers below `items`, each once a round, no four in a row with one twice."""
    rounds = np.argsort(_raw((_TURNS, class_), -(-count // items), items), axis=1, kind="stable")
    for number in range(1, len(rounds)):
        # The last three may stand in one mosaic with the first three of the next round.
        late = np.isin(rounds[number], rounds[number - 1, 1 - TILES :])
        rounds[number] = np.concatenate([rounds[number, ~late], rounds[number, late]])
    return rounds.ravel()[:count]


def assembled(of_tiles: np.ndarray) -> np.ndarray:
    """Mosaics uint8 [n, 2h, 2w, 3] of their four tiles [n, 4, h, w, 3], numbered row by row."""
    n, _, height, width, channels = of_tiles.shape
    rows = of_tiles.reshape(n, 2, 2, height, width, channels).swapaxes(2, 3)
    return rows.reshape(n, 2 * height, 2 * width, channels)


def _raw(decision: int | tuple[int, int], *shape: int) -> np.ndarray:
    """Random bits, uint64: NumPy promises the stream of a bit generator for ever."""
    key = (decision,) if isinstance(decision, int) else decision
    seeds = np.random.SeedSequence([_SEED, *map(int, key)])
    return np.random.PCG64(seeds).random_raw(int(np.prod(shape))).reshape(shape)
