"""L-BFGS for multinomial logistic regression, several strengths of regularization at a time.

The minimizer is one compiled loop; with a progress callback it runs a few iterations per call. `probe.linear_path` says
what it minimizes and gives it the features.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcl.typing import Array

MEMORY = 10  # Pairs of steps that L-BFGS remembers.


@functools.partial(jax.jit, static_argnames="classes")
def fit_logistic(x: Array, y: Array, l2: Array, tolerance, iterations, *, classes: int):
    """x [n, d], y int [n], l2 [p] -> theta [p, c, d + 1] (bias last), cross-entropies [p, n], max |gradient| [p],
    iterations [p], whether the tolerance was met [p].

    L-BFGS (Nocedal and Wright 2006, algorithm 7.5) on p problems side by side. Logits are linear in the step, so the
    line search needs no pass over x: an iteration reads x once for the direction's logits and once for the gradient.

    It works from the diagonal of the Hessian at zero, so that a strong l2, which binds the weights and leaves the bias
    free, does not make the problem ill-conditioned.

    Logits are kept relative to that of the right class, `z_j - z_y`, and the right class is left out of the sums: the
    loss log(1 + sum_j exp(z_j - z_y)) and the residuals keep their relative precision where they are tiny.

    Rows of label -1 do not count; their x must be zero, and their cross-entropy is 0. So rows can be filled up to a
    number that devices share evenly: over x and y that are split along the rows XLA shares all passes, and sums a
    gradient [p, c, d + 1] over the devices in each iteration.
    """
    start, advance, end = _problem(x, y, l2, tolerance, classes)
    return end(advance(start(), iterations))


# Seconds between two reports to a progress callback.
SECONDS_WATCHED = 1.0


def fit_with_progress(
    x: Array,
    y: Array,
    l2: Array | np.ndarray,
    tolerance: float,
    iterations: int,
    *,
    classes: int,
    progress: Callable[[float], None],
):
    """`fit_logistic` of one device, which says about once a second how far it is: `progress` gets a fraction.

    Of the iterations, or of the way of the largest gradient to the tolerance by its logarithm, whichever is more: most
    fits end long before the iterations do.
    """
    carry = _start(x, y, l2, tolerance, classes=classes)
    count, step, far = 0, 1, 0.0
    first = None
    while count < iterations:
        began = time.perf_counter()
        carry, slowest, done = _advance(x, y, l2, tolerance, carry, count + step, classes=classes)
        count, slowest = int(carry[0]), float(slowest)
        if bool(done):
            break
        first = slowest if first is None else first
        way = np.log(first / max(slowest, 1e-30)) / max(np.log(first / max(tolerance, 1e-30)), 1e-6)
        far = max(far, count / iterations, min(float(way), 0.99))
        progress(far)
        seconds = time.perf_counter() - began
        step = int(np.clip(step * SECONDS_WATCHED / max(seconds, 1e-6), 1, min(4 * step, iterations - count)))
    return _end(x, y, l2, tolerance, carry, classes=classes)


@functools.partial(jax.jit, static_argnames="classes")
def _start(x, y, l2, tolerance, *, classes: int):
    return _problem(x, y, l2, tolerance, classes)[0]()


@functools.partial(jax.jit, static_argnames="classes", donate_argnames="carry")
def _advance(x, y, l2, tolerance, carry, until, *, classes: int):
    """The carry after so many iterations, the largest gradient among those not yet fitted, and whether all are."""
    carry = _problem(x, y, l2, tolerance, classes)[1](carry, until)
    return carry, jnp.max(jnp.where(carry[9], 0, jnp.max(jnp.abs(carry[4]), axis=(1, 2)))), jnp.all(carry[9])


@functools.partial(jax.jit, static_argnames="classes")
def _end(x, y, l2, tolerance, carry, *, classes: int):
    return _problem(x, y, l2, tolerance, classes)[2](carry)


def _problem(x: Array, y: Array, l2: Array, tolerance: Any, classes: int) -> tuple[Any, Any, Any]:
    """What `fit_logistic` is made of: start() -> carry, advance(carry, until) -> carry, end(carry) -> what it returns.

    The carry begins with the number of iterations; 4 is the gradient, 9 says who is done.
    """
    d, counts_in = x.shape[1], y >= 0
    p, dtype = l2.shape[0], x.dtype
    n = jnp.sum(counts_in).astype(dtype)
    wrong = (jnp.arange(classes)[:, None] != y) & counts_in  # [c, n]
    exact = lax.Precision.HIGHEST

    def logits(theta):
        z = jnp.einsum("pcd,nd->pcn", theta[:, :, :-1], x, precision=exact) + theta[:, :, -1:]
        return z - jnp.sum(jnp.where(wrong, 0, z), axis=1, keepdims=True)

    def probabilities(z):
        """Those of the wrong classes [p, c, n] (0 at the right one), and the cross-entropies [p, n]."""
        top = jnp.maximum(jnp.max(z, axis=1), 0)
        weights = jnp.where(wrong, jnp.exp(z - top[:, None]), 0)
        rest = jnp.sum(weights, axis=1)
        entropy = jnp.where(top > 0, top + jnp.log(jnp.exp(-top) + rest), jnp.log1p(rest))
        return weights / (jnp.exp(-top) + rest)[:, None], entropy

    def penalty(theta, other):
        return l2 * jnp.sum(theta[:, :, :-1] * other[:, :, :-1], axis=(1, 2))

    def gradient(theta, z):
        residual, _ = probabilities(z)
        residual = jnp.where(wrong, residual, -jnp.sum(residual, axis=1, keepdims=True)) / n
        weights = (
            jnp.einsum("pcn,nd->pcd", residual, x, precision=exact) + l2[:, None, None] * theta[:, :, :-1]
        )
        return jnp.concatenate([weights, jnp.sum(residual, axis=2, keepdims=True)], axis=2)

    def mean(each):
        return jnp.sum(each, axis=1) / n

    def inner(a, b):
        return jnp.sum(a * b, axis=(1, 2))

    def wide(a):
        return a[:, None, None]

    def direction(grad, steps, changes, rho, gamma, count):
        def newest_first(i, carry):
            q, alphas = carry
            slot = (count - 1 - i) % MEMORY
            alpha = rho[slot] * inner(steps[slot], q)  # An empty slot has rho 0 and does nothing.
            return q - wide(alpha) * changes[slot], alphas.at[slot].set(alpha)

        def oldest_first(i, r):
            slot = (count + i) % MEMORY
            beta = rho[slot] * inner(changes[slot], r)
            return r + wide(alphas[slot] - beta) * steps[slot]

        q, alphas = lax.fori_loop(0, MEMORY, newest_first, (grad, jnp.zeros((MEMORY, p), dtype)))
        return -lax.fori_loop(0, MEMORY, oldest_first, wide(gamma) * inverse * q)

    def line_search(theta, z, value, slope, move, dz, t, done):
        """t [p] with a sufficient decrease and half the slope gone, by Newton's method kept inside a bracket."""
        at, along, across = penalty(theta, theta), penalty(theta, move), penalty(move, move)
        slack = 4 * jnp.finfo(dtype).eps * jnp.abs(value)

        def look(carry):
            tries, t, low, high, found, _ = carry
            prob, entropy = probabilities(z + wide(t) * dz)
            first = jnp.sum(prob * dz, axis=1)
            second = jnp.sum(prob * jnp.square(dz), axis=1) - jnp.square(first)
            here = mean(entropy) + 0.5 * at + t * along + 0.5 * jnp.square(t) * across
            slope_here = mean(first) + along + t * across
            bend = mean(second) + across
            fell = here <= value + 1e-4 * t * slope + slack
            found = fell & (jnp.abs(slope_here) <= 0.5 * jnp.abs(slope))
            # The loss is convex along the line: where it rises, the step was too long.
            rises = (slope_here > 0) | ~fell
            low, high = jnp.where(rises, low, t), jnp.where(rises, t, high)
            newton = t - slope_here / jnp.maximum(bend, jnp.finfo(dtype).tiny)
            newton = jnp.minimum(newton, 10 * t)
            middle = jnp.where(jnp.isfinite(high), 0.5 * (low + high), 2 * t)
            t_next = jnp.where((newton > low) & (newton < high), newton, middle)
            return tries + 1, jnp.where(found | done, t, t_next), low, high, found, here

        def searching(carry):
            tries, _, _, _, found, _ = carry
            return (tries < 20) & ~jnp.all(found | done)

        start = (0, t, jnp.zeros_like(t), jnp.full_like(t, jnp.inf), jnp.zeros(p, bool), value)
        _, t, _, _, found, here = lax.while_loop(searching, look, start)
        return jnp.where(found & ~done, t, 0), found, jnp.where(found & ~done, here, value)

    def iterate(carry):
        count, theta, z, value, grad, steps, changes, rho, gamma, done, stuck, counts = carry
        move = direction(grad, steps, changes, rho, gamma, count)
        slope = inner(grad, move)
        # Rounding can turn a direction uphill; the scaled gradient never is.
        uphill = slope >= 0
        move = jnp.where(wide(uphill), -inverse * grad, move)
        slope = jnp.where(uphill, inner(grad, move), slope)
        dz = logits(move)
        t, found, value_next = line_search(theta, z, value, slope, move, dz, jnp.ones(p, dtype), done)
        theta, z = theta + wide(t) * move, z + wide(t) * dz
        grad_next = gradient(theta, z)
        step, change = wide(t) * move, grad_next - grad
        product, length = inner(step, change), inner(change, inverse * change)
        useful = product > jnp.finfo(dtype).eps * length
        slot = count % MEMORY
        steps, changes = steps.at[slot].set(step), changes.at[slot].set(change)
        rho = rho.at[slot].set(jnp.where(useful, 1 / jnp.where(useful, product, 1), 0))
        gamma = jnp.where(useful, product / jnp.where(useful, length, 1), gamma)
        # At the floor of the arithmetic the loss no longer falls, though the gradient may be above the tolerance.
        stuck = jnp.where(value_next < value, 0, stuck + 1)
        counts = counts + ~done
        done = done | (jnp.max(jnp.abs(grad_next), axis=(1, 2)) <= tolerance) | ~found | (stuck >= 10)
        return count + 1, theta, z, value_next, grad_next, steps, changes, rho, gamma, done, stuck, counts

    def advance(carry, until):
        def running(carry):
            return (carry[0] < until) & ~jnp.all(carry[9])

        return lax.while_loop(running, iterate, carry)

    # 1 / diagonal of the Hessian at zero, [p, 1, d + 1]: there every class has probability 1 / c.
    spread = (1 - 1 / classes) / classes
    curvature = spread * jnp.sum(jnp.square(x), axis=0) / n + l2[:, None]
    # A feature that is always zero has curvature 0 where l2 is; its gradient is 0 as well.
    curvature = jnp.concatenate([curvature, jnp.full((p, 1), spread, dtype)], axis=1)
    inverse = 1 / jnp.where(curvature > 0, curvature, 1)[:, None]

    def start():
        theta = jnp.zeros((p, classes, d + 1), dtype)
        z = jnp.zeros((p, classes, len(x)), dtype)
        # The gradient at zero, where probabilities(z) would be constants that XLA spends seconds on folding.
        residual = jnp.where(wrong, 1 / classes, jnp.where(counts_in, 1 / classes - 1, 0)).astype(dtype) / n
        grad = jnp.concatenate(
            [jnp.matmul(residual, x, precision=exact), jnp.sum(residual, axis=1, keepdims=True)], axis=1
        )
        grad = jnp.broadcast_to(grad, theta.shape)
        memory = jnp.zeros((MEMORY, *theta.shape), dtype)
        zeros = jnp.zeros(p, jnp.int32)
        done = jnp.max(jnp.abs(grad), axis=(1, 2)) <= tolerance
        value = jnp.full(p, np.log(classes), dtype)
        pairs = (memory, jnp.zeros_like(memory), jnp.zeros((MEMORY, p), dtype), jnp.ones(p, dtype))
        return jnp.int32(0), theta, z, value, grad, *pairs, done, zeros, jnp.zeros_like(zeros)

    def end(carry):
        theta = carry[1]
        z = logits(theta)  # Afresh: the sum of so many steps has gathered their rounding.
        met = jnp.max(jnp.abs(carry[4]), axis=(1, 2)) <= tolerance
        return theta, probabilities(z)[1], jnp.max(jnp.abs(gradient(theta, z)), axis=(1, 2)), carry[11], met

    return start, advance, end
