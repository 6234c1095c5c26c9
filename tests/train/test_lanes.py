"""Input from the device, kept there, or from the host: one loop, and the same run."""

from functools import partial

import chex
import numpy as np
import optax
import pytest

from jaxcl import augment, data, nets
from jaxcl.experiment import Experiment
from jaxcl.losses import nt_xent
from jaxcl.methods import simclr
from jaxcl.train import placement as placing
from jaxcl.train import train
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
            loss=lambda key, z1, z2: nt_xent(z1, z2, temperature=0.5, axis_name=axis_name),
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
