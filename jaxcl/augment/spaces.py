"""Part 1, color spaces: brightness first, then two channels of color, each standardized to about [-1, 1]."""

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

# The mean and the standard deviation by which each channel is standardized, as in the code of CMC (Lab and YCbCr) and
# of PyContrast (YDbDr). Of Lab they are the middle and half the width of what sRGB can reach.
LAB_SCALE = np.array([50, 6.025, -6.6895]), np.array([50, 92.208, 101.1675])
YCBCR_SCALE = np.array([116.151, 121.080, 132.342]), np.array([109.500, 111.855, 111.964])
YDBDR_SCALE = np.array([0.457, -0.082, -0.052]), np.array([0.500, 1.331, 1.333])


def lab() -> Op:
    """CIE L*a*b* of sRGB pixels (D65), each channel scaled to [-1, 1] over the range that sRGB can reach.

    The ranges are CMC's (Tian et al., 2020, its code, train_CMC.py): L 0 to 100, a -86.183 to 98.233, b -107.857 to
    94.478. Draws nothing. What comes out is no picture in [0, 1] any more: nothing may follow that takes it for one.
    """

    def apply(params, image):
        x = jnp.clip(image, 0, 1)
        x = jnp.where(x > 0.04045, jnp.power((x + 0.055) / 1.055, 2.4), x / 12.92)
        x = jnp.einsum("hwc,kc->hwk", x, XYZ.astype(np.float32), precision="highest")
        x = jnp.where(x > 0.008856, jnp.cbrt(jnp.maximum(x, 0.008856)), 7.787 * x + 16 / 116)
        x = jnp.stack(
            [116 * x[..., 1] - 16, 500 * (x[..., 0] - x[..., 1]), 200 * (x[..., 1] - x[..., 2])], axis=-1
        )
        return standardized(x, *LAB_SCALE)

    return deciding("lab", 0, lambda u, shape: (), three_channels("lab", apply), settings={})


def ycbcr() -> Op:
    """Y'CbCr (ITU-R BT.601, 8 bits) of pixels in [0, 1], each channel less its mean, over its standard deviation.

    These are those of CMC's code (train_CMC.py): means 116.151, 121.080, 132.342; standard deviations 109.500,
    111.855, 111.964. So Y lies within -0.92 and 1.09, Cb within -0.94 and 1.07, Cr within -1.04 and 0.97.
    Draws nothing.
    """

    def apply(params, image):
        x = jnp.einsum("hwc,kc->hwk", jnp.clip(image, 0, 1), YCBCR.astype(np.float32), precision="highest")
        return standardized(x + jnp.asarray([16, 128, 128], jnp.float32), *YCBCR_SCALE)

    return deciding("ycbcr", 0, lambda u, shape: (), three_channels("ycbcr", apply), settings={})


def ydbdr() -> Op:
    """Y'DbDr (SECAM) of pixels in [0, 1], each channel less its mean, over its standard deviation.

    The coefficients are scikit-image's, means (0.457, -0.082, -0.052) and standard deviations (0.500, 1.331, 1.333)
    those of PyContrast's code (datasets/util.py). So Y lies within -0.92 and 1.09, Db within -0.94 and 1.07, Dr within
    -0.97 and 1.04. Draws nothing.
    """

    def apply(params, image):
        x = jnp.einsum("hwc,kc->hwk", jnp.clip(image, 0, 1), YDBDR.astype(np.float32), precision="highest")
        return standardized(x, *YDBDR_SCALE)

    return deciding("ydbdr", 0, lambda u, shape: (), three_channels("ydbdr", apply), settings={})


def standardized(x: Array, mean: np.ndarray, std: np.ndarray) -> Array:
    return (x - jnp.asarray(mean, x.dtype)) / jnp.asarray(std, x.dtype)


def three_channels(name: str, apply):
    def checked(params, image):
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"{name} needs an image [h, w, 3]; got {image.shape}.")
        return apply(params, image)

    return checked


# What CMC cuts into brightness and color.
SPACES = {"lab": lab, "ycbcr": ycbcr, "ydbdr": ydbdr}


def color_space(name: str) -> Op:
    """The op "lab", "ycbcr" or "ydbdr": brightness first, then two channels of color, each standardized."""
    if name not in SPACES:
        raise ValueError(f"space must be one of {', '.join(SPACES)}; got {name!r}.")
    return SPACES[name]()
