"""CMC on CIFAR-10 on a CPU: brightness against color, an encoder of half the width each.

    jaxcl train configs/cmc_cifar10_cpu.py --data-dir DATA_DIR
    jaxcl train configs/cmc_cifar10_cpu.py --negatives 16384 --loss nce --temperature 0.07 --data-dir DATA_DIR  # paper
    jaxcl evaluate runs/cmc_cifar10_cpu --protocol knn linear

Views are cropped and flipped only, as in the paper, and negatives are the other images of the batch. The paper's memory
of all images is for its 240 epochs: after two of them, at 1024 negatives, kNN accuracy was below that of the untrained
encoders. In the batch, --epochs 4 reaches 52.9 +- 0.8 % kNN and 57.0 +- 0.4 % linear accuracy in three minutes of one
core (standard deviation over three seeds; raw pixels 36.1 and 41.5, the untrained encoders 40.4 and 49.2).

--space lab and ycbcr are standardized as in the authors' code, ydbdr as in PyContrast, whose CMC also jitters colors.
What is not the paper's: encoder, batch, AdamW with a cosine and the temperature (cmc.py has them).
"""

from dataclasses import dataclass
from typing import Literal

from jaxcl import About, CommonKnobs, Recipe, augment, basics, losses, methods, nets, optim
from jaxcl.feature_transform import MIXES, mixing_scores


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    batch_size: int = 256
    space: Literal["lab", "ycbcr", "ydbdr"] = "lab"  # which brightness, and which color
    loss: Literal["softmax", "nce"] = "softmax"  # over the scores; or the paper's binary NCE of the same
    features: tuple[int, ...] = (16, 32, 64, 128)  # channels of each encoder's convolutions
    out: int = 128  # width of what is compared and remembered
    negatives: int = (
        0  # of each query, from a memory of all images (16384 in the authors' code); 0: of the batch
    )
    temperature: float = 0.1  # scores are divided by it (0.07 in the authors' code)
    momentum: float = 0.5  # what a row of the bank keeps at each visit
    min_area: float = 0.2  # the least fraction of the image that a crop keeps
    mix: Literal["none", "positives", "negatives", "both"] = "none"  # features mixed before the loss


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm = nets.batch_norm(axis_name=axis)
    encoder = lean(nets.small_convnet(features=knobs.features, norm=norm, dtype=dtype))
    softmax, nce = losses.keyless(losses.softmax_nce), losses.keyless(losses.binary_nce, images=about.count)
    views = augment.channel_views(augment.cmc(size, min_area=knobs.min_area, space=knobs.space), (1, 2))
    rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=steps // 20)
    method = methods.cmc(
        views=views,
        channels=augment.split_channels(augment.color_space(knobs.space), (1, 2)),
        encoders=(encoder,) * 2,
        heads=(nets.mlp_head(norm=nets.no_norm(), hidden=(), out=knobs.out),) * 2,
        images=about.count,
        negatives=knobs.negatives or "batch",
        temperature=knobs.temperature,
        momentum=knobs.momentum,
        transform=None if knobs.mix == "none" else mixing_scores(**MIXES[knobs.mix]),
        loss={"softmax": softmax, "nce": nce}[knobs.loss],
        axis_name=axis,
    )
    optimizer = optim.adamw(rate, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, augment.probe_views(size))
