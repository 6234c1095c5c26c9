"""CPC v2 with its large encoder, as Falcon and Cho (2020, arXiv:2009.00104) ran it, and as its paper describes it.

    jaxcl train configs/cpc.py --preset cifar10 --data-dir DATA_DIR
    jaxcl train configs/cpc.py --preset imagenet --data-dir DATA_DIR
    jaxcl evaluate runs/cpc_cifar10 --protocol mlp
    jaxcl evaluate runs/cpc_cifar10 --protocol deep --set side=7 fraction=0.01
    jaxcl plan configs/cpc.py --preset imagenet_henaff --machine h100-8 --input images --chunks 8

cifar10, stl10, imagenet: 84.5, 78.4 and 54.8 % are reported, with a hidden layer of 1024 in the classifier (of mlp loss
and schedule are AMDIM's): 7 x 7 patches, the residual encoder with stages of 3, 4, 46 and 3 blocks and layer norm, one
direction, Adam at a constant rate, 1000 epochs; Bolts holds out 50 images a class of ImageNet and 5,000 of the others,
and its 144 of STL-10 are what one card holds: on four, as its page says, --batch-size 576 --group-size 144.
imagenet_henaff, imagenet_pseudo_code: Henaff et al. (2019, arXiv:1905.09272) report 71.5 % linear accuracy with the
first three stages (a "ResNet-161"), 6 x 6 patches of 80 pixels, in words four directions, patches changed one by one.
The schedule was not at hand (batch, rate and epochs are those of the other), nor what the augmentation of patches is
made of (`augment.cpc_patches`). Their second evaluation, a residual classifier on the grid of patches for few labels,
is the protocol "deep": with --represent flat and the grid's side (7, or 6 of the last two presets). Not run here.
"""

from dataclasses import dataclass
from typing import Literal

from jaxcl import About, CommonKnobs, Recipe, augment, basics, losses, methods, nets, optim
from jaxcl.extract import flatten, pool


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    epochs: float = 1000
    batch_size: int = 64
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    remat: bool = True
    log_every: int = 50
    variant: Literal["falcon_cho", "henaff", "pseudo_code"] = "falcon_cho"
    """Which rows below are predicted, by how many predictors, in how many directions, and how the grid is padded: as
    Falcon and Cho ran it; three rows in four directions, a reading of the paper; or as the paper's pseudo-code."""
    blocks: tuple[int, ...] = (3, 4, 46, 3)  # of the encoder's stages
    features: int = 64  # channels of its first stage
    patch: int = 8  # pixels a side of a patch
    stride: int = 4  # pixels from one patch to the next
    patchwise: bool = False  # patches are changed one by one as well
    represent: Literal["flat", "average"] = "flat"  # of the grid of patches, what is evaluated
    hue: float = 0.2  # strength of the jitter's change of hue
    standardize: Literal["cifar10", "stl10", "imagenet"] = "cifar10"  # whose mean and standard deviation
    scale: float = 0.1  # scores are multiplied by it
    group_size: int = 0  # images, neighbours in the batch, whose patches are compared with each other; 0: all
    learning_rate: float = 4e-5  # of Adam, always the same
    weight_decay: float = 1e-5  # on the gradient, of all parameters


IMAGENET = {"data": "tfds:imagenet2012", "encoded": True, "input": "host", "batch_size": 3072}
IMAGENET |= {"standardize": "imagenet", "hue": 0.1}
# Crops of 64 pixels come out of all 96.
STL10 = {"data": "tfds:stl10", "train_on": "unlabelled", "size": 64, "encoded": True, "input": "host"}
STL10 |= {"standardize": "stl10"}
HENAFF = {"size": 260, "patch": 80, "stride": 36, "patchwise": True}
HENAFF |= {"blocks": (3, 4, 46), "represent": "average"}
PRESETS = {
    "cifar10": Knobs(),
    "stl10": Knobs(**STL10, patch=16, stride=8, batch_size=144, learning_rate=1e-4),
    # Bolts compares what lies on one GPU, and had 64 for its 3,072 images.
    "imagenet": Knobs(**IMAGENET, size=128, patch=32, stride=16, group_size=48),
    "imagenet_henaff": Knobs(**IMAGENET, **HENAFF, variant="henaff"),
    "imagenet_pseudo_code": Knobs(**IMAGENET, **HENAFF, variant="pseudo_code"),
}


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    encoder = nets.cpc_resnet(blocks=knobs.blocks, features=knobs.features, dtype=dtype)
    # Falcon and Cho's layers start as PyTorch's, and their grid is not padded as in the paper's pseudo-code.
    bolts = knobs.variant == "falcon_cho"
    start, padding = ("torch", {}) if bolts else ("lecun", {"top": 0.0, "sides": "early"})
    linear = nets.mlp_head(norm=nets.no_norm(), hidden=(), out=64, initialization=start)
    change, patch = [augment.flip(), augment.amdim(size, hue=knobs.hue)], (knobs.patch, knobs.stride)
    each = [augment.cpc_patches(*patch)] if knobs.patchwise else []
    views = augment.n_views(augment.compose(*change, *each), 1)
    method = methods.cpc(
        views=views,
        encoder=lean(nets.standardized(encoder, **nets.STATISTICS[knobs.standardize])),
        context=nets.masked_context(initialization=start, **padding),
        target=linear,
        predictor=linear,
        loss=losses.keyless(losses.patch_nce, scale=knobs.scale, group_size=knobs.group_size or None),
        patch=patch,
        **methods.CPC_VARIANTS[knobs.variant],
        represent={"flat": flatten, "average": pool}[knobs.represent],
        axis_name=axis,
    )
    rate = optim.falling(knobs.learning_rate, at=())
    optimizer = optim.adam(rate, b1=0.8, eps=1e-7, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, augment.probe_views(size))
