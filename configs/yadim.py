"""YADIM with AMDIM's encoder at full size. (What of YADIM is inferred: `jaxcl.methods.yadim`.)

    jaxcl train configs/yadim.py --preset cifar10 --data-dir DATA_DIR
    jaxcl train configs/yadim.py --preset stl10 --data-dir DATA_DIR
    jaxcl evaluate runs/yadim_stl10 --protocol mlp
    jaxcl plan configs/yadim.py --preset imagenet --machine h100-8 --input images

Falcon and Cho (2020, arXiv:2009.00104) report 92.15 % on STL-10, with a hidden layer of 1024 in their classifier (of
mlp loss and schedule are AMDIM's). Encoders, batches and Adam at a constant rate are those with which their library,
PyTorch Lightning Bolts, trains AMDIM; that YADIM had the same is assumed, and the epochs are ours. Not run here.
"""

from dataclasses import dataclass
from typing import Literal

from jaxcl import About, CommonKnobs, Recipe, augment, basics, losses, methods, nets, optim


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    epochs: float = 1000
    batch_size: int = 200
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    remat: bool = True
    log_every: int = 50
    features: int = 320  # channels of the encoder's first layer
    depth: int = 10  # layers in each of its blocks
    out: int = 1280  # width of what is compared
    hue: float = 0.2  # strength of the jitter's change of hue
    standardize: Literal["cifar10", "stl10", "imagenet"] = "cifar10"  # whose mean and standard deviation
    clip: float = 10.0  # scores stay within plus and minus this
    penalty: float = 0.05  # weight of the mean squared score
    learning_rate: float = 2e-4  # of Adam, always the same
    weight_decay: float = 1e-5  # on the gradient, of all parameters


IMAGENET = {"data": "tfds:imagenet2012", "size": 128, "encoded": True, "input": "host"}
IMAGENET |= {"standardize": "imagenet", "hue": 0.1}
# Crops of 64 pixels come out of all 96.
STL10 = {"data": "tfds:stl10", "train_on": "unlabelled", "size": 64, "encoded": True, "input": "host"}
STL10 |= {"standardize": "stl10"}
PRESETS = {
    "cifar10": Knobs(),
    "stl10": Knobs(**STL10, features=192, out=1536, depth=8),
    "imagenet": Knobs(**IMAGENET, epochs=100, features=320, out=2560),
}


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    net = {"norm": nets.batch_norm(axis_name=axis), "biases": "torch", "dtype": dtype}
    encoder = nets.amdim(features=knobs.features, out=knobs.out, depth=knobs.depth, **net)
    views = augment.two_views(augment.compose(augment.flip(), augment.amdim(size, hue=knobs.hue)))
    method = methods.yadim(
        views=views,
        encoder=lean(nets.standardized(encoder, **nets.STATISTICS[knobs.standardize])),
        loss=losses.keyless(losses.map_nce, clip=knobs.clip, penalty=knobs.penalty),
        axis_name=axis,
    )
    rate = optim.falling(knobs.learning_rate, at=())
    optimizer = optim.adam(rate, b1=0.8, eps=1e-7, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, augment.probe_views(size))
