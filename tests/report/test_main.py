"""The page of results, and the command that writes it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfhash.report import page as results_page
from tfhash.report import rows as results

REPOSITORY = Path(__file__).parents[2]
PROTOCOL = "per_class(queries=100, labelled=500, validation=0)"


def run_of(method, variant, code_length, seed, mean_average_precision, **more):
    run = {
        "dataset": "cifar10",
        "protocol": PROTOCOL,
        "split_fingerprint": f"{seed}123456789abcdef",
        "seed": seed,
        "code_length": code_length,
        "database_size": 59_000,
        "method": method,
        "variant": variant,
        "map": mean_average_precision,
        "precision_at100": 0.8,
        "precision_radius2": code_length / 100,
        "labels_used": 90,
        "train_seconds": 1000.0 + seed,
        "steps": 5000,
        "hardware": "2 cores",
        "command": f"python -m tfhash.train --method={method} --seed={seed}",
        "flags": {"seed": seed, "code_length": code_length, "margin": 1},
        "not_as_published": {},
    }
    return run | more


def render(runs, notes=""):
    return results_page.render(results.sections(runs), "make-this-page", notes)


def lines_of(page, word):
    """The page's lines that hold a word, without their indent."""
    return [line.strip() for line in page.splitlines() if word in line]


# sh on GIST, 12 bits: the mean of .120 and .124 is .122, its deviation sqrt(2 * .002**2 / 1) =
# .0028; SSGAH prints .124 and .122 - .124 = -.002; DSH-GANs prints .127. 24 bits: .200 - .125. Two
# runs of 1,000 and 1,001 s take 1,000.5 s on the mean, which rounds to even.
GOLDEN = f"""\
## cifar10, {PROTOCOL}

| # | method | variant | mAP, 12 bits | mAP, 24 bits | paper | not as in the method's paper |
| --: | :-- | :-- | --: | --: | :-- | :-- |
| 1 | sh | gist | 0.122 ± 0.003 (0.124, -0.002) | 0.200 (0.125, +0.075) | SSGAH, Table 1 | - |
| 2 | agh | gist | - | 0.110 | - | margin=2, betas=2,4.5, kind=x |

| # | method | variant | bits | seeds | precision@100 | precision radius 2 | labels |\
 train s | steps |
| --: | :-- | :-- | :-- | :-- | --: | --: | --: | --: | --: |
| 1 | sh | gist | 12 / 24 | 0, 1 / 0 | 0.800 | 0.120 / 0.240 | 90 | 1,000 | 5000 |
| 2 | agh | gist | 24 | 0 | 0.800 | 0.240 | 90 | 1,000 | 5000 |

Splits: seed 0 `0123456789abcdef`, seed 1 `1123456789abcdef`.

Hardware: 2 cores.

1. sh gist: `python -m tfhash.train --method=sh --seed=0`
   - DSH-GANs, Table 1 has 0.127 at 12 bits, 0.128 at 24 bits
2. agh gist: `python -m tfhash.train --method=agh --seed=0`

## digits, per_class(queries=20, labelled=10, validation=0.1)

| # | method | variant | mAP, 32 bits | paper | not as in the method's paper |
| --: | :-- | :-- | --: | :-- | :-- |
| 1 | itq | - | 0.710 | - | ? |

| # | method | variant | bits | seeds | precision@100 | precision radius 2 | labels |\
 train s | steps |
| --: | :-- | :-- | :-- | :-- | --: | --: | --: | --: | --: |
| 1 | itq | - | 32 | - | - | - | - | - | - |

Splits: -.

Hardware: -.

1. itq: -
"""


def test_what_counts_shared_labels_has_columns_where_runs_have_it():
    graded = {"weighted_map": 0.9, "ndcg_at100": 0.65, "acg_at100": 1.5}
    runs = [run_of("sh", "gist", 12, 0, 0.12, **graded), run_of("agh", "gist", 12, 0, 0.11)]
    text = results_page.render(results.sections(runs), "a command")
    assert "| precision radius 2 | weighted mAP | NDCG@100 | ACG@100 | labels |" in text
    assert "| 0.120 | 0.900 | 0.650 | 1.500 | 90 |" in text
    assert "| 0.120 | - | - | - | 90 |" in text
    assert "NDCG" not in results_page.render(results.sections(runs[1:]), "a command")


