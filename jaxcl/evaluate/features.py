"""From images to features: the frozen encoder over a whole data set."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import DTypeLike

from jaxcl import devices
from jaxcl.typing import Array

# (images float [b, h, w, c] in [0, 1]) -> features [b, d], each row a function of its own image.
EncoderFn = Callable[[Array], Array]


def embed(
    encoder: EncoderFn,
    images: np.ndarray,
    *,
    batch_size: int = 512,
    dtype: DTypeLike = jnp.float32,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """The features float32 [n, d] of the images uint8 [n, h, w, c].

    encoder
        float images [b, h, w, c] in [0, 1] -> features [b, d], each row a function of its own image. Give
        `functools.partial(method.embed, params, state)`, or a value with the fields `apply`, `params` and `state`:
        the weights then travel as arguments, and the next checkpoint of the same method reuses the compiled program.
        What a lambda closes over is compiled in.
    batch_size
        images in one call. It is rounded up to a multiple of the devices, and the last batch is padded, so one
        program serves data sets of any length.
    dtype
        of the images that the encoder gets.
    progress
        is called now and then with the fraction of the images that is done.

    The batch is split over all devices of this process. `images` may be memory-mapped: a batch is read at a time. With
    several processes all of them must call it: each embeds its part of the images, and all get all features.

    >>> images = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)
    >>> embed(lambda x: 255 * x.mean(axis=(1, 2)), images, batch_size=2).round(4).tolist()
    [[1.5], [5.5], [9.5]]
    """
    return _embed(as_partial(encoder), images, _forward, batch_size, dtype, progress)


def embed_each(
    encoders: Sequence[EncoderFn],
    images: np.ndarray,
    *,
    batch_size: int = 512,
    dtype: DTypeLike = jnp.float32,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """The features float32 [m, n, d] that m encoders of one architecture make of the same images [n, h, w, c], by one
    program, mapped over the members (`jax.vmap`). Otherwise as `embed`.

    encoders
        of one function with arrays of the same shapes, as `embed` wants to have them: partial(f, params, state).

    Raises ValueError where they are not.

    >>> def mean(w, x): return w * x.mean(axis=(1, 2))
    >>> images = np.full((1, 2, 2, 1), 255, np.uint8)
    >>> embed_each([functools.partial(mean, 1.0), functools.partial(mean, 2.0)], images).tolist()
    [[[1.0]], [[2.0]]]
    """
    members = [as_partial(encoder) for encoder in encoders]
    kinds = {
        (jax.tree.structure(one), tuple(np.shape(leaf) for leaf in jax.tree.leaves(one))) for one in members
    }
    if len(kinds) != 1:
        raise ValueError(
            f"embed_each takes encoders of one function with arrays of the same shapes; got {len(kinds)} kinds among"
            f" {len(members)} encoders. Embed them one after the other."
        )
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    return np.moveaxis(_embed(stacked, images, _forward_each, batch_size, dtype, progress), 1, 0)


def _embed(
    encoder: Partial,
    images: np.ndarray,
    forward: Callable[..., Array],
    batch_size: int,
    dtype: DTypeLike,
    progress: Callable[[float], None] | None,
) -> np.ndarray:
    """The rows [n, ...] that `forward` makes of all images, a batch at a time."""
    _check_images(images)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
    mesh = devices.local_mesh()
    batch_size = -(-batch_size // mesh.size) * mesh.size
    frozen = devices.replicate(encoder, mesh)

    whole, own = len(images), devices.own_rows(len(images))
    n = own.stop - own.start
    features: np.ndarray | None = None
    running: list[tuple[int, Array]] = []

    def collect():
        nonlocal features
        first, result = running.pop(0)
        out = np.asarray(result)
        if features is None:
            features = np.empty((n, *out.shape[1:]), np.float32)
        features[first : first + batch_size] = out[: n - first]

    for first in range(0, n, batch_size):
        batch = np.asarray(images[own.start + first : own.start + min(first + batch_size, n)])
        batch = np.concatenate([batch, np.zeros((batch_size - len(batch), *batch.shape[1:]), batch.dtype)])
        running.append((first, forward(frozen, devices.split(batch, mesh), dtype=jnp.dtype(dtype))))
        # The device computes while the host reads the next batch; no more wait than these.
        if len(running) > 2:
            collect()
        if progress is not None:
            progress(min(1.0, (first + batch_size) / n))
    while running:
        collect()
    assert features is not None
    return devices.gather_rows(features, whole)


def raw_pixels(images: np.ndarray) -> np.ndarray:
    """The pixels themselves as features, the baseline below all encoders: uint8 [n, h, w, c] -> [n, h w c] in [0, 1].

    >>> raw_pixels(np.array([[[[0], [255]]]], np.uint8)).tolist()
    [[0.0, 1.0]]
    """
    _check_images(images)
    return np.asarray(images, np.float32).reshape(len(images), -1) / np.float32(255)


@functools.partial(jax.jit, static_argnames="dtype")
def _forward(encoder, images, *, dtype):
    features = encoder(images.astype(dtype) / jnp.asarray(255, dtype))
    if features.ndim != 2 or features.shape[0] != images.shape[0]:
        raise ValueError(
            f"The encoder must return one vector an image, ({images.shape[0]}, d); got {features.shape}. Feature maps"
            " are made vectors by extract.pool."
        )
    return features.astype(jnp.float32)


@functools.partial(jax.jit, static_argnames="dtype")
def _forward_each(encoders, images, *, dtype):
    """[b, m, d]: rows first, which the devices share."""
    return jax.vmap(lambda encoder: _forward(encoder, images, dtype=dtype), out_axes=1)(encoders)


def as_partial(encoder: EncoderFn) -> Partial:
    """The same function as a pytree, whose leaves are the arrays of a `functools.partial` or of an encoder's value."""
    if isinstance(encoder, Partial):
        return encoder
    value: Any = encoder
    if all(hasattr(value, name) for name in ("apply", "params", "state")):
        return Partial(value.apply, value.params, value.state)
    if isinstance(encoder, functools.partial):
        leaves = jax.tree.leaves((encoder.args, encoder.keywords))
        if all(isinstance(leaf, jax.Array | np.ndarray | np.generic | int | float) for leaf in leaves):
            return Partial(encoder.func, *encoder.args, **encoder.keywords)
    return Partial(encoder)


def _check_images(images) -> None:
    shape, dtype = getattr(images, "shape", None), getattr(images, "dtype", None)
    if shape is None or len(shape) != 4 or dtype != np.uint8 or not shape[0]:
        raise ValueError(
            f"images must be uint8 [n, height, width, channels] with n at least 1; got {dtype} {shape}."
            " Float images in [0, 1] become uint8 by (255 * images).round().astype(np.uint8)."
        )
