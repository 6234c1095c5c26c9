"""Small encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxcl.nets.net import from_linen
from jaxcl.nets.norm import Norm
from jaxcl.typing import Net


def conv_n(
    *, norm: Norm, features: Sequence[int] = (32, 64, 64), dense: int = 128, dtype: Any = jnp.float32
) -> Net:
    """The encoder of the RandBits experiment (Chen, Luo and Li, 2021, `randbits_mnist.ipynb`).

    Images [b, h, w, c] -> one map [b, h', w', f] for each of `features`, and at last a vector [b, dense].
    Each map is a 3x3 convolution with stride 2 and no padding, norm and ReLU; the vector is a dense layer
    over the flattened last map, norm and ReLU. Nothing else has a bias. The notebook's norm is
    `batch_norm(momentum=0.99, epsilon=1e-3)`, and its kernels are Glorot uniform, both Keras's defaults.

    Images must be at least 15 pixels high and wide (for three convolutions); 28 give maps of 13, 6 and 2.
    """
    return from_linen(ConvN(norm, tuple(features), dense, dtype))


class ConvN(nn.Module):
    """The module behind `conv_n`."""

    norm: Norm
    features: tuple[int, ...]
    dense: int
    dtype: Any

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
            conv = nn.Conv(
                features, (3, 3), 2, padding="VALID", use_bias=False, dtype=self.dtype, kernel_init=glorot
            )
            x = nn.relu(self.norm()(conv(x), train=train))
            maps.append(x)
        dense = nn.Dense(self.dense, use_bias=False, dtype=self.dtype, kernel_init=glorot)
        x = nn.relu(self.norm()(dense(x.reshape(len(x), -1)), train=train))
        return *maps, x
