"""tfhash.top_results on run folders whose codes are made by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tfhash import codes, figures, methods, top_results
from tfhash.errors import UserError
from tfhash.runs import experiment
from tfhash.runs import folder as run_folder


def test_nearest_first_and_ties_in_the_order_of_the_database():
    database = np.array([[0b0011], [0b0001], [0b0111], [0b0010], [0b0000]], np.uint8) << 4
    query = np.array([[0b0000], [0b0111]], np.uint8) << 4
    # Distances to 0000 are 2 1 3 1 0; to 0111, 1 2 0 2 3.
    top = codes.nearest(query, database, 4)
    np.testing.assert_array_equal(top, [[4, 1, 3, 0], [2, 0, 1, 3]])


@pytest.fixture(scope="module")
def digits():
    config = experiment.Experiment(method="ssgah", code_length=16)
    return config, *experiment.load_data(config)


@pytest.fixture(scope="module")
def write_run(digits, tmp_path_factory):
    """Makes a run folder whose codes are a function of the labels, multi-hot [n, 10]."""
    config, image_set, parts = digits
    method = methods.get(config.method)

    def write(name, codes_of, **more):
        folder = tmp_path_factory.mktemp("runs") / name
        for part in ("query", "database"):
            labels = image_set.labels[getattr(parts, part)]
            run_folder.write_codes(folder, part, {"codes": codes_of(labels), "labels": labels})
        run = {
            "method": config.method,
            "variant": None,
            "dataset": config.dataset,
            "protocol": parts.protocol,
            "split_fingerprint": parts.fingerprint,
            "code_length": config.code_length,
            "map": 0.5,
            "flags": {
                **dataclasses.asdict(config),
                **dataclasses.asdict(method.Settings()),
                **{f"ssgah.{k}": v for k, v in dataclasses.asdict(method.Config()).items()},
            },
        }
        (folder / "metrics.json").write_text(json.dumps(run | more))
        return folder

    return write


def of_labels(labels):
    return np.packbits(labels, axis=1)  # 10 bits of 16


def constant(labels):
    return np.zeros((len(labels), 2), np.uint8)


@pytest.fixture(scope="module")
def two_runs(write_run):
    return [write_run("good", of_labels), write_run("bad", constant, variant="baseline")]


def test_every_run_answers_the_same_queries(digits, two_runs, monkeypatch):
    _, image_set, parts = digits
    drawn = []
    monkeypatch.setattr(figures, "top_results_of_methods", lambda *args, hit: drawn.append(args))
    top_results.draw(two_runs, Path("unused.png"), query_count=3)
    ((queries, rows, path),) = drawn
    chosen = parts.query[[0, len(parts.query) // 2 - 1, -1]]  # 200 queries: 0, 99 (of 99.5), 199
    np.testing.assert_array_equal(queries, image_set.images[chosen])
    assert list(rows) == ["ssgah, 16 bits", "ssgah baseline, 16 bits"]
    assert path == Path("unused.png")
    # A code for each class finds nothing but the query's; one code for all, the database's first.
    images, hits = rows["ssgah, 16 bits"]
    assert hits.shape == (3, 10) and hits.all()
    images, hits = rows["ssgah baseline, 16 bits"]
    first = parts.database[:10]
    for row, query in enumerate(chosen):
        np.testing.assert_array_equal(images[row], image_set.images[first])
        same = image_set.labels[first].argmax(axis=1) == image_set.labels[query].argmax()
        np.testing.assert_array_equal(hits[row], same)


def test_an_excellent_result_has_all_labels_of_its_query():
    """DSH-GANs, Fig. 5: the query's two labels; the second query has none."""
    queries = np.array([[1, 1, 0], [0, 0, 0]], np.uint8)
    results = np.array([[[1, 1, 1], [1, 0, 1], [0, 0, 1]]] * 2, np.uint8)
    found = {name: top_results.are_hits(queries, results, name) for name in ("any", "all")}
    np.testing.assert_array_equal(found["any"], [[True, True, False], [False] * 3])
    np.testing.assert_array_equal(found["all"], [[True, False, False], [False] * 3])


@pytest.mark.parametrize(("relevant", "hit"), [("any", "relevant"), ("all", "excellent")])
def test_the_flag_decides_what_a_hit_is(two_runs, command, monkeypatch, relevant, hit):
    asked, drawn = [], []
    monkeypatch.setattr(top_results, "are_hits", lambda *args: asked.append(args[2]))
    monkeypatch.setattr(figures, "top_results_of_methods", lambda *_, hit: drawn.append(hit))
    flag = [] if relevant == "any" else [f"--relevant={relevant}"]
    assert command(top_results, *two_runs, "--output=unused.png", *flag).status == 0
    assert (asked, drawn) == ([relevant] * 2, [hit])


def test_runs_of_one_title_have_their_folder(write_run, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "top_results_of_methods", lambda *args, hit: drawn.append(args))
    runs = [write_run(name, constant) for name in ("one", "two")]
    top_results.draw(runs, Path("unused.png"), query_count=1)
    assert list(drawn[0][1]) == [f"ssgah, 16 bits ({folder})" for folder in runs]


def test_more_queries_than_there_are_means_all(two_runs, digits, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "top_results_of_methods", lambda *args, hit: drawn.append(args))
    top_results.draw(two_runs[:1], Path("unused.png"), query_count=10_000)
    assert len(drawn[0][0]) == len(digits[2].query)


def test_runs_of_another_split_are_refused(write_run, two_runs):
    other = write_run("other", constant, split_fingerprint="feed")
    with pytest.raises(UserError, match="other: its split is feed; allowed: .*good"):
        top_results.draw([two_runs[0], other], Path("unused.png"))


def test_data_of_another_split_are_refused(write_run):
    runs = [write_run(name, constant, split_fingerprint="feed") for name in ("one", "two")]
    with pytest.raises(UserError, match="--data_dir: .*whose split is feed"):
        top_results.draw(runs, Path("unused.png"))


def test_a_run_that_cannot_be_drawn_is_named(two_runs, write_run, tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}: no metrics.json"):
        top_results.draw([two_runs[0], tmp_path], Path("unused.png"))
    triplets = write_run("triplets", constant, map=None, triplet_accuracy=0.5)
    with pytest.raises(UserError, match="triplets: judged by triplets alone"):
        top_results.draw([triplets], Path("unused.png"))
    broken = write_run("broken", constant)
    (broken / "codes" / "query.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match="cannot read .*query.npz"):
        top_results.draw([broken], Path("unused.png"))


def test_an_output_that_cannot_be_written_is_named(two_runs, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--output=.*picture.png: "):
        top_results.draw(two_runs, tmp_path / "file" / "picture.png", query_count=1)


def test_the_command_draws(command, two_runs, tmp_path):
    path = tmp_path / "top.png"
    ended = command(top_results, *two_runs, f"--output={path}", "--queries=2")
    assert ended.status == 0
    assert ended.output.endswith(f"wrote {path}\n")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_command_without_a_run_ends_in_one_line(command):
    ended = command(top_results, "--output=top.png")
    assert ended.status == 2
    assert ended.errors == (
        "tfhash.top_results: error: no run given; usage: python -m tfhash.top_results RUN "
        "[RUN ...] --output=FILE\n"
    )


def test_a_flag_that_is_wrong_ends_in_one_line(command):
    ended = command(top_results, "run", "--output=top.png", "--queries=0")
    assert "--queries=0" in ended.line("tfhash.top_results")
