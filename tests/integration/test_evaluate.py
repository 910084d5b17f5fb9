"""A tiny real run: what its folder holds, and that it is judged again as it was."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tfhash.evaluate as evaluate  # as attribute of tfhash it may be the function
from tfhash import train
from tfhash.runs import folder

pytestmark = pytest.mark.usefixtures("eagerly")  # tests/integration/test_resume.py has the graphs

FLAGS = """
--queries_per_class=3
--labelled_per_class=4
--code_length=12
--map_at=50
--precision_at=10,20
--steps=3
--checkpoint_every=2
--batch_size=6
--unlabelled_batch_size=4
--ssgah.gan_steps=2
--ssgah.gan_size=16
--ssgah.gan_width=2
--ssgah.condition_size=4
--ssgah.noise_size=4
""".split()


@pytest.fixture(scope="module")
def run(command, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    ended = command(train, f"--model_dir={directory}", *FLAGS)
    assert ended.status == 0, ended
    return directory


@pytest.fixture(scope="module")
def metrics(run) -> dict:
    return json.loads((run / "metrics.json").read_text())


def judged(command, run, *arguments) -> dict:
    """What tfhash.evaluate leaves in --output."""
    path = run.parent / "judged.json"
    ended = command(evaluate, f"--model_dir={run}", f"--output={path}", *arguments)
    assert ended.status == 0, ended
    return json.loads(path.read_text())


def test_it_prints_the_metrics_of_the_run(command, run, metrics):
    ended = command(evaluate, f"--model_dir={run}")
    assert (ended.status, ended.errors) == (0, "")
    printed = dict(re.findall(r"^  (\S.*\S) +(\d\.\d+)$", ended.output, re.MULTILINE))
    assert printed == {
        "mAP": f"{metrics['map']:.4f}",
        "mAP@50": f"{metrics['map_at50']:.4f}",
        "precision@100": f"{metrics['precision_at100']:.4f}",
        "precision within radius 2": f"{metrics['precision_radius2']:.4f}",
    }
    assert metrics["split_fingerprint"] in ended.output


def test_the_output_file_holds_the_metrics_of_the_run(command, run, metrics):
    output = judged(command, run)
    assert output == {key: metrics[key] for key in output}
    assert {"map", "map_at50", "precision_at10", "pr_curve", "ties"} <= output.keys()


def test_encoding_again_gives_the_codes_of_the_run(command, run, metrics):
    assert judged(command, run, "--encode")["map"] == metrics["map"]


def test_ties_bound_the_map(command, run, metrics):
    """12 bits after 3 steps leave many ties, so that the bounds are far from each other."""
    best, stable, worst = (
        judged(command, run, f"--ties={ties}")["map"] for ties in ("best", "stable", "worst")
    )
    assert best > metrics["map"] > worst
    assert best > stable > worst


def test_what_is_asked_for_is_what_is_measured_and_printed(command, run, metrics):
    """Nothing of the run's own judgement stands beside what another depth or radius gives."""
    arguments = ("--map_at=5", "--radius=0", "--precision_at=7", "--ties=best", "--ndcg_at=6",
                 "--acg_at=7,8", "--weighted_map_at=5")  # fmt: skip
    output = judged(command, run, *arguments)
    measured = {key for key in output if re.search(r"\d$", key)}
    assert measured == {
        *("map_at5", "precision_at7", "precision_at100", "precision_radius0"),
        *("ndcg_at6", "acg_at7", "acg_at8", "weighted_map_at5"),
    }
    # One label an image: ACG is the precision, and weighted mAP is mAP.
    assert output["acg_at7"] == pytest.approx(output["precision_at7"])
    assert output["weighted_map_at5"] == pytest.approx(output["map_at5"])
    assert output["weighted_map"] == pytest.approx(output["map"])
    printed = command(evaluate, f"--model_dir={run}", *arguments).output
    assert "mAP@5 " in printed and "mAP@50" not in printed
    assert "radius 0" in printed and "radius 2" not in printed
    assert "ties best" in printed
    for name, key in (("weighted mAP", "weighted_map"), ("weighted mAP@5", "weighted_map_at5"),
                      ("NDCG@6", "ndcg_at6"), ("ACG@8", "acg_at8")):  # fmt: skip
        assert re.search(rf"^  {name} +{output[key]:.4f}$", printed, re.MULTILINE), name


@pytest.mark.parametrize("convention", ["deephash-pytorch", "hashnet", "thulab"])
def test_the_convention_of_another_project(command, run, metrics, convention):
    output = judged(command, run, f"--convention={convention}")
    assert output["convention"] == convention and metrics["convention"] == "tfhash"
    assert output["map"] != metrics["map"]
    assert output["precision_at10"] == metrics["precision_at10"]
    ended = command(evaluate, f"--model_dir={run}", f"--convention={convention}")
    assert f"mAP by the convention of {convention}" in ended.output


