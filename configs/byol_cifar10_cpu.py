"""BYOL, or SimSiam, on CIFAR-10 on a CPU, with the encoder of simclr_cifar10_cpu.py.

    jaxcl train configs/byol_cifar10_cpu.py --data-dir DATA_DIR
    jaxcl train configs/byol_cifar10_cpu.py --method simsiam --data-dir DATA_DIR
    jaxcl evaluate runs/byol_cifar10_cpu --protocol knn linear

A step of BYOL runs four forward passes an image (two by the online network, two by the target), SimSiam's two. The
paper's own optimizer is --optimizer lars --learning-rate 0.4 (its rate is outside the momentum buffer).

Without negatives the first epochs teach little: with --features 16 32 64 128 --epochs 6 BYOL reaches 43.0 +- 0.4 % kNN
accuracy in six minutes of one core (three seeds; raw pixels 36.1, its untrained encoder 39.3; SimCLR 48.5 in three).
Small batches, which are many steps, a target that follows soon, and a norm after the projector's last layer each
helped in short runs of one epoch or two.
"""

from dataclasses import dataclass
from typing import Literal

from jaxcl import augment, data, nets
from jaxcl.experiment import Experiment, steps_of
from jaxcl.losses import keyless, negative_cosine, regression
from jaxcl.methods import byol, cosine_decay, simsiam
from jaxcl.train import optim, placement


@dataclass(frozen=True)
class Knobs:
    data: str = "tfds:cifar10"
    """Images: tfds:NAME, folder:PATH, npz:PATH or digits."""
    data_dir: str | None = None
    """Where TFDS prepared its data sets (its own default if not given)."""
    method: Literal["byol", "simsiam"] = "byol"
    """With a moving average for a target, or without."""
    features: tuple[int, ...] = (32, 64, 128, 256)
    """Channels of the encoder's convolutions."""
    epochs: float = 20
    """Passes over the training images."""
    batch_size: int = 64
    """Images a step, two views each."""
    decay: float = 0.9
    """Of the target at the start; a cosine brings it to 1. (The paper has 0.97 for 40 epochs of ImageNet, 0.996 for
    1000; the shorter a run, the sooner its target must follow.)"""
    width: int = 512
    """Of the hidden layers of projector and predictor."""
    out: int = 128
    """Of projections and predictions."""
    norm_out: bool = True
    """Batch norm after the projector's last layer as well, as in SimSiam; the paper's BYOL has none there."""
    views: Literal["simclr", "byol"] = "simclr"
    """SimCLR's recipe without blur for both views, or BYOL's two, with blur and solarization."""
    optimizer: Literal["adamw", "lars"] = "adamw"
    """AdamW, or the paper's LARS."""
    learning_rate: float = 1e-3
    """Peak of the learning rate."""
    weight_decay: float = 1e-4
    """On kernels only; decoupled for AdamW. (The paper's for LARS is 1e-6.)"""
    seed: int = 0
    """Initial weights, order of the images, augmentation."""
    placement: Literal["jit", "shard_map", "pmap"] = "jit"
    """Where a step runs."""


def experiment(knobs: Knobs) -> Experiment:
    train = data.load(knobs.data, "train", data_dir=knobs.data_dir)
    test = data.load(knobs.data, "test", data_dir=knobs.data_dir)
    size = train.images.shape[1]
    steps = steps_of(knobs.epochs, train, knobs.batch_size)
    axis_name = placement.axis_name(knobs.placement)
    norm = nets.batch_norm(axis_name=axis_name)

    recipes = (augment.simclr(size, strength=0.5, blur=False),) * 2
    if knobs.views == "byol":
        recipes = augment.byol(size)
    views = augment.each_view(recipes)
    head = nets.mlp_head(norm=norm, hidden=(knobs.width,), out=knobs.out, bias=False)
    normed = nets.projection_head(layers=2, width=knobs.width, out=knobs.out, norm=norm)
    parts = {
        "views": views,
        "encoder": nets.small_convnet(features=knobs.features, norm=norm),
        "projector": normed if knobs.norm_out else head,
        "predictor": head,
        "axis_name": axis_name,
    }
    if knobs.method == "byol":
        method = byol(
            loss=keyless(regression),
            decay=cosine_decay(knobs.decay, steps=steps),
            **parts,
        )
    else:
        method = simsiam(loss=keyless(negative_cosine), **parts)

    learning_rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=steps // 20)
    optimizer = optim.adamw(learning_rate, weight_decay=knobs.weight_decay)
    if knobs.optimizer == "lars":
        optimizer = optim.lars(learning_rate, weight_decay=knobs.weight_decay, momentum_includes_lr=False)
    return Experiment(
        method=method,
        optimizer=optimizer,
        learning_rate=learning_rate,
        train=train,
        test=test,
        views=views,
        probe_views=augment.n_views(augment.crop_and_flip(size), 1),
        batch_size=knobs.batch_size,
        steps=steps,
        seed=knobs.seed,
        placement=knobs.placement,
        log_every=20,
        save_every=500,
    )
