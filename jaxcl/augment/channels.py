"""Ops for images whose further channels are no picture."""

from __future__ import annotations

import jax.numpy as jnp

from jaxcl.augment.ops import Op


def first_channels(op: Op, channels: int) -> Op:
    """The op on the first `channels` of an image alone; the others are kept as they are.

    For images with a code beside the picture (`data.suppression.rand_bits`). The op must keep height and width.
    """

    def sample(key, shape):
        return op.sample(key, (*shape[:2], channels))

    def apply(params, image):
        changed, kept = op.apply(params, image[..., :channels]), image[..., channels:]
        if changed.shape[:2] != kept.shape[:2]:
            raise ValueError(
                f"first_channels needs an op that keeps height and width, so that the other channels still fit;"
                f" {op.name} made {changed.shape[:2]} of {kept.shape[:2]}."
            )
        return jnp.concatenate([changed, kept], axis=-1)

    def decide(u, shape):
        assert op.decide is not None
        return op.decide(u, (*shape[:2], channels))

    return Op(
        op.name,
        sample,
        apply,
        (("op", op), ("first_channels", channels)),
        numbers=op.numbers,
        decide=op.decide and decide,
    )
