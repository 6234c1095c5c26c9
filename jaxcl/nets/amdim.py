"""AMDIM's encoder (Bachman, Hjelm and Buchwalter, 2019, arXiv:1906.00910, and its published code), and what embeds its
maps."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxcl.nets.conv import as_in_torch, conv
from jaxcl.nets.net import from_linen
from jaxcl.typing import Net, Norm

# Image size -> (kernel, stride, width multiplier) of the blocks that shrink the map to 7 x 7.
DOWN = {
    32: ((4, 2, 2), (2, 2, 4)),
    64: ((4, 2, 2), (4, 2, 4), (2, 2, 8)),
    128: ((4, 2, 2), (4, 2, 4), (2, 2, 8)),
}

# PyTorch's default for a convolution's kernel, which the authors keep: uniform within 1 / sqrt(fan in).
uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def amdim(
    *,
    norm: Norm,
    features: int = 256,
    out: int = 2048,
    depth: int = 10,
    inner_norm: Norm | None = None,
    biases: str = "zeros",
    dtype: DTypeLike = jnp.float32,
) -> Net:
    """A residual network without padding, so that the positions of a map see different parts of the image.

    Images of 32, 64 or 128 pixels -> maps, shallow to deep. With n = `features`:

        32 pixels    30 x 30 x n, again 30 x 30 x n,  14 x 14 x 2n,                7 x 7 x 4n, 5 x 5 x 4n, 3 x 3 x 4n
        64 pixels    62 x 62 x n,                     30 x 30 x 2n, 14 x 14 x 4n,  7 x 7 x 8n, 5 x 5 x 8n, 3 x 3 x 8n
        128 pixels   64 x 64 x n, 62 x 62 x n,        30 x 30 x 2n, 14 x 14 x 4n,  7 x 7 x 8n, 5 x 5 x 8n, 3 x 3 x 8n

    and in all of them last 1 x 1 x `out`. Published: features 256, out 2048, depth 10 for CIFAR-10; 192, 1536, 8 and
    320, 2560, 10 for ImageNet.

    norm
        of the last map, which always has one.
    depth
        layers in a block: one with the block's kernel and stride, then `depth - 1` that look at one position.
    inner_norm
        within all layers, and of the 7 x 7 map; None, as published, is none at all.
    biases
        how those of the first layers, and of a shortcut to fewer channels, start: "zeros", or "torch", as the authors'
        (PyTorch's default), uniform within 1 / sqrt(fan in). No other layer has one.

    Every layer's second kernel starts at zero, so the network starts as average pools.
    """
    if depth < 1:
        raise ValueError(f"a block has one layer or more; got depth={depth}.")
    check_biases(biases)
    return from_linen(Amdim(norm, features, out, depth, inner_norm, dtype, biases))


def amdim_head(
    *,
    norm: Norm,
    out: int = 2048,
    inner_norm: Norm | None = None,
    biases: str = "zeros",
    dtype: DTypeLike = jnp.float32,
) -> Net:
    """What embeds every position of a map by itself: [b, h, w, c] -> [b, h, w, out].

    A hidden layer as wide as `out` beside a shortcut, and `norm` after their sum. The shortcut starts near the
    identity (with c <= out), the second layer at zero. (The code's "fake RKHS" network.) `biases`, the shortcut's, as
    in `amdim`.
    """
    check_biases(biases)
    return from_linen(AmdimHead(norm, out, inner_norm, dtype, biases))


def check_biases(biases):
    if biases not in ("zeros", "torch"):
        raise ValueError(f'biases of AMDIM\'s networks start as "zeros" or "torch"; got {biases!r}.')


def bias_start(biases, fan_in):
    return nn.initializers.zeros if biases == "zeros" else as_in_torch(fan_in)


class Amdim(nn.Module):
    """The module behind `amdim`."""

    norm: Norm
    features: int
    out: int
    depth: int
    inner_norm: Norm | None
    dtype: DTypeLike
    biases: str = "zeros"

    @nn.compact
    def __call__(self, x, *, train: bool):
        size = x.shape[1]
        if x.shape[1] != x.shape[2] or size not in DOWN:
            raise ValueError(
                f"amdim's encoder is made for images of 32, 64 or 128 pixels; got {x.shape[1]}x{x.shape[2]}."
                " Resize the images, as --size 64 does with those of STL-10, which have 96."
            )
        n, layer = self.features, partial(Layer, norm=self.inner_norm, dtype=self.dtype, biases=self.biases)
        first, start = partial(convolution, n, dtype=self.dtype), partial(bias_start, self.biases)
        maps = []
        if size == 128:
            padded = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
            maps.append(nn.relu(first(5, 2, start(25 * x.shape[-1]))(padded)))
            x = maps[-1]
        maps.append(nn.relu(first(3, 1, start(9 * x.shape[-1]))(x)))
        if size == 32:
            maps.append(layer(n, 1, 1)(maps[-1], train=train))
        for kernel, stride, times in DOWN[size]:
            maps.append(self.block(layer, times * n, kernel, stride, maps[-1], train=train))
        if self.inner_norm is not None:
            maps[-1] = self.inner_norm()(maps[-1], train=train)
        wide = maps[-1].shape[-1]
        for _ in range(2):
            maps.append(self.block(layer, wide, 3, 1, maps[-1], train=train))
        maps.append(self.norm()(layer(self.out, 3, 1)(maps[-1], train=train), train=train))
        return tuple(maps)

    def block(self, layer, features, kernel, stride, x, *, train):
        x = layer(features, kernel, stride)(x, train=train)
        for _ in range(self.depth - 1):
            x = layer(features, 1, 1)(x, train=train)
        return x


class Layer(nn.Module):
    """average pool + 1x1(relu(norm(kxk)))."""

    features: int
    kernel: int
    stride: int
    norm: Norm | None
    dtype: DTypeLike
    biases: str = "zeros"

    @nn.compact
    def __call__(self, x, *, train: bool):
        conv = partial(convolution, self.features, self.kernel, self.stride, dtype=self.dtype)
        y = conv()(x)
        if self.norm is not None:
            y = self.norm()(y, train=train)
        y = pointwise(self.features, nn.initializers.zeros, dtype=self.dtype)(nn.relu(y))
        more = self.features - x.shape[-1]
        if more < 0:
            shortcut = conv(bias_start(self.biases, self.kernel**2 * x.shape[-1]))(x)
        else:
            shortcut = jnp.pad(average(x, self.kernel, self.stride), ((0, 0), (0, 0), (0, 0), (0, more)))
        return y + shortcut


class AmdimHead(nn.Module):
    """The module behind `amdim_head`."""

    norm: Norm
    out: int
    inner_norm: Norm | None
    dtype: DTypeLike
    biases: str = "zeros"

    @nn.compact
    def __call__(self, x, *, train: bool):
        y = pointwise(self.out, uniform, dtype=self.dtype)(x)
        if self.inner_norm is not None:
            y = self.inner_norm()(y, train=train)
        y = pointwise(self.out, nn.initializers.zeros, dtype=self.dtype)(nn.relu(y))
        shortcut = nn.Dense(
            self.out,
            kernel_init=near_identity if x.shape[-1] <= self.out else uniform,
            bias_init=bias_start(self.biases, x.shape[-1]),
            dtype=self.dtype,
            name="shortcut",
        )
        return self.norm()(y + shortcut(x), train=train)


def convolution(features, kernel, stride, bias_init=None, *, dtype):
    """kernel x kernel without padding, and without bias if none is started; of one position it is a matrix product."""
    if kernel == stride == 1 and bias_init is None:
        return pointwise(features, uniform, dtype=dtype)
    return conv(
        features,
        kernel=kernel,
        strides=stride,
        padding="VALID",
        use_bias=bias_init is not None,
        dtype=dtype,
        kernel_init=uniform,
        bias_init=bias_init or nn.initializers.zeros,
    )


def pointwise(features, kernel_init, *, dtype):
    return nn.Dense(features, use_bias=False, dtype=dtype, kernel_init=kernel_init)


def average(x, kernel: int, stride: int):
    """Means of kernel x kernel positions: [b, h, w, c] -> [b, h', w', c], as slices (quick gradients on a CPU)."""
    for axis in (1, 2):
        span = (x.shape[axis] - kernel) // stride * stride + 1
        x = sum(jax.lax.slice_in_dim(x, i, i + span, stride, axis) for i in range(kernel)) / kernel
    return x


def near_identity(key, shape, dtype=jnp.float32):
    """1 on the diagonal, elsewhere uniform within 0.01."""
    noise = jax.random.uniform(key, shape, dtype, -0.01, 0.01)
    return jnp.where(jnp.eye(shape[0], shape[1], dtype=bool), 1, noise)
