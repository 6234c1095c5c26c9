"""A member of a population is the run that it would be alone."""

import json
import signal
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcl import keys, nets
from jaxcl.config import Recipe
from jaxcl.data import input_pipeline
from jaxcl.losses import generalized, keyless, nt_xent, queue_nce, regression, sliced_wasserstein
from jaxcl.methods import byol, looc, moco, simclr
from jaxcl.train import (
    Callback,
    Preempted,
    checkpoint,
    health,
    init_state,
    make_step,
    population,
    train_together,
)
from jaxcl.train.log import read_metrics
from jaxcl.train.population import mappable
from jaxcl.train.saved import DIVERGED, common_step
from jaxcl.typing import About, Images, Method


def noisy(count):
    """Views that compile in no time: the image with waves of its own."""

    def views(key, batch):
        x, index = jnp.asarray(batch["image"], jnp.float32) / 255, jnp.asarray(batch["index"])
        phase, rate = jax.random.key_data(key) % 1024
        waves = (index[:, None, None, None] + phase) + (rate + index[:, None, None, None]) * jnp.arange(
            x[0].size
        ).reshape(x.shape[1:])
        return tuple(x + 0.1 * jnp.sin(waves + view) for view in range(count))

    return views


NORM = nets.batch_norm()
ENCODER = nets.small_convnet(features=(4,), norm=NORM)
# With a norm behind it: a row that is zero before it is normalised has a gradient of millions.
HEAD = nets.projection_head(mode="linear", out=8, norm=NORM)


def of_simclr(temperature):
    return simclr(views=noisy(2), encoder=ENCODER, head=HEAD, loss=keyless(nt_xent, temperature=temperature))


def of_swd(weight):
    loss = partial(generalized, distribution=sliced_wasserstein, weight=weight)
    return simclr(views=noisy(2), encoder=ENCODER, head=HEAD, loss=loss)


def of_moco(temperature):
    loss = keyless(queue_nce, temperature=temperature)
    return moco(views=noisy(2), encoder=ENCODER, head=HEAD, loss=loss, queue_size=24, decay=0.9)


def of_byol(decay):
    parts = {"projector": HEAD, "predictor": nets.mlp_head(norm=NORM, hidden=(16,), out=8)}
    return byol(views=noisy(2), encoder=ENCODER, loss=keyless(regression), decay=decay, **parts)


def of_looc(temperature):
    parts = {"encoder": ENCODER, "head": HEAD, "queue_size": 24, "decay": 0.9}
    return looc(views=noisy(3), spaces=2, temperature=temperature, **parts)


METHODS = {
    of_simclr: (0.2, 0.7),
    of_swd: (1.0, 3.0),
    of_moco: (0.2, 0.5),
    of_byol: (0.9, 0.99),
    of_looc: (0.2, 0.5),
}


def recipe_of(method, numbers, *, steps=20):
    rate = optax.constant_schedule(numbers["learning_rate"])
    # Plain descent: Adam makes a whole step of a gradient that is nothing but rounding.
    optimizer = optax.sgd(numbers["learning_rate"], momentum=0.9)
    return Recipe(method(numbers["setting"]), optimizer, rate, noisy(2), steps, batch_size=16)


@pytest.fixture(scope="module")
def noise():
    rng = np.random.default_rng(0)
    return Images("noise", rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), rng.integers(0, 3, 40))


def runner(method, images):
    """What `train` does, on one device: (numbers, seed) -> the state after the last step, by one program for all."""
    pipeline = input_pipeline("device", images)

    @jax.jit
    def start(numbers, key, batch):
        recipe = recipe_of(method, numbers)
        return init_state(key, recipe.method, recipe.optimizer, batch)

    @jax.jit
    def step(numbers, state, key, batch):
        recipe = recipe_of(method, numbers)
        return make_step(recipe.method, recipe.optimizer)(state, key, batch)[0]

    def run(numbers, seed):
        state = start(numbers, keys.init_key(seed), pipeline.first(batch_size=16, seed=seed))
        order = {"batch_size": 16, "seed": seed, "process_index": 0, "process_count": 1}
        for batch in pipeline.batches(start_step=0, stop_step=20, **order):
            state = step(numbers, state, keys.run_key(seed), batch)
        return state

    return run


# MoCo has all that may differ: a norm, a queue, a target. Members of SimCLR are compared in test_sweep.py, too.
SLOW = (of_simclr, of_swd, of_byol, of_looc)


