"""SimCLR, MoCo or BYOL with batch norm, as small as they go: what several devices and processes compute together."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import optax

from jaxcl import About, CommonKnobs, Recipe, augment, basics, losses, methods, nets


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    batch_size: int = 16
    log_every: int = 4
    save_every: int = 4
    method: Literal["simclr", "moco", "byol"] = "simclr"
    learning_rate: float = 0.02


def recipe(knobs: Knobs, about: About) -> Recipe:
    _, steps, axis, _, _ = basics(knobs, about)
    views = augment.two_views(augment.compose(augment.flip(), augment.grayscale(probability=0.5)))
    moco = knobs.method == "moco"
    groups = 8 if moco else 1  # MoCo's shuffle is for statistics of parts of the batch
    norm = nets.batch_norm(axis_name=axis, groups=groups)
    # Statistics of two vectors would be signs, that a last bit turns: those of MoCo's groups are of whole maps.
    encoder = (
        nets.small_convnet(features=(8,), norm=norm)
        if moco
        else nets.conv_n(features=(4,), dense=8, norm=norm)
    )
    linear = partial(nets.mlp_head, norm=nets.no_norm(), hidden=())
    make = {
        "simclr": lambda: methods.simclr(
            views=views,
            encoder=encoder,
            head=linear(out=4),
            loss=losses.keyless(losses.nt_xent, temperature=0.5),
            axis_name=axis,
        ),
        "moco": lambda: methods.moco(
            views=views,
            encoder=encoder,
            head=linear(out=4),
            loss=losses.keyless(losses.queue_nce, temperature=0.5),
            queue_size=64,
            decay=0.9,
            axis_name=axis,
        ),
        "byol": lambda: methods.byol(
            views=views,
            encoder=encoder,
            projector=linear(out=4),
            predictor=linear(out=4),
            loss=losses.keyless(losses.regression),
            decay=0.9,
            axis_name=axis,
        ),
    }[knobs.method]
    rate = optax.constant_schedule(knobs.learning_rate)
    optimizer = optax.sgd(knobs.learning_rate, momentum=0.9)
    return Recipe(make(), optimizer, rate, views, steps, knobs.batch_size)
