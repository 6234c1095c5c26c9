"""SimCLR on scikit-learn's handwritten digits, scattered over clutter: the whole of jaxcl in minutes on two cores.

    make quickstart

or, step by step,

    jaxcl train configs/quickstart.py
    jaxcl evaluate runs/quickstart
    jaxcl plot runs/quickstart
"""

from dataclasses import dataclass
from typing import Literal

from jaxcl import augment, data, nets
from jaxcl.experiment import Experiment, steps_of
from jaxcl.losses import keyless, nt_xent
from jaxcl.methods import simclr
from jaxcl.train import optim, placement


@dataclass(frozen=True)
class Knobs:
    epochs: float = 20
    """Passes over the training images."""
    batch_size: int = 256
    """Images a step, two views each."""
    temperature: float = 0.2
    """NT-Xent's temperature."""
    learning_rate: float = 2e-3
    """Peak of AdamW's learning rate."""
    weight_decay: float = 1e-4
    """Decoupled weight decay, on kernels only."""
    min_area: float = 0.3
    """The smallest share of the image that a crop may keep."""
    features: tuple[int, ...] = (32, 64, 128, 128)
    """Channels of the encoder's convolutions."""
    seed: int = 0
    """Initial weights, order of the images, augmentation."""
    placement: Literal["jit", "shard_map", "pmap"] = "jit"
    """Where a step runs."""


def experiment(knobs: Knobs) -> Experiment:
    train, test = data.load("digits", "train"), data.load("digits", "test")
    size = train.images.shape[1]
    steps = steps_of(knobs.epochs, train, knobs.batch_size)
    axis_name = placement.axis_name(knobs.placement)
    norm = nets.batch_norm(axis_name=axis_name)

    # No flip: a mirrored digit is another sign.
    recipe = augment.simclr(
        size, strength=0.5, blur=False, flip=False, min_area=knobs.min_area, law=augment.uniform_area
    )
    views = augment.two_views(recipe)
    learning_rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=steps // 10)
    return Experiment(
        method=simclr(
            views=views,
            encoder=nets.small_convnet(features=knobs.features, norm=norm),
            head=nets.projection_head(layers=2, width=256, out=64, norm=norm),
            loss=keyless(nt_xent, temperature=knobs.temperature),
            axis_name=axis_name,
        ),
        optimizer=optim.adamw(learning_rate, weight_decay=knobs.weight_decay),
        learning_rate=learning_rate,
        train=train,
        test=test,
        views=views,
        probe_views=augment.n_views(augment.crop_and_flip(size), 1),
        batch_size=knobs.batch_size,
        steps=steps,
        seed=knobs.seed,
        placement=knobs.placement,
        log_every=10,
        save_every=200,
    )
