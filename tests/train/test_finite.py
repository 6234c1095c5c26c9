"""No step is taken into a state that is not finite, wherever and however it runs, and what made one is kept."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcl import collectives, keys
from jaxcl.config import Recipe
from jaxcl.data import input_pipeline
from jaxcl.devices import axis_name, make_mesh, replicate, split
from jaxcl.train import TrainState, checkpoint, finite, init_state, make_step
from jaxcl.train import train as loop
from jaxcl.train.log import read_metrics
from jaxcl.train.loop import fetch_mean
from jaxcl.train.placement import place
from jaxcl.train.step import in_one_call
from jaxcl.typing import Images, Method


def method_that_breaks(where, axis=None):
    """A method whose `where` (loss, gradient, memory) is not finite where a batch's images are not."""

    def init(key, batch):
        return {"w": jnp.arange(1.0, 4.0)}, {"mean": jnp.zeros(())}

    def loss(params, state, key, batch):
        mean = collectives.mean(jnp.mean(batch["image"].astype(jnp.float32)), axis)
        bad = ~jnp.isfinite(mean)
        known = jnp.where(bad, 0.5, mean)
        value = jnp.sum(jnp.square(params["w"])) * known
        if where == "loss":
            value = jnp.where(bad, jnp.inf, value)
        if where == "gradient":  # of which the loss shows nothing: the root's slope at 0 is infinite
            value = value + jnp.sum(jnp.sqrt(jnp.where(bad, 0 * params["w"], 1.0)))
        memory = {"mean": jnp.where(bad, jnp.nan, known) if where == "memory" else known}
        return value, (memory, {"mean": known})

    return Method(init, loss, lambda params, state, images: images.reshape(len(images), -1))


def optimizer_that_breaks(where):
    """Of "parameters" the learning rate is nan, of the third step; the gradient shows nothing of it."""
    return optax.sgd(lambda count: jnp.where(count == 2, jnp.nan, 0.1) if where == "parameters" else 0.1)


def batches(where):
    images = (
        np.full((5, 16, 2, 2, 1), 0.5, np.float32) + np.arange(5, dtype=np.float32)[:, None, None, None, None]
    )
    if where != "parameters":
        images[2, 11, 1, 0, 0] = np.nan
    return {"image": images, "index": np.arange(80, dtype=np.int32).reshape(5, 16)}


def five_steps(where, placement, nonfinite, *, many=False):
    mesh, axis = make_mesh(), axis_name(placement)
    method, tx = method_that_breaks(where, axis), optimizer_that_breaks(where)
    batch = batches(where)
    state = replicate(init_state(jax.random.key(0), method, tx, {k: v[0] for k, v in batch.items()}), mesh)
    key = replicate(jax.random.key(1), mesh)
    step = finite.guarded(make_step(method, tx, axis_name=axis), nonfinite=nonfinite)
    if many:
        state, metrics = place(in_one_call(step), placement, mesh, axis=1)(
            state, key, split(batch, mesh, axis=1)
        )
        return state, np.asarray(metrics["taken"]).tolist()
    placed, taken = place(step, placement, mesh), []
    for i in range(5):
        state, metrics = placed(state, key, split({k: v[i] for k, v in batch.items()}, mesh))
        taken.append(bool(metrics["taken"]))
    return state, taken


def by_hand(where, steps):
    """The plain steps on one device."""
    method, tx = method_that_breaks(where), optimizer_that_breaks(where)
    batch = batches(where)
    state = init_state(jax.random.key(0), method, tx, {k: v[0] for k, v in batch.items()})
    step = jax.jit(make_step(method, tx))
    for i in steps:
        state, _ = step(state, jax.random.key(1), {k: v[i] for k, v in batch.items()})
    return state


CASES = [("loss", "jit"), ("gradient", "shard_map"), ("memory", "pmap"), ("parameters", "jit")]


@pytest.mark.parametrize(("where", "placement"), CASES)
def test_a_state_is_halted_before_the_step_that_is_not_finite(where, placement):
    state, taken = five_steps(where, placement, "stop")
    assert taken == [True, True, False, False, False]
    assert finite.halted_at(state) == 2
    before = by_hand(where, [0, 1])
    chex.assert_trees_all_close(state._replace(step=before.step), before, rtol=1e-6)


@pytest.mark.parametrize(
    ("where", "placement"), [("gradient", "jit"), ("loss", "shard_map"), ("memory", "pmap")]
)
def test_a_step_that_is_left_out_changes_nothing_but_the_number(where, placement):
    state, taken = five_steps(where, placement, "skip")
    assert taken == [True, True, False, True, True]
    assert int(state.step) == 5
    wanted = by_hand(where, [0, 1, 3, 4])
    chex.assert_trees_all_close(state._replace(step=wanted.step), wanted, rtol=1e-6)


