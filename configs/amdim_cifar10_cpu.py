"""AMDIM on CIFAR-10 on a CPU: its own encoder, narrow and shallow, or another one.

    jaxcl train configs/amdim_cifar10_cpu.py --data-dir DATA_DIR
    jaxcl train configs/amdim_cifar10_cpu.py --encoder convnet --data-dir DATA_DIR
    jaxcl evaluate runs/amdim_cifar10_cpu --protocol knn linear

The published CIFAR-10 network is --features 256 --out 2048 --depth 10 --batch-size 480, trained for 300 epochs with
Adam at 2e-4. Not yet run to its end.
"""

from dataclasses import dataclass
from typing import Literal

from jaxcl import augment, data, nets
from jaxcl.experiment import Experiment, steps_of
from jaxcl.extract import of_widths, pool
from jaxcl.losses import map_nce
from jaxcl.methods import amdim
from jaxcl.train import optim, placement


@dataclass(frozen=True)
class Knobs:
    data: str = "tfds:cifar10"
    """Images: tfds:NAME, folder:PATH, npz:PATH or digits."""
    data_dir: str | None = None
    """Where TFDS prepared its data sets (its own default if not given)."""
    encoder: Literal["amdim", "convnet", "resnet18"] = "amdim"
    """AMDIM's own; or the one of simclr_cifar10_cpu.py; or a ResNet-18 with a small stem."""
    extraction: Literal["scales", "last"] = "scales"
    """Three scales (one vector against two maps, and a place of the smaller map against all of it), or the last map."""
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


def scales(maps):
    """What stands for AMDIM's maps of 1, 5 and 7 in another encoder: an average, the last map, and a larger one."""
    larger = next(m for m in reversed(maps) if m.shape[2] > maps[-1].shape[2])
    return pool(maps)[:, None, None], maps[-1], larger


def experiment(knobs: Knobs) -> Experiment:
    train = data.load(knobs.data, "train", data_dir=knobs.data_dir)
    test = data.load(knobs.data, "test", data_dir=knobs.data_dir)
    size = train.images.shape[1]
    steps = steps_of(knobs.epochs, train, knobs.batch_size)
    axis_name = placement.axis_name(knobs.placement)
    norm = nets.batch_norm(axis_name=axis_name)

    head = nets.amdim_head(norm=norm, out=knobs.out)
    heads, extract = (head, head, head), scales
    if knobs.encoder == "amdim":
        encoder = nets.amdim(norm=norm, features=knobs.features, out=knobs.out, depth=knobs.depth)
        heads, extract = (None, head, head), of_widths(1, 5, 7)
    elif knobs.encoder == "convnet":
        encoder = nets.small_convnet(norm=norm)
    else:
        encoder = nets.resnet(18, stem="cifar", norm=norm)
    compare = ((0, 1), (0, 2), (1, 1))
    if knobs.extraction == "last":
        whole = extract
        heads, compare = heads[:1], ((0, 0),)

        def extract(maps):
            return whole(maps)[:1]

    encoder = nets.standardized(
        encoder, mean=(125.3 / 255, 123.0 / 255, 113.9 / 255), deviation=(63 / 255, 62.1 / 255, 66.7 / 255)
    )
    views = augment.each_view([augment.amdim(size)] * 2, shared=augment.flip())
    learning_rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=steps // 20)
    return Experiment(
        method=amdim(
            views=views,
            encoder=encoder,
            heads=heads,
            loss=lambda key, source, targets: map_nce(
                source, targets, clip=knobs.clip, penalty=knobs.penalty, axis_name=axis_name
            ),
            extract=extract,
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