@pytest.mark.parametrize(
    "method",
    [pytest.param(m, marks=[pytest.mark.slow] if m in SLOW else [], id=m.__name__[3:]) for m in METHODS],
)
def test_a_member_ends_with_the_parameters_of_the_run_alone(method, noise):
    values, rates = METHODS[method], (1e-3, 2e-3)
    numbers = [{"setting": value, "learning_rate": rate} for value, rate in zip(values, rates, strict=True)]
    found = train_together(partial(recipe_of, method), numbers, noise, seeds=[3, 5], quiet=True)
    run = runner(method, noise)
    for own, seed, member in zip(numbers, (3, 5), found, strict=True):
        alone = run(own, seed)
        assert member.diverged is None
        assert int(member.state.step) == 20
        chex.assert_trees_all_close(member.state.params, alone.params, rtol=1e-5, atol=1e-5)
        chex.assert_trees_all_close(member.state.state, alone.state, rtol=1e-4, atol=1e-4)


def means(run_dir):
    """What is logged of training steps and is no time."""
    records = [record for record in read_metrics(run_dir) if "loss" in record]
    return [
        {name: x for name, x in record.items() if name not in ("time", "images_per_second", "seen")}
        for record in records
    ]


def test_members_go_on_from_the_newest_step_that_all_have_saved(noise, tmp_path):
    numbers = [{"setting": value, "learning_rate": 0.01} for value in (0.2, 0.7)]

    def stop(step, params, state):
        if step == 5:
            signal.raise_signal(signal.SIGTERM)
        return {"seen": step}

    settings = {"seeds": [0, 1], "log_every": 2, "save_every": 3, "quiet": True}
    build = partial(recipe_of, of_simclr, steps=9)
    folders = [tmp_path / "whole a", tmp_path / "whole b"]
    unbroken = train_together(build, numbers, noise, run_dirs=folders, **settings)
    settings["run_dirs"] = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(Preempted, match="75"):
        train_together(build, numbers, noise, callbacks=[[Callback(1, stop)], []], **settings)
    assert [checkpoint.steps(tmp_path / name / "checkpoints") for name in "ab"] == [[3, 5]] * 2
    # As if it had been killed between the two saves.
    (tmp_path / "b/checkpoints/5").rename(tmp_path / "b/checkpoints/.saving-5")
    found = train_together(build, numbers, noise, **settings)
    for member, whole in zip(found, unbroken, strict=True):
        chex.assert_trees_all_equal(member.state, whole.state)
    # The callback logged every step of the first life, all of which "a" had saved: it waited at 5 for the other.
    for name, steps in {"a": [1, 2, 3, 4, 5, 6, 8, 9], "b": [2, 4, 6, 8, 9]}.items():
        assert [record["step"] for record in read_metrics(tmp_path / name)] == steps
        assert checkpoint.latest(tmp_path / name / "checkpoints") == 9
        # Step 3 was made in the first life and logged in the second, in the mean of 3 and 4.
        assert means(tmp_path / name) == means(tmp_path / f"whole {name}")


def decay_of(numbers, *, steps=8):
    """Three weights that shrink: the smallest network that trains."""

    def loss(params, state, key, batch):
        return numbers["weight"] * jnp.mean(params["w"] ** 2), (state, {})

    method = Method(lambda key, batch: ({"w": jnp.ones(3)}, {}), loss, None)
    return Recipe(method, optax.sgd(0.1), lambda step: 0.1, noisy(2), steps, batch_size=16)


EVERY_TWO = {"log_every": 2, "save_every": 2, "quiet": True, "loggers": ()}
TWO = ({"weight": 1.0}, {"weight": 2.0})


def one_ahead(noise, folder):
    """Run directories of two members: one was trained to step 8, which is its last, and the other to step 4."""
    folders = [folder / "a", folder / "b"]
    for i, steps in enumerate((8, 4)):
        build = partial(decay_of, steps=steps)
        train_together(build, [TWO[i]], noise, seeds=[i], run_dirs=[folders[i]], **EVERY_TWO)
    assert [checkpoint.steps(one / "checkpoints") for one in folders] == [[4, 6, 8], [2, 4]]
    return folders


