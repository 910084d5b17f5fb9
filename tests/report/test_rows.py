"""Runs grouped into experiments, rows and sections, and their flat records."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tfhash import methods
from tfhash.errors import UserError
from tfhash.report import paired, records
from tfhash.report import rows as results
from tfhash.runs.experiment_settings import Experiment
from tfhash.settings import fields_of

PROTOCOL = "per_class(queries=100, labelled=500, validation=0.1)"


def cifar10_run(seed=0, code_length=48, **more):
    run = {
        "dataset": "cifar10",
        "protocol": PROTOCOL,
        "split_fingerprint": f"{seed}123456789abcdef",
        "seed": seed,
        "code_length": code_length,
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
        "flags": {"seed": seed, "code_length": code_length, "ssgah.margin_sr": 12},
    }
    return run | more


def only_section(*runs):
    (section,) = results.sections(runs)
    return section


def with_flags(seed=0, **flags):
    run = cifar10_run(seed=seed)
    return run | {"flags": run["flags"] | flags}


def write_run(folder, **run):
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(run))


def test_code_lengths_of_one_setting_are_one_row():
    runs = [cifar10_run(code_length=k, seed=seed) for k in (48, 12) for seed in (1, 0)]
    section = only_section(*runs)
    (row,) = section.rows
    assert section.code_lengths == [12, 48]
    assert {k: result.values("seed") for k, result in row.results.items()} == {
        12: [0, 1],
        48: [0, 1],
    }


def test_another_flag_is_another_row():
    section = only_section(
        cifar10_run() | {"map": 0.6}, with_flags(seed=1, **{"ssgah.margin_sr": 6})
    )
    first, second = section.rows
    assert (first.first["map"], second.first["map"]) == (0.7, 0.6)
    assert section.changes(first) == (first, {})
    assert section.changes(second) == (first, {"ssgah.margin_sr": 12})


@pytest.mark.parametrize("key", ["method", "variant"])
def test_runs_without_flags_are_told_apart_by_their_setting(key):
    section = only_section(cifar10_run(flags=None), cifar10_run(flags=None) | {key: "other"})
    assert len(section.rows) == 2


@pytest.mark.parametrize("key", ["dataset", "protocol"])
def test_another_protocol_is_another_section(key):
    assert len(results.sections([cifar10_run(), cifar10_run() | {key: "other"}])) == 2


def test_another_order_of_ties_is_told_and_compares_with_nothing():
    """Neither with the paper nor, in pairs, with another row of the same splits."""
    run = cifar10_run(
        method="itq", variant="cnn", not_as_published={}, ties="expected",
        protocol="per_class(queries=100, labelled=500, validation=0)",
    )  # fmt: skip
    best = run | {"ties": "best", "flags": run["flags"] | {"ties": "best"}}
    section = only_section(run, best)
    expected, other = sorted(section.rows, key=lambda row: row.title)
    assert (expected.title, other.title) == ("itq cnn", "itq cnn ties best")
    gaps = [records.record(section, row, row.first)["gap"] for row in (expected, other)]
    assert gaps[0] is not None and gaps[1] is None
    assert paired.difference(other.first, expected.first, "map") is None
    assert paired.difference(expected.first, expected.first, "map").mean == 0


def test_other_descriptors_are_another_experiment():
    runs = [cifar10_run(features_digest=digest) for digest in ("a", "b")]
    assert len(results.without_repeats(runs)) == 2
    assert len(only_section(*runs).rows) == 2


def test_fewer_labels_come_before_more():
    runs = [cifar10_run(protocol=f"per_class(labelled={count})") for count in (500, 50, 100)]
    protocols = [section.protocol for section in results.sections(runs)]
    assert protocols == [f"per_class(labelled={count})" for count in (50, 100, 500)]


@pytest.mark.parametrize(
    "flag",
    ["seed", "split_seed", "ssgah.stage0_dir", "ssgah.stage1_dir", "cache_dir", "data_dir", "name"],
)
def test_seeds_and_places_do_not_split_an_experiment(flag):
    runs = [cifar10_run(seed=seed, flags={flag: seed, "margin": 1}) for seed in (0, 1)]
    section = only_section(*runs)
    assert [len(result.runs) for result in section.results] == [2]


@pytest.mark.parametrize("name", methods.names())
def test_what_decides_nothing_does_not_split_an_experiment(name):
    """What `settings` says of the flags of each method; that of seeds stands above."""
    method = methods.get(name)
    for kind in (Experiment, method.Settings, method.Config):
        silent = {n for n, field in fields_of(kind).items() if not field.metadata["decides"]}
        assert silent <= results._NOT_DECISIVE


def test_runs_older_than_a_flag_were_judged_by_its_default():
    section = only_section(
        cifar10_run(seed=0, map=0.6),
        with_flags(seed=1, convention="tfhash") | {"map": 0.7},
        with_flags(seed=2, convention="hashnet") | {"map": 0.8},
        with_flags(seed=3, ndcg_at=[], acg_at=[], weighted_map_at=[]) | {"map": 0.6},
    )
    titles = {row.title: row.first.values("seed") for row in section.rows}
    assert titles == {"ssgah w_ar mAP of hashnet": [2], "ssgah w_ar": [0, 1, 3]}


def test_the_better_at_the_longest_code_comes_first():
    runs = [
        cifar10_run(code_length=48, method="low", map=0.1),
        cifar10_run(code_length=12, method="low", map=0.9),
        cifar10_run(code_length=48, method="high", map=0.5),
    ]
    assert [row.first["method"] for row in only_section(*runs).rows] == ["high", "low"]


def test_mean_and_deviation():
    result = results.Result((cifar10_run(map=0.7), cifar10_run(map=0.74, precision_at100=None)))
    assert result.mean("map") == pytest.approx(0.72)
    assert result.deviation("map") == pytest.approx((2 * 0.02**2) ** 0.5)  # divided by n - 1 = 1
    # One run lacks it, so the other's would be no mean of both.
    assert (result.mean("precision_at100"), result.deviation("precision_at100")) == (None, None)
    assert results.Result((cifar10_run(),)).deviation("map") is None


def test_nus_wide_is_judged_by_its_top_5000_where_a_run_has_it():
    run = cifar10_run(dataset="nus_wide", variant=None, database_size=193_734, map=0.6)
    whole, top = only_section(run), only_section(run | {"map_at5000": 0.8})
    assert (whole.measure, whole.published(whole.results[0])) == ("map", [])
    assert top.measure == "map_at5000"
    assert [number.map for number in top.published(top.results[0])] == [0.865]


def test_runs_without_map_are_judged_by_triplets():
    runs = [cifar10_run(map=None, triplet_accuracy=a, method=str(a)) for a in (0.7, 0.9)]
    section = only_section(*runs)
    assert (section.measure, section.measure_name) == ("triplet_accuracy", "triplet accuracy")
    assert [record["mean"] for record in records.records([section])] == [0.9, 0.7]


def test_read_runs_finds_every_file_once(tmp_path):
    write_run(tmp_path / "a" / "seed0", **cifar10_run(seed=0))
    write_run(tmp_path / "a" / "seed1", **cifar10_run(seed=1))
    runs = results.read_runs([tmp_path, tmp_path / "a", tmp_path / "a" / ".." / "a" / "seed1"])
    assert [run["seed"] for run in runs] == [0, 1]


def test_read_runs_wants_runs_in_every_folder(tmp_path):
    write_run(tmp_path / "run", **cifar10_run())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no metrics.json in .*empty"):
        results.read_runs([tmp_path / "run", tmp_path / "empty"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "metrics.json cannot be read as JSON: "),
        ("[]", "metrics.json: expected a JSON object, got list"),
        ('{"dataset": "cifar10"}', "metrics.json: protocol is None, expected str"),
        (json.dumps(cifar10_run(map=None)), "metrics.json: expected map or triplet_accuracy"),
        (json.dumps(cifar10_run(map="high")), "metrics.json: map is 'high', expected float"),
        (json.dumps(cifar10_run(flags=[1])), r"metrics.json: flags is \[1\], expected dict"),
    ],
)
def test_a_file_that_is_no_metrics_json_is_named(text, message, tmp_path):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(UserError, match=message):
        results.read_runs([tmp_path])


def test_a_record_in_full():
    runs = [
        cifar10_run(seed=1, map=0.74, variant=None, method="dsh_gan", train_seconds=2000.0),
        cifar10_run(seed=0, map=0.70, variant=None, method="dsh_gan"),
    ]
    (record,) = records.records(results.sections(runs))
    mean = (0.70 + 0.74) / 2
    assert record == {
        "dataset": "cifar10",
        "protocol": PROTOCOL,
        "row": 1,
        "method": "dsh_gan",
        "variant": None,
        "proxy": None,
        "name": None,
        "convention": "tfhash",
        "bits": 48,
        "measure": "map",
        "mean": pytest.approx(mean),
        "sd": pytest.approx(0.02 * 2**0.5),
        "n": 2,
        "paper": 0.811,
        "source": "SSGAH, Table 1",
        "gap": None,  # the runs do not tell whether they are the paper's method
        "not_as_published": None,
        "other_papers": [{"map": 0.802, "source": "DSH-GANs, Table 1"}],
        "seeds": [0, 1],
        "fingerprints": ["0123456789abcdef", "1123456789abcdef"],
        "map": pytest.approx(mean),
        "precision_at100": 0.8,
        "precision_radius2": 0.6,
        "weighted_map": None,
        "ndcg_at100": None,
        "acg_at100": None,
        "train_seconds": 1500.0,
        "labels_used": [],
        "steps": [5000],
        "database_size": 59_000,
        "hardware": "2 cores",
        "command": "python -m tfhash.train --seed=0",
        "changed_flags": {},
    }


def test_records_are_read_back_from_json_and_csv():
    third = 1 / 3  # has no short decimal form
    runs = [
        cifar10_run(map=third, name='a "name", with a comma\nand a line'),
        cifar10_run(code_length=12, variant=None, hardware=None),
        cifar10_run(code_length=24, method="other", dataset="digits"),
    ]
    flat = records.records(results.sections(runs))
    assert len(flat) == 3
    assert json.loads(records.to_json(flat)) == flat
    lines = list(csv.DictReader(io.StringIO(records.to_csv(flat), newline="")))
    for line, record in zip(lines, flat, strict=True):
        assert set(line) == set(record)
        for field, value in record.items():
            expected = json.dumps(value) if isinstance(value, list | dict) else value
            assert line[field] == ("" if expected is None else str(expected))
    assert [float(line["mean"]) for line in lines if line["name"]] == [third]


def test_the_order_of_records_does_not_hang_on_that_of_the_runs():
    runs = [
        cifar10_run(code_length=k, method=method, seed=seed, map=0.5)
        for k in (12, 24)
        for method in ("itq", "lsh", "sh")
        for seed in (0, 1)
    ]
    flat = records.records(results.sections(runs))
    assert flat == records.records(results.sections(runs[::-1]))
    assert [(record["method"], record["bits"]) for record in flat] == [
        (method, k) for method in ("itq", "lsh", "sh") for k in (12, 24)
    ]


def test_settings_that_tie_have_one_order_too():
    runs = [with_flags(**{"ssgah.margin_sr": margin}) for margin in (1, 2, 3)]
    orders = [
        [row.flags["ssgah.margin_sr"] for row in only_section(*order).rows]
        for order in (runs, runs[::-1])
    ]
    assert orders[0] == orders[1]


def test_a_run_that_stands_there_twice_counts_once():
    """Seeds 0, 0 and 1 with .7, .7 and .8: mean .75, deviation .0707; with all three .733, .058."""
    runs = [cifar10_run(0, map=0.7), cifar10_run(0, map=0.7), cifar10_run(1, map=0.8)]
    kept = results.without_repeats(runs)
    assert [run["seed"] for run in kept] == [0, 1]
    (row,) = only_section(*kept).rows
    assert row.first.mean("map") == pytest.approx(0.75)
    assert row.first.deviation("map") == pytest.approx(0.1 / 2**0.5)


@pytest.mark.parametrize(
    "other", [{"split_fingerprint": "x"}, {"seed": 1}, {"code_length": 12}, {"flags": {"a": 1}}]
)
def test_another_split_seed_length_or_flag_is_no_repeat(other):
    assert len(results.without_repeats([cifar10_run(), cifar10_run() | other])) == 2


def test_runs_without_a_seed_are_no_repeats():
    one, two = cifar10_run(), cifar10_run()
    del one["seed"], two["seed"]
    assert len(results.without_repeats([one, two])) == 2
