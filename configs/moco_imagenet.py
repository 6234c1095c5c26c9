"""MoCo v1 and v2 on ImageNet with ResNet-50: the papers' recipes (arXiv:1911.05722, 2003.04297), for eight GPUs.

    jaxcl train configs/moco_imagenet.py --data-dir DATA_DIR
    jaxcl train configs/moco_imagenet.py --data-dir DATA_DIR --run-dir runs/moco_imagenet_v1 --version v1
    jaxcl evaluate runs/moco_imagenet --protocol linear_sgd

The papers report 60.6 % (v1) and 67.5 % (v2) linear accuracy after 200 epochs, and 71.1 % (v2) after 800. Not run here:
neither ImageNet nor the hardware was at hand. `--input` and the preparation of `tfds:imagenet2012` are as in
simclr_imagenet.py. What differs from the published code is listed in moco_cifar10.py; the blur's kernel is 23 pixels
wide at 224.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax.numpy as jnp
import optax

from jaxcl import augment, data, nets
from jaxcl.experiment import Experiment, steps_of
from jaxcl.losses import keyless, queue_nce
from jaxcl.methods import moco
from jaxcl.monitor import score_monitor
from jaxcl.train import optim, placement

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Knobs:
    version: Literal["v1", "v2"] = "v2"
    """v1: linear head, temperature 0.07, no blur, the rate falls at 3/5 and 4/5 of the epochs. v2: hidden layer, 0.2,
    blur, cosine."""
    data: str = "tfds:imagenet2012"
    """Images: tfds:NAME, folder:PATH or tfrecord:PATTERN, too large for memory."""
    data_dir: str | None = None
    """Where TFDS prepared its data sets (its own default if not given)."""
    size: int = 224
    """Side of the views, and of the images that are evaluated."""
    depth: int = 50
    """ResNet-18, 34, 50, 101, 152 or 200."""
    epochs: float = 200
    """Passes over the training images."""
    batch_size: int = 256
    """Images a step, over all devices."""
    queue_size: int = 65536
    """Keys that are remembered."""
    decay: float = 0.999
    """Of the key encoder's moving average."""
    groups: int = 8
    """Into how many groups batch norm cuts the global batch; 1 is the whole of it."""
    shuffle: bool = True
    """Keys go through the network in a random order."""
    learning_rate: float = 0.03
    """Of SGD, for 256 images; grows linearly with the batch."""
    weight_decay: float = 1e-4
    """L2 penalty on the gradient, of all parameters."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """What the encoder computes in; parameters and loss are float32."""
    seed: int = 0
    """Initial weights, order of the images, augmentation."""
    input: Literal["host", "images"] = "host"
    """Who makes the views: the host; or the device, from images that the host only decodes."""
    placement: Literal["jit", "shard_map", "pmap"] = "jit"
    """Where a step runs."""


def experiment(knobs: Knobs) -> Experiment:
    first = knobs.version == "v1"
    recipe = augment.moco_v1(knobs.size) if first else augment.moco_v2(knobs.size)
    images = data.streamed(knobs.data, recipe, size=knobs.size, input=knobs.input, data_dir=knobs.data_dir)
    steps = steps_of(knobs.epochs, images.train, knobs.batch_size)
    axis_name = placement.axis_name(knobs.placement)
    norm = nets.batch_norm(axis_name=axis_name, groups=knobs.groups)
    encoder = nets.resnet(
        knobs.depth, stem="imagenet", norm=norm, dtype=jnp.dtype(knobs.dtype), zero_init_last_gamma=False
    )
    temperature = 0.07 if first else 0.2

    peak = optim.scaled_learning_rate(knobs.learning_rate, knobs.batch_size, rule="linear")
    falls = {steps * 3 // 5: 0.1, steps * 4 // 5: 0.1}
    learning_rate = (
        optax.piecewise_constant_schedule(peak, falls)
        if first
        else optim.warmup_cosine(peak, steps=steps, warmup_steps=0)
    )
    return Experiment(
        method=moco(
            views=images.views,
            encoder=nets.standardized(encoder, mean=MEAN, std=STD),
            head=nets.mlp_head(norm=nets.no_norm(), hidden=() if first else (2048,), out=128),
            loss=keyless(queue_nce, temperature=temperature),
            queue_size=knobs.queue_size,
            decay=knobs.decay,
            shuffle=knobs.shuffle,
            scores=partial(score_monitor, temperature=temperature),
            axis_name=axis_name,
        ),
        optimizer=optim.sgd(learning_rate, momentum=0.9, weight_decay=knobs.weight_decay),
        learning_rate=learning_rate,
        train=images.train,
        test=images.test,
        views=augment.two_views(recipe),
        probe_views=augment.n_views(augment.crop_and_flip(knobs.size), 1),
        batch_size=knobs.batch_size,
        steps=steps,
        seed=knobs.seed,
        input=images.input,
        placement=knobs.placement,
    )
