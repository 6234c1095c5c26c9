"""From an equinox module, which holds its arrays itself and sees one image, to the two pure functions of `Net`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax

from jaxcl.typing import Net, PyTree


def from_equinox(
    make: Callable[[Any], Any],
    *,
    call: Callable[..., Any] | None = None,
    rows: str = "batch",
    axis_name: str | None = None,
) -> Net:
    """A maker of an equinox module, `lambda key: MyNetwork(key=key)`, which sees one image [c, h, w] -> `Net`.

    Arrays of floats become the net's parameters, by their names. Its state is what the module keeps by
    `eqx.nn.StateIndex` (batch statistics), and a key for dropout; with train=True both come back moved.

    call
        (module, x, key) -> out, or, of a module with state, (module, x, state, key) -> (out, new state); None: the
        module itself, as equinox has it: module(x, key=key) or module(x, state, key=key), without the key where it
        takes none. With train=False the modules inside are in inference mode, and key is None.
    rows
        the name of the batch's axis, as `eqx.nn.BatchNorm(axis_name="batch")` has it: it averages over the global batch
        under `jit`, and over a device's own rows under `shard_map` and `pmap`.
    axis_name
        the axis over which the batch is split there: each device then drops out other entries.

    What comes out is a tuple of the maps or vectors, a row an image: a vector [d] becomes (an array [b, d],), and of an
    array with three axes, [c, h, w], maps [b, h, w, c] are made.

        net = from_equinox(lambda key: eqx.nn.Conv2d(3, 4, 3, key=key))
        params, state = net.init(key, x)                           # x [2, 8, 8, 3]; params {"weight": ..., "bias": ...}
        (maps,), state = net.apply(params, state, x, train=True)   # [2, 6, 6, 4]
    """
    import equinox as eqx  # no dependency of jaxcl

    def taken_apart(key):
        module, state = eqx.nn.make_with_state(make)(key)
        return eqx.partition(module, eqx.is_inexact_array), state

    (blank, static), blank_state = taken_apart(jax.random.key(0))
    blank, blank_state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (blank, blank_state))
    remembers = bool(jax.tree.leaves(blank_state))
    takes = inspect.signature(type(static).__call__).parameters
    takes_key = "key" in takes or any(each.kind is each.VAR_KEYWORD for each in takes.values())

    def init(key, x):
        (params, _), state = taken_apart(key)
        return _by_names(params), {"module": _by_names(state), "key": jax.random.key_data(key)}

    def apply(params, state, x, *, train):
        module = eqx.nn.inference_mode(eqx.combine(_in_form(blank, params), static), value=not train)
        kept = _in_form(blank_state, state["module"]) if remembers else None

        def one(x, key):
            more = (kept,) if remembers else ()
            if call is not None:
                out = call(module, x, *more, key)
            else:
                out = module(x, *more, key=key) if takes_key else module(x, *more)
            return out if remembers else (out, None)

        images = x.transpose(0, 3, 1, 2)
        if not train:
            out, _ = jax.vmap(one, (0, None), (0, None), axis_name=rows)(images, None)
            return _rows(out), state
        key, own = jax.random.split(jax.random.wrap_key_data(state["key"]))
        own = own if axis_name is None else jax.random.fold_in(own, lax.axis_index(axis_name))
        out, new = jax.vmap(one, (0, 0), (0, None), axis_name=rows)(images, jax.random.split(own, len(x)))
        moved = _by_names(new) if remembers else state["module"]
        return _rows(out), {"module": moved, "key": jax.random.key_data(key)}

    return Net(init, apply)


def _rows(out: Any) -> tuple[Any, ...]:
    """What the vmapped module made, as a tuple; maps with their channels last."""
    made = out if isinstance(out, tuple) else (out,)
    return tuple(x.transpose(0, 2, 3, 1) if x.ndim == 4 else x for x in made)


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr(path, simple=True, separator="/").split("/"))


def _by_names(tree: PyTree) -> dict[str, Any]:
    """The arrays of a module as dicts within dicts, by the names of its fields."""
    return unflatten_dict({_names(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)})


def _in_form(like: PyTree, arrays: PyTree) -> PyTree:
    """The other way round. An encoder that was loaded has None where it reads nothing."""
    found = flatten_dict(arrays)

    def of(path, x):
        given = found[_names(path)]
        return jnp.zeros(x.shape, x.dtype) if given is None else given

    return jax.tree_util.tree_map_with_path(of, like)
