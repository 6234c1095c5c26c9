"""One loop for every method: read it from top to bottom."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from rich.console import Console

from jaxcl import keys
from jaxcl.config import Recipe
from jaxcl.data import InputPipeline, input_pipeline, prefetch
from jaxcl.devices import axis_name, lay_out, make_mesh, replicate, split, whole
from jaxcl.interrupts import raises
from jaxcl.train import checkpoint, finite
from jaxcl.train.callbacks import Callback
from jaxcl.train.health import Health, seen
from jaxcl.train.log import Log, set_aside
from jaxcl.train.loggers import Logger, check_loggers
from jaxcl.train.placement import layout, place, resident
from jaxcl.train.saver import Saver, check_renames
from jaxcl.train.state import TrainState, fill, init_state, start_from
from jaxcl.train.step import in_one_call, make_step
from jaxcl.typing import Batch, Images

# So many seconds of steps may be queued on the device, and so many batches are made before they are asked for.
SECONDS_AHEAD = 1.0
PREFETCHED = 2


class Preempted(SystemExit):
    """The run was preempted (SIGTERM), saved itself and can go on; exit status 75, "try again"."""

    def __init__(self, step: int):
        super().__init__(75)
        self.step = step


class Interrupted(KeyboardInterrupt):
    """The run was interrupted (SIGINT, Ctrl-C), saved itself and can go on."""

    def __init__(self, step: int):
        super().__init__(f"Interrupted after step {step}, and saved.")
        self.step = step


def train(
    recipe: Recipe,
    images: Images,
    *,
    seed: int = 0,
    input: str | InputPipeline = "device",
    placement: str = "jit",
    shard_state: bool = False,
    steps_per_call: int = 1,
    nonfinite: str = "stop",
    log_every: int = 50,
    save_every: int = 1000,
    keep_every: int = 0,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[str | Logger] = ("tensorboard",),
    init: str | Path | Callable[[TrainState], TrainState] | None = None,
    run_dir: str | Path | None = None,
    identity: Mapping[str, Any] | None = None,
    quiet: bool = False,
    begin: Callable[[], Any] | None = None,
    ahead: Callable[..., Callable] | None = None,
) -> TrainState:
    """Trains a recipe on images for `recipe.steps` training steps and returns the final state.

    input
        who makes the views: "device", "resident", "host" or "images" (`data.input_pipeline`); or a pipeline of one's
        own.
    placement
        how a training step runs on several devices: "jit", "shard_map" or "pmap"; the one that the recipe's
        `axis_name` is for.
    shard_state
        each device keeps its part of the optimizer's state and of the method's memory (target network, queue, bank),
        under "jit"; the same numbers, up to rounding, for less memory and more messages. The state that is returned is
        whole again. Checkpoints are the same either way.
    steps_per_call
        training steps that are compiled and run as one; divides all cadences.
    nonfinite
        what follows where loss, gradient, parameters or memory are no longer finite after a step: "stop" ends the run,
        "skip" leaves the step out and goes on, unless ten in a row are such. It is not taken either way, and what it
        was made of is kept (`train.finite`).
    log_every, save_every
        training steps between two lines of the log, and between two checkpoints.
    keep_every
        of the checkpoints the newest three stay, and those at multiples of so many training steps; 0: no others.
    callbacks
        what else happens between training steps, as online kNN; what they return is logged.
    loggers
        who gets the metrics besides metrics.jsonl: "tensorboard", "wandb", "mlflow", or an object with `write(step,
        metrics)` and `close()` (`train.loggers`). None of them can end the run.
    init
        the checkpoints of another run, whose encoder this one starts from (`start_from`); or a function of the state
        before the first step.
    run_dir
        the run logs (metrics.jsonl, `loggers`) and saves itself there, and goes on from the newest good checkpoint
        that it finds, bit for bit as if it had never stopped (on the same number of devices). The number of the step
        is the only state of the input: order and augmentation are functions of (seed, step, sample index).
    identity
        what makes it this run, to be kept with each checkpoint (`jaxcl.identity`).
    quiet
        keeps it off the screen, as a notebook with several runs may wish.
    begin
        is called when all is built and nothing is written yet: what makes the run directory.
    ahead
        (step, state, key, batch) -> step: what compiles the training step before its first call, as `plan.ahead`, which
        says what it needs of the machine and refuses what does not fit. Where a call is several steps, it is given
        their number as well (`steps=`).

    The first step is reported at once, with the time of compilation and of a step. The host queues at most one second
    of steps on the device (none, if a step takes longer). So an interrupted or preempted run ends after the running
    step and its checkpoint, and not after minutes of queued steps.

    Raises FloatingPointError where it stops over a step that is not finite, and, having saved, `Preempted` after a
    SIGTERM and `Interrupted` after a SIGINT. A second SIGINT, and the first where nothing can be saved, is a
    KeyboardInterrupt at once. One signal to one of several processes ends all of them, at the same step.
    """
    mesh = make_mesh()
    check(recipe.batch_size, mesh.size, steps_per_call, log_every, save_every, callbacks)
    check_loggers(loggers)
    if run_dir is not None:
        check_renames(run_dir)
    init_key, run_key = keys.init_key(seed), keys.run_key(seed)
    pipeline = input if isinstance(input, InputPipeline) else input_pipeline(input, images, recipe.views)
    if recipe.classify is not None and recipe.labelled:
        pipeline = with_labels(pipeline, images)

    many = steps_per_call > 1
    step_fn = make_step(recipe.method, recipe.optimizer, axis_name=axis_name(placement))
    step_fn = finite.guarded(step_fn, nonfinite=nonfinite)
    first = pipeline.first(batch_size=recipe.batch_size, seed=seed, rows=2)  # in every process
    state = init_state(init_key, recipe.method, recipe.optimizer, first)
    carry = layout(state, mesh, shard=shard_state)
    step_fn = in_one_call(step_fn) if many else step_fn
    step_fn = place(step_fn, placement, mesh, axis=int(many), carry=carry)

    checkpoints = Path(run_dir) / "checkpoints" if run_dir is not None else None
    resumed = checkpoints is not None and checkpoint.latest(checkpoints) is not None
    if init is not None and not resumed:
        state = init(state) if callable(init) else start_from(state, init, parts=recipe.carries)
    if recipe.given is not None and not resumed:
        state = fill(state, recipe.given)
    state, run_key, start = lay_out(state, carry), replicate(run_key, mesh), 0
    if resumed:
        assert checkpoints is not None
        state, start = finite.restore(checkpoints, state)
    read = device_batches(pipeline, mesh, recipe.batch_size, seed, start, recipe.steps, steps_per_call)
    # What cannot be read is told before there is a directory. (`chain` would keep a list, and its batch, to the end.)
    input_batches = chain(iter(list(islice(read, 1))), read)
    if begin is not None:
        begin()

    anew = None
    if run_dir is not None and not resumed and jax.process_index() == 0:
        anew = set_aside(run_dir)
    with (
        Log(
            run_dir,
            start_step=start,
            steps=recipe.steps,
            loggers=loggers,
            console=Console(quiet=True) if quiet else None,
        ) as log,
        preemption(interrupts=run_dir is not None) as (preempted, interrupted),
        closing(read),
        Saver() as saver,
    ):
        if anew:
            log.say(anew)
        if resumed:
            log.say(
                f"Goes on from step {start} of {recipe.steps}."
                if start < recipe.steps
                else f"Step {start} was the last."
            )
        # Steps that were made before the run stopped and are not logged yet: their mean is that of the unbroken run.
        kept = unlogged(checkpoints, start) if resumed and checkpoints is not None else []
        waited, since = 0.0, time.perf_counter()
        saved = logged = timed = start
        running: list[Any] = []  # losses of calls that the device may not have ended
        most_running, per_step = 0, 0.0
        cadences = [log_every, save_every, *(callback.every for callback in callbacks)]
        guard, health = finite.Guard(nonfinite), Health(recipe, len(images.images), start)

        def act_on(bad: list[finite.NotTaken]) -> None:
            """Keeps what steps were made of that were not taken, and ends the run where it must."""
            spoilt: list[int] = []
            for one in bad:
                spoilt = finite.keep(run_dir, one, pipeline, batch_size=recipe.batch_size, seed=seed)
                if not guard.stops:
                    log.say(finite.skipped(one, spoilt))
            if bad and guard.stops:
                saver.wait()
                at = saved
                if run_dir is not None and finite.halted_at(state) is not None:
                    at = finite.keep_state(Path(run_dir), state, identity, keep_every=keep_every)
                raise FloatingPointError(finite.sentence(bad[-1], spoilt, run_dir, at, nonfinite))

        for step in ends_of_calls(start, recipe.steps, steps_per_call):
            before = time.perf_counter()
            batch = next(input_batches)
            waited += time.perf_counter() - before
            if timed == start:
                log.say("Compiling the training step; a large network takes minutes.")
            before = time.perf_counter()
            if ahead is not None:
                several = {"steps": step - start} if many else {}
                step_fn, ahead = ahead(step_fn, state, run_key, batch, **several), None
            state, metrics = step_fn(state, run_key, batch)
            saver.look()
            kept.append(metrics)
            running.append(metrics["loss"])
            if timed == start:  # the first call: compiled when it returns, done when its loss is there
                compiled = time.perf_counter()
                jax.block_until_ready(running.pop())
                since, waited, timed = time.perf_counter(), 0.0, step
                most_running = calls_ahead(since - compiled)
                per_step = (since - compiled) / (step - start)
                log.began(step, compiling=compiled - before, seconds=per_step)
            while len(running) > most_running:
                jax.block_until_ready(running.pop(0))
            log.advance(step)
            log.glance(step, partial(mean_loss, metrics))

            last = step == recipe.steps
            act_on(guard.sent(step, metrics))
            if last or any(step % every == 0 for every in cadences):
                act_on(guard.look())  # only here and where it ends the host waits for the device
            if step % log_every == 0 or last:
                record = fetch_mean(kept, many=many)
                seconds, steps = time.perf_counter() - since, step - max(logged, timed)
                if not steps:  # the first call alone, which was timed by itself
                    seconds, steps = per_step, 1
                record |= {
                    "epoch": step * recipe.batch_size / len(images.images),
                    "images_per_second": steps * recipe.batch_size / seconds,
                    "input_wait": waited / seconds,
                    "learning_rate": float(recipe.learning_rate(step - 1)),
                }
                if nonfinite != "skip":
                    del record["skipped"]
                log.write(step, record)
                for warning in health.warnings(step, record, seen(state.state)):
                    log.warn(step, warning)
                kept, waited, since, logged = [], 0.0, time.perf_counter(), step
            for callback in callbacks:
                if step % callback.every == 0 or last:
                    before = time.perf_counter()
                    log.write(step, callback.call(step, state.params, whole(state.state, mesh)))
                    since += time.perf_counter() - before
            stopping = preempted(-(-step // steps_per_call))
            if checkpoints is not None and (step % save_every == 0 or last or stopping):
                if stopping:
                    log.say(f"Preempted or interrupted: saving step {step}, then ending.")
                act_on(guard.look())
                before = time.perf_counter()
                finite.check(state, step, saved)
                beside = {"identity": identity, "unlogged": listed(kept)}
                saver.save(checkpoints, step, state, keep_every=keep_every, beside=beside)
                since += time.perf_counter() - before
                saved = step
            if stopping and not last:
                saver.wait()
                raise Interrupted(step) if interrupted() else Preempted(step)
    return whole(state, mesh)


def check(
    batch_size: int,
    devices: int,
    steps_per_call: int,
    log_every: int,
    save_every: int,
    callbacks: Sequence[Callback],
) -> None:
    if batch_size % devices:
        raise ValueError(
            f"A batch of {batch_size} cannot be split evenly over {devices} devices. Take a multiple of {devices}."
        )
    if steps_per_call < 1:
        raise ValueError(f"steps_per_call must be at least 1; got {steps_per_call}.")
    cadences = [("log_every", log_every), ("save_every", save_every)]
    cadences += [("the cadence of a callback", callback.every) for callback in callbacks]
    for name, every in cadences:
        if every < 1:
            raise ValueError(f"{name} is in training steps, at least 1; got {every}.")
        if every % steps_per_call:
            raise ValueError(
                f"Nothing can be logged or saved within a call, so {name} must be a multiple of"
                f" steps_per_call={steps_per_call}; got {every}."
            )


def ends_of_calls(start: int, steps: int, steps_per_call: int) -> Iterator[int]:
    """The steps at which compiled calls end: the multiples of `steps_per_call` after `start`, and the last step.

    >>> list(ends_of_calls(4, 11, 3))
    [6, 9, 11]
    """
    k = steps_per_call
    if start < steps:
        yield from (min(end, steps) for end in range(start - start % k + k, steps + k, k))


def with_labels(pipeline: InputPipeline, images: Images) -> InputPipeline:
    """The same batches with "label", int32 [b]."""
    labels = images.labels
    if labels is None:
        raise ValueError(
            f"The online classifier (--probe, or `classify` of the recipe) needs labels, and {images.name} has none."
            " Give labelled images, or leave the classifier out."
        )

    def batches(**order: Any) -> Iterator[Batch]:
        batches = pipeline.batches(**order)  # at once: it refuses a batch that does not fit
        return ({**batch, "label": labels[batch["index"]].astype(np.int32)} for batch in batches)

    return pipeline._replace(batches=batches)


def device_batches(
    pipeline: InputPipeline,
    mesh: Mesh,
    batch_size: int,
    seed: int,
    start: int,
    steps: int,
    steps_per_call: int,
) -> Generator[Any, None, None]:
    """What each compiled call takes from step `start` on, read by a thread and laid out over the devices before it is
    asked for: a batch, or [k, b, ...] of them where a call makes several steps."""
    many = steps_per_call > 1
    axis = int(many)
    lay_out: Callable[[Batch], Any] = partial(split, mesh=mesh, axis=axis)
    if pipeline.resident is not None:
        lay_out = resident(pipeline.resident, mesh, axis=axis)
    host = pipeline.batches(
        batch_size=batch_size,
        seed=seed,
        start_step=start,
        stop_step=steps,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    if many:
        ends = chain([start], ends_of_calls(start, steps, steps_per_call))
        calls = (islice(host, end - before) for before, end in pairwise(ends))
        stacked = (jax.tree.map(lambda *batches: np.stack(batches), *call) for call in calls)
        return prefetch((lay_out(batches) for batches in stacked), size=PREFETCHED)
    return prefetch((lay_out(batch) for batch in host), size=PREFETCHED)


def calls_ahead(seconds: float) -> int:
    """How many calls of so many seconds each are queued behind the one that runs.

    >>> calls_ahead(0.1), calls_ahead(2.0), calls_ahead(1e-4)
    (10, 0, 32)
    """
    return min(32, int(SECONDS_AHEAD / max(seconds, 1e-6)))


def mean_loss(metrics: dict[str, Any]) -> float:
    """Waits for the device."""
    return float(np.mean(metrics["loss"]))


def fetch_mean(kept: list[dict[str, Any]], *, many: bool = False) -> dict[str, Any]:
    """The mean of each metric over the steps since the last time: a number, or a list of them where it has an axis.

    Of steps with "taken" those that were taken count (all, if none was), and the number of the others is "skipped".

    many: each of those kept is of several steps, [k, ...]."""
    fetched = jax.device_get(kept)
    if many:
        fetched = [
            {name: call[name][i] for name in call} for call in fetched for i in range(len(call["loss"]))
        ]
    counted = [metrics for metrics in fetched if metrics.get("taken", True)]
    names = [name for name in fetched[0] if name != "taken"]
    means = {
        name: np.mean([metrics[name] for metrics in counted or fetched], axis=0).tolist() for name in names
    }
    return means | ({"skipped": len(fetched) - len(counted)} if "taken" in fetched[0] else {})


def listed(kept: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics as lists of numbers, for JSON."""
    return jax.tree.map(lambda x: np.asarray(x).tolist(), jax.device_get(kept))


