"""One loop for every method: read it from top to bottom."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from rich.console import Console

from jaxcl import keys
from jaxcl.data import batches, index_batches, prefetch
from jaxcl.evaluate import embed, knn_accuracy
from jaxcl.experiment import Experiment
from jaxcl.train import checkpoint, placement
from jaxcl.train.log import Log
from jaxcl.train.state import TrainState, init_state
from jaxcl.train.step import in_one_call, make_step
from jaxcl.typing import Batch


class Preempted(SystemExit):
    """The run was asked to stop (SIGTERM), saved itself and can go on; exit status 75, "try again"."""

    def __init__(self, step: int):
        super().__init__(75)
        self.step = step


def train(experiment: Experiment, *, run_dir: str | Path | None = None, quiet: bool = False) -> TrainState:
    """Trains to `experiment.steps` and returns the final state.

    With a `run_dir` the run logs (metrics.jsonl, TensorBoard) and saves itself there, and goes on from the newest
    good checkpoint that it finds, bit for bit as if it had never stopped (on the same number of devices). The number
    of the step is the only state of the input: order and augmentation are functions of (seed, step, sample index).
    `quiet` keeps it off the screen, as a notebook with several runs may wish.

    Raises FloatingPointError when the loss is no longer finite, and `Preempted` after a SIGTERM.
    """
    e = experiment
    mesh = placement.make_mesh()
    check(e, mesh.size)
    init_key, run_key = keys.init_key(e.seed), keys.run_key(e.seed)

    many = e.steps_per_call > 1
    step_fn = make_step(e.method, e.optimizer, axis_name=placement.axis_name(e.placement))
    step_fn = placement.place(in_one_call(step_fn) if many else step_fn, e.placement, mesh, axis=int(many))
    state = placement.replicate(init_state(init_key, e.method, e.optimizer, first_batch(e)), mesh)
    run_key = placement.replicate(run_key, mesh)

    checkpoints = Path(run_dir) / "checkpoints" if run_dir is not None else None
    start = 0
    if checkpoints is not None and checkpoint.latest(checkpoints) is not None:
        state, start = checkpoint.restore(checkpoints, state)

    with (
        Log(run_dir, start_step=start, steps=e.steps, console=Console(quiet=True) if quiet else None) as log,
        asked_to_stop() as stop,
        closing(device_batches(e, mesh, start)) as input_batches,
    ):
        kept, waited, since = [], 0.0, time.perf_counter()
        saved = logged = start
        for step in ends_of_calls(e, start):
            before = time.perf_counter()
            batch = next(input_batches)
            waited += time.perf_counter() - before
            state, metrics = step_fn(state, run_key, batch)
            kept.append(metrics)
            log.advance(step)

            if step % e.log_every == 0 or step == e.steps:
                record = fetch_mean(kept, many=many)  # the only place where the host waits for the device
                seconds = time.perf_counter() - since
                record |= {
                    "epoch": step * e.batch_size / len(e.train.images),
                    "images_per_second": (step - logged) * e.batch_size / seconds,
                    "input_wait": waited / seconds,
                }
                if e.learning_rate is not None:
                    record["learning_rate"] = float(e.learning_rate(step - 1))
                log.write(step, record)
                if not np.isfinite(record["loss"]):
                    raise FloatingPointError(
                        f"The loss was {record['loss']} within steps {logged + 1} to {step}. The newest"
                        f" checkpoint is of step {saved}. A lower learning rate, a longer warm-up or float32 may help."
                    )
                kept, waited, since, logged = [], 0.0, time.perf_counter(), step
            if e.knn_every and e.test is not None and (step % e.knn_every == 0 or step == e.steps):
                log.write(step, {"knn_accuracy": look_at_knn(e, state)})
                since = time.perf_counter()
            stopping = stop(-(-step // e.steps_per_call))
            if checkpoints is not None and (step % e.save_every == 0 or step == e.steps or stopping):
                checkpoint.save(checkpoints, step, state)
                saved, since = step, time.perf_counter()
            if stopping and step < e.steps:
                raise Preempted(step)
    return state


def check(e: Experiment, devices: int) -> None:
    if e.batch_size % devices:
        raise ValueError(f"A batch of {e.batch_size} cannot be split evenly over {devices} devices.")
    if e.steps_per_call < 1:
        raise ValueError(f"steps_per_call must be at least 1; got {e.steps_per_call}.")
    for name in ("log_every", "save_every", "knn_every"):
        if getattr(e, name) % e.steps_per_call:
            raise ValueError(
                f"Nothing can be logged or saved within a call, so {name} must be a multiple of"
                f" steps_per_call={e.steps_per_call}; got {getattr(e, name)}."
            )


def ends_of_calls(e: Experiment, start: int) -> list[int]:
    """The steps at which compiled calls end: the multiples of `steps_per_call` after `start`, and the last step."""
    k = e.steps_per_call
    return [*range(start - start % k + k, e.steps, k), *([e.steps] if start < e.steps else [])]


def device_batches(e: Experiment, mesh: jax.sharding.Mesh, start: int) -> Generator[Any, None, None]:
    """What each compiled call takes from step `start` on, read by a thread and laid out over the devices before it is
    asked for: a batch, or [k, b, ...] of them where a call makes several steps."""
    read: Callable[..., Iterator[Batch]]
    axis = int(e.steps_per_call > 1)
    if e.resident:
        if e.input is not None:
            raise ValueError(
                "An experiment takes its batches from `input` or keeps its images resident, not both."
            )
        read = partial(index_batches, len(e.train.images))
        lay_out = placement.resident(e.train.images, mesh, axis=axis)
    else:
        read = e.input or partial(batches, e.train)
        lay_out = partial(placement.split, mesh=mesh, axis=axis)
    host = read(
        batch_size=e.batch_size,
        seed=e.seed,
        start_step=start,
        stop_step=e.steps,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    if axis:
        ends = [start, *ends_of_calls(e, start)]
        calls = (islice(host, end - before) for before, end in pairwise(ends))
        stacked = (jax.tree.map(lambda *batches: np.stack(batches), *call) for call in calls)
        return prefetch((lay_out(batches) for batches in stacked), size=2)
    return prefetch((lay_out(batch) for batch in host), size=2)


def first_batch(e: Experiment) -> Batch:
    """The global batch of the first step, on which a method's parameters are initialised, in every process."""
    read: Callable[..., Iterator[Batch]] = e.input or partial(batches, e.train)
    return next(read(batch_size=e.batch_size, seed=e.seed, start_step=0, stop_step=1))


