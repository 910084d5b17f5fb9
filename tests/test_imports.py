"""Imports point one way: the rules of the design, and that they hold in every source file."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[1]
FOLDERS = {"tfhash": "tfhash", "export": "tfhash.export", "serving": "tfhash.serving"}

# A module may import what stands before it and beside it, not what comes after it.
CHAIN = (
    ("tfhash.codes", "tfhash.evaluation.conventions", "tfhash.losses", "tfhash.runs.provenance"),
    ("tfhash.evaluation.retrieval",),
    ("tfhash.networks", "tfhash.data"),
    ("tfhash.hashers.base",),
    ("tfhash.hashers.deep", "tfhash.hashers.shallow"),
    ("tfhash.methods",),
    ("tfhash.runs.experiment",),
    ("tfhash.runs.finished",),
    ("tfhash.train", "tfhash.evaluate"),
    ("tfhash.benchmark.matrix",),
    ("tfhash.benchmark.workers",),
    ("tfhash.benchmark",),
)

MAINS = (
    "tfhash.train tfhash.evaluate tfhash.benchmark tfhash.report tfhash.cli.mains "
    "tfhash.top_results tfhash.cli.flags "
    "tfhash.export.__main__ tfhash.serving.__main__ tfhash.serving.*.__main__"
)


class Rule(NamedTuple):
    """Names are modules or packages, with spaces between them; * stands for anything."""

    importers: str
    never: str
    but: str = ""
    without: str = ""  # importers that the rule does not speak of


RULES = (
    Rule(
        "tfhash.codes tfhash.evaluation.conventions tfhash.evaluation.retrieval",
        never="*",
        but="numpy tfhash.codes tfhash.evaluation.conventions",
    ),
    Rule("tfhash.losses", never="*", but="tensorflow"),
    Rule("tfhash.errors", never="*"),
    Rule("tfhash.networks", never="tfhash", but="tfhash.networks tfhash.errors"),
    Rule("tfhash.data", never="tfhash", but="tfhash.data tfhash.errors"),
    Rule(
        "tfhash.serving",
        never="tfhash",
        but="tfhash.serving tfhash.codes tfhash.errors",
        without="tfhash.serving.__main__ tfhash.serving.*.__main__",
    ),
    Rule(
        "tfhash.serving",
        never="tfhash",
        but="tfhash.serving tfhash.codes tfhash.errors tfhash.cli.mains",
    ),
    Rule(
        "tfhash", never="tfhash.export tfhash.serving", without="tfhash.export tfhash.serving"
    ),
    Rule("tfhash", never="absl.flags", without=MAINS),
)  # fmt: skip


def among(name: str, patterns: str) -> bool:
    return any(
        fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
        for pattern in patterns.split()
    )


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
    for rule in RULES:
        if (
            among(module, rule.importers)
            and not among(module, rule.without)
            and among(imported, rule.never)
            and not among(imported, rule.but)
        ):
            yield f"{rule.importers}: never {rule.never}"
    of_module, of_imported = (
        [level for level, names in enumerate(CHAIN) if among(name, " ".join(names))]
        for name in (module, imported)
    )
    if of_module and of_imported and of_imported > of_module:
        yield "the chain"
    if among(module, "tfhash.methods.*") and among(imported, "tfhash.methods"):
        one, other = (f"{name}..".split(".")[2] for name in (module, imported))
        if one != other and not (one.startswith(f"_{other}_") or other.startswith(f"_{one}_")):
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
        ("tfhash.data.nus_wide.builder", "from ...deep import Stage"),
        ("tfhash.hashers.base", "import tfhash.hashers.deep"),
        ("tfhash.hashers.deep", "def late():\n    from tfhash import methods"),
        ("tfhash.methods.itq", "from tfhash import experiment"),
        ("tfhash.methods.itq", "from tfhash.methods.lsh import LSH"),
        ("tfhash.methods.itq", "from . import lsh"),
        ("tfhash.methods.itq", "from tfhash import methods"),
        ("tfhash.methods.itq", "from tfhash.methods.ssgah.stage import SSGAHStage"),
        ("tfhash.runs.experiment", "from tfhash.train import main"),
        ("tfhash.runs.experiment", "from absl import app, flags"),
        ("tfhash.serving.index", "import absl.flags"),
        ("tfhash.figures", "from tfhash import serving"),
        ("tfhash.train", "from tfhash.export import save"),
        ("tfhash.serving.client", "from tfhash import mains"),
        ("tfhash.serving.client", "from tfhash.data import images"),
        ("tfhash.serving.server.__main__", "from tfhash import experiment"),
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
        ("tfhash.methods.ssgah", "from tfhash.methods.ssgah.stage import SSGAHStage"),
        ("tfhash.methods.ssgah.stage", "from tfhash.methods.ssgah import SSGAHConfig"),
        ("tfhash.methods.ssgah", "from tfhash.hashers.deep import Stage\nfrom tfhash import retrieval"),
        ("tfhash.train", "from absl import flags\nfrom tfhash import experiment, methods"),
        ("tfhash.export.saved_model", "from tfhash import experiment"),
        ("tfhash.serving.server.__main__", "from absl import flags\nfrom tfhash import mains"),
        ("tfhash.serving.client", "from tfhash import codes\nfrom tfhash.errors import UserError"),
    ],
)
def test_what_the_rules_allow_passes(module, source):
    assert not [rule for name in imports(source, module) for rule in violations(module, name)]


def test_a_package_imports_relative_to_itself():
    """`from . import x` means another module in a package than in its __init__."""
    assert list(imports("from . import x", "tfhash.data", is_package=True)) == ["tfhash.data.x"]
    assert list(imports("from . import x", "tfhash.data.folder")) == ["tfhash.data.x"]
