"""MoCo on CIFAR-10 with ResNet-18, for one GPU: the recipe of the authors' demo.

    jaxcl train configs/moco_cifar10.py --data-dir DATA_DIR
    jaxcl evaluate runs/moco_cifar10 --protocol knn200 linear

The default knobs are those of facebookresearch/moco's colab/moco_cifar10_demo.ipynb, which reports 82.6, 86.3 and
88.7 % kNN accuracy after 200, 400 and 800 epochs, and with --symmetric 85.3, 88.5 and 89.7 (k=200, weights
exp(cosine / 0.1), on the network's 128 outputs; `knn200` takes the 512 features below them). Unlike there, pixels are
not rounded to bytes between augmentations; the encoder computes in bfloat16 (--dtype float32). Not yet run to its end.
With v2's head and temperature, and mixing from the first step on, the head's outputs stayed alike in two runs;
--start-epoch delays it (benchmarks/results/mixing-resnet18-h100.md).
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxcl import About, CommonKnobs, Recipe, augment, basics, losses, methods, nets, nonzero, optim, steps_of
from jaxcl.feature_transform import mixing
from jaxcl.monitor import score_monitor


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    epochs: float = 200
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    log_every: int = 50
    knn_every: float = 10
    depth: int = 18  # ResNet-18, 34, 50, 101 or 152
    head: Literal["linear", "mlp"] = "linear"  # of MoCo v1, or of v2, which wants --temperature 0.2
    queue_size: int = 4096  # keys that are remembered
    decay: float = 0.99  # of the key encoder's moving average
    temperature: float = 0.1  # of the loss
    symmetric: bool = False  # both views are queries in turn
    groups: int = 8  # of a batch, each with its own statistics (--chunks N: groups / N each); 1: no groups
    shuffle: bool = True  # keys go through the network in a random order
    extrapolate: float = 0.0  # alpha of the extrapolation of positives (2.0 in the paper); 0 is none
    interpolate: float = 0.0  # alpha of the interpolation of negatives (1.6 in the paper); 0 is none
    dimension_wise: bool = False  # a mixing factor for every entry, not one a step
    start_epoch: float = 0.0  # when mixing starts
    learning_rate: float = 0.06  # for this batch size
    weight_decay: float = 5e-4  # L2 penalty on the gradient, of all parameters


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm = nets.batch_norm(axis_name=axis, groups=knobs.groups)
    net = {"norm": norm, "dtype": dtype, "zero_init_last_gamma": False, "initialization": "torch"}
    encoder = nets.resnet(knobs.depth, stem="cifar", **net)
    views = augment.two_views(augment.moco_v2(size, min_area=0.08, blur=False))
    mix = {"positives": nonzero(knobs.extrapolate), "negatives": nonzero(knobs.interpolate)}
    mixed = any(alpha is not None for alpha in mix.values())
    hidden = {"linear": (), "mlp": (512,)}[knobs.head]
    start = steps_of(knobs.start_epoch, about.count, knobs.batch_size)
    epoch = steps_of(1, about.count, knobs.batch_size)  # the demo asks for its rate once an epoch, from 1 on
    rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=0, every=epoch, counted_from=1)
    method = methods.moco(
        views=views,
        encoder=lean(nets.standardized(encoder, **nets.STATISTICS["cifar10_moco"])),
        head=nets.mlp_head(norm=nets.no_norm(), hidden=hidden, out=128, initialization="torch"),
        loss=losses.keyless(losses.queue_nce, temperature=knobs.temperature),
        queue_size=knobs.queue_size,
        decay=knobs.decay,
        symmetric=knobs.symmetric,
        shuffle=knobs.shuffle,
        transform=mixing(dimension_wise=knobs.dimension_wise, start=start, **mix) if mixed else None,
        scores=partial(score_monitor, temperature=knobs.temperature),
        axis_name=axis,
    )
    optimizer = optim.sgd(rate, momentum=0.9, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, augment.probe_views(size))
