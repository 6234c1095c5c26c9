"""The law of shares for whole configs: under `jit` a device does an eighth of what one does (jaxcl.testing)."""

from pathlib import Path

import jax
import pytest

from jaxcl.config import load_config, open_data
from jaxcl.testing import shares
from jaxcl.train import init_state, make_step
from jaxcl.train.state import blank_batch

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_device_does_its_share_of_a_configs_step(path, small_knobs, few_blocks):
    """Compiled and read. Memory is held for methods alone: of so small a config most is parameters, whole on each."""
    config = load_config(path)
    knobs = config.Knobs(**(small_knobs(config.Knobs) | {"batch_size": 64}))
    about = open_data(config, knobs).about._replace(count=640)  # fewer are there than a batch has
    recipe, batch = config.recipe(knobs, about), blank_batch(about, 64)
    key = jax.eval_shape(lambda: jax.random.key(1))
    state = jax.eval_shape(lambda key: init_state(key, recipe.method, recipe.optimizer, batch), key)

    def make(axis_name):
        return make_step(recipe.method, recipe.optimizer, axis_name=axis_name)

    found = shares(make, state, key, batch, placements=["jit"])["jit"]
    assert found.products <= 1.1
    assert found.operations <= 1.1
