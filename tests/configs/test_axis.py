"""Configs and notebooks name the axis for norm and method, and for nothing else, so no copy can forget it."""

import ast
import json
from pathlib import Path

import pytest

from jaxcl import methods

ROOT = Path(__file__).parents[2]
FILES = [*sorted((ROOT / "configs").glob("*.py")), *sorted((ROOT / "notebooks").glob("*.ipynb"))]
# A norm's axis is a choice (statistics of the global batch or of a device's), a method's is handed on by its page.
TAKERS = {"batch_norm", *methods.__all__}


def source(path):
    if path.suffix == ".py":
        return path.read_text()
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    lines = [line.rstrip("\n") for cell in cells for line in cell["source"]]
    return "\n".join("pass" if line.startswith("%") else line for line in lines)


def name_of(node):
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "?")


def named_for(node, inside=False):
    """Whom the axis is named for, but within a function that is itself given one: a loss of the file's own."""
    if isinstance(node, ast.FunctionDef | ast.Lambda):
        parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        inside = inside or any(parameter.arg == "axis_name" for parameter in parameters)
    if isinstance(node, ast.Call) and not inside:
        if any(keyword.arg == "axis_name" for keyword in node.keywords):
            called = name_of(node.func)
            yield name_of(node.args[0]) if called == "partial" else called
    for child in ast.iter_child_nodes(node):
        yield from named_for(child, inside)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_axis_is_named_for_norms_and_methods_alone(path):
    others = set(named_for(ast.parse(source(path)))) - TAKERS
    assert not others, f"{path.name} names the axis for {', '.join(sorted(others))}; the method hands it on"


def test_an_axis_that_is_named_for_a_loss_is_found():
    text = "def recipe(knobs):\n    return simclr(loss=keyless(nt_xent, axis_name=axis), axis_name=axis)"
    assert list(named_for(ast.parse(text))) == ["simclr", "keyless"]
