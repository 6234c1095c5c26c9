"""The ResNets that SimCLRv2's authors trained (google-research/simclr), by the names of their conversion to PyTorch
(Separius/SimCLRv2-Pytorch, resnet.py): depth 50, 101 or 152, any width, with selective kernels or without.

    net.0.*                                      the stem: 0, or with selective kernels 0, 1.0, 2, 3.0, 4; then its norm
    net.{1..4}.blocks.{block}.net.*              0, 1.0, 2, 3.0, 4, 5.0; with selective kernels 2 is
                                                 main_conv.{0, 1.0}, mixing_conv.{0, 1.0, 2}, and 3, 4.0 follow
    net.{1..4}.blocks.0.projection.shortcut, .projection.bn.0
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jaxcl.nets.resnet import ResNet
from jaxcl.nets.torchvision import Array, kernel, norm

ANCHOR = "net.1.blocks.0.net.0.weight"


def simclr_v2_names(module: ResNet, params: Mapping[str, Any]) -> Iterator[Array]:
    """The arrays of such a network by those names. Raises ValueError for one that was not converted."""
    if not module.bottleneck or module.stem != "imagenet" or module.excite:
        raise ValueError(
            'SimCLRv2\'s networks are of depth 50 and more, with the "imagenet" stem and without excite.'
        )
    if (module.variant == "d") != bool(module.selective):
        raise ValueError(
            'SimCLRv2\'s networks have variant="d" with selective kernels, and variant="plain" without.'
        )
    if module.selective:
        for k in (1, 2):
            yield kernel((f"stem_{k}",), f"net.0.{2 * k - 2}")
            yield from norm((f"stem_norm_{k}",), f"net.0.{2 * k - 1}.0")
    last = 4 if module.selective else 0
    yield kernel(("stem",), f"net.0.{last}")
    yield from norm(("stem_norm",), f"net.0.{last + 1}.0")
    for stage, blocks in enumerate(module.blocks, start=1):
        for i in range(blocks):
            ours, theirs = f"stage{stage}_block{i + 1}", f"net.{stage}.blocks.{i}"
            # Which convolution of ours stands where.
            places = {0: 0, 1: 3} if module.selective else {0: 0, 1: 2, 2: 4}
            for k, at in places.items():
                yield kernel((ours, f"Conv_{k}"), f"{theirs}.net.{at}")
                yield from norm((ours, f"BatchNorm_{k}"), f"{theirs}.net.{at + 1}.0")
            if module.selective:
                inside, there = (ours, "selective"), f"{theirs}.net.2"
                yield kernel((*inside, "both"), f"{there}.main_conv.0")
                yield from norm((*inside, "norm"), f"{there}.main_conv.1.0")
                yield kernel((*inside, "squeeze"), f"{there}.mixing_conv.0")
                yield from norm((*inside, "squeeze_norm"), f"{there}.mixing_conv.1.0")
                yield kernel((*inside, "select"), f"{there}.mixing_conv.2")
            if "shortcut" in params[ours]:
                # Behind two layers without arrays, which pad and average.
                place = ".2" if module.selective else ""
                yield kernel((ours, "shortcut"), f"{theirs}.projection.shortcut{place}")
                yield from norm((ours, "shortcut_norm"), f"{theirs}.projection.bn.0")
