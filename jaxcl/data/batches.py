"""The order of the data: a pure function of (seed, step), so that a run's only data state is its step number.

    epoch   floor(step / (n // batch_size)); every epoch is its own permutation of 0..n-1
    batch   the next batch_size numbers of that permutation; a last, incomplete batch is dropped

A run that was stopped at step s goes on with `start_step=s` and meets the images it would have met. The order does not
know how many devices or processes there are: they share the same global batch, each taking its rows of it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import TypeVar

import numpy as np

from jaxcl.typing import Images

T = TypeVar("T")


def order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of n images in one epoch: a permutation of 0..n-1, int32 [n].

    The ranks of n raw 64-bit words of Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"),
    whose key is (seed, epoch). numpy promises that these words stay the same in every version.

    Raises ValueError for a negative seed or epoch, and for n < 1.

    >>> order(0, 0, 5), order(0, 1, 5)
    (array([0, 2, 1, 4, 3], dtype=int32), array([3, 2, 4, 1, 0], dtype=int32))
    """
    if not 1 <= n < 2**31:
        raise ValueError(
            f"the number of images must lie in [1, 2^31), as their indices are int32; got n={n}."
        )
    words = _philox(seed, epoch).random_raw(n)
    # Stable: two equal words, should they ever come, keep their order on every machine.
    return np.argsort(words, kind="stable").astype(np.int32)


def indices(seed: int, step: int, batch_size: int, n: int) -> np.ndarray:
    """Which of n images make up the global batch of a step: int32 [batch_size], none twice.

    Raises ValueError where batch_size is not in [1, n], or step is negative.

    >>> [indices(0, step, 2, 5).tolist() for step in range(3)]
    [[0, 2], [1, 4], [3, 2]]
    """
    epoch, batch = divmod(_checked(step), _steps_per_epoch(batch_size, n))
    return order(seed, epoch, n)[batch * batch_size : (batch + 1) * batch_size]


def batches(
    images: Images,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    stop_step: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """The batches of steps start_step, start_step + 1, ..., stop_step - 1; without end where stop_step is None.

    Each is {"image": uint8 [b, h, w, c], "index": int32 [b]}: this process's b = batch_size / process_count rows of
    the global batch, in the order of the processes. `index` is the image's number in the data set, on which its
    augmentation hangs.

    Raises ValueError at once (not at the first batch) where batch_size is larger than the data set or cannot be
    split evenly among the processes.
    """
    walk = index_batches(
        len(images.images),
        batch_size=batch_size,
        seed=seed,
        start_step=start_step,
        stop_step=stop_step,
        process_index=process_index,
        process_count=process_count,
    )
    return ({"image": np.asarray(images.images[batch["index"]]), **batch} for batch in walk)


def index_batches(
    n: int,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    stop_step: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """`batches` of a data set of n images, with {"index": int32 [b]} alone: for images that lie elsewhere."""
    steps = _steps_per_epoch(batch_size, n)
    _checked(start_step)
    _philox(seed, 0)
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index must lie in [0, {process_count}); got {process_index}.")
    if batch_size % process_count:
        raise ValueError(
            f"a batch of {batch_size} cannot be split evenly among {process_count} processes;"
            f" take a multiple of {process_count}."
        )
    rows = batch_size // process_count

    def walk():
        step, epoch, now = start_step, -1, np.empty(0, np.int32)
        while stop_step is None or step < stop_step:
            if step // steps != epoch:  # the order is made once an epoch
                epoch = step // steps
                now = order(seed, epoch, n)
            first = (step % steps) * batch_size + process_index * rows
            yield {"index": now[first : first + rows]}
            step += 1

    return walk()


def prefetch(iterator: Iterable[T], *, size: int = 2) -> Generator[T, None, None]:
    """The same items, made up to `size` ahead by a background thread.

    The thread starts with the first item asked for. What the iterator raises is raised here, at its position in the
    sequence. The thread ends when the items do, and when the returned generator is closed or forgotten; its iterator
    is closed with it.
    """
    if size < 1:
        raise ValueError(f"prefetch needs room for at least one item; got size={size}.")

    def generate():
        ready: queue.Queue = queue.Queue(size)
        closed = threading.Event()

        def put(kind, value):
            ready.put((kind, value))
            return not closed.is_set()

        def work():
            source: Iterator[T] = iter(())
            try:
                source = iter(iterator)
                for item in source:
                    if not put("item", item):
                        return
                put("end", None)
            except BaseException as error:  # it belongs to whoever asks for the next item
                put("error", error)
            finally:
                if hasattr(source, "close"):
                    source.close()

        thread = threading.Thread(target=work, name="jaxcl-prefetch", daemon=True)
        thread.start()
        try:
            while True:
                kind, value = ready.get()
                if kind == "end":
                    return
                if kind == "error":
                    raise value
                yield value
        finally:
            closed.set()
            # The thread may wait for room: make some until it has seen that nobody listens.
            while thread.is_alive():
                try:
                    ready.get(timeout=0.01)
                except queue.Empty:
                    continue
            thread.join()

    return generate()


def _philox(seed: int, epoch: int) -> np.random.Philox:
    if not (0 <= seed < 2**64 and 0 <= epoch < 2**64):
        raise ValueError(f"seed and epoch must lie in [0, 2^64); got seed={seed}, epoch={epoch}.")
    return np.random.Philox(key=np.array([seed, epoch], np.uint64))


def _steps_per_epoch(batch_size: int, n: int) -> int:
    if not 1 <= batch_size <= n:
        raise ValueError(
            f"a batch holds each image at most once, so batch_size must lie in [1, {n}] for {n} images;"
            f" got {batch_size}. Take a smaller batch or more images."
        )
    return n // batch_size


def check_steps(steps: int, epochs: float, count: int, batch_size: int) -> None:
    """Raises ValueError where the epochs of a run are less than one of its steps."""
    if steps < 1:
        raise ValueError(
            f"--epochs {epochs:g} of {count} images is less than one step of {batch_size}. Take more epochs or a"
            " smaller --batch-size."
        )


def _checked(step: int) -> int:
    if step < 0:
        raise ValueError(f"steps are counted from 0; got {step}.")
    return step