def unlogged(checkpoints: Path, step: int) -> list[dict[str, Any]]:
    """The metrics that `listed` wrote beside a checkpoint; [] beside one of an older jaxcl."""

    def array(x: Any) -> np.ndarray:
        return np.asarray(x, bool if np.asarray(x).dtype == bool else np.float32)

    found = checkpoint.beside(checkpoints, step).get("unlogged", [])
    try:
        return [{name: array(x) for name, x in metrics.items()} for metrics in found]
    except (AttributeError, TypeError, ValueError):  # not as it is written here
        return []


@contextmanager
def preemption(*, interrupts: bool) -> Iterator[tuple[Callable[[int], bool], Callable[[], bool]]]:
    """Yields `preempted(step)`, whether the run was asked to end, by SIGTERM or, with `interrupts`, by SIGINT: the same
    answer in every process; and `interrupted()`, whether this process was, by SIGINT."""
    asked, by_hand = threading.Event(), threading.Event()
    several, before = jax.process_count() > 1, signal.getsignal(signal.SIGINT)

    def interrupt(*_: Any) -> None:
        by_hand.set()
        os.write(2, b"\nEnding after this step. Once more: at once, unsaved.\n")  # print is not for handlers
        signal.signal(signal.SIGINT, before)
        if several:
            signal.raise_signal(signal.SIGTERM)  # which jax tells to all
        asked.set()

    handlers: dict[int, Any] = {} if several else {signal.SIGTERM: lambda *_: asked.set()}
    # One that is ignored (behind nohup) or somebody else's stays.
    if interrupts and raises():
        handlers[signal.SIGINT] = interrupt
    if threading.current_thread() is not threading.main_thread():
        handlers = {}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        if several:
            yield multihost_utils.reached_preemption_sync_point, by_hand.is_set
        else:
            yield lambda step: asked.is_set(), by_hand.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
