"""Digits pasted on photographs: the more different digits there are, the less is learnt of the photograph.

    jaxcl sweep configs/digit_on_image.py --unique 1 4 16 64 256 4096 60000 --data-dir DATA_DIR

DigitOnImageNet of "Intriguing Properties of Contrastive Losses" (Chen, Luo and Li, 2021, arXiv:2011.02803, section 5),
made as in `digits_on_tf_flowers.ipynb`, here on CIFAR-10 enlarged to 64 pixels with digits of 8 pixels, for one GPU.
Published finding, without numbers: as the number of different digits grows, accuracy on digits rises and accuracy on
photographs falls. Not yet run here: no GPU was at hand.
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
    unique: int = 16
    """How many different digits are pasted."""
    photos: str = "tfds:cifar10"
    """The photographs: tfds:NAME, folder:PATH or npz:PATH."""
    digits: str = "tfds:mnist"
    """The digits, gray and square; the first ones of the training split are pasted, on test images as well."""
    data_dir: str | None = None
    """Where TFDS prepared its data sets (its own default if not given)."""
    size: int = 64
    """Pixels each way of an image; digits are an eighth of it wide (224 in the paper)."""
    depth: int = 18
    """ResNet-18, 34, 50, 101 or 152."""
    epochs: float = 50
    """Passes over the training images."""
    batch_size: int = 512
    """Images a step, two views each."""
    temperature: float = 0.2
    """NT-Xent's temperature."""
    learning_rate: float = 0.06
    """Base rate, for 256 images; grows linearly with the batch."""
    weight_decay: float = 5e-4
    """L2 penalty on the gradient."""
    seed: int = 0
    """Which digit goes where, initial weights, order of the images, augmentation."""
    placement: Literal["jit", "shard_map", "pmap"] = "jit"
    """Where a step runs."""


def experiment(knobs: Knobs) -> Experiment:
    digits = data.load(knobs.digits, "train", data_dir=knobs.data_dir)
    by_kind = [
        data.digit_on_image(
            data.load(knobs.photos, split, data_dir=knobs.data_dir),
            digits,
            unique=knobs.unique,
            seed=knobs.seed,
            size=knobs.size,
        )
        for split in ("train", "test")
    ]
    evaluated = {kind: (by_kind[0][kind], by_kind[1][kind]) for kind in by_kind[0]}
    train, test = next(iter(evaluated.values()))
    steps = steps_of(knobs.epochs, train, knobs.batch_size)
    axis_name = placement.axis_name(knobs.placement)
    norm = nets.batch_norm(axis_name=axis_name)
    views = augment.two_views(augment.simclr(knobs.size, strength=0.5, blur=False))
    peak = optim.scaled_learning_rate(knobs.learning_rate, knobs.batch_size)
    learning_rate = optim.warmup_cosine(peak, steps=steps, warmup_steps=steps // 10)
    return Experiment(
        method=simclr(
            views=views,
            encoder=nets.resnet(knobs.depth, stem="cifar", norm=norm),
            head=nets.projection_head(layers=2, out=128, norm=norm),
            loss=keyless(nt_xent, temperature=knobs.temperature),
            axis_name=axis_name,
        ),
        optimizer=optim.sgd(learning_rate, momentum=0.9, weight_decay=knobs.weight_decay),
        learning_rate=learning_rate,
        train=train,
        test=test,
        evaluated=evaluated,
        views=views,
        batch_size=knobs.batch_size,
        steps=steps,
        seed=knobs.seed,
        placement=knobs.placement,
    )
