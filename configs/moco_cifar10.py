"""MoCo on CIFAR-10 with ResNet-18, for one GPU: the recipe of the authors' demo.

    jaxcl train configs/moco_cifar10.py --data-dir DATA_DIR
    jaxcl evaluate runs/moco_cifar10 --protocol knn200 linear

The default knobs are those of facebookresearch/moco's colab/moco_cifar10_demo.ipynb, which reports 82.6, 86.3 and
88.7 % kNN accuracy after 200, 400 and 800 epochs, and with --symmetric 85.3, 88.5 and 89.7 (k=200, weights
exp(cosine / 0.1), on the network's 128 outputs; `knn200` looks at the 512 features below them, so the numbers are
related but not the same). With feature transformation: --extrapolate 2.0 --interpolate 1.6. Not yet run to its end.

What differs from the demo: the learning rate falls at every step, not every epoch; contrast is jittered about each
channel's mean, not the gray mean; and the aspect ratio of crops is uniform, not log-uniform.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax.numpy as jnp

from jaxcl import augment, data, nets
from jaxcl.experiment import Experiment, steps_of
from jaxcl.feature_transform import mixing
from jaxcl.losses import keyless, queue_nce
from jaxcl.methods import moco
from jaxcl.monitor import score_monitor
from jaxcl.train import optim, placement

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@dataclass(frozen=True)
class Knobs:
    data: str = "tfds:cifar10"
    """Images: tfds:NAME, folder:PATH, npz:PATH or digits."""
    data_dir: str | None = None
    """Where TFDS prepared its data sets (its own default if not given)."""
    depth: int = 18
    """ResNet-18, 34, 50, 101 or 152."""
    head: Literal["linear", "mlp"] = "linear"
    """MoCo v1's head, or v2's with a hidden layer (which wants --temperature 0.2)."""
    epochs: float = 200
    """Passes over the training images."""
    batch_size: int = 512
    """Images a step, over all devices."""
    queue_size: int = 4096
    """Keys that are remembered."""
    decay: float = 0.99
    """Of the key encoder's moving average."""
    temperature: float = 0.1
    """Of the loss."""
    symmetric: bool = False
    """Both views are queries in turn."""
    groups: int = 8
    """Into how many groups batch norm cuts the global batch; 1 is the whole of it."""
    shuffle: bool = True
    """Keys go through the network in a random order."""
    extrapolate: float = 0.0
    """alpha of the extrapolation of positives (2.0 in the paper); 0 is none."""
    interpolate: float = 0.0
    """alpha of the interpolation of negatives (1.6 in the paper); 0 is none."""
    learning_rate: float = 0.06
    """For this batch size."""
    weight_decay: float = 5e-4
    """L2 penalty on the gradient, of all parameters."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """What the encoder computes in; parameters and loss are float32."""
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
    encoder = nets.resnet(
        knobs.depth, stem="cifar", norm=norm, dtype=jnp.dtype(knobs.dtype), zero_init_last_gamma=False
    )
    views = augment.two_views(
        augment.compose(
            augment.random_resized_crop(size, method="bilinear", antialias=True),
            augment.flip(),
            augment.color_jitter(0.4, 0.4, 0.4, 0.1),
            augment.grayscale(),
            augment.clip(),
        )
    )
    transform = None
    if knobs.extrapolate or knobs.interpolate:
        transform = mixing(positives=knobs.extrapolate or None, negatives=knobs.interpolate or None)
    hidden = {"linear": (), "mlp": (512,)}[knobs.head]
    learning_rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=0)
    return Experiment(
        method=moco(
            views=views,
            encoder=nets.standardized(encoder, mean=MEAN, std=STD),
            head=nets.mlp_head(norm=nets.no_norm(), hidden=hidden, out=128),
            loss=keyless(queue_nce, temperature=knobs.temperature),
            queue_size=knobs.queue_size,
            decay=knobs.decay,
            symmetric=knobs.symmetric,
            shuffle=knobs.shuffle,
            transform=transform,
            scores=partial(score_monitor, temperature=knobs.temperature),
            axis_name=axis_name,
        ),
        optimizer=optim.sgd(learning_rate, momentum=0.9, weight_decay=knobs.weight_decay),
        learning_rate=learning_rate,
        train=train,
        test=test,
        views=views,
        probe_views=augment.n_views(augment.crop_and_flip(size), 1),
        batch_size=knobs.batch_size,
        steps=steps,
        seed=knobs.seed,
        placement=knobs.placement,
        knn_every=10 * len(train.images) // knobs.batch_size,
    )
