"""Names in figures, whatever their letters."""

from __future__ import annotations

import warnings

import matplotlib.image
import matplotlib.text
import numpy as np
import pytest

from tests.figures.reading import GREY, run_metrics, texts_of
from tfhash import figures
from tfhash.figures import style

NOT_MARKUP = ["under_$5_and_$10", "$x_{$", r"\frac{^", "_hidden", "a & b % #", "50 % {off}"]


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
