"""SimCLR on scikit-learn's handwritten digits, scattered over clutter: the whole of jaxcl in minutes on two cores.

make quickstart              or, step by step,

jaxcl train configs/quickstart.py
jaxcl evaluate runs/quickstart           (kNN 46.1 %, linear 66.3 %)
jaxcl plot runs/quickstart
"""

from dataclasses import dataclass

from jaxcl import About, CommonKnobs, Recipe, augment, basics, losses, methods, nets, optim


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    data: str = "digits"
    batch_size: int = 256
    log_every: int = 10
    save_every: int = 200
    temperature: float = 0.2  # NT-Xent's temperature
    min_area: float = 0.3  # the smallest fraction of the image that a crop may keep
    features: tuple[int, ...] = (32, 64, 128, 128)  # channels of the encoder's convolutions


def recipe(knobs: Knobs, about: About) -> Recipe:
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm = nets.batch_norm(axis_name=axis)
    # No flip: a mirrored digit is another sign.
    crops = {"min_area": knobs.min_area, "distribution": augment.uniform_area}
    views = augment.two_views(augment.simclr(size, strength=0.5, blur=False, flip=False, **crops))
    rate = optim.warmup_cosine(knobs.learning_rate, steps=steps, warmup_steps=steps // 10)
    encoder = lean(nets.small_convnet(features=knobs.features, norm=norm, dtype=dtype))
    head = nets.projection_head(layers=2, width=256, out=64, norm=norm)
    loss = losses.keyless(losses.nt_xent, temperature=knobs.temperature)
    method = methods.simclr(views=views, encoder=encoder, head=head, loss=loss, axis_name=axis)
    optimizer = optim.adamw(rate, weight_decay=knobs.weight_decay)
    return Recipe(method, optimizer, rate, views, steps, knobs.batch_size, augment.probe_views(size))
