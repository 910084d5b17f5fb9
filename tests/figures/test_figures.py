"""The figures, read back from their PNG files."""

from __future__ import annotations

import warnings

import matplotlib.image
import matplotlib.text
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from tfhash import figures
from tfhash.figures import curves, images, style, synthetic

BLUE, MAGENTA, CYAN = (0, 0, 255), (255, 0, 255), (0, 255, 255)
YELLOW = (255, 255, 0)
PIXELS_PER_INCH = 200


def read(path):
    """The PNG as uint8 [H, W, 3]."""
    return np.rint(matplotlib.image.imread(path)[..., :3] * 255).astype(np.uint8)


def is_colour(picture, colour):
    """Where the picture has exactly this colour, a name or RGB in [0, 255]; bool [H, W]."""
    if isinstance(colour, str):
        colour = np.rint(np.multiply(to_rgb(colour), 255))
    return (picture == np.asarray(colour, np.uint8)).all(axis=-1)


def box(picture, colour):
    """top, bottom, left, right of a colour, the ends included."""
    rows, columns = np.nonzero(is_colour(picture, colour))
    return rows.min(), rows.max(), columns.min(), columns.max()


def plain(colour, *shape):
    return np.broadcast_to(np.asarray(colour, np.uint8), (*shape, 3))


@pytest.fixture
def drawn(monkeypatch):
    """The Figure objects that were drawn, instead of files."""
    kept = []
    for module in (curves, images, synthetic):
        monkeypatch.setattr(module, "save", lambda figure, path, **options: kept.append(figure))
    return kept


def run_metrics(precision, mean_average_precision=0.5, **more):
    curve = {"recall": [0.0, 0.5, 1.0], "precision": [precision] * 3}
    return {"map": mean_average_precision, "pr_curve": curve, **more}


def test_precision_recall_draws_each_label_at_its_precision(tmp_path):
    path = tmp_path / "new" / "folder" / "pr.png"
    figures.precision_recall({"low": run_metrics(0.2), "high": run_metrics(0.8)}, path)
    picture = read(path)
    # 3.4 inches wide; 0.75 of that high, plus 0.16 inches for one line of legend.
    assert picture.shape == (round((0.75 * 3.4 + 0.16) * 200), round(3.4 * 200), 3)
    plot = picture[: picture.shape[0] * 7 // 10]  # without the legend
    low, high = (np.nonzero(is_colour(plot, colour))[0] for colour in style.COLOURS[:2])
    assert high.max() < low.min()


def test_precision_recall_has_map_in_the_legend_and_a_hole_for_none(drawn):
    undefined = run_metrics(0.8, 0.8374)
    undefined["pr_curve"]["precision"][0] = None
    figures.precision_recall({"ssgah": undefined, "lsh": run_metrics(0.2, 0.1)}, "unused.png")
    texts = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert texts == ["ssgah (mAP 0.837)", "lsh (mAP 0.100)"]
    np.testing.assert_array_equal(drawn[0].axes[0].lines[0].get_ydata(), [np.nan, 0.8, 0.8])


NOT_MARKUP = ["under_$5_and_$10", "$x_{$", r"\frac{^", "_hidden", "a & b % #", "50 % {off}"]
GREY = np.full((1, 2, 2, 3), 128, np.uint8)


def labelled_figures(path, label):
    """Every figure that takes names of a user, with this one."""
    ten = np.repeat(GREY[None], 2, axis=1)
    run = run_metrics(0.5, precision_at10=0.5)
    hits = np.ones((1, 2), bool)
    figures.precision_recall({label: run}, path)
    figures.precision_at({label: run}, path)
    figures.against({label: {12: [0.5], 24: [0.6]}}, "bits", "mAP", path)
    figures.top_results(GREY, ten, hits, path, query_names=[label])
    figures.top_results_of_methods(GREY, {label: (ten, hits)}, path)
    figures.synthetic_triplets(GREY, GREY, GREY, path, class_names=[label])
    figures.synthetic_by_class(ten, ten, path, class_names=[label], titles=(label, label))
    figures.synthetic_label_sets(ten, ten, path, set_names=[label], superset_names=[label])


def texts_of(figure):
    """All texts that it shows, once the ticks have theirs."""
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


@pytest.mark.parametrize("label", NOT_MARKUP)
def test_names_are_no_markup(label, tmp_path, drawn):
    with matplotlib.rc_context({"text.usetex": True}):  # as a user's matplotlibrc may say
        labelled_figures(tmp_path / "unused.png", label)
    assert len(drawn) == 8
    for figure in drawn:
        found = [text for text in texts_of(figure) if label in text]
        assert found, figure
        marked = [t for t in figure.findobj(matplotlib.text.Text) if label in t.get_text()]
        assert not any(text.get_parse_math() or text.get_usetex() for text in marked)


def test_symbols_of_the_papers_are_still_set_as_such(tmp_path, drawn):
    figures.synthetic_triplets(GREY, GREY, GREY, tmp_path / "unused.png")
    symbols = drawn[0].axes[0].get_yticklabels()
    assert [text.get_text() for text in symbols] == ["$x$", "$G_p(x)$", "$G_n(x)$"]
    assert all(text.get_parse_math() for text in symbols)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("caf\udce9", r"caf\xe9"),
        ("\x1b[31mred\0", r"\x1b[31mred\x00"),
        ("_a" * 125, "_a" * 15 + "…" + "_a" * 15),
    ],
)
def test_names_of_any_bytes_are_drawn(label, expected, tmp_path, drawn):
    labelled_figures(tmp_path / "unused.png", label)
    for figure in drawn[2:]:  # the legends of the first two have the mAP in the middle or behind
        assert expected in texts_of(figure)


