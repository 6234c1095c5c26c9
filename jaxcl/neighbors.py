"""Files that a config imports from its own folder: found while it is loaded, kept with its run, and trusted with it.

    mine.py         import my_losses
    my_losses.py    -> RUN_DIR/beside/my_losses.py

A config's neighbors are Python files and packages (folders with __init__.py) beside it. Of a run directory they are
those in RUN_DIR/beside, and nothing else there is ever imported: no compiled file, and no file of the run directory
itself.
"""

from __future__ import annotations

import ast
import shutil
import sys
from collections.abc import Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxcl.records import read_text

FOLDER = "beside"
# Not looked for beside a config, whatever lies there.
NEVER = {"jaxcl", "__main__", *sys.stdlib_module_names}


class _FromText(Loader):
    """What is executed is the text that was read, whatever lies in __pycache__."""

    def __init__(self, file: Path, text: str):
        self.file, self.text = file, text

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.text, str(self.file), "exec", dont_inherit=True), module.__dict__)


class _Finder(MetaPathFinder):
    """Finds the neighbors of the config that was loaded last."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.given: Mapping[str, str] | None = None
        self.found: dict[str, str] = {}  # file, below the folder -> its text
        self.names: set[str] = set()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        parent = name.rpartition(".")[0]
        if self.folder is None or name in NEVER or (parent and parent not in self.names):
            return None
        place = Path(*name.split("."))
        for file, inside in (
            (place / "__init__.py", [str(self.folder / place)]),
            (place.with_suffix(".py"), None),
        ):
            text = self.text_of(file)
            if text is not None:
                self.found[file.as_posix()] = text
                self.names.add(name)
                where = self.folder / file
                loader = _FromText(where, text)
                return spec_from_file_location(name, where, loader=loader, submodule_search_locations=inside)
        return None

    def text_of(self, file: Path) -> str | None:
        """What stands in a file below the folder; None where there is none."""
        if self.given is not None:
            return self.given.get(file.as_posix())
        where = (self.folder or Path()) / file
        return read_text(where) if where.is_file() else None


_FINDER = _Finder()


def look_beside(config: Path, *, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """From here on imports find the neighbors of this config, and no longer those of another.

    given
        {file: its text} of all there are, where they were read already; nothing else is found then.

    Returns {file: its text}, which gets each neighbor as it is imported.
    """
    for name in [name for name in sys.modules if name in _FINDER.names]:
        del sys.modules[name]
    folder = folder_of(config)
    for name, module in list(sys.modules.items()):  # imported already, as by a notebook
        # Compare names first: comparing the paths of thousands of modules would take a fifth of a second.
        if "." in name or name in NEVER:
            continue
        file = getattr(module, "__file__", None)
        if (
            file
            and folder.name in file
            and Path(file) in (folder / f"{name}.py", folder / name / "__init__.py")
        ):
            del sys.modules[name]
    _FINDER.folder, _FINDER.given, _FINDER.found, _FINDER.names = folder, given, {}, set()
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)  # before the working directory, which may be this folder
    return _FINDER.found


def folder_of(config: Path) -> Path:
    """Where a config's neighbors are: beside it; of a run's copy in the folder that is kept for them."""
    folder = config.absolute().parent
    return folder / FOLDER if (folder / "knobs.json").exists() else folder


def of(config: ModuleType) -> Mapping[str, str]:
    """The neighbors that a loaded config has imported so far: {file, below its folder: text}."""
    return dict(getattr(config, "__neighbors__", {}))


def keep(run_dir: Path, neighbors: Mapping[str, str]) -> None:
    """Writes them into a run directory, in place of those that are there."""
    shutil.rmtree(run_dir / FOLDER, ignore_errors=True)
    for name, text in neighbors.items():
        file = run_dir / FOLDER / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def kept(run_dir: Path) -> dict[str, str]:
    """All that a run directory has of them. Raises ValueError for a file that is no text."""
    folder = run_dir / FOLDER
    return {file.relative_to(folder).as_posix(): read_text(file) for file in sorted(folder.rglob("*.py"))}


def program(text: str, neighbors: Mapping[str, str]) -> str:
    """A config and its neighbors as one text, to be compared, and to be vouched for: the config's own without any."""
    parts = [f"\n# --- {FOLDER}/{name}\n{neighbors[name]}" for name in sorted(neighbors)]
    return "".join([text, *parts])


def same_program(one: str, other: str) -> bool:
    """Whether two configs are the same program, apart from comments, docstrings and layout. False if one of them does
    not parse.

    >>> same_program("'Ours.'; x = 1  # one", "x   =   1"), same_program("x = 1", "x = 2")
    (True, False)
    """
    try:
        return one == other or _bare(one) == _bare(other)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _bare(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [line for line in node.body if not _is_text(line)]
    return ast.dump(tree)


def _is_text(line: ast.stmt) -> bool:
    return (
        isinstance(line, ast.Expr)
        and isinstance(line.value, ast.Constant)
        and isinstance(line.value.value, str)
    )
