"""AMDIM on CIFAR-10 on a CPU: its own encoder, narrow and shallow, or another one.

    jaxcl train configs/amdim_cifar10_cpu.py --data-dir DATA_DIR
    jaxcl train configs/amdim_cifar10_cpu.py --encoder convnet --data-dir DATA_DIR
    jaxcl evaluate runs/amdim_cifar10_cpu --protocol knn linear

The published CIFAR-10 network is --features 256 --out 2048 --depth 10 --batch-size 480, trained for 300 epochs with
Adam at 2e-4. Here --features 16 --out 128 --batch-size 128 --epochs 1 reaches 49.6 +- 2.4 % kNN and 55.6 +- 2.7 %
linear accuracy in four minutes of one core (three seeds; raw pixels 36.1 and 41.5, its untrained encoder 28.8 and
33.8). How much hangs on the encoder and on what is extracted from it: `python benchmarks/five_parts.py robustness`,
whose results are in benchmarks/results/robustness-cifar10.md, or for other choices than there

    jaxcl sweep configs/amdim_cifar10_cpu.py --encoder amdim convnet wide_resnet --seed 0 1 2 --data-dir DATA_DIR
    jaxcl sweep configs/amdim_cifar10_cpu.py --extraction scales global_large last --seed 0 1 2 --data-dir DATA_DIR

and the same of yadim_cifar10_cpu.py and cpc_cifar10_cpu.py, each with --extraction and --encoder of its own.
"""

from dataclasses import dataclass
from typing import Literal

from jaxcl import augment, data, nets
from jaxcl.experiment import Experiment, steps_of
from jaxcl.extract import of_widths, scales
from jaxcl.losses import keyless, map_nce
from jaxcl.methods import amdim
from jaxcl.train import optim, placement


@dataclass(frozen=True)
class Knobs:
    data: str = "tfds:cifar10"
    """Images: tfds:NAME, folder:PATH, npz:PATH or digits."""
    data_dir: str | None = None
    """Where TFDS prepared its data sets (its own default if not given)."""
    encoder: Literal["amdim", "convnet", "conv_n", "small_resnet18", "resnet18", "wide_resnet"] = "amdim"
    """AMDIM's own; the one of simclr_cifar10_cpu.py; three convolutions and a dense layer; a ResNet-18 with a small
    stem, of an eighth of the channels or all of them; WRN-10-2."""
    extraction: Literal["scales", "global_small", "global_large", "local", "last"] = "scales"
    """What is compared of three maps (a vector, a small one, a larger one): as published the vector with both, and a
    place of the small map with all of it; or one of these three alone; or the vector with the other view's."""
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


# Which of the three maps is compared with which.
COMPARE = {
    "scales": ((0, 1), (0, 2), (1, 1)),
    "global_small": ((0, 1),),
    "global_large": ((0, 2),),
    "local": ((1, 1),),
    "last": ((0, 0),),
}


def experiment(knobs: Knobs) -> Experiment:
    train = data.load(knobs.data, "train", data_dir=knobs.data_dir)
    test = data.load(knobs.data, "test", data_dir=knobs.data_dir)
    size = train.images.shape[1]
    steps = steps_of(knobs.epochs, train, knobs.batch_size)
    axis_name = placement.axis_name(knobs.placement)
    norm = nets.batch_norm(axis_name=axis_name)

    encoders = {
        "amdim": nets.amdim(norm=norm, features=knobs.features, out=knobs.out, depth=knobs.depth),
        "convnet": nets.small_convnet(norm=norm),
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
    own = knobs.encoder == "amdim"  # whose vector is compared as it is
    head = nets.amdim_head(norm=norm, out=knobs.out)
    compare = COMPARE[knobs.extraction]
    needed = {number for pair in compare for number in pair}
    views = augment.each_view([augment.amdim(size)] * 2, shared=augment.flip())
    learning_rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=steps // 20)
    return Experiment(
        method=amdim(
            views=views,
            encoder=encoder,
            # A head that nothing goes through would only be pulled to zero.
            heads=[head if number in needed and not (own and number == 0) else None for number in range(3)],
            loss=keyless(map_nce, clip=knobs.clip, penalty=knobs.penalty),
            extract=of_widths(1, 5, 7) if own else scales(3),
            compare=compare,
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
