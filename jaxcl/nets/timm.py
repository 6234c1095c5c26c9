"""A ResNet in timm, which has what torchvision has and more: ResNet-D, squeeze-and-excitation, selective kernels.

The arrays' names are those of `nets.torchvision.names`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxcl.nets.channels import FEWEST, squeezed
from jaxcl.nets.resnet import DEPTHS, ResNet
from jaxcl.nets.torchvision import deep, others, stem_in_torch

# (inner, groups, depth) -> timm's name; of ResNeXt and of wide networks
NAMED = {
    (2, 1, 50): "wide_resnet50_2",
    (2, 1, 101): "wide_resnet101_2",
    (2, 32, 50): "resnext50_32x4d",
    (4, 32, 101): "resnext101_32x8d",
}


def check_timm(module: Any) -> ResNet:
    """The module of a `resnet` that timm can make as well, but for its stem and its padding.

    Raises ValueError, with what it has that timm's lacks.
    """
    other = others("timm", module)
    channels = module.features * module.width
    if channels != 64 and not deep(module):
        other.append(f"{channels} channels in its first stage behind a stem of one convolution")
    if channels % 2:
        other.append(f"{channels} channels in its first stage")
    stages = [channels * 2**stage for stage in range(len(module.blocks))]
    if module.excite and any(
        max(1, int(c * module.excite)) != max(1, int(c * module.excite + 0.5)) for c in stages
    ):
        other.append(f"excite={module.excite}, whose channels are no whole numbers and are rounded down here")
    if module.selective:
        inner = [c * module.inner for c in stages]
        if any(squeezed(c, module.selective) != squeezed_by_timm(c, module.selective) for c in inner):
            other.append(
                f"selective={module.selective}, whose channels are rounded to multiples of {FEWEST} there"
            )
    if other:
        raise ValueError(f"timm's ResNets have no {', no '.join(other)}, so this one cannot be made there.")
    return module


def squeezed_by_timm(channels: int, ratio: float) -> int:
    """timm's make_divisible(channels * ratio, 32)."""
    v = channels * ratio
    new = max(FEWEST, int(v + FEWEST / 2) // FEWEST * FEWEST)
    return new + FEWEST if new < 0.9 * v else new


def in_timm(module: ResNet, *, channels: int = 3) -> list[str]:
    """Lines of Python that make the same network with timm, up to its last average: [b, channels, h, w] -> [b, d]."""
    name = name_in_timm(module)
    chans = f", in_chans={channels}" * (channels != 3)
    if name:
        lines = ["import timm, torch", f"model = timm.create_model({name!r}, num_classes=0{chans}).eval()"]
    else:
        lines = _made_by_its_class(module, chans)
    lines += stem_in_torch(module, channels=channels, takes=channels)
    if module.variant == "d":
        # timm's means leave out what is beyond the edge.
        lines += [
            "for stage in (model.layer2, model.layer3, model.layer4):",
            "    pad = torch.nn.ZeroPad2d((0, 1, 0, 1))",
            "    stage[0].downsample[0] = torch.nn.Sequential(pad, torch.nn.AvgPool2d(2))",
        ]
    if module.selective:
        # The mean of what is there of 2x2 positions is that of the last row and column repeated.
        lines += [
            "pad = torch.nn.ReplicationPad2d((0, 1, 0, 1))",
            "model.layer1[0].downsample[0] = torch.nn.Sequential(pad, torch.nn.AvgPool2d(2, 1))",
        ]
    return lines


def name_in_timm(module: ResNet) -> str | None:
    """What timm calls such a network, whatever its stem; None where it has no name there."""
    depth = next((d for d, made in DEPTHS.items() if made == (module.blocks, module.bottleneck)), None)
    if depth is None or module.features * module.width != 64 or module.selective:
        return None
    d = module.variant == "d"
    if d and module.stem != "imagenet":  # its stem would be another
        return None
    if module.excite:
        common = module.excite == 0.25 and (module.inner, module.groups) == (1, 1) and not d
        return f"seresnet{depth}" if common and depth in (50, 101, 152) else None
    if (module.inner, module.groups) == (1, 1):
        return f"resnet{depth}{'d' * d}"
    return None if d else NAMED.get((module.inner, module.groups, depth))


def _made_by_its_class(module: ResNet, chans: str) -> list[str]:
    kind = "Bottleneck" if module.bottleneck else "BasicBlock"
    channels = module.features * module.width
    imports, block, given = ["from functools import partial", "import timm, torch"], kind, []
    settings = ["num_classes=0" + chans]
    if module.selective:
        imports.append("from timm.models.sknet import SelectiveKernelBottleneck")
        block = "SelectiveKernelBottleneck"
        # Both kernels are 3x3 and see all channels, as in SimCLRv2.
        given.append(
            f"sk_kwargs=dict(kernel_size=3, split_input=False, rd_ratio={module.selective}, rd_divisor={FEWEST})"
        )
    else:
        imports.append(f"from timm.models.resnet import {kind}")
    if module.excite:
        imports.append("from timm.layers import SEModule")
        ratio = module.excite / (4 if module.bottleneck else 1)
        given.append(f"attn_layer=partial(SEModule, rd_ratio={ratio}, rd_divisor=1)")
    if (module.inner, module.groups) != (1, 1):
        settings.append(f"cardinality={module.groups}, base_width={64 * module.inner // module.groups}")
    if module.variant == "d":
        settings.append("avg_down=True")
    if deep(module):
        settings.append(f"stem_type='deep', stem_width={channels // 2}")
    if channels != 64:
        settings.append(f"channels={tuple(channels * 2**stage for stage in range(4))}")
    if given:
        settings.append(f"block_args=dict({', '.join(given)})")
    return [
        *imports,
        f"model = timm.models.resnet.ResNet({block}, {list(module.blocks)}, {', '.join(settings)}).eval()",
    ]


def check_file(module: ResNet, found: Mapping[str, Any], about: Mapping[str, str]) -> None:
    """Raises ValueError where a file is of another kind of ResNet than the module, by the name of what differs.

    about
        what a file says of itself: "architecture", timm's name; "selective", where `in_timm` made of it what it is.
    """
    named = about.get("architecture", "")
    if "blur" in named or "aa" in named.replace("base", ""):
        raise ValueError(
            f"{named} has anti-aliasing before its strides, which nets.resnet has not. Take a network without."
        )
    kinds = {
        'the stem of three convolutions of ResNet-D (variant="d")': ("conv1.0.weight", deep(module)),
        "squeeze-and-excitation (excite)": ("layer1.0.se.fc1.weight", bool(module.excite)),
        "selective kernels (selective)": ("layer1.0.conv2.attn.fc_reduce.weight", bool(module.selective)),
    }
    for what, (name, ours) in kinds.items():
        if (name in found) != ours:
            which = "the network of the file" if name in found else "the network of this config"
            raise ValueError(f"Only {which} has {what}; both must have the same parts.")
    if module.selective and about.get("selective") != "3x3 3x3":
        raise ValueError(
            "The second selective kernel of timm's networks is dilated, that of nets.resnet (SimCLRv2) is not, and the"
            " weights do not show which this file has. Only files of .safetensors by `jaxcl export --to timm` are"
            " accepted."
        )
