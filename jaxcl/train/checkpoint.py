"""Saved states that are complete or not there at all, and that are checked before they are believed.

DIRECTORY/
  1200/  manifest.json     name, shape and dtype of every array; size and sha256 of every file
         arrays/           these arrays, written by orbax as one flat dict {"params/encoder/...": array}
  2400/  ...
  2400.aside/              a step that was damaged, or newer than where the run went on; never read, yours to delete
  .saving-3600/            being written, or left by a run that was killed

A step directory gets its name by one rename, after everything in it is on the disk; so a killed run leaves complete
steps only. Damage that comes later (a failing disk, an accident) is found by the manifest: orbax loads an array with a
flipped bit without a warning.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as orbax

from jaxcl.records import fits, parsed
from jaxcl.typing import PyTree


def save(
    directory: str | Path,
    step: int,
    state: PyTree,
    *,
    keep: int = 3,
    keep_every: int = 0,
    beside: Mapping[str, Any] | None = None,
) -> None:
    """Saves a pytree of arrays as `step`; of the steps up to it the newest `keep` stay, and all multiples of
    `keep_every` (0: none).

    beside
        what else is kept with it, as JSON; the function `beside` reads it.

    Returns when all is on the disk, a few seconds for 400 MB; `train.saver` does the same beside the training.

    Newer steps, from before the run went back to an earlier checkpoint, are moved aside. Raises
    FileExistsError if this step is there and good (a damaged one is moved aside). With several processes all of them
    must call it, on a file system that they share.
    """
    begin(directory, step, state, keep=keep, keep_every=keep_every, beside=beside)()
    meet(f"jaxcl saved step {step}")


def begin(
    directory: str | Path,
    step: int,
    state: PyTree,
    *,
    keep: int = 3,
    keep_every: int = 0,
    beside: Mapping[str, Any] | None = None,
) -> Callable[[], None]:
    """The first half of `save`, and what does the other.

    In the first half the processes meet by messages over the devices, so all must be at the same place of their
    program. In the second they meet by the store of keys alone, so it may be a thread's while all go on with training;
    the arrays of the state must stay as they are until it is back. All is on the disk when it is back in process 0.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1; got {keep}.")
    if keep_every < 0:
        raise ValueError(f"keep_every is in training steps, at least 0 (none); got {keep_every}.")
    directory, step = Path(directory).absolute(), int(step)
    final, unfinished = directory / str(step), directory / f".saving-{step}"
    leaves = _named_leaves(state)
    if not any(np.size(x) for x in leaves.values()):
        raise ValueError("A state without a single number cannot be saved.")
    first = jax.process_index() == 0
    if first:
        directory.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(final) and damage(directory, step) is None:
            raise FileExistsError(f"{final} is there already, and good; a step is saved once.")
        for left_behind in directory.glob(".saving-*"):
            _remove(left_behind)
        for other in steps(directory):
            if other >= step:
                _move_aside(directory, other)
        unfinished.mkdir()
    meet(f"jaxcl saves step {step}")

    # orbax refuses arrays without entries; the manifest says all there is to know about them.
    with _written(unfinished):
        written = orbax.save_async(
            unfinished / "arrays", {name: x for name, x in leaves.items() if np.size(x)}
        )

    def finish() -> None:
        with _written(unfinished):
            written.result()
            if first:
                _seal_folder(unfinished, step, leaves, beside or {})
        if first:
            unfinished.rename(final)
            _sync(directory)
            older = [other for other in steps(directory) if other <= step][:-keep]
            for old in [other for other in older if not keep_every or other % keep_every]:
                # Renamed first: half a step must not look like a damaged one.
                trash = directory / f".saving-{old}-old"
                (directory / str(old)).rename(trash)
                _remove(trash)

    return finish


