"""Imports point one way: the rules of the design, and that they hold in every source file."""

from __future__ import annotations

import ast
import configparser
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[1]
FOLDERS = {"tfhash": "tfhash", "export": "tfhash.export", "serving": "tfhash.serving"}

# The rooms by floors, from the ground up. A module may import what is in its own room, and in rooms
# of floors below; rooms of one floor do not know each other.
FLOORS = (
    ("tfhash.given",),
    (
        "tfhash.errors",
        "tfhash.codes",
        "tfhash.files",
        "tfhash.names",
        "tfhash.npz",
        "tfhash.paths",
        "tfhash.stderr",
    ),
    (
        "tfhash.settings",
        "tfhash.losses",
        "tfhash.figures",
        "tfhash.storage",
        "tfhash.exports",
        "tfhash.shards",
    ),
    ("tfhash.evaluation", "tfhash.cli", "tfhash.places"),
    ("tfhash.data", "tfhash.networks", "tfhash.features", "tfhash.search"),
    ("tfhash.training", "tfhash.layers"),
    ("tfhash.hashers",),
    ("tfhash.methods",),
    ("tfhash.runs",),
    ("tfhash.report",),
    ("tfhash.train", "tfhash.evaluate", "tfhash.top_results", "tfhash.prepare_nus_wide"),
    ("tfhash.benchmark", "tfhash.deploy_training"),
    ("tfhash.export", "tfhash.serving"),
)
# The face, which resolves names of every room when they are asked for, and the list of commands.
DOORS = ("tfhash", "tfhash.__main__")

MAINS = (
    "tfhash.train tfhash.evaluate tfhash.top_results tfhash.benchmark.__main__ "
    "tfhash.benchmark.headers tfhash.prepare_nus_wide "
    "tfhash.benchmark.headers tfhash.deploy_training.__main__ "
    "tfhash.report.__main__ tfhash.cli "
    "tfhash.search.__main__ "
    "tfhash.export.__main__ tfhash.serving.__main__ tfhash.serving.*.__main__"
)


class Rule(NamedTuple):
    """Names are modules or packages, with spaces between them; * stands for anything."""

    importers: str
    never: str
    but: str = ""
    without: str = ""  # importers that the rule does not speak of


# What everybody may know: the standard library alone.
GROUND = "tfhash.errors tfhash.files tfhash.names tfhash.paths tfhash.stderr"
# What exports and the files of codes are like, for who serves or searches.
FORMATS = "tfhash.exports tfhash.shards"

RULES = (
    Rule(
        "tfhash.codes tfhash.evaluation",
        never="*",
        but="numpy tfhash.codes tfhash.evaluation tfhash.given",
    ),
    Rule("tfhash.given tfhash.npz", never="*", but="numpy"),
    Rule("tfhash.losses", never="*", but="tensorflow"),
    Rule(GROUND, never="*"),
    Rule(FORMATS, never="*", but="pyarrow tfhash.errors tfhash.names"),
    Rule("tfhash.settings", never="*", but="tfhash.errors"),
    Rule("tfhash.storage", never="*", but="numpy tfhash.storage tfhash.errors"),
    Rule(
        "tfhash.networks",
        never="tfhash",
        but="tfhash.networks tfhash.errors tfhash.npz tfhash.storage",
    ),
    Rule(
        "tfhash.data",
        never="tfhash",
        but=f"tfhash.data tfhash.given tfhash.npz tfhash.storage {GROUND}",
    ),
    Rule("tfhash.features", never="tfhash", but=f"tfhash.features tfhash.npz {GROUND}"),
    Rule("tfhash.figures", never="tfhash", but=f"tfhash.figures {GROUND}"),
    Rule("tfhash.cli", never="tfhash", but=f"tfhash.cli tfhash.settings {GROUND}"),
    Rule(
        "tfhash.serving",
        never="tfhash",
        but=f"tfhash.serving tfhash.codes tfhash.npz {FORMATS} {GROUND}",
        without="tfhash.serving.__main__ tfhash.serving.*.__main__",
    ),
    Rule(
        "tfhash.serving",
        never="tfhash",
        but=f"tfhash.serving tfhash.codes tfhash.npz tfhash.cli {FORMATS} {GROUND}",
    ),
    Rule(
        "tfhash",
        never="tfhash.export tfhash.serving",
        without="tfhash.export tfhash.serving",
    ),
    Rule("tfhash", never="absl.flags", without=MAINS),
)


def among(name: str, patterns: str) -> bool:
    return any(
        fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
        for pattern in patterns.split()
    )


class Room(NamedTuple):
    name: str
    floor: int


def room(module: str) -> Room | None:
    """The room that a module stands in; None of what is not ours, and of the doors."""
    for floor, names in enumerate(FLOORS):
        for name in names:
            if among(module, name):
                return Room(name, floor)
    return None


