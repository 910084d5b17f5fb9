"""Figures of synthetic images, read back from their PNG files."""

from __future__ import annotations

import numpy as np
import pytest

from tests.figures.reading import BLUE, CYAN, MAGENTA, PIXELS_PER_INCH, YELLOW, box, plain, read
from tfhash import figures
from tfhash.figures import synthetic


def test_synthetic_triplets_stand_below_their_images(tmp_path):
    path = tmp_path / "triplets.png"
    figures.synthetic_triplets(
        plain(BLUE, 2, 4, 4), plain(MAGENTA, 2, 4, 4), plain(CYAN, 2, 4, 4), path
    )
    picture = read(path)
    x, positive, negative = (box(picture, colour) for colour in (BLUE, MAGENTA, CYAN))
    assert x[1] < positive[0] and positive[1] < negative[0]
    assert x[2:] == positive[2:] == negative[2:]


def test_synthetic_triplets_are_labelled(drawn):
    images = plain(BLUE, 2, 4, 4)
    figures.synthetic_triplets(images, images, images, "unused.png", class_names=["cat", "dog"])
    axes = drawn[0].axes[0]
    rows = [text.get_text() for text in axes.get_yticklabels()]
    assert rows == ["$x$", "$G_p(x)$", "$G_n(x)$"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["cat", "dog"]


def test_real_images_of_a_class_stand_left_of_the_synthetic_ones(tmp_path):
    """Two classes, two real and three synthetic images each, a black line between the halves."""
    path = tmp_path / "by_class.png"
    real = np.stack([plain(BLUE, 2, 4, 4), plain(MAGENTA, 2, 4, 4)])
    made = np.stack([plain(CYAN, 3, 4, 4), plain(YELLOW, 3, 4, 4)])
    figures.synthetic_by_class(real, made, path, class_names=["cat", "dog"])
    picture = read(path)
    blue, magenta, cyan, yellow = (box(picture, c) for c in (BLUE, MAGENTA, CYAN, YELLOW))
    assert blue[1] < magenta[0] and blue[2:] == magenta[2:]
    assert cyan[:2] == blue[:2] and yellow[:2] == magenta[:2] and cyan[2:] == yellow[2:]
    line = box(picture[:, blue[3] + 1 : cyan[2]], "black")
    height = magenta[1] - blue[0] + 1
    assert abs(line[1] - line[0] + 1 - height) <= 4
    width = blue[3] - blue[2] + 1  # of two images and the gap between them, 2.5 units
    assert cyan[2] - blue[3] - 1 == pytest.approx(synthetic.HALVES_GAP / 2.5 * width, abs=2)


def test_halves_by_class_are_named(drawn):
    pictures = np.zeros((2, 3, 4, 4, 3), np.uint8)
    figures.synthetic_by_class(
        pictures, pictures, "unused.png", class_names=["cat", "dog"], titles=("left", "right")
    )
    axes = drawn[0].axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat", "dog"]
    np.testing.assert_allclose(axes.get_yticks(), [0.5, 2.0])  # 4 px an image, 2 px between them
    assert [text.get_text() for text in axes.get_xticklabels()] == ["left", "right"]


@pytest.mark.parametrize("class_count", [2, 21])
def test_classes_fit_on_a_page(class_count, tmp_path):
    """With eight images a half; 21 classes, as of NUS-WIDE, are the most that are drawn."""
    path = tmp_path / "by_class.png"
    pictures = np.zeros((class_count, 8, 4, 4, 3), np.uint8)
    figures.synthetic_by_class(pictures, pictures, path, class_names=["label"] * class_count)
    height, width, _ = read(path).shape
    assert width < 8.3 * PIXELS_PER_INCH and height < 11.7 * PIXELS_PER_INCH  # A4


def test_label_sets_stand_beside_larger_ones(tmp_path):
    path = tmp_path / "label_sets.png"
    sets = np.stack([plain(BLUE, 2, 4, 4), plain(MAGENTA, 2, 4, 4)])
    larger = np.stack([plain(CYAN, 2, 4, 4), plain(YELLOW, 2, 4, 4)])
    names = {"set_names": ["sky", "sea"], "superset_names": ["sky + sun", "sea + sky"]}
    figures.synthetic_label_sets(sets, larger, path, **names)
    picture = read(path)
    blue, magenta, cyan, yellow = (box(picture, c) for c in (BLUE, MAGENTA, CYAN, YELLOW))
    assert blue[3] < cyan[2] and blue[1] < magenta[0]
    assert blue[:2] == cyan[:2] and magenta[:2] == yellow[:2]


def test_label_sets_are_named_above_their_images(drawn):
    pictures = np.zeros((2, 3, 4, 4, 3), np.uint8)
    names = {"set_names": ["sky", "sea"], "superset_names": ["sky + sun", "sea + sky"]}
    figures.synthetic_label_sets(pictures, pictures, "unused.png", **names)
    places = {text.get_text(): text.get_position() for text in drawn[0].axes[0].texts}
    assert list(places) == ["sky", "sea", "sky + sun", "sea + sky"]
    tops = sorted({image.get_extent()[3] for image in drawn[0].axes[0].images})
    assert [places["sky"][1], places["sea"][1]] == pytest.approx([top - 0.1 for top in tops])
    assert places["sky"][1] == places["sky + sun"][1] and places["sky"][0] < places["sky + sun"][0]


def test_the_nearest_real_images_stand_below_the_synthetic_ones(tmp_path):
    path = tmp_path / "nearest.png"
    real = np.stack([plain(MAGENTA, 3, 4, 4), plain(CYAN, 3, 4, 4)])
    figures.nearest_real(real, np.array([0.1, 0.5, 2]), path, synthetic=plain(BLUE, 3, 4, 4))
    picture = read(path)
    made, nearest, second = (box(picture, colour) for colour in (BLUE, MAGENTA, CYAN))
    assert made[1] < nearest[0] and nearest[1] < second[0]
    assert made[2:] == nearest[2:] == second[2:]


@pytest.mark.parametrize("seen", [True, False])
def test_nearest_real_images_are_labelled_also_without_the_synthetic_ones(seen, drawn):
    real = np.zeros((2, 3, 4, 4, 3), np.uint8)
    distances = np.array([0.1, 0.5, 2])
    figures.nearest_real(real, distances, "unused.png", synthetic=real[0] if seen else None)
    axes = drawn[0].axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.10", "0.50", "2.00"]
    rows = [text.get_text() for text in axes.get_yticklabels()]
    assert rows == ["synthetic"] * seen + ["nearest real", "next"]
    assert len(axes.images) == 1 + seen
