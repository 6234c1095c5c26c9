"""Networks of other libraries, as docs/own.md makes them: SimCLR trains them, their statistics and their dropout move,
and a checkpoint holds them."""

import re
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from jaxcl import augment, keys, losses, methods, nets, train
from jaxcl.config import Recipe
from jaxcl.extract import pool
from jaxcl.typing import Images, Net

PAGE = (Path(__file__).parents[2] / "docs" / "own.md").read_text()
IMAGES = Images("noise", np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), np.uint8))


def example(heading):
    """What the block under a heading of docs/own.md defines."""
    scope: dict = {"__name__": "own"}
    body = re.search(rf"^### {heading}\n.*?^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[1]
    exec(compile(body, "docs/own.md", "exec"), scope)
    return scope


def recipe_of(encoder, steps):
    views = augment.two_views(augment.compose(augment.flip(), augment.clip()))
    head = nets.mlp_head(norm=nets.no_norm(), hidden=(), out=8)
    loss = losses.keyless(losses.nt_xent, temperature=0.5)
    method = methods.simclr(views=views, encoder=encoder, head=head, loss=loss)
    rate = optax.constant_schedule(1e-2)
    return Recipe(method, optax.adam(1e-2), rate, views, steps=steps, batch_size=16)


@pytest.mark.parametrize(
    ("package", "heading"),
    [("haiku", "Of haiku"), ("equinox", "Of equinox"), ("equimo", "A vision transformer")],
)
def test_simclr_trains_it_and_it_goes_on_where_it_was_saved(package, heading, tmp_path):
    pytest.importorskip(package)
    encoder = example(heading)["encoder"]
    recipe = recipe_of(encoder, 2)
    two = {"image": IMAGES.images[:2], "index": np.arange(2)}
    first = train.init_state(keys.init_key(0), recipe.method, recipe.optimizer, two)
    first = jax.tree.map(np.asarray, first)
    done = train.train(recipe, IMAGES, quiet=True)
    for part in ("params", "state"):
        before, after = getattr(first, part)["encoder"], getattr(done, part)["encoder"]
        moved = [
            not np.array_equal(a, b)
            for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
        ]
        assert np.mean(moved) > 0.5, part
    train.train(recipe._replace(steps=1), IMAGES, quiet=True, run_dir=tmp_path)
    again = train.train(recipe, IMAGES, quiet=True, run_dir=tmp_path)
    for a, b in zip(jax.tree.leaves(done), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_encoder_of_plain_functions_may_return_a_vector_that_it_pooled():
    def init(key, x):
        return {"kernel": jax.random.normal(key, (x[0].size, 6)) / 30}, {}

    def apply(params, state, x, *, train):
        return (x.reshape(len(x), -1) @ params["kernel"],), state

    recipe = recipe_of(Net(init, apply), 1)
    state = train.train(recipe, IMAGES, quiet=True)
    x = IMAGES.images[:4] / np.float32(255)
    found = recipe.method.embed(state.params, state.state, x)
    want = x.reshape(4, -1) @ np.asarray(state.params["encoder"]["kernel"])
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(pool((want,)), want)
