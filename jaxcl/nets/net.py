"""From a flax module to the two pure functions of `Net`."""

from __future__ import annotations

import flax.linen as nn

from jaxcl.typing import Net


def from_linen(module: nn.Module) -> Net:
    """A flax.linen module whose `__call__(x, *, train)` -> `Net`.

    Every collection but "params" (batch statistics, ...) becomes the net's state.
    """

    def init(key, x):
        variables = dict(module.init(key, x, train=False))
        params = variables.pop("params", {})
        return params, variables

    def apply(params, state, x, *, train):
        if not train:
            return module.apply({"params": params, **state}, x, train=False), state
        out, new_state = module.apply({"params": params, **state}, x, train=True, mutable=list(state))
        return out, {**state, **new_state}

    return Net(init, apply)
