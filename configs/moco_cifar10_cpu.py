"""MoCo v2 on CIFAR-10 on a CPU, with the encoder, augmentation, optimizer and length of simclr_cifar10_cpu.py.

    jaxcl train configs/moco_cifar10_cpu.py --data-dir DATA_DIR
    jaxcl evaluate runs/moco_cifar10_cpu --protocol knn linear

MoCo, extrapolated positives, interpolated negatives and both, over three seeds (the row of SimCLR beside them is
simclr_cifar10_cpu.py at the same number of epochs):

    jaxcl sweep configs/moco_cifar10_cpu.py --head projection --extrapolate 0 2 --interpolate 0 1.6 --seed 0 1 2
        --epochs 10 --data-dir DATA_DIR

Extrapolation from the first step may keep the features of so small and short a run alike (see
`feature_transform.mixing`): look at the scores, and try --head projection or --start-epoch. After 3 epochs of a smaller
encoder MoCo reaches 45.0 % kNN, with extrapolation 42.0, with interpolation 44.4
(benchmarks/results/feature-transform-cifar10.md); the full 20 epochs were not yet run.

A step sees one query and one key of each image, where SimCLR's sees two anchors; --symmetric makes both views queries.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxcl import augment, data, nets
from jaxcl.experiment import Experiment, steps_of
from jaxcl.feature_transform import mixing
from jaxcl.losses import keyless, queue_nce
from jaxcl.methods import moco
from jaxcl.monitor import score_monitor
from jaxcl.train import optim, placement


@dataclass(frozen=True)
class Knobs:
    data: str = "tfds:cifar10"
    """Images: tfds:NAME, folder:PATH, npz:PATH or digits."""
    data_dir: str | None = None
    """Where TFDS prepared its data sets (its own default if not given)."""
    features: tuple[int, ...] = (32, 64, 128, 256)
    """Channels of the encoder's convolutions."""
    epochs: float = 20
    """Passes over the training images."""
    batch_size: int = 512
    """Images a step."""
    queue_size: int = 4096
    """Keys that are remembered."""
    decay: float = 0.99
    """Of the key encoder's moving average."""
    temperature: float = 0.2
    """Of the loss."""
    symmetric: bool = False
    """Both views are queries in turn."""
    groups: int = 8
    """Into how many groups batch norm cuts the global batch; 1 is the whole of it."""
    head: Literal["mlp", "projection"] = "mlp"
    """MoCo v2's head, without norm; or SimCLR's, whose norms keep features apart from the first step on."""
    extrapolate: float = 0.0
    """alpha of the extrapolation of positives (2.0 in the paper); 0 is none."""
    interpolate: float = 0.0
    """alpha of the interpolation of negatives (1.6 in the paper); 0 is none."""
    dimension_wise: bool = False
    """A mixing factor for every entry, not one a step."""
    start_epoch: float = 0.0
    """When mixing starts."""
    learning_rate: float = 2e-3
    """Peak of AdamW's learning rate."""
    weight_decay: float = 1e-4
    """Decoupled weight decay, on kernels only."""
    strength: float = 0.5
    """Strength of the color jitter."""
    seed: int = 0
    """Initial weights, order of the images, augmentation."""
    placement: Literal["jit", "shard_map", "pmap"] = "jit"
    """Where a step runs."""


def experiment(knobs: Knobs) -> Experiment:
    train = data.load(knobs.data, "train", data_dir=knobs.data_dir)
    test = data.load(knobs.data, "test", data_dir=knobs.data_dir)
    size = train.images.shape[1]
    steps = steps_of(knobs.epochs, train, knobs.batch_size)
    axis_name = placement.axis_name(knobs.placement)
    norm = nets.batch_norm(axis_name=axis_name, groups=knobs.groups)

    views = augment.two_views(augment.simclr(size, strength=knobs.strength, blur=False))
    transform = None
    if knobs.extrapolate or knobs.interpolate:
        transform = mixing(
            positives=knobs.extrapolate or None,
            negatives=knobs.interpolate or None,
            dimension_wise=knobs.dimension_wise,
            start=steps_of(knobs.start_epoch, train, knobs.batch_size),
        )
    heads = {
        "mlp": nets.mlp_head(norm=nets.no_norm(), hidden=(512,), out=128),
        "projection": nets.projection_head(layers=2, width=512, out=128, norm=norm),
    }
    learning_rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=steps // 20)
    return Experiment(
        method=moco(
            views=views,
            encoder=nets.small_convnet(features=knobs.features, norm=norm),
            head=heads[knobs.head],
            loss=keyless(queue_nce, temperature=knobs.temperature),
            queue_size=knobs.queue_size,
            decay=knobs.decay,
            symmetric=knobs.symmetric,
            transform=transform,
            scores=partial(score_monitor, temperature=knobs.temperature),
            axis_name=axis_name,
        ),
        optimizer=optim.adamw(learning_rate, weight_decay=knobs.weight_decay),
        learning_rate=learning_rate,
        train=train,
        test=test,
        views=views,
        probe_views=augment.n_views(augment.crop_and_flip(size), 1),
        batch_size=knobs.batch_size,
        steps=steps,
        seed=knobs.seed,
        placement=knobs.placement,
        log_every=20,
        save_every=500,
    )
