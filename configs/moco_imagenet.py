"""MoCo v1 and v2 on ImageNet with ResNet-50: the papers' recipes (arXiv:1911.05722, 2003.04297), for eight GPUs.

    jaxcl train configs/moco_imagenet.py --data-dir DATA_DIR
    jaxcl train configs/moco_imagenet.py --data-dir DATA_DIR --run-dir runs/moco_imagenet_ft --mix both
    jaxcl evaluate runs/moco_imagenet --protocol linear_moco
    jaxcl evaluate runs/moco_imagenet_ft --protocol linear_moco --set min_area=0.2

The papers report 60.6 % (--version v1) and 67.5 % (v2) linear accuracy after 200 epochs, 71.1 % (v2) after 800. With
feature transformation 61.9 and 69.6 % are reported after 200, by a cosine from epoch 1 to a thousandth, v1 gray after
its jitter: `moco_imagenet100.py --preset v1_ft --data tfds:imagenet2012 --decay 0.999`, or v2_ft. Data and `--input`:
simclr_imagenet.py; differences to the published code: moco_cifar10.py. --groups 8: its 8 GPUs of 32 images. Not run.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import optax

from jaxcl import About, ImageNetKnobs, Recipe, augment, basics, losses, methods, nets, optim, steps_of
from jaxcl.feature_transform import MIXES, Mix, mixing
from jaxcl.monitor import score_monitor


@dataclass(frozen=True)
class Knobs(ImageNetKnobs):
    epochs: float = 200
    batch_size: int = 256
    version: Literal["v1", "v2"] = "v2"
    """v1: linear head, temperature 0.07, no blur, a rate that falls twice. v2: hidden layer, 0.2, blur, cosine."""
    depth: int = 50  # ResNet-18, 34, 50, 101, 152 or 200
    queue_size: int = 65536  # keys that are remembered
    decay: float = 0.999  # of the key encoder's moving average
    mix: Mix = "none"  # which features are mixed before the loss (`feature_transform.MIXES`)
    groups: int = 8  # of a batch, each with its own statistics (--chunks N: groups / N each); 1: no groups
    shuffle: bool = True  # keys go through the network in a random order
    learning_rate: float = 0.03  # of SGD, for 256 images; grows linearly with the batch
    weight_decay: float = 1e-4  # L2 penalty on the gradient, of all parameters


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    first = knobs.version == "v1"
    norm = nets.batch_norm(axis_name=axis, groups=knobs.groups)
    net = {"norm": norm, "dtype": dtype, "zero_init_last_gamma": False, "initialization": "torch"}
    encoder = nets.resnet(knobs.depth, stem="imagenet", pool="torch", **net)
    temperature, hidden = (0.07, ()) if first else (0.2, (2048,))
    views = augment.two_views(augment.moco_v1(size) if first else augment.moco_v2(size))
    peak = optim.scaled_learning_rate(knobs.learning_rate, knobs.batch_size)
    epoch = steps_of(1, about.count, knobs.batch_size)  # asked once an epoch, as in the published code
    rate = optim.warmup_cosine(peak, steps=steps, warmup_steps=0, every=epoch)
    if first:
        rate = optax.piecewise_constant_schedule(peak, {steps * 3 // 5: 0.1, steps * 4 // 5: 0.1})
    method = methods.moco(
        views=views,
        encoder=lean(nets.standardized(encoder, **nets.STATISTICS["imagenet"])),
        head=nets.mlp_head(norm=nets.no_norm(), hidden=hidden, out=128, initialization="torch"),
        loss=losses.keyless(losses.queue_nce, temperature=temperature),
        queue_size=knobs.queue_size,
        decay=knobs.decay,
        shuffle=knobs.shuffle,
        transform=None if knobs.mix == "none" else mixing(**MIXES[knobs.mix]),
        scores=partial(score_monitor, temperature=temperature),
        axis_name=axis,
    )
    optimizer = optim.sgd(rate, momentum=0.9, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, augment.probe_views(size))
