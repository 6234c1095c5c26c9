"""SimCLR on CIFAR-10 with ResNet-18, for one GPU.

    jaxcl train configs/simclr_cifar10.py --data-dir DATA_DIR
    jaxcl evaluate runs/simclr_cifar10 --protocol knn linear

The default knobs are those of dkobak/simclr-cifar10 (ResNet-18, 100 epochs, batch 512, SGD with learning rate 0.06 per
256 images, momentum 0.9, weight decay 5e-4, grayscale with probability 0.1, mixed precision), which reports 83.2 %
kNN accuracy (k=10, cosine) after 20 minutes on an A100. The published run of SimCLR's README (ResNet-18, LARS, 1000
epochs, about 91 % linear) is --epochs 1000 --optimizer lars --learning-rate 1.0 --weight-decay 1e-4 --head-layers 3
--gray 0.2 --dtype float32. Neither was yet run here: no GPU was at hand.
"""

from dataclasses import dataclass
from typing import Literal

from jaxcl import About, CommonKnobs, Recipe, augment, basics, losses, methods, nets, optim, steps_of


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    epochs: float = 100
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    log_every: int = 50
    knn_every: float = 10
    depth: int = 18  # ResNet-18, 34, 50, 101 or 152
    width: int = 1  # width multiplier of the ResNet
    head_layers: int = 2  # layers of the projection head
    temperature: float = 0.5  # NT-Xent's temperature
    optimizer: Literal["sgd", "lars"] = "sgd"  # SGD with momentum, or SimCLR's LARS
    learning_rate: float = 0.06  # base rate, for 256 images; grows linearly with the batch
    warmup_epochs: float = 10  # epochs of linear warm-up, before the cosine
    weight_decay: float = 5e-4  # L2 penalty on the gradient
    strength: float = 0.5  # strength of the color jitter
    gray: float = 0.1  # probability of grayscale


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype = basics(knobs, about)
    warmup_steps = steps_of(knobs.warmup_epochs, about.count, knobs.batch_size)
    norm = nets.batch_norm(axis_name=axis)
    peak = optim.scaled_learning_rate(knobs.learning_rate, knobs.batch_size)
    rate = optim.warmup_cosine(peak, steps=steps, warmup_steps=warmup_steps)
    jitter = 0.8 * knobs.strength
    crop, color = augment.random_resized_crop(size), augment.color_jitter(jitter, jitter, jitter, jitter / 4)
    gray = augment.grayscale(probability=knobs.gray)
    views = augment.two_views(augment.compose(crop, augment.flip(), color, gray, augment.clip()))
    encoder = nets.resnet(knobs.depth, stem="cifar", width=knobs.width, norm=norm, dtype=dtype)
    head = nets.projection_head(layers=knobs.head_layers, out=128, norm=norm)
    loss = losses.keyless(losses.nt_xent, temperature=knobs.temperature)
    method = methods.simclr(views=views, encoder=encoder, head=head, loss=loss, axis_name=axis)
    make = {"sgd": optim.sgd, "lars": optim.lars}[knobs.optimizer]
    optimizer = make(rate, momentum=0.9, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, augment.probe_views(size))
