"""The table of corruptions, and a data set with one of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import devices
from jaxcl.evaluate.corruptions import blur, digital, noise, weather
from jaxcl.evaluate.corruptions.common import eight_bits
from jaxcl.typing import Array

SEVERITIES = (1, 2, 3, 4, 5)

# (key, image [h, w, c] in [0, 1], severity) -> image [h, w, c] in [0, 1]; the severity may be traced.
Apply = Callable[[Array, Array, Array], Array]


class Corruption(NamedTuple):
    group: str  # "noise", "blur", "weather" or "digital"
    apply: Apply


# A name -> the corruption, which is drawn and applied to an image at a severity from 1 to 5.
CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption("noise", noise.gaussian_noise),
    "shot_noise": Corruption("noise", noise.shot_noise),
    "impulse_noise": Corruption("noise", noise.impulse_noise),
    "defocus_blur": Corruption("blur", blur.defocus_blur),
    "glass_blur": Corruption("blur", blur.glass_blur),
    "motion_blur": Corruption("blur", blur.motion_blur),
    "zoom_blur": Corruption("blur", blur.zoom_blur),
    "snow": Corruption("weather", weather.snow),
    "frost": Corruption("weather", weather.frost),
    "fog": Corruption("weather", weather.fog),
    "brightness": Corruption("weather", weather.brightness),
    "contrast": Corruption("digital", digital.contrast),
    "elastic_transform": Corruption("digital", digital.elastic_transform),
    "pixelate": Corruption("digital", digital.pixelate),
    "jpeg_compression": Corruption("digital", digital.jpeg_compression),
}


def corrupt(
    key: Array, name: str, images: np.ndarray, severity: int, *, start: int = 0, batch_size: int = 256
) -> np.ndarray:
    """A data set with one corruption: uint8 [n, h, w, c] -> uint8 [n, h, w, c], values cut off to eight bits.

    What is drawn for an image is a function of (key, its number in the data set, the corruption, the severity). `start`
    is the number of the first image, where these are a part of a data set.

    >>> images = np.full((2, 8, 8, 3), 100, np.uint8)
    >>> corrupt(jax.random.key(0), "brightness", images, severity=2)[0, 0, 0].tolist()       # 100 + 255 * 0.1
    [125, 125, 125]
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"There is no corruption {name!r}; there are {', '.join(CORRUPTIONS)}.")
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be one of {SEVERITIES}; got {severity}.")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(
            f"images must be uint8 [n, h, w, c] with one channel or three; got {images.dtype} {images.shape}."
        )
    mesh = devices.local_mesh()
    batch_size = -(-batch_size // mesh.size) * mesh.size
    key = devices.replicate(
        jax.random.fold_in(jax.random.fold_in(key, list(CORRUPTIONS).index(name)), severity), mesh
    )
    corrupted = np.empty_like(images)
    for first in range(0, len(images), batch_size):
        batch = np.asarray(images[first : first + batch_size])
        rows = len(batch)
        # A batch that is not full is filled up, so that there is one program for data sets of any length.
        batch = np.concatenate([batch, np.zeros((batch_size - rows, *batch.shape[1:]), np.uint8)])
        index = np.arange(start + first, start + first + batch_size, dtype=np.int32)
        batch, index = devices.split((batch, index), mesh)
        out = _corrupt(key, batch, index, np.int32(severity), name=name)
        corrupted[first : first + rows] = np.asarray(out)[:rows]
    return corrupted


@functools.partial(jax.jit, static_argnames="name")
def _corrupt(key, images, index, severity, *, name):
    def one(image, index):
        image = image.astype(jnp.float32) / 255
        out = CORRUPTIONS[name].apply(jax.random.fold_in(key, index), image, severity)
        return (255 * eight_bits(out) + 0.5).astype(jnp.uint8)

    return jax.vmap(one)(images, index)
