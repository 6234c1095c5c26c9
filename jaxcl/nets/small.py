"""The small encoders that the configs for CPUs choose among."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from jaxcl.nets.convnet import conv_n, small_convnet
from jaxcl.nets.resnet import resnet
from jaxcl.nets.wide_resnet import wide_resnet
from jaxcl.typing import Net

# A word -> an encoder of 32-pixel images, to be given its norm and dtype. small_resnet18 has an eighth of the channels,
# wide_resnet is WRN-10-2.
SMALL: dict[str, Callable[..., Net]] = {
    "convnet": small_convnet,
    "conv_n": conv_n,
    "small_resnet18": partial(resnet, 18, stem="cifar", features=8),
    "resnet18": partial(resnet, 18, stem="cifar"),
    "wide_resnet": partial(wide_resnet, 10, width=2),
}