def test_a_run_older_than_the_convention_is_read(command, run, metrics, tmp_path):
    flags = {name: value for name, value in metrics["flags"].items() if name != "convention"}
    old = {name: value for name, value in metrics.items() if name != "convention"}
    (tmp_path / "metrics.json").write_text(json.dumps(old | {"flags": flags}))
    assert folder.read(tmp_path)[0] == folder.read(run)[0]
    (tmp_path / "codes").symlink_to(run / "codes")
    assert judged(command, tmp_path)["map"] == metrics["map"]


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--convention=foo", "--convention: 'foo'; allowed: tfhash, deephash-pytorch, hashnet"),
        ("--ties=foo", "--ties: 'foo'; allowed: expected, stable, best, worst"),
        ("--radius=-1", "--radius: -1; allowed: at least 0"),
        ("--map_at=0", "--map_at: 0; allowed: at least 1"),
        ("--ndcg_at=0", "--ndcg_at: 0; allowed: at least 1"),
        ("--acg_at=5,x", "--acg_at: 5,x; allowed: ints"),
        ("--weighted_map_at=0", "--weighted_map_at: 0; allowed: at least 1"),
        ("--precision_at=5,x", "--precision_at: 5,x; allowed: ints"),
        ("--output=/dev/null/metrics.json", "--output: cannot write /dev/null/metrics.json"),
    ],
)
def test_a_mistake_is_one_line(command, run, argument, words):
    ended = command(evaluate, f"--model_dir={run}", argument)
    assert words in ended.line("tfhash.evaluate")


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut short"])
def test_codes_that_cannot_be_read(command, run, metrics, tmp_path, content):
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    if content is not None:
        (tmp_path / "codes").mkdir()
        (tmp_path / "codes" / "query.npz").write_bytes(content)
    ended = command(evaluate, f"--model_dir={tmp_path}")
    words = f"--model_dir: cannot read {tmp_path}/codes/query.npz"
    assert words in ended.line("tfhash.evaluate")


def test_data_of_another_split_is_not_judged_under_the_name_of_the_run(
    command, run, metrics, tmp_path
):
    other = {**metrics, "split_fingerprint": "0" * 16}
    (tmp_path / "metrics.json").write_text(json.dumps(other))
    ended = command(evaluate, f"--model_dir={tmp_path}", "--encode")
    assert ended.status == 2
    assert metrics["split_fingerprint"] in ended.errors and "0" * 16 in ended.errors


def test_flags_txt_gives_the_same_configuration(configurations, run):
    given = configurations(f"--flagfile={run}/flags.txt")
    assert given == folder.read(run)[0]
    assert given == configurations(*FLAGS)


def test_metrics_json_has_every_key_of_the_contract(metrics):
    keys = """method dataset protocol split_fingerprint seed code_length query_count database_size
    ties map map_at50 precision_at10 precision_at20 precision_at100 precision_radius2 pr_curve
    train_seconds steps versions"""
    assert set(keys.split()) - metrics.keys() == set()
    assert metrics["pr_curve"].keys() == {"recall", "precision"}
    # Within distances 0 to 12; within 12 bits stands the whole database.
    assert len(metrics["pr_curve"]["recall"]) == 13 and metrics["pr_curve"]["recall"][-1] == 1
    assert (metrics["query_count"], metrics["database_size"]) == (30, 1797 - 30)
    assert (metrics["steps"], metrics["code_length"], metrics["method"]) == (3, 12, "ssgah")
    assert metrics["versions"].keys() >= {"python", "tfhash", "tensorflow", "keras", "numpy"}


def test_train_seconds_are_those_of_both_stages(metrics):
    stages = metrics["stage1_seconds"], metrics["stage2_seconds"]
    assert min(stages) > 0
    assert metrics["train_seconds"] == pytest.approx(sum(stages))


def test_codes_are_there_without_pickle(run, metrics):
    ids = []
    for part, count in (("query", 30), ("database", 1767)):
        with np.load(run / "codes" / f"{part}.npz", allow_pickle=False) as file:
            arrays = dict(file)
        assert arrays["codes"].dtype == np.uint8 and arrays["codes"].shape == (count, 2)
        assert (arrays["codes"][:, 1] & 0b1111 == 0).all()  # 12 of 16 bits
        assert arrays["labels"].dtype == np.uint8 and arrays["labels"].shape == (count, 10)
        ids += list(arrays["ids"])
    assert sorted(ids) == [f"digits/{index:04d}" for index in range(1797)]


def test_figures_and_checkpoints_are_there(run):
    names = ("precision_recall", "precision_at", "top_results", "synthetic_triplets")
    for name in names:
        assert (run / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    found = {path.name for path in (run / "checkpoints").glob("*.weights.h5")}
    assert {"encoder.weights.h5", "hash-00000003.weights.h5", "gan-00000002.weights.h5"} <= found


@pytest.mark.parametrize(
    ("stage", "steps", "terms", "rates"),
    [
        ("gan", [2], "discriminator generator kl order_accuracy", "generator discriminator"),
        ("hash", [2, 3], "sr ssr ar discriminator generator validation_map",
         "hash generator discriminator"),
    ],
)  # fmt: skip
def test_the_logs_of_a_stage(run, stage, steps, terms, rates):
    """Scalars at the end of each epoch of two steps and of the shorter last one, and pictures."""
    events = EventAccumulator(str(run / "logs" / stage), size_guidance={"tensors": 0})
    events.Reload()
    tags = {*terms.split(), *(f"learning_rate/{name}" for name in rates.split())}
    for tag in tags:
        assert [event.step for event in events.Tensors(tag)] == steps, tag
    _, _, first, *_ = events.Tensors("synthetic_triplets")[0].tensor_proto.string_val
    assert first.startswith(b"\x89PNG")
