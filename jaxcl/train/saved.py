"""What the members of a population have saved, each in the run directory that it would have alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.records import read_json
from jaxcl.train import checkpoint
from jaxcl.train.loop import listed, unlogged
from jaxcl.train.state import TrainState
from jaxcl.typing import PyTree

# In a member's run directory: that it diverged, and when.
DIVERGED = "diverged.json"


def diverged_before(run_dir: str | Path) -> int | None:
    """The step at which a member diverged; None of one that did not."""
    file = Path(run_dir) / DIVERGED
    return int(read_json(file).get("step", 1)) if file.exists() else None


def common_step(folders: Sequence[Path]) -> int:
    """The newest step that all members have saved, good of each; 0 if there is none. Members that diverged are not
    counted."""
    return _newest_common(folders)[0]


def going_on(folders: Sequence[Path]) -> int:
    """`common_step`, with a warning for each damaged checkpoint that is passed over, as `checkpoint.restore` gives.

    Raises ValueError where damage has left no step that all have.
    """
    step, problems = _newest_common(folders)
    if problems and not step:
        raise ValueError(
            "The members of the population have no good checkpoint of a step in common.\n  "
            + "\n  ".join(f"{folder}, step {bad}: {problem}" for folder, bad, problem in problems)
            + "\nTrain each alone, which goes on from its own newest good step; or give other run directories."
        )
    for folder, bad, problem in problems:
        checkpoint.warn_of_damage(folder, bad, problem, stacklevel=3)
    return step


def _newest_common(folders: Sequence[Path]) -> tuple[int, list[tuple[Path, int, str]]]:
    """The step of `common_step`; and folder, step and damage of newer ones that all have, and not all of them good."""
    going = [folder for folder in folders if not (folder.parent / DIVERGED).exists()]
    saved = [set(checkpoint.steps(folder)) for folder in going]
    problems: list[tuple[Path, int, str]] = []
    for step in sorted(set.intersection(*saved), reverse=True) if saved else []:
        found = [(folder, step, checkpoint.damage(folder, step)) for folder in going]
        bad = [(folder, step, problem) for folder, step, problem in found if problem is not None]
        if not bad:
            return step, problems
        problems += bad
    return 0, problems


def newest_good(folder: Path, after: int) -> int:
    """The newest good step that a member has saved after the step `after`, or that one."""
    newer = reversed([step for step in checkpoint.steps(folder) if step > after])
    return next((step for step in newer if _is_good(folder, step)), after)


def _is_good(folder: Path, step: int) -> bool:
    return step in checkpoint.steps(folder) and checkpoint.damage(folder, step) is None


def member(state: TrainState, i: int) -> TrainState:
    """One member's state."""
    return jax.tree.map(lambda x: x[i], state)


def own(kept: Sequence[Mapping[str, Any]], i: int) -> list[dict[str, Any]]:
    """The metrics of one member."""
    return [{name: metrics[name][i] for name in metrics} for metrics in kept]


def restored(state: TrainState, folders: Sequence[Path], step: int) -> TrainState:
    """The state with every member as saved at `step`; one that diverged as it was initialised."""
    members = [member(state, i) for i in range(len(folders))]
    for i, folder in enumerate(folders):
        # Of those that go on it is good; one that diverged may lack it, or have it damaged.
        if _is_good(folder, step):
            members[i] = checkpoint.restore(folder, members[i], step=step)[0]
    stacked: PyTree = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    return jax.device_put(stacked, jax.tree.map(lambda x: x.sharding, state))


def unlogged_of(folders: Sequence[Path], step: int, known: Mapping[int, int]) -> list[dict[str, np.ndarray]]:
    """The metrics of all members that were kept with this step, stacked; [] where one that goes on has none such."""
    found = {i: unlogged(folder, step) for i, folder in enumerate(folders) if i not in known}
    lists = list(found.values())
    if not lists or any([x.keys() for x in one] != [x.keys() for x in lists[0]] for one in lists):
        return []
    # Of a member that diverged nothing is logged, so another's fill its place.
    rows = [found.get(i, lists[0]) for i in range(len(folders))]
    return [
        {name: np.stack([one[at][name] for one in rows]) for name in metrics}
        for at, metrics in enumerate(lists[0])
    ]


def save(
    kept: Sequence[Mapping[str, Any]],
    folders: Sequence[Path],
    step: int,
    identities: Sequence[Mapping[str, Any]],
    keep_every: int,
    state: TrainState,
) -> None:
    """Each member that has not diverged in its own directory, by the layout of a run alone."""
    going = np.asarray(state.step) >= 0
    for i, folder in enumerate(folders):
        # One that was ahead has saved this step before, and what follows it.
        if not going[i] or _is_good(folder, step):
            continue
        beside: dict[str, Any] = {"unlogged": listed(own(kept, i))}
        if identities:
            beside["identity"] = dict(identities[i])
        checkpoint.save(folder, step, member(state, i), keep_every=keep_every, beside=beside)
