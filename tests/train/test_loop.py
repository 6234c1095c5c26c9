"""A run that stops and goes on is the run that never stopped."""

import json
import os
import re
import signal
import threading
import time
from functools import partial

import chex
import jax
import numpy as np
import optax
import pytest

from jaxcl import augment, nets
from jaxcl.config import Recipe
from jaxcl.data import input_pipeline
from jaxcl.losses import keyless, nt_xent
from jaxcl.methods import simclr
from jaxcl.train import Callback, Interrupted, Preempted
from jaxcl.train import loop as loop_module
from jaxcl.train import train as loop
from jaxcl.train.log import read_metrics
from jaxcl.train.loop import fetch_mean, preemption
from jaxcl.typing import Images


@pytest.fixture(scope="module")
def noise():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    return Images("noise", images, rng.integers(0, 3, 40))


@pytest.fixture(scope="module")
def recipe():
    norm = nets.batch_norm()
    views = augment.two_views(augment.compose(augment.flip(), augment.grayscale(probability=0.5)))
    return Recipe(
        method=simclr(
            views=views,
            encoder=nets.small_convnet(features=(4,), norm=norm),
            head=nets.mlp_head(norm=nets.no_norm(), hidden=(), out=8),
            loss=keyless(nt_xent, temperature=0.2),
        ),
        optimizer=optax.adam(1e-3),
        learning_rate=optax.constant_schedule(1e-3),
        views=views,
        batch_size=16,  # two steps an epoch, so ten steps cross four of its ends
        steps=10,
    )


# Two steps to a line of the log, three to a checkpoint.
train = partial(loop, log_every=2, save_every=3)


@pytest.fixture(scope="module")
def unbroken(recipe, noise, tmp_path_factory):
    """The final state, the records, and the directory of one run, callbacks included."""
    run_dir = tmp_path_factory.mktemp("unbroken")
    calls = []

    def probe(step, params, state):
        calls.append(step)
        return {"kernels": len(jax.tree.leaves(params))}

    final = train(recipe, noise, run_dir=run_dir, callbacks=[Callback(4, probe)])
    return final, read_metrics(run_dir), run_dir, calls


def losses(records):
    return {record["step"]: record["loss"] for record in records if "loss" in record}


def test_a_run_killed_and_resumed_is_bit_for_bit_the_unbroken_one(recipe, noise, unbroken, tmp_path):
    final, records, *_ = unbroken

    class Killed(Exception):
        pass

    def until_step_7(step):
        if step >= 7:
            raise Killed
        return 1e-3

    with pytest.raises(Killed):
        train(recipe._replace(learning_rate=until_step_7), noise, run_dir=tmp_path)
    assert max(losses(read_metrics(tmp_path))) >= 6
    resumed = train(recipe, noise, run_dir=tmp_path)
    chex.assert_trees_all_equal(resumed, final)
    assert losses(read_metrics(tmp_path)) == {
        s: v for s, v in losses(records).items() if s in losses(read_metrics(tmp_path))
    }
    steps = [record["step"] for record in read_metrics(tmp_path)]
    assert steps == sorted(set(steps)), "no step stands twice in the log"


def test_a_finished_run_is_not_trained_again(recipe, noise, unbroken):
    final, _, run_dir, _ = unbroken
    before = (run_dir / "metrics.jsonl").read_text()
    again = train(recipe, noise, run_dir=run_dir)
    chex.assert_trees_all_equal(again, final)
    assert (run_dir / "metrics.jsonl").read_text() == before


def test_a_run_without_a_directory_is_the_same_run(recipe, noise, unbroken):
    chex.assert_trees_all_equal(train(recipe, noise), unbroken[0])


