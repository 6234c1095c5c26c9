"""Digits pasted on photographs: the more different digits there are, the less is learnt of the photograph.

    jaxcl sweep configs/digit_on_image.py --unique 1 4 16 64 256 4096 60000 --data-dir DATA_DIR

DigitOnImageNet of "Intriguing Properties of Contrastive Losses" (Chen, Luo and Li, 2021, arXiv:2011.02803, section 5),
made as in `digits_on_tf_flowers.ipynb`, here on CIFAR-10 enlarged to 64 pixels with digits of 8 pixels, for one GPU.
Published finding: the more digits, the higher the accuracy on digits, the lower on photographs. Not yet run here.
"""

from dataclasses import dataclass

from jaxcl import About, CommonKnobs, Recipe, augment, basics, losses, methods, nets, optim
from jaxcl.data import Data, digit_on_image, load


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    size: int = 64  # pixels each way of an image; digits are an eighth of it wide (224 in the paper)
    epochs: float = 50
    log_every: int = 50
    unique: int = 16  # how many different digits are pasted
    digits: str = "tfds:mnist"  # gray and square; the first ones of its training split are pasted everywhere
    temperature: float = 0.2  # of NT-Xent
    depth: int = 18  # ResNet-18, 34, 50, 101 or 152
    learning_rate: float = 0.06  # base rate, for 256 images; grows linearly with the batch
    weight_decay: float = 5e-4  # L2 penalty on the gradient


def data(knobs: Knobs) -> Data:
    """The photographs of --data with digits on them, labelled by the photograph and by the digit."""

    def made(split: str):
        photos = load(knobs.data, split, data_dir=knobs.data_dir)
        digits = load(knobs.digits, "train", data_dir=knobs.data_dir)
        return digit_on_image(photos, digits, unique=knobs.unique, seed=knobs.seed, size=knobs.size)

    return Data.of_kinds(f"{knobs.unique} digits on {knobs.data}", made, evaluate_on=knobs.evaluate_on)


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm = nets.batch_norm(axis_name=axis)
    views = augment.two_views(augment.simclr(size, strength=0.5, blur=False))
    encoder = lean(nets.resnet(knobs.depth, stem="cifar", norm=norm, dtype=dtype))
    head = nets.projection_head(layers=2, out=128, norm=norm)
    loss = losses.keyless(losses.nt_xent, temperature=knobs.temperature)
    method = methods.simclr(views=views, encoder=encoder, head=head, loss=loss, axis_name=axis)
    peak = optim.scaled_learning_rate(knobs.learning_rate, knobs.batch_size)
    rate = optim.warmup_cosine(peak, steps=steps, warmup_steps=steps // 10)
    optimizer = optim.sgd(rate, momentum=0.9, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size)
