"""--help of each command."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest

from tfhash import methods, settings, train
from tfhash.runs.experiment_settings import Experiment
from tfhash.settings import fields_of

# Each with a flag that is required, if there is any, and the flag's line on the page.
COMMANDS = {
    "tfhash.evaluate": "  --model_dir=",
    "tfhash.benchmark.__main__": "  --methods=",
    "tfhash.deploy_training.__main__": "  --output=",
    "tfhash.report.__main__": "  --output=results.md",
    "tfhash.top_results": "  --output=",
    "tfhash.export.__main__": "  --model_dir=",
    "tfhash.serving.server.__main__": "  --port=8500",
    "tfhash.serving.encode.__main__": "  --target=",
    "tfhash.serving.deploy.__main__": "  --export_dir=",
}


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def page(command, tmp_path):
    """page(*arguments): the lines of the help of tfhash.train, which does nothing else."""

    def show(*arguments: object) -> list[str]:
        before = sorted(tmp_path.rglob("*"))
        ended = command(train, *arguments)
        assert (ended.status, ended.errors) == (0, "")
        assert sorted(tmp_path.rglob("*")) == before
        return ended.output.splitlines()

    return show


def flags_of(lines: list[str]) -> list[str]:
    return [m[1] for line in lines if (m := re.match(r"  --(?:\[no\])?([\w.]+)", line))]


def text_of(lines: list[str], flag: str) -> str:
    """The explanation below a flag, as one line."""
    begin = next(i for i, line in enumerate(lines) if flags_of([line]) == [flag]) + 1
    rest = lines[begin:]
    end = next(i for i, line in enumerate(rest) if not line.startswith("      "))
    return " ".join(line.strip() for line in rest[:end])


def test_it_opens_with_the_words_of_the_command(page):
    first, empty, words, *_ = page("--help")
    assert (first, empty) == ("python -m tfhash.train", "")
    assert words == train.__doc__.splitlines()[0]


def test_the_groups_stand_in_order_each_with_its_flags(page):
    lines = page("--help", "--method=dsh_gan")
    headings = [line.lower() for line in lines if re.fullmatch(r"[A-Z]+", line)]
    assert headings == list(settings.GROUPS)
    starts = [lines.index(heading.upper()) for heading in headings]
    groups = {
        heading: flags_of(lines[begin:end])
        for heading, begin, end in zip(headings, starts, [*starts[1:], None], strict=True)
    }
    some = {
        "data": "dataset",
        "split": "seed",
        "method": "dsh_gan.gan_steps",
        "network": "backbone",
        "training": "batch_size",
        "judging": "ties",
    }
    assert [name for group, name in some.items() if name not in groups[group]] == []
    assert groups["method"][:2] == ["method", "model_dir"]


@pytest.mark.parametrize("method", methods.names())
def test_only_the_flags_of_the_method_are_there_each_once(page, method):
    hasher = methods.get(method)
    own = [f"{method}.{name}" for name in fields_of(hasher.Config)]
    expected = [*fields_of(Experiment), *fields_of(hasher.Settings), *own, "model_dir"]
    assert sorted(flags_of(page(f"--method={method}", "--help"))) == sorted(expected)


def test_defaults_and_what_is_allowed(page):
    lines = page("--help")
    assert "  --validation_fraction=0.1" in lines
    assert text_of(lines, "validation_fraction").endswith("allowed: 0 to 0.5")
    assert text_of(lines, "seed").endswith("allowed: 0 to 1000000000")
    assert "  --precision_at=10,20,50,100,200,500,1000" in lines
    assert "  --data_dir=" in lines
    assert "  --[no]flip" in lines
    assert text_of(lines, "flip").endswith("(default: no)")
    for choice in ("ssgah", "w_ssr", "w_ar", "baseline"):
        assert choice in text_of(lines, "ssgah.variant")


def test_the_method_may_come_from_a_flagfile(page, tmp_path):
    (tmp_path / "mine.flags").write_text("--method=itq\n--steps=3\n")
    assert "itq.iterations" in flags_of(page("--help", "--flagfile=mine.flags"))
    found = flags_of(page("--flagfile=mine.flags", "--method=ssgah", "--help"))
    assert "ssgah.variant" in found and "itq.iterations" not in found


@pytest.mark.parametrize("flag", ["-h", "-help", "-?", "--helpshort", "--helpfull"])
def test_other_ways_to_ask(page, flag):
    assert page(flag) == page("--help")


def test_a_method_that_is_not_there_is_one_line(command):
    ended = command(train, "--help", "--method=nosuch")
    assert (ended.status, ended.output) == (2, "")
    (line,) = ended.errors.splitlines()
    assert line.startswith("tfhash.train: error: --method: 'nosuch'; allowed: agh, ")


@pytest.mark.parametrize(("module", "line"), COMMANDS.items())
def test_each_command_shows_its_flags_without_those_that_it_needs(command, module, line):
    if module.startswith("tfhash.serving.") and "deploy" not in module:
        pytest.importorskip("tensorflow_serving", reason="needs the extra serving")
    module = importlib.import_module(module)
    ended = command(module, "--help")
    assert (ended.status, ended.errors) == (0, "")
    first, _, words, *lines = ended.output.splitlines()
    assert first == f"python -m {module.NAME}"
    assert words == module.__doc__.splitlines()[0]
    assert line in lines
    assert text_of([*lines, ""], flags_of([line])[0])
    assert not {"verbosity", "flagfile", "alsologtostderr"} & set(flags_of(lines))  # of absl


def test_as_a_process_the_page_is_the_same(page):
    process = subprocess.run(
        [sys.executable, "-m", "tfhash.train", "--help", "--method=lsh"],
        capture_output=True,
        text=True,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.splitlines() == page("--help", "--method=lsh")
