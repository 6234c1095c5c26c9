"""Optimisers and schedules as the papers use them, made of optax parts.

A learning rate is a number or a schedule, step -> number; step 0 is the first update. Numbers may be traced: a
population of runs maps over them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxcl.typing import Array, PyTree

Number = float | Array
LearningRate = Number | Callable[[Array], Array]

# (path, parameter) -> left out? The path is written "encoder/stem/conv/kernel".
Exclude = Callable[[str, Any], bool]


# What layers call the parameters that no paper decays or adapts, whatever their shape.
BIAS_OR_NORM = ("scale", "bias")


def is_bias_or_norm(path: str, parameter: Any) -> bool:
    """Whether a parameter is a bias, or the scale or offset of a normalization: of at most one dimension, or called
    "scale" or "bias" (those of `nets.map_norm` are [h, w, c]).

    >>> is_bias_or_norm("head/bias", jnp.zeros(3)), is_bias_or_norm("head/kernel", jnp.zeros((3, 3)))
    (True, False)
    >>> is_bias_or_norm("encoder/MapNorm_0/scale", jnp.zeros((7, 7, 64)))
    True
    """
    return jnp.ndim(parameter) <= 1 or path.rpartition("/")[2] in BIAS_OR_NORM


def is_norm_or_probe(path: str, parameter: Any) -> bool:
    """As `is_bias_or_norm`, and a classifier of labels below "probe/": SimCLR's LARS does not adapt its own. (That is
    decayed all the same, by a term of the loss: `lars(..., exclude=is_norm_or_probe, undecayed=is_bias_or_norm)`.)

    >>> is_norm_or_probe("probe/kernel", jnp.zeros((3, 3))), is_norm_or_probe("head/kernel", jnp.zeros((3, 3)))
    (True, False)
    """
    return path.startswith("probe/") or is_bias_or_norm(path, parameter)


def is_norm_of_encoder(path: str, parameter: Any) -> bool:
    """As `is_bias_or_norm`, but for the bias of a classifier of labels, which SimCLR's code decays under SGD.

    >>> is_norm_of_encoder("probe/bias", jnp.zeros(3)), is_norm_of_encoder("encoder/stem_norm/bias", jnp.zeros(3))
    (False, True)
    """
    return not path.startswith("probe/") and is_bias_or_norm(path, parameter)


def lars(
    learning_rate: LearningRate,
    *,
    weight_decay: Number = 0.0,
    momentum: Number = 0.9,
    trust_coefficient: Number = 0.001,
    exclude: Exclude = is_bias_or_norm,
    undecayed: Exclude | None = None,
    nesterov: bool = False,
    momentum_includes_lr: bool = True,
    clip: bool = False,
) -> optax.GradientTransformation:
    """Layer-wise adaptive rate scaling (You, Gitman and Ginsburg, 2017, arXiv:1708.03888), as SimCLR uses it.

    For every parameter w with gradient g and buffer v:

        g <- g + weight_decay w
        trust = trust_coefficient |w| / |g|       1 where either norm is 0
        v <- momentum v + learning_rate trust g
        w <- w - v

    exclude
        (path, parameter) -> bool; what it picks has neither weight decay nor trust ratio: plain momentum. By default
        all biases, scales and offsets (`is_bias_or_norm`). (optax.lars adapts and decays everything by default, which
        is not what any of the papers did.)
    undecayed
        (path, parameter) -> bool; the parameters without weight decay, if they are not those of `exclude`. Then
        `exclude` picks the parameters without trust ratio. None: `exclude` picks both.
    momentum_includes_lr
        True: the rate is part of the buffer, as above (SimCLR). False: v <- momentum v + trust g and
        w <- w - learning_rate v (BYOL). They differ only where the rate changes, but warm-up and cosine always do.
    nesterov
        steps along momentum v + the newest term in place of v.
    clip
        trust <- min(trust / learning_rate, 1) before it is used, where neither norm is 0 (else 1), so that momentum
        aside a step is the smaller one of trust g and learning_rate g: LARC (NVIDIA's apex), which solo-learn's recipes
        have.

    >>> tx = lars(0.1, momentum=0.0, trust_coefficient=0.5)
    >>> w = {"kernel": jnp.array([[3.0, 4.0]])}                        # |w| = 5, |g| = 2: trust = 0.5 * 5 / 2
    >>> tx.update({"kernel": jnp.array([[0.0, 2.0]])}, tx.init(w), w)[0]["kernel"].round(4).tolist()
    [[0.0, -0.25]]
    """

    def included(params: PyTree) -> PyTree:
        return _excluding(exclude, params)

    def to_decay(params: PyTree) -> PyTree:
        return _excluding(undecayed or exclude, params)

    decay = [] if _is_zero(weight_decay) else [optax.add_decayed_weights(weight_decay, mask=to_decay)]
    ratio = (
        _scale_by_clipped_ratio(learning_rate, trust_coefficient)
        if clip
        else optax.scale_by_trust_ratio(trust_coefficient=trust_coefficient)
    )
    trust = optax.masked(ratio, included)
    rate, buffer = optax.scale_by_learning_rate(learning_rate), optax.trace(momentum, nesterov)
    return optax.chain(*decay, trust, *((rate, buffer) if momentum_includes_lr else (buffer, rate)))


def _scale_by_clipped_ratio(learning_rate: LearningRate, coefficient: Number) -> optax.GradientTransformation:
    """g <- min(coefficient |w| / (|g| learning_rate), 1) g; g as it is where either norm is 0."""

    def update(grads, state, params=None):
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate

        def scaled(w, g):
            size, most = jnp.linalg.norm(w), rate * jnp.linalg.norm(g)
            longest = coefficient * size
            return g * jnp.where((size > 0) & (most > longest), longest / most, 1)

        updates = jax.tree.map(scaled, params, grads)
        return updates, optax.ScaleByScheduleState(optax.safe_increment(state.count))

    return optax.GradientTransformation(
        lambda params: optax.ScaleByScheduleState(jnp.zeros([], jnp.int32)), update
    )


def sgd(
    learning_rate: LearningRate,
    *,
    momentum: Number = 0.9,
    nesterov: bool = False,
    weight_decay: Number = 0.0,
    decay_all: bool = True,
    undecayed: Exclude | None = None,
) -> optax.GradientTransformation:
    """g <- g + weight_decay w; v <- momentum v + g; w <- w - learning_rate v.

    decay_all: whether biases and normalization are decayed as well. MoCo and the methods built on its code do so;
    False leaves out biases and normalization (`is_bias_or_norm`). undecayed: (path, parameter) -> bool; the parameters
    that are left out, in its place.

    >>> tx = sgd(0.25, weight_decay=0.5)
    >>> tx.update(jnp.ones(1), tx.init(jnp.ones(1)), jnp.full(1, 2.0))[0].tolist()      # -0.25 (1 + 0.5 * 2)
    [-0.5]
    """
    exclude = undecayed or (None if decay_all else is_bias_or_norm)
    mask = None if exclude is None else lambda params: _excluding(exclude, params)
    decay = [] if _is_zero(weight_decay) else [optax.add_decayed_weights(weight_decay, mask=mask)]
    return optax.chain(*decay, optax.trace(momentum, nesterov), optax.scale_by_learning_rate(learning_rate))


def adamw(
    learning_rate: LearningRate,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: float = 1e-8,
    weight_decay: Number = 0.0,
    exclude: Exclude = is_bias_or_norm,
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019, arXiv:1711.05101); `exclude` is not decayed.

    >>> tx = adamw(0.5)                                                # the first step has the length of the rate
    >>> tx.update(jnp.full(1, 3.0), tx.init(jnp.ones(1)), jnp.ones(1))[0].round(4).tolist()
    [-0.5]
    """
    return optax.adamw(
        learning_rate,
        b1=b1,
        b2=b2,
        eps=eps,
        weight_decay=weight_decay,
        mask=lambda params: _excluding(exclude, params),
    )


def adam(
    learning_rate: LearningRate,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: float = 1e-8,
    weight_decay: Number = 0.0,
) -> optax.GradientTransformation:
    """Adam (Kingma and Ba, 2015, arXiv:1412.6980) whose weight decay is part of the gradient: g <- g + weight_decay w,
    of all parameters, as PyTorch's Adam does it, with which AMDIM and CPC were trained. `adamw` is the decoupled one.

    >>> tx = adam(0.5, weight_decay=1.0)                               # -1 + 3: the step goes down, and has the length
    >>> tx.update(jnp.full(1, -1.0), tx.init(jnp.ones(1)), jnp.full(1, 3.0))[0].round(4).tolist()      # of the rate
    [-0.5]
    """
    decay = [] if _is_zero(weight_decay) else [optax.add_decayed_weights(weight_decay)]
    return optax.chain(*decay, optax.adam(learning_rate, b1=b1, b2=b2, eps=eps))


def scaled_learning_rate(base: Number, batch_size: int, *, rule: str = "linear") -> Number:
    """The rate for a global batch of `batch_size` images (SimCLR, App. B.1).

    rule: "linear", base batch_size / 256; "sqrt", base sqrt(batch_size), kinder to small batches; "none", base.
    The two do not share a base: SimCLR's are 0.3 for linear and 0.075 for sqrt, equal at a batch of 4096. (Its table
    B.1: at a batch of 256, 100 epochs of ImageNet, 57.5 % with the linear rule and 62.8 % with the square root.)

    >>> scaled_learning_rate(0.3, 512), scaled_learning_rate(0.075, 256, rule="sqrt")
    (0.6, 1.2)
    """
    if rule == "linear":
        return base * batch_size / 256
    if rule == "sqrt":
        return base * batch_size**0.5
    if rule == "none":
        return base
    raise ValueError(f'rule must be "linear", "sqrt" or "none"; got {rule!r}.')


def warmup_cosine(
    peak: Number, *, steps: int, warmup_steps: int | Array, every: int = 1, counted_from: int = 0
) -> Callable[[Array], Array]:
    """From exactly 0 linearly to `peak`, then along half a cosine to 0 at `steps`, and 0 from there on.

        peak step / warmup_steps                                                     step < warmup_steps
        peak (1 + cos(pi (step - warmup_steps) / (steps - warmup_steps))) / 2        then

    Counted in updates, so the first one changes nothing unless warmup_steps is 0; `steps` includes the warm-up.
    every: the rate changes only at multiples of it, as where a schedule is asked once an epoch. counted_from: 1 where
    the epochs that it is asked about count from 1: the first is below the peak already, and the last has rate 0. (An
    epoch that is the only one counts from 0: else nothing would be learnt.)

    >>> rate = warmup_cosine(2.0, steps=6, warmup_steps=2)
    >>> [round(float(rate(step)), 4) for step in range(7)]
    [0.0, 1.0, 2.0, 1.7071, 1.0, 0.2929, 0.0]
    >>> rate = warmup_cosine(2.0, steps=4, warmup_steps=0, every=2, counted_from=1)
    >>> [round(float(rate(step)), 4) for step in range(4)]
    [1.0, 1.0, 0.0, 0.0]
    """
    if isinstance(warmup_steps, int) and not 0 <= warmup_steps < steps:
        raise ValueError(
            f"warmup_cosine needs 0 <= warmup_steps < steps; got warmup_steps={warmup_steps} and steps={steps}."
            " Train longer or warm up for a shorter time."
        )
    if every < 1:
        raise ValueError(
            f"every, the steps between changes of the rate, must be at least 1; got every={every}."
        )

    if counted_from * every >= steps:
        counted_from = 0

    def rate(step: Array) -> Array:
        if every > 1:
            step = step - step % every
        step = step + counted_from * every
        done = jnp.clip((step - warmup_steps) / (steps - warmup_steps), 0.0, 1.0)
        falling = peak * 0.5 * (1.0 + jnp.cos(jnp.pi * done))
        return jnp.where(step < warmup_steps, peak * step / _at_least_one(warmup_steps), falling)

    return rate


def falling(
    peak: Number, *, at: Sequence[int], factor: Number = 0.1, warmup_steps: int | Array = 0
) -> Callable[[Array], Array]:
    """`peak`, times `factor` from each step of `at` on; in the first `warmup_steps`, peak (step + 1) / warmup_steps.

    MoCo v1 and CMC fall to a tenth, AMDIM to a fifth after 500 steps of such a warm-up (its code's: the first step
    has 1 / 500 of the rate, not 0 as in `warmup_cosine`).

    >>> rate = falling(2.0, at=(3, 4), factor=0.5, warmup_steps=2)
    >>> [float(rate(step)) for step in range(6)]
    [1.0, 2.0, 2.0, 1.0, 0.5, 0.5]
    """

    def rate(step: Array) -> Array:
        fallen = sum((jnp.asarray(step >= there, jnp.float32) for there in at), jnp.zeros(()))
        return peak * factor**fallen * jnp.minimum(1.0, (step + 1) / _at_least_one(warmup_steps))

    return rate


def _at_least_one(steps: int | Array) -> int | Array:
    return max(steps, 1) if isinstance(steps, int) else jnp.maximum(steps, 1)


def _is_zero(number: Number) -> bool:
    """Whether a number is known to be 0; of a traced one it is not known."""
    return isinstance(number, int | float) and number == 0


def _excluding(exclude: Exclude, params: PyTree) -> PyTree:
    """True where a parameter takes part; optax calls such a tree a mask."""

    def takes_part(path: tuple, parameter: Any) -> bool:
        return not exclude(jax.tree_util.keystr(path, simple=True, separator="/"), parameter)

    return jax.tree_util.tree_map_with_path(takes_part, params)
