"""MoCo v2 on CIFAR-10 on a CPU, with the encoder, augmentation, optimizer and length of simclr_cifar10_cpu.py.

    jaxcl train configs/moco_cifar10_cpu.py --data-dir DATA_DIR
    jaxcl evaluate runs/moco_cifar10_cpu --protocol knn linear
    jaxcl study mixing --data-dir DATA_DIR                           (extrapolated positives, interpolated negatives)

Extrapolation from the first step may keep the features of so small and short a run alike: --head projection helps, and
--start-epoch may (one seed: 41.5 for 39.0 % kNN). After 3 epochs of a smaller encoder MoCo reaches 45.2 % kNN, with
extrapolation 41.9, with interpolation 43.9 (benchmarks/results/mixing.md). --symmetric makes both views queries, as
both are SimCLR's anchors.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxcl import About, CommonKnobs, Recipe, augment, basics, losses, methods, nets, nonzero, optim, steps_of
from jaxcl.feature_transform import mixing
from jaxcl.monitor import score_monitor


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    features: tuple[int, ...] = (32, 64, 128, 256)  # channels of the encoder's convolutions
    queue_size: int = 4096  # keys that are remembered
    decay: float = 0.99  # of the key encoder's moving average
    temperature: float = 0.2  # of the loss
    symmetric: bool = False  # both views are queries in turn
    groups: int = 8  # of a batch, each with its own statistics (--chunks N: groups / N each); 1: no groups
    head: Literal["mlp", "projection"] = "mlp"  # MoCo v2's, without norm; or SimCLR's, with norms
    extrapolate: float = 0.0  # alpha of the extrapolation of positives (2.0 in the paper); 0 is none
    interpolate: float = 0.0  # alpha of the interpolation of negatives (1.6 in the paper); 0 is none
    dimension_wise: bool = False  # A mixing factor for every entry, not one a step
    start_epoch: float = 0.0  # when mixing starts
    strength: float = 0.5  # strength of the color jitter


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    start = steps_of(knobs.start_epoch, about.count, knobs.batch_size)
    norm = nets.batch_norm(axis_name=axis, groups=knobs.groups)
    heads = {
        "mlp": nets.mlp_head(norm=nets.no_norm(), hidden=(512,), out=128),
        "projection": nets.projection_head(layers=2, width=512, out=128, norm=norm),
    }
    mix = {"positives": nonzero(knobs.extrapolate), "negatives": nonzero(knobs.interpolate)}
    mixed = any(alpha is not None for alpha in mix.values())
    views = augment.two_views(augment.simclr(size, strength=knobs.strength, blur=False))
    rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=steps // 20)
    method = methods.moco(
        views=views,
        encoder=lean(nets.small_convnet(features=knobs.features, norm=norm, dtype=dtype)),
        head=heads[knobs.head],
        loss=losses.keyless(losses.queue_nce, temperature=knobs.temperature),
        queue_size=knobs.queue_size,
        decay=knobs.decay,
        symmetric=knobs.symmetric,
        transform=mixing(dimension_wise=knobs.dimension_wise, start=start, **mix) if mixed else None,
        scores=partial(score_monitor, temperature=knobs.temperature),
        axis_name=axis,
    )
    optimizer = optim.adamw(rate, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, augment.probe_views(size))
