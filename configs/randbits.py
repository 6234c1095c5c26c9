"""RandBits on photographs: a few random bits beside an image keep a contrastive loss from learning the image.

    jaxcl sweep configs/randbits.py --bits 0 1 2 4 8 16 --seed 0 1 2 --protocol linear --data-dir DATA_DIR
    jaxcl sweep configs/randbits.py --bits 8 --loss nt_xent swd_sphere swd_normal swd_cube --data-dir DATA_DIR
    jaxcl sweep configs/randbits.py --bits 8 --temperature 0.05 0.1 0.2 0.5 --batch-size 256 1024 --data-dir DATA_DIR
    jaxcl sweep configs/randbits.py --preset imagenet100 --bits 0 2 4 8 16 --protocol linear --data-dir DATA_DIR

"Intriguing Properties of Contrastive Losses" (Chen, Luo and Li, 2021, arXiv:2011.02803, figure 5) does this on
ImageNet: every image has a random number, whose bits are further channels, the same in both views, which augmentation
leaves alone. Published finding, without numbers: a handful of bits makes linear accuracy fall, and neither a larger
batch nor another temperature or loss of the family helps. By default on CIFAR-10 with the encoder of
simclr_cifar10_cpu.py, three minutes of one core a run; imagenet100: a ResNet-50 at 224 pixels, with images and bits on
the disk (19 GB, and 6 for each bit), for eight GPUs. AdamW where the paper has LARS. Not run here. The published
notebook's MNIST: randbits_mnist.py.
"""

from dataclasses import dataclass
from typing import Literal

from jaxcl import About, CommonKnobs, Recipe, augment, basics, methods, nets, optim
from jaxcl.data import Data, load, rand_bits
from jaxcl.feature_transform import Mix, family_of


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    epochs: float = 4
    batch_size: int = 256
    bits: int = 8  # how many random bits every image has; those of an image are always the same
    loss: Literal["nt_xent", "decoupled", "swd_sphere", "swd_cube", "swd_normal"] = "nt_xent"
    """NT-Xent; its decoupled form; or alignment and the sliced Wasserstein distance to a prior."""
    temperature: float = 0.2  # of nt_xent
    mix: Mix = "none"  # of nt_xent: which features are mixed before the loss (`feature_transform.MIXES`)
    strength: float = 0.5  # of the color jitter
    encoder: Literal["convnet", "resnet50"] = "convnet"  # that of simclr_cifar10_cpu.py, or the paper's
    features: tuple[int, ...] = (16, 32, 64, 128)  # channels of the convnet's convolutions


IMAGENET100 = {"data": "tfds:imagenet2012#imagenet100", "size": 224, "dtype": "bfloat16"}
IMAGENET100 |= {"epochs": 100, "batch_size": 1024, "strength": 1.0}
PRESETS = {"cifar10": Knobs(), "imagenet100": Knobs(**IMAGENET100, encoder="resnet50")}


def data(knobs: Knobs) -> Data:
    def coded(split: str):
        images = load(knobs.data, split, data_dir=knobs.data_dir, size=knobs.size)
        return rand_bits(images, bits=knobs.bits, seed=0)

    name = f"{knobs.data} with {knobs.bits} bits"
    return Data(name, train=lambda: coded("train"), test=lambda: coded(knobs.evaluate_on))


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm, large = nets.batch_norm(axis_name=axis), knobs.encoder == "resnet50"
    colors = about.shape[2] - knobs.bits
    change = augment.simclr(size, strength=knobs.strength, blur=large)
    views = augment.two_views(augment.first_channels(change, colors))
    probe_views = augment.n_views(augment.first_channels(augment.crop_and_flip(size), colors), 1)
    encoder = nets.small_convnet(features=knobs.features, norm=norm, dtype=dtype)
    if large:
        encoder = nets.resnet(50, stem="imagenet", norm=norm, dtype=dtype)
    head = nets.projection_head(layers=2, width=None if large else 512, out=128 if large else 64, norm=norm)
    loss = family_of(knobs.mix, knobs.loss, temperature=knobs.temperature)
    method = methods.simclr(views=views, encoder=lean(encoder), head=head, loss=loss, axis_name=axis)
    rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=steps // 10)
    optimizer = optim.adamw(rate, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, probe_views)
