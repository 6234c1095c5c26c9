"""BYOL, or SimSiam, on CIFAR-10 on a CPU, with the encoder of simclr_cifar10_cpu.py.

    jaxcl train configs/byol_cifar10_cpu.py --data-dir DATA_DIR
    jaxcl train configs/byol_cifar10_cpu.py --method simsiam --data-dir DATA_DIR
    jaxcl evaluate runs/byol_cifar10_cpu --protocol knn linear

A step of BYOL runs four forward passes an image (two by the online network, two by the target), SimSiam's two. The
paper's own optimizer is --optimizer lars (its rate is outside the momentum); rates, decays and weight decays by the
epochs of ImageNet are the presets of byol.py. Its images are standardized (--standardize), its blocks are ResNet's.
Without negatives the first epochs teach little: with --features 16 32 64 128 --epochs 6 BYOL reaches 43.0 +- 0.4 % kNN
accuracy in six minutes of one core (standard deviation over three seeds; raw pixels 36.1, its untrained encoder 39.3;
SimCLR 48.5 in three). Small batches, a target that follows soon, and a norm after the projector's last layer each
helped in short runs.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxcl import About, CommonKnobs, Recipe, augment, basics, losses, methods, nets, optim


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    batch_size: int = 64
    method: Literal["byol", "simsiam"] = "byol"  # with a moving average for a target, or without
    features: tuple[int, ...] = (32, 64, 128, 256)  # channels of the encoder's convolutions
    decay: float = 0.9  # of the target at the start, a cosine brings it to 1; lower for a shorter run
    width: int = 512  # of the hidden layers of projector and predictor
    out: int = 128  # of projections and predictions
    norm_out: bool = True  # batch norm after the projector's last layer too: SimSiam's, not BYOL's
    views: Literal["simclr", "byol"] = "simclr"  # SimCLR's without blur; BYOL's with it and solarization
    standardize: bool = False  # images by ImageNet's mean and standard deviation, as in the authors' code
    optimizer: Literal["adamw", "lars"] = "adamw"  # AdamW, or the paper's LARS
    learning_rate: float = 1e-3


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm = nets.batch_norm(axis_name=axis)
    mild = augment.simclr(size, strength=0.5, blur=False)
    views = augment.each_view(augment.byol(size) if knobs.views == "byol" else (mild, mild))
    encoder = lean(nets.small_convnet(features=knobs.features, norm=norm, dtype=dtype))
    if knobs.standardize:
        encoder = nets.standardized(encoder, **nets.STATISTICS["imagenet"])
    head = nets.mlp_head(norm=norm, hidden=(knobs.width,), out=knobs.out, bias=False)
    normed = nets.projection_head(layers=2, width=knobs.width, out=knobs.out, norm=norm)
    parts = {"views": views, "encoder": encoder, "predictor": head, "axis_name": axis}
    parts |= {"projector": normed if knobs.norm_out else head}
    if knobs.method == "byol":
        decay = methods.cosine_decay(knobs.decay, steps=steps)
        method = methods.byol(loss=losses.keyless(losses.regression), decay=decay, **parts)
    else:
        method = methods.simsiam(loss=losses.keyless(losses.negative_cosine), **parts)
    rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=steps // 20)
    make = {"adamw": optim.adamw, "lars": partial(optim.lars, momentum_includes_lr=False)}[knobs.optimizer]
    optimizer = make(rate, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, augment.probe_views(size))
