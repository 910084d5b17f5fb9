"""The pages of docs/ and what stands beside them: complete, in step with the code, and built."""

from __future__ import annotations

import configparser
import importlib.util
import json
import logging
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import tfhash
from tfhash import methods
from tfhash.training.workers import read_cluster

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"


def stage_modules() -> Iterator[ModuleType]:
    """Every module of a method, those of folders too."""
    for module in pkgutil.walk_packages(methods.__path__, "tfhash.methods."):
        yield importlib.import_module(module.name)


def terms() -> dict[str, set[str]]:
    """By module, the terms that its constants *TERMS name."""
    found = {}
    for module in stage_modules():
        constants = [value for name, value in vars(module).items() if name.endswith("TERMS")]
        groups = [g for c in constants for g in (c.values() if isinstance(c, dict) else [c])]
        if groups:
            found[module.__name__] = {term for group in groups for term in group}
    return found


def named_pages(nav: list) -> Iterator[str]:
    """The paths in the nav of mkdocs.yml, those below a heading too."""
    for entry in nav:
        for value in entry.values():
            yield from [value] if isinstance(value, str) else named_pages(value)


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_stages_terms_are_found():
    assert {"discriminator", "ssr_kept"} <= terms()["tfhash.methods.ssgah.stage"]
    assert {"triplet", "class_accuracy_syn"} <= terms()["tfhash.methods.dsh_gan.stage"]


def test_every_term_is_explained():
    """In a table of docs/training.md, `term` alone in its first cell or among others there."""
    rows = re.findall(r"^\| (`[^|]+) \|", (DOCS / "training.md").read_text("utf-8"), re.MULTILINE)
    explained = {term for row in rows for term in re.findall(r"`([^`]+)`", row)}
    told = {"validation_map", "learning_rate/hash", "gauge/order", "gauge/class_synthetic"}
    released = json.loads((REPOSITORY / "tests/methods/defaults.json").read_text("utf-8"))
    missing = {
        name: of_module - explained
        for name, of_module in terms().items()
        if name.split(".")[2] in released  # a new method needs no edit here
    }
    assert {name: few for name, few in missing.items() if few} == {}
    assert told <= explained


def test_the_workers_of_the_page_are_those_of_one_cluster():
    page = (DOCS / "training.md").read_text("utf-8")
    found = [read_cluster(text) for text in re.findall(r"^export TF_CONFIG='(.*)'$", page, re.M)]
    assert [worker.index for worker in found] == [0, 1]
    assert found[0].addresses == found[1].addresses and found[0].count == 2


def test_the_menu_names_every_page():
    # mkdocs.yml has no tags of its own, so the plain loader reads it.
    nav = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text("utf-8"))["nav"]
    pages = sorted(named_pages(nav))
    assert pages == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_every_method_has_its_part_of_the_pages(hooks):
    assert hooks.methods() == methods.names()
    assert hooks.METHODS in (DOCS / "api" / "methods.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("source", "text", "expected"),
    [
        ("gans.md", "[r](../results.md) and [s](serving.md)", "r and [s](serving.md)"),
        ("serving.md", "[c](../tests/conformance)", "c"),
        ("api/methods.md", "[s](../serving.md#top)", "[s](../serving.md#top)"),
        ("api/new-method.md", "[c](../../CONTRIBUTING.md#rules)", "c"),
        ("gans.md", "![p](synthetic_by_class.png)", "![p](synthetic_by_class.png)"),
    ],
)
def test_a_link_out_of_the_pages_becomes_its_words(hooks, caplog, source, text, expected):
    assert hooks.without_links_out(text, source) == expected
    assert caplog.records == []


def test_a_broken_link_out_of_the_pages_is_a_warning(hooks, caplog):
    with caplog.at_level(logging.WARNING):
        assert hooks.without_links_out("[r](../result.md)", "gans.md") == "r"
    assert ["../result.md" in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize("page", ["README.md", "results.md", "CONTRIBUTING.md"])
def test_links_of_pages_beside_docs_lead_to_files(page):
    text = (REPOSITORY / page).read_text("utf-8")
    links = {link for link in re.findall(r"\]\(([^)\s#]+)", text) if ":" not in link}
    assert links and [link for link in links if not (REPOSITORY / link).exists()] == []


def test_citation_and_setup_tell_the_same():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text("utf-8"))
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    assert citation["version"] == setup["metadata"]["version"] == tfhash.__version__
    assert citation["license"] == setup["metadata"]["license"] == "Apache-2.0"
    assert [len(paper["authors"]) for paper in citation["references"]] == [4, 4]


def test_the_strict_build_passes_and_a_broken_link_ends_it(tmp_path):
    """On a copy, for the build writes build/api; about ten seconds for both."""
    for name in ("mkdocs", "mkdocstrings", "material"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"no {name} here; `make docs` installs it")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("docs", "tfhash", "export", "serving", "tests"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=ignored)
    for path in REPOSITORY.glob("*.*"):
        if path.is_file():
            shutil.copy(path, tmp_path)

    def build() -> subprocess.CompletedProcess:
        # Not --quiet, which keeps warnings from --strict.
        command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    built = build()
    assert built.returncode == 0, built.stderr[-3000:]
    of_methods = (tmp_path / "site" / "api" / "methods.html").read_text("utf-8")
    shown = set(re.findall(r'id="tfhash\.methods\.(\w+)"', of_methods))
    assert shown == set(methods.names())
    with (tmp_path / "docs" / "index.md").open("a", encoding="utf-8") as page:
        page.write("\n[nowhere](nowhere.md)\n")
    built = build()
    assert built.returncode != 0 and "nowhere.md" in built.stderr
