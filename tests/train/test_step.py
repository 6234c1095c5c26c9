"""A training step refuses what would make the next one another program."""

import jax
import jax.numpy as jnp
import pytest

from jaxcl.train import init_state, make_step, optim
from jaxcl.typing import Method

BATCH = {"image": jnp.zeros((4, 2, 2, 3), jnp.uint8), "index": jnp.arange(4)}


def method_with(after):
    """A method of one parameter whose state is a count that leaves a step as `after` makes it."""

    def init(key, batch):
        return jnp.ones((3,)), jnp.zeros((), jnp.float32)

    def loss(params, state, key, batch):
        return jnp.sum(jnp.square(params)), (after(state), {})

    return Method(init, loss, lambda params, state, images: images.reshape(len(images), -1))


def trace(method):
    tx = optim.sgd(0.1)
    state = init_state(jax.random.key(0), method, tx, BATCH)
    return jax.eval_shape(make_step(method, tx), state, jax.random.key(1), BATCH), state


def test_a_step_returns_a_state_of_the_same_shapes_and_types():
    (after, metrics), before = trace(method_with(lambda count: count + 1))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), before
    )
    assert metrics["loss"].shape == ()


@pytest.mark.parametrize(
    "after",
    [
        lambda count: count.astype(jnp.bfloat16),
        lambda count: count[None],
        lambda count: (count, count),
    ],
    ids=["type", "shape", "structure"],
)
def test_a_method_whose_state_changes_its_form_is_refused_by_name(after):
    with pytest.raises(ValueError, match="method's state .* must keep its structure, shapes and types"):
        trace(method_with(after))
