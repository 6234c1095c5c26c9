"""The tf.data pipeline: batches from step to step, with good files in the place of damaged ones."""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from collections.abc import Callable, Iterator

import numpy as np

from jaxcl.data.batches import index_batches
from jaxcl.data.host.files import check_damage, told_of_damage, verdict
from jaxcl.data.stream import Encoded

# (batch_size, seed, start_step, stop_step, process_index, process_count, by name) -> this process's batches.
Input = Callable[..., Iterator[dict[str, np.ndarray]]]


def run(
    tf, source, made, one, threads, tolerate, *, batch_size, seed, start_step=0, stop_step=None, **processes
):
    """The batches of a training run; see `run_in_order`."""
    n = len(source.paths) if isinstance(source, Encoded) else len(source.images)

    def order(first, last):
        return index_batches(
            n, batch_size=batch_size, seed=seed, start_step=first, stop_step=last, **processes
        )

    order(start_step, stop_step)  # refuses at once what cannot be dealt out
    rows_here = batch_size // processes.get("process_count", 1)
    steps = {"start_step": start_step, "stop_step": stop_step}
    return run_in_order(tf, source, made, one, threads, tolerate, order, rows_here, **steps)


def run_in_order(tf, source, made, one, threads, tolerate, order, rows_here, *, start_step=0, stop_step=None):
    """made(step, index) -> tree, what a batch is made of; one(tree, row) -> an example; order(first, last) -> which
    images the steps have, {"index": [rows_here]} each. Yields the batches."""
    threads = threads or os.cpu_count() or 1
    suspects: set[int] = set(source.damaged) if isinstance(source, Encoded) else set()
    if suspects:
        check_damage(source, tolerate)

    def settled(step, index):
        """What the batch of a step is made of: for each image that cannot be decoded in this step, the next that can.

        Only suspects are tried, which failed in some step. As they are tried anew, a batch does not depend on the steps
        before it: a run that goes on has the batches of one that never stopped.
        """
        out, by = index.copy(), {}
        for at in np.flatnonzero(np.isin(index, list(suspects))):
            for n in range(len(source.paths)):
                out[at] = (int(index[at]) + n) % len(source.paths)
                if int(out[at]) not in suspects:
                    break
                by[at], why = verdict(tf, source, made(step, out[at : at + 1])[1], 0)
                if not why:
                    break
            else:
                raise ValueError(f"all {len(source.paths)} images of {source.name} are damaged.")
            if int(out[at]) not in suspects:
                by.pop(at, None)
        tree, rows = made(step, out)
        if by:
            rows = {**rows, "plain": rows["plain"].copy()}
            rows["plain"][list(by)] = list(by.values())
        return tree, rows

    def look_closer(step):
        """Tries all images of a step, one by one; whether any is a suspect now that was none before."""
        before = len(suspects)
        rows = settled(step, next(order(step, None))["index"])[1]
        for at, i in enumerate(rows["index"].tolist()):
            if i in suspects:
                continue
            plain, why = verdict(tf, source, rows, at)
            if why or plain != source.plain[i]:
                suspects.add(i)
            if why and i not in source.damaged:
                told_of_damage(source, i, why, tolerate)
        return len(suspects) > before

    def dataset(first):
        tree, example = settled(first, next(order(first, None))["index"])
        signature = tf.nest.map_structure(lambda x: tf.TensorSpec((None, *x.shape[1:]), x.dtype), example)

        def batches():
            for step, batch in enumerate(order(first, stop_step), start=first):
                yield settled(step, batch["index"])[1]

        # Only numbers and small arrays pass through Python, a batch at a time; the rest is TensorFlow's.
        rows = tf.data.Dataset.from_generator(batches, output_signature=signature).unbatch()
        work = tf.autograph.experimental.do_not_convert(lambda row: one(tree, row))
        ready = rows.map(work, num_parallel_calls=threads, deterministic=True)
        ready = ready.batch(rows_here, drop_remainder=True).prefetch(2)
        options = tf.data.Options()
        # A pool of its own, and one thread an image: the training's threads are left alone.
        options.threading.private_threadpool_size = threads
        options.threading.max_intra_op_parallelism = 1
        options.deterministic = True
        return ready.with_options(options)

    def walk():
        step, again = start_step, None
        while stop_step is None or step < stop_step:
            try:
                for batch in dataset(step).as_numpy_iterator():
                    yield batch
                    step += 1
                return
            except tf.errors.OpError:
                # Some file of this step cannot be decoded. Find it, and begin again at this step without it; where none
                # is found it may have been the reading, which is tried once more.
                if not (isinstance(source, Encoded) and (look_closer(step) or again != step)):
                    raise
                again = step

    batches = walk()
    RUNNING.add(batches)
    return batches


# TensorFlow's threads call into Python for each batch, and a process that ends before they do is aborted.
RUNNING: weakref.WeakSet = weakref.WeakSet()


@atexit.register
def stop_running() -> None:
    for batches in list(RUNNING):
        with contextlib.suppress(ValueError):  # it is just running, in another thread
            batches.close()
