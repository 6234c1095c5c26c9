"""SimCLR on CIFAR-10 on a CPU: an encoder small enough to be trained in minutes on four cores.

    jaxcl train configs/simclr_cifar10_cpu.py --data-dir DATA_DIR
    jaxcl evaluate runs/simclr_cifar10_cpu --protocol knn linear

Four busy CPU cores, 35 minutes: 59.5 % kNN (k=10, cosine; raw pixels 36.1, untrained encoder 41.3).
With --epochs 10, in 9 minutes and more: 55.0 %.

`tfds:cifar10` must have been prepared in DATA_DIR (`tfds.load("cifar10", data_dir=DATA_DIR)`, once, online).
"""

from dataclasses import dataclass
from typing import Literal

from jaxcl import augment, data, nets
from jaxcl.experiment import Experiment, steps_of
from jaxcl.losses import keyless, nt_xent
from jaxcl.methods import simclr
from jaxcl.train import optim, placement


@dataclass(frozen=True)
class Knobs:
    data: str = "tfds:cifar10"
    """Images: tfds:NAME, folder:PATH, npz:PATH or digits."""
    data_dir: str | None = None
    """Where TFDS prepared its data sets (its own default if not given)."""
    features: tuple[int, ...] = (32, 64, 128, 256)
    """Channels of the encoder's convolutions."""
    head_layers: int = 2
    """Layers of the projection head."""
    epochs: float = 20
    """Passes over the training images."""
    batch_size: int = 512
    """Images a step, two views each."""
    temperature: float = 0.2
    """NT-Xent's temperature."""
    learning_rate: float = 2e-3
    """Peak of AdamW's learning rate."""
    weight_decay: float = 1e-4
    """Decoupled weight decay, on kernels only."""
    strength: float = 0.5
    """Strength of the color jitter."""
    fused: bool = False
    """Whether the device makes the views in the fast form, with one clip and a linear turn of the hue."""
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
    axis_name = placement.axis_name(knobs.placement)
    norm = nets.batch_norm(axis_name=axis_name)

    recipe = augment.simclr(size, strength=knobs.strength, blur=False)
    views = augment.two_views(augment.fuse(recipe) if knobs.fused else recipe)
    learning_rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=steps // 20)
    return Experiment(
        method=simclr(
            views=augment.from_host(2) if knobs.input == "host" else views,
            encoder=nets.small_convnet(features=knobs.features, norm=norm),
            head=nets.projection_head(layers=knobs.head_layers, width=512, out=128, norm=norm),
            loss=keyless(nt_xent, temperature=knobs.temperature),
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
        input=data.host_views(train, recipe) if knobs.input == "host" else None,
        resident=knobs.input == "resident",
        placement=knobs.placement,
        log_every=20,
        save_every=500,
    )
