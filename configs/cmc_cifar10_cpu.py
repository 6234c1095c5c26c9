"""CMC on CIFAR-10 on a CPU: brightness against color, an encoder of half the width each.

    jaxcl train configs/cmc_cifar10_cpu.py --data-dir DATA_DIR
    jaxcl train configs/cmc_cifar10_cpu.py --loss softmax --space ycbcr --data-dir DATA_DIR
    jaxcl evaluate runs/cmc_cifar10_cpu --protocol knn linear

Views are cropped and flipped only, as in the paper: the colors of the other part are what an image is told by. Not yet
run to its end.
"""

from dataclasses import dataclass
from typing import Literal

from jaxcl import augment, data, nets
from jaxcl.experiment import Experiment, steps_of
from jaxcl.losses import binary_nce, info_nce
from jaxcl.methods import cmc
from jaxcl.train import optim, placement


@dataclass(frozen=True)
class Knobs:
    data: str = "tfds:cifar10"
    """Images: tfds:NAME, folder:PATH, npz:PATH or digits."""
    data_dir: str | None = None
    """Where TFDS prepared its data sets (its own default if not given)."""
    space: Literal["lab", "ycbcr", "ydbdr"] = "lab"
    """Which brightness, and which color."""
    loss: Literal["nce", "softmax"] = "nce"
    """The paper's binary NCE, or a softmax over the same scores."""
    features: tuple[int, ...] = (16, 32, 64, 128)
    """Channels of each encoder's convolutions."""
    out: int = 128
    """Width of what is compared and remembered."""
    negatives: int = 1024
    """Images each query is told from (16384 in the paper)."""
    temperature: float = 0.07
    """Scores are divided by it."""
    momentum: float = 0.5
    """What a row of the bank keeps at each visit."""
    positives: Literal["bank", "batch"] = "batch"
    """An image's own row is the bank's, of the epoch before, or the other part as it is now."""
    min_area: float = 0.2
    """The least share of the image that a crop keeps."""
    epochs: float = 20
    """Passes over the training images."""
    batch_size: int = 256
    """Images a step, one view each."""
    learning_rate: float = 2e-3
    """Peak of AdamW's learning rate."""
    weight_decay: float = 1e-4
    """Decoupled weight decay, on kernels only."""
    seed: int = 0
    """Initial weights, order of the images, augmentation."""
    placement: Literal["jit", "shard_map", "pmap"] = "jit"
    """Where a step runs."""


def experiment(knobs: Knobs) -> Experiment:
    train = data.load(knobs.data, "train", data_dir=knobs.data_dir)
    test = data.load(knobs.data, "test", data_dir=knobs.data_dir)
    size, images = train.images.shape[1], len(train.images)
    steps = steps_of(knobs.epochs, train, knobs.batch_size)
    axis_name = placement.axis_name(knobs.placement)
    norm = nets.batch_norm(axis_name=axis_name)

    def nce(key, scores, partition):
        return binary_nce(scores, partition, images=images, axis_name=axis_name)

    def softmax(key, scores, partition):
        return info_nce(scores[:, 0], scores[:, 1:], temperature=1.0, axis_name=axis_name)

    views = augment.channel_views(augment.cmc(size, min_area=knobs.min_area, space=knobs.space), (1, 2))
    learning_rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=steps // 20)
    return Experiment(
        method=cmc(
            views=views,
            channels=augment.split_channels(augment.color_space(knobs.space), (1, 2)),
            encoders=(nets.small_convnet(features=knobs.features, norm=norm),) * 2,
            heads=(nets.mlp_head(norm=nets.no_norm(), hidden=(), out=knobs.out),) * 2,
            images=images,
            negatives=knobs.negatives,
            temperature=knobs.temperature,
            momentum=knobs.momentum,
            positives=knobs.positives,
            loss=nce if knobs.loss == "nce" else softmax,
            axis_name=axis_name,
        ),
        optimizer=optim.adamw(learning_rate, weight_decay=knobs.weight_decay),
        learning_rate=learning_rate,
        train=train,
        test=test,
        views=augment.n_views(augment.crop_and_flip(size, min_area=knobs.min_area), 1),
        probe_views=augment.n_views(augment.crop_and_flip(size), 1),
        batch_size=knobs.batch_size,
        steps=steps,
        seed=knobs.seed,
        placement=knobs.placement,
        log_every=20,
        save_every=500,
    )
