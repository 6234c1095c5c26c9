"""SimCLR on ImageNet with ResNet-50: the paper's recipe (arXiv:2002.05709), for many accelerators.

    jaxcl train configs/simclr_imagenet.py --data-dir DATA_DIR
    jaxcl evaluate runs/simclr_imagenet --protocol linear_sgd

The default knobs are the paper's section 2.3: batch 4096, LARS with learning rate 0.3 for 256 images, weight decay
1e-6, temperature 0.1, a head of two layers. It reports 64.5 % linear accuracy after 100 epochs and 69.3 % after 1000,
on 32 to 128 TPU v3 cores. The recipe that came with SimCLRv2's code, 64.5 % as well, is --head-layers 3 --weight-decay
1e-4 --brightness-form multiply. Not run here: neither ImageNet nor the hardware was at hand.

`tfds:imagenet2012` must have been prepared in DATA_DIR from the archives that image-net.org gives out. What the host
decodes bounds the speed: of 500 x 375 pixels, a core makes the paper's two views of some 90 images a second (--input
host), or decodes twice as many for the device, whose crops come from the centre square of 256 pixels (--input images).
"""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp

from jaxcl import augment, data, nets
from jaxcl.experiment import Experiment, steps_of
from jaxcl.losses import keyless, nt_xent
from jaxcl.methods import simclr
from jaxcl.train import optim, placement


@dataclass(frozen=True)
class Knobs:
    data: str = "tfds:imagenet2012"
    """Images: tfds:NAME, folder:PATH or tfrecord:PATTERN, too large for memory."""
    data_dir: str | None = None
    """Where TFDS prepared its data sets (its own default if not given)."""
    size: int = 224
    """Side of the views, and of the images that are evaluated."""
    depth: int = 50
    """ResNet-18, 34, 50, 101, 152 or 200."""
    width: int = 1
    """Width multiplier of the ResNet."""
    head_layers: int = 2
    """Layers of the projection head."""
    epochs: float = 100
    """Passes over the training images."""
    batch_size: int = 4096
    """Images a step, over all devices; two views each."""
    temperature: float = 0.1
    """NT-Xent's temperature."""
    learning_rate: float = 0.3
    """Base rate of LARS, for 256 images; grows linearly with the batch."""
    warmup_epochs: float = 10
    """Epochs of linear warm-up, before the cosine."""
    weight_decay: float = 1e-6
    """L2 penalty on the gradient, of kernels only."""
    strength: float = 1.0
    """Strength of the color jitter."""
    brightness_form: Literal["add", "multiply"] = "add"
    """How brightness is jittered: by an amount (the paper's code) or by a factor (SimCLRv2's)."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """What the encoder computes in; parameters and loss are float32."""
    seed: int = 0
    """Initial weights, order of the images, augmentation."""
    input: Literal["host", "images"] = "host"
    """Who makes the views: the host; or the device, from images that the host only decodes."""
    placement: Literal["jit", "shard_map", "pmap"] = "jit"
    """Where a step runs."""


def experiment(knobs: Knobs) -> Experiment:
    recipe = augment.simclr(knobs.size, strength=knobs.strength, brightness_form=knobs.brightness_form)
    images = data.streamed(knobs.data, recipe, size=knobs.size, input=knobs.input, data_dir=knobs.data_dir)
    steps = steps_of(knobs.epochs, images.train, knobs.batch_size)
    warmup_steps = steps_of(knobs.warmup_epochs, images.train, knobs.batch_size)
    axis_name = placement.axis_name(knobs.placement)
    norm = nets.batch_norm(axis_name=axis_name)
    dtype = jnp.dtype(knobs.dtype)

    peak = optim.scaled_learning_rate(knobs.learning_rate, knobs.batch_size, rule="linear")
    learning_rate = optim.warmup_cosine(peak, steps=steps, warmup_steps=warmup_steps)
    return Experiment(
        method=simclr(
            views=images.views,
            encoder=nets.resnet(knobs.depth, stem="imagenet", width=knobs.width, norm=norm, dtype=dtype),
            head=nets.projection_head(layers=knobs.head_layers, out=128, norm=norm),
            loss=keyless(nt_xent, temperature=knobs.temperature),
            axis_name=axis_name,
        ),
        optimizer=optim.lars(learning_rate, momentum=0.9, weight_decay=knobs.weight_decay),
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