def test_steps_in_one_call_halt_within_it():
    one, taken = five_steps("gradient", "jit", "stop", many=True)
    assert taken == [True, True, False, False, False]
    chex.assert_trees_all_close(one, five_steps("gradient", "jit", "stop")[0], rtol=1e-6)


def test_a_guarded_step_that_is_finite_is_the_step_bit_for_bit():
    method, tx = method_that_breaks("loss"), optax.adam(1e-2)
    batch = {k: v[0] for k, v in batches("loss").items()}
    state = init_state(jax.random.key(0), method, tx, batch)
    plain, metrics = jax.jit(make_step(method, tx))(state, jax.random.key(1), batch)
    guarded, more = jax.jit(finite.guarded(make_step(method, tx)))(state, jax.random.key(1), batch)
    chex.assert_trees_all_equal(plain, guarded)
    assert bool(more.pop("taken"))
    chex.assert_trees_all_equal(metrics, more)


def test_other_words_than_stop_and_skip_are_refused():
    with pytest.raises(ValueError, match="one of stop, skip; got 'go on'"):
        finite.guarded(lambda *_: None, nonfinite="go on")


def test_means_are_of_the_steps_that_were_taken():
    kept = [{"loss": np.array(x), "taken": np.array(np.isfinite(x))} for x in (1.0, np.nan, 3.0)]
    assert fetch_mean(kept) == {"loss": 2.0, "skipped": 1}
    many = [{"loss": np.array([1.0, np.nan]), "taken": np.array([True, False])}]
    assert fetch_mean(many, many=True) == {"loss": 1.0, "skipped": 1}


# --- the loop ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spoilt():
    """Forty images of which number 7 has a pixel that is nan."""
    images = np.random.default_rng(0).random((40, 2, 2, 1)).astype(np.float32)
    images[7, 1, 1, 0] = np.nan
    return Images("spoilt", images)


def recipe(where="gradient", tx=None):
    method = method_that_breaks(where)
    return Recipe(method, tx or optax.adam(1e-2), optax.constant_schedule(1e-2), None, batch_size=8, steps=20)


def first_step_of(image):
    pipeline = input_pipeline("device", Images("numbers", np.zeros((40, 1, 1, 1), np.uint8)))
    for step, batch in enumerate(pipeline.batches(batch_size=8, seed=0, start_step=0, stop_step=20), start=1):
        if image in batch["index"]:
            return step
    raise AssertionError


@pytest.mark.parametrize("steps_per_call", [1, 2])
def test_a_run_stops_before_the_image_that_spoils_it_names_it_and_can_be_gone_on_with(
    spoilt, tmp_path, steps_per_call
):
    bad = first_step_of(7)
    train = dict(log_every=4, save_every=4, run_dir=tmp_path, steps_per_call=steps_per_call, quiet=True)
    with pytest.raises(FloatingPointError, match=r"number in the data set: 7\.") as stopped:
        loop(recipe(), spoilt, **train)
    assert f"Training step {bad} was not taken" in str(stopped.value)
    assert f"newest checkpoint is of step {bad - 1}" in str(stopped.value)
    assert "--nonfinite skip" in str(stopped.value)
    (record,) = finite.read(tmp_path)
    assert record["step"] == bad
    assert record["images_not_finite"] == [7]
    assert len(record["images"]) == 8
    assert record["key"] == jax.random.key_data(keys.step_key(keys.run_key(0), bad - 1)).tolist()
    like = init_state(jax.random.key(0), recipe().method, recipe().optimizer, {"image": spoilt.images[:2]})
    kept, at = checkpoint.restore(tmp_path / finite.FOLDER, like)
    assert (at, int(kept.step)) == (bad - 1, bad - 1)
    assert bool(finite.all_finite(kept))

    # Once more it ends at the same place, and nothing good is lost; skipping it ends as a run that skipped at once.
    with pytest.raises(FloatingPointError, match=f"Training step {bad} was not taken"):
        loop(recipe(), spoilt, **train)
    gone_on = loop(recipe(), spoilt, **train, nonfinite="skip")
    at_once = loop(recipe(), spoilt, nonfinite="skip", quiet=True, log_every=4, save_every=4)
    if steps_per_call == 1:
        chex.assert_trees_all_equal(gone_on, at_once)
    assert int(gone_on.step) == 20