def _seal_folder(folder: Path, step: int, leaves: dict[str, Any], beside: Mapping[str, Any]) -> None:
    """Writes the manifest, and waits until all of the folder is on the disk."""
    manifest = {
        "format": 1,
        "step": step,
        "arrays": {name: _describe(x) for name, x in leaves.items()},
        "files": {name: _digest(folder / name) for name in _files(folder)},
        "versions": {name: metadata.version(name) for name in ("jax", "orbax-checkpoint")},
        "devices": jax.device_count(),
        "beside": dict(beside),
    }
    (folder / "manifest.json").write_text(_sealed(manifest))
    for parent, _, names in os.walk(folder):
        for path in [parent, *(os.path.join(parent, name) for name in names)]:
            _sync(path)


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    """What goes wrong while a folder is written is one error of the system, that names it: orbax says it in pages, and
    logs each thread's."""
    log = logging.getLogger("absl")
    disabled, log.disabled = log.disabled, True
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split())
        if jax.process_index() == 0:
            shutil.rmtree(folder, ignore_errors=True)  # a full disk needs the room
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO):
            if os.strerror(number) in text:
                raise OSError(number, os.strerror(number), str(folder)) from error
        raise OSError(f"{folder} could not be written: {type(error).__name__}: {text[:300]}") from error
    finally:
        log.disabled = disabled


def steps(directory: str | Path) -> list[int]:
    """The saved steps, oldest first; whether they are still good, `damage` says."""
    directory = Path(directory)
    if os.path.lexists(directory) and not directory.is_dir():
        what = "a link that leads to no folder" if directory.is_symlink() else "a file"
        raise ValueError(
            f"{directory} is {what}; it should be the folder of a run's checkpoints. Move it away."
        )
    names = os.listdir(directory) if directory.is_dir() else []
    return sorted(int(name) for name in names if re.fullmatch(r"0|[1-9][0-9]*", name))


def latest(directory: str | Path) -> int | None:
    """The newest saved step, or None."""
    return max(steps(directory), default=None)


def names(directory: str | Path, step: int) -> list[str]:
    """The names of the arrays that are saved at a step, as "params/encoder/stem/conv/kernel"."""
    return list(_read_manifest(Path(directory) / str(step))["arrays"])


def beside(directory: str | Path, step: int) -> dict[str, Any]:
    """What `save` was given to keep beside the state of a step; {} where it was nothing."""
    found = _read_manifest(Path(directory) / str(step)).get("beside")
    return found if isinstance(found, dict) else {}


def damage(directory: str | Path, step: int) -> str | None:
    """What is wrong with a saved step: the file and the reason. None if all is as it was written.

    Every file is read. Symbolic links are refused, as a checkpoint from elsewhere could point at any file.
    """
    folder = Path(directory).absolute() / str(step)
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            return f"{folder} is not a directory (of its own: links are refused)"
        found = set(_files(folder)) - {"manifest.json"}  # before anything is opened: it refuses links
        manifest = _read_manifest(folder)
        if manifest["step"] != step:
            return f"manifest.json is that of step {manifest['step']}"
        for name in sorted(found ^ set(manifest["files"])):
            return f"{name} is not in the manifest" if name in found else f"{name} is missing"
        for name, (size, sha256) in manifest["files"].items():
            if (folder / name).stat().st_size != size:
                return f"{name} has {(folder / name).stat().st_size} bytes and was written with {size}"
            if _digest(folder / name)[1] != sha256:
                return f"{name} has changed since it was written (its sha256 differs)"
    except (OSError, ValueError) as problem:
        return str(problem)
    return None


def warn_of_damage(directory: str | Path, step: int, problem: str, *, stacklevel: int) -> None:
    """Says that a damaged step is passed over."""
    warnings.warn(
        f"Damaged checkpoint in {directory}, step {step}: {problem}. Trying the one before it.",
        stacklevel=stacklevel,
    )


