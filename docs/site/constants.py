"""Constants of a module have their entry: what the comment above one says, and its value where that is short."""

import ast
import importlib.util
import inspect
from functools import cache
from pathlib import Path

LONGEST = 90  # characters of a value that is shown


def above(lines: list[str], number: int) -> list[str]:
    """The comment that stands directly above a line, whose number begins at 1."""
    first = number - 1
    while first and lines[first - 1].startswith("# "):
        first -= 1
    return [line[2:] for line in lines[first : number - 1]]


def constants(source: str) -> dict[str, list[str]]:
    """The constants of a module that have a comment -> what is said of each, and its value."""
    found = {}
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if not isinstance(target, ast.Name) or target.id.startswith("_") or node.value is None:
            continue
        comment, value = above(source.splitlines(), node.lineno), ast.unparse(node.value)
        if comment:
            found[target.id] = [*comment, *(["", f"`{value}`"] if len(value) <= LONGEST else [])]
    return found


@cache
def of(module: str) -> dict[str, list[str]]:
    """The same of a module by its name, with those that a room takes from its files."""
    source = Path(importlib.util.find_spec(module).origin).read_text()
    imported = {}
    if source and Path(importlib.util.find_spec(module).origin).name == "__init__.py":
        for node in ast.parse(source).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxcl."):
                theirs = of(node.module)
                imported |= {name.name: theirs[name.name] for name in node.names if name.name in theirs}
    return imported | constants(source)


def lines_of(name: str) -> list[str] | None:
    module, _, constant = name.rpartition(".")
    return (
        of(module).get(constant) if module.startswith("jaxcl") and importlib.util.find_spec(module) else None
    )


def skip(app, what, name, obj, skipped, options):
    """A constant with a comment is no member without documentation."""
    module = app.env.current_document.get("autodoc:module") if hasattr(app.env, "current_document") else None
    module = module or app.env.ref_context.get("py:module")
    if what != "module" or inspect.ismodule(obj) or inspect.isroutine(obj) or not module:
        return None
    return False if name in of(module) else None


def process(app, what, name, obj, options, lines):
    if what == "data":
        lines[:] = lines_of(name) or []


def setup(app):
    app.connect("autodoc-skip-member", skip)
    # Before `docstrings` makes reStructuredText of it.
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
