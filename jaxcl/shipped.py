"""The configs that come with jaxcl: where they lie, and what each is, by its name.

In a checkout they are configs/*.py; a wheel has them as jaxcl/configs/*.py. Nothing here executes one.
"""

from __future__ import annotations

import ast
import difflib
from pathlib import Path

HERE = Path(__file__).parent


def folder() -> Path:
    """The folder in which they lie."""
    installed = HERE / "configs"
    return installed if installed.is_dir() else HERE.parent / "configs"


def shipped() -> dict[str, Path]:
    """Name -> file, in the order of the names."""
    return {path.stem: path for path in sorted(folder().glob("*.py")) if path.stem.isidentifier()}


def studies() -> dict[str, Path]:
    """Name -> file of the studies (`jaxcl.study`), in the order of the names."""
    return {path.stem: path for path in sorted((folder() / "studies").glob("*.py"))}


def found(word: str | Path) -> Path:
    """The file that a word of the command line means: itself, where there is such a file; otherwise the shipped config
    of that name, which may be written quickstart, quickstart.py or configs/quickstart.py. A word that means neither
    comes back as it is, for whoever opens it to refuse.

    >>> found("quickstart") == shipped()["quickstart"], found("elsewhere/quickstart.py").as_posix()
    (True, 'elsewhere/quickstart.py')
    """
    path = Path(word)
    if path.is_file() or path.parent not in (Path(), Path("configs")) or path.suffix not in ("", ".py"):
        return path
    return shipped().get(path.stem, path)


def named(name: str) -> Path:
    """The shipped config of a name. Raises ValueError where there is none, with the nearest names."""
    there = shipped()
    path = there.get(name.removesuffix(".py").removeprefix("configs/"))
    if path is None:
        near = difflib.get_close_matches(name, there, 3)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"No config {name} comes with jaxcl; `jaxcl configs` lists those that do.{hint}")
    return path


def about(path: str | Path) -> str:
    """What a config says it is: the first line of its docstring.

    >>> about(shipped()["moco_cifar10"])
    "MoCo on CIFAR-10 with ResNet-18, for one GPU: the recipe of the authors' demo."
    """
    text = ast.get_docstring(ast.parse(Path(path).read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]
