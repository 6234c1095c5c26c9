"""YADIM on CIFAR-10 on a CPU, with any of several encoders. (What of YADIM is inferred: `jaxcl.methods.yadim`.)

    jaxcl train configs/yadim_cifar10_cpu.py --data-dir DATA_DIR
    jaxcl evaluate runs/yadim_cifar10_cpu --protocol knn linear

With --batch-size 128 --epochs 2 it reaches 46.9 +- 0.2 % kNN and 51.6 +- 0.4 % linear accuracy in five minutes of one
core (three seeds; raw pixels 36.1 and 41.5, its untrained encoder 41.9 and 47.7). How much hangs on the encoder, and on
what is extracted from it: benchmarks/results/robustness-cifar10.md; amdim_cifar10_cpu.py says how to try others.
"""

from dataclasses import dataclass
from typing import Literal

from jaxcl import augment, data, nets
from jaxcl.experiment import Experiment, steps_of
from jaxcl.extract import average, larger, last, random_channels
from jaxcl.losses import keyless, map_nce
from jaxcl.methods import yadim
from jaxcl.train import optim, placement


@dataclass(frozen=True)
class Knobs:
    data: str = "tfds:cifar10"
    """Images: tfds:NAME, folder:PATH, npz:PATH or digits."""
    data_dir: str | None = None
    """Where TFDS prepared its data sets (its own default if not given)."""
    encoder: Literal["convnet", "amdim", "conv_n", "small_resnet18", "resnet18", "wide_resnet"] = "convnet"
    """The one of simclr_cifar10_cpu.py; AMDIM's own; three convolutions and a dense layer; a ResNet-18 with a small
    stem, of an eighth of the channels or all of them; WRN-10-2."""
    extraction: Literal["last", "average", "larger", "random"] = "last"
    """The last map as it is; averaged to one vector; the deepest map that is larger; or the last map's channels mixed
    to 64 by a fixed random matrix."""
    head: bool = True
    """A network embeds the places of the map; without one the map is compared as it is."""
    features: int = 32
    """Channels of the first layer of AMDIM's encoder."""
    depth: int = 2
    """Layers in each of its blocks."""
    out: int = 256
    """Width of what is compared."""
    clip: float = 20.0
    """Scores stay within plus and minus this."""
    penalty: float = 0.05
    """Weight of the mean squared score."""
    epochs: float = 20
    """Passes over the training images."""
    batch_size: int = 256
    """Images a step, two views each."""
    learning_rate: float = 1e-3
    """Peak of AdamW's learning rate."""
    weight_decay: float = 1e-5
    """Decoupled weight decay, on kernels only."""
    seed: int = 0
    """Initial weights, order of the images, augmentation."""
    placement: Literal["jit", "shard_map", "pmap"] = "jit"
    """Where a step runs."""


EXTRACTIONS = {"last": last, "average": average, "larger": larger, "random": random_channels(last, 64)}


def experiment(knobs: Knobs) -> Experiment:
    train = data.load(knobs.data, "train", data_dir=knobs.data_dir)
    test = data.load(knobs.data, "test", data_dir=knobs.data_dir)
    size = train.images.shape[1]
    steps = steps_of(knobs.epochs, train, knobs.batch_size)
    axis_name = placement.axis_name(knobs.placement)
    norm = nets.batch_norm(axis_name=axis_name)

    encoders = {
        "convnet": nets.small_convnet(norm=norm),
        "amdim": nets.amdim(norm=norm, features=knobs.features, out=knobs.out, depth=knobs.depth),
        "conv_n": nets.conv_n(norm=norm),
        "small_resnet18": nets.resnet(18, stem="cifar", norm=norm, features=8),
        "resnet18": nets.resnet(18, stem="cifar", norm=norm),
        "wide_resnet": nets.wide_resnet(10, norm=norm, width=2),
    }
    encoder = nets.standardized(
        encoders[knobs.encoder],
        mean=(125.3 / 255, 123.0 / 255, 113.9 / 255),
        std=(63 / 255, 62.1 / 255, 66.7 / 255),
    )
    views = augment.two_views(augment.compose(augment.flip(), augment.amdim(size)))
    learning_rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=steps // 20)
    return Experiment(
        method=yadim(
            views=views,
            encoder=encoder,
            head=nets.amdim_head(norm=norm, out=knobs.out) if knobs.head else None,
            loss=keyless(map_nce, clip=knobs.clip, penalty=knobs.penalty),
            extract=EXTRACTIONS[knobs.extraction],
            axis_name=axis_name,
        ),
        optimizer=optim.adamw(learning_rate, b1=0.8, weight_decay=knobs.weight_decay),
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
