"""SimCLR on CIFAR-10 with ResNet-18, for one GPU.

    jaxcl train configs/simclr_cifar10.py --data-dir DATA_DIR
    jaxcl evaluate runs/simclr_cifar10 --protocol linear_sgd knn

The default knobs are those of dkobak/simclr-cifar10 for 100 epochs (SGD with learning rate 0.06 a 256 images and weight
decay of every parameter; a cosine that moves once an epoch; crops of 0.2 of the area or more; a head 1,024 wide without
batch norm; batch statistics for each view; PyTorch's initial weights), which reports 83.2 +- 0.2 % kNN accuracy after
20 minutes on an A100. What differs: an epoch lacks the 336 images that fill no batch (benchmarks/record.py has them),
the encoder computes in bfloat16, not TF32, and colors are not rounded to bytes. The published run of SimCLR's README
(about 91 % linear) is --details simclr --epochs 1000 --optimizer lars --learning-rate 1.0 --warmup-epochs 10
--weight-decay 1e-4 --head-layers 3 --min-area 0.08 --gray 0.2 --dtype float32. Crops (by height), loss (both views'
means are added: the log shows twice the paper's equation 1), shortcuts and the number of steps (97,657) are then its
code's (docs/fidelity.md). Neither was run; the first with tf.image's colors: 83.3 % on an H100 (benchmarks/record.py).
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxcl import About, CommonKnobs, Recipe, augment, basics, losses, methods, nets, optim, steps_across
from jaxcl.feature_transform import Mix, nt_xent_of


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    epochs: float = 100
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    log_every: int = 50
    knn_every: float = 10
    depth: int = 18  # ResNet-18, 34, 50, 101 or 152
    width: int = 1  # width multiplier of the ResNet
    head_layers: int = 2  # layers of the projection head
    head_width: int = 1024  # of the head's hidden layers; SimCLR's own are as wide as the representation
    details: Literal["torch", "simclr"] = "torch"  # whose start, head, batch statistics, cosine, crops ...
    temperature: float = 0.5  # NT-Xent's temperature
    mix: Mix = "none"  # which features are mixed before the loss (`feature_transform.MIXES`)
    optimizer: Literal["sgd", "lars"] = "sgd"  # SGD with momentum, or SimCLR's LARS
    learning_rate: float = 0.06  # base rate; of the linear rule for 256 images
    rate_rule: Literal["linear", "sqrt"] = "linear"  # base batch / 256; or base sqrt(batch), of another base
    warmup_epochs: float = 0  # epochs of linear warm-up, before the cosine
    weight_decay: float = 5e-4  # L2 penalty on the gradient
    strength: float = 0.5  # strength of the color jitter
    gray: float = 0.1  # probability of grayscale
    min_area: float = 0.2  # the least fraction of the image that a crop keeps


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    epoch, torch = about.count // knobs.batch_size, knobs.details == "torch"
    warmup_steps = steps_across(knobs.warmup_epochs, about.count, knobs.batch_size)
    if not torch:
        steps = steps_across(knobs.epochs, about.count, knobs.batch_size) + 1
    peak = optim.scaled_learning_rate(knobs.learning_rate, knobs.batch_size, rule=knobs.rate_rule)
    rate = optim.warmup_cosine(peak, steps=steps, warmup_steps=warmup_steps, every=epoch if torch else 1)
    norm = nets.batch_norm(axis_name=axis, views=2 if torch else 1)
    crop = augment.random_resized_crop(size, area=(knobs.min_area, 1.0), distribution=augment.uniform_height)
    head = nets.projection_head(layers=knobs.head_layers, out=128, norm=norm)
    if torch:
        crop = augment.torchvision_crop(size, knobs.min_area)
        hidden = (knobs.head_width,) * (knobs.head_layers - 1)
        head = nets.mlp_head(norm=nets.no_norm(), hidden=hidden, out=128, initialization="torch")
    jitter, colors = 0.8 * knobs.strength, "torchvision" if torch else "tensorflow"
    color = augment.color_jitter(*[jitter] * 3, jitter / 4, colors=colors)
    gray = augment.grayscale(probability=knobs.gray)
    views = augment.two_views(augment.compose(crop, augment.flip(), color, gray, augment.clip()))
    start = {"zero_init_last_gamma": not torch, "initialization": "torch" if torch else "lecun"}
    start |= {} if torch else {"shortcuts": "of_every_stage"}
    encoder = lean(nets.resnet(knobs.depth, stem="cifar", width=knobs.width, norm=norm, dtype=dtype, **start))
    loss = nt_xent_of(knobs.mix, temperature=knobs.temperature)
    loss = loss if torch else partial(losses.scaled, loss=loss, factor=2.0)
    method = methods.simclr(views=views, encoder=encoder, head=head, loss=loss, axis_name=axis)
    optimizer = getattr(optim, knobs.optimizer)(rate, momentum=0.9, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, augment.probe_views(size))
