"""MultiDigits: can SimCLR learn digits from canvases that hold many of them, or a large one beside a small one?

    jaxcl sweep configs/multidigits.py --digits 1 2 4 8 16 --arrange random grid --data-dir DATA_DIR
    jaxcl sweep configs/multidigits.py --second-size 20 30 40 50 60 70 80 --data-dir DATA_DIR

MNIST digits on blank canvases of 112 x 112 pixels ("Intriguing Properties of Contrastive Losses", Chen, Luo and Li,
2021, arXiv:2011.02803), with a small encoder instead of a ResNet. Published findings are pictures without
numbers: accuracy stays flat up to about eight digits and falls then, more so where they overlap; and the larger one of
two digits grows, the less is known of the small one. The paper's protocol for several digits is not published. Here,
with `--digits`, the encoder is evaluated on canvases with a single digit (chance: 10 %), whatever it was trained on;
with `--second-size` (two digits, the first of 20 pixels) by either digit. Reached: benchmarks/results/multidigits.md.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxcl import About, CommonKnobs, Recipe, augment, basics, methods, nets, optim
from jaxcl.data import Data, load, multi_digits, two_digits
from jaxcl.extract import pool
from jaxcl.feature_transform import Mix, nt_xent_of


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    data: str = "tfds:mnist"
    size: int = 112  # pixels each way of a canvas
    epochs: float = 12
    batch_size: int = 256
    digits: int = 4  # on every canvas that is trained on
    arrange: Literal["random", "grid"] = "random"  # anywhere, or in the cells of a 4 x 4 grid
    second_size: int | None = None  # not `digits` but two: one of 20 pixels, and one of so many
    train_canvases: int = 10000  # to train on, and as many to train the evaluation's classifier on
    test_canvases: int = 2000  # to test on
    temperature: float = 0.2  # of NT-Xent
    mix: Mix = "none"  # which features are mixed before the loss (`feature_transform.MIXES`)
    min_area: float = 0.3  # the smallest fraction of the canvas that a crop may keep


def data(knobs: Knobs) -> Data:
    """Canvases of digits, drawn by --seed; with `--second-size` labelled by the first digit and by the second."""

    def canvases(split: str, digits: int | None = None):
        count = knobs.train_canvases if split == "train" else knobs.test_canvases
        images = load(knobs.data, split, data_dir=knobs.data_dir)
        settings = {"images": images, "count": count, "seed": knobs.seed, "canvas": knobs.size}
        if digits is None:
            return two_digits(**settings, sizes=(20, knobs.second_size))
        return multi_digits(**settings, digits=digits, placement=knobs.arrange)[0]

    if knobs.second_size is not None:
        return Data.of_kinds("two digits", canvases, evaluate_on=knobs.evaluate_on)
    many, one = (partial(canvases, "train", digits) for digits in (knobs.digits, 1))
    test = partial(canvases, knobs.evaluate_on, 1)
    return Data("canvases", train=many, test=test, evaluated=lambda: {"a single digit": (one(), test())})


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm = nets.batch_norm(axis_name=axis)
    crops = {"distribution": augment.uniform_height, "method": "bilinear"}
    views = augment.two_views(augment.random_resized_crop(size, area=(knobs.min_area, 1.0), **crops))
    method = methods.simclr(
        views=views,
        encoder=lean(nets.conv_n(norm=norm, features=(16, 32, 64, 128), dense=1, dtype=dtype)),
        # The map before conv_n's last layer: averaged over space it does not know where a digit stands.
        extract=lambda maps: pool(maps[:-1]),
        head=nets.projection_head(layers=2, out=64, norm=norm),
        loss=nt_xent_of(knobs.mix, temperature=knobs.temperature),
        axis_name=axis,
    )
    rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=steps // 10)
    optimizer = optim.adamw(rate, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size)
