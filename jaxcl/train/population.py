"""A population: runs that differ in numbers alone, trained by one program.

    def recipe_of(numbers):
        return config.recipe(replace(knobs, **numbers), about)

    trained = train_together(recipe_of, [{"temperature": 0.1}, {"temperature": 0.5}], images, seeds=[0, 0])

The recipe is made inside the traced step, with the numbers as tracers, and the step is mapped over the members: their
states, numbers, keys and batches (`jax.vmap`). Several devices share the members, and no member is split. Each is the
run that it would be alone: the same initial weights, order of the images, views and draws, and a run directory of its
own; alone and here its parameters agree up to rounding.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.console import Console

from jaxcl import keys
from jaxcl.config import Recipe
from jaxcl.data import input_pipeline, prefetch
from jaxcl.data.arrays import about_images
from jaxcl.devices import AXIS, make_mesh, replicate, split
from jaxcl.train import finite, saved
from jaxcl.train.callbacks import Callback
from jaxcl.train.health import Health, seen_of_members
from jaxcl.train.log import Log
from jaxcl.train.loggers import check_loggers
from jaxcl.train.loop import Interrupted, Preempted, fetch_mean, preemption
from jaxcl.train.saved import DIVERGED
from jaxcl.train.saver import Saver, check_renames
from jaxcl.train.state import TrainState, blank_batch, init_state
from jaxcl.train.step import make_step
from jaxcl.typing import About, Array, Images

# Numbers of a member -> its recipe; they are tracers when it is called within the step.
RecipeOf = Callable[[Mapping[str, Any]], Recipe]


class Trained(NamedTuple):
    """What became of a member: its state after the last step, or before the step at which it diverged."""

    state: TrainState
    diverged: int | None  # the step that was not finite; None of a member that reached the end


def make_population_step(recipe_of: RecipeOf, mesh: Mesh) -> Callable:
    """(images, numbers, states, run_keys, batches) -> (states, metrics), compiled: a training step of every member.

    Every device keeps all images [n, h, w, c]. Every other leaf has members as its first axis, which is split over the
    devices: numbers and keys [m], batches {"index": [m, b]}, as `train_together` makes them. States are donated.
    """

    def one_step(pixels, numbers, train, key, batch):
        recipe, batch = recipe_of(numbers), {"image": pixels[batch["index"]], **batch}
        # A member that is not finite halts: it keeps the state before that step.
        return finite.guarded(make_step(recipe.method, recipe.optimizer))(train, key, batch)

    return _mapped(one_step, mesh, (None, 0, 0, 0, 0), donate=2)


def train_together(
    recipe_of: RecipeOf,
    numbers: Sequence[Mapping[str, float]],
    images: Images,
    *,
    seeds: Sequence[int],
    log_every: int = 50,
    save_every: int = 1000,
    keep_every: int = 0,
    callbacks: Sequence[Sequence[Callback]] = (),
    loggers: Sequence[str] = ("tensorboard",),
    run_dirs: Sequence[str | Path] = (),
    identities: Sequence[Mapping[str, Any]] = (),
    quiet: bool = False,
    begin: Callable[[], Any] | None = None,
    ahead: Callable[..., Callable] | None = None,
) -> list[Trained]:
    """Trains one member for each dict of numbers, all at once, and returns what became of each.

    recipe_of
        numbers -> Recipe, with every number a float or a tracer. What decides shapes, or which functions there are,
        must not depend on them; nor may the number of steps or the batch size. Its losses and norms have no axis
        (`axis_name=None`, placement "jit"): the devices share members, not batches.
    numbers, seeds
        of each member; all dicts have the same names.
    images
        in memory; every device keeps all of them.
    callbacks
        of each member, called on its own parameters and logged in its own run directory.
    run_dirs
        of each member: metrics.jsonl, TensorBoard's events and checkpoints, as `train` leaves them. Members go on from
        the newest good step that all of them have saved. One that has saved later steps makes these again, and logs
        and saves nothing until the others are where it was.
    identities
        of each member, kept with its checkpoints.
    keep_every, loggers, begin, ahead
        as for `train`; loggers by name alone, each of which every member has.

    A member whose loss, gradient or parameters are no longer finite keeps the state before that step, is named on the
    screen and in its run directory (diverged.json), and touches no other. Raises as `train` does after SIGTERM and
    SIGINT, all members having saved.
    """
    members = len(numbers)
    check_loggers(loggers)
    _check(numbers, seeds, callbacks, run_dirs, identities)
    for run_dir in run_dirs:
        check_renames(run_dir)
    recipes = [recipe_of(one) for one in numbers]
    steps, batch_size = recipes[0].steps, recipes[0].batch_size
    mesh = make_mesh(devices=_sharing(members))
    by_member = NamedSharding(mesh, PartitionSpec(AXIS))

    table = {name: np.array([one[name] for one in numbers], np.float32) for name in numbers[0]}
    lengthwise = jax.device_put(table, by_member)
    run_keys = jax.device_put(jnp.stack([keys.run_key(seed) for seed in seeds]), by_member)
    pixels = replicate(np.asarray(images.images), mesh)

    def first_state(numbers, key):
        recipe = recipe_of(numbers)
        return init_state(key, recipe.method, recipe.optimizer, blank_batch(about_images(images)))

    init_keys = jax.device_put(jnp.stack([keys.init_key(seed) for seed in seeds]), by_member)
    init = _mapped(first_state, mesh, (0, 0))
    step_fn = make_population_step(recipe_of, mesh)

    state = init(lengthwise, init_keys)
    folders = [Path(run_dir) / "checkpoints" for run_dir in run_dirs]
    start = saved.going_on(folders)
    if start:
        state = saved.restored(state, folders, start)
    known: dict[int, int] = {i: step for i, step in enumerate(map(saved.diverged_before, run_dirs)) if step}
    # Up to this step a member's run directory has all there is: one that was ahead waits there for the others.
    reached = [
        max(saved.newest_good(folder, start), known.get(i, 0)) for i, folder in enumerate(folders)
    ] or [start] * members
    if known:
        halted = np.array([i in known for i in range(members)])
        state = state._replace(step=jax.device_put(jnp.where(halted, ~state.step, state.step), by_member))
    if begin is not None:
        begin()

    with ExitStack() as stack:
        screen = Console(quiet=True) if quiet else None
        overall = stack.enter_context(Log(start_step=start, steps=steps, loggers=(), console=screen))
        logs = [
            stack.enter_context(
                Log(
                    run_dir,
                    start_step=done,
                    steps=steps,
                    loggers=loggers,
                    console=Console(quiet=True),
                    say=overall.say,
                )
            )
            for run_dir, done in zip(run_dirs, reached, strict=False)
        ]
        preempted, interrupted = stack.enter_context(preemption(interrupts=bool(run_dirs)))
        batches = stack.enter_context(
            closing(
                prefetch((split(b, mesh) for b in _batches(images, recipes[0], seeds, start, steps)), size=2)
            )
        )
        saver = stack.enter_context(Saver())
        # Steps that were made before the run stopped and are not logged yet, as in the loop.
        kept = saved.unlogged_of(folders, start, known) if start else []
        logged, timed = start - len(kept), start
        since, per_step = time.perf_counter(), 0.0
        health = [Health(recipe, len(images.images), start) for recipe in recipes]

        def mark_diverged(fetched: Sequence[Mapping[str, Any]]) -> None:
            for i, ended in _new_failures(fetched, logged, known).items():
                known[i] = ended
                _say_diverged(overall, run_dirs, numbers, seeds, i, ended)

        if idle := _idle(members, mesh.size):
            overall.say(idle)
        overall.say("Compiling the training step; a large network takes minutes.")
        for step in range(start + 1, steps + 1):
            arguments = (pixels, lengthwise, state, run_keys, next(batches))
            if ahead is not None:
                step_fn, ahead = ahead(step_fn, *arguments), None
            state, metrics = step_fn(*arguments)
            if step == start + 1:  # compiled when it returns, done when its metrics are there
                compiled = time.perf_counter()
                jax.block_until_ready(metrics)
                done = time.perf_counter()
                per_step = done - compiled
                overall.began(step, compiling=compiled - since, seconds=per_step)
                since, timed = done, step
            saver.look()
            kept.append(metrics)
            overall.advance(step)

            last = step == steps
            if step % log_every == 0 or last:
                fetched = jax.device_get(kept)
                seconds, made = time.perf_counter() - since, step - max(logged, timed)
                if not made:  # the first step alone, which was timed by itself
                    seconds, made = per_step, 1
                each = made * batch_size / seconds
                mark_diverged(fetched)
                alive = [i for i in range(members) if i not in known]
                queues = seen_of_members(state.state, members)
                for i in alive:
                    record = fetch_mean(saved.own(fetched, i))
                    del record["skipped"]
                    warnings = health[i].warnings(step, record, queues[i])
                    if step <= reached[i]:
                        continue
                    for warning in warnings:
                        overall.warn(step, warning, of=f", of {_called(i, numbers, seeds)}")
                        if logs:
                            logs[i].warn(step, warning)
                    if not logs:
                        continue
                    record |= {
                        "epoch": step * batch_size / len(images.images),
                        "images_per_second": each,
                        "learning_rate": float(recipes[i].learning_rate(step - 1)),
                    }
                    logs[i].write(step, record)
                losses = [np.mean([one["loss"][i] for one in fetched]) for i in alive]
                shown = {"members": len(alive), "loss": float(np.mean(losses)) if alive else float("nan")}
                overall.write(step, shown | {"images_per_second": members * each})
                kept, logged, since = [], step, time.perf_counter()
            for i, own in enumerate(callbacks):
                for callback in own:
                    if i not in known and step > reached[i] and (step % callback.every == 0 or last):
                        before = time.perf_counter()
                        mine = saved.member(state, i)
                        found = callback.call(step, mine.params, mine.state)
                        if logs:
                            logs[i].write(step, found)
                        since += time.perf_counter() - before
            stopping = preempted(step)
            if folders and (step % save_every == 0 or last or stopping):
                fetched = jax.device_get(kept)
                # Before the save, which leaves them out: else no step is there that all are said to have.
                mark_diverged(fetched)
                before = time.perf_counter()
                write = partial(saved.save, fetched, folders, step, identities, keep_every)
                saver.run(write, state)
                since += time.perf_counter() - before
            if stopping and not last:
                saver.wait()
                raise Interrupted(step) if interrupted() else Preempted(step)
    state = state._replace(step=jnp.where(state.step < 0, ~state.step, state.step))
    return [Trained(saved.member(state, i), known.get(i)) for i in range(members)]


def mappable(recipe_of: RecipeOf, numbers: Mapping[str, float], about: About) -> tuple[str, ...]:
    """Which of these numbers members may differ in: the training step reads them, and can be traced with them unknown.

    What decides a shape, a function, the number of steps or the batch size is not among them; nor is what only
    decides when something happens between steps. Traces the step (seconds), and again for each number where one fails.
    """
    found = _read_when_traced(recipe_of, numbers, about)
    if found is not None or len(numbers) < 2:
        return found or ()
    alone = [
        _read_when_traced(lambda own: recipe_of({**numbers, **own}), {name: value}, about)
        for name, value in numbers.items()
    ]
    return tuple(name for names in alone for name in names or ())


def _read_when_traced(
    recipe_of: RecipeOf, numbers: Mapping[str, float], about: About
) -> tuple[str, ...] | None:
    """The numbers that the step reads; None where it cannot be traced with them."""

    def step(values: Mapping[str, Array], key: Array):
        recipe = recipe_of(values)
        if not isinstance(recipe.steps, int) or not isinstance(recipe.batch_size, int):
            raise TypeError("The number of steps and the batch size must be known.")
        batch = blank_batch(about, recipe.batch_size)
        state = init_state(key, recipe.method, recipe.optimizer, batch)
        return make_step(recipe.method, recipe.optimizer)(state, key, batch)

    values = {name: jax.ShapeDtypeStruct((), jnp.float32) for name in numbers}
    try:
        program = jax.make_jaxpr(step)(values, keys.run_key(0)).jaxpr
    except TypeError:  # jax's errors for a tracer whose value is asked for are of this kind
        return None
    read = {id(x) for equation in program.eqns for x in equation.invars}
    # A dict's leaves come in the order of its sorted names.
    return tuple(name for name, x in zip(sorted(values), program.invars, strict=False) if id(x) in read)


def _check(
    numbers: Sequence[Mapping[str, float]],
    seeds: Sequence[int],
    callbacks: Sequence[Sequence[Callback]],
    run_dirs: Sequence[str | Path],
    identities: Sequence[Mapping[str, Any]],
) -> None:
    if jax.process_count() > 1:
        raise ValueError("A population is trained by one process; start another population in each.")
    if not numbers:
        raise ValueError("A population has at least one member; got none.")
    optional = {"callbacks": callbacks, "run_dirs": run_dirs, "identities": identities}
    for what, given in {"seeds": seeds, **optional}.items():
        if len(given) != len(numbers) and not (len(given) == 0 and what != "seeds"):
            raise ValueError(f"{what} must be one for each of {len(numbers)} members; got {len(given)}.")
    for one in numbers:
        if set(one) != set(numbers[0]):
            raise ValueError(
                f"All members must have the same numbers; got {', '.join(numbers[0])} and {', '.join(one)}."
            )


def _sharing(members: int) -> int:
    """How many devices share the members evenly: as many as can."""
    return next(k for k in range(min(members, jax.device_count()), 0, -1) if members % k == 0)


def _idle(members: int, used: int) -> str | None:
    """A line about devices that the members do not use; None where they use all."""
    devices = jax.device_count()
    if used == devices:
        return None
    if members < devices:
        return (
            f"{members} members on {used} of {devices} devices: no member is split; a multiple of {devices} members"
            " uses all."
        )
    most = members // devices * devices
    return (
        f"{members} members on {used} of {devices} devices: {members} is not a multiple of {devices};"
        f" --together {most} uses all."
    )


def _mapped(function: Callable, mesh: Mesh, axes: Sequence[int | None], *, donate: int | None = None):
    """The function of one member, mapped over all of them, which the devices share, and compiled."""
    specs = tuple(PartitionSpec() if axis is None else PartitionSpec(AXIS) for axis in axes)
    mapped = jax.vmap(function, in_axes=tuple(axes))
    shared = jax.shard_map(mapped, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(AXIS), check_vma=False)
    return jax.jit(shared, donate_argnums=() if donate is None else donate)


def _batches(
    images: Images, recipe: Recipe, seeds: Sequence[int], start: int, stop: int
) -> Iterator[dict[str, np.ndarray]]:
    """{"index": int32 [members, b]} of every step, in the order that each member has alone; with "label" for an
    online classifier."""
    pipeline = input_pipeline("resident", images, recipe.views)
    streams = {
        seed: pipeline.batches(
            batch_size=recipe.batch_size,
            seed=seed,
            start_step=start,
            stop_step=stop,
            process_index=0,
            process_count=1,
        )
        for seed in dict.fromkeys(seeds)
    }
    for _ in range(start, stop):
        rows = {seed: next(stream)["index"] for seed, stream in streams.items()}
        batch = {"index": np.stack([rows[seed] for seed in seeds])}
        if recipe.classify is not None and recipe.labelled:
            assert images.labels is not None
            batch["label"] = images.labels[batch["index"]].astype(np.int32)
        yield batch


def _new_failures(fetched: Sequence[Mapping[str, Any]], before: int, known: Mapping[int, int]):
    """{member: the first step that was not taken} of members that were, until the step `before`."""
    if not fetched:
        return {}
    taken = np.array([metrics["taken"] for metrics in fetched])
    return {
        i: before + 1 + int(np.argmin(taken[:, i]))
        for i in range(taken.shape[1])
        if i not in known and not taken[:, i].all()
    }


def _called(i: int, numbers, seeds) -> str:
    which = ", ".join(f"{name} {value:g}" for name, value in [*numbers[i].items(), ("seed", seeds[i])])
    return f"member {i} ({which})"


def _say_diverged(log: Log, run_dirs, numbers, seeds, i: int, step: int) -> None:
    who = _called(i, numbers, seeds)
    log.say(f"M{who[1:]} diverged at step {step} and stays as it was before it; the others go on.")
    if run_dirs:
        said = {"step": step, "why": "loss, gradient or parameters were not finite"}
        (Path(run_dirs[i]) / DIVERGED).write_text(json.dumps(said) + "\n")
