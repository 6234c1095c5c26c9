"""The order of the data is a function of (seed, step) and of nothing else."""

import gc
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcl.data import batches, from_arrays, indices, order, prefetch

ROUNDS = st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(1, 500)


def numbered(n):
    """n images; image i is full of i."""
    return from_arrays(np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None], (n, 4, 4)))


def ids(iterator):
    return [batch["index"].tolist() for batch in iterator]


@given(*ROUNDS)
def test_every_epoch_is_a_permutation(seed, epoch, n):
    assert np.array_equal(np.sort(order(seed, epoch, n)), np.arange(n))


@given(*ROUNDS)
def test_the_order_is_a_pure_function(seed, epoch, n):
    before = order(seed, epoch, n)
    np.random.default_rng().random(10)
    assert np.array_equal(before, order(seed, epoch, n))


def test_seeds_and_epochs_give_different_orders():
    orders = {tuple(order(seed, epoch, 50)) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


def test_every_image_is_as_likely_at_every_place():
    n, epochs = 8, 4000
    counts = np.zeros((n, n))
    for epoch in range(epochs):
        counts[np.arange(n), order(3, epoch, n)] += 1
    chi2 = np.sum((counts - epochs / n) ** 2) / (epochs / n)
    # (n - 1)^2 = 49 degrees of freedom; 100 is beyond the 0.9999 quantile.
    assert chi2 < 100


def test_the_order_stays_what_it_was_in_the_first_release():
    # Recorded: order(0, 0, 8) and order(2**63, 5, 8). A change here breaks every resumed run.
    assert order(0, 0, 8).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]
    assert order(2**63, 5, 8).tolist() == [6, 0, 5, 7, 2, 4, 3, 1]


@given(st.integers(0, 1000), st.integers(1, 20), st.integers(0, 30))
def test_an_epoch_meets_no_image_twice_and_drops_less_than_a_batch(seed, batch_size, more):
    n = batch_size + more
    steps = n // batch_size
    for epoch in range(2):
        met = np.concatenate([indices(seed, epoch * steps + i, batch_size, n) for i in range(steps)])
        assert len(set(met.tolist())) == len(met) > n - batch_size
        assert met.tolist() == order(seed, epoch, n)[: len(met)].tolist()


def test_batches_are_the_images_of_their_indices():
    data = numbered(11)
    for step, batch in enumerate(batches(data, batch_size=3, seed=1, stop_step=10)):
        assert batch["index"].tolist() == indices(1, step, 3, 11).tolist()
        assert batch["index"].dtype == np.int32
        assert batch["image"].dtype == np.uint8
        assert batch["image"].shape == (3, 4, 4, 1)
        assert batch["image"][:, 0, 0, 0].tolist() == batch["index"].tolist()


def test_a_run_cut_anywhere_goes_on_as_if_it_were_not():
    data = numbered(11)
    whole = ids(batches(data, batch_size=3, seed=1, stop_step=10))
    assert len(whole) == 10
    for cut in range(11):
        first = ids(batches(data, batch_size=3, seed=1, stop_step=cut))
        assert first + ids(batches(data, batch_size=3, seed=1, start_step=cut, stop_step=10)) == whole


def test_without_a_stop_step_there_is_no_end():
    endless = batches(numbered(4), batch_size=2, seed=0)
    assert len([next(endless) for _ in range(100)]) == 100


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_global_batch_in_their_order(processes):
    data = numbered(19)
    whole = ids(batches(data, batch_size=8, seed=5, stop_step=6))
    shares = [
        ids(batches(data, batch_size=8, seed=5, stop_step=6, process_index=i, process_count=processes))
        for i in range(processes)
    ]
    assert [sum(rows, []) for rows in zip(*shares, strict=True)] == whole


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"batch_size": 11}, "batch_size must lie in"),
        ({"batch_size": 0}, "batch_size must lie in"),
        ({"seed": -1}, "seed and epoch"),
        ({"start_step": -1}, "counted from 0"),
        ({"process_count": 3}, "split evenly among 3"),
        ({"process_index": 1}, "process_index must lie in"),
    ],
)
def test_what_cannot_be_dealt_out_is_an_error_at_once(change, says):
    with pytest.raises(ValueError, match=says):
        batches(numbered(10), **({"batch_size": 4, "seed": 0} | change))


def threads():
    return [t for t in threading.enumerate() if t.name == "jaxcl-prefetch"]


def test_prefetching_changes_neither_items_nor_order():
    assert list(prefetch(iter(range(100)), size=3)) == list(range(100))
    assert list(prefetch([], size=3)) == []
    assert threads() == []


def test_prefetching_runs_at_most_its_size_ahead():
    made = []
    ahead = prefetch((made.append(i) or i for i in range(100)), size=3)
    next(ahead)
    time.sleep(0.05)
    # One handed out, three waiting, one in the thread's hands.
    assert len(made) <= 5
    ahead.close()


def test_an_exception_comes_through_in_its_place():
    def broken():
        yield 1
        yield 2
        raise KeyError("the third")

    ahead = prefetch(broken(), size=5)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(KeyError, match="the third"):
        next(ahead)
    assert threads() == []
    with pytest.raises(StopIteration):
        next(ahead)


def test_what_is_no_iterator_is_said_so():
    with pytest.raises(TypeError):
        next(prefetch(3))
    with pytest.raises(ValueError, match="at least one"):
        prefetch([], size=0)


@pytest.mark.parametrize("how", ["close", "forget", "never started"])
def test_no_thread_outlives_its_consumer(how, request):
    closed = []

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.append(True)

    gc.freeze()  # what was there before is not looked through
    request.addfinalizer(gc.unfreeze)
    ahead = prefetch(endless(), size=2)
    if how != "never started":
        next(ahead)
        assert len(threads()) == 1
    if how == "close":
        ahead.close()
    del ahead
    gc.collect()
    assert threads() == []
    assert closed == ([] if how == "never started" else [True])
