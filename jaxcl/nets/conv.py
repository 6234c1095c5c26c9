"""A convolution whose gradient by its kernel is quick on a CPU.

XLA's own is several times slower there than the convolution itself: 6 against 35 GFLOP/s on one core for 1,024 maps of
16 x 16 x 12 -> 32 channels (jax 0.12). Taken as one matrix product for each place in the kernel, over a few images at
a time so that they stay in the cache, it runs at 30. On other devices XLA's is left as it is.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxcl import collectives
from jaxcl.typing import Array

BYTES = 2**21  # of maps and their gradients at a time, about half of a core's second-level cache


def conv(
    features: int, *, strides: int = 1, padding: str = "SAME", dtype=jnp.float32, kernel_init
) -> nn.Conv:
    """A 3x3 convolution without bias, [b, h, w, c] -> [b, h', w', features], of the fast kind."""
    return nn.Conv(
        features,
        (3, 3),
        strides,
        padding=padding,
        use_bias=False,
        dtype=dtype,
        kernel_init=kernel_init,
        conv_general_dilated=_as_flax_calls_it,
    )


def convolve(x: Array, kernel: Array, *, strides: tuple[int, int], padding: str) -> Array:
    """[b, h, w, c] with a kernel [kh, kw, c, d] -> [b, h', w', d]; the value of `lax.conv_general_dilated`.

    Differentiable once in reverse (no `jax.jvp`, no second derivative).
    """
    # A kernel that all devices share gets a gradient that differs on each; the marking's transpose adds them up.
    return _convolve(x, collectives.vary_like(kernel, x), strides, padding)


def _xla(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x, kernel, strides, padding):
    return _xla(x, kernel, strides, padding)


def _forward(x, kernel, strides, padding):
    return _xla(x, kernel, strides, padding), (x, kernel)


def _backward(strides, padding, residuals, g):
    x, kernel = residuals

    def plain(x, kernel, g):
        _, pull = jax.vjp(lambda kernel: _xla(x, kernel, strides, padding), kernel)
        return pull(g)[0]

    def on_cpu(x, kernel, g):
        return _kernel_gradient(x, g, kernel.shape[:2], strides, padding).astype(kernel.dtype)

    _, pull = jax.vjp(lambda x: _xla(x, kernel, strides, padding), x)
    return pull(g)[0], lax.platform_dependent(x, kernel, g, cpu=on_cpu, default=plain)


_convolve.defvjp(_forward, _backward)


def _kernel_gradient(x, g, window, strides, padding):
    """d/d kernel[i, j] = sum over images and places of x at (i, j) beside the place, times g: [kh, kw, c, d]."""
    pads = lax.padtype_to_pads(x.shape[1:3], window, strides, padding)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    (_, h, w, d), c = g.shape, x.shape[-1]
    (sh, sw), (kh, kw) = strides, window

    def of_some(xs, gs):
        gs = gs.reshape(-1, d)
        places = [
            xs[:, i : i + sh * (h - 1) + 1 : sh, j : j + sw * (w - 1) + 1 : sw].reshape(-1, c).T @ gs
            for i in range(kh)
            for j in range(kw)
        ]
        return jnp.stack(places).reshape(kh, kw, c, d)

    some = _divisor(len(x), max(1, BYTES // (4 * (x[0].size + g[0].size))))
    if some == len(x):
        return of_some(x, g)
    groups = (x.reshape(-1, some, *x.shape[1:]), g.reshape(-1, some, *g.shape[1:]))
    first = of_some(groups[0][0], groups[1][0])
    rest = (groups[0][1:], groups[1][1:])
    return lax.scan(lambda total, group: (total + of_some(*group), None), first, rest)[0]


def _divisor(n: int, most: int) -> int:
    """The largest divisor of n that is at most `most`.

    >>> _divisor(1000, 70), _divisor(7, 5)
    (50, 1)
    """
    return next(k for k in range(min(n, most), 0, -1) if n % k == 0)


def _as_flax_calls_it(x, kernel, strides, padding, **rest):
    del rest  # dimension numbers and dilations, at the defaults of nn.Conv
    return convolve(x, kernel, strides=tuple(strides), padding=padding)
