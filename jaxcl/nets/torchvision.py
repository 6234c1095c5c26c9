"""A ResNet's weights by the names and in the layouts of torchvision's (torchvision/models/resnet.py), which MoCo,
lightly, solo-learn, VISSL and timm share, below prefixes of their own.

    conv1, bn1, layer{1..4}.{block}.conv{1..3}, .bn{1..3}, .downsample.{0, 1}        kernels [out, in / groups, h, w]

timm has names for more (timm/models/resnet.py, sknet.py, layers/squeeze_excite.py, layers/selective_kernel.py):

    conv1.{0, 3, 6}, conv1.{1, 4}         the stem of ResNet-D, and its first two norms
    downsample.{1, 2}                     a shortcut that averages first
    se.fc1, se.fc2                        squeeze-and-excitation
    conv{1, 3}.{conv, bn}, conv2.paths.{0, 1}.{conv, bn}, conv2.attn.{fc_reduce, bn, fc_select}     selective kernels

The stride of a bottleneck is on its 3x3 convolution there ("v1.5") as here; weights do not tell those of a network that
has it on the first ("v1", as in Caffe's).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxcl.nets.resnet import ResNet
from jaxcl.typing import PyTree

# Of our norms: the name of an array -> whether it is learnt, and torch's name.
NORM = {
    "scale": (True, "weight"),
    "bias": (True, "bias"),
    "mean": (False, "running_mean"),
    "var": (False, "running_var"),
}
# Copies that follow the encoder, in other people's files.
FOLLOWERS = ("momentum", "encoder_k", "target", "teacher", "ema")
# Where the network is an nn.Sequential of torchvision's children (lightly): number -> name.
CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def check_torchvision(module: Any) -> ResNet:
    """The module of a `resnet` that torchvision has as well, but for its stem.

    Raises ValueError, with what it has that torchvision's lacks.
    """
    other = others("torchvision", module)
    other += [f"variant={module.variant!r}"] * (module.variant != "plain")
    other += [f"selective={module.selective}"] * bool(module.selective)
    other += [f"excite={module.excite}"] * bool(module.excite)
    if module.features * module.width != 64:
        other.append(f"{module.features * module.width} channels in its first stage")
    if other:
        raise ValueError(
            f"torchvision's ResNets have no {', no '.join(other)}, so this network has no counterpart there."
        )
    return module


def others(library: str, module: Any) -> list[str]:
    """What a module has that no ResNet of a library of PyTorch has. Raises ValueError where it is none at all."""
    if not isinstance(module, ResNet):
        raise ValueError(f"Only a `nets.resnet` has {library}'s names; got {type(module).__name__}.")
    given: Any = module.norm
    norm = getattr(given, "func", given)
    other = []
    if getattr(norm, "__name__", "") != "BatchNorm":
        other.append(f"the norm {getattr(norm, '__name__', norm)}")
    elif given.keywords.get("epsilon", 1e-5) != 1e-5:
        other.append(f"batch norm with epsilon={given.keywords['epsilon']}")
    if module.shortcuts == "of_every_stage" and not module.bottleneck:
        other.append("convolution on the shortcut of the first stage")
    return other + [f"stages={len(module.blocks)}"] * (len(module.blocks) != 4)


def check_named(module: Any) -> ResNet:
    """The module of a `resnet` whose arrays have names here, whatever its width. Raises ValueError as others do."""
    if other := others("torchvision", module):
        raise ValueError(
            f"ResNets of PyTorch's libraries have no {', no '.join(other)}, so the weights of this one have no names"
            " there."
        )
    return module


def in_torch(module: ResNet, *, channels: int = 3) -> list[str]:
    """Lines of Python that make the same network with torchvision, up to its last average: [b, channels, h, w] -> [b,
    d]."""
    kind = "Bottleneck" if module.bottleneck else "BasicBlock"
    more = ""
    if (module.inner, module.groups) != (1, 1):
        more = f", groups={module.groups}, width_per_group={64 * module.inner // module.groups}"
    return [
        "import torch, torchvision",
        "from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet",
        f"model = ResNet({kind}, {list(module.blocks)}{more}).eval()",
        "model.fc = torch.nn.Identity()",
        *stem_in_torch(module, channels=channels),
    ]


def stem_in_torch(module: ResNet, *, channels: int = 3, takes: int = 3) -> list[str]:
    """Lines that make of the stem of `model`, of torchvision or of timm, what that of the module is.

    takes
        channels of the images that `model` takes as it is.
    """
    lines = []
    if module.stem == "cifar":
        lines += [
            f"model.conv1 = torch.nn.Conv2d({channels}, 64, 3, 1, 1, bias=False)",
            "model.maxpool = torch.nn.Identity()",
        ]
    elif channels != takes:
        lines.append(f"model.conv1 = torch.nn.Conv2d({channels}, 64, 7, 2, 3, bias=False)")
    if module.stem == "imagenet" and module.pool == "same":
        # What is pooled is not negative, so zeros count as nothing; of even sizes.
        lines.append(
            "model.maxpool = torch.nn.Sequential(torch.nn.ZeroPad2d((0, 1, 0, 1)), torch.nn.MaxPool2d(3, 2))"
        )
    return lines


class Array(NamedTuple):
    """An array of a ResNet and its name elsewhere.

    ours      modules of ours, one in the other, and the array's name
    learnt    whether it is a parameter, and no statistic
    theirs    its name there; several where its output channels are those of several arrays, one after the other
    """

    ours: tuple[str, ...]
    learnt: bool
    theirs: tuple[str, ...]


# (module, parameters) -> its arrays
Names = Callable[[ResNet, Mapping[str, Any]], Iterator[Array]]


def kernel(path: tuple[str, ...], *theirs: str) -> Array:
    return Array((*path, "kernel"), True, tuple(f"{name}.weight" for name in theirs))


def norm(path: tuple[str, ...], *theirs: str) -> Iterator[Array]:
    for ours, (learnt, torch) in NORM.items():
        yield Array((*path, ours), learnt, tuple(f"{name}.{torch}" for name in theirs))


def deep(module: ResNet) -> bool:
    """Whether its stem is three convolutions."""
    return module.variant == "d" and module.stem == "imagenet"


def names(module: ResNet, params: Mapping[str, Any]) -> Iterator[Array]:
    """The arrays of such a network by torchvision's names, and timm's."""
    for k in (1, 2) if deep(module) else ():
        yield kernel((f"stem_{k}",), f"conv1.{3 * k - 3}")
        yield from norm((f"stem_norm_{k}",), f"conv1.{3 * k - 2}")
    yield kernel(("stem",), "conv1.6" if deep(module) else "conv1")
    yield from norm(("stem_norm",), "bn1")
    # Behind a mean of positions, which has a number but no array.
    shortcut = (1, 2) if module.variant == "d" else (0, 1)
    for stage, blocks in enumerate(module.blocks, start=1):
        for i in range(blocks):
            ours, theirs = f"stage{stage}_block{i + 1}", f"layer{stage}.{i}"
            if module.selective:
                yield from selective(ours, theirs)
            else:
                for k in range(3 if module.bottleneck else 2):
                    yield kernel((ours, f"Conv_{k}"), f"{theirs}.conv{k + 1}")
                    yield from norm((ours, f"BatchNorm_{k}"), f"{theirs}.bn{k + 1}")
            if module.excite:
                for own, other in (("squeeze", "fc1"), ("excite", "fc2")):
                    yield kernel((ours, "excitation", own), f"{theirs}.se.{other}")
                    yield Array((ours, "excitation", own, "bias"), True, (f"{theirs}.se.{other}.bias",))
            if "shortcut" in params[ours]:
                yield kernel((ours, "shortcut"), f"{theirs}.downsample.{shortcut[0]}")
                yield from norm((ours, "shortcut_norm"), f"{theirs}.downsample.{shortcut[1]}")


def selective(ours: str, theirs: str) -> Iterator[Array]:
    """The arrays of a block with selective kernels, whose first two convolutions are one of ours."""
    for k, number in ((0, 1), (1, 3)):
        yield kernel((ours, f"Conv_{k}"), f"{theirs}.conv{number}.conv")
        yield from norm((ours, f"BatchNorm_{k}"), f"{theirs}.conv{number}.bn")
    inside, there = (ours, "selective"), f"{theirs}.conv2"
    paths = f"{there}.paths.0", f"{there}.paths.1"
    yield kernel((*inside, "both"), *(f"{path}.conv" for path in paths))
    yield from norm((*inside, "norm"), *(f"{path}.bn" for path in paths))
    yield kernel((*inside, "squeeze"), f"{there}.attn.fc_reduce")
    yield from norm((*inside, "squeeze_norm"), f"{there}.attn.bn")
    yield kernel((*inside, "select"), f"{there}.attn.fc_select")


def to_torchvision(module: ResNet, params: PyTree, state: PyTree) -> dict[str, np.ndarray]:
    """The parameters and batch statistics of a `resnet` -> torchvision's (or timm's) state_dict, without its
    classifier."""
    check_named(module)
    made = {}
    for array in names(module, params):
        x = np.array(array_of(params if array.learnt else state["batch_stats"], array.ours), np.float32)
        for name, part in zip(array.theirs, np.split(_in_torch(x), len(array.theirs)), strict=True):
            made[name] = np.ascontiguousarray(part)
    return made


def from_torchvision(
    module: ResNet,
    params: PyTree,
    state: PyTree,
    found: Mapping[str, np.ndarray],
    *,
    names: Names = names,
) -> tuple[PyTree, PyTree]:
    """The parameters and statistics of torchvision's names (or timm's, or what `names` says), in the form of `params`
    and `state`, a network's own.

    Raises ValueError for a name that is missing or too much (a classifier is left out), and for a shape that differs,
    with the first few.
    """
    check_named(module)
    new: tuple[dict, dict] = ({}, {})
    known = {name for array in names(module, params) for name in array.theirs}
    # Of a deeper network some blocks would be left over.
    wrong = [
        f"{name} is unknown to this network"
        for name in found
        if name not in known
        and re.match(r"layer\d|conv1|bn1|maxpool|net\.", name)
        and not name.endswith("num_batches_tracked")  # which torch counts
    ]
    for array in names(module, params):
        own = array_of(params if array.learnt else state["batch_stats"], array.ours)
        if missing := [name for name in array.theirs if name not in found]:
            wrong.append(f"{missing[0]} is missing")
            continue
        parts = [np.asarray(found[name]) for name in array.theirs]
        shape = _theirs(own.shape, len(parts))
        if other := [i for i, part in enumerate(parts) if list(part.shape) != shape]:
            wrong.append(f"{array.theirs[other[0]]} is {list(parts[other[0]].shape)}, expected {shape}")
            continue
        x = np.concatenate(parts)
        x = x.transpose(2, 3, 1, 0) if x.ndim == 4 else x
        into = new[0 if array.learnt else 1]
        for module_name in array.ours[:-1]:
            into = into.setdefault(module_name, {})
        into[array.ours[-1]] = np.ascontiguousarray(x.reshape(own.shape), np.float32)
    if wrong:
        raise ValueError(
            f"These are the weights of another network: {'; '.join(wrong[:4])}"
            + (f"; and {len(wrong) - 4} more" if len(wrong) > 4 else "")
            + ". Choose depth, width and stem as those of the file."
        )
    return new[0], {**state, "batch_stats": new[1]}


def array_of(tree: PyTree, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def _in_torch(x: np.ndarray) -> np.ndarray:
    """A kernel in PyTorch's layout; that of a dense layer as of a 1x1 convolution."""
    x = x[None, None] if x.ndim == 2 else x
    return x.transpose(3, 2, 0, 1) if x.ndim == 4 else x