def test_a_proxy_is_called_one_under_its_heading():
    run = run_of("sh", "gist", 12, 0, 0.12, dataset="cifar10_mosaics", proxy="a proxy for photos")
    text = results_page.render(results.sections([run, run_of("sh", "gist", 12, 0, 0.1)]), "it")
    assert f"## cifar10_mosaics, {PROTOCOL}\n\nThis data set is a proxy for photos.\n\n|" in text
    assert text.count("proxy") == 1


def test_the_page():
    other = {"margin": 2.0, "betas": [2.0, 4.5], "kind": "x"}
    runs = [
        run_of("sh", "gist", 12, 1, 0.124),
        run_of("sh", "gist", 12, 0, 0.120),
        run_of("sh", "gist", 24, 0, 0.200),
        run_of("agh", "gist", 24, 0, 0.110, not_as_published=other),
        {
            "dataset": "digits",
            "protocol": "per_class(queries=20, labelled=10, validation=0.1)",
            "method": "itq",
            "code_length": 32,
            "map": 0.71,
        },
    ]
    page = render(runs, "Seed 1 ran on a loaded machine.\n")
    head, tail = page[: page.index("## ")], page[page.index("## ") :]
    assert tail == GOLDEN
    assert head.startswith("# Results\n\nMade by `make-this-page`.\n\n")
    assert head.endswith("\n\nSeed 1 ran on a loaded machine.\n\n")
    assert "- SSGAH: Wang et al." in head and "- DSH-GANs: Qiu et al." in head


def test_a_matrix_stays_readable():
    """5 methods x 2 features x 4 lengths x 3 seeds: 10 rows a table and 10 commands."""
    runs = [
        run_of(method, features, code_length, seed, 0.5)
        for method in ("itq", "ksh", "lsh", "sdh", "sh")
        for features in ("cnn", "gist")
        for code_length in (12, 24, 32, 48)
        for seed in (0, 1, 2)
    ]
    page = render(runs)
    lines = page[page.index("## ") :].splitlines()
    assert len(lines) < 50
    assert max(map(len, lines)) < 200


def test_the_top_5000_of_nus_wide_stand_beside_the_whole_ranking():
    run = run_of("ssgah", None, 12, 0, 0.6, dataset="nus_wide", database_size=193_734)
    page = render([run | {"map_at5000": 0.8}])
    (header,) = lines_of(page, "mAP@5000")
    assert header.startswith("| # | method | variant | mAP@5000, 12 bits | paper |")
    assert "| 1 | ssgah | - | 0.800 (0.835, -0.035) | SSGAH, Table 1 |" in page
    assert "| 1 | ssgah | - | 12 | 0.600 | 0 |" in page  # mAP before the seeds


def test_a_number_on_which_both_papers_agree_stands_once():
    assert not lines_of(render([run_of("itq", "cnn", 12, 0, 0.2)]), "DSH-GANs, Table 1")


@pytest.mark.parametrize(
    "more",
    [
        {"protocol": PROTOCOL.replace("=0)", "=0.1)")},  # learned from 450 images a class
        {"not_as_published": {"backbone": "squeezenet"}},
        {"not_as_published": None},  # older runs do not tell
    ],
)
def test_a_gap_stands_only_where_protocol_and_method_are_the_papers(more):
    exact, other = run_of("ssgah", None, 12, 0, 0.6), run_of("ssgah", None, 12, 0, 0.6, **more)
    assert "| 0.600 (0.819, -0.219) |" in render([exact])
    assert "| 0.600 (0.819) |" in render([other])


def test_differences_on_the_same_splits():
    """.6 - .5, .7 - .6 and .5 - .7, seed 9 left out: mean 0, deviation .1732, t(.975, 2) 4.303."""
    runs = [run_of("ssgah", None, 12, seed, value) for seed, value in enumerate([0.5, 0.6, 0.7])]
    runs += [run_of("dpsh", None, 12, seed, value) for seed, value in enumerate([0.6, 0.7, 0.5])]
    runs += [run_of("dpsh", None, 12, 9, 0.9), run_of("dpsh", None, 24, 0, 0.9)]
    runs += [run_of("lsh", "gist", 12, 0, 0.2), run_of("sh", "gist", 12, 8, 0.2)]
    page = results_page.render(results.sections(runs), "make-this-page", "", "ssgah")
    assert "| minus ssgah |" in page
    cells = [line.split(" | ") for line in lines_of(page, "SSGAH, Table 1")]
    found = {line[1]: line[5] for line in cells}
    assert found["ssgah"] == "-"
    assert "| +0.000 ± 0.430 (3) / - |" in page
    assert "| -0.300 (1) |" in page  # lsh, .2 - .5, of one split
    assert found["sh"] == "-"