def restore(
    directory: str | Path,
    like: PyTree,
    *,
    step: int | None = None,
    part: bool = False,
    whole: Sequence[str] = (),
) -> tuple[PyTree, int]:
    """The state saved at `step`, by default the newest good one, and that step.

    like
        a state of the same structure: says where every array goes (the sharding of a jax.Array or ShapeDtypeStruct; a
        numpy array comes back as one). To continue on a mesh, give a state that is laid out on it.
    part
        `like` holds some of the saved arrays, by the same names; the others stay on the disk. (Of
        {"params": {"encoder": ...}} the names are "params/encoder/...", as of a TrainState with this field.) What is
        read is verified in the same way.
    whole
        with `part`: below these places, as "params/encoder", `like` holds all that is saved. A larger network's
        arrays are then no part of a smaller one's.

    A damaged step is passed over with a warning, unless it was asked for by number. Raises FileNotFoundError if
    nothing is saved, ValueError if nothing good is, or if names, shapes or dtypes of the arrays are not those of
    `like`, with a table of the differences. Nothing is converted.
    """
    directory = Path(directory).absolute()
    chosen, problems = _newest_good(directory, step) if jax.process_index() == 0 else (-1, {})
    if jax.process_count() > 1:
        chosen = int(multihost_utils.broadcast_one_to_all(np.int32(chosen)))
    if chosen < 0:
        if problems:
            lines = [f"step {bad}: {problem}" for bad, problem in problems.items()]
            raise ValueError(f"No good checkpoint in {directory}.\n  " + "\n  ".join(lines))
        what = "checkpoint" if step is None else f"checkpoint of step {step}"
        raise FileNotFoundError(f"There is no {what} in {directory}; saved steps: {steps(directory)}.")
    for bad, problem in problems.items():
        warn_of_damage(directory, bad, problem, stacklevel=3)

    leaves = _named_leaves(like)
    saved = _read_manifest(directory / str(chosen))["arrays"]
    wanted = {name: _describe(x) for name, x in leaves.items()}
    within = tuple(f"{place}/" for place in whole)
    compared = {n: x for n, x in saved.items() if not part or n in wanted or n.startswith(within)}
    _compare(compared, wanted, directory / str(chosen))
    # A placeholder is left on the disk.
    with_entries = {name: orbax.PLACEHOLDER for name, (_, shape) in saved.items() if 0 not in shape}
    with_entries |= {name: _abstract(x) for name, x in leaves.items() if np.size(x)}
    try:
        arrays = orbax.load(directory / str(chosen) / "arrays", with_entries)
    except (KeyError, ValueError, TypeError, FileNotFoundError) as error:
        raise ValueError(
            f"{directory / str(chosen)} is whole, but its arrays are not those of its manifest ({error!s:.300})."
        ) from error
    arrays |= {name: _nothing(x) for name, x in leaves.items() if not np.size(x)}
    return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in leaves]), chosen


def _newest_good(directory: Path, step: int | None) -> tuple[int, dict[int, str]]:
    """The newest good step (or `step`, if good), -1 if there is none; and what was wrong with the newer ones."""
    problems: dict[int, str] = {}
    for candidate in reversed([s for s in steps(directory) if step in (None, s)]):
        problem = damage(directory, candidate)
        if problem is None:
            return candidate, problems
        problems[candidate] = problem
    return -1, problems


def _compare(saved: dict[str, list], wanted: dict[str, list], where: Path, *, at_most: int = 30) -> None:
    """Raises ValueError with a table of what differs: {name: [dtype, shape]} both."""
    rows = []
    for name in [*wanted, *(name for name in saved if name not in wanted)]:
        ours, theirs = wanted.get(name), saved.get(name)
        if ours != theirs:
            if ours is None or theirs is None:
                why = "unexpected" if ours is None else "missing"
            else:
                why = " and ".join(
                    w for w, a, b in zip(("dtype", "shape"), ours, theirs, strict=True) if a != b
                )
            rows.append((name, *("-" if x is None else f"{x[0]} {x[1]}" for x in (theirs, ours)), why))
    if rows:
        shown = [("array", "saved", "wanted", ""), *rows[:at_most]]
        widths = [max(len(row[i]) for row in shown) for i in range(3)]
        table = ["  ".join(cell.ljust(w) for cell, w in zip(row, [*widths, 0], strict=True)) for row in shown]
        more = [f"... and {len(rows) - at_most} more"] if len(rows) > at_most else []
        raise ValueError(
            f"The state in {where} is not of the shape that is to be restored ({len(rows)} of"
            f" {len(saved.keys() | wanted.keys())} arrays differ); was it saved by another method, network or"
            " optimizer?\n  " + "\n  ".join([*table, *more])
        )


