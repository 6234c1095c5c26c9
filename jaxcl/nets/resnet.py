"""Residual networks (He, Zhang, Ren and Sun, 2015, arXiv:1512.03385), as SimCLR, MoCo and BYOL use them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxcl import collectives
from jaxcl.nets.channels import Excitation, SelectiveKernel
from jaxcl.nets.net import from_linen
from jaxcl.nets.norm import BatchNorm
from jaxcl.typing import Net, Norm

# depth -> (blocks in each stage, whether they are bottlenecks)
DEPTHS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
    200: ((3, 24, 36, 3), True),
}
STEMS = ("cifar", "imagenet")
VARIANTS = ("plain", "d")
# How the max pool of the "imagenet" stem is padded.
POOLS = {"same": "SAME", "torch": ((1, 1), (1, 1))}
# Which shortcuts have a convolution.
SHORTCUTS = ("where_needed", "of_every_stage")
# initialization -> how kernels are drawn, and that of the "cifar" stem
LECUN = nn.initializers.lecun_normal()
# A normal of variance 1 / (fan in) has this part of it left when it is cut at two standard deviations.
HAIKU = nn.initializers.variance_scaling(0.87962566103423978**2, "fan_in", "truncated_normal")
KERNELS = {
    "lecun": (LECUN, LECUN),
    "haiku": (HAIKU, HAIKU),
    "torch": (
        nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
    ),
}


def resnet(
    depth: int,
    *,
    stem: str,
    norm: Norm,
    width: int = 1,
    features: int = 64,
    inner: int = 1,
    groups: int = 1,
    stages: int = 4,
    dtype: DTypeLike = jnp.float32,
    zero_init_last_gamma: bool = True,
    initialization: str = "lecun",
    variant: str = "plain",
    selective: float = 0,
    excite: float = 0,
    pool: str = "same",
    shortcuts: str = "where_needed",
    stem_features: int | None = None,
) -> Net:
    """ResNet-18, 34, 50, 101, 152 or 200: images [b, h, w, c] -> the outputs of its four stages.

    stem
        "cifar": one 3x3 convolution, for images of up to 64 pixels: maps [b, h, w, 64 m], [b, h/2, w/2, 128
        m], [b, h/4, w/4, 256 m], [b, h/8, w/8, 512 m]. "imagenet": 7x7 with stride 2 and a 3x3 max pool
        with stride 2; all maps are four times smaller. m is `width`, times 4 for the bottlenecks of depth
        50 and more.
    norm
        what the layers are normalized over, as `batch_norm(axis_name=axis_name)`.
    width
        multiplies all channels: 2 and 4 are the "2x" and "4x" of SimCLR's tables; with depth 34 and width 2 it is the
        Wide ResNet-34 that Zagoruyko and Komodakis (2016, arXiv:1605.07146) have for ImageNet.
    features
        channels of the first stage, before `width`; 16 makes a network for a CPU.
    stem_features
        channels of the stem; None: of the first stage, `features` times `width`. 64 with any `features` in CMC's code.
    inner, groups
        of bottlenecks (depth 50 and more): multiplies the channels of their 3x3 convolutions, and cuts these into
        groups. torchvision's wide_resnet50_2 has inner=2, its resnext50_32x4d inner=2 and groups=32, its
        resnext101_32x8d inner=4 and groups=32.
    stages
        how many of the four are there. What is left out may stand above it, as `resnet_stage`.
    dtype
        what is computed and returned, as jnp.bfloat16; parameters and batch statistics stay float32.
    zero_init_last_gamma
        every residual branch starts at zero (SimCLR, BYOL); MoCo's networks start at one.
    initialization
        "lecun": kernels with variance 1 / (fan in), truncated at two standard deviations, as SimCLR's code has them.
        "torch": as PyTorch code starts, normal with variance 2 / (fan out) as in torchvision, but the "cifar" stem,
        which such code puts in place of torchvision's, uniform within 1 / sqrt(fan in), PyTorch's own start. "haiku":
        as "lecun", but that what the cut takes of the variance, 23 %, is not made up for (BYOL's code).
    variant
        "d": ResNet-D (He et al. 2018, arXiv:1812.01187). The "imagenet" stem is three 3x3 convolutions, the first with
        stride 2 and of half the channels as the second; a shortcut of stride 2 averages 2x2 positions, then has its
        1x1 convolution with stride 1.
    selective
        more than 0: selective kernels in place of the 3x3 convolutions of bottlenecks (depth 50 and more), whose
        weights come from max(channels * selective, 32) channels. SimCLRv2's "SK" networks (arXiv:2006.10029, table 1)
        have 0.0625, and with it variant="d", whose shortcuts then average at stride 1 too, as that code's do.
    excite
        more than 0: squeeze-and-excitation at the end of every branch, with max(1, inner channels * excite) channels
        between; SimCLRv2's code calls it se_ratio.

    pool
        how the max pool of the "imagenet" stem is padded: "same", below and right of images of even sizes, as in
        SimCLR's code; "torch", all around, as torchvision's (MoCo), which is a shift by a pixel.

    shortcuts
        "where_needed": a shortcut has a convolution only where the shape changes (torchvision). "of_every_stage": in
        every stage's first block (SimCLR's and BYOL's code), which is another network for depths 18 and 34 alone, whose
        first stage changes no shape.

    The stride of a bottleneck is on its 3x3 convolution ("v1.5"). Strided convolutions are padded by the same
    amount on both sides, whatever the image's size.
    """
    if depth not in DEPTHS:
        raise ValueError(f"resnet comes in depths {', '.join(map(str, DEPTHS))}; got {depth}.")
    if stem not in STEMS:
        raise ValueError(f'resnet\'s stem is "cifar" (small images) or "imagenet"; got {stem!r}.')
    if pool not in POOLS:
        raise ValueError(f'resnet\'s max pool is padded as "same" or "torch"; got {pool!r}.')
    if shortcuts not in SHORTCUTS:
        raise ValueError(f'shortcuts are "where_needed" or "of_every_stage"; got {shortcuts!r}.')
    if width < 1:
        raise ValueError(f"resnet's width multiplies its channels and must be at least 1; got {width}.")
    if stem_features is not None and stem_features < 1:
        raise ValueError(f"resnet's stem has at least one channel; got stem_features={stem_features}.")
    if not 1 <= stages <= 4:
        raise ValueError(f"a resnet has one to four stages; got stages={stages}.")
    blocks, bottleneck = DEPTHS[depth]
    check_bottlenecks(depth, features * inner, inner, groups)
    check_initialization(initialization)
    check_variant(depth, variant, selective, excite, groups)
    return from_linen(
        ResNet(
            blocks[:stages],
            bottleneck,
            stem,
            norm,
            width,
            features,
            inner,
            groups,
            dtype,
            zero_init_last_gamma,
            initialization,
            "d" if selective else variant,
            selective,
            excite,
            pool,
            shortcuts,
            stem_features,
        )
    )


def resnet_stage(
    depth: int,
    *,
    norm: Norm,
    stage: int = 4,
    width: int = 1,
    features: int = 64,
    inner: int = 1,
    groups: int = 1,
    dtype: DTypeLike = jnp.float32,
    zero_init_last_gamma: bool = True,
    initialization: str = "lecun",
    variant: str = "plain",
    selective: float = 0,
    excite: float = 0,
) -> Net:
    """One stage of a ResNet alone: the map [b, h, w, c] of the stage before -> (its own map,).

    `resnet(..., stages=3)` and `resnet_stage(...)` on its last map are `resnet(...)`. The fourth stage is what papers
    call conv5; LooC++ gives every space one of its own. Arguments as in `resnet`.
    """
    if depth not in DEPTHS:
        raise ValueError(f"resnet_stage comes in depths {', '.join(map(str, DEPTHS))}; got {depth}.")
    if not 1 <= stage <= 4:
        raise ValueError(f"a resnet has the stages 1 to 4; got stage={stage}.")
    blocks, bottleneck = DEPTHS[depth]
    check_bottlenecks(depth, features * inner, inner, groups)
    check_initialization(initialization)
    check_variant(depth, variant, selective, excite, groups)
    return from_linen(
        Stage(
            stage,
            blocks[stage - 1],
            bottleneck,
            norm,
            width,
            features,
            inner,
            groups,
            dtype,
            zero_init_last_gamma,
            initialization,
            "d" if selective else variant,
            selective,
            excite,
        )
    )


def check_bottlenecks(depth, channels, inner, groups):
    if (inner, groups) != (1, 1) and not DEPTHS[depth][1]:
        raise ValueError(
            f"inner and groups need bottlenecks, which a ResNet-{depth} does not have; got inner={inner},"
            f" groups={groups}. For a wider one: width."
        )
    if groups < 1 or channels < 1 or channels % groups:
        raise ValueError(
            f"groups must divide the {channels} inner channels of the first stage; got {groups}."
        )


def check_initialization(name):
    if name not in KERNELS:
        raise ValueError(f'a resnet\'s initialization is "lecun", "torch" or "haiku"; got {name!r}.')


def check_variant(depth, variant, selective, excite, groups):
    if variant not in VARIANTS:
        raise ValueError(f'a resnet\'s variant is "plain" or "d" (ResNet-D); got {variant!r}.')
    for name, ratio in (("selective", selective), ("excite", excite)):
        if not 0 <= ratio <= 1:
            raise ValueError(f"{name} is a fraction of the channels, within 0 (without) and 1; got {ratio}.")
    if selective and not DEPTHS[depth][1]:
        raise ValueError(
            f"Selective kernels need bottlenecks, which a ResNet-{depth} does not have; got selective={selective}."
            " Choose depth 50 or more."
        )
    if selective and groups != 1:
        raise ValueError(f"Selective kernels need groups=1; got groups={groups}.")


class Conv(nn.Module):
    """A convolution without bias, padded symmetrically."""

    features: int
    kernel: int
    stride: int = 1
    dtype: DTypeLike = jnp.float32
    groups: int = 1
    kernel_init: Callable[..., Any] = LECUN

    @nn.compact
    def __call__(self, x, *, only_kernel=False):
        pad = (self.kernel - 1) // 2
        shape = (self.kernel, self.kernel, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        if only_kernel:
            return kernel
        return jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            window_strides=(self.stride, self.stride),
            padding=((pad, pad), (pad, pad)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=self.groups,
        )


class Block(nn.Module):
    """relu(shortcut + branch): two 3x3 convolutions, or the 1x1, 3x3, 1x1 of a bottleneck."""

    features: int
    stride: int
    bottleneck: bool
    norm: Norm
    dtype: DTypeLike
    zero_init_last_gamma: bool
    inner: int = 1
    groups: int = 1
    initialization: str = "lecun"
    variant: str = "plain"
    selective: float = 0
    excite: float = 0
    project: bool = False

    @nn.compact
    def __call__(self, x, *, train: bool):
        kernel_init, _ = KERNELS[self.initialization]

        def conv(features, kernel, stride=1, name=None, groups=1):
            return Conv(features, kernel, stride, self.dtype, groups, kernel_init, name=name)

        last = nn.initializers.zeros if self.zero_init_last_gamma else nn.initializers.ones
        out = 4 * self.features if self.bottleneck else self.features
        if self.bottleneck:
            wide = self.features * self.inner
            y = nn.relu(self.norm()(conv(wide, 1)(x), train=train))
            if self.selective:
                kernels = SelectiveKernel(
                    conv, self.norm, wide, self.stride, self.selective, name="selective"
                )
                y = kernels(y, train=train)
            else:
                y = nn.relu(self.norm()(conv(wide, 3, self.stride, groups=self.groups)(y), train=train))
            y = widened(conv(out, 1), self.norm(scale_init=last), y, train=train)
        else:
            y = nn.relu(self.norm()(conv(self.features, 3, self.stride)(x), train=train))
            y = self.norm(scale_init=last)(conv(out, 3)(y), train=train)
        if self.excite:
            squeezed = max(1, int(self.features * self.excite))
            y = Excitation(squeezed, self.dtype, kernel_init, name="excitation")(y)
        if x.shape[-1] != out or self.stride != 1 or self.project:
            stride = self.stride
            if self.variant == "d" and (stride > 1 or self.selective):
                x, stride = averaged(x, stride), 1
            x = widened(conv(out, 1, stride, "shortcut"), self.norm(name="shortcut_norm"), x, train=train)
        return nn.relu(x + y)


def widened(conv, norm, x, *, train):
    """norm(conv(x)) of a 1x1 convolution to four times the channels.

    In bfloat16 on a TPU, whose step waits for memory, the norm is given the kernel, and the convolution's output is
    written once, normalized. Not in float32: a TPU rounds what goes into a product, so the moments of x w by products
    would not be those of x w. On a GPU it would save as much memory, and what it does to the time was not measured.
    """
    saves = conv.stride == 1 and conv.features >= 4 * x.shape[-1] and isinstance(norm, BatchNorm)
    if saves and train and conv.dtype == jnp.bfloat16 and collectives.target().platform == "tpu":
        return norm(x.astype(conv.dtype), train=train, kernel=conv(x, only_kernel=True))
    return norm(conv(x), train=train)


def averaged(x, stride):
    """The mean of 2x2 positions, every `stride`: [b, h, w, c] -> [b, ceil(h / stride), ceil(w / stride), c].

    Beyond the last row and column are zeros, and at stride 1 nothing at all: the mean is then of what is there.
    """
    return nn.avg_pool(x, (2, 2), (stride, stride), ((0, 1), (0, 1)), count_include_pad=stride > 1)


class ResNet(nn.Module):
    """The module behind `resnet`."""

    blocks: tuple[int, ...]
    bottleneck: bool
    stem: str
    norm: Norm
    width: int = 1
    features: int = 64
    inner: int = 1
    groups: int = 1
    dtype: DTypeLike = jnp.float32
    zero_init_last_gamma: bool = True
    initialization: str = "lecun"
    variant: str = "plain"
    selective: float = 0
    excite: float = 0
    pool: str = "same"
    shortcuts: str = "where_needed"
    stem_features: int | None = None

    @nn.compact
    def __call__(self, x, *, train: bool):
        kernel_init = KERNELS[self.initialization][self.stem == "cifar"]

        def conv(channels, kernel, stride, name):
            return Conv(channels, kernel, stride, self.dtype, kernel_init=kernel_init, name=name)

        channels = self.stem_features or self.features * self.width
        if self.stem == "cifar":
            x = conv(channels, 3, 1, "stem")(x)
        elif self.variant == "d":
            for number, stride in ((1, 2), (2, 1)):
                x = conv(channels // 2, 3, stride, f"stem_{number}")(x)
                x = nn.relu(self.norm(name=f"stem_norm_{number}")(x, train=train))
            x = conv(channels, 3, 1, "stem")(x)
        else:
            x = conv(channels, 7, 2, "stem")(x)
        norm = self.norm(name="stem_norm")
        if self.stem == "imagenet" and isinstance(norm, BatchNorm):
            # What relu leaves is the largest of what the norm does, so the norm may pool: a quarter of the stem's map
            # goes through memory in place of all of it, several times in each pass.
            x = nn.relu(norm(x, train=train, pool=self.max_pool))
        else:
            x = nn.relu(norm(x, train=train))
            x = self.max_pool(x) if self.stem == "imagenet" else x
        maps = []
        for stage, count in enumerate(self.blocks, start=1):
            project = self.shortcuts == "of_every_stage"
            x = stage_of_blocks(self, stage, count, x, train=train, project=project)
            maps.append(x)
        return tuple(maps)

    def max_pool(self, x):
        return nn.max_pool(x, (3, 3), (2, 2), POOLS[self.pool])


class Stage(nn.Module):
    """The module behind `resnet_stage`."""

    stage: int
    blocks: int
    bottleneck: bool
    norm: Norm
    width: int = 1
    features: int = 64
    inner: int = 1
    groups: int = 1
    dtype: DTypeLike = jnp.float32
    zero_init_last_gamma: bool = True
    initialization: str = "lecun"
    variant: str = "plain"
    selective: float = 0
    excite: float = 0

    @nn.compact
    def __call__(self, x, *, train: bool):
        return (stage_of_blocks(self, self.stage, self.blocks, x, train=train),)


def stage_of_blocks(net, stage, count, x, *, train, project=False):
    """The blocks of one stage; called inside of `net`, whose settings they have. With `project` the first has a
    convolution on its shortcut, whatever the shape."""
    for i in range(count):
        block = Block(
            features=net.features * net.width * 2 ** (stage - 1),
            stride=2 if i == 0 and stage > 1 else 1,
            bottleneck=net.bottleneck,
            norm=net.norm,
            dtype=net.dtype,
            zero_init_last_gamma=net.zero_init_last_gamma,
            inner=net.inner,
            groups=net.groups,
            initialization=net.initialization,
            variant=net.variant,
            selective=net.selective,
            excite=net.excite,
            project=project and i == 0,
            name=f"stage{stage}_block{i + 1}",
        )
        x = block(x, train=train)
    return x