def test_a_member_that_is_two_saves_ahead_waits_for_the_others(noise, tmp_path):
    folders = one_ahead(noise, tmp_path)
    before = (folders[0] / "metrics.jsonl").read_text()
    manifests = [(folders[0] / f"checkpoints/{step}/manifest.json").read_bytes() for step in (6, 8)]
    found = train_together(decay_of, TWO, noise, seeds=[0, 1], run_dirs=folders, **EVERY_TWO)
    alone = train_together(
        decay_of, TWO, noise, seeds=[0, 1], run_dirs=[tmp_path / "c", tmp_path / "d"], **EVERY_TWO
    )
    for member, whole in zip(found, alone, strict=True):
        chex.assert_trees_all_equal(member.state, whole.state)
    for one, other in zip(folders, (tmp_path / "c", tmp_path / "d"), strict=True):
        assert checkpoint.steps(one / "checkpoints") == [4, 6, 8]
        assert [record["step"] for record in read_metrics(one)] == [2, 4, 6, 8]
        assert means(one) == means(other)
    # Nothing of the one that was there was touched.
    assert (folders[0] / "metrics.jsonl").read_text() == before
    assert [(folders[0] / f"checkpoints/{step}/manifest.json").read_bytes() for step in (6, 8)] == manifests


@pytest.mark.filterwarnings("ignore:Moved .* the run continues from an earlier checkpoint")
def test_members_of_which_one_was_ahead_can_be_stopped_before_they_are_there(noise, tmp_path):
    folders = one_ahead(noise, tmp_path)

    def stop(step, params, state):
        if step == 5:
            signal.raise_signal(signal.SIGTERM)
        return {}

    settings = EVERY_TWO | {"seeds": [0, 1], "run_dirs": folders}
    with pytest.raises(Preempted):
        train_together(decay_of, TWO, noise, callbacks=[[], [Callback(1, stop)]], **settings)
    # Step 5 was no step of a cadence, and is saved by both: what was made is not lost.
    assert common_step([folder / "checkpoints" for folder in folders]) == 5
    train_together(decay_of, TWO, noise, **settings)
    for folder in folders:
        assert [record["step"] for record in read_metrics(folder) if "loss" in record] == [2, 4, 6, 8]
        assert checkpoint.latest(folder / "checkpoints") == 8


