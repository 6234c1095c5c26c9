"""A recipe of the CIFAR-10 record as data, and what is compiled of it: method, optimizer, training steps, features.

A recipe says everything about a run but its length; `record.py` times it, `record_search.py` compares small ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jaxcl import augment, losses, nets
from jaxcl.extract import pool
from jaxcl.memory import ema
from jaxcl.methods import simclr
from jaxcl.train import TrainState, make_step, optim
from jaxcl.typing import Array, Method, PyTree


class Phase(NamedTuple):
    """A part of the training, from the end of the one before: to this fraction of the steps, views of `size` pixels
    that are crops of at least `min_area` of the image."""

    until: float
    size: int
    min_area: float


@dataclass(frozen=True)
class Recipe:
    name: str
    network: str = "resnet18"
    """resnet18 with the CIFAR stem; pooled, early pooling and wide maps; small, for a CPU."""
    features: tuple[int, ...] = (64,)
    """Channels: of the first stage (resnet18), or of each stage."""
    stages: int = 4
    """Of resnet18's four."""
    initialization: str = "lecun"
    zero_init_last_gamma: bool = True
    head: tuple[int, ...] = (1024,)
    """Widths of the head's hidden layers."""
    head_norm: bool = False
    out: int = 128
    norm_by_view: bool = False
    """Batch statistics of each view by itself."""
    loss: str = "nt_xent"
    temperature: float = 0.5
    batch_size: int = 512
    drop_last: bool = True
    views: int = 2
    """Views of an image, at the phase's size."""
    small: tuple[int, int, float, float] | None = None
    """Further views of each image: how many, their size, the least and the greatest area of their crops."""
    phases: tuple[Phase, ...] = (Phase(1.0, 32, 0.2),)
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    gray: float = 0.1
    fused: bool = False
    optimizer: str = "sgd"
    learning_rate: float = 0.12
    """The peak, for this batch."""
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    decay_all: bool = True
    warmup: float = 0.0
    """Fraction of the steps."""
    rate_by_epoch: bool = False
    """The rate is constant within an epoch."""
    muon_rms: float | None = 0.2
    """Under Muon: the root mean square of a kernel's update, over the rate; None scales it by the spectral norm, which
    is then the rate (times sqrt(out / in) where a kernel widens), whatever the width of the network."""
    vector_rate: float = 1.0
    """Under Muon: the rate of biases and of batch norm, as a fraction of that of the kernels."""
    ema: float = 0.0
    """Decay of the averaged weights that are evaluated; 0 evaluates the last ones."""
    dtype: str = "bfloat16"


class Carry(NamedTuple):
    """What goes from step to step: the training state, and the averaged (params, state) or ()."""

    train: TrainState
    averaged: PyTree


class Plan(NamedTuple):
    """How long a run of a recipe is: its epochs, the sizes of an epoch's batches, and the epoch at which each phase
    ends."""

    epochs: int
    batch_sizes: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def steps(self) -> int:
        return self.epochs * len(self.batch_sizes)

    def phase(self, epoch: int) -> int:
        """The number of the phase that an epoch (from 0) is in."""
        return next(i for i, end in enumerate(self.ends) if epoch < end)


def batch_sizes(recipe: Recipe, images: int) -> tuple[int, ...]:
    """Of the steps of an epoch: as PyTorch's DataLoader has them, the last one smaller unless it is dropped."""
    full, rest = divmod(images, recipe.batch_size)
    sizes = (recipe.batch_size,) * full + ((rest,) if rest and not recipe.drop_last else ())
    if not sizes:
        raise ValueError(f"{images} images are fewer than a batch of {recipe.batch_size}.")
    return sizes


def plan(recipe: Recipe, images: int, epochs: int) -> Plan:
    """Phases end with an epoch: what is compiled has one size of views."""
    ends = tuple(round(phase.until * epochs) for phase in recipe.phases)
    return Plan(epochs, batch_sizes(recipe, images), ends)


# ---------------------------------------------------------------------------------------------- the five parts


