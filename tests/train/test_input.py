"""Views made by the device, of images sent or kept there, or by the host: one loop, and the same run."""

import os
import shutil
import signal
import weakref
from functools import partial
from importlib import import_module

import chex
import jax
import numpy as np
import optax
import pytest

from jaxcl import augment, data, devices, nets
from jaxcl.config import Recipe
from jaxcl.losses import keyless, nt_xent
from jaxcl.methods import simclr
from jaxcl.train import Callback, Preempted
from jaxcl.train import train as loop
from jaxcl.train.log import read_metrics
from jaxcl.typing import Images

INPUTS = ("device", "resident", "host")
NOISE = Images("noise", np.random.default_rng(0).integers(0, 256, (56, 16, 16, 3), dtype=np.uint8))


def recipe(placement="jit"):
    axis_name = devices.axis_name(placement)
    norm = nets.batch_norm(axis_name=axis_name)
    # Crops of the host have tests of their own, and compile slowly.
    views = augment.two_views(augment.compose(augment.flip(), augment.grayscale(probability=0.5)))
    return Recipe(
        method=simclr(
            views=views,
            encoder=nets.small_convnet(features=(4,), norm=norm),
            head=nets.mlp_head(norm=nets.no_norm(), hidden=(), out=8),
            loss=keyless(nt_xent, temperature=0.5),
            axis_name=axis_name,
        ),
        optimizer=optax.sgd(0.05),
        learning_rate=optax.constant_schedule(0.05),
        views=views,
        batch_size=16,  # three steps an epoch
        steps=8,
    )


def train(recipe, input, **options):
    """A line of the log a step; a checkpoint within the second epoch."""
    if input == "host":
        pytest.importorskip("tensorflow", reason="the host's input is TensorFlow's")
    return loop(recipe, NOISE, input=input, **({"log_every": 1, "save_every": 4} | options))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    return {input: (train(recipe(), input, run_dir=folder / input), folder / input) for input in INPUTS}


def losses(run_dir):
    return [record["loss"] for record in read_metrics(run_dir)]


def test_resident_images_make_the_same_run_bit_for_bit(runs):
    chex.assert_trees_all_equal(runs["resident"][0], runs["device"][0])


def test_views_of_the_host_make_the_same_run_to_within_rounding(runs):
    np.testing.assert_allclose(losses(runs["host"][1]), losses(runs["device"][1]), rtol=1e-4)


@pytest.mark.parametrize("input", ["resident", "host"])
def test_a_run_killed_in_the_middle_of_an_epoch_goes_on_as_if_it_were_not(runs, input, tmp_path):
    class Killed(Exception):
        pass

    def until_step_5(step):
        if step >= 5:
            raise Killed
        return 0.05

    with pytest.raises(Killed):
        train(recipe()._replace(learning_rate=until_step_5), input, run_dir=tmp_path)
    resumed = train(recipe(), input, run_dir=tmp_path)
    # Identical batches: on the same devices then all else is identical, too.
    chex.assert_trees_all_equal(resumed, runs[input][0])


# Resident images under shard_map are also met below, a step and several a call.
@pytest.mark.parametrize(
    ("input", "placement"),
    [
        pytest.param("resident", "shard_map", marks=pytest.mark.slow),
        ("resident", "pmap"),
        ("host", "shard_map"),
        ("host", "pmap"),
    ],
)
def test_every_placement_takes_every_input(runs, input, placement, tmp_path):
    short = recipe(placement)._replace(steps=3)
    train(short, input, placement=placement, run_dir=tmp_path)
    np.testing.assert_allclose(losses(tmp_path), losses(runs["device"][1])[:3], rtol=1e-4)


class Counting:
    """Images that keep how many of them each reading asked for."""

    def __init__(self, images):
        self.images, self.shape, self.dtype, self.read = images, images.shape, images.dtype, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows):
        self.read.append(len(rows))
        return self.images[rows]


@pytest.mark.parametrize("resumes", [False, True])
def test_a_start_reads_two_images_and_then_the_batches_of_its_steps(runs, resumes, tmp_path):
    """Of a large batch each process would else read all to initialise on two of them."""
    counting, steps, run_dir = Counting(NOISE.images), 8, None
    if resumes:
        steps, run_dir = 4, tmp_path / "run"
        shutil.copytree(runs["device"][1], run_dir)
        shutil.rmtree(run_dir / "checkpoints/8")
    state = loop(recipe(), NOISE._replace(images=counting), log_every=1, save_every=4, run_dir=run_dir)
    assert counting.read == [2, *[16] * steps]
    chex.assert_trees_all_equal(state, runs["device"][0])


