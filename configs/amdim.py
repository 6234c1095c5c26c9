"""AMDIM with its own encoder at full size, as its authors trained it (arXiv:1906.00910, amdim-public).

    jaxcl train configs/amdim.py --preset cifar10 --data-dir DATA_DIR
    jaxcl train configs/amdim.py --preset imagenet --data-dir DATA_DIR --run-dir runs/amdim_imagenet
    jaxcl evaluate runs/amdim_cifar10 --protocol mlp --set hidden=0
    jaxcl evaluate runs/amdim_imagenet --protocol mlp --set hidden=0 epochs=30 drops=[0.5,0.833]
    jaxcl plan configs/amdim.py --preset imagenet_large --machine h100-8 --input images

cifar10: 91.2 % linear accuracy (as the SimCLR paper quotes it), the network of 256 features. stl10: Falcon and Cho's
network, of which they report 93.8; schedule, clip and images are the authors' (theirs: a constant rate, 10, the
unlabelled ones alone). imagenet: the README's command, "a bit over 62 %" by classifiers trained along, after 50 epochs.
imagenet_large: 626 M parameters, 100 epochs and 68.1 % with, unlike here, Fast AutoAugment's policy. Classifiers see
images augmented as in pretraining; without hidden=0 they have a hidden layer. The authors estimate batch norm's
statistics on test images first (`mlp_probe`). Not run here.
"""

from dataclasses import dataclass
from typing import Literal

from jaxcl import About, CommonKnobs, Recipe, augment, basics, losses, methods, nets, optim, steps_of


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    epochs: float = 300
    batch_size: int = 480
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    remat: bool = True
    log_every: int = 50
    features: int = 256  # channels of the encoder's first layer
    depth: int = 10  # layers in each of its blocks
    out: int = 2048  # width of what is compared
    groups: int = 1  # of a batch, each with its own statistics (--chunks N: groups / N each); 1: no groups
    hue: float = 0.2  # strength of the jitter's change of hue
    standardize: Literal["cifar10", "stl10", "imagenet"] = "cifar10"  # whose mean and standard deviation
    clip: float = 20.0  # scores stay within plus and minus this
    penalty: float = 0.05  # weight of the mean squared score
    learning_rate: float = 2e-4  # of Adam
    falls: tuple[float, ...] = (250, 280)  # the epochs at which it falls to a fifth
    warmup_steps: int = 500  # of linear warm-up
    weight_decay: float = 1e-5  # on the gradient, of all parameters


IMAGENET = {"data": "tfds:imagenet2012", "size": 128, "encoded": True, "input": "host"}
IMAGENET |= {"standardize": "imagenet", "hue": 0.1}
# Crops of 64 pixels come out of all 96.
STL10 = {"data": "tfds:stl10", "train_on": "train+unlabelled", "size": 64, "encoded": True, "input": "host"}
STL10 |= {"standardize": "stl10"}
PRESETS = {
    "cifar10": Knobs(),
    "stl10": Knobs(**STL10, features=192, out=1536, depth=8, batch_size=200),
    # README: on 4 GPUs, each with batch statistics of its own.
    "imagenet": Knobs(**IMAGENET, epochs=50, falls=(30, 45), features=192, out=1536, depth=8, groups=4),
    "imagenet_large": Knobs(**IMAGENET, epochs=100, falls=(60, 90), features=320, out=2560),
}


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    net = {"norm": nets.batch_norm(axis_name=axis, groups=knobs.groups), "out": knobs.out, "biases": "torch"}
    encoder = nets.amdim(features=knobs.features, depth=knobs.depth, dtype=dtype, **net)
    head = nets.amdim_head(**net)
    views = augment.each_view([augment.amdim(size, hue=knobs.hue)] * 2, shared=augment.flip())
    method = methods.amdim(
        views=views,
        encoder=lean(nets.standardized(encoder, **nets.STATISTICS[knobs.standardize])),
        heads=(None, head, head),
        loss=losses.keyless(losses.map_nce, clip=knobs.clip, penalty=knobs.penalty),
        axis_name=axis,
    )
    falls = [steps_of(epoch, about.count, knobs.batch_size) for epoch in knobs.falls]
    rate = optim.falling(knobs.learning_rate, at=falls, factor=0.2, warmup_steps=knobs.warmup_steps)
    optimizer = optim.adam(rate, b1=0.8, weight_decay=knobs.weight_decay)
    classified = augment.n_views(augment.compose(augment.amdim(size, hue=knobs.hue), augment.flip()), 1)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, classified)
