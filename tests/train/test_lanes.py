"""Input from the device, kept there, or from the host: one loop, and the same run."""

import os
import signal
from functools import partial

import chex
import numpy as np
import optax
import pytest

from jaxcl import augment, data, nets
from jaxcl.experiment import Experiment
from jaxcl.losses import keyless, nt_xent
from jaxcl.methods import simclr
from jaxcl.train import Preempted, train
from jaxcl.train import placement as placing
from jaxcl.train.log import read_metrics
from jaxcl.typing import Images

LANES = ("device", "resident", "host")


def experiment(lane, placement="jit"):
    images = np.random.default_rng(0).integers(0, 256, (56, 16, 16, 3), dtype=np.uint8)
    noise = Images("noise", images)
    axis_name = placing.axis_name(placement)
    norm = nets.batch_norm(axis_name=axis_name)
    crop = augment.random_resized_crop(16)
    recipe = augment.compose(crop, augment.flip(), augment.grayscale(), augment.clip())
    if lane == "host":
        pytest.importorskip("tensorflow", reason="the host lane is TensorFlow's")
    return Experiment(
        method=simclr(
            views=augment.from_host(2) if lane == "host" else augment.two_views(recipe),
            encoder=nets.conv_n(features=(8,), dense=16, norm=norm),
            head=nets.projection_head(layers=2, out=8, norm=norm),
            loss=keyless(nt_xent, temperature=0.5),
            axis_name=axis_name,
        ),
        optimizer=optax.sgd(0.05),
        train=noise,
        input=data.host_views(noise, recipe, threads=2) if lane == "host" else None,
        resident=lane == "resident",
        batch_size=16,  # three steps an epoch
        steps=8,
        log_every=1,
        save_every=4,  # within the second epoch
        placement=placement,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lanes")
    return {lane: (train(experiment(lane), run_dir=folder / lane), folder / lane) for lane in LANES}


def losses(run_dir):
    return [record["loss"] for record in read_metrics(run_dir)]


def test_resident_images_make_the_same_run_bit_for_bit(runs):
    chex.assert_trees_all_equal(runs["resident"][0], runs["device"][0])


def test_views_of_the_host_make_the_same_run_to_within_rounding(runs):
    np.testing.assert_allclose(losses(runs["host"][1]), losses(runs["device"][1]), rtol=1e-4)


@pytest.mark.parametrize("lane", ["resident", "host"])
def test_a_run_killed_in_the_middle_of_an_epoch_goes_on_as_if_it_were_not(runs, lane, tmp_path):
    class Killed(Exception):
        pass

    def until_step_5(step):
        if step >= 5:
            raise Killed
        return 0.05

    with pytest.raises(Killed):
        train(experiment(lane)._replace(learning_rate=until_step_5), run_dir=tmp_path)
    resumed = train(experiment(lane), run_dir=tmp_path)
    # Identical batches: on the same devices then all else is identical, too.
    chex.assert_trees_all_equal(resumed, runs[lane][0])


@pytest.mark.parametrize("placement", ["shard_map", "pmap"])
@pytest.mark.parametrize("lane", ["resident", "host"])
def test_every_placement_takes_every_lane(runs, lane, placement, tmp_path):
    train(experiment(lane, placement)._replace(steps=3), run_dir=tmp_path)
    np.testing.assert_allclose(losses(tmp_path), losses(runs["device"][1])[:3], rtol=1e-4)


def test_two_ways_to_read_are_one_too_many():
    resident = experiment("resident")
    both = resident._replace(input=partial(data.batches, resident.train))
    with pytest.raises(ValueError, match="not both"):
        train(both)


@pytest.mark.parametrize("lane", LANES)
def test_steps_made_in_one_call_are_the_same_steps_bit_for_bit(runs, lane, tmp_path):
    # Eight steps in calls of 3, 3 and 2, across the ends of epochs; logged once, as the mean of all.
    calls = experiment(lane)._replace(steps_per_call=3, log_every=12, save_every=6)
    chex.assert_trees_all_equal(train(calls, run_dir=tmp_path), runs[lane][0])
    (record,) = read_metrics(tmp_path)
    assert record["step"] == 8
    assert record["loss"] == pytest.approx(np.mean(losses(runs[lane][1])), rel=1e-6)


@pytest.mark.parametrize("placement", ["shard_map", "pmap"])
def test_every_placement_makes_several_steps_in_a_call(runs, placement, tmp_path):
    calls = experiment("resident", placement)._replace(steps_per_call=2, log_every=2)
    train(calls, run_dir=tmp_path)
    singly = np.reshape(losses(runs["device"][1]), (4, 2)).mean(axis=1)
    np.testing.assert_allclose(losses(tmp_path), singly, rtol=1e-4)


def test_a_run_stopped_between_calls_goes_on_in_others(runs, tmp_path):
    def terminate_at_step_4(step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return 0.05

    calls = experiment("resident")._replace(steps_per_call=2, log_every=2)
    with pytest.raises(Preempted) as stopped:
        train(calls._replace(learning_rate=terminate_at_step_4), run_dir=tmp_path)
    assert stopped.value.step == 4
    # Four steps are left: to the next multiple of three, and what remains.
    others = calls._replace(steps_per_call=3, log_every=3, save_every=3)
    chex.assert_trees_all_equal(train(others, run_dir=tmp_path), runs["resident"][0])
    assert [record["step"] for record in read_metrics(tmp_path)] == [2, 4, 6, 8]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps_per_call": 0}, "steps_per_call must be at least 1; got 0"),
        ({"steps_per_call": 2}, "log_every must be a multiple of steps_per_call=2; got 1"),
        ({"steps_per_call": 2, "log_every": 4, "knn_every": 3}, "knn_every must be a multiple.*got 3"),
    ],
)
def test_calls_that_would_hide_a_log_line_are_refused(change, says):
    with pytest.raises(ValueError, match=says):
        train(experiment("resident")._replace(**change))
