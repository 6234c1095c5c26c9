"""What is read from a run directory, or from any file that may be damaged: whole and of the right kind, or a sentence
that names the file. And what is written there: whole, or not at all."""

from __future__ import annotations

import json
import os
import stat
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

DEEPEST = 50  # nobody writes so many lists within lists


def read_text(path: str | Path) -> str:
    """A file's text. Raises ValueError where it is a directory, a pipe or a device, not UTF-8, or cannot be read;
    FileNotFoundError where it is not there."""
    path = Path(path)
    try:
        check_ends(path)
        return path.read_bytes().decode()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing.") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: it is not text (byte {error.start} is not UTF-8).") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error


def write_whole(path: str | Path, text: str) -> None:
    """Writes a file in UTF-8; who is stopped in between, or finds the disk full, leaves the one that was there."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}")  # another process may write the same file
    part.write_bytes(text.encode())
    part.replace(path)


def check_ends(path: Path) -> None:
    """Raises ValueError where reading might never end: of a pipe without a writer, of a device."""
    kind = path.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise ValueError(f"{path} is a pipe or a device; expected a file. Move it away.")


def in_utf8(value: Any) -> Any:
    """A JSON value with "?" for what no file in UTF-8 can hold: halves of surrogate pairs, as JSON may name them, and
    bytes of a file's name that are no UTF-8.

    >>> in_utf8({"a": ["b", "\\ud800"]})
    {'a': ['b', '?']}
    """
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {in_utf8(name): in_utf8(one) for name, one in value.items()}
    return [in_utf8(one) for one in value] if isinstance(value, list) else value


def read_json(path: str | Path, *, kind: type = dict) -> Any:
    """What a JSON file holds: a dict, or a list where asked for. Raises as `read_text`, and ValueError where it holds
    something else."""
    text = read_text(path)
    try:
        value = parsed(text)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: it is not JSON ({error}).") from None
    if not isinstance(value, kind):
        raise ValueError(f"{path} is damaged: it should hold a {kind.__name__}, not {type(value).__name__}.")
    return value


def knobs_file(run_dir: str | Path) -> Path:
    """The file of a run's knobs. Raises FileNotFoundError where the directory has none, and so is not that of a run."""
    path = Path(run_dir) / "knobs.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{run_dir} is not a run directory: it has no knobs.json. `jaxcl train` makes one."
        )
    return path


def parsed(text: str | bytes) -> Any:
    """JSON, of lists and dicts at most 50 deep; ValueError for anything else, whatever it is."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    level = [value]
    for _ in range(DEEPEST):
        level = [x for y in level for x in _children(y)]
        if not level:
            return value
    raise ValueError("nested too deep")


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is what a type says: those that knobs have (numbers, words, tuples, choices, None).

    >>> fits(1, float), fits("1", float), fits((1, 2), tuple[int, ...]), fits("skip", Literal["stop", "skip"])
    (True, False, True, True)
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return value in arguments
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False
        if len(arguments) == 2 and arguments[1] is ...:
            return all(fits(x, arguments[0]) for x in value)
        return len(value) == len(arguments) and all(map(fits, value, arguments))
    if origin is dict:
        return isinstance(value, dict) and all(
            fits(k, arguments[0]) and fits(x, arguments[1]) for k, x in value.items()
        )
    if hint in (None, type(None)):
        return value is None
    if hint is float:
        largest = sys.float_info.max  # neither inf, nor nan, nor a whole number of four hundred digits
        return isinstance(value, int | float) and not isinstance(value, bool) and -largest <= value <= largest
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) else True


def check_fits(where: str | Path, values: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    """Raises ValueError, with the first that does not fit, where values are not of their types."""
    for name, value in values.items():
        if name in hints and not fits(value, hints[name]):
            hint = hints[name]
            wanted = getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint)
            raise ValueError(f"{where} is damaged: {name!r} should be {wanted}; it is {value!r}.")
