"""Numbers that are no longer finite: no training step is taken into a state that is not, and what made it is kept.

A guarded step looks at its loss, its gradient's norm, the new parameters and the new memory of the method while they
are on the device, and where one of them is not finite it returns the state that it was given. Then

    "stop"   the state's number becomes ~step, which is negative: this state is halted, and further steps, which the
             host may have sent already, leave it alone. So what the host finds is the state before the failing step.
    "skip"   the number goes on as if the step had been taken, so the next one has its own images and keys.

RUN_DIR/nonfinite/
  steps.jsonl     a line a step that was not taken: its number, loss, gradient norm, keys and images
  136/            the state before step 137, where the run stopped there; written as a checkpoint is

`jaxcl replay RUN_DIR` makes such a step again and names the operation.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jaxcl import keys
from jaxcl.data import InputPipeline
from jaxcl.records import parsed, read_text, write_whole
from jaxcl.train import checkpoint
from jaxcl.train.state import TrainState
from jaxcl.typing import Array, Batch, PyTree

FOLDER = "nonfinite"
WHAT_TO_DO = ("stop", "skip")
AT_MOST_IN_A_ROW = 10  # steps that are skipped; then something is wrong for good
SEEN_AFTER = 32  # calls after which the host has looked at a step at the latest


class NotTaken(NamedTuple):
    """A training step that was not taken: its number (the first is 1), loss and gradient norm."""

    step: int
    loss: float
    grad_norm: float


def all_finite(tree: PyTree) -> Array:
    """Whether every floating-point number of every array is finite: bool [].

    >>> [bool(all_finite({"a": jnp.array([1.0, x]), "n": jnp.array(3)})) for x in (2.0, jnp.nan, -jnp.inf)]
    [True, False, False]
    """
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    # Zero times what is not finite is nan. On a CPU a third of the time of asking each number (4.7 ms and 14.1 for the
    # 8 million of a queue, one core).
    return jnp.isfinite(sum((jnp.sum(x * 0) for x in leaves), start=jnp.zeros(())))


def not_finite(tree: PyTree) -> list[str]:
    """The names of the arrays that hold a number which is not finite.

    >>> not_finite({"params": {"w": jnp.array([jnp.inf]), "b": jnp.zeros(2)}})
    ['params/w']
    """
    if bool(_all_finite(tree)):  # one small program, nearly always all there is to do
        return []
    flags = {
        jax.tree_util.keystr(path, simple=True, separator="/"): _all_finite(x)
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }
    return [name for name, fine in jax.device_get(flags).items() if not fine]


def guarded(step: Callable, *, nonfinite: str = "stop") -> Callable:
    """The same training step, (train_state, key, batch) -> (train_state, metrics), which is only taken where loss,
    gradient norm, parameters and the method's memory are finite after it; metrics then have "taken", bool [].

    nonfinite
        "stop" halts the state, "skip" goes on to the next step (see the top of this file).

    The number of a halted state is ~step; `halted_at` reads it.
    """
    if nonfinite not in WHAT_TO_DO:
        raise ValueError(f"nonfinite must be one of {', '.join(WHAT_TO_DO)}; got {nonfinite!r}.")

    def guarded_step(train: TrainState, key: Array, batch: Batch):
        halted = train.step < 0
        number = jnp.where(halted, ~train.step, train.step)
        before = train._replace(step=number)
        after, metrics = step(before, key, batch)
        looked_at = (metrics["loss"], metrics["grad_norm"], after.params, after.state)
        taken = all_finite(looked_at) & ~halted
        kept = jax.tree.map(lambda new, old: jnp.where(taken, new, old), after, before)
        passed = taken | ~halted if nonfinite == "skip" else taken
        return kept._replace(step=jnp.where(passed, number + 1, ~number)), {**metrics, "taken": taken}

    return guarded_step


def halted_at(state: TrainState) -> int | None:
    """The number of steps behind a state that is halted; None of any other.

    >>> [halted_at(TrainState(jnp.int32(n), (), (), ())) for n in (0, 7, ~0, ~7)]
    [None, None, 0, 7]
    """
    step = int(state.step)
    return ~step if step < 0 else None


class Guard:
    """What the host knows of the steps it has sent: `sent` after each call, `look` wherever the answer matters.

    All processes look at the same moments, as what follows (a save) they do together.
    """

    def __init__(self, nonfinite: str = "stop"):
        self._skip = nonfinite == "skip"
        self._unseen: list[tuple[int, dict[str, Array]]] = []
        self._in_a_row = 0

    def sent(self, end: int, metrics: dict[str, Array]) -> list[NotTaken]:
        """A call whose last step has the number `end` was sent; returns what `look` does of the steps before the newest
        `SEEN_AFTER` calls, for which the device is waited for."""
        self._unseen.append((end, {name: metrics[name] for name in ("taken", "loss", "grad_norm")}))
        return self.look(but=SEEN_AFTER)

    def look(self, *, but: int = 0) -> list[NotTaken]:
        """The steps that were not taken and are not yet known, of all calls but the newest few: none, nearly always.

        Of those at which a run stops only the first, as the state is halted there.
        """
        found = []
        while len(self._unseen) > but:
            end, metrics = self._unseen.pop(0)
            taken = np.atleast_1d(metrics["taken"])
            if taken.all():
                self._in_a_row = 0
                continue
            loss, norm = (np.atleast_1d(metrics[name]) for name in ("loss", "grad_norm"))
            for i in range(len(taken)):
                self._in_a_row = 0 if taken[i] else self._in_a_row + 1
                if not taken[i]:
                    found.append(NotTaken(end - len(taken) + 1 + i, float(loss[i]), float(norm[i])))
        return found if self._skip else found[:1]

    @property
    def stops(self) -> bool:
        """Whether the run must end over what `look` found."""
        return not self._skip or self._in_a_row >= AT_MOST_IN_A_ROW


def keep(
    run_dir: str | Path | None, bad: NotTaken, pipeline: InputPipeline, *, batch_size: int, seed: int
) -> list[int]:
    """Writes a line about a step that was not taken, and returns those of its images that have a pixel that is not
    finite, by their numbers in the data set. With several processes all must call it.

    The batch is read anew: it is a function of (seed, step).
    """
    batch = batch_of(pipeline, bad.step, batch_size=batch_size, seed=seed)
    index, spoilt = np.asarray(batch["index"]), spoilt_rows(batch)
    if jax.process_count() > 1:
        index, spoilt = (
            np.asarray(multihost_utils.process_allgather(x, tiled=True)) for x in (index, spoilt)
        )
    images = index[spoilt].tolist()
    step_key = keys.step_key(keys.run_key(seed), bad.step - 1)
    record = {
        "step": bad.step,
        "loss": str(bad.loss),  # JSON knows no nan
        "grad_norm": str(bad.grad_norm),
        "seed": seed,
        "key": jax.random.key_data(step_key).tolist(),
        "images": index.tolist(),
        "images_not_finite": images,
    }
    if run_dir is not None and jax.process_index() == 0:
        folder = Path(run_dir) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        known = {entry["step"]: entry for entry in read(run_dir)} | {bad.step: record}
        write_whole(folder / "steps.jsonl", "".join(json.dumps(known[step]) + "\n" for step in sorted(known)))
    return images


def restore(directory: Path, like: TrainState) -> tuple[TrainState, int]:
    """`checkpoint.restore` of the newest step that is good and finite; one that is not is passed over with a warning.
    (An older jaxcl saved such states.)

    Raises ValueError where there is none.
    """
    state, step = checkpoint.restore(directory, like)
    for older in [*reversed([s for s in checkpoint.steps(directory) if s < step]), None]:
        broken = not_finite(state)
        if not broken:
            break
        what = f"The checkpoint of step {step} in {directory} has numbers that are not finite ({broken[0]})"
        if older is None:
            raise ValueError(f"{what}, and there is none before it. Start anew in another --run-dir.")
        warnings.warn(f"{what}. Trying the one before it.", stacklevel=2)
        state, step = checkpoint.restore(directory, like, step=older)
    return state, step


def check(state: TrainState, step: int, saved: int) -> None:
    """Raises FloatingPointError where anything in a state is not finite, so that it is not saved over a good one."""
    if not bool(_all_finite(state)):
        raise FloatingPointError(
            f"After step {step} the optimizer's state is not finite, so it is not saved. The newest checkpoint is of"
            f" step {saved}. A lower learning rate, a longer warm-up or float32 may help."
        )


_all_finite = jax.jit(all_finite)


def batch_of(pipeline: InputPipeline, step: int, *, batch_size: int, seed: int) -> Batch:
    """This process's batch of the training step with the number `step` (the first is 1), with its images or views."""
    read = pipeline.batches(
        batch_size=batch_size,
        seed=seed,
        start_step=step - 1,
        stop_step=step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    batch = next(iter(read))
    return batch if pipeline.resident is None else {"image": pipeline.resident[batch["index"]], **batch}


def spoilt_rows(batch: Batch) -> np.ndarray:
    """Which rows of a batch have a number that is not finite: bool [b].

    >>> spoilt_rows({"image": np.array([[1.0], [np.nan]]), "index": np.array([5, 6])}).tolist()
    [False, True]
    """
    spoilt = np.zeros(len(batch["index"]), bool)
    for x in batch.values():
        if np.issubdtype(x.dtype, np.floating):
            spoilt |= ~np.isfinite(np.asarray(x)).reshape(len(spoilt), -1).all(axis=1)
    return spoilt


def read(run_dir: str | Path) -> list[dict[str, Any]]:
    """The steps of a run that were not taken, by their numbers; [] if there is none."""
    file = Path(run_dir) / FOLDER / "steps.jsonl"
    if not file.exists():
        return []
    try:
        found = [parsed(line) for line in read_text(file).split("\n")[:-1]]
        if not all(isinstance(entry, dict) and isinstance(entry.get("step"), int) for entry in found):
            raise ValueError("a line without a step")
    except ValueError as error:
        raise ValueError(
            f"{file} is damaged ({error}). Move it away; `jaxcl replay --step N` needs none."
        ) from None
    return found


def keep_state(
    run_dir: Path, state: TrainState, identity: Mapping[str, Any] | None = None, *, keep_every: int = 0
) -> int:
    """Saves a halted state, which is the one before the failing step, and returns its number; it is a checkpoint to go
    on from as well, beside those that `keep_every` keeps. With several processes all must call it."""
    at = halted_at(state)
    assert at is not None
    state = state._replace(step=jax.jit(jnp.invert)(state.step))
    beside = {"identity": identity}
    if at not in checkpoint.steps(run_dir / FOLDER):
        checkpoint.save(run_dir / FOLDER, at, state, keep=1, beside=beside)
    if at not in checkpoint.steps(run_dir / "checkpoints"):
        checkpoint.save(run_dir / "checkpoints", at, state, keep_every=keep_every, beside=beside)
    return at


def skipped(bad: NotTaken, images: list[int]) -> str:
    """The message about a step that is left out."""
    return f"{_of(bad)}{_spoilt(images)} It is left out, and the run goes on."


def sentence(bad: NotTaken, images: list[int], run_dir: str | Path | None, saved: int, nonfinite: str) -> str:
    """The message where a run stops over a step."""
    said = _of(bad)
    if nonfinite == "skip":
        said += f" It is the last of {AT_MOST_IN_A_ROW} in a row, so leaving them out does not help."
    said += _spoilt(images) or " A lower learning rate, a longer warm-up or float32 may help."
    if run_dir is None:
        return said
    said += f" The newest checkpoint is of step {saved}. `jaxcl replay {run_dir}` names the operation that made it"
    return said + ("." if nonfinite == "skip" else "; the same command with --nonfinite skip leaves it out.")


def _of(bad: NotTaken) -> str:
    numbers = f"its loss was {bad.loss:.6g}, the norm of its gradient {bad.grad_norm:.6g}"
    broken = not np.isfinite([bad.loss, bad.grad_norm]).all()
    rest = "" if broken else ", but the new parameters or the method's memory were not finite"
    return f"Training step {bad.step} was not taken: {numbers}{rest}."


def _spoilt(images: list[int]) -> str:
    if not images:
        return ""
    shown = ", ".join(map(str, images[:10])) + (", ..." if len(images) > 10 else "")
    return f" Images with a pixel that is not finite, by their number in the data set: {shown}."
