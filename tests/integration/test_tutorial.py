"""examples/tutorial.ipynb: every cell runs, and what it shows is above chance."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbformat, of the extra test")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient, of the extra test")
pytest.importorskip("ipykernel", reason="needs ipykernel, of the extra test")

NOTEBOOK = Path(__file__).parents[2] / "examples" / "tutorial.ipynb"
CHANCE = 0.1  # ten digits, as many of each


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_kept_without_outputs(notebook):
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


def test_every_cell_runs(notebook, monkeypatch, tmp_path):
    """In a process of its own, in a folder of its own, as Jupyter runs it; a third of the steps."""
    (learns,) = (cell for cell in notebook.cells if ".fit(" in cell.source)
    for steps, fewer in (("\n    steps=300", 100), ("gan_steps=100", 30)):
        assert learns.source.count(steps) == 1
        learns.source = learns.source.replace(steps, f"{steps.partition('=')[0]}={fewer}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    # Jupyter's own folders too, so that nothing of the user's is read or written.
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    printed = "".join(
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stdout"
    )
    assert float(re.search(r"mAP (\d\.\d+)", printed)[1]) > 3 * CHANCE
