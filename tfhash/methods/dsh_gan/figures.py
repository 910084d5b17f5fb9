"""What the figures of DSH-GANs show: Fig. 7, Fig. 8, and the real images nearest to synthetic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfhash import figures
from tfhash.data.splits import learnable
from tfhash.hashers.gan_spaces import GANSpace
from tfhash.methods.dsh_gan.quality import FromLabels, RealImages

COLUMNS = 8  # images of a class, or of a label set
MOST_CLASSES = 21
MOST_PAIRS = 8  # of label sets
MOST_LABEL_SETS = 200  # the most frequent ones, among which pairs are sought
NEAREST_COLUMNS = 10


def draw_by_class(
    space: GANSpace,
    synthesise: FromLabels,
    real: RealImages,
    class_names: Sequence[str],
    path: Path,
) -> None:
    """Real images of each class beside synthetic ones, of labels that labelled images of it have.

    Of more than MOST_CLASSES classes as many, evenly spread. Synthetic features cannot be seen: for
    each stands the image with the nearest features, and the figure says so.
    """
    rng = real.rng()
    pool = learnable(real.splits)
    classes, of_synthetic = labels_by_class(real.labels, real.splits.labelled, COLUMNS, rng)
    members = [pool[real.labels[pool, class_] == 1] for class_ in classes]
    shown = min(COLUMNS, *map(len, members))
    chosen = np.concatenate([rng.choice(of_class, shown, replace=False) for of_class in members])
    halves = space.pictures(real.inputs[chosen, 0], synthesise(of_synthetic))
    of_real, synthetic = (half.reshape(len(classes), -1, *half.shape[1:]) for half in halves)
    figures.synthetic_by_class(
        of_real,
        synthetic,
        path,
        class_names=[class_names[class_] for class_ in classes],
        titles=("real images", _title(space)),
    )


def labels_by_class(
    labels: np.ndarray, labelled: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Classes that labelled images have, and for each the labels of `count` of these images.

    Of more than MOST_CLASSES classes as many, evenly spread: int64 [c], multi-hot [c count, C].
    """
    classes = np.flatnonzero(labels[labelled].any(axis=0))
    rows = np.linspace(0, len(classes) - 1, min(MOST_CLASSES, len(classes)))
    classes = classes[rows.astype(int)]
    models = [rng.choice(labelled[labels[labelled, class_] == 1], count) for class_ in classes]
    return classes, labels[np.concatenate(models)]


def draw_label_sets(
    space: GANSpace,
    synthesise: FromLabels,
    real: RealImages,
    class_names: Sequence[str],
    path: Path,
) -> bool:
    """Synthetic images of label sets, and of larger ones with the same noise: see label_set_pairs.

    False, and no figure, where no label set holds another, as with one label an image.
    """
    pairs = label_set_pairs(real.labels[real.splits.labelled])
    if not len(pairs):
        return False
    halves = []
    for label_sets in pairs.swapaxes(0, 1):
        synthetic = synthesise(np.repeat(label_sets, COLUMNS, axis=0))
        _, pictures = space.pictures(real.inputs[:1, 0], synthetic)
        halves.append(pictures.reshape(len(pairs), COLUMNS, *pictures.shape[1:]))
    names = [
        [" + ".join(np.array(class_names)[labels == 1]) for labels in label_sets]
        for label_sets in pairs.swapaxes(0, 1)
    ]
    of_sets, of_supersets = halves
    figures.synthetic_label_sets(
        of_sets, of_supersets, path, set_names=names[0], superset_names=names[1]
    )
    return True


def draw_nearest(
    space: GANSpace,
    real: RealImages,
    synthetic: np.ndarray,
    positions: np.ndarray,
    distances: np.ndarray,
    path: Path,
) -> None:
    """The real images nearest to NEAREST_COLUMNS synthetic ones, from the nearest of all on.

    synthetic, and positions and distances as nearest_real answers them. The columns are evenly
    spread over the order of distances, so a G that copies a tenth of the time is found out in the
    first one or two. Synthetic features cannot be seen and are left out.
    """
    order = np.argsort(distances[:, 0], kind="stable")
    order = order[np.linspace(0, len(order) - 1, min(NEAREST_COLUMNS, len(order))).astype(int)]
    nearest = positions[order].T
    pictures, of_synthetic = space.pictures(real.inputs[nearest.ravel(), 0], synthetic[order])
    figures.nearest_real(
        pictures.reshape(*nearest.shape, *pictures.shape[1:]),
        distances[order, 0],
        path,
        synthetic=of_synthetic if space.synthetic_is_visible else None,
    )


def label_set_pairs(labels: np.ndarray) -> np.ndarray:
    """Label sets of images, each with a larger one that holds it: [n, C] -> uint8 [r, 2, C].

    Those of which there are most images, the rarer set of a pair counting; up to MOST_PAIRS, and
    none twice on the same side.
    """
    sets, counts = np.unique(labels[labels.any(axis=1)], axis=0, return_counts=True)
    often = np.argsort(-counts, kind="stable")[:MOST_LABEL_SETS]
    sets, counts = sets[often], counts[often]
    sizes = sets.sum(axis=1, dtype=int)
    shared = sets.astype(int) @ sets.T
    smaller, larger = np.nonzero((shared == sizes[:, None]) & (sizes[:, None] < sizes))
    pairs: list[tuple[int, int]] = []
    for index in np.argsort(-np.minimum(counts[smaller], counts[larger]), kind="stable"):
        pair = int(smaller[index]), int(larger[index])
        if len(pairs) < MOST_PAIRS and not any(
            pair[side] == other[side] for other in pairs for side in (0, 1)
        ):
            pairs.append(pair)
    return sets[np.array(pairs, int).reshape(-1, 2)]


def _title(space: GANSpace) -> str:
    if space.synthetic_is_visible:
        return "synthetic images"
    return "real images nearest to synthetic features"
