"""What an experiment is told: which data, which split of it, which method, and how to judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tfhash.data import copies, images, protocols, splits
from tfhash.evaluation import retrieval
from tfhash.hashers.base import MOST_SEED
from tfhash.settings import Configuration, setting


@dataclass(frozen=True)
class Experiment(Configuration):
    """Which data, which split of it, which method, and how it is judged."""

    method: str = setting("ssgah", "what learns the codes", group="method")
    dataset: str = setting(
        "digits",
        "digits, cifar10; cifar10_mosaics: a proxy for images of several labels, made of cifar10; "
        "nus_wide: prepared by tfhash.prepare_nus_wide; "
        "folder: one subfolder of --data_dir a class, and unlabelled/; csv: files of --data_dir "
        "with the labels of --labels_csv; images: files of --data_dir without labels",
        group="data",
    )
    data_dir: str | None = setting(
        None, "where the data set is", decides=False, group="data", path=True
    )
    labels_csv: str | None = setting(
        None,
        "CSV of columns path and labels (a;b), or path and one column of 0 and 1 a class",
        group="data",
        path=True,
    )
    triplets_csv: str | None = setting(
        None,
        "CSV of query,positive,negative paths, in place of triplets from labels",
        group="data",
        path=True,
    )
    unreadable: str = setting(
        "refuse",
        "refuse or skip images that cannot be read, or are missing",
        choices=("refuse", "skip"),
        group="data",
    )
    max_image_megapixels: int = setting(
        images.MEGAPIXELS,
        "pixels that an image file may have, in millions; a JPEG of up to five times as many is "
        "decoded at a reduced scale; exported with the encoder",
        least=1,
        most=1000,
        group="data",
    )
    duplicates: str | None = setting(
        None,
        "what becomes of images that repeat another one: group (all stand in one part of the "
        "split), drop, keep; by default group; of digits, cifar10, mosaics and nus_wide keep",
        choices=copies.CHOICES,
        group="data",
    )
    image_size: int | None = setting(
        None,
        "side in px that images are resized to; by default that of the data set",
        least=1,
        group="data",
    )
    protocol: str = setting(
        "per_class",
        "how the images are split: per_class, unseen_classes, triplets; lists: as train.txt and "
        "test.txt of nus_wide have it",
        choices=(*protocols.PROTOCOLS, splits.TRIPLETS, splits.LISTS),
        group="split",
    )
    queries_per_class: int = setting(
        20, "query images a class; 0 in unseen_classes: all", least=0, group="split"
    )
    labelled_per_class: int = setting(
        10, "labelled images a class, those for validation included", least=1, group="split"
    )
    validation_fraction: float = setting(
        0.1,
        "part of the labelled images that is not trained on but watched",
        least=0,
        most=0.5,
        group="split",
    )
    held_out_fraction: float = setting(
        0.2,
        "part of the queries of --triplets_csv that judges, not learned from (triplets)",
        above=0,
        below=1,
        group="split",
    )
    seed: int = setting(0, "seed of everything random", least=0, most=MOST_SEED, group="split")
    split_seed: int | None = setting(
        None, "seed of the split alone; by default --seed", least=0, group="split"
    )
    code_length: int = setting(24, "bits of a code", least=1, group="method")
    map_at: tuple[int, ...] = setting(
        (), "depths R of mAP@R, beside mAP over the whole ranking", least=1, group="judging"
    )
    precision_at: tuple[int, ...] = setting(
        (10, 20, 50, 100, 200, 500, 1000),
        "depths N of precision@N; 100 is always there",
        least=1,
        group="judging",
    )
    ndcg_at: tuple[int, ...] = setting(
        (),
        "depths R of NDCG@R, by the number of shared labels; with several labels an image 100 is "
        "always there",
        least=1,
        group="judging",
    )
    acg_at: tuple[int, ...] = setting(
        (),
        "depths R of ACG@R, the mean number of shared labels; with several labels an image 100 is "
        "always there",
        least=1,
        group="judging",
    )
    weighted_map_at: tuple[int, ...] = setting(
        (),
        "depths R of weighted mAP@R, of ACG in place of precision, beside that of the whole "
        "ranking; with several labels an image this one is always there",
        least=1,
        group="judging",
    )
    radius: int = setting(
        2, "Hamming radius of precision within a radius", least=0, group="judging"
    )
    ties: str = setting(
        "expected",
        "order of items at one distance: expected, stable, best, worst",
        choices=retrieval.TIES,
        group="judging",
    )
    convention: str = setting(
        "tfhash",
        "whose mAP: tfhash, deephash-pytorch, hashnet, thulab; theirs passes --ties over",
        choices=retrieval.CONVENTIONS,
        group="judging",
    )
    name: str | None = setting(None, "a label for the report", decides=False, group="judging")

    @property
    def loading(self) -> dict[str, Any]:
        """What decides which images are loaded, by the names that `sources.load` has for it."""
        names = "data_dir image_size unreadable max_image_megapixels duplicates labels_csv".split()
        lists = self.protocol == splits.LISTS
        of_flags = {name: getattr(self, name) for name in names}
        return {"name": self.dataset, "lists": lists, **of_flags}
