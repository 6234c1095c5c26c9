"""The family of generalized contrastive losses on CIFAR-10: do their differences shrink with a deeper head?

    jaxcl sweep configs/losses_cifar10.py --head-layers 2 3
        --loss nt_xent decoupled swd_sphere swd_cube swd_normal --seed 0 1 2 --data-dir DATA_DIR --protocol linear knn

"Intriguing Properties of Contrastive Losses" (Chen, Luo and Li, 2021, arXiv:2011.02803, figure 1) trains a ResNet-50
for 100 to 800 epochs and finds linear accuracies of 85.0 (hypercube) to 87.7 (decoupled; both read off the figure)
after 100 epochs with a 2-layer head, differences that shrink with longer training and, on ImageNet, vanish with a
3-layer head. Here a small encoder sees a few epochs, in minutes on a CPU (benchmarks/results/losses-cifar10.md).

SimCLR's table 4 (arXiv:2002.05709) compares NT-Xent with two other losses, over the grids of its appendix B.10; margin
50.9 %, NT-Logistic 51.6, with semi-hard negatives 57.5 and 57.9, NT-Xent 63.9 on ImageNet after 100 epochs. Here:

    jaxcl sweep configs/losses_cifar10.py --loss nt_logistic --semi-hard False True --temperature 0.1 0.2 0.5 1.0
        --learning-rate 5e-4 1e-3 2e-3 --data-dir DATA_DIR
    jaxcl sweep configs/losses_cifar10.py --loss margin_triplet --semi-hard False True --margin 0 0.4 0.8 1.6
        --learning-rate 5e-4 1e-3 2e-3 --data-dir DATA_DIR
"""

from dataclasses import dataclass
from typing import Literal

from jaxcl import About, CommonKnobs, Recipe, augment, basics, methods, nets, optim
from jaxcl.feature_transform import Mix, family_of


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    epochs: float = 5
    batch_size: int = 256
    log_every: int = 50
    loss: Literal[
        "nt_xent", "decoupled", "swd_sphere", "swd_cube", "swd_normal", "nt_logistic", "margin_triplet"
    ] = "nt_xent"
    """NT-Xent; its two terms decoupled; alignment with a sliced Wasserstein distance to one of three priors; and the
    two that SimCLR compares with NT-Xent."""
    temperature: float = 0.2  # of NT-Xent and NT-Logistic
    mix: Mix = "none"  # of nt_xent: which features are mixed before the loss (`feature_transform.MIXES`)
    weight: float = 5.0  # of a sliced Wasserstein distance beside alignment
    margin: float = 0.4  # of the margin triplet loss
    semi_hard: bool = False  # of these two: only the hardest negative that is less similar than the positive
    head_layers: int = 2  # layers of the projection head
    features: tuple[int, ...] = (16, 32, 64, 128)  # channels of the encoder's convolutions
    min_area: float = 0.08  # the smallest fraction of the image that a crop may keep
    flip: bool = True  # digits are not mirrored
    hue: float = 0.1  # the largest shift of the hue, a fraction of the color circle
    grayscale: float = 0.2  # the fraction of the views that are gray
    learning_rate: float = 2e-3  # of AdamW, whose step is blind to a factor before the loss


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm = nets.batch_norm(axis_name=axis)
    own = {name: getattr(knobs, name) for name in ("flip", "min_area", "hue", "grayscale")}
    views = augment.two_views(augment.simclr(size, strength=0.5, blur=False, **own))
    rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=steps // 20)
    encoder = lean(nets.small_convnet(features=knobs.features, norm=norm, dtype=dtype))
    head = nets.projection_head(layers=knobs.head_layers, width=256, out=64, norm=norm)
    settings = {name: getattr(knobs, name) for name in ("temperature", "weight", "margin", "semi_hard")}
    loss = family_of(knobs.mix, knobs.loss, **settings)
    method = methods.simclr(views=views, encoder=encoder, head=head, loss=loss, axis_name=axis)
    optimizer = optim.adamw(rate, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size)
