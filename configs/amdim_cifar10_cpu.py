"""AMDIM on CIFAR-10 on a CPU: its own encoder, narrow and shallow, or another one.

    jaxcl train configs/amdim_cifar10_cpu.py --data-dir DATA_DIR
    jaxcl evaluate runs/amdim_cifar10_cpu --protocol knn linear
    jaxcl sweep configs/amdim_cifar10_cpu.py --encoder amdim convnet --seed 0 1 2 --data-dir DATA_DIR

With --features 16 --out 128 --batch-size 128 --epochs 1 it reached 49.6 +- 2.4 % kNN and 55.6 +- 2.7 % linear accuracy
in four minutes of one core (2026-11-22, with other colors; standard deviation over three seeds; raw pixels 36.1, 41.5;
untrained 28.8, 33.8). Views, loss, clip, penalty, b1 and b2 are the authors' (Bachman et al. 2019); width, depth, AdamW
at 1e-3 with a cosine, and how it is evaluated are not: amdim.py has theirs (--features 256 --out 2048 --depth 10).
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxcl import About, CommonKnobs, Recipe, augment, basics, losses, methods, nets, optim
from jaxcl.extract import of_widths, pool, scales


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    batch_size: int = 256
    encoder: Literal["amdim", "convnet", "conv_n", "small_resnet18", "resnet18", "wide_resnet"] = "amdim"
    """AMDIM's own; the one of simclr_cifar10_cpu.py; three convolutions and a dense layer; a ResNet-18 with a small
    stem, of an eighth of the channels or all of them; WRN-10-2."""
    extraction: Literal["scales", "global_small", "global_large", "local", "last"] = "scales"
    """What is compared of three maps (a vector, a small one, a larger one): as published the vector with both, and a
    position of the small map with all of it; or one of these three alone; or the vector with the other view's."""
    channels: tuple[int, ...] = (32, 64, 128, 256)  # of the convnet
    embed_vector: bool = False  # AMDIM's vector goes through a network too, as the maps of all encoders do
    evaluated_width: int = 0  # of the map whose average is evaluated, whatever is compared; 0: the last map's
    features: int = 32  # channels of the first layer of AMDIM's encoder
    depth: int = 2  # layers in each of its blocks
    out: int = 256  # width of what is compared
    clip: float = 20.0  # scores stay within plus and minus this
    penalty: float = 0.05  # weight of the mean squared score
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5


COMPARE = {"scales": ((0, 1), (0, 2), (1, 1)), "global_small": ((0, 1),), "global_large": ((0, 2),)}
COMPARE |= {"local": ((1, 1),), "last": ((0, 0),)}  # Which of the three maps is compared with which.


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm = nets.batch_norm(axis_name=axis)
    own = knobs.encoder == "amdim"
    plain = {0} if own and not knobs.embed_vector else set()  # compared as it is
    amdim = partial(nets.amdim, features=knobs.features, out=knobs.out, depth=knobs.depth)
    encoders = nets.SMALL | {"amdim": amdim, "convnet": partial(nets.small_convnet, features=knobs.channels)}
    encoder = encoders[knobs.encoder](norm=norm, dtype=dtype)
    head, compare = nets.amdim_head(norm=norm, out=knobs.out), COMPARE[knobs.extraction]
    needed = {number for pair in compare for number in pair}  # another head would only be pulled to zero
    views = augment.each_view([augment.amdim(size)] * 2, shared=augment.flip())
    rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=steps // 20)
    method = methods.amdim(
        views=views,
        encoder=lean(nets.standardized(encoder, **nets.STATISTICS["cifar10"])),
        heads=[head if number in needed - plain else None for number in range(3)],
        loss=losses.keyless(losses.map_nce, clip=knobs.clip, penalty=knobs.penalty),
        extract=of_widths(1, 5, 7) if own else scales(3),
        compare=compare,
        represent=partial(pool, width=knobs.evaluated_width or None),
        axis_name=axis,
    )
    optimizer = optim.adamw(rate, b1=0.8, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, augment.probe_views(size))
