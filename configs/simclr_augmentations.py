"""SimCLR's study of augmentations (arXiv:2002.05709, section 3.1, figure 5): one, or two in a row, on one branch.

    jaxcl sweep configs/simclr_augmentations.py --first crop cutout color sobel noise blur rotate
        --second crop cutout color sobel noise blur rotate --protocol linear --data-dir DATA_DIR    (49 runs)
    jaxcl plot runs/simclr_augmentations-sweep --knob first --lines second
    jaxcl sweep configs/simclr_augmentations.py --preset imagenet --first ... --second ... --protocol linear
    jaxcl train configs/simclr_augmentations.py --first crop --second color --data-dir DATA_DIR

As in the paper every image is first cropped at random and resized, the same for both branches; then `first` and
`second` change one branch and the other stays as it is. Where both are the same it is done once, the figure's diagonal.
Published finding, of ResNet-50 on ImageNet: no single one is enough, and random crops with color distortion stand out.
How often and how strongly each was done is not published: here always, color as in SimCLR's recipe. By default on
CIFAR-10 with the encoder of simclr_cifar10_cpu.py, half a minute to two minutes of one core a run. imagenet: loss,
steps and brightness are those of the paper's code, as in simclr_imagenet.py. Not run at that size.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxcl import About, CommonKnobs, Recipe, augment, basics, losses, methods, nets, optim, steps_across
from jaxcl.feature_transform import Mix, nt_xent_of

Change = Literal["crop", "cutout", "color", "sobel", "noise", "blur", "rotate"]


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    epochs: float = 4
    batch_size: int = 256
    first: Change = "crop"  # what is done to one branch
    second: Change = "color"  # and then; the same again: nothing more
    strength: float = 0.5  # of the color distortion
    encoder: Literal["convnet", "resnet50"] = "convnet"  # that of simclr_cifar10_cpu.py, or the paper's
    features: tuple[int, ...] = (16, 32, 64, 128)  # channels of the convnet's convolutions
    temperature: float = 0.2  # NT-Xent's temperature
    mix: Mix = "none"  # which features are mixed before the loss (`feature_transform.MIXES`)
    optimizer: Literal["adamw", "lars"] = "adamw"
    """lars: with the loss, steps and brightness of the paper's code."""


IMAGENET = {"data": "tfds:imagenet2012", "size": 224, "encoded": True, "input": "host", "dtype": "bfloat16"}
LARS = {"epochs": 100, "batch_size": 4096, "optimizer": "lars", "learning_rate": 4.8, "weight_decay": 1e-6}
PRESETS = {
    "cifar10": Knobs(),
    "imagenet": Knobs(**IMAGENET, **LARS, encoder="resnet50", strength=1.0, temperature=0.1),
}


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    published = knobs.optimizer == "lars"
    if "blur" in (knobs.first, knobs.second) and size < 20:
        raise ValueError(
            f"The published blur reaches a tenth of the height, so images of {size} pixels stay as they are. Choose"
            " --size 20 or more, or another change."
        )
    if published:
        steps = steps_across(knobs.epochs, about.count, knobs.batch_size) + 1
    norm = nets.batch_norm(axis_name=axis)
    crop = augment.random_resized_crop(size, distribution=augment.uniform_height)
    form = "add" if published else "multiply"
    jitter = augment.color_jitter(*[0.8 * knobs.strength] * 3, 0.2 * knobs.strength, brightness_form=form)
    changes = {
        "crop": crop,
        "cutout": augment.cutout(probability=1.0),
        "color": augment.compose(jitter, augment.grayscale()),
        "sobel": augment.sobel(probability=1.0),
        "noise": augment.gaussian_noise(probability=1.0),
        "blur": augment.gaussian_blur(probability=1.0),
        "rotate": augment.rotate90(probability=0.75),  # by 0, 90, 180 or 270 degrees, evenly
    }
    done = [changes[name] for name in dict.fromkeys((knobs.first, knobs.second))]
    kept = augment.clip()
    views = augment.each_view((augment.compose(kept, *done, augment.clip()), kept), shared=crop)
    encoder = nets.small_convnet(features=knobs.features, norm=norm, dtype=dtype)
    if knobs.encoder == "resnet50":
        encoder = nets.resnet(50, stem="imagenet", norm=norm, dtype=dtype)
    head = nets.projection_head(layers=2, width=None if knobs.encoder == "resnet50" else 512, norm=norm)
    loss = nt_xent_of(knobs.mix, temperature=knobs.temperature)
    loss = partial(losses.scaled, loss=loss, factor=2.0) if published else loss
    method = methods.simclr(views=views, encoder=lean(encoder), head=head, loss=loss, axis_name=axis)
    rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=steps // 10)
    make = optim.lars if published else optim.adamw
    optimizer = make(rate, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, augment.probe_views(size))