def test_a_damaged_checkpoint_of_one_member_sends_all_to_the_one_before(noise, tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    settings = EVERY_TWO | {"seeds": [0, 1], "run_dirs": folders}
    train_together(partial(decay_of, steps=6), TWO, noise, **settings)
    logged = [means(folder) for folder in folders]
    (folders[0] / "checkpoints/6/manifest.json").write_text("{")
    assert common_step([folder / "checkpoints" for folder in folders]) == 4
    said = r"Damaged checkpoint in .*a/checkpoints, step 6: manifest.json has changed .* Trying the one before it\."
    with pytest.warns(UserWarning, match=said), pytest.warns(UserWarning, match="Moved .*a/checkpoints/6 to"):
        found = train_together(partial(decay_of, steps=6), TWO, noise, **settings)
    assert [int(member.state.step) for member in found] == [6, 6]
    assert [means(folder) for folder in folders] == logged
    # What was damaged is aside, and saved anew.
    for folder in folders:
        assert checkpoint.steps(folder / "checkpoints") == [2, 4, 6]
        assert checkpoint.damage(folder / "checkpoints", 6) is None
    for step in (2, 4, 6):
        (folders[step // 4] / f"checkpoints/{step}/manifest.json").unlink()
    with pytest.raises(
        ValueError, match=r"no good checkpoint of a step in common\.\n.*step 6: manifest.json is missing"
    ):
        train_together(decay_of, TWO, noise, **settings)


def test_a_member_that_diverges_is_named_and_touches_no_other(noise, tmp_path, capsys):
    numbers = [{"setting": 0.2, "learning_rate": 0.01}, {"setting": 0.2, "learning_rate": 1e30}]
    build = partial(recipe_of, of_simclr, steps=6)
    folders = [tmp_path / "sound", tmp_path / "wild"]
    found = train_together(build, numbers, noise, seeds=[0, 0], run_dirs=folders, log_every=2, save_every=2)
    alone = train_together(build, numbers[:1], noise, seeds=[0], quiet=True)
    chex.assert_trees_all_close(found[0].state.params, alone[0].state.params, rtol=1e-5, atol=1e-6)
    step = found[1].diverged
    assert step in (1, 2)
    assert int(found[1].state.step) == step - 1
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found[1].state.params))
    said = json.loads((folders[1] / DIVERGED).read_text())
    assert said["step"] == step
    assert (
        f"Member 1 (setting 0.2, learning_rate 1e+30, seed 0) diverged at step {step}"
        in capsys.readouterr().out
    )
    assert not (folders[0] / DIVERGED).exists()
    assert all(saved < step for saved in checkpoint.steps(folders[1] / "checkpoints"))
    # A second time: it is not begun anew.
    again = train_together(build, numbers, noise, seeds=[0, 0], run_dirs=folders, quiet=True)
    assert [member.diverged for member in again] == [None, step]


def test_a_member_that_diverges_between_two_lines_of_the_log_takes_no_saved_step_from_the_others(
    noise, tmp_path
):
    numbers = [{"setting": 0.2, "learning_rate": 0.01}, {"setting": 0.2, "learning_rate": 1e30}]
    folders = [tmp_path / "sound", tmp_path / "wild"]

    def stop(step, params, state):
        if step == 3:
            signal.raise_signal(signal.SIGTERM)
        return {}

    with pytest.raises(Preempted):
        train_together(
            partial(recipe_of, of_simclr, steps=8),
            numbers,
            noise,
            seeds=[0, 0],
            run_dirs=folders,
            log_every=8,
            save_every=8,
            callbacks=[[Callback(1, stop)], []],
            quiet=True,
        )
    assert (folders[1] / DIVERGED).exists()
    assert common_step([folder / "checkpoints" for folder in folders]) == 3


def test_a_member_is_warned_of_by_name(noise, capsys, monkeypatch):
    def build(numbers):
        def loss(params, state, key, batch):
            return numbers["weight"] * jnp.mean(params["w"] ** 2), (state, {})

        method = Method(lambda key, batch: ({"w": jnp.ones(3)}, {}), loss, None)
        return Recipe(method, optax.sgd(0.1), lambda step: 0.1, noisy(2), 4, batch_size=16)

    monkeypatch.setattr(health, "ZERO_STEPS", 2)
    train_together(build, [{"weight": 0.0}, {"weight": 1.0}], noise, seeds=[0, 1], log_every=2)
    said = [line for line in capsys.readouterr().out.splitlines() if "Warning" in line]
    assert len(said) == 1
    assert said[0].startswith(
        "Warning, at step 2, of member 0 (weight 0, seed 0): the loss has been 0 for 2 steps"
    )


def test_numbers_that_decide_shapes_functions_or_steps_are_not_mapped_over():
    def build(values):
        recipe = recipe_of(of_simclr, {"setting": values["temperature"], "learning_rate": values["rate"]})
        if values["switch"] > 0.5:
            recipe = recipe._replace(batch_size=8)
        return recipe._replace(steps=values["epochs"] * 3)

    about = About(40, (8, 8, 3), ("a", "b"))
    concrete = {"temperature": 0.2, "rate": 0.1, "switch": 1.0, "epochs": 2, "unread": 1.0}
    assert mappable(build, concrete, about) == ("temperature", "rate")


def test_a_population_says_what_it_cannot_do(noise):
    numbers = [{"setting": 0.2, "learning_rate": 0.1}, {"setting": 0.2}]
    with pytest.raises(ValueError, match="All members must have the same numbers"):
        train_together(partial(recipe_of, of_simclr), numbers, noise, seeds=[0, 1])
    with pytest.raises(ValueError, match="seeds must be one for each of 1 members; got 2"):
        train_together(partial(recipe_of, of_simclr), numbers[:1], noise, seeds=[0, 1])


@pytest.mark.parametrize(
    ("members", "devices", "line"),
    [
        (5, 4, "5 members on 1 of 4 devices: 5 is not a multiple of 4; --together 4 uses all."),
        (9, 4, "9 members on 3 of 4 devices: 9 is not a multiple of 4; --together 8 uses all."),
        (2, 4, "2 members on 2 of 4 devices: no member is split; a multiple of 4 members uses all."),
        (8, 4, None),
        (3, 1, None),
    ],
)
def test_devices_that_members_leave_idle_are_named(members, devices, line, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    assert population._idle(members, population._sharing(members)) == line


def test_a_population_says_in_its_log_which_devices_are_idle(noise, capsys):
    train_together(partial(decay_of, steps=1), TWO, noise, seeds=[0, 1], loggers=())
    said = "2 members on 2 of 8 devices: no member is split"
    assert said in " ".join(capsys.readouterr().out.split())
