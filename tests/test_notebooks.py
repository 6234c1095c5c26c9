"""Every notebook runs from top to bottom, with less training than its reader gets."""

from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, monkeypatch):
    nbclient = pytest.importorskip(
        "nbclient", reason="notebooks are run by nbclient: pip install 'jaxcl[dev]'"
    )
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("JAXCL_FAST", "1")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    figures = [
        out
        for cell in notebook.cells
        for out in cell.get("outputs", ())
        if "image/png" in out.get("data", {})
    ]
    assert figures


def test_the_notebooks_are_there():
    assert NOTEBOOKS
