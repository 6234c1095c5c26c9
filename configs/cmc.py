"""CMC with two ResNets: the recipe of its paper's ImageNet runs (arXiv:1906.05849), and its like for small images.

    jaxcl train configs/cmc.py --preset imagenet --data-dir DATA_DIR
    jaxcl train configs/cmc.py --preset imagenet_2x --data-dir DATA_DIR
    jaxcl evaluate runs/cmc_imagenet --protocol linear_moco --set epochs=60 drops=[0.5,0.666,0.833] drop_factor=0.2
    jaxcl sweep configs/cmc.py --parts three --pairs all core --data-dir DATA_DIR
    jaxcl plan configs/cmc.py --preset imagenet_2x --machine h100-8 --input images

imagenet: L against ab, a ResNet-50 of half the width for each, 16384 negatives from a memory of all images, 240
epochs. imagenet_2x: two of double width (188 M parameters), 68.4 % linear accuracy (with learning_rate=50); its weights
had 4,096 negatives and Fast AutoAugment's policy, worth 0.8 to 1 %, where here are crop and flip. stl10: the README's
temperature of 0.1, at 64 pixels (not the paper's encoder). cifar10: ResNet-18s, not published. Not run here.
"""

from dataclasses import dataclass
from typing import Literal

from jaxcl import About, CommonKnobs, Recipe, augment, basics, losses, methods, nets, optim, steps_of
from jaxcl.feature_transform import MIXES, mixing_scores


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    epochs: float = 240
    batch_size: int = 128
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    log_every: int = 50
    space: Literal["lab", "ycbcr", "ydbdr"] = "lab"  # which brightness, and which color
    parts: Literal["two", "three"] = "two"  # brightness and color; or color in its two channels
    pairs: Literal["all", "core"] = "all"  # of three: all pairs are contrasted, or brightness with each
    loss: Literal["softmax", "nce"] = "nce"  # the paper's binary NCE of the scores, or a softmax over them
    depth: int = 18  # of each ResNet
    features: int = 32  # channels of its first stage; 64 is a whole ResNet, 32 one of half the width
    stem: Literal["cifar", "imagenet"] = "cifar"  # 3x3; or 7x7 of 64 channels and a pool, each with stride 2
    groups: int = 1  # of a batch, each with its own statistics (--chunks N: groups / N each); 1: no groups
    negatives: int = 16384  # of each query, from a memory of all images; 0: of the batch
    temperature: float = 0.07  # scores are divided by it
    momentum: float = 0.5  # what a row of the memory keeps at each visit
    min_area: float = 0.2  # the least fraction of the image that a crop keeps
    mix: Literal["none", "positives", "negatives", "both"] = "none"  # features mixed before the loss
    learning_rate: float = 0.03  # of SGD
    falls: tuple[float, ...] = (120, 160, 200)  # the epochs at which it falls to a tenth
    weight_decay: float = 1e-4  # L2 penalty on the gradient, of all parameters


IMAGENET = {"data": "tfds:imagenet2012", "size": 224, "encoded": True, "input": "host", "min_area": 0.08}
# README: at least four GPUs, each with batch statistics of its own.
IMAGENET |= {"depth": 50, "stem": "imagenet", "groups": 4}
# Crops of 64 pixels come out of all 96.
STL10 = {"data": "tfds:stl10", "train_on": "unlabelled", "size": 64, "encoded": True, "input": "host"}
PRESETS = {
    "cifar10": Knobs(),
    "stl10": Knobs(**STL10, temperature=0.1),
    "imagenet": Knobs(**IMAGENET),
    "imagenet_2x": Knobs(**IMAGENET, features=128, remat=True),
}


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm = nets.batch_norm(axis_name=axis, groups=knobs.groups)
    net = {"norm": norm, "dtype": dtype, "zero_init_last_gamma": False}
    net |= {"stem": knobs.stem, "pool": "torch", "features": knobs.features, "initialization": "torch"}
    # The authors' 7x7 stem is as wide whatever comes above it.
    net["stem_features"] = 64 if knobs.stem == "imagenet" else None
    encoder = lean(nets.resnet(knobs.depth, **net))
    head = nets.mlp_head(norm=nets.no_norm(), hidden=(), out=128, initialization="torch")
    softmax, nce = losses.keyless(losses.softmax_nce), losses.keyless(losses.binary_nce, images=about.count)
    parts = {"two": (1, 2), "three": (1, 1, 1)}[knobs.parts]
    views = augment.channel_views(augment.cmc(size, min_area=knobs.min_area, space=knobs.space), parts)
    method = methods.cmc(
        views=views,
        channels=augment.split_channels(augment.color_space(knobs.space), parts),
        encoders=(encoder,) * len(parts),
        heads=(head,) * len(parts),
        images=about.count,
        pairs=knobs.pairs,
        negatives=knobs.negatives or "batch",
        temperature=knobs.temperature,
        momentum=knobs.momentum,
        transform=None if knobs.mix == "none" else mixing_scores(**MIXES[knobs.mix]),
        loss={"softmax": softmax, "nce": nce}[knobs.loss],
        axis_name=axis,
    )
    falls = [steps_of(epoch, about.count, knobs.batch_size) for epoch in knobs.falls]
    rate = optim.falling(knobs.learning_rate, at=falls)
    optimizer = optim.sgd(rate, momentum=0.9, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, augment.probe_views(size))
