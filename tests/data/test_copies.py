"""copies: groups by hand, near images by brute force, and splits that keep copies together."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfhash import evaluation
from tfhash.data import copies, protocols, sources, splits
from tfhash.errors import UserError

RNG = np.random.default_rng(0)
CLASSES, EACH, COPIES = 3, 20, 10


def test_copies_belong_to_the_first_one_with_a_label():
    """a b a b a, of which only the third a and the first b are labelled."""
    a, b = RNG.integers(0, 256, (2, 4, 4, 3), np.uint8)
    images = np.stack([a, b, a, b, a])
    labels = np.uint8([[0, 0], [1, 0], [0, 0], [0, 0], [0, 1]])
    assert copies.first_of_copies(images, labels).tolist() == [4, 1, 4, 1, 4]
    without_classes = np.zeros((5, 0), np.uint8)
    assert copies.first_of_copies(images, without_classes).tolist() == [0, 1, 0, 1, 0]


def test_thumbnails_are_means_of_parts():
    """12 px: parts of 2 x 2; and fewer pixels than a thumbnail has: they repeat."""
    image = RNG.integers(0, 256, (12, 12, 3), np.uint8)
    parts = range(0, 12, 2)
    by_hand = [image[y : y + 2, x : x + 2].mean(axis=(0, 1)) for y in parts for x in parts]
    found = copies.thumbnails(image[None], np.array([0]))
    np.testing.assert_allclose(found, np.reshape(by_hand, (1, 108)), rtol=1e-6)
    tiny = copies.thumbnails(np.full((1, 2, 2, 3), 7, np.uint8), np.array([0]))
    np.testing.assert_array_equal(tiny, np.full((1, 108), 7))


@pytest.mark.parametrize("seed", range(5))
def test_near_images_are_those_of_all_pairs(seed, monkeypatch):
    """Clusters with differences about the limit, on both sides of it; in blocks of 7 x 16 pairs."""
    monkeypatch.setattr(copies, "_ROWS", 7)
    monkeypatch.setattr(copies, "_COLUMNS", 16)
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, 255, (30, 108))
    small = (centres[rng.integers(0, 30, 90)] + rng.uniform(-3, 3, (90, 1))).astype(np.float32)
    small += rng.normal(0, 0.3, small.shape).astype(np.float32)
    distances = np.sqrt(((small[:, None] - small[None]) ** 2).mean(-1))
    np.fill_diagonal(distances, np.inf)
    expected = int((distances <= 2).any(axis=1).sum())
    assert copies.count_near(small) == expected and 20 < expected < 85


def test_many_images_that_are_all_alike_take_no_time():
    """20,000 pictures of one film: 200 million pairs, minutes if each were compared."""
    film = np.random.default_rng(0).normal(100, 0.3, (20_000, 108)).astype(np.float32)
    start = time.process_time()
    assert copies.count_near(film) == 20_000
    assert time.process_time() - start < 30


def test_a_photo_saved_again_is_near_and_another_is_not(tmp_path):
    photo = Image.fromarray(RNG.integers(0, 256, (9, 9, 3), np.uint8)).resize((200, 150))
    other = Image.fromarray(RNG.integers(0, 256, (9, 9, 3), np.uint8)).resize((200, 150))
    for name in ("cat/a.png", "dog/b.png", "dog/c.jpg", "dog/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
    photo.save(tmp_path / "cat/a.png")
    other.save(tmp_path / "dog/b.png")
    photo.save(tmp_path / "dog/c.jpg", quality=50)
    photo.resize((100, 75)).save(tmp_path / "dog/d.jpg")
    read = sources.load("folder", data_dir=tmp_path, image_size=32)
    assert read.notes == ("3 images are nearly the same as another one; nothing is done about it",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """3 classes of 20 images of noise, ten of them once more under other names and metadata; a copy
    without a label, and one in another class."""
    root = tmp_path_factory.mktemp("copies")
    for class_ in range(CLASSES):
        (root / f"class{class_}").mkdir(exist_ok=True)
        for i in range(EACH):
            image = Image.fromarray(RNG.integers(0, 256, (8, 8, 3), np.uint8))
            image.save(root / f"class{class_}" / f"{i:02}.png")
            if i < COPIES:
                image.save(root / f"class{class_}" / f"z{i:02}.png", dpi=(72 + i, 72))
            if (class_, i) == (0, 0):
                (root / "unlabelled").mkdir()
                image.save(root / "unlabelled" / "a.png")
            if (class_, i) == (0, 1):
                (root / "class1").mkdir()
                image.save(root / "class1" / "of another class.png")
    return root


def load(folder: Path, **arguments) -> sources.ImageSet:
    return sources.load("folder", data_dir=folder, image_size=8, **arguments)


def split(image_set: sources.ImageSet, seed: int, protocol: str = "per_class"):
    return splits.make(
        image_set, protocol=protocol, seed=seed, queries_per_class=8, labelled_per_class=4
    )


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS)
@pytest.mark.parametrize("seed", range(4))
def test_copies_stand_in_one_part(folder, seed, protocol):
    """Without groups, copies of queries stand in the database; with them no image crosses."""
    image_set = load(folder)
    crossing = {}
    for name in ("group", "keep"):
        of_name = load(folder, duplicates=name)
        parts = split(of_name, seed, protocol)
        pixels = [
            {image_set.images[row].tobytes() for row in rows}
            for rows in (parts.query, np.concatenate([parts.database, splits.learnable(parts)]))
        ]
        crossing[name] = len(pixels[0] & pixels[1])
        assert image_set.labels[parts.query].any(axis=1).all()
        assert image_set.labels[parts.database].any(axis=1).all()
    assert crossing["group"] == 0 < crossing["keep"]


def test_random_codes_find_nothing_where_copies_are_grouped(folder):
    """mAP@1 of noise, by chance a third: a copy has the code of its query, and is found at once."""

    def map_at_1(choice: str) -> float:
        found = []
        for seed in range(10):
            image_set = load(folder, duplicates=choice)
            parts = split(image_set, seed)
            codes = {image.tobytes(): RNG.bytes(8) for image in image_set.images}
            of_part = [
                np.array([[*codes[image.tobytes()]] for image in image_set.images[rows]], np.uint8)
                for rows in (parts.query, parts.database)
            ]
            labels = image_set.labels[parts.query], image_set.labels[parts.database]
            found.append(evaluation.evaluate(*of_part, *labels, code_length=64, map_at=(1,)).map[1])
        return float(np.mean(found))

    assert map_at_1("group") < 0.45
    assert map_at_1("keep") > 0.6
    assert map_at_1("drop") < 0.45


def test_what_was_found_is_told(folder):
    copied = CLASSES * COPIES + 2
    assert load(folder).notes == (
        "1 images without a label",
        f"{copied} images repeat another one; each stands in the part of the split where that one "
        "does (`duplicates`=group)",
        "1 of them have other labels than the image that they repeat",
    )
    dropped = load(folder, duplicates="drop")
    assert len(dropped.ids) == CLASSES * EACH and "they are left out" in dropped.notes[1]
    assert dropped.labels.any(axis=1).all()
    kept = load(folder, duplicates="keep")
    assert len(kept.ids) == CLASSES * EACH + copied and kept.first is None
    with pytest.raises(UserError, match="`duplicates`=some: expected one of group, drop, keep"):
        load(folder, duplicates="some")


def test_a_copy_without_a_label_judges_nothing_and_is_not_learned_from_beside_a_query(folder):
    image_set = load(folder)
    bare = image_set.ids.index("unlabelled/a.png")
    learned = {bool(np.isin(bare, split(image_set, seed).unlabelled)) for seed in range(30)}
    assert learned == {True, False}
    for seed in range(30):
        parts = split(image_set, seed)
        is_query = image_set.first[bare] in parts.query
        assert is_query != (bare in parts.unlabelled)


def test_triplets_of_copies_of_queries_are_not_learned_from():
    """Images 0 and 1 are one; where it is held out, both are, with all of their triplets."""
    images = RNG.integers(0, 256, (8, 4, 4, 3), np.uint8)
    images[1] = images[0]
    triplets = np.array([[0, 2, 3], [1, 4, 5], [6, 2, 7]])
    fields = dict(labels=np.zeros((8, 0), np.uint8), class_names=(), ids=tuple("abcdefgh"))
    first = copies.first_of_copies(images, fields["labels"])
    image_set = sources.ImageSet("tiny", images, **fields, triplets=triplets, first=first)
    queries = [set(splits.from_triplets(image_set, seed=seed).query) for seed in range(20)]
    assert {0, 1} in queries and all(not query & {0, 1} or {0, 1} <= query for query in queries)


def test_without_copies_a_split_is_that_of_before(folder):
    """Groups of one change no part, and so no fingerprint."""
    alone = load(folder, duplicates="drop")
    grouped = dataclasses.replace(alone, first=np.arange(len(alone.ids)))
    for seed in range(3):
        assert split(grouped, seed).fingerprint == split(alone, seed).fingerprint


def test_a_copy_with_other_labels_shows_no_method_these_labels(folder):
    """class0/01.png is also class1's "of another class.png": where the first is labelled, the
    second is learned from without its label, and both stand in the database."""
    image_set = load(folder)
    other = image_set.ids.index("class1/of another class.png")
    first = image_set.first[other]
    assert image_set.ids[first] == "class0/01.png"
    seen = set()
    for seed in range(30):
        parts = split(image_set, seed)
        for part in ("query", "database"):
            assert (other in getattr(parts, part)) == (first in getattr(parts, part))
        if first in np.append(parts.labelled, parts.validation):
            assert other in parts.unlabelled
            seen.add("labelled")
    assert seen == {"labelled"}


def test_a_class_that_is_too_small_without_its_copies_says_so(tmp_path):
    """Six files of which two are different: 3 images are needed."""
    for class_ in "ab":
        (tmp_path / class_).mkdir()
        for i in range(6):
            colour = 100 * (class_ == "b") + 20 * (i % 2)
            Image.new("L", (4, 4), colour).save(tmp_path / class_ / f"{i}.png")
    image_set = load(tmp_path)
    with pytest.raises(UserError, match="'a' has 2 images, 3 .*; images that repeat another one"):
        splits.make(image_set, seed=0, queries_per_class=1, labelled_per_class=2)
    splits.make(image_set, seed=0, queries_per_class=1, labelled_per_class=1)


def test_the_data_sets_of_the_papers_stay_as_they_are(monkeypatch):
    """Nothing is looked for unless it is asked for; the digits have no two of the same pixels, so
    no published split can differ."""
    asked = sources.load("digits", duplicates="drop")
    assert len(asked.ids) == 1797
    monkeypatch.setattr(copies, "first_of_copies", None)
    assert sources.load("digits").notes == () and sources.load("digits").first is None
    with pytest.raises(TypeError):
        sources.load("digits", duplicates="group")


def test_labels_alone_have_no_copies(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("path,labels\na.jpg,sea\nb.jpg,sky\n")
    for choice in (None, "keep"):
        assert sources.load("csv", labels_csv=path, duplicates=choice).first is None
    with pytest.raises(UserError, match="`duplicates`=drop: without `data_dir` no images can be"):
        sources.load("csv", labels_csv=path, duplicates="drop")


def test_drop_needs_no_second_copy_in_memory():
    """What is kept moves to the front of the array that is there."""
    images = np.arange(5, dtype=np.uint8).repeat(12).reshape(5, 2, 2, 3)
    images[1] = images[0]
    image_set = sources.ImageSet("tiny", images, np.ones((5, 1), np.uint8), ("a",), tuple("abcde"))
    dropped = sources._with_copies(image_set, copies.DROP)
    assert dropped.ids == tuple("acde") and np.shares_memory(dropped.images, images)
    assert dropped.images[:, 0, 0, 0].tolist() == [0, 2, 3, 4]
