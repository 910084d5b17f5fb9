"""Curves and bars, read back from their PNG files or figures."""

from __future__ import annotations

import numpy as np
import pytest

from tests.figures.reading import is_colour, read, run_metrics
from tfhash import figures
from tfhash.figures import style


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
