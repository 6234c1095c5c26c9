"""SimCLR on CIFAR-10 with ResNet-18, for one GPU.

    jaxcl train configs/simclr_cifar10.py --data-dir DATA_DIR
    jaxcl evaluate runs/simclr_cifar10 --protocol knn linear

The default knobs are those of dkobak/simclr-cifar10 for 100 epochs (ResNet-18, batch 512; SGD with learning rate 0.06 a
256 images, momentum 0.9 and weight decay 5e-4 of every parameter; a cosine that moves once an epoch, no warm-up; crops
of 0.2 of the area or more, grayscale with probability 0.1; a head 1,024 wide without batch norm; batch statistics for
each view; PyTorch's initial weights), which reports 83.2 +- 0.2 % kNN accuracy (k=10, cosine) after 20 minutes on an
A100; with --epochs 500 --learning-rate 0.03 90.3 %, with 1000 91.4 %. Not yet run here: no GPU was at hand.

What differs: an epoch is 97 batches, without the 98th of the 336 images that are left over, which
`benchmarks/record.py reference` has; the encoder computes in bfloat16, where PyTorch takes TF32
(--dtype float32); colors are jittered as tf.image does it (contrast about each channel's mean, no rounding to bytes).

The published run of SimCLR's README (ResNet-18, LARS, 1000 epochs, about 91 % linear) is

    jaxcl train configs/simclr_cifar10.py --data-dir DATA_DIR --run-dir runs/simclr_cifar10_lars --details simclr
        --epochs 1000 --optimizer lars --learning-rate 1.0 --warmup-epochs 10 --weight-decay 1e-4 --head-layers 3
        --min-area 0.08 --gray 0.2 --dtype float32
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp

from jaxcl import augment, data, nets
from jaxcl.experiment import Experiment, steps_of
from jaxcl.losses import nt_xent
from jaxcl.methods import simclr
from jaxcl.train import optim, placement


@dataclass(frozen=True)
class Knobs:
    data: str = "tfds:cifar10"
    """Images: tfds:NAME, folder:PATH, npz:PATH or digits."""
    data_dir: str | None = None
    """Where TFDS prepared its data sets (its own default if not given)."""
    depth: int = 18
    """ResNet-18, 34, 50, 101 or 152."""
    width: int = 1
    """Width multiplier of the ResNet."""
    details: Literal["torch", "simclr"] = "torch"
    """Whose initial weights, head, batch statistics, cosine and crops: those of the PyTorch code, or of SimCLR's."""
    head_layers: int = 2
    """Layers of the projection head."""
    head_width: int = 1024
    """Width of the head's hidden layers; SimCLR's own are as wide as the representation."""
    epochs: float = 100
    """Passes over the training images."""
    batch_size: int = 512
    """Images a step, over all devices; two views each."""
    temperature: float = 0.5
    """NT-Xent's temperature."""
    optimizer: Literal["sgd", "lars"] = "sgd"
    """SGD with momentum, or SimCLR's LARS."""
    learning_rate: float = 0.06
    """Base rate, for 256 images; grows linearly with the batch."""
    warmup_epochs: float = 0
    """Epochs of linear warm-up, before the cosine."""
    weight_decay: float = 5e-4
    """L2 penalty on the gradient."""
    strength: float = 0.5
    """Strength of the color jitter."""
    gray: float = 0.1
    """Probability of grayscale."""
    min_area: float = 0.2
    """The least fraction of the image that a crop keeps."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """What the encoder computes in; parameters and loss are float32."""
    seed: int = 0
    """Initial weights, order of the images, augmentation."""
    input: Literal["device", "resident", "host"] = "device"
    """Who makes the views: the device from batches it is sent, or from images it keeps; or the host, by tf.data."""
    placement: Literal["jit", "shard_map", "pmap"] = "jit"
    """Where a step runs."""


def experiment(knobs: Knobs) -> Experiment:
    train = data.load(knobs.data, "train", data_dir=knobs.data_dir)
    test = data.load(knobs.data, "test", data_dir=knobs.data_dir)
    size = train.images.shape[1]
    steps = steps_of(knobs.epochs, train, knobs.batch_size)
    warmup_steps = steps_of(knobs.warmup_epochs, train, knobs.batch_size)
    axis_name = placement.axis_name(knobs.placement)
    torch = knobs.details == "torch"
    norm = nets.batch_norm(axis_name=axis_name, views=2 if torch else 1)
    dtype = jnp.dtype(knobs.dtype)

    peak = optim.scaled_learning_rate(knobs.learning_rate, knobs.batch_size, rule="linear")
    learning_rate = optim.warmup_cosine(
        peak,
        steps=steps,
        warmup_steps=warmup_steps,
        every=steps_of(1, train, knobs.batch_size) if torch else 1,
    )
    make_optimizer = {"sgd": optim.sgd, "lars": optim.lars}[knobs.optimizer]
    jitter = 0.8 * knobs.strength
    crop: dict[str, Any] = {"area": (knobs.min_area, 1.0)}
    if torch:
        crop |= {"law": augment.uniform_area_log_ratio, "method": "bilinear", "antialias": True}
    recipe = augment.compose(
        augment.random_resized_crop(size, **crop),
        augment.flip(),
        augment.color_jitter(jitter, jitter, jitter, jitter / 4),
        augment.grayscale(probability=knobs.gray),
        augment.clip(),
    )
    views = augment.two_views(recipe)
    if torch:
        hidden = (knobs.head_width,) * (knobs.head_layers - 1)
        head = nets.mlp_head(norm=nets.no_norm(), hidden=hidden, out=128, initialization="torch")
    else:
        head = nets.projection_head(layers=knobs.head_layers, out=128, norm=norm)
    return Experiment(
        method=simclr(
            views=augment.from_host(2) if knobs.input == "host" else views,
            encoder=nets.resnet(
                knobs.depth,
                stem="cifar",
                width=knobs.width,
                norm=norm,
                dtype=dtype,
                zero_init_last_gamma=not torch,
                initialization="torch" if torch else "lecun",
            ),
            head=head,
            loss=lambda key, z1, z2: nt_xent(z1, z2, temperature=knobs.temperature, axis_name=axis_name),
            axis_name=axis_name,
        ),
        optimizer=make_optimizer(learning_rate, momentum=0.9, weight_decay=knobs.weight_decay),
        learning_rate=learning_rate,
        train=train,
        test=test,
        views=views,
        probe_views=augment.n_views(augment.crop_and_flip(size), 1),
        batch_size=knobs.batch_size,
        steps=steps,
        seed=knobs.seed,
        input=data.host_views(train, recipe) if knobs.input == "host" else None,
        resident=knobs.input == "resident",
        placement=knobs.placement,
        knn_every=10 * len(train.images) // knobs.batch_size,
    )