def _theirs(shape: tuple[int, ...], parts: int) -> list[int]:
    """The shape in PyTorch of one of so many parts of an array."""
    shape = (1, 1, *shape) if len(shape) == 2 else shape
    shape = (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape
    return [shape[0] // parts, *shape[1:]]


def without_prefix(found: Mapping[str, np.ndarray]) -> tuple[str, dict[str, np.ndarray]]:
    """The arrays of the one ResNet in a file by torchvision's own names, and the prefix that they had there.

    torchvision and timm have none, MoCo "module.encoder_q.", solo-learn "backbone.", VISSL "...trunk._feature_blocks.";
    lightly's "backbone." counts the children: 0, 1, 4.0.conv1, ... . Networks that follow another are passed over.

    Raises ValueError where there is no ResNet, and where there are several.

    >>> some = dict.fromkeys(["module.encoder_q.conv1.weight", "module.encoder_q.layer1.0.conv1.weight"], 0)
    >>> some |= {name.replace("encoder_q", "encoder_k"): 1 for name in some}
    >>> without_prefix(some)
    ('module.encoder_q.', {'conv1.weight': 0, 'layer1.0.conv1.weight': 0})
    """
    named = _prefixes(found, r"layer1\.0\.conv1\.(?:conv\.)?weight", ("conv1.weight", "conv1.0.weight"))
    counted = _prefixes(found, r"4\.0\.conv1\.(?:conv\.)?weight", ("0.weight", "0.0.weight"))
    if not named and not counted:
        some = ", ".join(sorted(found)[:4])
        raise ValueError(
            f"There is no ResNet by torchvision's names in the file{_instead(found)}; it has {some}, ..."
        )
    leading = [p for p in named + counted if not any(word in p for word in FOLLOWERS)] or named + counted
    if len(leading) > 1:
        raise ValueError(f"There are several ResNets in the file: {', '.join(map(repr, leading))}; keep one.")
    (prefix,) = leading
    inside = {name.removeprefix(prefix): x for name, x in found.items() if name.startswith(prefix)}
    if prefix in named:
        return prefix, inside
    parts = {name: name.partition(".") for name in inside}
    return prefix, {
        CHILDREN[first] + dot + rest: inside[name]
        for name, (first, dot, rest) in parts.items()
        if first in CHILDREN
    }


def _instead(found: Iterable[str]) -> str:
    """What networks there are in place of one."""
    if any(re.search(r"(^|\.)layer0\.conv1\.weight$", name) for name in found):
        return (
            ", but one of timm's legacy_se*, whose max pool is padded differently and whose bottlenecks may have their"
            ' stride on the first convolution ("v1"), which nets.resnet has not'
        )
    if any(re.search(r"(^|\.)stages\.\d\.blocks\.\d", name) for name in found):
        return ", but one of timm's resnetv2 (normalized before each convolution) or another of its families"
    return ""


def _prefixes(found: Iterable[str], ending: str, beside: tuple[str, ...]) -> list[str]:
    prefixes = [m[1] for name in found if (m := re.fullmatch(rf"((?:.*\.)?){ending}", name))]
    return [prefix for prefix in prefixes if any(prefix + name in found for name in beside)]