def imports(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    """The full names that a module imports, wherever in it; the standard library is left out."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, node.module] if node.module else base
            names = [".".join([*base, alias.name]) for alias in node.names]
        yield from (name for name in names if name.split(".")[0] not in sys.stdlib_module_names)


def violations(module: str, imported: str) -> Iterator[str]:
    """The rules that are broken where a module imports a name."""
    if module in DOORS:
        return
    for rule in RULES:
        if (
            among(module, rule.importers)
            and not among(module, rule.without)
            and among(imported, rule.never)
            and not among(imported, rule.but)
        ):
            yield f"{rule.importers}: never {rule.never}"
    own, other = room(module), room(imported)
    if own and other and own.name != other.name and other.floor >= own.floor:
        yield "the floors"
    if among(module, "tfhash.methods.*") and among(imported, "tfhash.methods"):
        one, another = (f"{name}..".split(".")[2] for name in (module, imported))
        if one != another:
            yield "methods never import each other"


def sources() -> Iterator[tuple[str, Path]]:
    """Every module of the library by its name."""
    for folder, package in FOLDERS.items():
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            parts = path.relative_to(REPOSITORY / folder).with_suffix("").parts
            yield ".".join([package, *(part for part in parts if part != "__init__")]), path


def test_every_source_file_keeps_the_rules():
    broken = [
        f"{path.relative_to(REPOSITORY)} imports {imported} ({rule})"
        for module, path in sources()
        for imported in imports(path.read_text(encoding="utf-8"), module, path.stem == "__init__")
        for rule in violations(module, imported)
    ]
    assert broken == []


def test_the_files_are_found():
    names = {module for module, _ in sources()}
    assert {"tfhash", "tfhash.codes", "tfhash.methods.ssgah", "tfhash.export.__main__"} <= names
    assert all(among(name, "tfhash") for name in names)


def test_every_module_stands_in_a_room():
    homeless = [name for name, _ in sources() if name not in DOORS and room(name) is None]
    assert homeless == []


def test_every_room_is_there():
    names = {name for name, _ in sources()}
    assert [name for floor in FLOORS for name in floor if name not in names] == []


def test_setup_cfg_lists_every_package():
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    listed = setup["options"]["packages"].split()
    packages = {name for name, path in sources() if path.name == "__init__.py"}
    assert sorted(listed) == sorted(packages)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tfhash.codes", "import keras"),
        ("tfhash.codes", "from tfhash.errors import UserError"),
        ("tfhash.evaluation.retrieval", "from tfhash import losses"),
        ("tfhash.losses", "from tfhash.codes import pack"),
        ("tfhash.networks.backbones", "from tfhash.data import images"),
        ("tfhash.data.pipeline", "from tfhash.networks import features"),
        ("tfhash.data.pipeline", "from ..networks.features import cached_features"),
        ("tfhash.data.nus_wide.builder", "from ...training.stage import Stage"),
        ("tfhash.training.run", "from tfhash.hashers.base import Hasher"),
        ("tfhash.hashers.base", "import tfhash.methods.itq"),
        ("tfhash.hashers.deep", "def late():\n    from tfhash import methods"),
        ("tfhash.methods.itq", "from tfhash.runs import experiment"),
        ("tfhash.methods.itq", "from tfhash.methods.lsh import LSH"),
        ("tfhash.methods.itq", "from . import lsh"),
        ("tfhash.methods.itq", "from tfhash import methods"),
        ("tfhash.methods.itq", "from tfhash.methods.ssgah.stage import SSGAHStage"),
        ("tfhash.runs.experiment", "from tfhash.train import main"),
        ("tfhash.runs.experiment", "from absl import app, flags"),
        ("tfhash.runs.folder", "from tfhash.report import rows"),
        ("tfhash.report.rows", "from tfhash.benchmark import matrix"),
        ("tfhash.cli.mains", "from tfhash.runs import folder"),
        ("tfhash.serving.index", "import absl.flags"),
        ("tfhash.figures", "from tfhash import serving"),
        ("tfhash.train", "from tfhash.export import save"),
        ("tfhash.train", "from tfhash import evaluate"),
        ("tfhash.serving.client", "from tfhash.cli import mains"),
        ("tfhash.serving.client", "from tfhash.data import images"),
        ("tfhash.serving.server.__main__", "from tfhash.runs import experiment"),
    ],
)
def test_a_broken_rule_is_found(module, source):
    assert [rule for name in imports(source, module) for rule in violations(module, name)]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tfhash.codes", "import math\nimport numpy as np"),
        ("tfhash.evaluation.retrieval", "from tfhash.codes import pack"),
        ("tfhash.losses", "import tensorflow as tf"),
        ("tfhash.data.folder", "from absl import logging\nfrom . import images"),
        ("tfhash.methods.ssgah.hasher", "from tfhash.methods.ssgah.stage import SSGAHStage"),
        ("tfhash.methods.ssgah.hasher", "from tfhash.hashers.deep import HashNetworkHasher"),
        ("tfhash.hashers.deep", "from tfhash.evaluation import retrieval"),
        ("tfhash.train", "from absl import flags\nfrom tfhash.runs import experiment"),
        ("tfhash.benchmark.matrix", "from tfhash import methods, train"),
        ("tfhash.export.saved_model", "from tfhash.runs import experiment"),
        ("tfhash.serving.server.__main__", "from absl import flags\nfrom tfhash.cli import mains"),
        ("tfhash.serving.client", "from tfhash import codes\nfrom tfhash.errors import UserError"),
    ],
)
def test_what_the_rules_allow_passes(module, source):
    assert not [rule for name in imports(source, module) for rule in violations(module, name)]


def test_a_package_imports_relative_to_itself():
    """`from . import x` means another module in a package than in its __init__."""
    assert list(imports("from . import x", "tfhash.data", is_package=True)) == ["tfhash.data.x"]
    assert list(imports("from . import x", "tfhash.data.folder")) == ["tfhash.data.x"]