def test_characters_without_a_font_are_told_in_one_line_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(style, "_told", set())
    label = "\U0010fffd \U0010fffc"  # private use: no font has them
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            labelled_figures(tmp_path / "picture.png", label)
    assert len(caplog.messages) == 1 and "\n" not in caplog.messages[0]
    assert "\U0010fffc \U0010fffd" in caplog.messages[0]
    assert (tmp_path / "picture.png").is_file()


def test_lines_never_share_colour_and_style(drawn):
    figures.precision_recall({str(index): run_metrics(0.5) for index in range(14)}, "unused.png")
    styles = {(line.get_color(), line.get_linestyle()) for line in drawn[0].axes[0].lines}
    assert len(styles) == 14


def test_precision_at_takes_its_keys_in_numerical_order(drawn):
    metrics = {"precision_at1000": 0.3, "precision_at200": 0.6, "precision_radius2": 0.9}
    figures.precision_at({"ssgah": metrics}, "unused.png")
    axes = drawn[0].axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[200, 0.6], [1000, 0.3]])
    assert axes.get_xscale() == "linear"


def test_precision_at_spreads_orders_of_magnitude(drawn):
    figures.precision_at({"ssgah": {"precision_at1": 0.9, "precision_at100": 0.5}}, "unused.png")
    assert drawn[0].axes[0].get_xscale() == "log"


def test_repeats_are_averaged_at_equal_recall_with_a_band(drawn):
    """Precisions 1 - r and .5 (1 - r): at recall r the mean is .75 (1 - r)."""
    repeats = [
        {"map": 0.2, "pr_curve": {"recall": [0.0, 1.0], "precision": [1.0, 0.0]}},
        {"map": 0.4, "pr_curve": {"recall": [0.5, 1.0, 1.0], "precision": [0.25, 0.0, -9.0]}},
    ]
    figures.precision_recall({"itq": repeats}, "unused.png")
    axes = drawn[0].axes[0]
    recall, precision = axes.lines[0].get_data()
    assert np.isnan(precision[recall < 0.495]).all()  # the second curve has none there
    known = recall > 0.495
    np.testing.assert_allclose(precision[known], 0.75 * (1 - recall[known]), atol=1e-12)
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["itq (mAP 0.300)"]
    # At recall .5 they have .5 and .25: a deviation of .125 sqrt(2) each way of .375.
    band = axes.collections[0].get_paths()[0].vertices
    at_half = band[np.isclose(band[:, 0], 0.5), 1]
    assert at_half.min() == pytest.approx(0.375 - 0.125 * 2**0.5)
    assert at_half.max() == pytest.approx(0.375 + 0.125 * 2**0.5)