def _named_leaves(tree: PyTree) -> dict[str, Any]:
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in pairs]
    if len(set(names)) != len(names) or "" in names:
        doubled = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(
            f"Every array of a state needs a name of its own (its path); doubled: {doubled or names}."
        )
    return {
        name: x if isinstance(x, jax.Array | jax.ShapeDtypeStruct) else np.asarray(x)
        for name, (_, x) in zip(names, pairs, strict=True)
    }


def _describe(x: Any) -> list:
    return [str(x.dtype), list(x.shape)]


def _abstract(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return x
    sharding = x.sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _nothing(x: Any) -> Any:
    """An array without entries."""
    zeros = np.zeros(x.shape, x.dtype)
    return zeros if isinstance(x, np.ndarray) else jax.device_put(zeros, _abstract(x).sharding)


def _files(folder: Path) -> list[str]:
    """The names of all files below `folder`; raises ValueError at a link or anything else that is no plain file."""
    names = []
    for parent, folders, files in os.walk(folder):
        for entry in [*folders, *files]:
            path = Path(parent, entry)
            mode = os.lstat(path).st_mode
            if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                kind = "a symbolic link" if stat.S_ISLNK(mode) else "neither a file nor a directory"
                raise ValueError(f"{path.relative_to(folder)} is {kind}, which a checkpoint never holds")
        names += [Path(parent, file).relative_to(folder).as_posix() for file in files]
    return sorted(names)


def _digest(path: Path) -> tuple[int, str]:
    """Size and sha256 of a file."""
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), sha256


def _sealed(manifest: dict) -> str:
    """As JSON, with the sha256 of the rest."""
    return json.dumps({**manifest, "sha256": _seal(manifest)}, indent=1, sort_keys=True) + "\n"


def _seal(manifest: dict) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _read_manifest(folder: Path) -> dict:
    try:
        manifest = parsed((folder / "manifest.json").read_bytes())
        if manifest.pop("sha256") != _seal(manifest):
            raise ValueError("its own sha256 differs")
    except FileNotFoundError:
        raise ValueError("manifest.json is missing") from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as problem:
        raise ValueError(f"manifest.json has changed since it was written ({problem})") from None
    # Its seal says that it is whole, and not who wrote it.
    kinds = {"step": int, "arrays": dict, "files": dict}
    for name, kind in kinds.items():
        if not isinstance(manifest.get(name), kind):
            raise ValueError(
                f"manifest.json was not written by jaxcl: its {name!r} is missing or of a wrong type"
            )
    pairs = {"arrays": tuple[str, tuple[int, ...]], "files": tuple[int, str]}
    for name, pair in pairs.items():
        for entry, value in manifest[name].items():
            if not fits(value, pair):
                raise ValueError(f"manifest.json has an impossible {entry!r} of {name}: {value!r}")
    return manifest


def _sync(path: str | Path) -> None:
    """Waits until a file or directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move_aside(directory: Path, step: int) -> None:
    aside = directory / f"{step}.aside"
    _remove(aside)
    (directory / str(step)).rename(aside)
    warnings.warn(
        f"Moved {directory / str(step)} to {aside.name}: the run continues from an earlier checkpoint.",
        stacklevel=3,
    )


def _remove(path: Path) -> None:
    """Deletes a directory, a file or a link (not what it points at); nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def meet(name: str) -> None:
    """Waits until all processes are here: messages over the devices, so all must be at the same place."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
