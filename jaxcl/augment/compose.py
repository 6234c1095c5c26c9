"""Part 1, ops in a row: a composed op is an op."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcl.augment.op import Op, Shape, uniform
from jaxcl.typing import PyTree


def compose(*steps: Op) -> Op:
    """One after the other; the parameters are a tuple, one entry a step. A composed op is an op and composes again."""

    numbers = sum(step.numbers for step in steps)

    def take(u, key, shape):
        params, start = [], 0
        for i, step in enumerate(steps):
            if step.decide is not None:
                drawn = step.decide(u[start : start + step.numbers], shape)
                start += step.numbers
            else:
                # A branch of its own: the numbers above hang on the key itself.
                drawn = step.sample(jax.random.fold_in(jax.random.fold_in(key, 2**31 - 1), i), shape)
            shape = shape_after(step, drawn, shape)  # what the next step will see
            params.append(drawn)
        return tuple(params)

    def sample(key, shape):
        return take(uniform(key, (numbers,)), key, shape)

    decide = None if any(step.decide is None for step in steps) else (lambda u, shape: take(u, None, shape))

    def apply(params, image):
        for step, drawn in zip(steps, params, strict=True):
            image = step.apply(drawn, image)
        return image

    outs = [step.out for step in steps if step.out is not None]

    def out(shape):
        return functools.reduce(lambda shape, out: out(shape), outs, shape)

    name = " > ".join(step.name for step in steps)
    known = out if len(outs) == len(steps) else None
    # What a step without `decide` needs is not counted: such a composed op draws by its own key, too.
    return Op(name, sample, apply, (("steps", steps),), known, numbers if decide else 0, decide)


def flat(op: Op) -> list[Op]:
    """The steps of a composed op, of those that are composed themselves too, in order."""
    steps = dict(op.settings).get("steps")
    return [op] if steps is None else [inner for step in steps for inner in flat(step)]


def flat_params(op: Op, params: PyTree) -> list[PyTree]:
    """What each of `flat(op)` drew, out of the parameters of the whole."""
    steps = dict(op.settings).get("steps")
    if steps is None:
        return [params]
    return [inner for step, drawn in zip(steps, params, strict=True) for inner in flat_params(step, drawn)]


def shape_after(op: Op, params: PyTree, shape: Shape) -> Shape:
    """The shape of what an op makes of an image; nothing is computed."""
    if op.out is not None:
        return op.out(shape)
    seen = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), params)
    return jax.eval_shape(op.apply, seen, jax.ShapeDtypeStruct(shape, jnp.float32)).shape


def leaves(params: PyTree) -> Iterator[NamedTuple]:
    """The steps' own parameters, in order, out of tuples of tuples."""
    if hasattr(params, "_fields"):
        yield params
    elif isinstance(params, tuple):
        for step in params:
            yield from leaves(step)
