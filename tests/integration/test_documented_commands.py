"""Each command line of README.md and docs/, with its flags as they are written.

Flags are added only where they cut the work. What needs data that are not here is parsed. The
blocks of docs/own-data.md, docs/serving.md and docs/bulk.md have their own tests.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import shlex
import shutil
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfhash import train
from tfhash.benchmark import __main__ as benchmark
from tfhash.benchmark import matrix
from tfhash.runs import experiment

REPOSITORY = Path(__file__).parents[2]
PAGES = [
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
WITH_A_TEST_OF_THEIR_BLOCKS = ("own-data.md", "serving.md", "bulk.md")
BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
COMMAND = re.compile(r"^\s*(?:\S*/)?python -m (tfhash\.[a-z_.]+) +(.+)$")

SHORT = {
    "steps": 2,
    "checkpoint_every": 2,
    "ssgah.gan_steps": 2,
    "dsh_gan.gan_steps": 2,
}
NEEDS_DATA = ("cifar10", "nus_wide")  # in a flag: a data set, and perhaps weights, of the user's
RUNS_UNTIL_STOPPED = ("tfhash.serving.server", "tfhash.serving.encode")
BOTH_STAGES = [
    "SSGAH, stage 1 of 2 (G and D): step 2 of 2",
    "SSGAH, stage 2 of 2 (hash network): step 2 of 2",
]


class Line(NamedTuple):
    """A command line of a page: the name of its module, and its arguments."""

    name: str
    arguments: list[str]

    @property
    def module(self) -> ModuleType:
        module = importlib.import_module(self.name)
        is_package = hasattr(module, "__path__")
        return importlib.import_module(f"{self.name}.__main__") if is_package else module

    @property
    def needs_data(self) -> bool:
        return any(name in argument for name in NEEDS_DATA for argument in self.arguments)


def lines_of(page: Path) -> list[Line]:
    """The commands of a page with at least one argument, in its order."""
    text = page.read_text(encoding="utf-8")
    result = []
    begin = 0
    for block in [*BLOCK.finditer(text), None]:
        between = text[begin : block.start() if block else None]
        for inline in INLINE.findall(between):
            one_line = " ".join(inline.split())
            if one_line.startswith("--flagfile="):
                one_line = f"python -m {train.NAME} {one_line}"
            result += _commands(one_line)
        if block and page.name not in WITH_A_TEST_OF_THEIR_BLOCKS:
            result += _commands(block[0])
        begin = block.end() if block else 0
    return result


def _commands(text: str) -> list[Line]:
    lines = text.replace("\\\n", " ").splitlines()
    found = (match for line in lines if (match := COMMAND.match(line)))
    return [Line(match[1], shlex.split(match[2])) for match in found]


LINES = {page: lines_of(page) for page in PAGES}
each_page = pytest.mark.parametrize(
    "page",
    [page for page in PAGES if LINES[page]],
    ids=lambda page: str(page.relative_to(REPOSITORY)),
)


def short(method: str) -> list[str]:
    """The flags of a method that cut its work."""
    known = matrix.flags_of(method)
    return [f"--{flag}={value}" for flag, value in SHORT.items() if flag in known]


@pytest.fixture(scope="module")
def run_line(command, parse_only, tmp_path_factory):
    """run_line(line): what it prints. Each kind of command with what cuts its work."""
    cache = f"--cache_dir={tmp_path_factory.mktemp('cache')}"
    done: dict[str, Path] = {}  # a run folder for each flagfile

    def run(line: Line) -> str:
        more: list[str] = []
        match line.name:
            case "tfhash.train":
                given = train.parse(line.arguments)
                # Workers need processes of their own: tests/integration/test_workers.py.
                if line.needs_data or given.values.get("strategy") == "multi_worker":
                    return ""
                more = [cache, *short(given.experiment.method)]
            case "tfhash.benchmark":
                return run_matrix(line)
            case "tfhash.export":
                more = ["--noverify"]
            case "tfhash.search" if "page" in line.arguments:
                parse_only(line.module, *line.arguments)
                return ""
            case "tfhash.prepare_nus_wide":
                parse_only(line.module, *line.arguments)
                return ""
            case name if name in RUNS_UNTIL_STOPPED:
                pytest.importorskip("tensorflow_serving", reason="needs the extra serving")
                parse_only(line.module, *line.arguments)
                return ""
        ended = command(line.module, *line.arguments, *more)
        assert (ended.status, ended.errors) == (0, ""), f"{line}\n{ended}"
        if line.name == train.NAME:
            (folder,) = re.findall("^run folder: (.*)$", ended.output, re.MULTILINE)
            done.setdefault(line.arguments[0], Path(folder).resolve())
        return ended.output

    def run_matrix(line: Line) -> str:
        """Lists all cells, then trains the first of each method or flagfile, if none is there."""
        of_user = ["--out=runs/cells", "--data_dir=data", "--weights=weights.npz"]
        arguments = [*line.arguments, *(of_user if line.needs_data else []), "--dry_run"]
        ended = command(benchmark, *arguments)
        assert ended.status == 0, f"{line}\n{ended}"
        cells = ended.output.splitlines()
        assert len(cells) > 3
        if line.needs_data:
            return ended.output
        first: dict[str, list[str]] = {}
        for cell in cells:
            python, m, name, *of_cell = shlex.split(cell, comments=True)
            assert (python, m, name) == ("python", "-m", train.NAME)
            first.setdefault(of_cell[0], of_cell)
        # What takes longest: graphs of two steps, and pictures.
        with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as after:
            after.callback(tf.config.run_functions_eagerly, False)
            tf.config.run_functions_eagerly(True)
            patch.setattr(experiment, "draw", lambda *_: None)
            for argument, of_cell in first.items():
                if argument in done:
                    shutil.copytree(done[argument], of_cell[-1].removeprefix("--model_dir="))
                else:
                    run(Line(train.NAME, of_cell))
        return ended.output

    return run


@pytest.fixture(scope="module")
def folder(run_line, tmp_path_factory) -> Path:
    """Where a reader is: runs/quickstart is finished, DIR is a run, flags.txt is there, photos."""
    root = tmp_path_factory.mktemp("reader")
    (root / "configs").symlink_to(REPOSITORY / "configs")
    rng = np.random.default_rng(0)
    for name, colour, count in (("cats", 0, 40), ("dogs", 150, 40), ("unlabelled", 75, 10)):
        (root / "photos" / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.uint8(rng.integers(0, 100, (20 + index, 24, 3)) + colour)
            Image.fromarray(pixels).save(root / "photos" / name / f"{index}.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        quickly = ["--method=lsh", "--dataset=digits", "--model_dir=runs/quickstart"]
        run_line(Line(train.NAME, quickly))
        run_line(Line("tfhash.export", ["--model_dir=runs/quickstart"]))
    (root / "DIR").symlink_to(root / "runs" / "quickstart")
    shutil.copy(root / "DIR" / "flags.txt", root)
    return root


@each_page
def test_the_commands_of_a_page_work_in_its_order(page, folder, run_line, monkeypatch):
    monkeypatch.chdir(folder)
    outputs = {tuple(line.arguments): run_line(line) for line in LINES[page]}
    for arguments, output in outputs.items():
        alone = not {"--strategy=multi_worker", "--workers=2"} & {*arguments}
        if "--flagfile=configs/ssgah.flags" in arguments and alone:
            assert [text for text in BOTH_STAGES if text not in output] == []


def test_the_lines_are_found():
    """Of README.md also one that goes over several lines; of own-data.md one of flags alone."""
    readme = LINES[REPOSITORY / "README.md"]
    assert {line.name.removeprefix("tfhash.") for line in readme} >= {
        "train", "evaluate", "benchmark", "report", "export", "serving.server", "serving.encode"
    }  # fmt: skip
    of_train = [line.arguments for line in readme if line.name == train.NAME]
    of_photos = ["--flagfile=configs/photos.flags", "--data_dir=photos", "--model_dir=runs/photos"]
    assert ["--flagfile=flags.txt"] in of_train and of_photos in of_train
    of_folder = ["--flagfile=configs/photos.flags", "--data_dir=photos"]
    assert Line(train.NAME, of_folder) in LINES[REPOSITORY / "docs" / "own-data.md"]
    assert sum(line.needs_data for lines in LINES.values() for line in lines) >= 2


def test_the_commands_of_make_quickstart_are_known(parse_only, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    found = _commands(text)
    assert [line.name for line in found] == ["tfhash.train", "tfhash.export", "tfhash.search"]
    for line in found:
        parse_only(line.module, *line.arguments)


def test_a_method_and_a_data_set_are_enough(run_line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = run_line(Line(train.NAME, ["--method=dhn", "--dataset=digits"]))
    assert "DHN, stage 1 of 1 (hash network): step 2 of 2" in output
    metrics = json.loads((tmp_path / "runs" / "dhn_digits_24" / "metrics.json").read_text())
    assert (metrics["method"], metrics["steps"]) == ("dhn", 2)


def test_the_commands_of_results_are_still_known(monkeypatch):
    """Those took hours, some on data that are not here."""
    monkeypatch.chdir(REPOSITORY)
    text = (REPOSITORY / "results.md").read_text(encoding="utf-8")
    found = re.findall(rf"python -m {re.escape(train.NAME)} ([^`|\n]+)", text)
    assert len(found) > 50
    for arguments in found:
        train.parse(shlex.split(arguments))
