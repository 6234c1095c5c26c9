"""Every notebook runs from top to bottom, with less training than its reader gets."""

import ast
import importlib
import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
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


def code_of(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    lines = [line.rstrip("\n") for cell in cells for line in "".join(cell["source"]).splitlines()]
    return ast.parse("\n".join("pass" if line.startswith("%") else line for line in lines))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_takes_from_jaxcl_is_there(path):
    """The quick part of running it: names that have moved, in imports and after `module.`."""
    code, rooms = code_of(path), {}
    for node in ast.walk(code):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jaxcl":
            module = importlib.import_module(node.module)
            rooms |= {name.asname or name.name: getattr(module, name.name) for name in node.names}
        if isinstance(node, ast.Import):
            rooms |= {
                name.asname or name.name: importlib.import_module(name.name)
                for name in node.names
                if name.name == "jaxcl"
            }
    assert rooms
    used = {
        (node.value.id, node.attr)
        for node in ast.walk(code)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and type(rooms.get(node.value.id)).__name__ == "module"
    }
    for name, attribute in used:
        assert hasattr(rooms[name], attribute), f"{name}.{attribute}"


def test_the_notebooks_are_there():
    assert NOTEBOOKS
