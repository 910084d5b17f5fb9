"""Figures of images, read back from their PNG files."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.figures.reading import (
    BLUE,
    CYAN,
    MAGENTA,
    PIXELS_PER_INCH,
    YELLOW,
    box,
    is_colour,
    plain,
    read,
    run_metrics,
)
from tfhash import figures
from tfhash.figures import images


def test_top_results_frames_hits_solid_green_and_misses_dashed_vermillion(tmp_path):
    query = plain(BLUE, 1, 4, 4)
    results = np.stack([plain(MAGENTA, 4, 4), plain(CYAN, 4, 4)])[np.newaxis]
    figures.top_results(query, results, np.array([[True, False]]), tmp_path / "top.png")
    picture = read(tmp_path / "top.png")
    query_box, hit_box, miss_box = (box(picture, colour) for colour in (BLUE, MAGENTA, CYAN))
    assert query_box[3] < hit_box[2] and hit_box[3] < miss_box[2]  # query, first, second result
    width = query_box[3] - query_box[2] + 1
    assert abs(width - images.LARGEST_IMAGE_WIDTH * PIXELS_PER_INCH) <= 2

    # A frame is 2 points wide, 5.6 pixels, half of them over the image. Two pixels outside of what
    # is left of the image all is frame; a dashed one lets the image through to its very edge.
    top, bottom, left, _ = hit_box
    assert is_colour(picture[top:bottom, left - 2], images.HIT_COLOUR).all()
    top, bottom, left, _ = miss_box
    dashes = is_colour(picture[top:bottom, left + 1], images.MISS_COLOUR).mean()
    assert 0.4 < dashes < 0.9  # dash 2, gap 1
    assert not is_colour(picture[:, : query_box[3] + 5], images.MISS_COLOUR).any()


def test_top_results_writes_precision_names_and_ranks(drawn):
    hits = np.array([[True, True, False, True], [False, False, False, True]])
    figures.top_results(
        plain(BLUE, 2, 3, 5),
        plain(CYAN, 2, 4, 3, 5),
        hits,
        "unused.png",
        query_names=["cat", "dog"],
    )
    axes = drawn[0].axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.75", "0.25"]  # 3 of 4, 1 of 4
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat", "dog"]
    ranks = [text.get_text() for text in axes.get_xticklabels()]
    assert ranks == ["query", "1", "2", "3", "4", "precision"]


def test_top_results_of_methods_stand_below_their_query(tmp_path):
    """Two queries, two methods with one result each: the query beside the first method's row."""
    path = tmp_path / "methods.png"
    queries = np.stack([plain(BLUE, 4, 4), plain(CYAN, 4, 4)])
    hit, miss = np.array([[True], [True]]), np.array([[False], [False]])
    results = {"itq": (plain(MAGENTA, 2, 1, 4, 4), hit), "lsh": (plain(YELLOW, 2, 1, 4, 4), miss)}
    figures.top_results_of_methods(queries, results, path)
    picture = read(path)
    first, second = box(picture, BLUE), box(picture, CYAN)
    itq, lsh = is_colour(picture, MAGENTA), is_colour(picture, YELLOW)
    of_first, of_second = slice(first[0], first[1] + 1), slice(second[0], second[1] + 1)
    assert itq[of_first].any() and not lsh[of_first].any()
    assert itq[of_second].any() and not lsh[of_second].any()
    between = lsh[first[1] : second[0]]
    assert between.any() and lsh[second[1] :].any()
    assert first[2:] == second[2:]  # one column


def test_top_results_of_methods_are_named_with_their_precision(drawn):
    hits = {"itq": [[True, True], [True, False]], "lsh": [[False, False], [True, True]]}
    results = {name: (plain(CYAN, 2, 2, 4, 4), np.array(value)) for name, value in hits.items()}
    figures.top_results_of_methods(plain(BLUE, 2, 4, 4), results, "unused.png")
    axes = drawn[0].axes[0]
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["itq", "lsh", "itq", "lsh"]
    assert [text.get_text() for text in axes.texts] == ["1.00", "0.00", "0.50", "1.00"]


def test_small_images_are_upscaled_without_blending(tmp_path):
    halves = np.stack([plain(BLUE, 2), plain(MAGENTA, 2)], axis=1)[np.newaxis]  # [1, 2, 2, 3]
    results = plain(CYAN, 1, 1, 2, 2)
    figures.top_results(halves, results, np.array([[True]]), tmp_path / "top.png")
    picture = read(tmp_path / "top.png")
    top, bottom, left, middle = box(picture, BLUE)
    right = box(picture, MAGENTA)[3]
    query = picture[top : bottom + 1, left : right + 1]
    assert (is_colour(query, BLUE) | is_colour(query, MAGENTA)).all()
    assert abs((middle - left + 1) - (right - middle)) <= 1


