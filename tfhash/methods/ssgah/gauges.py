"""Gauges of a triplet GAN: is what D and G have learned of use to the hash network?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.linear_model import LogisticRegression

from tfhash.data.splits import RetrievalSplits
from tfhash.data.triplets import relevance

SAMPLES = 512

Synthesise = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Gauges:
    """Held-out order accuracy of D, and how often G_p(x) and G_n(x) keep the class of x.

    order: the share of triplets, their queries from the validation part, for which D gives
    (q, p, n) a higher score than (q, n, p); .5 is chance. class_p, class_n: the share of
    unlabelled x for which a logistic regression, learned from the labelled images, sees the same
    class in x and in G_p(x), G_n(x). A gauge that cannot be taken (no validation part; several
    labels an image, or the same for all) is left out.

    score: D's logits of three [t, ...]; synthesise: x [n, ...] -> G_p(x), G_n(x), both of the
    shape of what `describe` takes; describe: items -> float32 [n, d] for the regression.
    """

    def __init__(
        self,
        inputs: np.ndarray,
        labels: np.ndarray,
        splits: RetrievalSplits,
        *,
        score: Callable[..., np.ndarray],
        synthesise: Synthesise,
        describe: Callable[[np.ndarray], np.ndarray],
        seed: int,
    ):
        rng = np.random.Generator(np.random.PCG64([seed, 77]))
        self.score, self.synthesise, self.describe = score, synthesise, describe
        self.triplets = _held_out_triplets(labels, splits, rng)
        self.held_out = inputs[:, 0]
        count = min(SAMPLES, len(splits.unlabelled))
        self.samples = inputs[np.sort(rng.choice(splits.unlabelled, count, replace=False)), 0]
        self.judge = None
        known = labels[splits.labelled]
        if count and (known.sum(axis=1) == 1).all() and known.any(axis=0).sum() > 1:
            self.judge = LogisticRegression(C=0.1, max_iter=200)
            self.judge.fit(describe(inputs[splits.labelled, 0]), known.argmax(axis=1))
            self.judged = self.judge.predict(describe(self.samples))

    def __call__(self) -> dict[str, float]:
        gauges = {}
        if len(self.triplets):
            q, p, n = (self.held_out[self.triplets[:, role]] for role in range(3))
            gauges["gauge/order"] = float((self.score(q, p, n) > self.score(q, n, p)).mean())
        if self.judge is not None:
            for name, synthetic in zip("pn", self.synthesise(self.samples), strict=True):
                same = self.judge.predict(self.describe(synthetic)) == self.judged
                gauges[f"gauge/class_{name}"] = float(same.mean())
        return gauges


def _held_out_triplets(
    labels: np.ndarray, splits: RetrievalSplits, rng: np.random.Generator
) -> np.ndarray:
    """SAMPLES triplets whose query is a validation image: positions int64 [t, 3].

    Their positives and negatives are labelled images of either part, for a validation part may
    hold one image a class.
    """
    items = np.concatenate([splits.validation, splits.labelled])
    related = relevance(labels[items])
    rows = []
    for query in range(len(splits.validation)):
        positives = np.flatnonzero(related[query])
        negatives = np.setdiff1d(np.flatnonzero(~related[query]), [query])
        if len(positives) and len(negatives):
            each = max(SAMPLES // len(splits.validation), 1)
            p, n = rng.choice(positives, each), rng.choice(negatives, each)
            rows.append(np.stack([np.full(each, query), p, n], axis=1))
    return items[np.concatenate(rows)] if rows else np.zeros((0, 3), np.int64)
