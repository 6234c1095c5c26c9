"""The device law: every loss is a row, and none may tell how many devices there are."""

import jax
import pytest

from jaxcl.losses import nt_xent
from jaxcl.testing import EVERYWHERE, assert_same_everywhere

# name -> (params, batch, axis_name) -> scalar, for params [d, d] and batch {"x", "y"} of [n, d]
LOSSES = {
    "nt_xent": lambda w, b, axis_name: nt_xent(b["x"] @ w, b["y"] @ w, temperature=0.1, axis_name=axis_name),
}


@pytest.fixture(scope="module")
def example():
    keys = jax.random.split(jax.random.key(0), 3)
    return jax.random.normal(keys[0], (8, 8)), {
        "x": jax.random.normal(keys[1], (32, 8)),
        "y": jax.random.normal(keys[2], (32, 8)),
    }


@pytest.mark.parametrize("placement", EVERYWHERE)
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_the_same_on_one_device_and_on_eight(name, placement, example):
    assert_same_everywhere(LOSSES[name], *example, placements=[placement])


def test_the_law_catches_negatives_without_a_gradient(example):
    def forgetful(w, b, axis_name):
        from jaxcl import collectives

        z, keys = b["x"] @ w, b["y"] @ w
        keys = jax.lax.stop_gradient(collectives.gather(keys, axis_name)) if axis_name else keys
        return collectives.mean((z @ keys.T).var(), axis_name)

    with pytest.raises(AssertionError, match="differs from one device"):
        assert_same_everywhere(forgetful, *example, placements=["shard_map"])
