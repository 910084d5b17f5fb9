"""Is what G makes of labels of the right class, and neither a copy nor always the same?

Three measures for small data, none of which needs a network trained elsewhere. G learned from
augmented images, so it is such images that its own are held against. Distances are Euclidean,
between descriptions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from tfhash.data.pipeline import Augment, FlipAndShift
from tfhash.data.splits import RetrievalSplits, learnable

JUDGED = 500  # synthetic images whose class is judged
LEARNED = 2000  # fewer labelled images are augmented to about as many, for the judge of classes
MOST_COMPONENTS = 128  # of descriptions, for the judge of classes
PROBES = 200  # real images whose nearest ones say what is near
EACH = 50  # images of one label set that stand for all of it
MOST_LABEL_SETS = 21
CHUNK = 512  # items described at a time, to save memory

FromLabels = Callable[[np.ndarray], np.ndarray]  # multi-hot uint8 [m, C] -> m items


@dataclass(frozen=True)
class RealImages:
    """All images but the queries, and how they are looked at. G has not seen validation images.

    inputs: [n, views, ...] of a whole image set; labels: multi-hot uint8 [n, C]; augment: as G's
    batches were, or less; describe: items, real or synthetic, [m, ...] -> float32 [m, d]; seed: of
    what is random in the measures.
    """

    inputs: np.ndarray
    labels: np.ndarray
    splits: RetrievalSplits
    augment: Augment
    describe: Callable[[np.ndarray], np.ndarray]
    seed: int

    def rng(self) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.seed, 78]))

    def augmented(self, positions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Descriptions of augmented images: float32 [m, d]."""
        parts = range(0, len(positions), CHUNK)
        return np.concatenate(
            [
                self.describe(self.augment(self.inputs[positions[start : start + CHUNK]], rng))
                for start in parts
            ]
        )

    def described(self, items: np.ndarray) -> np.ndarray:
        """Descriptions of items as they are: float32 [m, d]."""
        parts = range(0, len(items), CHUNK)
        return np.concatenate([self.describe(items[start : start + CHUNK]) for start in parts])

    def every_view(self, positions: np.ndarray, shifts: bool = True) -> np.ndarray:
        """Descriptions of all that augmentation can make of images: float32 [m, views, d]."""
        views = every_view(self.inputs[positions], self.augment, shifts)
        return self.described(views.reshape(-1, *views.shape[2:])).reshape(*views.shape[:2], -1)


