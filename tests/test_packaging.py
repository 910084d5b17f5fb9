"""The wheel: every module of the source tree, under one name in site-packages."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FOLDERS = {"tfhash": "tfhash", "export": "tfhash/export", "serving": "tfhash/serving"}
COMMANDS = {"tfhash-train", "tfhash-evaluate", "tfhash-report", "tfhash-export"}
SETUPTOOLS = 68


def reason_to_skip() -> str | None:
    if importlib.util.find_spec("pip") is None:
        return "no pip here"
    version = importlib.metadata.version("setuptools")
    if int(version.partition(".")[0]) < SETUPTOOLS:
        return f"setuptools {version}; {SETUPTOOLS} is needed"
    return None


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """Built from a copy, since setuptools leaves build/ and *.egg-info beside the sources."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("packaging")
    sources = root / "sources"
    sources.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, sources)
    for folder in FOLDERS:
        shutil.copytree(
            REPOSITORY / folder, sources / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    process = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "--wheel-dir", str(root)],
        cwd=sources,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    (path,) = root.glob("*.whl")
    return zipfile.ZipFile(path)


def test_site_packages_gets_one_name(wheel):
    top = {name.split("/")[0] for name in wheel.namelist()}
    version = importlib.metadata.version("tfhash")
    assert top == {"tfhash", f"tfhash-{version}.dist-info"}


def test_every_file_of_the_source_tree_is_there(wheel):
    """A package that setup.cfg does not name, or a folder without __init__.py, is missing."""
    expected = {
        f"{package}/{path.relative_to(REPOSITORY / folder).as_posix()}"
        for folder, package in FOLDERS.items()
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name[0] != "."
    }
    found = {name for name in wheel.namelist() if name.startswith("tfhash/")}
    assert found == expected
    assert {"tfhash/export/__init__.py", "tfhash/serving/__init__.py"} <= found


def test_the_commands_are_functions_of_its_modules(wheel):
    (path,) = (name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    entry_points = configparser.ConfigParser()
    entry_points.read_string(wheel.read(path).decode())
    scripts = entry_points["console_scripts"]
    assert COMMANDS <= set(scripts)
    for target in scripts.values():
        module, function = target.split(":")
        tree = ast.parse(wheel.read(f"{module.replace('.', '/')}.py"))
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert function in defined, target
