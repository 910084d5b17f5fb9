"""The page of results and the published numbers beside them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfhash import published, report
from tfhash.errors import UserError

REPOSITORY = Path(__file__).parents[1]
SSGAH_PAPER = REPOSITORY.parent / "shared" / "papers" / "ssgah_eccv2018.txt"
PROTOCOL = "per_class(queries=100, labelled=500, validation=0.1)"


def cifar10_run(seed=0, **more):
    run = {
        "dataset": "cifar10",
        "protocol": PROTOCOL,
        "split_fingerprint": f"{seed}123456789abcdef",
        "seed": seed,
        "code_length": 48,
        "database_size": 59_000,
        "method": "ssgah",
        "variant": "w_ar",
        "name": None,
        "map": 0.7,
        "precision_at100": 0.8,
        "precision_radius2": 0.6,
        "train_seconds": 1000.0,
        "steps": 5000,
        "hardware": "2 cores",
        "command": f"python -m tfhash.train --seed={seed}",
        "flags": {"seed": seed, "ssgah.stage1_dir": f"kept/{seed}", "ssgah.margin_sr": 12},
    }
    return run | more


def write_run(folder, **run):
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(run))


def rows(page):
    """The cells of the page's table rows, without headers."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [line for line in cells if line[0].isdigit()]


# Two runs: mean of .70 and .74 is .720, deviation sqrt(2 * .02**2 / 1) = .0283; the paper's w/ar
# at 48 bits has .829, and .720 - .829 = -.109; the mean of 1000 and 2001 s, 1500.5, rounds to even.
GOLDEN = f"""\
# Results

Made by `make-this-page`.

{report._HOW_TO_READ}

Seed 1 ran on a loaded machine.

## cifar10, {PROTOCOL}

| # | method | variant | bits | seeds | mAP | precision@100 | precision radius 2 | train s | steps \
| paper | gap |
| --: | :-- | :-- | --: | :-- | --: | --: | --: | --: | --: | --: | --: |
| 1 | ssgah | w_ar | 48 | 0, 1 | 0.720 ± 0.028 | 0.800 | 0.650 | 1,500 | 5000 | 0.829 | -0.109 |

1. **ssgah w_ar, 48 bits**
   - flags: -
   - splits: `01234567`, `11234567`
   - hardware: 2 cores
   - command: `python -m tfhash.train --seed=0`

## digits, per_class(queries=20, labelled=10, validation=0.1)

| # | method | variant | bits | seeds | mAP | precision@100 | precision radius 2 | train s | steps \
| paper | gap |
| --: | :-- | :-- | --: | :-- | --: | --: | --: | --: | --: | --: | --: |
| 1 | itq | - | 32 | - | 0.710 ± - | - | - | - | - | - | - |

1. **itq, 32 bits**
   - flags: -
   - splits: -
   - hardware: -
   - command: -
"""


def test_the_page():
    runs = [
        cifar10_run(seed=1, map=0.74, precision_radius2=0.7, train_seconds=2001.0),
        cifar10_run(seed=0),
        {
            "dataset": "digits",
            "protocol": "per_class(queries=20, labelled=10, validation=0.1)",
            "method": "itq",
            "code_length": 32,
            "map": 0.71,
        },
    ]
    assert report.render(runs, "make-this-page", "Seed 1 ran on a loaded machine.\n") == GOLDEN


def test_another_flag_is_another_row_that_says_so():
    runs = [
        cifar10_run(seed=0, map=0.6, flags={"seed": 0, "ssgah.margin_sr": 12, "ssgah.weight": 1}),
        cifar10_run(seed=1, map=0.7, flags={"seed": 1, "ssgah.margin_sr": 6, "ssgah.weight": 1}),
    ]
    page = report.render(runs, "command")
    assert [(row[4], row[5]) for row in rows(page)] == [("1", "0.700 ± -"), ("0", "0.600 ± -")]
    assert [line.strip() for line in page.splitlines() if "- flags:" in line] == [
        "- flags: `--ssgah.margin_sr=6`",
        "- flags: `--ssgah.margin_sr=12`",
    ]


@pytest.mark.parametrize("key", ["method", "variant", "code_length", "dataset", "protocol"])
def test_runs_without_flags_are_told_apart_by_their_setting(key):
    other = {key: 12 if key == "code_length" else "other"}
    page = report.render([cifar10_run(flags=None), cifar10_run(flags=None) | other], "command")
    assert len(rows(page)) == 2


def test_runs_older_than_a_flag_were_judged_by_its_default():
    runs = [
        cifar10_run(seed=0, map=0.6),
        cifar10_run(seed=1, map=0.7, flags={**cifar10_run()["flags"], "convention": "tfhash"}),
        cifar10_run(seed=2, map=0.8, flags={**cifar10_run()["flags"], "convention": "hashnet"}),
    ]
    assert [(row[2], row[4]) for row in rows(report.render(runs, "command"))] == [
        ("w_ar, mAP of hashnet", "2"),
        ("w_ar", "0, 1"),
    ]


@pytest.mark.parametrize(
    "flag", ["seed", "split_seed", "ssgah.stage1_dir", "cache_dir", "data_dir", "name"]
)
def test_seeds_and_places_do_not_split_an_experiment(flag):
    runs = [cifar10_run(seed=seed, flags={flag: seed, "margin": 1}) for seed in (0, 1)]
    assert len(rows(report.render(runs, "command"))) == 1


