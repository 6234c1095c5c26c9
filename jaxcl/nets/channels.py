"""Layers that weigh the channels of a map by what is on the whole of it: squeeze-and-excitation, selective kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxcl.typing import Norm

# Channels that a selective kernel's weights are made of, at the least.
FEWEST = 32


def squeezed(channels: int, ratio: float) -> int:
    """How many of them there are for so many channels.

    >>> squeezed(64, 0.0625), squeezed(1024, 0.0625)
    (32, 64)
    """
    return max(int(channels * ratio), FEWEST)


class Excitation(nn.Module):
    """Squeeze-and-excitation (Hu, Shen and Sun, 2017, arXiv:1709.01507): x [b, h, w, c] times a weight a channel,

    sigmoid(W2 relu(W1 mean_hw(x) + b1) + b2),    W1 [c, squeezed], W2 [squeezed, c].
    """

    squeezed: int
    dtype: DTypeLike
    kernel_init: Callable[..., Any]

    @nn.compact
    def __call__(self, x):
        def dense(features, name):
            return nn.Dense(features, dtype=self.dtype, kernel_init=self.kernel_init, name=name)

        y = nn.relu(dense(self.squeezed, "squeeze")(jnp.mean(x, axis=(1, 2))))
        return x * nn.sigmoid(dense(x.shape[-1], "excite")(y))[:, None, None]


class SelectiveKernel(nn.Module):
    """A 3x3 convolution that is two, of which every channel takes its mixture (Li, Wang, Hu and Yang, 2019,
    arXiv:1903.06586), as SimCLRv2's code has it (`sk_conv2d` in its resnet.py): [b, h, w, c] -> [b, h', w', features].

        u_1, u_2 = relu(norm(conv(x)))          both 3x3, in one convolution of twice the channels
        s = relu(norm(W1 mean_hw(u_1 + u_2)))   max(features * ratio, 32) channels
        u_1 p + u_2 (1 - p),                    p, 1 - p = softmax of the two halves of W2 s, channel by channel

    The paper's second kernel is 5x5 (a dilated 3x3); here both are plain 3x3. Norm and ReLU are inside.
    """

    conv: Callable[..., Any]  # (features, kernel, stride, name=) -> a convolution without bias
    norm: Norm
    features: int
    stride: int
    ratio: float

    @nn.compact
    def __call__(self, x, *, train: bool):
        halves = nn.relu(
            self.norm(name="norm")(self.conv(2 * self.features, 3, self.stride, name="both")(x), train=train)
        )
        u = halves.reshape(*halves.shape[:-1], 2, self.features)
        fewer = squeezed(self.features, self.ratio)
        s = jnp.mean(jnp.sum(u, axis=3), axis=(1, 2), keepdims=True)
        s = nn.relu(self.norm(name="squeeze_norm")(self.conv(fewer, 1, 1, name="squeeze")(s), train=train))
        scores = self.conv(2 * self.features, 1, 1, name="select")(s)
        weights = jax.nn.softmax(scores.reshape(*scores.shape[:-1], 2, self.features), axis=3)
        return jnp.sum(u * weights, axis=3)
