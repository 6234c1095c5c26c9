"""What went wrong, in a sentence, and how the program ends."""

from __future__ import annotations

import errno
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# A package that may be missing -> the extra that brings it.
EXTRAS = {
    "matplotlib": "plot",
    "plotly": "report",
    "tensorflow": "tfds",
    "tensorflow_datasets": "tfds",
    "importlib_resources": "tfds",
    "libtpu": "tpu",
    "wandb": "wandb",
    "mlflow": "mlflow",
}


def in_a_sentence(error: Exception) -> str | None:
    """What went wrong, for whoever can mend it; None for an error of the program, which deserves its traceback."""
    text = " ".join(str(error).split())
    if "No space left on device" in text or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        name = getattr(error, "filename", None)
        where = f" while {name} was written" if name else ""
        return f"the disk is full{where}. What was saved before stays; make room and give the same command. ({text})"
    if isinstance(error, ImportError):
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        return str(error) + (f". Install it: pip install 'jaxcl[{extra}]'" if extra else "")
    if isinstance(error, PermissionError):
        return f"there is no permission to use {error.filename or 'a file'} ({error.strerror or text})."
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError) and error.filename:
        return f"{error.filename} is in the way: {error.strerror}. Move it, or give another place."
    if getattr(error, "errno", None) == errno.EROFS:
        name = error.filename or "a file"  # type: ignore[attr-defined]
        return f"{name} cannot be written, as its disk can only be read. Give another place, or copy the run to one."
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}."
    if isinstance(error, ValueError | OSError | FloatingPointError):
        return str(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "Out of memory" in text:
        return (
            f"there was not enough memory: {text[:300]} A smaller --batch-size, --chunks N or --remat needs less;"
            " `jaxcl plan CONFIG.py` says how much. Images that do not fit may stay in their files: --encoded --size N."
        )
    of_jax = isinstance(error, RuntimeError) and ("initialize backend" in text or "Unknown backend" in text)
    if of_jax or (isinstance(error, AssertionError) and where_raised(error).endswith("xla_bridge.py")):
        return (
            f"{text or 'jax found no device.'} JAX_PLATFORMS is {os.environ.get('JAX_PLATFORMS', '')!r}: unset it, or"
            " install what it names (pip install 'jaxcl[cuda]', 'jaxcl[tpu]')."
        )
    return None


def where_raised(error: Exception) -> str:
    """The file in which an error arose; "" of one that was never raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return frames[-1].filename if frames else ""


def end_alone(status: int, why: str) -> int:
    """The status to end with; one of several processes tells the others first, and is gone."""
    if one_of_several():
        from jaxcl.processes import leave

        leave(why, status=status)
    return status


def ended_by_another(error: Exception) -> None:
    """One of several processes whose error is that another is gone ends here, with a sentence that says so."""
    if one_of_several():
        from jaxcl.processes import wait_for_news

        wait_for_news(error)


def one_of_several() -> bool:
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


@contextmanager
def warnings_in_sentences(command: str) -> Iterator[None]:
    """A warning of jaxcl is its sentence alone: where in the program it arose says nothing to who gave the images."""
    before, package = warnings.formatwarning, os.path.dirname(os.path.dirname(__file__))

    def sentence(message: Any, category: Any, filename: str, *rest: Any, **named: Any) -> str:
        if issubclass(category, UserWarning) and filename.startswith(package):
            return f"jaxcl {command}: {message}\n"
        return before(message, category, filename, *rest, **named)

    warnings.formatwarning = sentence
    try:
        yield
    finally:
        warnings.formatwarning = before
