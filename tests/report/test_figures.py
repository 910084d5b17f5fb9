"""Which figures a set of runs has, and which lines are on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfhash import figures
from tfhash.errors import UserError
from tfhash.report import figures as result_figures
from tfhash.report import rows as results


def run_of(method="itq", variant="cnn", code_length=48, seed=0, labelled=500, **more):
    flags = {"code_length": code_length, "labelled_per_class": labelled, **more.pop("flags", {})}
    return {
        "dataset": "cifar10",
        "protocol": f"per_class(queries=100, labelled={labelled}, validation=0)",
        "seed": seed,
        "code_length": code_length,
        "method": method,
        "variant": variant,
        "map": 0.5,
        "precision_at100": 0.6,
        "precision_radius2": code_length / 100,
        "pr_curve": {"recall": [0.0, 1.0], "precision": [1.0, 0.1]},
        "flags": flags,
        **more,
    }


@pytest.fixture
def drawn(monkeypatch):
    """Path -> (its lines, their looks), instead of files."""
    kept = {}

    def keep_runs(lines, path, looks):
        kept[str(path)] = lines, looks

    def keep_points(lines, x_label, y_label, path, looks):
        kept[str(path)] = lines, looks

    monkeypatch.setattr(figures, "precision_recall", keep_runs)
    monkeypatch.setattr(figures, "precision_at", keep_runs)
    monkeypatch.setattr(figures, "against", keep_points)
    return kept


def draw(runs, bits=None):
    return result_figures.draw(results.sections(runs), Path("out"), bits)


SECTION = "out/cifar10-per_class-queries-100-labelled-500-validation-0/"


def test_precision_within_the_radius_by_code_length(drawn):
    runs = [run_of(code_length=k, seed=seed) for k in (12, 24) for seed in (0, 1)]
    draw(runs + [run_of(method="lsh", code_length=24)])
    lines, _ = drawn[SECTION + "precision_radius2.png"]
    assert lines == {"itq cnn": {12: [0.12, 0.12], 24: [0.24, 0.24]}}  # lsh has one length only


def test_curves_are_those_of_48_bits(drawn):
    paths = draw([run_of(code_length=k, seed=seed) for k in (48, 64) for seed in (0, 1)])
    lines, _ = drawn[SECTION + "precision_recall_48.png"]
    assert [(run["code_length"], run["seed"]) for run in lines["itq cnn"]] == [(48, 0), (48, 1)]
    assert (
        set(drawn)
        == set(map(str, paths))
        == {
            SECTION + "precision_radius2.png",
            SECTION + "precision_recall_48.png",
            SECTION + "precision_at_48.png",
        }
    )


@pytest.mark.parametrize(("bits", "expected"), [(None, 32), (12, 12)])
def test_curves_without_48_bits_are_the_longest_or_the_asked(drawn, bits, expected):
    draw([run_of(code_length=k) for k in (12, 32)], bits)
    assert SECTION + f"precision_recall_{expected}.png" in drawn


def test_a_section_without_the_asked_length_has_no_curves(drawn):
    draw([run_of(code_length=12), run_of(code_length=24, dataset="digits")], 12)
    assert not [path for path in drawn if "digits" in path]


def test_a_length_that_no_run_has_is_refused(drawn):
    with pytest.raises(UserError, match="`figure_bits`=16: .*; allowed: 12, 24"):
        draw([run_of(code_length=k) for k in (24, 12)], 16)


def test_runs_without_curves_are_left_out(drawn):
    draw([run_of(pr_curve=None), run_of(method="lsh", precision_at100=None)])
    assert list(drawn[SECTION + "precision_recall_48.png"][0]) == ["lsh cnn"]
    assert list(drawn[SECTION + "precision_at_48.png"][0]) == ["itq cnn"]


def test_eleven_lines_go_on_in_a_second_figure(drawn):
    draw([run_of(method=f"m{index:02}", map=1 - index / 100) for index in range(11)])
    first, _ = drawn[SECTION + "precision_recall_48.png"]
    second, _ = drawn[SECTION + "precision_recall_48_2.png"]
    assert list(first) == [f"m{index:02} cnn" for index in range(10)]
    assert list(second) == ["m10 cnn"]


def test_a_method_looks_the_same_on_all_figures_and_features_differ_in_dash(drawn):
    runs = [
        run_of(method=method, variant=variant, labelled=labelled, map=value * labelled)
        for labelled in (50, 500)
        for method, value in (("itq", 0.001 if labelled == 50 else 0.0005), ("lsh", 0.0007))
        for variant in ("cnn", "gist")
    ]
    draw(runs)
    seen = {}
    for _, looks in drawn.values():
        for label, look in looks.items():
            assert seen.setdefault(label, look) == look
    itq, itq_gist, lsh = seen["itq cnn"], seen["itq gist"], seen["lsh cnn"]
    assert itq[:2] == itq_gist[:2] and itq.line_style != itq_gist.line_style
    assert itq.colour != lsh.colour and itq.marker != lsh.marker


def test_rows_of_one_title_have_their_number(drawn):
    draw([run_of(map=0.5), run_of(map=0.4, flags={"margin": 2})])
    assert list(drawn[SECTION + "precision_at_48.png"][0]) == ["itq cnn #1", "itq cnn #2"]


def test_map_by_labelled_images(drawn):
    """Over two protocols; more steps for more labels are the same line, other flags are not."""
    alone = "ssgah.stage0_steps"
    runs = [
        run_of("ssgah", None, labelled=50, map=0.3, flags={"steps": 100, alone: 9, "margin": 1}),
        run_of("ssgah", None, labelled=50, map=0.4, flags={"steps": 200, alone: 9, "margin": 1}),
        run_of("ssgah", None, labelled=500, map=0.6, flags={"steps": 900, alone: 99, "margin": 1}),
        run_of("ssgah", None, labelled=500, map=0.7, flags={"steps": 900, alone: 99, "margin": 2}),
    ]
    draw(runs)
    lines, _ = drawn["out/cifar10-per_class-queries-100-validation-0/map_by_labelled_48.png"]
    assert lines == {"ssgah": {50: [0.4], 500: [0.6]}}  # 0.4: of the longer training


def test_two_lines_of_one_title_by_labelled_images_are_told_apart(drawn):
    runs = [
        run_of(labelled=labelled, flags={"margin": margin}, map=margin * labelled / 2000)
        for labelled in (50, 500)
        for margin in (1, 2)
    ]
    draw(runs)
    lines, _ = drawn["out/cifar10-per_class-queries-100-validation-0/map_by_labelled_48.png"]
    assert lines == {
        "itq cnn (1)": {50: [0.05], 500: [0.5]},
        "itq cnn (2)": {50: [0.025], 500: [0.25]},
    }


def test_map_by_the_part_of_synthetic_images(drawn):
    """real_fraction .1 is 90 % synthetic; a line a code length. Variants say the fraction too."""
    runs = [
        run_of(
            "dsh_gan",
            "real_0.1" if fraction else None,
            code_length=k,
            map=k / 100 - fraction,
            flags={"dsh_gan.real_fraction": fraction},
        )
        for k in (12, 24)
        for fraction in (0.0, 0.1)
    ]
    draw(runs)
    lines, _ = drawn[SECTION + "map_by_synthetic_dsh_gan.png"]
    assert lines == {
        "12 bits": {100: [0.12], 90: [pytest.approx(0.02)]},
        "24 bits": {100: [0.24], 90: [pytest.approx(0.14)]},
    }


@pytest.mark.parametrize("joined", ["{}", "without_classification_{}", "{}_vgg19"])
def test_each_variant_has_its_own_figure_of_fractions(drawn, joined):
    """Beside runs of the paper's main method: of the same fractions, but of other flags."""
    runs = []
    for fraction in (0.0, 0.25, 1.0):
        name = f"real_{fraction:g}" if fraction else ""
        for variant, other in ((name, 0), (joined.format(name).strip("_"), 1)):
            flags = {"dsh_gan.real_fraction": fraction, "other": other}
            runs.append(run_of("dsh_gan", variant or None, map=other + fraction, flags=flags))
    draw(runs)
    found = [lines["48 bits"] for path, (lines, _) in drawn.items() if "map_by_synthetic" in path]
    found.sort(key=lambda line: line[100])
    assert found == [{100: [0], 75: [0.25], 0: [1]}, {100: [1], 75: [1.25], 0: [2]}]


def test_files_are_written_where_the_answer_says(tmp_path):
    runs = [run_of(code_length=k) for k in (12, 48)]
    paths = result_figures.draw(results.sections(runs), tmp_path)
    assert sorted(tmp_path.rglob("*.png")) == sorted(paths)
    assert len(paths) == 3


def test_a_figure_that_fails_leaves_a_warning_and_the_others(tmp_path, monkeypatch, caplog):
    def fails(*_):
        raise ValueError("no such font")

    monkeypatch.setattr(figures, "against", fails)
    runs = [run_of(code_length=k) for k in (12, 48)]
    paths = result_figures.draw(results.sections(runs), tmp_path)
    assert [path.name for path in paths] == ["precision_recall_48.png", "precision_at_48.png"]
    assert all(path.is_file() for path in paths)
    assert [m for m in caplog.messages if "precision_radius2.png (ValueError: no such" in m]
