"""Splits for retrieval: which images are queries, database, labelled and unlabelled."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import TYPE_CHECKING

import numpy as np

from tfhash import npz
from tfhash.data.protocols import LABELLED_ORDER, PROTOCOLS, QUERY_ORDER, random_order
from tfhash.errors import UserError

if TYPE_CHECKING:
    from tfhash.data.sources import ImageSet

PARTS = ("query", "database", "labelled", "validation", "unlabelled")

TRIPLETS = "triplets"  # the protocol of `from_triplets`, which knows no labels
LISTS = "lists"  # that of `from_lists`


@dataclasses.dataclass(frozen=True, eq=False)
class RetrievalSplits:
    """Parts of an ImageSet, each an ascending int64 array of indices into it.

    query and database are searched with and in; labelled and unlabelled are learned from;
    validation is labelled, held out of learning, for monitoring. held_out: int64 [T, 3], triplets
    to judge by; none where labels tell what is relevant. protocol names all parameters but
    the seed. fingerprint: 16 hex digits that change with the protocol and with any id or label of
    a part. Raises ValueError where a query stands in another part, or an image is labelled,
    validation and unlabelled at once.
    """

    protocol: str
    seed: int
    query: np.ndarray
    database: np.ndarray
    labelled: np.ndarray
    validation: np.ndarray
    unlabelled: np.ndarray
    fingerprint: str
    held_out: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((0, 3), np.int64))

    def __post_init__(self) -> None:
        for others in (("database",), ("labelled", "validation", "unlabelled")):
            indices = np.concatenate([self.query, *(getattr(self, part) for part in others)])
            if repeated := len(indices) - len(np.unique(indices)):
                raise ValueError(
                    f"{self.protocol}: expected query, {', '.join(others)} without a common image,"
                    f" {repeated} are repeated"
                )

    def save(self, path: str | os.PathLike) -> None:
        """Writes every field to one .npz file, without pickle."""
        with open(path, "wb") as file:
            np.savez(file, **dataclasses.asdict(self))

    @classmethod
    def load(cls, path: str | os.PathLike) -> RetrievalSplits:
        """What `save` wrote. UserError for another file."""
        try:
            fields = npz.read(path, [field.name for field in dataclasses.fields(cls)])
        except ValueError as error:
            raise UserError(f"{path}: {error}; allowed: what save has written") from None
        return cls(
            protocol=str(fields["protocol"]),
            seed=int(fields["seed"]),
            fingerprint=str(fields["fingerprint"]),
            **{part: fields[part] for part in (*PARTS, "held_out")},
        )


def learnable(splits: RetrievalSplits) -> np.ndarray:
    """The positions of all images but queries.

    Batches hold none of the validation part; statistics, e.g. the means of features, are of it too.
    """
    return np.concatenate([splits.labelled, splits.validation, splits.unlabelled])


def make(
    image_set: ImageSet,
    *,
    protocol: str = "per_class",
    seed: int,
    queries_per_class: int | None,
    labelled_per_class: int,
    validation_fraction: float = 0.1,
) -> RetrievalSplits:
    """Splits image_set by a protocol; the same arguments give the same split on every machine.

    protocol: one of `protocols.PROTOCOLS`. queries_per_class: at least 1; None, for
    unseen_classes, takes all. labelled_per_class: at least 1, counting validation_fraction of them
    (0 to 0.5; rounded, at least one of four or more) that go to validation. Raises UserError,
    naming the flag.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"`protocol`={protocol}: expected one of {', '.join(PROTOCOLS)}")
    if not image_set.class_names:
        raise UserError(
            f"`protocol`={protocol}: the images have no classes; allowed then: `protocol`=triplets,"
            " with `triplets_csv`"
        )
    if seed < 0:
        raise UserError(f"`seed`={seed}: expected 0 or more")
    if queries_per_class is not None and queries_per_class < 1:
        raise UserError(f"`queries_per_class`={queries_per_class}: expected at least 1")
    if labelled_per_class < 1:
        raise UserError(f"`labelled_per_class`={labelled_per_class}: expected at least 1")
    if not 0 <= validation_fraction <= 0.5:
        raise UserError(f"`validation_fraction`={validation_fraction}: expected 0 to 0.5")

    validation_per_class = round(validation_fraction * labelled_per_class)
    if validation_fraction > 0 and labelled_per_class >= 4:
        validation_per_class = max(validation_per_class, 1)
    parts = PROTOCOLS[protocol](
        _without_copies(image_set),
        seed,
        queries_per_class,
        labelled_per_class,
        validation_per_class,
    )
    parts = _with_copies(image_set, parts)
    parts = {part: np.sort(parts[part]).astype(np.int64) for part in PARTS}
    description = (
        f"{protocol}(queries={queries_per_class or 'all'}, labelled={labelled_per_class},"
        f" validation={validation_fraction:g})"
    )
    return RetrievalSplits(
        protocol=description,
        seed=seed,
        fingerprint=_fingerprint(description, image_set, parts),
        **parts,
    )


