"""YADIM on CIFAR-10 on a CPU, with any of several encoders. (What of YADIM is inferred: `jaxcl.methods.yadim`.)

    jaxcl train configs/yadim_cifar10_cpu.py --data-dir DATA_DIR
    jaxcl evaluate runs/yadim_cifar10_cpu --protocol knn linear

With --batch-size 128 --epochs 2 it reached 46.9 +- 0.2 % kNN and 51.6 +- 0.4 % linear accuracy in four minutes of one
core (2026-11-22, with other colors; standard deviation over three seeds; raw pixels 36.1 and 41.5, its untrained
encoder 41.9 and 47.7). The paper's main results have, as far as is known, AMDIM's encoder (--encoder amdim), whose last
map is one vector, compared as it is (--no-head), with AMDIM's loss. Here another encoder is the default, and a network
embeds the positions of its last map; the other settings are AMDIM's (a clip of 20, for Bolts' 10) or those of
amdim_cifar10_cpu.py.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxcl import About, CommonKnobs, Recipe, augment, basics, losses, methods, nets, optim
from jaxcl.extract import average, larger, last, pool, random_channels

EXTRACTIONS = {"last": last, "average": average, "larger": larger, "random": random_channels(last, 64)}


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    batch_size: int = 256
    encoder: Literal["convnet", "amdim", "conv_n", "small_resnet18", "resnet18", "wide_resnet"] = "convnet"
    """The one of simclr_cifar10_cpu.py; AMDIM's own; three convolutions and a dense layer; a ResNet-18 with a small
    stem, of an eighth of the channels or all of them; WRN-10-2."""
    extraction: Literal["last", "average", "larger", "random"] = "last"
    """The last map as it is; its average; the deepest larger map; the last one's channels mixed at random to 64."""
    head: bool = True  # A network embeds the positions of the map; without one the map is compared as it is
    evaluated_width: int = 0  # of the map whose average is evaluated, whatever is compared; 0: the last map's
    channels: tuple[int, ...] = (32, 64, 128, 256)  # of the convnet
    features: int = 32  # channels of the first layer of AMDIM's encoder
    depth: int = 2  # layers in each of its blocks
    out: int = 256  # width of what is compared
    clip: float = 20.0  # scores stay within plus and minus this
    penalty: float = 0.05  # weight of the mean squared score
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm = nets.batch_norm(axis_name=axis)
    own = partial(nets.amdim, features=knobs.features, out=knobs.out, depth=knobs.depth)
    encoders = nets.SMALL | {"amdim": own, "convnet": partial(nets.small_convnet, features=knobs.channels)}
    encoder = encoders[knobs.encoder](norm=norm, dtype=dtype)
    views = augment.two_views(augment.compose(augment.flip(), augment.amdim(size)))
    rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=steps // 20)
    method = methods.yadim(
        views=views,
        encoder=lean(nets.standardized(encoder, **nets.STATISTICS["cifar10"])),
        head=nets.amdim_head(norm=norm, out=knobs.out) if knobs.head else None,
        loss=losses.keyless(losses.map_nce, clip=knobs.clip, penalty=knobs.penalty),
        extract=EXTRACTIONS[knobs.extraction],
        represent=partial(pool, width=knobs.evaluated_width or None),
        axis_name=axis,
    )
    optimizer = optim.adamw(rate, b1=0.8, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, augment.probe_views(size))
