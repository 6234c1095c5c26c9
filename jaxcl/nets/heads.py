"""What stands between the representation h and the loss: [b, d] -> [b, out]."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxcl.nets.conv import as_in_torch
from jaxcl.nets.net import from_linen
from jaxcl.nets.norm import Bias
from jaxcl.nets.resnet import KERNELS
from jaxcl.typing import Net, Norm

MODES = ("nonlinear", "linear", "none")


def projection_head(
    *,
    norm: Norm,
    mode: str = "nonlinear",
    layers: int = 2,
    width: int | None = None,
    out: int = 128,
    until: int | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Net:
    """SimCLR's projection head, as in its published code: representations [b, d] -> projections [b, out].

    mode
        "nonlinear": `layers` times dense and norm, with a ReLU between them; hidden layers are `width` wide
        (None: as wide as the input). SimCLR v1 (arXiv:2002.05709) has 2 layers, v2 (arXiv:2006.10029) 3.
        "linear": one dense layer and norm, whatever `layers` and `width` are.
        "none": z = h, with neither parameters nor state.
    until
        only the first so many of the layers, each with its ReLU: what SimCLRv2 keeps of the head of three for
        fine-tuning (section 2, "from a middle layer"; `ft_proj_selector` of its code). 0 is no head at all.

    Dense layers have no bias and kernels drawn from N(0, 0.01^2); the last norm scales but has no offset.
    """
    if mode not in MODES:
        raise ValueError(f'projection_head\'s mode is "nonlinear", "linear" or "none"; got {mode!r}.')
    if layers < 1:
        raise ValueError(
            f'projection_head needs at least one layer; got layers={layers}. For none: mode="none".'
        )
    layers = layers if mode == "nonlinear" else 1
    if until is not None and not 0 <= until < layers:
        raise ValueError(
            f"until, the number of layers kept, must be 0 to {layers - 1} for {layers} layers; got {until}."
        )
    if mode == "none" or until == 0:
        return Net(
            lambda key, x: ({}, {}),
            lambda params, state, x, *, train: (x, state),
            lambda params, state, x: (x,),
        )
    return with_layers(ProjectionHead(norm, layers, width, out, dtype, until))


def mlp_head(
    *,
    norm: Norm,
    hidden: Sequence[int] = (2048,),
    out: int = 128,
    bias: bool = True,
    initialization: str = "lecun",
    dtype: DTypeLike = jnp.float32,
) -> Net:
    """A multilayer perceptron: [b, d] -> [b, out]; norm and ReLU after each hidden layer, not after the last.

    MoCo v1: `mlp_head(norm=no_norm(), hidden=(), out=128)`; MoCo v2: `hidden=(2048,)` (the width of its
    input), also without norm (arXiv:2003.04297). BYOL's projector and predictor:
    `mlp_head(norm=batch_norm(...), hidden=(4096,), out=256, bias=False)` (arXiv:2006.07733).

    Hidden layers have the norm's offset for a bias; `bias` is that of the last layer.

    initialization
        "lecun": kernels with variance 1 / (fan in), truncated at two standard deviations; biases are 0. "torch":
        PyTorch's for linear layers, kernels and biases uniform within 1 / sqrt(fan in). "haiku": as in `resnet`; biases
        are 0. (An offset of batch normalization starts at 0 in all.)
    """
    if initialization not in KERNELS:
        raise ValueError(
            f'mlp_head\'s initialization is "lecun", "torch" or "haiku"; got {initialization!r}.'
        )
    return with_layers(MLPHead(norm, tuple(hidden), out, bias, dtype, initialization))


def with_layers(module: nn.Module) -> Net:
    """The net of a module whose `__call__(x, *, train, every)` returns, for `every`, x and every layer's output."""

    def layers(params, state, x):
        return module.apply({"params": params, **state}, x, train=False, every=True)

    return from_linen(module)._replace(layers=layers)


class ProjectionHead(nn.Module):
    """The module behind `projection_head`."""

    norm: Norm
    layers: int
    width: int | None
    out: int
    dtype: DTypeLike
    until: int | None = None

    @nn.compact
    def __call__(self, x, *, train: bool, every: bool = False):
        def dense(features):
            kernel_init = nn.initializers.normal(0.01)
            return nn.Dense(features, use_bias=False, dtype=self.dtype, kernel_init=kernel_init)

        width, seen = self.width or x.shape[-1], [x]
        for _ in range(self.layers - 1 if self.until is None else self.until):
            seen.append(nn.relu(self.norm()(dense(width)(seen[-1]), train=train)))
        if self.until is None:
            seen.append(self.norm(use_bias=False)(dense(self.out)(seen[-1]), train=train))
        return tuple(seen) if every else seen[-1]


class MLPHead(nn.Module):
    """The module behind `mlp_head`."""

    norm: Norm
    hidden: tuple[int, ...]
    out: int
    bias: bool
    dtype: DTypeLike
    initialization: str = "lecun"

    @nn.compact
    def __call__(self, x, *, train: bool, every: bool = False):
        seen = [x]

        def starts(x):
            """Of a layer's kernel and bias."""
            if self.initialization != "torch":
                return KERNELS[self.initialization][0], nn.initializers.zeros
            return (as_in_torch(x.shape[-1]),) * 2

        for features in self.hidden:
            kernel_init, bias_init = starts(x)
            x = nn.Dense(features, use_bias=False, dtype=self.dtype, kernel_init=kernel_init)(x)
            norm = self.norm(bias_init=bias_init) if self.norm is Bias else self.norm()
            x = nn.relu(norm(x, train=train))
            seen.append(x)
        kernel_init, bias_init = starts(x)
        x = nn.Dense(
            self.out, use_bias=self.bias, dtype=self.dtype, kernel_init=kernel_init, bias_init=bias_init
        )(x)
        return (*seen, x) if every else x
