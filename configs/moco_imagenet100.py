"""MoCo on ImageNet-100 with ResNet-50, plain and with feature transformation (arXiv:2108.02982), for one GPU.

    jaxcl train configs/moco_imagenet100.py --preset v1_ft --data-dir DATA_DIR
    jaxcl sweep configs/moco_imagenet100.py --mix none positives negatives both dimensions --data-dir DATA_DIR
    jaxcl sweep configs/moco_imagenet100.py --decay 0.5 0.9 0.99 0.999 --epochs 100 --data-dir DATA_DIR
    jaxcl evaluate runs/moco_imagenet100_v1_ft --protocol linear_moco --set epochs=60 schedule=constant min_area=0.2

The settings are those of the authors' code (DTennant/CL-Visualizing-Feature-Transformation): 65,536 keys, decay 0.99,
a cosine that moves once an epoch and ends at a thousandth, mixing from the first step (there each GPU draws the factors
of its part of a batch). v1: linear head, temperature
0.07; v2: hidden layer, 0.2, blur. One side mixed alone is ours (`feature_transform.mixing`). It reports 77.2 % linear
accuracy for v1_ft after 200 epochs, 6 points less or worse for v1; CMC's authors report 73.4 for a MoCo of theirs. Its
notebook: v1 after 100 epochs has 46.5, 56.2, 53.1 % at decays of 0.9, 0.99, 0.999. Not run. Classes: jaxcl.data.classes
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax.numpy as jnp

from jaxcl import About, ImageNetKnobs, Recipe, augment, basics, losses, methods, nets, optim, steps_of
from jaxcl.feature_transform import MIXES, Mix, mixing
from jaxcl.monitor import score_monitor


@dataclass(frozen=True)
class Knobs(ImageNetKnobs):
    data: str = "tfds:imagenet2012#imagenet100"
    epochs: float = 200
    batch_size: int = 256
    version: Literal["v1", "v2"] = "v1"
    depth: int = 50  # ResNet-18, 34, 50, 101, 152 or 200
    queue_size: int = 65536  # keys that are remembered
    decay: float = 0.99  # of the key encoder's moving average
    groups: int = 8  # of a batch, each with its own statistics (--chunks N: groups / N each); 1: no groups
    mix: Mix = "none"  # which features are mixed before the loss (`feature_transform.MIXES`)
    learning_rate: float = 0.03  # of SGD, for 256 images; grows linearly with the batch
    weight_decay: float = 1e-4  # L2 penalty on the gradient, of all parameters


# v1, v1_positives, v1_negatives, v1_ft (both), v1_dimensions, and the same of v2
PRESETS = {
    version + {"none": "", "both": "_ft"}.get(mix, f"_{mix}"): Knobs(version=version, mix=mix)
    for version in ("v1", "v2")
    for mix in ("none", *MIXES)
}


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    first = knobs.version == "v1"
    norm = nets.batch_norm(axis_name=axis, groups=knobs.groups)
    net = {"norm": norm, "dtype": dtype, "zero_init_last_gamma": False, "initialization": "torch"}
    temperature, hidden = (0.07, ()) if first else (0.2, (2048,))
    views = augment.two_views(augment.moco_v1(size, gray_first=False) if first else augment.moco_v2(size))
    encoder = nets.resnet(knobs.depth, stem="imagenet", pool="torch", **net)
    method = methods.moco(
        views=views,
        encoder=lean(nets.standardized(encoder, **nets.STATISTICS["imagenet"])),
        head=nets.mlp_head(norm=nets.no_norm(), hidden=hidden, out=128, initialization="torch"),
        loss=losses.keyless(losses.queue_nce, temperature=temperature),
        queue_size=knobs.queue_size,
        decay=knobs.decay,
        transform=None if knobs.mix == "none" else mixing(**MIXES[knobs.mix]),
        scores=partial(score_monitor, temperature=temperature),
        axis_name=axis,
    )
    peak = optim.scaled_learning_rate(knobs.learning_rate, knobs.batch_size)
    epoch = steps_of(1, about.count, knobs.batch_size)

    def rate(step):
        """The code's cosine: of whole epochs, counted from 1, and down to a thousandth."""
        done = jnp.minimum((step // epoch + 1) * epoch / steps, 1.0)
        return peak * (0.001 + 0.999 * (1 + jnp.cos(jnp.pi * done)) / 2)

    optimizer = optim.sgd(rate, momentum=0.9, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, augment.probe_views(size))