def from_triplets(
    image_set: ImageSet, *, seed: int, held_out_fraction: float = 0.2
) -> RetrievalSplits:
    """Splits image_set by its triplets alone; the same arguments give the same split everywhere.

    held_out_fraction (0 to 1, both excluded; rounded, at least one) of the images that are the
    query of a triplet become queries; every other image is the database. Triplets of these queries
    are held out to judge by. What a method may learn from: triplets without any of these queries,
    whose images are `labelled`, and the rest of the database, `unlabelled`. Raises UserError,
    naming the flag, where one of the two would hold no triplet.
    """
    if image_set.triplets is None:
        raise UserError("`triplets_csv`: missing; `protocol`=triplets needs it")
    if not 0 < held_out_fraction < 1:
        raise UserError(f"`held_out_fraction`: {held_out_fraction}; allowed: above 0 and below 1")
    triplets = image_set.triplets
    in_order = random_order(len(image_set.ids), seed, QUERY_ORDER)
    candidates = in_order[np.isin(in_order, triplets[:, 0])]
    query = candidates[: max(round(held_out_fraction * len(candidates)), 1)]
    if image_set.first is not None:
        query = np.flatnonzero(np.isin(image_set.first, image_set.first[query]))
    learned = triplets[~np.isin(triplets, query).any(axis=1)]
    if not len(learned):
        raise UserError(
            f"`triplets_csv`: each of the {len(triplets)} triplets holds one of {len(query)} images"
            " that are held out; give more triplets or lower `held_out_fraction`"
        )
    database = np.setdiff1d(np.arange(len(in_order)), query)
    parts = {
        "query": np.sort(query),
        "database": database,
        "labelled": np.unique(learned),
        "validation": np.empty(0, np.int64),
        "unlabelled": np.setdiff1d(database, learned),
    }
    held_out = triplets[np.isin(triplets[:, 0], query)]
    description = f"{TRIPLETS}(held_out={held_out_fraction:g})"
    triplet_images = {"held_out": held_out.ravel(), "learned": learned.ravel()}
    return RetrievalSplits(
        protocol=description,
        seed=seed,
        fingerprint=_fingerprint(description, image_set, parts | triplet_images),
        held_out=held_out,
        **parts,
    )


def from_lists(
    image_set: ImageSet, *, seed: int, validation_fraction: float = 0.1
) -> RetrievalSplits:
    """The split that lists of papers have: test is the query, all other images are the database.

    train is labelled, of which validation_fraction (0 to 0.5, rounded), by the seed, is held out
    for validation; what stands in neither list is unlabelled. UserError where nobody listed the
    images.
    """
    if image_set.of_list is None:
        raise UserError(
            f"`protocol`={LISTS}: {image_set.name} has no lists; allowed: `dataset`=nus_wide"
        )
    if not 0 <= validation_fraction <= 0.5:
        raise UserError(f"`validation_fraction`={validation_fraction}: expected 0 to 0.5")
    if image_set.first is not None:
        raise UserError(
            f"`duplicates`: group, not with `protocol`={LISTS}, where the lists say which image "
            "stands in which part; allowed: keep, drop"
        )
    of_list = np.array(image_set.of_list)
    train = np.flatnonzero(of_list == "train")
    order = random_order(len(of_list), seed, LABELLED_ORDER)
    held_out = order[np.isin(order, train)][: round(validation_fraction * len(train))]
    parts = {
        "query": np.flatnonzero(of_list == "test"),
        "database": np.flatnonzero(of_list != "test"),
        "labelled": np.setdiff1d(train, held_out),
        "validation": np.sort(held_out),
        "unlabelled": np.flatnonzero(of_list == "database"),
    }
    description = f"{LISTS}(validation={validation_fraction:g})"
    return RetrievalSplits(
        protocol=description,
        seed=seed,
        fingerprint=_fingerprint(description, image_set, parts),
        **parts,
    )


def _without_copies(image_set: ImageSet) -> ImageSet:
    """What a protocol picks from: the first ones of copies. Pixels are left out."""
    if image_set.first is None:
        return image_set
    rows = np.unique(image_set.first)
    return dataclasses.replace(
        image_set,
        images=np.empty((len(rows), 0, 0, 3), np.uint8),
        labels=image_set.labels[rows],
        ids=tuple(image_set.ids[row] for row in rows),
        triplets=None,
        first=np.arange(len(rows)),
    )


def _with_copies(image_set: ImageSet, parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parts of the first ones as parts of all: copies stand where the first does.

    A copy with other labels than the first shows no method these labels: it is unlabelled where the
    first is learned from. One without a label judges nothing either, so where the first is a query
    it is left out.
    """
    if image_set.first is None:
        return parts
    rows = np.unique(image_set.first)
    full = {
        part: np.flatnonzero(np.isin(image_set.first, rows[positions.astype(np.int64)]))
        for part, positions in parts.items()
    }
    labels = image_set.labels
    other = np.flatnonzero((labels != labels[image_set.first]).any(axis=1))
    bare = other[~labels[other].any(axis=1)]
    learned = np.concatenate([full[part] for part in ("labelled", "validation", "unlabelled")])
    for part in ("query", "database"):
        full[part] = np.setdiff1d(full[part], bare)
    for part in ("labelled", "validation"):
        full[part] = np.setdiff1d(full[part], other)
    full["unlabelled"] = np.union1d(full["unlabelled"], np.intersect1d(other, learned))
    return full


def _fingerprint(protocol: str, image_set: ImageSet, parts: dict[str, np.ndarray]) -> str:
    """16 hex digits of SHA-256 over the protocol and the ids and labels of each part, in order."""
    digest = hashlib.sha256(protocol.encode())
    for part, indices in parts.items():
        digest.update(f"\n{part} {len(indices)} {image_set.labels.shape[1]}\n".encode())
        for index in indices:
            digest.update(image_set.ids[index].encode(errors="surrogateescape") + b"\0")
            digest.update(image_set.labels[index].tobytes())
    return digest.hexdigest()[:16]
