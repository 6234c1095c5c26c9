"""Wide residual networks for small images (Zagoruyko and Komodakis, 2016, arXiv:1605.07146)."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxcl.nets.conv import conv
from jaxcl.nets.net import from_linen
from jaxcl.typing import Net, Norm


def wide_resnet(depth: int, *, norm: Norm, width: int = 1, dtype: DTypeLike = jnp.float32) -> Net:
    """WRN-depth-width: images [b, h, w, c] -> the outputs of three stages, [b, h, w, 16 k], [b, h/2, w/2, 32 k] and
    [b, h/4, w/4, 64 k], with k = `width`.

    Norm and ReLU come before each convolution, so the first two maps are plain sums; the last has had its norm and
    ReLU. A stage has (depth - 4) / 6 blocks of two 3x3 convolutions, so depth is 10, 16, 22, 28, 34, 40, ... No
    dropout. WRN-28-10, WRN-40-4 and WRN-16-8 are the paper's; `wide_resnet(34, width=10)` is its Wide ResNet-34.
    `resnet(34, stem=..., width=2)` is the other network of that name, a ResNet-34 with all channels doubled, which the
    paper has for ImageNet. Which one Falcon and Cho (2020, arXiv:2009.00104) tried was not verified.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"wide_resnet comes in depths 10, 16, 22, 28, 34, 40, ... (6 n + 4); got {depth}.")
    if width < 1:
        raise ValueError(f"wide_resnet's width multiplies its channels and must be at least 1; got {width}.")
    return from_linen(WideResNet((depth - 4) // 6, norm, width, dtype))


class WideResNet(nn.Module):
    """The module behind `wide_resnet`."""

    blocks: int
    norm: Norm
    width: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = convolution(x, 16, 1, self.dtype)
        maps = []
        for stage in range(3):
            for i in range(self.blocks):
                stride = 2 if stage and not i else 1
                x = WideBlock(16 * 2**stage * self.width, stride, self.norm, self.dtype)(x, train=train)
            maps.append(x)
        maps[-1] = nn.relu(self.norm()(x, train=train))
        return tuple(maps)


class WideBlock(nn.Module):
    """shortcut + 3x3(relu(norm(3x3(relu(norm))))); a shortcut that changes shape starts after the first norm."""

    features: int
    stride: int
    norm: Norm
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x, *, train: bool):
        y = nn.relu(self.norm()(x, train=train))
        if self.stride != 1 or x.shape[-1] != self.features:
            shortcut = nn.Dense(self.features, use_bias=False, dtype=self.dtype, kernel_init=HE)
            x = shortcut(y[:, :: self.stride, :: self.stride])
        y = convolution(y, self.features, self.stride, self.dtype)
        y = convolution(nn.relu(self.norm()(y, train=train)), self.features, 1, self.dtype)
        return x + y


HE = nn.initializers.he_normal()


def convolution(x, features, stride, dtype):
    """3x3, padded by one pixel on each side."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return conv(features, strides=stride, padding="VALID", dtype=dtype, kernel_init=HE)(padded)