def test_sigterm_saves_and_asks_to_be_started_again(recipe, noise, unbroken, tmp_path):
    def terminate_at_step_4(step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return 1e-3

    with pytest.raises(Preempted) as stopped:
        train(recipe._replace(learning_rate=terminate_at_step_4), noise, run_dir=tmp_path)
    assert stopped.value.code == 75
    assert stopped.value.step == 4
    chex.assert_trees_all_equal(train(recipe, noise, run_dir=tmp_path), unbroken[0])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_an_interrupt_saves_and_the_run_goes_on_from_there(recipe, noise, unbroken, tmp_path, capfd):
    def interrupted_at_step_4(step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return 1e-3

    with pytest.raises(Interrupted) as stopped:
        train(recipe._replace(learning_rate=interrupted_at_step_4), noise, run_dir=tmp_path)
    assert stopped.value.step == 4
    assert "Once more: at once" in capfd.readouterr().err
    chex.assert_trees_all_equal(train(recipe, noise, run_dir=tmp_path), unbroken[0])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_does_not_wait_nor_the_first_where_nothing_is_saved():
    with preemption(interrupts=True) as (preempted, interrupted):
        assert not preempted(1)
        os.kill(os.getpid(), signal.SIGINT)
        assert preempted(1)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    with preemption(interrupts=False) as (preempted, _), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert not preempted(1)


def test_log_lines_say_what_a_user_watches(unbroken):
    _, records, *_ = unbroken
    wanted = {
        "step",
        "epoch",
        "loss",
        "learning_rate",
        "images_per_second",
        "input_wait",
        "contrast_accuracy",
    }
    wanted |= {"contrast_entropy", "alignment", "uniformity", "effective_rank", "grad_norm"}
    assert wanted <= set(records[0])
    assert records[-1]["epoch"] == 4


def test_a_callback_is_called_at_its_cadence_and_after_the_last_step_and_its_metrics_are_logged(unbroken):
    _, records, _, calls = unbroken
    assert calls == [4, 8, 10]
    logged = {r["step"]: r["kernels"] for r in records if "kernels" in r}
    assert list(logged) == calls
    assert all(number > 0 for number in logged.values())


def test_speed_and_waiting_are_of_all_steps_since_the_last_line_whatever_was_saved_between(
    recipe, noise, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop_module.Saver, "save", lambda *_, **__: None)  # which would give the input time
    pipeline = input_pipeline("device", noise, recipe.views)

    def batches(**order):
        for batch in pipeline.batches(**order):
            time.sleep(0.02)
            yield batch

    slow = pipeline._replace(batches=batches)
    loop(
        recipe._replace(steps=25), noise, input=slow, log_every=12, save_every=2, loggers=(), run_dir=tmp_path
    )
    record = read_metrics(tmp_path)[1]
    assert record["step"] == 24
    # Up to three of the twelve batches were made ahead.
    assert record["images_per_second"] <= 12 * recipe.batch_size / (9 * 0.02)
    assert record["input_wait"] <= 1


def test_a_loss_that_is_not_finite_ends_the_run_with_an_explanation(recipe, noise, tmp_path):
    broken = recipe._replace(optimizer=optax.sgd(float("inf")))
    with pytest.raises(FloatingPointError, match="newest checkpoint is of step 0"):
        train(broken, noise, run_dir=tmp_path)


def test_a_batch_that_devices_cannot_share_is_refused(recipe, noise):
    with pytest.raises(ValueError, match="batch of 12 cannot be split evenly over 8 devices"):
        train(recipe._replace(batch_size=12), noise)


def test_no_thread_outlives_the_run(recipe, noise):
    before = set(threading.enumerate())
    train(recipe._replace(steps=2), noise)
    time.sleep(0.3)
    left = [t.name for t in set(threading.enumerate()) - before if "prefetch" in t.name.lower()]
    assert left == []


def test_a_run_that_goes_on_says_from_where_and_the_first_step_reports(
    recipe, noise, unbroken, tmp_path, capsys
):
    train(recipe._replace(steps=3), noise, run_dir=tmp_path)
    first = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"step 1: compiled in \d+\.\d s, a step takes .* s; \d:\d\d:\d\d left at this pace", first[1]
    )
    chex.assert_trees_all_equal(train(recipe, noise, run_dir=tmp_path), unbroken[0])
    then = capsys.readouterr().out.splitlines()
    assert then[0] == "Goes on from step 3 of 10."
    assert then[2].startswith("step 4: compiled in")


def test_no_more_than_a_second_of_steps_is_queued(recipe, noise, monkeypatch):
    # Steps that take longer than what may be queued are waited for one by one; of fast ones none is but the first.
    waits, wait = [], jax.block_until_ready
    monkeypatch.setattr(jax, "block_until_ready", lambda x: waits.append(x) or wait(x))
    for seconds, expected in ((0.0, 10), (1e6, 1)):
        monkeypatch.setattr(loop_module, "SECONDS_AHEAD", seconds)
        waits.clear()
        train(recipe, noise, log_every=100)
        assert len(waits) == expected


def test_metrics_are_means_over_the_interval():
    def step(loss, bins):
        return {"loss": jax.numpy.array(loss), "bins": jax.numpy.array(bins)}

    kept = [step(1.0, [0.0, 1.0]), step(3.0, [0.5, 0.5])]
    assert fetch_mean(kept) == {"loss": 2.0, "bins": [0.25, 0.75]}
    assert json.dumps(fetch_mean(kept))
