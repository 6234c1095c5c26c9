"""SimCLR on CIFAR-10 on a CPU: an encoder small enough to be trained in minutes on four cores.

    jaxcl train configs/simclr_cifar10_cpu.py --data-dir DATA_DIR
    jaxcl evaluate runs/simclr_cifar10_cpu --protocol knn linear

Four busy CPU cores, 35 minutes: 59.5 % kNN (k=10, cosine; raw pixels 36.1, untrained encoder 41.3).
With --epochs 10, in 9 minutes and more: 55.0 %.
`tfds:cifar10` must have been prepared in DATA_DIR (`tfds.load("cifar10", data_dir=DATA_DIR)`, once, online).
"""

from dataclasses import dataclass

from jaxcl import About, CommonKnobs, Recipe, augment, basics, methods, nets, optim
from jaxcl.feature_transform import Mix, nt_xent_of


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    features: tuple[int, ...] = (32, 64, 128, 256)  # channels of the encoder's convolutions
    head_layers: int = 2  # layers of the projection head
    temperature: float = 0.2  # NT-Xent's temperature
    mix: Mix = "none"  # which features are mixed before the loss (`feature_transform.MIXES`)
    strength: float = 0.5  # strength of the color jitter
    fused: bool = False  # the fast form of the views, with one clip and a linear rotation of the hue


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm = nets.batch_norm(axis_name=axis)
    change = augment.simclr(size, strength=knobs.strength, blur=False)
    views = augment.two_views(augment.fuse(change) if knobs.fused else change)
    rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=steps // 20)
    encoder = lean(nets.small_convnet(features=knobs.features, norm=norm, dtype=dtype))
    head = nets.projection_head(layers=knobs.head_layers, width=512, out=128, norm=norm)
    loss = nt_xent_of(knobs.mix, temperature=knobs.temperature)
    method = methods.simclr(views=views, encoder=encoder, head=head, loss=loss, axis_name=axis)
    optimizer = optim.adamw(rate, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, augment.probe_views(size))
