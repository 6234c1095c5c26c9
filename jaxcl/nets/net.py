"""From a flax module to the two pure functions of `Net`."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from jaxcl.typing import Made, Net


def from_linen(module: nn.Module) -> Net:
    """A flax.linen module whose `__call__(x, *, train)` -> `Net`.

    Every collection but "params" (batch statistics, ...) becomes the net's state.
    """

    def init(key, x):
        variables = dict(module.init(key, x, train=False))
        params = variables.pop("params", {})
        return params, variables

    def apply(params, state, x, *, train):
        if not train:
            return module.apply({"params": params, **state}, x, train=False), state
        out, new_state = module.apply({"params": params, **state}, x, train=True, mutable=list(state))
        return out, {**state, **new_state}

    return Net(init, apply, made=Made(module))


# Mean and standard deviation of the pixels of well-known data sets, channel by channel, for `standardized`: CIFAR-10's
# and STL-10's as AMDIM's code has them (datasets.py), ImageNet's as torchvision has;
# CIFAR-10's once more as MoCo's demo has them.
STATISTICS = {
    "cifar10": {"mean": (125.3 / 255, 123.0 / 255, 113.9 / 255), "std": (63 / 255, 62.1 / 255, 66.7 / 255)},
    "stl10": {"mean": (0.43, 0.42, 0.39), "std": (0.27, 0.26, 0.27)},
    "imagenet": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    "cifar10_moco": {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)},
}


def standardized(net: Net, *, mean: Sequence[float], std: Sequence[float]) -> Net:
    """The net on (x - mean) / std, channel by channel: for methods that do not feed pixels in [0, 1].

    MoCo, BYOL, AMDIM and CMC standardize their images, SimCLR does not. `nets.STATISTICS` holds what they do it by:
    `standardized(net, **nets.STATISTICS["imagenet"])`.

    >>> identity = Net(lambda key, x: ({}, {}), lambda params, state, x, *, train: (x, state))
    >>> half = standardized(identity, mean=[0.5], std=[0.25])
    >>> half.apply({}, {}, jnp.array([[0.5, 1.0]]), train=False)[0].tolist()
    [[0.0, 2.0]]
    """

    if len(mean) != len(std):
        raise ValueError(
            f"standardized needs as many means as standard deviations; got {len(mean)} and {len(std)}."
        )

    def scaled(x):
        if len(mean) not in (1, x.shape[-1]):
            raise ValueError(
                f"standardized has means of {len(mean)} channels, and the images have {x.shape[-1]}; give one mean and"
                " std a channel (of the part of an image, for CMC), or one for all."
            )
        return (x - jnp.asarray(mean, x.dtype)) / jnp.asarray(std, x.dtype)

    return Net(
        lambda key, x: net.init(key, scaled(x)),
        lambda params, state, x, *, train: net.apply(params, state, scaled(x), train=train),
        made=None if net.made is None else net.made._replace(mean=tuple(mean), std=tuple(std)),
    )
