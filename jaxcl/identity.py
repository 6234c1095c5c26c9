"""What makes two starts one run: the same config, knobs and images. Kept with each checkpoint, and compared where a run
is gone on with, and among several processes before their first step."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

import jaxcl
from jaxcl.config import changed_knobs, knobs_to_json, same_steps_otherwise
from jaxcl.neighbors import same_program
from jaxcl.train import checkpoint
from jaxcl.typing import Images

WHOLE_BYTES = 2**26  # images of more bytes than these are looked at here and there
LOOKED_AT = 256
LOOKED_AT_ENCODED = 16  # each is decoded


def version(package: str) -> str:
    """Of an installed package; of jaxcl also where it is not installed, but found by PYTHONPATH."""
    return jaxcl.__version__ if package == "jaxcl" else metadata.version(package)


def identity(text: str, knobs: Any, data: str) -> dict[str, Any]:
    """{"config": its text, "knobs": their values, "data": the images' `fingerprint`}"""
    return {"config": text, "knobs": json.loads(knobs_to_json(knobs)), "data": data}


def fingerprint(images: Images) -> str:
    """A hash of the images' number, shape and labels, and of their pixels: of all of them up to 64 MiB, else of 256
    images evenly spread (of encoded ones, 16).

    >>> images = Images("grays", np.zeros((3, 2, 2, 1), np.uint8))
    >>> changed = Images("other name", np.ones((3, 2, 2, 1), np.uint8))
    >>> fingerprint(images) == fingerprint(images._replace(name="moved")), fingerprint(images) == fingerprint(changed)
    (True, False)
    """
    pixels = images.images
    found = hashlib.sha256(f"{len(pixels)} {tuple(pixels.shape)} {pixels.dtype}".encode())
    if images.labels is not None:
        found.update(np.ascontiguousarray(images.labels, np.int64).tobytes())
    in_memory = isinstance(pixels, np.ndarray)
    if in_memory and pixels.nbytes <= WHOLE_BYTES:
        found.update(np.ascontiguousarray(pixels).data if pixels.size else b"")
        return found.hexdigest()
    some = LOOKED_AT if in_memory else LOOKED_AT_ENCODED
    for i in np.unique(np.linspace(0, len(pixels) - 1, some).astype(int)):
        found.update(np.ascontiguousarray(np.asarray(pixels[i : i + 1])).tobytes())
    return found.hexdigest()


def check_same(
    run_dir: str | Path, mine: Mapping[str, Any], knobs: Any, *, besides: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Which knobs that leave the steps the same (`config.SAME_STEPS`) are others than when the newest checkpoint of a
    run was saved: {knob: (then, now)}. Raises ValueError, with what differs, where it is of another identity than
    `mine`: another config, other knobs or images; the knobs named `besides` may differ. A checkpoint without an
    identity, of an older jaxcl, is accepted."""
    checkpoints = Path(run_dir) / "checkpoints"
    newest = checkpoint.latest(checkpoints)
    try:
        saved = None if newest is None else checkpoint.beside(checkpoints, newest).get("identity")
    except ValueError:  # damaged, which is told where it is restored
        return {}
    if not (
        isinstance(saved, Mapping)
        and isinstance(saved.get("knobs"), Mapping)
        and isinstance(saved.get("config"), str)
        and isinstance(saved.get("data"), str)
    ):
        return {}
    changes = changed_knobs(saved["knobs"], knobs, besides=besides)
    if not same_program(saved["config"], mine["config"]):
        changes.append("the config is another program")
    if saved["data"] != mine["data"]:
        changes.append("the training images or their labels are others")
    if changes:
        raise ValueError(
            f"The checkpoint of step {newest} in {run_dir} was saved by another run, so it cannot be resumed:\n  "
            + "\n  ".join(changes)
            + "\nUse the config, knobs and images of that run, or choose another --run-dir."
        )
    return same_steps_otherwise(saved["knobs"], knobs)


def check_processes(run_dir: str | Path, mine: Mapping[str, Any]) -> None:
    """With several processes: raises ValueError in all of them where one was started with another config, other knobs,
    images or versions, or does not see process 0's run directory. All must call it."""
    if jax.process_count() == 1:
        return
    versions = {name: version(name) for name in ("jaxcl", "jax")}
    # The names first: what is gathered must have the same shape everywhere.
    parts = {"config": mine["config"], "images": mine["data"], "knobs": sorted(mine["knobs"]), **versions}
    _agree(parts)
    _agree({f"--{name.replace('_', '-')}": value for name, value in sorted(mine["knobs"].items())})
    _check_shared(Path(run_dir))


def _agree(parts: Mapping[str, Any]) -> None:
    digests = [
        hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest() for value in parts.values()
    ]
    found = multihost_utils.process_allgather(np.stack([np.frombuffer(x, np.uint8) for x in digests]))
    other = (np.asarray(found) != np.asarray(found)[:1]).any(axis=2)
    if other.any():
        what = ", ".join(name for name, differs in zip(parts, other.any(axis=0), strict=True) if differs)
        who = ", ".join(map(str, np.flatnonzero(other.any(axis=1))))
        raise ValueError(
            f"All processes must be started alike, and process {who} differs from process 0 in {what}. Start all of"
            " them again, by the same command with the same images."
        )


def _check_shared(run_dir: Path, *, seconds: float = 10.0) -> None:
    token = int(multihost_utils.broadcast_one_to_all(np.int32(time.time_ns() % 2**31)))
    mark = run_dir / f".together-{token}"
    if jax.process_index() == 0:
        run_dir.mkdir(parents=True, exist_ok=True)
        mark.touch()
    multihost_utils.sync_global_devices("jaxcl looks at the run directory")
    until = time.monotonic() + seconds  # a network's file system may show it late
    while not mark.exists() and time.monotonic() < until:
        time.sleep(0.2)
    seen = np.asarray(multihost_utils.process_allgather(np.int32(mark.exists()))).ravel()
    if jax.process_index() == 0:
        mark.unlink(missing_ok=True)
    if not seen.all():
        raise ValueError(
            f"Process {', '.join(map(str, np.flatnonzero(seen == 0)))} does not see the run directory of process 0,"
            f" {run_dir.absolute()}. Give a --run-dir on a disk that all of them share."
        )