def fetch_mean(kept: list[dict[str, Any]], *, many: bool = False) -> dict[str, Any]:
    """The mean of each metric over the steps since the last time: a number, or a list of them where it has an axis.

    many: each of those kept is of several steps, [k, ...]."""
    fetched = jax.device_get(kept)
    if many:
        fetched = [
            {name: call[name][i] for name in call} for call in fetched for i in range(len(call["loss"]))
        ]
    return {name: np.mean([metrics[name] for metrics in fetched], axis=0).tolist() for name in fetched[0]}


def look_at_knn(e: Experiment, state: TrainState) -> float:
    """kNN accuracy, in percent (k=10, cosine, the training images as the bank)."""
    assert e.test is not None
    if e.train.labels is None or e.test.labels is None:
        raise ValueError(f"knn_every needs labels, and {e.train.name} has none; set it to 0.")

    def features(images):
        return embed(lambda x: e.method.embed(state.params, state.state, x), images)

    return 100 * knn_accuracy(
        features(e.train.images), e.train.labels, features(e.test.images), e.test.labels, k=10
    )


@contextmanager
def asked_to_stop():
    """Yields `stop(step)`: whether the run was asked to end (SIGTERM), the same answer in every process."""
    flag = threading.Event()
    in_main = threading.current_thread() is threading.main_thread()
    if jax.process_count() > 1:
        yield lambda step: multihost_utils.reached_preemption_sync_point(step)
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: flag.set()) if in_main else None
    try:
        yield lambda step: flag.is_set()
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, previous)
