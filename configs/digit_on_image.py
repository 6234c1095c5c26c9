"""Digits pasted on photographs: the more different digits there are, the less is learnt of the photograph.

    jaxcl sweep configs/digit_on_image.py --unique 1 4 16 64 256 4096 60000 --data-dir DATA_DIR
    jaxcl sweep configs/digit_on_image.py --preset imagenet100 --unique 1 4 16 64 256 4096 60000 --data-dir DATA_DIR
    jaxcl plot runs/digit_on_image-sweep --knob unique --lines labels

DigitOnImageNet of "Intriguing Properties of Contrastive Losses" (Chen, Luo and Li, 2021, arXiv:2011.02803, figure 4b),
made as in `digits_on_tf_flowers.ipynb`, but that a digit stays with its photograph (there it is drawn anew in every
pass), of the centre square, not of all of it squeezed, and antialiased. By default
CIFAR-10 enlarged to 64 pixels with digits of 8, for one GPU. imagenet100: the published 224 pixels with nine digits of
28 and a ResNet-50, of a hundred classes (40 GB of disk), for eight GPUs, by SGD where the paper has LARS. Published
finding: the more digits, the higher the accuracy on digits (of one there is none), the lower on photographs. Not run.
"""

from dataclasses import dataclass
from typing import Literal

from jaxcl import About, CommonKnobs, Recipe, augment, basics, methods, nets, optim
from jaxcl.data import Data, digit_on_image, load
from jaxcl.feature_transform import Mix, nt_xent_of


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    size: int = 64  # pixels each way of an image; digits are an eighth of it wide (224 in the paper)
    epochs: float = 50
    log_every: int = 50
    unique: int = 16  # how many different digits are pasted
    digits: str = "tfds:mnist"  # gray and square; the first ones of its training split are pasted everywhere
    temperature: float = 0.2  # of NT-Xent
    mix: Mix = "none"  # which features are mixed before the loss (`feature_transform.MIXES`)
    depth: int = 18  # ResNet-18, 34, 50, 101 or 152
    stem: Literal["cifar", "imagenet"] = "cifar"  # 3x3; or 7x7 and a pool, each with stride 2
    strength: float = 0.5  # of the color jitter
    blur: bool = False  # as in SimCLR's recipe for large images
    learning_rate: float = 0.06  # base rate, for 256 images; grows linearly with the batch
    weight_decay: float = 5e-4  # L2 penalty on the gradient


IMAGENET100 = {"data": "tfds:imagenet2012#imagenet100", "size": 224, "dtype": "bfloat16"}
IMAGENET100 |= {"epochs": 100, "batch_size": 1024, "strength": 1.0}
PRESETS = {"cifar10": Knobs(), "imagenet100": Knobs(**IMAGENET100, depth=50, stem="imagenet", blur=True)}


def data(knobs: Knobs) -> Data:
    """--data with digits on it, of all seeds the same, labelled by the photograph and by the digit."""

    def made(split: str):
        photos = load(knobs.data, split, data_dir=knobs.data_dir, size=knobs.size)
        digits = load(knobs.digits, "train", data_dir=knobs.data_dir)
        return digit_on_image(photos, digits, unique=knobs.unique, seed=0, size=knobs.size)

    return Data.of_kinds(f"{knobs.unique} digits on {knobs.data}", made, evaluate_on=knobs.evaluate_on)


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm = nets.batch_norm(axis_name=axis)
    views = augment.two_views(augment.simclr(size, strength=knobs.strength, blur=knobs.blur))
    encoder = lean(nets.resnet(knobs.depth, stem=knobs.stem, norm=norm, dtype=dtype))
    head = nets.projection_head(layers=2, out=128, norm=norm)
    loss = nt_xent_of(knobs.mix, temperature=knobs.temperature)
    method = methods.simclr(views=views, encoder=encoder, head=head, loss=loss, axis_name=axis)
    peak = optim.scaled_learning_rate(knobs.learning_rate, knobs.batch_size)
    rate = optim.warmup_cosine(peak, steps=steps, warmup_steps=steps // 10)
    optimizer = optim.sgd(rate, momentum=0.9, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size)
