"""CPC's networks: an encoder of patches without batch statistics, a context that sees what is above, a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxcl.nets.conv import as_in_torch
from jaxcl.nets.net import from_linen
from jaxcl.nets.norm import map_norm
from jaxcl.typing import Net, Norm

fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def cpc_resnet(
    *,
    norm: Norm | None = None,
    blocks: Sequence[int] = (3, 4, 46, 3),
    features: int = 64,
    dtype: DTypeLike = jnp.float32,
) -> Net:
    """The residual encoder of CPC v2: patches [n, p, p, c] -> the maps of its stages.

    A ResNet of bottlenecks (7x7 stem with stride 2, 3x3 max pool with stride 2) whose third stage has 46 blocks of
    8 x `features` channels within and 64 x `features` without; the others are a ResNet-101's.

    blocks
        of three stages or four. (3, 4, 46): the ResNet-161 of Henaff et al. (arXiv:1905.09272, on model capacity),
        which has the first three stages of a ResNet-101 with the third enlarged: 303 million parameters in kernels,
        where SimCLR's table 6 counts 305 in all. (3, 4, 46, 3), the default: CPCResNet101 of PyTorch Lightning Bolts,
        with which Falcon and Cho (2020) ran it, a fourth stage of 2048 channels above.
    norm
        `map_norm()` if not given, over height, width and channels as there: no statistics of the batch, by which
        patches of one image could be recognized.
    """
    if len(blocks) not in (3, 4):
        raise ValueError(f"cpc_resnet has three stages or four; got blocks={tuple(blocks)}.")
    return from_linen(CPCResNet(norm or map_norm(), tuple(blocks), features, dtype))


def masked_context(
    *,
    hidden: int = 256,
    blocks: int = 5,
    top: float = 1.0,
    sides: str = "late",
    initialization: str = "lecun",
    dtype: DTypeLike = jnp.float32,
) -> Net:
    """A grid of patches -> what is known above: [b, h, w, c] -> [b, h, w, c], where row r sees rows r - blocks to r.

    Residual blocks of a 1x1 convolution to `hidden` channels, ReLU, 1x3, 2x1 over the row itself and the one above,
    ReLU, and 1x1 back to c; a ReLU at the end. The grid must be three columns wide at least.

    top
        what stands above the first row, in each block. 1 in PyTorch Lightning Bolts, with which Falcon and Cho (2020)
        ran CPC v2; 0 in the pseudo-code of Henaff et al. (appendix).
    sides
        where the grid is padded with zeros. "late": the 1x3 convolution has no padding, so its two outermost columns
        are left out, and zeros stand for them before the 2x1 (Bolts). "early": the 1x3 convolution is padded to the
        grid's width (the pseudo-code, whose Conv2D pads but where it says otherwise).
    initialization
        "lecun" or "torch" (Bolts), as in `mlp_head`.

    As published: `masked_context(top=0.0, sides="early")`.
    """
    if sides not in ("early", "late"):
        raise ValueError(
            f'sides, where the grid is padded with zeros, must be "early" or "late"; got sides={sides!r}.'
        )
    if initialization not in ("lecun", "torch"):
        raise ValueError(f'masked_context\'s initialization is "lecun" or "torch"; got {initialization!r}.')
    return from_linen(MaskedContext(hidden, blocks, top, sides, dtype, initialization))


def residual_classifier(
    *, classes: int, norm: Norm, blocks: int = 11, inner: int | None = None, dtype: DTypeLike = jnp.float32
) -> Net:
    """A classifier of grids: [b, h, w, c] -> logits [b, classes].

        `blocks` bottlenecks of c channels, `inner` within > mean over the grid > dense

    CPC v2's for few labels (Henaff et al., arXiv:1905.09272, "efficient classification"): 11 blocks of 4096 channels,
    1024 within, which is a quarter (None). No stride; zero padding; the dense layer starts at 0, so that
    at first all classes are equally likely. Those last three are ours.
    """
    if blocks < 1 or classes < 2 or (inner is not None and inner < 1):
        raise ValueError(
            "residual_classifier needs a block and an inner channel at least, and two classes; got"
            f" blocks={blocks}, inner={inner}, classes={classes}."
        )
    return from_linen(ResidualClassifier(classes, norm, blocks, inner, dtype))


class CPCResNet(nn.Module):
    """The module behind `cpc_resnet`."""

    norm: Norm
    blocks: tuple[int, ...]
    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = nn.relu(self.norm()(convolution(self.features, 7, 2, self.dtype)(x), train=train))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        maps = []
        widths = ((1, 4), (2, 8), (8, 64), (8, 32))  # within a block, and what leaves it, times `features`
        for stage, (count, (inner, outer)) in enumerate(zip(self.blocks, widths, strict=False)):
            for i in range(count):
                stride = 2 if stage and not i else 1
                block = Bottleneck(
                    inner * self.features, outer * self.features, stride, self.norm, self.dtype
                )
                x = block(x, train=train)
            maps.append(x)
        return tuple(maps)


class Bottleneck(nn.Module):
    """relu(shortcut + 1x1, 3x3, 1x1), each with its norm."""

    inner: int
    outer: int
    stride: int
    norm: Norm
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x, *, train: bool):
        conv = partial(convolution, dtype=self.dtype)
        y = nn.relu(self.norm()(conv(self.inner, 1, 1)(x), train=train))
        y = nn.relu(self.norm()(conv(self.inner, 3, self.stride)(y), train=train))
        y = self.norm()(conv(self.outer, 1, 1)(y), train=train)
        if self.stride != 1 or x.shape[-1] != self.outer:
            x = self.norm()(conv(self.outer, 1, self.stride)(x), train=train)
        return nn.relu(x + y)


class MaskedContext(nn.Module):
    """The module behind `masked_context`."""

    hidden: int
    blocks: int
    top: float
    sides: str
    dtype: DTypeLike
    initialization: str = "lecun"

    @nn.compact
    def __call__(self, x, *, train: bool):
        if x.shape[2] < 3:
            raise ValueError(f"masked_context needs a grid of three columns or more; got {x.shape[1:3]}.")

        def starts(fan_in):
            if self.initialization == "lecun":
                return {}
            return {"kernel_init": as_in_torch(fan_in), "bias_init": as_in_torch(fan_in)}

        def conv(kernel):
            start = starts(kernel[0] * kernel[1] * self.hidden)
            return nn.Conv(self.hidden, kernel, padding="VALID", dtype=self.dtype, **start)

        for _ in range(self.blocks):
            y = nn.relu(nn.Dense(self.hidden, dtype=self.dtype, **starts(x.shape[-1]))(x))
            sides = ((0, 0), (0, 0), (1, 1), (0, 0))
            y = jnp.pad(y, sides) if self.sides == "early" else y
            y = conv((1, 3))(y)
            y = jnp.pad(y, ((0, 0), (1, 0), (0, 0), (0, 0)), constant_values=self.top)
            y = jnp.pad(y, sides) if self.sides == "late" else y
            y = nn.relu(conv((2, 1))(y))
            x = x + nn.Dense(x.shape[-1], dtype=self.dtype, **starts(self.hidden))(y)
        return nn.relu(x)


class ResidualClassifier(nn.Module):
    """The module behind `residual_classifier`."""

    classes: int
    norm: Norm
    blocks: int
    inner: int | None
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x, *, train: bool):
        c = x.shape[-1]
        for _ in range(self.blocks):
            x = Bottleneck(self.inner or max(1, c // 4), c, 1, self.norm, self.dtype)(x, train=train)
        pooled = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return nn.Dense(self.classes, kernel_init=nn.initializers.zeros)(pooled)


def convolution(features, kernel, stride, dtype):
    pad = (kernel - 1) // 2
    return nn.Conv(
        features,
        (kernel, kernel),
        stride,
        padding=((pad, pad), (pad, pad)),
        use_bias=False,
        dtype=dtype,
        kernel_init=fan_out,
    )
