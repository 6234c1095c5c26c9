"""Ops on some of the channels, for images whose further channels are no picture; and images cut by channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.augment.op import Op
from jaxcl.typing import Array


def first_channels(op: Op, channels: int) -> Op:
    """The op on the first `channels` of an image alone; the others are kept as they are.

    For images with a code beside the picture (`data.suppression.rand_bits`). The op must keep height and width.
    """

    def sample(key, shape):
        return op.sample(key, (*shape[:2], channels))

    def apply(params, image):
        changed, kept = op.apply(params, image[..., :channels]), image[..., channels:]
        check_keeps_size(op.name, changed.shape, kept.shape)
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


def check_keeps_size(name: str, changed: Sequence[int], kept: Sequence[int]) -> None:
    if tuple(changed[:2]) != tuple(kept[:2]):
        raise ValueError(
            f"first_channels needs an op that keeps height and width, so that the other channels still fit;"
            f" {name} made {tuple(changed[:2])} of {tuple(kept[:2])}."
        )


def split_channels(op: Op, channels: Sequence[int]) -> Callable[[Array], tuple[Array, ...]]:
    """images [b, h, w, c] in [0, 1] -> what the op makes of them, cut into its channels.

    `split_channels(augment.lab(), (1, 2))` gives L [b, h, w, 1] and ab [b, h, w, 2] of whole images, where
    `channel_views` gives them of augmented ones. The op must draw nothing.
    """

    def split(images: Array) -> tuple[Array, ...]:
        whole = jax.vmap(lambda image: op.apply(op.sample(jax.random.key(0), image.shape), image))(images)
        return cut(whole, channels)

    return split


def cut(images: Array, channels: Sequence[int]) -> tuple[Array, ...]:
    """[b, h, w, c] -> one array [b, h, w, n] for each n of `channels`, which sum to c."""
    if images.shape[3] != sum(channels):
        raise ValueError(f"channels {tuple(channels)} must sum to the image's {images.shape[3]}.")
    return tuple(jnp.split(images, np.cumsum(channels)[:-1], axis=3))
