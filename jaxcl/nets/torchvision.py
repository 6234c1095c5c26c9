"""A ResNet's weights by the names and in the layouts of torchvision's (torchvision/models/resnet.py), which MoCo,
lightly, solo-learn, VISSL and timm share, below prefixes of their own.

    conv1, bn1, layer{1..4}.{block}.conv{1..3}, .bn{1..3}, .downsample.{0, 1}        kernels [out, in / groups, h, w]

The stride of a bottleneck is on its 3x3 convolution there ("v1.5") as here; weights do not tell those of a network that
has it on the first ("v1", as in Caffe's).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

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


def check_torchvision(module: Any, *, whole: bool = True) -> ResNet:
    """The module of a `resnet` that torchvision has as well, but for its width and stem.

    whole
        with torchvision's own number of channels.

    Raises ValueError, with what it has that torchvision's lacks.
    """
    if not isinstance(module, ResNet):
        raise ValueError(f"Only a `nets.resnet` has torchvision's names; got {type(module).__name__}.")
    given: Any = module.norm
    norm = getattr(given, "func", given)
    other = []
    if getattr(norm, "__name__", "") != "BatchNorm":
        other.append(f"the norm {getattr(norm, '__name__', norm)}")
    elif given.keywords.get("epsilon", 1e-5) != 1e-5:
        other.append(f"batch norm with epsilon={given.keywords['epsilon']}")
    other += [f"variant={module.variant!r}"] * (module.variant != "plain")
    other += [f"selective={module.selective}"] * bool(module.selective)
    other += [f"excite={module.excite}"] * bool(module.excite)
    other += [f"stages={len(module.blocks)}"] * (len(module.blocks) != 4)
    if whole and module.features * module.width != 64:
        other.append(f"{module.features * module.width} channels in its first stage")
    if other:
        raise ValueError(
            f"torchvision's ResNets have no {', no '.join(other)}, so the weights of this one have no names there."
        )
    return module


def in_torch(module: ResNet) -> list[str]:
    """Lines of Python that make the same network with torchvision, up to its last average: [b, 3, h, w] -> [b, d]."""
    kind = "Bottleneck" if module.bottleneck else "BasicBlock"
    more = ""
    if (module.inner, module.groups) != (1, 1):
        more = f", groups={module.groups}, width_per_group={64 * module.inner // module.groups}"
    lines = [
        "import torch, torchvision",
        "from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet",
        f"model = ResNet({kind}, {list(module.blocks)}{more}).eval()",
        "model.fc = torch.nn.Identity()",
    ]
    if module.stem == "cifar":
        lines += [
            "model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)",
            "model.maxpool = torch.nn.Identity()",
        ]
    elif module.pool == "same":  # what is pooled is not negative, so zeros count as nothing; of even sizes
        lines.append(
            "model.maxpool = torch.nn.Sequential(torch.nn.ZeroPad2d((0, 1, 0, 1)), torch.nn.MaxPool2d(3, 2))"
        )
    return lines


def names(module: ResNet, params: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, str], bool, str]]:
    """Of every array of such a network: (module of ours, its layer and array), whether it is learnt, torchvision's
    name."""

    def layer(path: tuple[str, ...], conv: str, norm: str, torch: tuple[str, str]):
        place = "/".join(path)
        yield place, (conv, "kernel"), True, f"{torch[0]}.weight"
        for ours, (learnt, theirs) in NORM.items():
            yield place, (norm, ours), learnt, f"{torch[1]}.{theirs}"

    yield from layer((), "stem", "stem_norm", ("conv1", "bn1"))
    for stage, blocks in enumerate(module.blocks, start=1):
        for i in range(blocks):
            ours, theirs = f"stage{stage}_block{i + 1}", f"layer{stage}.{i}"
            for k in range(3 if module.bottleneck else 2):
                torch = f"{theirs}.conv{k + 1}", f"{theirs}.bn{k + 1}"
                yield from layer((ours,), f"Conv_{k}", f"BatchNorm_{k}", torch)
            if "shortcut" in params[ours]:
                torch = f"{theirs}.downsample.0", f"{theirs}.downsample.1"
                yield from layer((ours,), "shortcut", "shortcut_norm", torch)


def to_torchvision(module: ResNet, params: PyTree, state: PyTree) -> dict[str, np.ndarray]:
    """The parameters and batch statistics of a `resnet` -> torchvision's state_dict, without its classifier."""
    check_torchvision(module, whole=False)
    made = {}
    for place, (name, array), learnt, torch in names(module, params):
        tree = params if learnt else state["batch_stats"]
        x = np.array((tree[place] if place else tree)[name][array], np.float32)
        made[torch] = np.ascontiguousarray(x.transpose(3, 2, 0, 1)) if x.ndim == 4 else x
    return made


def from_torchvision(
    module: ResNet, params: PyTree, state: PyTree, found: Mapping[str, np.ndarray]
) -> tuple[PyTree, PyTree]:
    """The parameters and statistics of torchvision's names, in the form of `params` and `state`, a network's own.

    Raises ValueError for a name that is missing or too much (a classifier is left out), and for a shape that differs,
    with the first few.
    """
    check_torchvision(module, whole=False)
    new: tuple[dict, dict] = ({}, {})
    known = {torch for *_, torch in names(module, params)}
    known |= {name.rpartition(".")[0] + ".num_batches_tracked" for name in known}  # which torch counts
    # Of a deeper network some blocks would be left over.
    wrong = [
        f"{name} is too much" for name in found if name not in known and re.match(r"layer\d|conv1|bn1", name)
    ]
    for place, (name, array), learnt, torch in names(module, params):
        tree = params if learnt else state["batch_stats"]
        own = (tree[place] if place else tree)[name][array]
        x = found.get(torch)
        if x is None:
            wrong.append(f"{torch} is missing")
            continue
        x = np.asarray(x).transpose(2, 3, 1, 0) if np.ndim(x) == 4 else np.asarray(x)
        if x.shape != own.shape:
            wrong.append(f"{torch} is {list(found[torch].shape)}, and would be {_theirs(own.shape)}")
            continue
        into = new[0 if learnt else 1]
        into = into.setdefault(place, {}) if place else into
        into.setdefault(name, {})[array] = np.ascontiguousarray(x, np.float32)
    if wrong:
        raise ValueError(
            f"These are the weights of another network: {'; '.join(wrong[:4])}"
            + (f"; and {len(wrong) - 4} more" if len(wrong) > 4 else "")
            + ". Choose depth, width and stem as those of the file."
        )
    return new[0], {**state, "batch_stats": new[1]}


def _theirs(shape: tuple[int, ...]) -> list[int]:
    return [shape[3], shape[2], shape[0], shape[1]] if len(shape) == 4 else list(shape)


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
    named = _prefixes(found, r"layer1\.0\.conv1\.weight", "conv1.weight")
    counted = _prefixes(found, r"4\.0\.conv1\.weight", "0.weight")
    if not named and not counted:
        some = ", ".join(sorted(found)[:4])
        raise ValueError(f"There is no ResNet by torchvision's names in the file; it has {some}, ...")
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


def _prefixes(found: Iterable[str], ending: str, beside: str) -> list[str]:
    prefixes = [m[1] for name in found if (m := re.fullmatch(rf"((?:.*\.)?){ending}", name))]
    return [prefix for prefix in prefixes if prefix + beside in found]