class ClassJudge:
    """A classifier of its own, learned from the labelled real images, judges synthetic ones.

    Hold on_synthetic against on_real. Far below it: G makes other classes than it was told. Near or
    above it: its classes can be told apart, no more. It may well lie above, for G can make the most
    typical image of a class again and again, which `diversity` shows. A judge of few labelled
    images is a weak one, and it learned from the same images as G: what both take for the mark of
    a class counts as right. Nothing is judged where labelled images have several labels, or all
    have the same one.
    """

    def __init__(self, real: RealImages):
        self.real = real
        labelled = real.splits.labelled
        known = real.labels[labelled]
        self.classes = np.flatnonzero(known.any(axis=0))
        self.classifier = None
        if (known.sum(axis=1) == 1).all() and len(self.classes) > 1:
            positions = np.tile(labelled, max(LEARNED // len(labelled), 1))
            described = real.augmented(positions, real.rng())
            components = min(MOST_COMPONENTS, *described.shape)
            # With all pixels of CIFAR-10 each log line would wait half a minute for the judge.
            self.classifier = make_pipeline(PCA(components, random_state=real.seed), SVC(C=10))
            self.classifier.fit(described, real.labels[positions].argmax(axis=1))

    def on_real(self) -> dict[str, float]:
        """Its accuracy on query images, or on validation images where it knows no query's class.

        To be reported only: nothing may be learned or chosen by what is measured on queries.
        """
        if self.classifier is None:
            return {}
        real = self.real
        for part in (real.splits.query, real.splits.validation):
            labels = real.labels[part]
            known = (labels.sum(axis=1) == 1) & labels[:, self.classes].any(axis=1)
            if known.any():
                seen = self.classifier.predict(real.augmented(part[known], real.rng()))
                return {"gauge/class_real": float((seen == labels[known].argmax(axis=1)).mean())}
        return {}

    def on_synthetic(self, synthesise: FromLabels) -> dict[str, float]:
        """The share of synthetic images in which it sees the class that they were made of.

        As many of each class, about JUDGED in all.
        """
        if self.classifier is None:
            return {}
        classes = np.repeat(self.classes, max(JUDGED // len(self.classes), 1))
        one_hot = np.eye(self.real.labels.shape[1], dtype=np.uint8)
        synthetic = synthesise(one_hot[classes])
        seen = self.classifier.predict(self.real.described(synthetic))
        return {"gauge/class_synthetic": float((seen == classes).mean())}


def nearest_real(
    real: RealImages, synthetic: np.ndarray, *, count: int = 1, most_views: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The `count` real images nearest to each synthetic one, and how near they are.

    synthetic [m, ...] -> positions int64 [m, count], and distances float [m, count], ascending,
    over the median distance from a real image to the nearest other one. So the median of the first
    column is about 1 where synthetic images are as new as one more real image is, and near 0 where
    they are copies. Real images count as near as the nearest view that augmentation makes of them.

    What it cannot tell: somewhat below 1 is no sign of copying, since smooth images are near to
    many; above 1 the images may be new, or bad; and a median does not see a few copies, so look at
    the synthetic images with the least distance.

    most_views: of real images that are looked at. Where there are more, shifts are passed over, so
    that a shifted copy is only near; where there still are, so are unlabelled images, at random,
    and what is a copy of them goes unseen. Distances are NaN or inf where the median to divide by
    is 0, since most real images are there twice.
    """
    rng = real.rng()
    pool, shifts = _searched(real, count, most_views, rng)
    views = real.every_view(pool[:1], shifts).shape[1]
    probes = rng.choice(pool, min(PROBES, len(pool)), replace=False)
    sought = np.concatenate([real.described(synthetic), real.augmented(probes, rng)])
    itself = np.concatenate([np.full(len(synthetic), -1), probes])
    positions = np.zeros((len(sought), 0), np.int64)
    distances = np.zeros((len(sought), 0))
    step = max(CHUNK // views, 1)
    for start in range(0, len(pool), step):
        part = pool[start : start + step]
        to_views = euclidean_distances(sought, np.concatenate(real.every_view(part, shifts)))
        to_part = to_views.reshape(len(sought), len(part), views).min(axis=2)
        to_part[itself[:, None] == part] = np.inf
        distances = np.concatenate([distances, to_part], axis=1)
        positions = np.concatenate([positions, np.tile(part, (len(sought), 1))], axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, :count]
        distances = np.take_along_axis(distances, order, axis=1)
        positions = np.take_along_axis(positions, order, axis=1)
    of_synthetic, of_probes = np.split(distances, [len(synthetic)])
    with np.errstate(divide="ignore", invalid="ignore"):
        return positions[: len(synthetic)], of_synthetic / np.median(of_probes[:, 0])


def _searched(
    real: RealImages, count: int, most_views: int | None, rng: np.random.Generator
) -> tuple[np.ndarray, bool]:
    """Positions of the images that are searched, more than `count`, and whether at all shifts."""
    pool = learnable(real.splits)
    for shifts in (True, False):
        views = real.every_view(pool[:1], shifts).shape[1]
        if most_views is None or len(pool) * views <= most_views:
            return pool, shifts
    labelled = real.splits.labelled
    others = np.setdiff1d(pool, labelled)
    pool = np.concatenate([rng.permutation(part) for part in (labelled, others)])
    return pool[: max(most_views // views, count + 1)], False


def diversity(real: RealImages, synthesise: FromLabels) -> float | None:
    """How different synthetic images of one class are, over how different real ones are.

    The ratio of their mean pairwise distances, averaged over the label sets (with one label an
    image: the classes) that two labelled images or more have, the most frequent MOST_LABEL_SETS;
    None where there is none. 0: G makes one image of each class; about 1: as various as the real
    ones. Trust low values only, for noise in the images raises it just as variety does.
    """
    rng = real.rng()
    labelled = real.splits.labelled
    sets, of_image, counts = np.unique(
        real.labels[labelled], axis=0, return_inverse=True, return_counts=True
    )
    ratios = []
    for index in np.argsort(-counts, kind="stable")[:MOST_LABEL_SETS]:
        members = labelled[of_image == index]
        if len(members) < 2 or not sets[index].any():
            continue
        members = rng.choice(members, min(EACH, len(members)), replace=False)
        spread = pdist(real.augmented(members, rng)).mean()
        if spread > 0:
            synthetic = synthesise(np.tile(sets[index], (EACH, 1)))
            ratios.append(pdist(real.described(synthetic)).mean() / spread)
    return float(np.mean(ratios)) if ratios else None


def every_view(inputs: np.ndarray, augment: Augment, shifts: bool = True) -> np.ndarray:
    """All that `augment` can make of items: [n, views, ...] -> [n, more views, ...].

    Of images, all shifts, unless these are passed over, and flips; of anything else, the views that
    are stored.
    """
    if not isinstance(augment, FlipAndShift):
        return inputs
    images, shift = inputs[:, 0], augment.shift if shifts else 0
    height, width = images.shape[1:3]
    mode: Literal["edge", "reflect"] = "edge" if augment.fill == "repeat" else "reflect"
    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode=mode)
    starts = range(2 * shift + 1)
    views = [padded[:, y : y + height, x : x + width] for y in starts for x in starts]
    if augment.flip:
        views += [view[:, :, ::-1] for view in views]
    return np.stack(views, axis=1)
