"""SimCLR on ImageNet with ResNet-50: the paper's recipe (arXiv:2002.05709), for many accelerators.

    jaxcl train configs/simclr_imagenet.py --data-dir DATA_DIR
    jaxcl evaluate runs/simclr_imagenet --protocol linear_sgd --set epochs=90 batch_size=4096

The default knobs are the paper's section 2.3: batch 4096, LARS with learning rate 0.3 for 256 images, weight decay
1e-6, temperature 0.1, a head of two layers. It reports 64.5 % linear accuracy after 100 epochs and 69.3 % after 1000,
on 32 to 128 TPU v3 cores. Small batches want the square root: at 256 images 57.5 % becomes 62.8 % (100 epochs, table
B.1) by --batch-size 256 --rate-rule sqrt --learning-rate 0.075. The recipe that came with SimCLRv2's code is
--head-layers 3 --weight-decay 1e-4 --brightness-form multiply, with the square root (the 64.5 % beside it in the README
are of the first version: an author, issue 119). Loss and steps are the
code's: the means of both views are added, and batches run on from epoch to epoch (31,279 steps). Not run here.
`tfds:imagenet2012` must have been prepared in DATA_DIR from the archives of image-net.org. What the host decodes bounds
the speed: of 500 x 375 pixels, a core makes the paper's two views of some 135 images a second (--input host) or decodes
twice as many for the device, whose crops come from the centre square of 256 pixels (--input device).
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxcl import About, ImageNetKnobs, Recipe, augment, basics, losses, methods, nets, optim, steps_across
from jaxcl.feature_transform import Mix, nt_xent_of


@dataclass(frozen=True)
class Knobs(ImageNetKnobs):
    epochs: float = 100
    batch_size: int = 4096
    depth: int = 50  # ResNet-18, 34, 50, 101, 152 or 200
    width: int = 1  # width multiplier of the ResNet
    pool: Literal["same", "torch"] = "same"  # of the stem's max pool; torch: for PyTorch's weights
    head_layers: int = 2  # layers of the projection head
    temperature: float = 0.1  # NT-Xent's temperature
    mix: Mix = "none"  # which features are mixed before the loss (`feature_transform.MIXES`)
    learning_rate: float = 0.3  # base rate of LARS: 0.3 with the linear rule, 0.075 with the square root
    rate_rule: Literal["linear", "sqrt"] = "linear"  # base batch / 256, or base sqrt(batch)
    loss_factor: float = 2.0
    """2: the loss of the authors' code, to which their rates and weight decay belong; 1: the paper's equation 1."""
    warmup_epochs: float = 10  # epochs of linear warm-up, before the cosine
    weight_decay: float = 1e-6  # L2 penalty on the gradient, of kernels only
    strength: float = 1.0  # strength of the color jitter
    brightness_form: Literal["add", "multiply"] = "add"  # an amount (the paper's code), a factor (SimCLRv2's)


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, _, axis, dtype, lean = basics(knobs, about)
    steps = steps_across(knobs.epochs, about.count, knobs.batch_size) + 1
    warmup_steps = steps_across(knobs.warmup_epochs, about.count, knobs.batch_size)
    norm = nets.batch_norm(axis_name=axis)
    change = augment.simclr(size, strength=knobs.strength, brightness_form=knobs.brightness_form)
    views = augment.two_views(change)
    peak = optim.scaled_learning_rate(knobs.learning_rate, knobs.batch_size, rule=knobs.rate_rule)
    rate = optim.warmup_cosine(peak, steps=steps, warmup_steps=warmup_steps)
    net = {"stem": "imagenet", "pool": knobs.pool, "width": knobs.width, "norm": norm, "dtype": dtype}
    encoder = lean(nets.resnet(knobs.depth, shortcuts="of_every_stage", **net))
    head = nets.projection_head(layers=knobs.head_layers, out=128, norm=norm)
    loss = nt_xent_of(knobs.mix, temperature=knobs.temperature)
    loss = partial(losses.scaled, loss=loss, factor=knobs.loss_factor)
    method = methods.simclr(views=views, encoder=encoder, head=head, loss=loss, axis_name=axis)
    optimizer = optim.lars(rate, momentum=0.9, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, augment.probe_views(size))
