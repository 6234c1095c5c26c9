"""BYOL with ResNets: the paper's ImageNet recipe (arXiv:2006.07733), and its like for CIFAR-10 and STL-10.

    jaxcl train configs/byol.py --preset imagenet --data-dir DATA_DIR
    jaxcl train configs/byol.py --preset cifar10 --data-dir DATA_DIR
    jaxcl evaluate runs/byol_imagenet --protocol linear_sgd --set epochs=80 batch_size=4096 learning_rate=0.2
        start_std=0.022
    jaxcl plan configs/byol.py --preset imagenet --machine h100-8 --input images --remat

imagenet, imagenet_300, imagenet_100, imagenet_40: ResNet-50, batch 4096, so many epochs (1000 without a number), each
with the rate, weight decay and first target decay of the authors' code (byol/configs/byol.py). The paper reports 74.3 %
linear accuracy after 1000 epochs, 72.5 after 300, of blocks whose last scale starts at 1; the code, where it is 0, says
74.0 to 74.5 (README), in 8 hours on 512 TPU v3 cores. cifar10: not the paper's, but solo-learn's ResNet-18 (its
cifar/byol.yaml: LARS with clipped trust ratios, no blur), which reports 92.6 after 1000 epochs, but for its
standardization, PyTorch's crops, colors and first weights, a target that starts as a copy, biases of the last layers,
and a stem that pads by two pixels. stl10: the same at 96 pixels, not published. Strided convolutions are padded alike
on both sides, haiku's by one more at the end, which is a shift by a pixel. Not run.
"""

from dataclasses import dataclass
from typing import Literal

from jaxcl import About, CommonKnobs, Recipe, augment, basics, losses, methods, nets, optim, steps_across


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    epochs: float = 1000
    batch_size: int = 256
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    log_every: int = 50
    depth: int = 18  # ResNet-18, 34, 50, 101, 152 or 200
    width: int = 1  # width multiplier of the ResNet
    stem: Literal["cifar", "imagenet"] = "cifar"  # 3x3; or 7x7 and a pool, each with stride 2
    shortcuts: Literal["where_needed", "of_every_stage"] = "where_needed"
    """Where shortcuts have a convolution, of depths 18 and 34; of_every_stage: in the authors' code."""
    blur: bool = False  # the first view always, of the second one in ten
    standardize: Literal["cifar10", "stl10", "imagenet"] = "cifar10"  # whose mean and standard deviation
    decay: float = 0.99  # of the target at the start; a cosine brings it to 1
    trust: float = 0.02  # LARS's trust coefficient
    clip_trust: bool = True  # a kernel's step is at most the rate times its gradient
    learning_rate: float = 1.0  # base rate of LARS, for 256 images; grows linearly with the batch
    warmup_epochs: float = 10  # epochs of linear warm-up, before the cosine
    weight_decay: float = 1e-5  # of kernels only


def imagenet(epochs: float, learning_rate: float, weight_decay: float, decay: float) -> Knobs:
    images = {"data": "tfds:imagenet2012", "size": 224, "encoded": True, "input": "host"}
    net = {"depth": 50, "stem": "imagenet", "shortcuts": "of_every_stage", "standardize": "imagenet"}
    rates = {"learning_rate": learning_rate, "weight_decay": weight_decay, "decay": decay}
    rates |= {"trust": 0.001, "clip_trust": False}
    return Knobs(**images, **net, **rates, blur=True, epochs=epochs, batch_size=4096)


PRESETS = {
    "cifar10": Knobs(),
    "stl10": Knobs(data="tfds:stl10", train_on="unlabelled", size=96, standardize="stl10"),
    "imagenet": imagenet(1000, 0.2, 1.5e-6, 0.996),
    "imagenet_300": imagenet(300, 0.3, 1e-6, 0.99),
    "imagenet_100": imagenet(100, 0.45, 1e-6, 0.99),
    "imagenet_40": imagenet(40, 0.45, 1e-6, 0.97),
}


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, _, axis, dtype, lean = basics(knobs, about)
    steps = steps_across(knobs.epochs, about.count, knobs.batch_size)
    norm = nets.batch_norm(axis_name=axis)
    views = augment.each_view(augment.byol(size, blur=knobs.blur))
    # haiku, which the authors' code is built on, starts the last scale of a bottleneck at zero, and of no other block.
    net = {"norm": norm, "dtype": dtype, "zero_init_last_gamma": knobs.depth >= 50, "initialization": "haiku"}
    net |= {"stem": knobs.stem, "width": knobs.width, "shortcuts": knobs.shortcuts}
    encoder = nets.resnet(knobs.depth, **net)
    head = nets.mlp_head(norm=norm, hidden=(4096,), out=256, bias=False, initialization="haiku")
    peak = optim.scaled_learning_rate(knobs.learning_rate, knobs.batch_size)
    warmup_steps = steps_across(knobs.warmup_epochs, about.count, knobs.batch_size)
    rate = optim.warmup_cosine(peak, steps=steps, warmup_steps=warmup_steps)
    method = methods.byol(
        views=views,
        encoder=lean(nets.standardized(encoder, **nets.STATISTICS[knobs.standardize])),
        projector=head,
        predictor=head,
        loss=losses.keyless(losses.regression),
        decay=methods.cosine_decay(knobs.decay, steps=steps),
        axis_name=axis,
    )
    # As in the authors' code the rate is no part of the momentum.
    lars = {"momentum": 0.9, "momentum_includes_lr": False, "trust_coefficient": knobs.trust}
    optimizer = optim.lars(rate, weight_decay=knobs.weight_decay, clip=knobs.clip_trust, **lars)
    classified = augment.n_views(augment.crop_and_flip(size, distribution=augment.uniform_area_cut), 1)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, classified)
