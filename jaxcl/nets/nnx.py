"""From a flax NNX module, which holds its arrays itself, to the two pure functions of `Net`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict
from jax import lax

from jaxcl.typing import Net, PyTree

if TYPE_CHECKING:
    from flax import nnx


def from_nnx(make: Callable[[nnx.Rngs], Any], *, axis_name: str | None = None) -> Net:
    """A maker of a flax NNX module, `lambda rngs: MyNetwork(8, rngs=rngs)`, whose call takes x -> `Net`.

    `nnx.Param`s become the net's parameters. All other variables become its state: batch statistics, and the keys and
    counters of dropout (`nnx.Rngs`), a key as its uint32 numbers; with train=True they come back moved.

    train=True calls `module.train()` before the call, and train=False `module.eval()`, which set `use_running_average`
    and `deterministic` of the modules inside; a call that has an argument `train` is given it as well.

    axis_name
        the axis over which the batch is split under `shard_map` or `pmap`: each device then drops out other entries.
        `nnx.BatchNorm` has an `axis_name` of its own, and needs it there.

    >>> from flax import nnx
    >>> net = from_nnx(lambda rngs: nnx.Linear(3, 2, rngs=rngs))
    >>> params, state = net.init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> net.apply(params, state, jnp.zeros((1, 3)), train=False)[0].tolist()
    [[0.0, 0.0]]
    """
    from flax import nnx  # here, as it takes more than a second

    def taken_apart(module: Any) -> tuple[Any, Any, Any]:
        graph, params, state = nnx.split(module, nnx.Param, ...)  # type: ignore[misc]
        return graph, params, state

    graph, *parts = taken_apart(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    blank_params, blank_state = (nnx.to_flat_state(part) for part in parts)

    def init(key, x):
        _, params, state = taken_apart(make(nnx.Rngs(key)))
        return _arrays(params), _arrays(state)

    def apply(params, state, x, *, train):
        given = _variables(blank_params, params), _variables(blank_state, state, axis_name if train else None)
        module = nnx.merge(graph, *given)
        module.train() if train else module.eval()
        more = {"train": train} if "train" in inspect.signature(type(module).__call__).parameters else {}
        out = module(x, **more)
        if not train:
            return out, state
        found = dict(nnx.to_flat_state(nnx.state(module)))
        # A key stays, and a counter says how often it was drawn from.
        moved = [(path, found[path]) for path, of in blank_state if not issubclass(of.type, nnx.RngKey)]
        return out, _merged(state, _nested((path, of.get_value()) for path, of in moved))

    return Net(init, apply)


def _arrays(state: Any) -> PyTree:
    """An NNX state as dicts of arrays, their names strings."""
    from flax import nnx

    return _nested((path, _numbers(of.get_value())) for path, of in nnx.to_flat_state(state))


def _nested(arrays: Any) -> dict[str, Any]:
    return unflatten_dict({tuple(map(str, path)): x for path, x in arrays})


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: (_merged(x, new[name]) if isinstance(x, Mapping) else new[name]) if name in new else x
        for name, x in old.items()
    }


def _variables(blank: Any, arrays: PyTree, axis_name: str | None = None) -> Any:
    """The arrays as an NNX state; with an axis, keys of this device's own."""
    from flax import nnx

    def variable(path, of):
        x, like = arrays, of.get_value()
        for name in path:
            x = x[str(name)]
        if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
            key = jax.random.key(0) if x is None else jax.random.wrap_key_data(x)
            x = key if axis_name is None else jax.random.fold_in(key, lax.axis_index(axis_name))
        # An encoder that was loaded has None where it reads nothing.
        return of.replace(jnp.zeros(like.shape, like.dtype) if x is None else x)

    return nnx.from_flat_state([(path, variable(path, of)) for path, of in blank])


def _numbers(x: Any) -> Any:
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
