"""Part 1, ops in a row: a composed op is an op."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcl import collectives
from jaxcl.augment.geometry import crop_flipped, is_crop_and_flip
from jaxcl.augment.op import Op, Shape, uniform
from jaxcl.typing import PyTree


def compose(*ops: Op) -> Op:
    """One after the other; the parameters are a tuple, one entry an op. A composed op is an op and composes again."""
    numbers = sum(op.numbers for op in ops)

    def take(u, key, shape):
        params, start = [], 0
        for i, op in enumerate(ops):
            if op.decide is not None:
                drawn = op.decide(u[start : start + op.numbers], shape)
                start += op.numbers
            else:
                # A branch of its own: the numbers above hang on the key itself.
                drawn = op.sample(jax.random.fold_in(jax.random.fold_in(key, 2**31 - 1), i), shape)
            shape = shape_after(op, drawn, shape)  # what the next op will see
            params.append(drawn)
        return tuple(params)

    def sample(key, shape):
        return take(uniform(key, (numbers,)), key, shape)

    decide = None if any(op.decide is None for op in ops) else (lambda u, shape: take(u, None, shape))

    def apply(params, image):
        steps = list(zip(ops, params, strict=True))
        while steps:
            (op, drawn), *steps = steps
            # A TPU would fetch the crop from memory once more for the flip alone.
            if steps and is_crop_and_flip(op, steps[0][0]) and collectives.target().platform == "tpu":
                image = crop_flipped(op, drawn, steps.pop(0)[1], image)
            else:
                image = op.apply(drawn, image)
        return image

    outs = [op.out for op in ops if op.out is not None]

    def out(shape):
        return functools.reduce(lambda shape, out: out(shape), outs, shape)

    name = " > ".join(op.name for op in ops)
    known = out if len(outs) == len(ops) else None
    # What an op without `decide` needs is not counted: such a composed op draws by its own key, too.
    return Op(name, sample, apply, (("steps", ops),), known, numbers if decide else 0, decide)


def flat(op: Op) -> list[Op]:
    """The ops of a composed op, and of those among them that are composed, in order."""
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
    """The ops' own parameters, in order, out of tuples of tuples."""
    if hasattr(params, "_fields"):
        yield params
    elif isinstance(params, tuple):
        for step in params:
            yield from leaves(step)
