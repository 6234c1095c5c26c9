"""Small encoders."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxcl.nets.conv import conv
from jaxcl.nets.net import from_linen
from jaxcl.typing import Net, Norm


def conv_n(
    *, norm: Norm, features: Sequence[int] = (32, 64, 64), dense: int = 128, dtype: DTypeLike = jnp.float32
) -> Net:
    """The encoder of the RandBits experiment (Chen, Luo and Li, 2021, `randbits_mnist.ipynb`).

    Images [b, h, w, c] -> one map [b, h', w', f] for each of `features`, and at last a vector [b, dense].
    Each map is a 3x3 convolution with stride 2 and no padding, norm and ReLU; the vector is a dense layer
    over the flattened last map, norm and ReLU. Nothing else has a bias. The notebook's norm is
    `batch_norm(momentum=0.99, epsilon=1e-3)`, and its kernels are Glorot uniform, both Keras's defaults.

    Images must be at least 15 pixels high and wide (for three convolutions); 28 give maps of 13, 6 and 2.
    """
    return from_linen(ConvN(norm, tuple(features), dense, dtype))


def small_convnet(
    *, norm: Norm, features: Sequence[int] = (32, 64, 128, 256), dtype: DTypeLike = jnp.float32
) -> Net:
    """An encoder for 32-pixel images that a CPU can train: about 8 million multiplications a view.

    Images [b, 32, 32, 3] -> maps [b, 8, 8, 32], [b, 4, 4, 64], [b, 4, 4, 128], [b, 4, 4, 256] (height and width must
    be multiples of 8). Cells of 2x2 pixels become channels; then come 3x3 convolutions, each with norm and ReLU. The
    first two are max pooled, before their norm, so that most of the work is done on small maps with many channels.
    """
    return from_linen(SmallConvNet(norm, tuple(features), dtype))


def conv_stage(*, norm: Norm, features: int = 256, dtype: DTypeLike = jnp.float32) -> Net:
    """One more map: [b, h, w, c] -> ([b, h, w, features],), a 3x3 convolution with norm and ReLU.

    `small_convnet(features=(32, 64, 128))` with this on top is `small_convnet(features=(32, 64, 128, 256))`; LooC++
    gives every space one of its own.
    """
    return from_linen(ConvStage(norm, features, dtype))


class ConvStage(nn.Module):
    """The module behind `conv_stage`."""

    norm: Norm
    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = conv(self.features, dtype=self.dtype, kernel_init=nn.initializers.he_normal())(x)
        return (nn.relu(self.norm()(x, train=train)),)


class SmallConvNet(nn.Module):
    """The module behind `small_convnet`."""

    norm: Norm
    features: tuple[int, ...]
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x, *, train: bool):
        if x.shape[1] % 8 or x.shape[2] % 8:
            raise ValueError(
                "small_convnet halves the image three times and needs a height and width that are multiples of 8;"
                f" got {x.shape[1]}x{x.shape[2]}."
            )
        x = cells(x)
        maps = []
        for i, features in enumerate(self.features):
            x = conv(features, dtype=self.dtype, kernel_init=nn.initializers.he_normal())(x)
            if i < 2:
                x = halved(x)
            x = nn.relu(self.norm()(x, train=train))
            maps.append(x)
        return tuple(maps)


def cells(x):
    """[b, h, w, c] -> [b, h/2, w/2, 4 c]: each 2x2 cell of pixels is laid out along the channels."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).swapaxes(2, 3).reshape(b, h // 2, w // 2, 4 * c)


def halved(x):
    """[b, h, w, c] -> [b, h/2, w/2, c]: the largest of each 2x2 cell (on a CPU twice as fast as `nn.max_pool`)."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))


class ConvN(nn.Module):
    """The module behind `conv_n`."""

    norm: Norm
    features: tuple[int, ...]
    dense: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x, *, train: bool):
        smallest = 2 ** (len(self.features) + 1) - 1
        if min(x.shape[1:3]) < smallest:
            raise ValueError(
                f"conv_n halves the image {len(self.features)} times without padding and needs at least"
                f" {smallest}x{smallest} pixels; got {x.shape[1]}x{x.shape[2]}."
            )
        glorot = nn.initializers.glorot_uniform()
        maps = []
        for features in self.features:
            x = conv(features, strides=2, padding="VALID", dtype=self.dtype, kernel_init=glorot)(x)
            x = nn.relu(self.norm()(x, train=train))
            maps.append(x)
        dense = nn.Dense(self.dense, use_bias=False, dtype=self.dtype, kernel_init=glorot)
        x = nn.relu(self.norm()(dense(x.reshape(len(x), -1)), train=train))
        return *maps, x