def augmentation(recipe: Recipe, size: int, min_area: float, max_area: float = 1.0) -> augment.Op:
    """torchvision's RandomResizedCrop of Pillow images, flip, jitter (p 0.8), grayscale."""
    crop = augment.random_resized_crop(
        size,
        area=(min_area, max_area),
        distribution=augment.uniform_area_log_ratio,
        method="bilinear",
        antialias=True,
    )
    op = augment.compose(
        crop,
        augment.flip(),
        augment.color_jitter(*recipe.jitter),
        augment.grayscale(probability=recipe.gray),
        augment.clip(),
    )
    return augment.fuse(op) if recipe.fused else op


def views_of(recipe: Recipe, phase: Phase):
    dtype = jnp.dtype(recipe.dtype)
    op = augmentation(recipe, phase.size, phase.min_area)
    if recipe.small is None:
        return augment.n_views(op, recipe.views, dtype=dtype)
    count, size, least, most = recipe.small
    ops = [op] * recipe.views + [augmentation(recipe, size, least, most)] * count
    return augment.each_view(ops, dtype=dtype)


def network_of(recipe: Recipe) -> tuple[Any, Any]:
    dtype = jnp.dtype(recipe.dtype)
    norm = nets.batch_norm(views=recipe.views if recipe.norm_by_view else 1)
    if recipe.network == "resnet18":
        encoder = nets.resnet(
            18,
            stem="cifar",
            norm=norm,
            features=recipe.features[0],
            stages=recipe.stages,
            dtype=dtype,
            zero_init_last_gamma=recipe.zero_init_last_gamma,
            initialization=recipe.initialization,
        )
    elif recipe.network == "small":
        encoder = nets.small_convnet(features=recipe.features, norm=norm, dtype=dtype)
    else:
        raise ValueError(f"no network {recipe.network!r}")
    head_norm = norm if recipe.head_norm else nets.no_norm()
    head = nets.mlp_head(
        norm=head_norm, hidden=recipe.head, out=recipe.out, initialization=recipe.initialization
    )
    return encoder, head


def pooled(maps: tuple[Array, ...]) -> Array:
    """`pool`, in float32: rounded to bfloat16 its means would lose what tells near neighbors apart."""
    return pool((maps[-1].astype(jnp.float32),))


def method_of(recipe: Recipe, phase: Phase) -> Method:
    encoder, head = network_of(recipe)
    views = views_of(recipe, phase)
    function = {"nt_xent": losses.nt_xent, "dcl": losses.dcl}[recipe.loss]
    two = simclr(
        views=lambda key, batch: views(key, batch)[:2],
        encoder=encoder,
        head=head,
        loss=losses.keyless(function, temperature=recipe.temperature),
        extract=pooled,
    )
    if recipe.views == 2 and recipe.small is None:
        return two

    def loss(params, state, key, batch):
        """As `simclr`, for more views: those of one size go through the network together."""
        xs = views(jax.random.split(key)[0], batch)
        zs: list[Array] = []
        for group in (xs[: recipe.views], xs[recipe.views :]):
            if not group:
                continue
            x = jnp.stack(group, axis=1).reshape(-1, *group[0].shape[1:])
            maps, encoder_state = encoder.apply(params["encoder"], state["encoder"], x, train=True)
            z, head_state = head.apply(params["head"], state["head"], pooled(maps), train=True)
            state = {"encoder": encoder_state, "head": head_state}
            zs += [z[i :: len(group)] for i in range(len(group))]
        return function(*zs, temperature=recipe.temperature), (state, {})

    return Method(two.init, loss, two.embed)


def learning_rate_of(recipe: Recipe, steps: Array | int, per_epoch: int) -> Callable[[Array], Array]:
    """step -> rate: linearly up for the warm-up's fraction of the steps, then half a cosine down to 0 at the last.

    `optim.warmup_cosine`, whose number of steps may be an argument of the compiled program, so that it can be chosen
    when it is known how long a step takes.
    """

    def rate(step: Array) -> Array:
        done = (step - step % per_epoch if recipe.rate_by_epoch else step) / steps
        falling = 0.5 * (1 + jnp.cos(jnp.pi * (done - recipe.warmup) / (1 - recipe.warmup)))
        return recipe.learning_rate * jnp.where(
            done < recipe.warmup, done / max(recipe.warmup, 1e-9), falling
        )

    return rate


