"""SimCLRv2 on ImageNet: pretraining with a deeper head and MoCo's memory (Chen et al. 2020, arXiv:2006.10029).

    jaxcl train configs/simclr_v2.py --data-dir DATA_DIR
    jaxcl train configs/simclr_v2.py --depth 152 --width 3 --sk --data-dir DATA_DIR
    jaxcl evaluate runs/simclr_v2 --protocol linear_sgd --set epochs=90 batch_size=4096

Section 3 of the paper: batch 4096, 800 epochs, LARS with learning rate 0.1 sqrt(batch) = 6.4 after a linear warm-up of
5 % of the epochs, weight decay 1e-4, a head of three layers as wide as what goes in, and a memory of 64K keys of a
moving average (0.999), which it credits with about one point. It reports 71.7 % linear accuracy with ResNet-50 and
74.6 % with selective kernels (--sk, 35 M parameters); 79.8 % with ResNet-152, three times as wide, with them (795 M).
--memory 0 is its code's default, without the memory. What follows pretraining: supervised.py fine-tunes a run from the
first layer of its head, distill.py teaches a smaller network. Not run here.
"""

from dataclasses import dataclass
from functools import partial

from jaxcl import About, ImageNetKnobs, Recipe, augment, basics, losses, methods, nets, optim, steps_across
from jaxcl.feature_transform import MIXES, Mix, batch_scores, nt_xent_of


@dataclass(frozen=True)
class Knobs(ImageNetKnobs):
    epochs: float = 800
    batch_size: int = 4096
    depth: int = 50  # ResNet-50, 101, 152 or 200; 18 and 34 without selective kernels
    width: int = 1  # width multiplier of the ResNet
    sk: bool = False  # selective kernels (ratio 0.0625) and ResNet-D, the paper's "SK"
    head_layers: int = 3  # layers of the projection head
    memory: int = 65536  # keys that are remembered as further negatives; 0: none, SimCLR
    decay: float = 0.999  # of the moving average that makes the keys
    temperature: float = 0.1  # NT-Xent's temperature
    mix: Mix = "none"  # which features are mixed before the loss (`feature_transform.MIXES`)
    loss_factor: float = 2.0
    """2: the loss of the authors' code, to which their rates and weight decay belong; 1: the mean over both views."""
    learning_rate: float = 0.1  # base rate of LARS, for one image; grows with the square root of the batch
    weight_decay: float = 1e-4  # L2 penalty on the gradient, of kernels only
    strength: float = 1.0  # strength of the color jitter


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, _, axis, dtype, lean = basics(knobs, about)
    steps = steps_across(knobs.epochs, about.count, knobs.batch_size) + 1
    norm = nets.batch_norm(axis_name=axis)
    views = augment.two_views(augment.simclr(size, strength=knobs.strength, brightness_form="multiply"))
    peak = optim.scaled_learning_rate(knobs.learning_rate, knobs.batch_size, rule="sqrt")
    rate = optim.warmup_cosine(peak, steps=steps, warmup_steps=steps // 20)
    settings = {"width": knobs.width, "selective": 0.0625 if knobs.sk else 0, "shortcuts": "of_every_stage"}
    network = nets.resnet(knobs.depth, stem="imagenet", norm=norm, dtype=dtype, **settings)
    head = nets.projection_head(layers=knobs.head_layers, out=128, norm=norm)
    parts = {"views": views, "encoder": lean(network), "head": head, "axis_name": axis}
    if knobs.memory:
        remembered = {"queue_size": knobs.memory, "decay": knobs.decay, "factor": knobs.loss_factor}
        transform = None if knobs.mix == "none" else partial(batch_scores, **MIXES[knobs.mix])
        method = methods.simclr_v2(temperature=knobs.temperature, transform=transform, **remembered, **parts)
    else:
        nt_xent = nt_xent_of(knobs.mix, temperature=knobs.temperature)
        loss = partial(losses.scaled, loss=nt_xent, factor=knobs.loss_factor)
        method = methods.simclr(loss=loss, **parts)
    optimizer = optim.lars(rate, momentum=0.9, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, augment.probe_views(size))