def test_a_run_that_stops_keeps_the_checkpoints_that_it_was_to_keep(spoilt, tmp_path, monkeypatch):
    def state(step):
        return TrainState(jnp.int32(step), {"w": jnp.ones(2)}, (), ())

    for step in (10, 13, 14, 15):
        checkpoint.save(tmp_path / "checkpoints", step, state(step), keep_every=10)
    assert finite.keep_state(tmp_path, state(~17), keep_every=10) == 17
    assert checkpoint.steps(tmp_path / "checkpoints") == [10, 14, 15, 17]
    # The loop tells it which.
    told = {}
    monkeypatch.setattr(finite, "keep_state", lambda *_, **settings: told.update(settings) or 0)
    with pytest.raises(FloatingPointError):
        loop(
            recipe(), spoilt, log_every=20, save_every=20, keep_every=40, run_dir=tmp_path / "run", quiet=True
        )
    assert told == {"keep_every": 40}


def test_steps_that_are_left_out_are_counted_in_every_line_of_the_log(spoilt, tmp_path, capsys):
    loop(recipe(), spoilt, log_every=5, save_every=20, run_dir=tmp_path, nonfinite="skip")
    records = read_metrics(tmp_path)
    # Image 7 comes once in each epoch of five steps.
    assert [record["skipped"] for record in records] == [1, 1, 1, 1]
    assert all(np.isfinite(record["loss"]) for record in records)
    assert len(finite.read(tmp_path)) == 4
    said = capsys.readouterr().out
    assert said.count("It is left out, and the run goes on.") == 4
    assert "by their number in the data set: 7." in said


def test_skipping_ends_where_every_step_is_such(spoilt):
    rate = optax.sgd(float("nan"))
    with pytest.raises(FloatingPointError, match="last of 10 in a row"):
        loop(
            recipe("none", rate),
            spoilt._replace(images=np.zeros((40, 2, 2, 1), np.uint8)),
            nonfinite="skip",
            quiet=True,
        )


def test_no_checkpoint_holds_a_number_that_is_not_finite_whatever_the_learning_rate(tmp_path):
    images = Images("noise", np.random.default_rng(0).integers(1, 256, (40, 2, 2, 1), np.uint8))
    diverging = recipe("none", optax.sgd(1e6))
    with pytest.raises(FloatingPointError, match="A lower learning rate"):
        loop(diverging, images, log_every=20, save_every=1, run_dir=tmp_path, quiet=True)
    like = init_state(jax.random.key(0), diverging.method, diverging.optimizer, {"image": images.images[:2]})
    for step in checkpoint.steps(tmp_path / "checkpoints"):
        assert bool(finite.all_finite(checkpoint.restore(tmp_path / "checkpoints", like, step=step)[0]))


def test_an_optimizer_whose_own_state_is_not_finite_is_not_saved(tmp_path):
    def update(updates, state, params=None):
        return updates, state / 0

    broken = optax.chain(optax.sgd(1e-3), optax.GradientTransformation(lambda params: jnp.ones(()), update))
    images = Images("grays", np.full((40, 2, 2, 1), 9, np.uint8))
    with pytest.raises(FloatingPointError, match="optimizer's state is not finite, so it is not saved"):
        loop(recipe("none", broken), images, save_every=2, run_dir=tmp_path, quiet=True)
    assert checkpoint.steps(tmp_path / "checkpoints") == []


def test_the_record_of_a_step_is_json_and_there_once(spoilt, tmp_path):
    pipeline = input_pipeline("device", spoilt)
    for _ in range(2):
        bad = finite.NotTaken(first_step_of(7), float("nan"), float("inf"))
        assert finite.keep(tmp_path, bad, pipeline, batch_size=8, seed=0) == [7]
    lines = (tmp_path / finite.FOLDER / "steps.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == ["nan"]


def test_a_number_of_a_halted_state_is_below_zero_even_before_the_first_step():
    assert finite.halted_at(TrainState(jnp.int32(~0), (), (), ())) == 0


def test_a_checkpoint_that_is_not_finite_is_passed_over_and_a_run_of_none_other_refused(tmp_path):
    like = init_state(
        jax.random.key(0), recipe().method, recipe().optimizer, {"image": np.zeros((2, 2, 2, 1))}
    )
    broken = like._replace(params={"w": jnp.array([1.0, jnp.nan, 1.0])})
    checkpoint.save(tmp_path, 7, broken)
    with pytest.raises(ValueError, match=r"step 7 .*not finite \(params/w\), and there is none before it"):
        finite.restore(tmp_path, like)
    with pytest.warns(UserWarning, match="Moved"):
        checkpoint.save(tmp_path, 4, like)
    (tmp_path / "7.aside").rename(tmp_path / "7")
    with pytest.warns(UserWarning, match="step 7 .*Trying the one before"):
        assert finite.restore(tmp_path, like)[1] == 4