def test_a_single_run_has_no_band_and_its_own_recalls(drawn):
    figures.precision_recall({"itq": [run_metrics(0.5)]}, "unused.png")
    axes = drawn[0].axes[0]
    assert len(axes.collections) == 0
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [0.0, 0.5, 1.0])


def test_precision_at_averages_repeats_where_all_have_a_number(drawn):
    repeats = [{"precision_at10": 0.4, "precision_at20": 0.9}, {"precision_at10": 0.6}]
    figures.precision_at({"itq": repeats}, "unused.png")
    np.testing.assert_allclose(drawn[0].axes[0].lines[0].get_xydata(), [[10, 0.5]])


def test_lines_look_as_asked(drawn):
    look = style.Look.of(3, dash=1)
    runs = {"itq": run_metrics(0.5, precision_at10=0.5)}
    figures.precision_recall(runs, "unused.png", {"itq": look})
    figures.precision_at(runs, "unused.png", {"itq": look})
    figures.against({"itq": {12: [0.5]}}, "bits", "mAP", "unused.png", {"itq": look})
    for figure in drawn:
        line = figure.axes[0].lines[0]
        assert style.Look(line.get_color(), line.get_marker(), line.get_linestyle()) == look


def test_seventy_lines_differ_in_colour_or_marker():
    looks = [style.Look.of(index) for index in range(70)]
    assert len(set(looks)) == 70
    assert len({look.colour for look in looks[:7]}) == 7


def test_against_draws_means_in_order_with_bars_of_one_deviation(drawn):
    values = {"itq": {24: [0.5], 12: [0.2, 0.4]}}
    figures.against(values, "number of bits", "mAP", "unused.png")
    axes = drawn[0].axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[12, 0.3], [24, 0.5]])
    bars = axes.collections[0].get_segments()
    deviation = 0.1 * 2**0.5  # of .2 and .4, divided by n - 1
    np.testing.assert_allclose(bars[0], [[12, 0.3 - deviation], [12, 0.3 + deviation]])
    np.testing.assert_allclose(bars[1], [[24, 0.5], [24, 0.5]])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["12", "24"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("number of bits", "mAP")


def test_precision_at_writes_a_png_of_column_width(tmp_path):
    figures.precision_at({"ssgah": {"precision_at10": 0.9}}, tmp_path / "precision.png")
    assert read(tmp_path / "precision.png").shape[1] == round(3.4 * 200)


def test_against_wants_a_line():
    with pytest.raises(ValueError, match="values is empty"):
        figures.against({}, "bits", "mAP", "unused.png")


@pytest.mark.parametrize(
    ("draw", "runs", "message"),
    [
        (figures.precision_recall, {}, "runs is empty"),
        (figures.precision_recall, {"a": {"map": 0.5}}, r"runs\['a'\] has no key 'pr_curve'"),
        (figures.precision_recall, {"a": {"pr_curve": {}}}, r"runs\['a'\] has no key 'map'"),
        (figures.precision_at, {}, "runs is empty"),
        (figures.precision_at, {"a": {"map": 0.5}}, r"runs\['a'\] has no 'precision_at\{N\}'"),
    ],
)
def test_metrics_which_lack_something_are_named(draw, runs, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        draw(runs, tmp_path / "picture.png")


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