def optimizer_of(recipe: Recipe, rate: Callable[[Array], Array]) -> optax.GradientTransformation:
    decay = recipe.weight_decay
    if recipe.optimizer == "sgd":
        return optim.sgd(
            rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=decay,
            decay_all=recipe.decay_all,
        )
    if recipe.optimizer == "lars":
        return optim.lars(rate, momentum=recipe.momentum, nesterov=recipe.nesterov, weight_decay=decay)
    if recipe.optimizer == "adamw":
        return optim.adamw(rate, weight_decay=decay)
    if recipe.optimizer == "muon":
        of_vectors = (lambda step: recipe.vector_rate * rate(step)) if recipe.vector_rate != 1 else rate
        return muon(rate, of_vectors, momentum=recipe.momentum, weight_decay=decay, rms=recipe.muon_rms)
    raise ValueError(f"optimizer is sgd, lars, adamw or muon; got {recipe.optimizer!r}.")


def muon(
    rate: Callable[[Array], Array],
    of_vectors: Callable[[Array], Array],
    *,
    momentum: float,
    weight_decay: float,
    rms: float | None,
) -> optax.GradientTransformation:
    """Muon (Jordan 2024) for every kernel, a convolution's as the matrix [kh kw c, d]; Adam for the vectors."""

    def matrices(params):
        def one(w):
            return contrib.MuonDimensionNumbers(tuple(range(w.ndim - 1)), w.ndim - 1) if w.ndim > 1 else None

        return jax.tree.map(one, params)

    return contrib.muon(
        rate,
        adam_learning_rate=of_vectors,
        beta=momentum,
        weight_decay=weight_decay,
        weight_decay_mask=lambda params: jax.tree.map(lambda w: w.ndim > 1, params),
        muon_weight_dimension_numbers=matrices,
        consistent_rms=rms,
    )


# ---------------------------------------------------------------------------------------------- what is compiled


def init(recipe: Recipe, key: Array) -> Carry:
    """The state before the first step, the same whatever the images are. To be compiled."""
    batch = {"image": jnp.zeros((2, 32, 32, 3), jnp.uint8), "index": jnp.arange(2, dtype=jnp.int32)}
    params, state = method_of(recipe, recipe.phases[0]).init(key, batch)
    optimizer = optimizer_of(recipe, lambda step: recipe.learning_rate)
    train = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), state)
    return Carry(train, jax.tree.map(jnp.copy, (params, state)) if recipe.ema else ())


def training_steps(recipe: Recipe, phase: Phase, per_epoch: int) -> Callable:
    """(carry, run key, images uint8 [n, h, w, c], steps of the run, index int32 [k, b]) -> carry, losses [k]: k
    training steps in one call, on images that stay on the device. To be compiled, the carry donated."""
    method = method_of(recipe, phase)

    def program(carry: Carry, key, images, steps, index):
        optimizer = optimizer_of(recipe, learning_rate_of(recipe, steps, per_epoch))
        step = make_step(method, optimizer)

        def one(carry: Carry, index):
            train, metrics = step(carry.train, key, {"image": images[index], "index": index})
            averaged = carry.averaged
            if recipe.ema:
                now = train.step.astype(jnp.float32)
                decay = jnp.minimum(recipe.ema, (1 + now) / (10 + now))  # the start is soon forgotten
                averaged = ema(averaged, (train.params, train.state), decay)
            return Carry(train, averaged), metrics["loss"]

        if len(index) > 1:
            return jax.lax.scan(one, carry, index)
        # No loop: inside of one, convolutions are slow on a CPU.
        carry, loss = one(carry, index[0])
        return carry, loss[None]

    return program


def features(recipe: Recipe, *, batch_size: int = 1000) -> Callable:
    """(carry, images uint8 [n, h, w, c]) -> float32 [n, d]: before the head, with the averaged weights if there are
    any; `batch_size` images at a time (n is a multiple of it, or less than it)."""
    embed = method_of(recipe, recipe.phases[-1]).embed

    def program(carry: Carry, images):
        params, state = carry.averaged if recipe.ema else (carry.train.params, carry.train.state)

        def some(images):
            return embed(params, state, images.astype(recipe.dtype) / 255).astype(jnp.float32)

        if len(images) <= batch_size:
            return some(images)
        if len(images) % batch_size:
            raise ValueError(f"{len(images)} images are no multiple of {batch_size}.")
        made = jax.lax.map(some, images.reshape(-1, batch_size, *images.shape[1:]))
        return made.reshape(len(images), -1)

    return program
