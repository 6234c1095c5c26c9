"""LooC and LooC++ on a CPU, beside their controls: what does a representation keep of color and rotation?

    jaxcl train configs/looc_cpu.py --data-dir DATA_DIR
    jaxcl study leave_one_out --data-dir DATA_DIR
    jaxcl evaluate runs/looc_cpu --protocol linear rotation hue fewshot5          (LooC++: with --parts, each head's)

Color (jitter with grayscale) and rotation by 90 degrees are among the augmentations of every method; LooC has a space
for each that is asked to keep it. `moco_plus_plus` is MoCo with as many last layers as LooC++ has. At equal epochs LooC
costs half as much again as MoCo. In the paper (ResNet-50, ImageNet-100) the accuracy on rotation is 43.3 % for MoCo and
65.2 % for LooC, on classes 79.4 and 80.2 %, with rotation as the only space (--augmentations rotation). Here, with
both, after 3 epochs of a smaller encoder, LooC tells the rotation 1.7 +- 1.0 points more often than MoCo (95 %), seed
by seed, and the class no worse (benchmarks/results/leave-one-out.md); after 40 of a wider one on a GPU 6.4 +- 0.4
points, and the class 2.7 +- 0.3 (leave-one-out-h100.md there).
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxcl import About, CommonKnobs, Recipe, augment, basics, methods, nets, optim
from jaxcl.feature_transform import MIXES, Mix, mixing


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    method: Literal["moco", "looc", "looc_plus_plus", "moco_plus_plus"] = "looc"  # which of the four
    augmentations: tuple[Literal["color", "rotation", "texture"], ...] = ("color", "rotation")
    """What LooC makes a space for; all methods are augmented with it, and with color in any case."""
    filter: bool = False  # same-image keys that drew the query's parameters by chance are no negatives
    features: tuple[int, ...] = (32, 64, 128, 256)  # of the convolutions; the last is a space's own in LooC++
    queue_size: int = 4096  # keys that are remembered in each space
    decay: float = 0.99  # of the key encoder's moving average
    temperature: float = 0.2  # of the loss
    mix: Mix = "none"  # which features are mixed before the loss (`feature_transform.MIXES`)
    groups: int = 8  # of a batch, each with its own statistics (--chunks N: groups / N each); 1: no groups


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm = nets.batch_norm(axis_name=axis, groups=knobs.groups)
    in_spaces, deep = knobs.method.startswith("looc"), knobs.method.endswith("plus_plus")
    chosen = {name: augment.looc()[name] for name in knobs.augmentations}
    usual = [] if "color" in chosen else [augment.looc()["color"]]
    before = augment.compose(augment.random_resized_crop(size, area=(0.2, 1.0)), augment.flip(), *usual)
    left_out = augment.leave_one_out(chosen, before=before, after=augment.clip())
    together = augment.two_views(augment.compose(before, *chosen.values(), augment.clip()))
    views = left_out.views if in_spaces else together
    shallow = knobs.features[:-1] if deep else knobs.features
    build = partial(
        methods.looc,
        views=views,
        encoder=lean(nets.small_convnet(features=shallow, norm=norm, dtype=dtype)),
        branch=lean(nets.conv_stage(features=knobs.features[-1], norm=norm, dtype=dtype)) if deep else None,
        head=nets.mlp_head(norm=nets.no_norm(), hidden=(512,), out=128),
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
    rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=steps // 20)
    optimizer = optim.adamw(rate, weight_decay=knobs.weight_decay)
    return Recipe(build(), optimizer, rate, views, steps, knobs.batch_size, augment.probe_views(size), parts)