def test_short_codes_come_first_then_the_better_map():
    runs = [
        cifar10_run(code_length=48, method="low", map=0.1),
        cifar10_run(code_length=48, method="high", map=0.9),
        cifar10_run(code_length=12, method="short", map=0.5),
    ]
    assert [row[1] for row in rows(report.render(runs, "command"))] == ["short", "high", "low"]


def test_a_number_that_one_seed_lacks_is_no_mean():
    runs = [cifar10_run(seed=0), cifar10_run(seed=1, precision_at100=None)]
    assert rows(report.render(runs, "command"))[0][6] == "-"


def test_the_name_of_a_run_stands_beside_its_variant_and_cannot_break_the_table():
    page = report.render([cifar10_run(name="a|b")], "command")
    assert rows(page)[0][2] == r"w_ar, a\|b"


def test_read_runs_finds_every_file_once(tmp_path):
    write_run(tmp_path / "a" / "seed0", **cifar10_run(seed=0))
    write_run(tmp_path / "a" / "seed1", **cifar10_run(seed=1))
    runs = report.read_runs([tmp_path, tmp_path / "a", tmp_path / "a" / ".." / "a" / "seed1"])
    assert [run["seed"] for run in runs] == [0, 1]


def test_read_runs_wants_runs_in_every_folder(tmp_path):
    write_run(tmp_path / "run", **cifar10_run())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no metrics.json in .*empty"):
        report.read_runs([tmp_path / "run", tmp_path / "empty"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "metrics.json cannot be read as JSON: "),
        ("[]", "metrics.json: expected a JSON object, got list"),
        ('{"dataset": "cifar10"}', "metrics.json: protocol is None, expected str"),
        (json.dumps(cifar10_run(map="high")), "metrics.json: map is 'high', expected float"),
        (json.dumps(cifar10_run(flags=[1])), r"metrics.json: flags is \[1\], expected dict"),
    ],
)
def test_a_file_that_is_no_metrics_json_is_named(text, message, tmp_path):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(UserError, match=message):
        report.read_runs([tmp_path])


def tfhash_report(folder, *arguments):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "tfhash.report", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_command_writes_the_page_with_itself_and_the_notes(tmp_path):
    write_run(tmp_path / "runs" / "seed0", **cifar10_run())
    (tmp_path / "notes.md").write_text("What we found.")
    result = tfhash_report(tmp_path, "runs", "--output=docs/page.md", "--notes=notes.md")
    assert (result.returncode, result.stdout) == (0, "wrote docs/page.md\n"), result.stderr
    page = (tmp_path / "docs" / "page.md").read_text()
    command = "python -m tfhash.report runs --output=docs/page.md --notes=notes.md"
    assert page == report.render([cifar10_run()], command, "What we found.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no folder given; usage: python -m tfhash.report DIR [DIR ...]"),
        (["empty"], "no metrics.json in empty or below; give the folders of runs"),
        (["runs", "--notes=absent.md"], "--notes=absent.md: [Errno 2]"),
        (["runs", "--output=runs"], "--output=runs: [Errno 21]"),
        (["runs", "--outptu=page.md"], "Unknown command line flag 'outptu'"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, message, tmp_path):
    write_run(tmp_path / "runs", **cifar10_run())
    result = tfhash_report(tmp_path, *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(f"tfhash.report: error: {message}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (("cifar10", PROTOCOL, "ssgah", None, 12, 59_000), 0.819),
        (("cifar10", PROTOCOL, "ssgah", None, 12), 0.819),
        (("cifar10", "per_class(queries=100, labelled=500)", "lsh", "gist", 48), 0.131),
        (("cifar10", PROTOCOL, "ssgah", None, 16), None),
        (("cifar10", PROTOCOL, "ssgah", "another", 12), None),
        (("cifar10", PROTOCOL, "lsh", None, 48), None),
        (("cifar10", PROTOCOL, "ssgah", None, 12, 6_000), None),
        (("cifar10", "per_class(queries=100, labelled=5000)", "ssgah", None, 12), None),
        (("cifar10", "unseen_classes(queries=100, labelled=500)", "ssgah", None, 12), None),
        (("digits", PROTOCOL, "ssgah", None, 12), None),
    ],
)
def test_published_map_answers_only_for_the_papers_setting(setting, expected):
    assert published.published_map(*setting) == expected


def test_published_numbers_are_those_of_the_paper():
    if not SSGAH_PAPER.exists():
        pytest.skip("the text of the SSGAH paper is not beside the repository")
    ours = {
        "SSGAH(Ours)": ("ssgah", None),
        "SSGAH": ("ssgah", None),
        "w/ssr": ("ssgah", "w_ssr"),
        "w/ar": ("ssgah", "w_ar"),
        "baseline": ("ssgah", "baseline"),
        "DSH-GANs": ("dsh_gan", None),
    }
    ours |= {name.upper(): (name, None) for name in ("bgdh", "ssdh", "ninh", "cnnh")}
    for name in ("sdh", "itq", "sh", "lsh"):
        ours |= {name.upper(): (name, "gist"), f"{name.upper()}+CNN": (name, "cnn")}
    text = SSGAH_PAPER.read_text(encoding="utf-8")
    expected = {}
    for table in ("**Table 1.**", "**Table 3.**"):
        lines = text.split(table)[1].split("\n\n")[1].splitlines()[2:]  # below two header lines
        for name, *maps in (line.split("\t") for line in lines):
            numbers = dict(zip((12, 24, 32, 48), map(float, maps[:4]), strict=True))
            expected["cifar10", *ours[name]] = numbers
    assert published.PAPER == expected
