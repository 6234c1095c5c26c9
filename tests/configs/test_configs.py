"""Every config makes an experiment whose step can be traced, for every choice that its knobs offer."""

import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxcl.experiment import Experiment, load_config
from jaxcl.train.loop import init_state
from jaxcl.train.step import make_step

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))


def choices():
    """A config, and one of its knobs at one of the values it may have."""
    for path in CONFIGS:
        yield pytest.param(path, {}, id=path.stem)
        knobs = load_config(path).Knobs
        for name, kind in typing.get_type_hints(knobs).items():
            values = (True, False) if kind is bool else ()
            if typing.get_origin(kind) is typing.Literal:
                values = typing.get_args(kind)
            for value in values if name not in ("placement", "run_as") else ():
                if value != getattr(knobs, name):
                    yield pytest.param(path, {name: value}, id=f"{path.stem}-{name}={value}")


@pytest.mark.parametrize(("path", "chosen"), choices())
def test_a_config_makes_an_experiment_whose_step_can_be_traced(path, chosen, small_knobs):
    module = load_config(path)
    experiment = module.experiment(module.Knobs(**(small_knobs(module.Knobs) | chosen)))

    assert isinstance(experiment, Experiment)
    batch = {
        "image": jnp.asarray(experiment.train.images[: experiment.batch_size]),
        "index": jnp.arange(experiment.batch_size, dtype=jnp.int32),
    }
    if chosen.get("input", getattr(module.Knobs, "input", None)) == "host":  # views come with the batch
        views = len(experiment.views.recipes)
        batch["views"] = jnp.zeros((experiment.batch_size, views, *experiment.train.images.shape[1:]))

    def one_step(key):
        train_state = init_state(key, experiment.method, experiment.optimizer, batch)
        return make_step(experiment.method, experiment.optimizer)(train_state, key, batch)

    _, metrics = jax.eval_shape(one_step, jax.random.key(0))
    assert metrics["loss"].shape == ()
    assert experiment.steps > 0


def test_the_docstring_of_a_config_says_how_it_is_run():
    for path in CONFIGS:
        text = load_config(path).__doc__ or ""
        assert f"jaxcl train configs/{path.name}" in text or f"jaxcl sweep configs/{path.name}" in text, (
            path.name
        )
