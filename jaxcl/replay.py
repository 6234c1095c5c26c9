"""A training step of a run, made again: `jaxcl replay RUN_DIR` says what made it a step that could not be taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import keys
from jaxcl.config import recipe_of
from jaxcl.data import input_pipeline
from jaxcl.devices import axis_name, make_mesh, replicate
from jaxcl.origin import Origin, origin
from jaxcl.runs import Run, open_run
from jaxcl.runs.directory import silent
from jaxcl.runs.training import starting_point
from jaxcl.train import TrainState, checkpoint, finite, init_state, make_step
from jaxcl.train.loop import device_batches, with_labels
from jaxcl.train.placement import place
from jaxcl.train.state import fill
from jaxcl.typing import Batch


class Replay(NamedTuple):
    """step             its number; the first of a run is 1
    loss, grad_norm  as they came now
    taken            whether all of it was finite now
    images           the images of its batch, by their numbers in the data set
    spoilt           those of them with a pixel that is not finite
    origin           the operation that made the first number that is not finite; None where none was found
    """

    step: int
    loss: float
    grad_norm: float
    taken: bool
    images: tuple[int, ...]
    spoilt: tuple[int, ...]
    origin: Origin | None


def replay(
    run_dir: str | Path,
    *,
    step: int | None = None,
    data_dir: str | None = None,
    trust: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Replay:
    """Makes a training step of a run again, and, where it is not finite, finds the operation that made it so.

    step
        its number; by default that of the last step that was not taken. The state before it is the one that was kept,
        or is made from the newest checkpoint before it, or from the beginning.
    data_dir
        where TFDS has the run's images now; that of the run's knobs unless given.
    trust
        execute the run's config whoever made it (`open_run`).
    say
        is called with a sentence about what is being done.

    The step is compiled as in training. The search is on one device, under "jit".

    Raises FileNotFoundError where no step is given and all steps of the run were taken.
    """
    run = open_run(run_dir, trust=trust)
    recipe, knobs = run.recipe, run.knobs
    if step is None:
        bad = finite.read(run_dir)
        if not bad:
            raise FileNotFoundError(
                f"All training steps of {run_dir} were taken; there is none to repeat. --step N repeats any step."
            )
        step = bad[-1]["step"]
    if not 1 <= step <= recipe.steps:
        raise ValueError(f"{run_dir} has the training steps 1 to {recipe.steps}; got {step}.")
    images = run.data(data_dir).train
    pipeline = input_pipeline(knobs.input, images, recipe.views)
    if recipe.classify is not None and recipe.labelled:
        pipeline = with_labels(pipeline, images)

    mesh, run_key = make_mesh(), keys.run_key(knobs.seed)
    first = pipeline.first(batch_size=recipe.batch_size, seed=knobs.seed, rows=2)
    state, start = state_before(run, step, first)
    state = replicate(state, mesh)
    made = make_step(recipe.method, recipe.optimizer, axis_name=axis_name(knobs.placement))
    # Steps before it that were not taken are passed over as they were then.
    placed = place(finite.guarded(made, nonfinite="skip"), knobs.placement, mesh)
    say(f"From the state of step {start}: {step - start} training steps.")
    before = jax.device_get(state)
    with closing(device_batches(pipeline, mesh, recipe.batch_size, knobs.seed, start, step, 1)) as batches:
        for batch in batches:
            before = jax.device_get(state)
            state, metrics = placed(state, replicate(run_key, mesh), batch)

    batch = finite.batch_of(pipeline, step, batch_size=recipe.batch_size, seed=knobs.seed)
    index = np.asarray(batch["index"])
    spoilt = index[finite.spoilt_rows(batch)]
    taken, found = bool(metrics["taken"]), None
    if not taken:
        say("It is not finite. Making it again, operation by operation; a large network takes minutes.")
        alone = recipe_of(run.config, dataclasses.replace(run.own_knobs, placement="jit"), run.about)
        single = make_step(alone.method, alone.optimizer)

        def looked_at(state, key, batch):
            after, metrics = single(state, key, batch)
            return metrics["loss"], metrics["grad_norm"], after.params, after.state

        arguments = (
            TrainState(*jax.tree.map(jnp.asarray, before)),
            run_key,
            jax.tree.map(jnp.asarray, dict(batch)),
        )
        found = origin(looked_at, *arguments, names=("state", "key", "batch"))
    return Replay(
        step,
        float(metrics["loss"]),
        float(metrics["grad_norm"]),
        taken,
        tuple(index.tolist()),
        tuple(spoilt.tolist()),
        found,
    )


def state_before(run: Run, step: int, first: Batch) -> tuple[TrainState, int]:
    """The newest state that is kept of a run before the training step `step`, and the number of steps behind it."""
    recipe, knobs = run.recipe, run.knobs
    state = init_state(keys.init_key(knobs.seed), recipe.method, recipe.optimizer, first)
    saved = [
        (number, folder)
        for folder in (run.dir / "checkpoints", run.dir / finite.FOLDER)
        for number in checkpoint.steps(folder)
        if number < step
    ]
    for number, folder in sorted(saved, reverse=True):
        if checkpoint.damage(folder, number) is None:
            return checkpoint.restore(folder, state, step=number)
    begin = starting_point(knobs, recipe, say=silent)
    state = state if begin is None else begin(state)
    return (state if recipe.given is None else fill(state, recipe.given)), 0


def lines(found: Replay) -> list[str]:
    """What came of it, in words."""
    numbers = f"loss {found.loss:.6g}, norm of the gradient {found.grad_norm:.6g}"
    said = [f"Training step {found.step}: {numbers}; {len(found.images)} images."]
    if found.spoilt:
        said.append(
            "Images with a pixel that is not finite, by their number in the data set:"
            f" {', '.join(map(str, found.spoilt))}."
        )
    if found.taken:
        said.append(
            "All of it is finite now. The step was computed by another program, on other devices, or from other images."
        )
    elif found.origin is None:
        said.append(
            "Computed operation by operation all of it is finite: only the compiled program leaves the range of its"
            " numbers. float32 or a lower learning rate may help."
        )
    else:
        said.append(f"{found.origin}")
    return said