def test_image_grid_puts_two_white_pixels_between_images():
    rows = np.array([[1, 2], [3, 4]], np.uint8)  # grey levels of images of one pixel
    images = np.broadcast_to(rows[:, :, np.newaxis, np.newaxis, np.newaxis], (2, 2, 1, 1, 3))
    expected = np.full((4, 4), 255)
    expected[0, 0], expected[0, 3], expected[3, 0], expected[3, 3] = 1, 2, 3, 4
    grid = figures.image_grid(images)
    assert grid.dtype == np.uint8
    np.testing.assert_array_equal(grid, np.stack([expected] * 3, axis=-1))


IMAGES = np.zeros((2, 4, 4, 3), np.uint8)
RESULTS = np.zeros((2, 3, 4, 4, 3), np.uint8)
HITS = np.zeros((2, 3), bool)
SET_NAMES = {"set_names": ["a", "b"], "superset_names": ["a", "b"]}


@pytest.mark.parametrize(
    ("draw", "arguments", "options", "message"),
    [
        (figures.image_grid, ([],), {}, "rows is empty"),
        (figures.image_grid, ([IMAGES, IMAGES[:1]],), {}, r"rows\[1\] is uint8 \[1, 4, 4, 3\]"),
        (
            figures.top_results,
            (IMAGES / 255, RESULTS, HITS, "unused.png"),
            {},
            r"query_images is float64 \[2, 4, 4, 3\]; allowed: uint8 \[2, 4, 4, 3\]",
        ),
        (
            figures.top_results,
            (IMAGES, RESULTS[:, :0], HITS, "unused.png"),
            {},
            r"result_images is uint8 \[2, 0, 4, 4, 3\]; allowed: uint8 \[q, r, H, W, 3\]",
        ),
        (
            figures.top_results,
            (IMAGES, RESULTS, HITS.T, "unused.png"),
            {},
            r"hits is bool \[3, 2\]; allowed: bool \[2, 3\]",
        ),
        (
            figures.top_results,
            (IMAGES, RESULTS, HITS, "unused.png"),
            {"query_names": ["cat"]},
            "query_names has 1 entries; allowed: 2",
        ),
        (figures.top_results_of_methods, (IMAGES, {}, "unused.png"), {}, "results is empty"),
        (
            figures.top_results_of_methods,
            (IMAGES, {"itq": (RESULTS, HITS), "lsh": (RESULTS[:, :2], HITS)}, "unused.png"),
            {},
            r"results\['lsh'\]\[0\] is uint8 \[2, 2, 4, 4, 3\]; allowed: uint8 \[2, 3, 4, 4, 3\]",
        ),
        (
            figures.top_results_of_methods,
            (IMAGES, {"itq": (RESULTS, HITS[:, :2])}, "unused.png"),
            {},
            r"results\['itq'\]\[1\] is bool \[2, 2\]; allowed: bool \[2, 3\]",
        ),
        (
            figures.synthetic_triplets,
            (IMAGES, IMAGES, IMAGES[..., :1], "unused.png"),
            {},
            r"negative is uint8 \[2, 4, 4, 1\]; allowed: uint8 \[2, 4, 4, 3\]",
        ),
        (
            figures.synthetic_triplets,
            (IMAGES, IMAGES, IMAGES, "unused.png"),
            {"class_names": ["cat"] * 3},
            "class_names has 3 entries; allowed: 2",
        ),
        (
            figures.synthetic_by_class,
            (RESULTS, RESULTS[:1], "unused.png"),
            {"class_names": ["cat", "dog"]},
            r"synthetic is uint8 \[1, 3, 4, 4, 3\]; allowed: uint8 \[2, s, 4, 4, 3\]",
        ),
        (
            figures.synthetic_by_class,
            (RESULTS, RESULTS, "unused.png"),
            {"class_names": ["cat"]},
            "class_names has 1 entries; allowed: 2",
        ),
        (
            figures.synthetic_label_sets,
            (RESULTS, RESULTS[:, :2], "unused.png"),
            SET_NAMES,
            r"supersets is uint8 \[2, 2, 4, 4, 3\]; allowed: uint8 \[2, 3, 4, 4, 3\]",
        ),
        (
            figures.synthetic_label_sets,
            (RESULTS, RESULTS, "unused.png"),
            SET_NAMES | {"superset_names": ["a"]},
            "superset_names has 1 entries; allowed: 2",
        ),
        (
            figures.nearest_real,
            (RESULTS, np.zeros(2), "unused.png"),
            {},
            r"distances is float64 \[2\]; allowed: float64 \[3\]",
        ),
        (
            figures.nearest_real,
            (RESULTS, np.zeros(3), "unused.png"),
            {"synthetic": IMAGES},
            r"synthetic is uint8 \[2, 4, 4, 3\]; allowed: uint8 \[3, 4, 4, 3\]",
        ),
    ],
)
def test_images_that_do_not_fit_are_named(draw, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        draw(*arguments, **options)


def test_a_failure_leaves_the_old_picture_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "pr.png"
    path.write_bytes(b"old picture")

    def fail_halfway(figure, file, **options):
        file.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(Figure, "savefig", fail_halfway)
    with pytest.raises(OSError, match="no space left"):
        figures.precision_recall({"ssgah": run_metrics(0.5)}, path)
    assert path.read_bytes() == b"old picture"
    assert list(tmp_path.iterdir()) == [path]
