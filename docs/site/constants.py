"""Constants of a module have their entry: what the comment above one says, and its value where that is short."""

import ast
import importlib.util
from functools import cache
from pathlib import Path

try:
    from sphinx.pycode import ModuleAnalyzer
except ImportError:  # the tests read constants without it
    pass

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
    file = Path(importlib.util.find_spec(module).origin)
    source, imported = file.read_text(), {}
    for node in ast.parse(source).body if file.name == "__init__.py" else ():
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{module}."):
            theirs = of(node.module)
            imported |= {name.name: theirs[name.name] for name in node.names if name.name in theirs}
    return imported | constants(source)


def setup(app):
    analyze = ModuleAnalyzer.analyze

    def with_constants(analyzer):
        """As if the comments were those that Sphinx knows, which begin with a colon."""
        analyze(analyzer)
        if analyzer.modname.partition(".")[0] == "jaxcl":
            analyzer.attr_docs |= {("", name): [*lines, ""] for name, lines in of(analyzer.modname).items()}

    ModuleAnalyzer.analyze = with_constants
    return {"parallel_read_safe": True, "parallel_write_safe": True}
