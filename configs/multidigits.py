"""MultiDigits: can SimCLR learn digits from canvases that hold many of them, or a large one beside a small one?

    jaxcl sweep configs/multidigits.py --digits 1 2 4 8 16 --placement random grid --data-dir DATA_DIR
    jaxcl sweep configs/multidigits.py --second-size 20 30 40 50 60 70 80 --data-dir DATA_DIR

MNIST digits on blank canvases of 112 x 112 pixels ("Intriguing Properties of Contrastive Losses", Chen, Luo and Li,
2021, arXiv:2011.02803, section 4), with a small encoder instead of a ResNet. Published findings are pictures without
numbers: accuracy stays flat up to about eight digits and falls then, more so where they overlap; and the larger one of
two digits grows, the less is known of the small one.

How it is scored (the paper's own protocol for several digits is not on record)
    With `--digits`: the encoder is trained on canvases with so many digits and evaluated on canvases with a single
    one, so that every number is an ordinary accuracy with a chance level of 10 %, whatever was trained on.
    With `--second-size`: two digits, the first of 20 pixels; the same canvases are evaluated twice, by the first digit
    and by the second.
"""

from dataclasses import dataclass
from typing import Literal

from jaxcl import augment, data, nets
from jaxcl.experiment import Experiment, steps_of
from jaxcl.extract import pool
from jaxcl.losses import keyless, nt_xent
from jaxcl.methods import simclr
from jaxcl.train import optim, placement


@dataclass(frozen=True)
class Knobs:
    digits: int = 4
    """Digits on every canvas that is trained on."""
    placement: Literal["random", "grid"] = "random"
    """Anywhere, overlaps allowed, or in the cells of a 4 x 4 grid."""
    second_size: int | None = None
    """Not `digits` but two: one of 20 pixels, and one of so many."""
    canvas: int = 112
    """Pixels each way."""
    train_canvases: int = 10000
    """Canvases to train on, and as many to train the evaluation's classifier on."""
    test_canvases: int = 2000
    """Canvases to test on."""
    epochs: float = 12
    """Passes over the canvases."""
    batch_size: int = 256
    """Images a step, two views each."""
    temperature: float = 0.2
    """NT-Xent's temperature."""
    learning_rate: float = 2e-3
    """Peak of AdamW's learning rate."""
    min_area: float = 0.3
    """The smallest share of the canvas that a crop may keep."""
    data: str = "tfds:mnist"
    """The digits: tfds:NAME, folder:PATH or npz:PATH, of one channel."""
    data_dir: str | None = None
    """Where TFDS prepared its data sets (its own default if not given)."""
    seed: int = 0
    """The canvases, initial weights, order of the images, augmentation."""
    run_as: Literal["jit", "shard_map", "pmap"] = "jit"
    """Where a step runs."""


def experiment(knobs: Knobs) -> Experiment:
    train, evaluated = canvases(knobs)
    steps = steps_of(knobs.epochs, train, knobs.batch_size)
    axis_name = placement.axis_name(knobs.run_as)
    norm = nets.batch_norm(axis_name=axis_name)
    crop = augment.random_resized_crop(
        knobs.canvas, area=(knobs.min_area, 1.0), law=augment.uniform_height, method="bilinear"
    )
    views = augment.two_views(crop)
    learning_rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=steps // 10)
    return Experiment(
        method=simclr(
            views=views,
            encoder=nets.conv_n(norm=norm, features=(16, 32, 64, 128), dense=1),
            # The map before conv_n's last layer: averaged over space it does not know where a digit stands.
            extract=average_of_last_but_one,
            head=nets.projection_head(layers=2, out=64, norm=norm),
            loss=keyless(nt_xent, temperature=knobs.temperature),
            axis_name=axis_name,
        ),
        optimizer=optim.adamw(learning_rate, weight_decay=1e-4),
        learning_rate=learning_rate,
        train=train,
        test=next(iter(evaluated.values()))[1],
        evaluated=evaluated,
        views=views,
        batch_size=knobs.batch_size,
        steps=steps,
        seed=knobs.seed,
        placement=knobs.run_as,
        log_every=20,
    )


def average_of_last_but_one(maps):
    return pool(maps[:-1])


def canvases(knobs: Knobs):
    """What is trained on, and (train, test) for each kind of label."""
    digits = [data.load(knobs.data, split, data_dir=knobs.data_dir) for split in ("train", "test")]
    counts = (knobs.train_canvases, knobs.test_canvases)
    if knobs.second_size is not None:
        by_kind = [
            data.two_digits(
                images, sizes=(20, knobs.second_size), count=count, seed=knobs.seed, canvas=knobs.canvas
            )
            for images, count in zip(digits, counts, strict=True)
        ]
        evaluated = {kind: (by_kind[0][kind], by_kind[1][kind]) for kind in by_kind[0]}
        return by_kind[0]["first digit"], evaluated

    def scattered(images, number, count):
        canvases, _ = data.multi_digits(
            images,
            digits=number,
            count=count,
            seed=knobs.seed,
            canvas=knobs.canvas,
            placement=knobs.placement,
        )
        return canvases

    train = scattered(digits[0], knobs.digits, counts[0])
    alone = tuple(scattered(images, 1, count) for images, count in zip(digits, counts, strict=True))
    return train, {"a single digit": alone}
