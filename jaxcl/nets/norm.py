"""What a layer is normalized over, always an explicit choice.

A *norm* is a maker of layers, `norm(*, scale_init=ones, use_scale=True, use_bias=True) -> layer`, where
`layer(x, *, train)` normalizes [b, ..., c]. Networks are given one and call it wherever a layer stands, so
that what the batch statistics mean is said once, in the config:

    choice                                              each row is normalized with
    batch_norm(axis_name=axis_name)                     the global batch, in every placement
    batch_norm(axis_name=axis_name, groups=8)           its eighth of the global batch, in every placement
    batch_norm(axis_name=axis_name, views=2)            its own view of the global batch, in every placement
    batch_norm()                                        all rows the program sees
    layer_norm()                                        itself, each position by itself
    map_norm()                                          itself, its whole map at once
    no_norm()                                           nothing (a bias is still learnt)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxcl import collectives
from jaxcl.typing import Norm


def batch_norm(
    *,
    axis_name: str | None = None,
    groups: int = 1,
    views: int = 1,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
) -> Norm:
    """Batch normalization (Ioffe and Szegedy, 2015): `scale (x - mean) / sqrt(variance + epsilon) + bias`.

    axis_name
        the axis over which the batch is split (`devices.axis_name`), or None where the program sees
        the whole batch. With the axis given, the result does not depend on how many devices share the
        batch. With None inside `shard_map` or `pmap` every device also keeps running averages of its own,
        which the caller must average before they are returned as replicated.
    groups
        the *global* batch is cut into so many groups of neighbouring rows, each normalized on its own; the
        running averages take the mean over the groups. 1 is the ordinary norm (SimCLR's "global" one). 8
        gives one device the statistics that eight would have, without which MoCo can find the positive by
        its batch (section 3.3 of arXiv:1911.05722); on eight devices every device is its own group, and
        nothing is sent. Under `chunked(net, n)` a group keeps its size: each chunk has groups / n of them.
    views
        rows alternate between so many views of an image (as `simclr` lays them), and each view is normalized on its
        own, as where a network is called once a view. The running averages then move once a view, in their order.
        PyTorch code that calls `model(view1)` and `model(view2)` has views=2; the published SimCLR has 1.
    momentum
        what the running averages keep at each step: new = momentum old + (1 - momentum) batch. The
        convention of TensorFlow and flax; PyTorch's momentum is one minus this. The variance is the biased
        one in both uses (PyTorch's running variance is unbiased).

    Statistics are taken in float32 at least, whatever x is; the result has x's dtype. Raises ValueError
    where the groups do not divide the rows, or cannot be laid on the devices or dealt out to chunks.
    """
    if groups < 1:
        raise ValueError(f"batch_norm needs at least one group; got groups={groups}.")
    if views < 1:
        raise ValueError(f"batch_norm needs at least one view; got views={views}.")
    return partial(
        BatchNorm, axis_name=axis_name, groups=groups, views=views, momentum=momentum, epsilon=epsilon
    )


def layer_norm(*, epsilon: float = 1e-6) -> Norm:
    """Every row normalized over its own last axis: no statistics of the batch, so nothing leaks."""
    return partial(LayerNorm, epsilon=epsilon)


def map_norm(*, epsilon: float = 1e-5) -> Norm:
    """Every row normalized over all its axes, with a scale and a bias for every entry of [h, w, c].

    PyTorch's LayerNorm of a map's whole shape, as CPC's encoder in PyTorch Lightning Bolts has it. The map's size is
    fixed by its parameters.
    """
    return partial(MapNorm, epsilon=epsilon)


def no_norm() -> Norm:
    """No normalization; a bias is learnt where the norm would have had one, since its layers go without."""
    return Bias


class BatchNorm(nn.Module):
    """The layer that `batch_norm` makes."""

    axis_name: str | None = None
    groups: int = 1
    views: int = 1
    momentum: float = 0.9
    epsilon: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True
    scale_init: Callable[..., Any] = nn.initializers.ones

    @nn.compact
    def __call__(self, x, *, train: bool, pool: Callable | None = None, kernel: Any = None, chunks: int = 1):
        """`chunks`: x is one of so many parts of the batch (`recompute.chunked`).

        With a max pool: pool(y) of the normalized y. Only what is left of x is then normalized, and neither pass
        goes through all of y. For a factor f of either sign

            max(f x + offset) = |f| max(sign(f) x) + offset.

        With the kernel w [1, 1, c, d] of a convolution that x has still to go through: y of x w, which neither pass
        reads. Of a bottleneck's last convolution x has a quarter of its channels. By the mean m and the second moments
        G [c, c] of x

            mean(x w) = m w,    mean((x w)^2) = diag(w' G w),    y = x (w factor) + offset."""
        groups = self.groups_of_a_chunk(chunks) if train else 1
        if kernel is not None and not (train and self.is_one_group(groups)):
            x, kernel = pointwise(x, kernel), None
        c = x.shape[-1] if kernel is None else kernel.shape[-1]
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        scale: Any = self.param("scale", self.scale_init, (c,), jnp.float32) if self.use_scale else None
        sign: Any = None
        if pool is not None and scale is not None:
            sign = jnp.where(scale < 0, -1.0, 1.0)
            x, scale = x * sign.astype(x.dtype), scale * sign

        def turned(m):
            """The mean of x as it came, of that of sign(f) x; or the other way round."""
            return m if sign is None else m * sign

        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (c,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (c,), jnp.float32)
        if train and kernel is not None:
            of_x, mean, var = self.statistics_after(x, kernel, groups)
        elif train:
            mean, var = self.statistics(x.astype(dtype), groups)
        if train:
            if not self.is_initializing():
                now = turned(jnp.mean(mean, axis=0)), jnp.mean(var, axis=0)
                if groups > 1:
                    now = collectives.mean(now, self.axis_name)
                for running, values in zip((running_mean, running_var), now, strict=True):
                    for value in values if self.views > 1 else (values,):
                        new = self.momentum * running.value + (1 - self.momentum) * value
                        running.value = new.astype(running.value.dtype)
        else:
            mean, var = turned(running_mean.value[None]), running_var.value[None]
        factor = lax.rsqrt(var + self.epsilon)
        factor = factor if scale is None else factor * scale
        bias = self.param("bias", nn.initializers.zeros, (c,), jnp.float32) if self.use_bias else 0.0
        if train and kernel is not None:
            # The mean by the kernel as it is rounded, so that rounding shifts nothing.
            kernel = (kernel * factor[0]).astype(x.dtype)
            offset = bias - jnp.dot(of_x, kernel[0, 0].astype(dtype), precision="highest")
            return (pointwise(x, kernel).astype(dtype) + offset).astype(x.dtype)
        offset = bias - mean * factor
        # One multiplication and one addition an entry; factor and offset are [g, 1, (v,) 1, ..., 1, c].
        views = self.views if train else 1
        over = tuple(range(1, x.ndim)) if views == 1 else (1, *range(3, x.ndim + 1))
        factor, offset = jnp.expand_dims(factor, over), jnp.expand_dims(offset, over)
        x = x if pool is None else pool(x)
        y = split(x, len(factor), views).astype(dtype) * factor + offset
        return y.reshape(x.shape).astype(x.dtype)

    def groups_of_a_chunk(self, chunks: int) -> int:
        """Into how many groups one of so many parts of the batch is cut."""
        if self.groups == 1:
            return 1
        if self.groups % chunks:
            possible = ", ".join(str(n) for n in range(1, self.groups + 1) if self.groups % n == 0)
            raise ValueError(
                f"batch_norm(groups={self.groups}) cannot be split over {chunks} chunks, each of which holds whole"
                f" groups. Choose {possible} chunks, other groups, or groups=1 for a chunk's own statistics."
            )
        return self.groups // chunks

    def is_one_group(self, groups: int) -> bool:
        """Whether all rows of this device are normalized alike."""
        return self.views == 1 and groups in (1, collectives.size(self.axis_name))

    def statistics_after(self, x, kernel, groups: int):
        """Of x w: the mean [c] of x, and mean and variance [1, d] of x w."""
        w = kernel[0, 0].astype(x.dtype).astype(jnp.promote_types(x.dtype, jnp.float32))
        mean = jnp.mean(x.astype(w.dtype), axis=tuple(range(x.ndim - 1)))
        square = jnp.sum(w * jnp.dot(second_moments(x), w, precision="highest"), axis=0)
        if groups == 1:
            mean, square = collectives.mean((mean, square), self.axis_name)
        of_y = jnp.dot(mean, w, precision="highest")
        return mean, of_y[None], jnp.maximum(square - jnp.square(of_y), 0)[None]

    def statistics(self, x, groups: int):
        """Mean and variance [g, c] of the g groups on this device; [g, v, c] of their v views, if there are several."""
        n, together = x.shape[0], groups == 1
        devices = collectives.size(self.axis_name)
        if groups > 1:
            if groups % devices:
                raise ValueError(
                    f"batch_norm needs groups that each lie on one device; got {groups} groups in a batch, or in one of"
                    f" its chunks, on {devices} devices. Make that 1 (as many groups as chunks) or a multiple of"
                    f" {devices}, or leave the axis to XLA (--placement jit)."
                )
            groups //= devices
        if n % groups:
            raise ValueError(
                f"batch_norm cuts its {n} rows into {groups} equal groups;"
                " choose groups that divide the batch."
            )
        if n // groups % self.views:
            raise ValueError(
                f"batch_norm(views={self.views}) expects rows that alternate between {self.views} views;"
                f" {n // groups} rows are no multiple of that. Give each image as many views, or views=1."
            )
        parts = split(x, groups, self.views)
        over = tuple(axis for axis in range(1, parts.ndim - 1) if self.views == 1 or axis != 2)
        # Both moments in one pass over x, and one message.
        moments = jnp.mean(parts, axis=over), jnp.mean(jnp.square(parts), axis=over)
        if together:
            moments = collectives.mean(moments, self.axis_name)
        mean, square = moments
        return mean, jnp.maximum(square - jnp.square(mean), 0)


def pointwise(x, kernel):
    """The convolution of one position: [b, h, w, c] with [1, 1, c, d]."""
    return lax.conv_general_dilated(
        x, kernel.astype(x.dtype), (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@jax.custom_vjp
def second_moments(x):
    """The mean of x x' over all but the last axis, in float32 at least: [..., c] -> [c, c]."""
    rows, dtype = tuple(range(x.ndim - 1)), jnp.promote_types(x.dtype, jnp.float32)
    total = lax.dot_general(x, x, ((rows, rows), ((), ())), preferred_element_type=dtype)
    return total / (x.size // x.shape[-1])


def _second_moments_backward(x, g):
    # In x's type, as every other product of a backward pass; left alone, autodiff would make it in float32.
    return (pointwise(x, ((g + g.T) / (x.size // x.shape[-1]))[None, None]),)


second_moments.defvjp(lambda x: (second_moments(x), x), _second_moments_backward)


def split(x, groups, views=1):
    """[n, ..., c] -> [groups, n / groups, ..., c], or [groups, n / groups / views, views, ..., c]: only the first
    axis is touched, so the layout stays."""
    return x.reshape(groups, -1, *((views,) if views > 1 else ()), *x.shape[1:])


class LayerNorm(nn.Module):
    """The layer that `layer_norm` makes."""

    epsilon: float = 1e-6
    use_scale: bool = True
    use_bias: bool = True
    scale_init: Callable[..., Any] = nn.initializers.ones

    @nn.compact
    def __call__(self, x, *, train: bool):
        return normalized(self, x, (x.ndim - 1,))


class MapNorm(nn.Module):
    """The layer that `map_norm` makes."""

    epsilon: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True
    scale_init: Callable[..., Any] = nn.initializers.ones

    @nn.compact
    def __call__(self, x, *, train: bool):
        return normalized(self, x, tuple(range(1, x.ndim)))


def normalized(layer, x, over):
    """x normalized over some of its axes, with a scale and a bias along them; called inside of `layer`."""
    shape = tuple(x.shape[axis] for axis in over)
    y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    y = y - jnp.mean(y, axis=over, keepdims=True)
    y = y * lax.rsqrt(jnp.mean(jnp.square(y), axis=over, keepdims=True) + layer.epsilon)
    if layer.use_scale:
        y = y * layer.param("scale", layer.scale_init, shape, jnp.float32)
    if layer.use_bias:
        y = y + layer.param("bias", nn.initializers.zeros, shape, jnp.float32)
    return y.astype(x.dtype)


class Bias(nn.Module):
    """The layer that `no_norm` makes."""

    use_scale: bool = True
    use_bias: bool = True
    scale_init: Callable[..., Any] = nn.initializers.ones
    bias_init: Callable[..., Any] = nn.initializers.zeros

    @nn.compact
    def __call__(self, x, *, train: bool):
        if not self.use_bias:
            return x
        return x + self.param("bias", self.bias_init, (x.shape[-1],), jnp.float32).astype(x.dtype)