def test_a_row_says_what_it_changes():
    other = run_of("sh", "gist", 12, 0, 0.1)
    other["flags"] = other["flags"] | {"margin": 2}
    page = render([run_of("sh", "gist", 12, 0, 0.2), other])
    assert lines_of(page, "unlike") == ["- unlike row 1: `--margin=2`"]


def test_rows_of_other_hardware_or_splits_say_so():
    other = run_of("lsh", "cnn", 12, 0, 0.1, hardware="GPU", split_fingerprint="feed")
    page = render([run_of("sh", "cnn", 12, 0, 0.2), other])
    assert lines_of(page, "- hardware") == ["- hardware: 2 cores", "- hardware: GPU"]
    assert lines_of(page, "Splits") == [
        "Splits: seed 0 `0123456789abcdef` (row 1), seed 0 `feed` (row 2)."
    ]


def test_the_name_of_a_run_stands_beside_its_variant_and_cannot_break_the_table():
    page = render([run_of("sh", "gist", 12, 0, 0.5, name="a|b")])
    assert lines_of(page, "| 1 |")[0].startswith(r"| 1 | sh | gist a\|b | 0.500")


def tfhash_report(folder, *arguments):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "tfhash.report", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def runs_folder(tmp_path):
    """Two code lengths of one method; the folder that holds runs/."""
    for code_length in (12, 24):
        run = run_of("sh", "gist", code_length, 0, 0.5)
        folder = tmp_path / "runs" / str(code_length)
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(run))
    return tmp_path


def test_the_command_writes_page_csv_json_and_figures(runs_folder):
    (runs_folder / "notes.md").write_text(
        "What [we](docs/we.md#us) found, ![here](p/q.png). [Web](https://a.b/c.md), [root](/d), "
        "[below](#end), [mail](mailto:a@b.c)."
    )
    notes = (
        "What [we](we.md#us) found, ![here](../p/q.png). [Web](https://a.b/c.md), [root](/d), "
        "[below](#end), [mail](mailto:a@b.c)."
    )
    arguments = ["runs", "--output=docs/page.md", "--notes=notes.md"]
    arguments += ["--csv=docs/rows.csv", "--json=rows.json", "--figures_dir=figures"]
    result = tfhash_report(runs_folder, *arguments)
    assert result.returncode == 0, result.stderr
    picture = (
        "figures/cifar10-per_class-queries-100-labelled-500-validation-0/precision_radius2.png"
    )
    written = ["docs/page.md", "docs/rows.csv", "rows.json", picture]
    for path in written:
        assert f"wrote {path}\n" in result.stdout
        assert (runs_folder / path).stat().st_size
    sections = results.sections(results.read_runs([runs_folder / "runs"]))
    command = " ".join(["python -m tfhash.report", *arguments])
    page = (runs_folder / "docs" / "page.md").read_text()
    assert page == results_page.render(sections, command, notes)
    with (runs_folder / "docs" / "rows.csv").open(newline="") as file:
        assert [row["bits"] for row in csv.DictReader(file)] == ["12", "24"]
    assert [row["bits"] for row in json.loads((runs_folder / "rows.json").read_text())] == [12, 24]


def test_tables_alone_need_neither_tensorflow_nor_matplotlib():
    code = "import sys, tfhash.report; print({'tensorflow', 'matplotlib'} & {*sys.modules})"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    output = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert output == "set()\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no folder given; usage: python -m tfhash.report DIR [DIR ...]"),
        (["empty"], "no metrics.json in empty or below; give the folders of runs"),
        (["runs", "--notes=absent.md"], "--notes=absent.md: [Errno 2]"),
        (["runs", "--output=runs"], "--output=runs: [Errno 21]"),
        (["runs", "--csv=runs"], "--csv=runs: [Errno 21]"),
        (["runs", "--json=runs"], "--json=runs: [Errno 21]"),
        (["runs", "--figures_dir=runs/12/metrics.json"], "--figures_dir=runs/12/metrics.json: "),
        (
            ["runs", "--figures_dir=figures", "--figure_bits=16"],
            "--figure_bits=16: no run has codes of this length; allowed: 12, 24",
        ),
        (["runs", "--against=nosuch"], "--against: 'nosuch'; allowed: "),
        (["runs", "--outptu=page.md"], "Unknown command line flag 'outptu'"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, message, runs_folder):
    result = tfhash_report(runs_folder, *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(f"tfhash.report: error: {message}")
    assert result.stderr.count("\n") == 1
