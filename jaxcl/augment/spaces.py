"""Part 1, color spaces: brightness first, then two channels of color, each within [-1, 1]."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxcl.augment.op import Op, deciding
from jaxcl.typing import Array

# CIE XYZ of linear sRGB (IEC 61966-2-1), relative to the white of D65.
XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
) / np.array([[0.95047], [1.0], [1.08883]])
YDBDR = np.array([[0.299, 0.587, 0.114], [-0.45, -0.883, 1.333], [-1.333, 1.116, 0.217]])
YCBCR = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])


YDBDR = np.array([[0.299, 0.587, 0.114], [-0.45, -0.883, 1.333], [-1.333, 1.116, 0.217]])
YCBCR = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])


YCBCR = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
# The least and the greatest value of each channel, which become -1 and 1.
LAB_RANGE = np.array([0, -86.183, -107.857]), np.array([100, 98.233, 94.478])
YCBCR_RANGE = np.array([16, 16, 16]), np.array([235, 240, 240])
YDBDR_RANGE = np.array([0, -1.333, -1.333]), np.array([1, 1.333, 1.333])


def lab() -> Op:
    """CIE L*a*b* of sRGB pixels (D65), each channel scaled to [-1, 1] over the range that sRGB can reach.

    The ranges are CMC's (Tian et al., 2020, its code): L 0 to 100, a -86.183 to 98.233, b -107.857 to 94.478. Draws
    nothing. What comes out is no picture in [0, 1] any more: nothing may follow that takes it for one.
    """

    def apply(params, image):
        x = jnp.clip(image, 0, 1)
        x = jnp.where(x > 0.04045, jnp.power((x + 0.055) / 1.055, 2.4), x / 12.92)
        x = jnp.einsum("hwc,kc->hwk", x, XYZ.astype(np.float32), precision="highest")
        x = jnp.where(x > 0.008856, jnp.cbrt(jnp.maximum(x, 0.008856)), 7.787 * x + 16 / 116)
        x = jnp.stack(
            [116 * x[..., 1] - 16, 500 * (x[..., 0] - x[..., 1]), 200 * (x[..., 1] - x[..., 2])], axis=-1
        )
        return scaled_to_one(x, *LAB_RANGE)

    return deciding("lab", 0, lambda u, shape: (), three_channels("lab", apply), settings={})


def ycbcr() -> Op:
    """Y'CbCr (ITU-R BT.601, 8 bits) of pixels in [0, 1], each channel scaled to [-1, 1] over its nominal range.

    The ranges are those of the standard, Y 16 to 235, Cb and Cr 16 to 240; whether CMC scaled just so was not
    verified. Draws nothing.
    """

    def apply(params, image):
        x = jnp.einsum("hwc,kc->hwk", jnp.clip(image, 0, 1), YCBCR.astype(np.float32), precision="highest")
        return scaled_to_one(x + jnp.asarray([16, 128, 128], jnp.float32), *YCBCR_RANGE)

    return deciding("ycbcr", 0, lambda u, shape: (), three_channels("ycbcr", apply), settings={})


def ydbdr() -> Op:
    """Y'DbDr (SECAM) of pixels in [0, 1], each channel scaled to [-1, 1] over its nominal range.

    The ranges are Y 0 to 1, Db and Dr -1.333 to 1.333; the coefficients are scikit-image's. PyContrast, which has CMC
    in this space, may scale it in another way: not verified. Draws nothing.
    """

    def apply(params, image):
        x = jnp.einsum("hwc,kc->hwk", jnp.clip(image, 0, 1), YDBDR.astype(np.float32), precision="highest")
        return scaled_to_one(x, *YDBDR_RANGE)

    return deciding("ydbdr", 0, lambda u, shape: (), three_channels("ydbdr", apply), settings={})


def scaled_to_one(x: Array, low: np.ndarray, high: np.ndarray) -> Array:
    middle, half = (low + high) / 2, (high - low) / 2
    return (x - jnp.asarray(middle, x.dtype)) / jnp.asarray(half, x.dtype)


def three_channels(name: str, apply):
    def checked(params, image):
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"{name} needs an image [h, w, 3]; got {image.shape}.")
        return apply(params, image)

    return checked


# What CMC cuts into brightness and color.
SPACES = {"lab": lab, "ycbcr": ycbcr, "ydbdr": ydbdr}


def color_space(name: str) -> Op:
    """The op "lab", "ycbcr" or "ydbdr": brightness first, then two channels of color, each within [-1, 1]."""
    if name not in SPACES:
        raise ValueError(f"space must be one of {', '.join(SPACES)}; got {name!r}.")
    return SPACES[name]()