def test_a_batch_that_cannot_be_read_is_told_before_there_is_a_directory(tmp_path):
    class Damaged(Counting):
        def __getitem__(self, rows):
            if len(rows) > 2:
                raise ValueError("a.jpg is damaged. Mend or remove it.")
            return super().__getitem__(rows)

    begun = []
    images = NOISE._replace(images=Damaged(NOISE.images))
    with pytest.raises(ValueError, match="a.jpg is damaged"):
        loop(recipe(), images, run_dir=tmp_path / "run", begin=lambda: begun.append(1))
    assert not begun
    assert not (tmp_path / "run").exists()


def test_a_batch_is_let_go_of_once_its_step_is_made(monkeypatch):
    module, seen, alive = import_module("jaxcl.train.loop"), [], []

    def watched(*arguments, real=module.device_batches):
        batches = real(*arguments)
        for _ in range(8):
            batch = next(batches)
            seen.append(weakref.ref(jax.tree.leaves(batch)[0]))
            alive.append(sum(one() is not None for one in seen))
            yield batch
            del batch

    monkeypatch.setattr(module, "device_batches", watched)
    train(recipe(), "device")
    assert len(alive) == 8
    assert max(alive) <= 2  # the one that comes, and the one in use


def test_an_input_of_ones_own_is_taken_as_it_is(runs, tmp_path):
    own = data.InputPipeline(partial(data.batches, NOISE))
    chex.assert_trees_all_equal(train(recipe(), own, run_dir=tmp_path), runs["device"][0])


def assert_same_to_rounding(got, want):
    """Where XLA splits one program over several CPUs, its convolutions round otherwise inside of a loop over steps."""
    chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-6)


# Views of the device in such a call are also those of resident images; batches that come one by one, those of the host.
@pytest.mark.parametrize("input", [pytest.param("device", marks=pytest.mark.slow), "resident", "host"])
def test_steps_made_in_one_call_are_the_same_steps(runs, input, tmp_path):
    # Eight steps in calls of 3, 3 and 2, across the ends of epochs; logged once, as the mean of all.
    options = {"steps_per_call": 3, "log_every": 12, "save_every": 6, "run_dir": tmp_path}
    assert_same_to_rounding(train(recipe(), input, **options), runs[input][0])
    (record,) = read_metrics(tmp_path)
    assert record["step"] == 8
    assert record["loss"] == pytest.approx(np.mean(losses(runs[input][1])), rel=1e-6)


def test_steps_made_in_one_call_are_the_same_bit_for_bit_where_each_device_has_a_program():
    short = recipe("shard_map")._replace(steps=4)
    options = {"steps_per_call": 3, "log_every": 6, "save_every": 6}
    together = train(short, "resident", placement="shard_map", **options)
    chex.assert_trees_all_equal(together, train(short, "resident", placement="shard_map"))


@pytest.mark.parametrize("placement", ["shard_map", "pmap"])
def test_every_placement_makes_several_steps_in_a_call(runs, placement, tmp_path):
    options = {"placement": placement, "steps_per_call": 2, "log_every": 2, "run_dir": tmp_path}
    train(recipe(placement), "resident", **options)
    singly = np.reshape(losses(runs["device"][1]), (4, 2)).mean(axis=1)
    np.testing.assert_allclose(losses(tmp_path), singly, rtol=1e-4)


def test_a_run_stopped_between_calls_goes_on_in_others(runs, tmp_path):
    def terminate_at_step_4(step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return 0.05

    with pytest.raises(Preempted) as stopped:
        train(
            recipe()._replace(learning_rate=terminate_at_step_4),
            "resident",
            steps_per_call=2,
            log_every=2,
            run_dir=tmp_path,
        )
    assert stopped.value.step == 4
    # Four steps are left: to the next multiple of three, and what remains.
    others = {"steps_per_call": 3, "log_every": 3, "save_every": 3, "run_dir": tmp_path}
    assert_same_to_rounding(train(recipe(), "resident", **others), runs["resident"][0])
    assert [record["step"] for record in read_metrics(tmp_path)] == [2, 4, 6, 8]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps_per_call": 0}, "steps_per_call must be at least 1; got 0"),
        ({"steps_per_call": 2}, "log_every must be a multiple of steps_per_call=2; got 1"),
        (
            {"steps_per_call": 2, "log_every": 4, "callbacks": [Callback(3, lambda *_: {})]},
            "the cadence of a callback must be a multiple.*got 3",
        ),
        ({"log_every": 0}, "log_every is in training steps, at least 1; got 0"),
    ],
)
def test_calls_that_would_hide_a_log_line_are_refused(change, says):
    with pytest.raises(ValueError, match=says):
        train(recipe(), "resident", **change)
