"""LooC and LooC++ with ResNet-50 on ImageNet-100, beside their controls: the paper's runs (arXiv:2008.05659), 8 GPUs.

    jaxcl train configs/looc.py --preset looc_plus_plus --data-dir DATA_DIR
    jaxcl sweep configs/looc.py --method moco looc --augmentations color rotation color,rotation --data-dir DATA_DIR
    jaxcl evaluate runs/looc_looc_plus_plus --protocol linear_moco rotation corruption --set epochs=200 --parts
    jaxcl evaluate runs/looc_looc --protocol linear_moco --set epochs=200 --test-data objectnet13:OBJECTNET/images
    jaxcl evaluate runs/looc_looc --protocol fewshot5 fewshot10 --data tfds:oxford_flowers102 --data-dir DATA_DIR
    jaxcl evaluate runs/looc_looc --protocol linear_moco --set epochs=200 --encoded --data tfds:caltech_birds2011
    jaxcl evaluate runs/looc_looc --protocol linear_moco --encoded --layout deepest --data folder:train_val2019

Accuracy on the classes, of color and rotation together, after 500 epochs: LooC 79.2 %, LooC++ 81.2; of all three
augmentations: MoCo 77.9, LooC 78.5, MoCo++ 80.8, LooC++ 82.2; MoCo with color alone 81.0 (tables 2 and 4). Its tables
of transfer are (above) to ObjectNet's 13 classes among the hundred, by the classifier of all hundred, to Flowers-102,
to CUB-200 and to iNaturalist 2019, which TFDS has not: a folder of kingdoms that hold the species, of whose files a
tenth is held out. What the paper does not say is MoCo v2's: rate, weight decay, temperature, decay. Its texture is
stylised photographs, which must be made; `augment.texture` stands in for it. Not run here.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxcl import About, ImageNetKnobs, Recipe, augment, basics, methods, nets, optim, steps_of
from jaxcl.feature_transform import MIXES, Mix, mixing


@dataclass(frozen=True)
class Knobs(ImageNetKnobs):
    data: str = "tfds:imagenet2012#imagenet100"
    epochs: float = 500
    batch_size: int = 256
    method: Literal["moco", "looc", "looc_plus_plus", "moco_plus_plus"] = "looc"  # which of the four
    augmentations: tuple[Literal["color", "rotation", "texture"], ...] = ("color", "rotation")
    """What LooC makes a space for; all methods are augmented with it, and with color in any case."""
    filter: bool = False  # same-image keys that drew the query's parameters by chance are no negatives
    depth: int = 50  # ResNet-18, 34, 50, 101, 152 or 200
    queue_size: int = 16384  # keys that are remembered in each space
    decay: float = 0.999  # of the key encoder's moving average
    temperature: float = 0.2  # of the loss
    mix: Mix = "none"  # which features are mixed before the loss (`feature_transform.MIXES`)
    groups: int = 8  # of a batch, each with its own statistics (--chunks N: groups / N each); 1: no groups
    learning_rate: float = 0.03  # of SGD, for 256 images; grows linearly with the batch
    falls: tuple[float, ...] = (300, 400)  # the epochs at which it falls to a tenth
    weight_decay: float = 1e-4  # L2 penalty on the gradient, of all parameters


PRESETS = {name: Knobs(method=name) for name in ("moco", "looc", "looc_plus_plus", "moco_plus_plus")}


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm = nets.batch_norm(axis_name=axis, groups=knobs.groups)
    in_spaces, deep = knobs.method.startswith("looc"), knobs.method.endswith("plus_plus")
    chosen = {name: augment.looc(colors="torchvision")[name] for name in knobs.augmentations}
    usual = [] if "color" in chosen else [augment.looc(colors="torchvision")["color"]]
    before = augment.compose(augment.torchvision_crop(size, 0.2), augment.flip(), *usual)
    # MoCo v2's; drawn anew for every view, as the crop.
    after = augment.compose(augment.gaussian_blur(border="edge", boxes=3), augment.clip())
    left_out = augment.leave_one_out(chosen, before=before, after=after)
    together = augment.two_views(augment.compose(before, *chosen.values(), after))
    views = left_out.views if in_spaces else together
    net = {"norm": norm, "dtype": dtype, "zero_init_last_gamma": False, "initialization": "torch"}
    encoder = nets.resnet(knobs.depth, stem="imagenet", pool="torch", stages=3 if deep else 4, **net)
    build = partial(
        methods.looc,
        views=views,
        encoder=lean(nets.standardized(encoder, **nets.STATISTICS["imagenet"])),
        # In LooC++ the last stage, conv5, is a space's own.
        branch=lean(nets.resnet_stage(knobs.depth, **net)) if deep else None,
        head=nets.mlp_head(norm=nets.no_norm(), hidden=(2048,), out=128, initialization="torch"),
        spaces=1 if knobs.method == "moco" else 1 + len(chosen),
        temperature=knobs.temperature,
        queue_size=knobs.queue_size,
        decay=knobs.decay,
        transform=None if knobs.mix == "none" else mixing(**MIXES[knobs.mix]),
        collisions=left_out.collisions if in_spaces and knobs.filter else None,
        axis_name=axis,
    )
    parts = None
    if in_spaces and deep:  # the paper's table 5: the invariant space alone, and with one other
        spaces = {"invariant": (0,)} | {f"invariant + {name}": (0, i) for i, name in enumerate(chosen, 1)}
        parts = {name: build(embedded=those).embed for name, those in spaces.items()}
    peak = optim.scaled_learning_rate(knobs.learning_rate, knobs.batch_size)
    rate = optim.falling(peak, at=[steps_of(epoch, about.count, knobs.batch_size) for epoch in knobs.falls])
    optimizer = optim.sgd(rate, momentum=0.9, weight_decay=knobs.weight_decay)
    return Recipe(build(), optimizer, rate, views, steps, knobs.batch_size, augment.probe_views(size), parts)
