"""Several losses at the same vectors: their values, whether their gradients agree, and whom they push away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl.losses import checks
from jaxcl.typing import Array


class LossComparison(NamedTuple):
    """What `compare_losses` found, for k losses and p pairs of rows that belong to different images.

    names        the k losses
    values       [k]
    agreement    [k, k] cosines between the gradients with respect to (z1, z2); nan where a gradient is zero
    similarity   [p] the cosine of every negative pair
    weights      [k, p] each negative's fraction of sum |d loss / d similarity|; a row sums to 1
    unexplained  [k] the length of what similarities do not explain of the gradient, over the gradient's: about 0 for a
                 loss of pairs (its weights mean what they say), large, even above 1, for one that prescribes
                 coordinates or a distribution
    """

    names: tuple[str, ...]
    values: np.ndarray
    agreement: np.ndarray
    similarity: np.ndarray
    weights: np.ndarray
    unexplained: np.ndarray

    def profile(self, edges=(-1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0)) -> np.ndarray:
        """[k, bins]: the fraction of weight that falls on negatives whose similarity lies between two edges."""
        edges = np.asarray(edges)
        inside = np.clip(np.digitize(self.similarity, edges) - 1, 0, len(edges) - 2)
        return np.stack([np.bincount(inside, row, len(edges) - 1) for row in self.weights])

    def table(self, edges=(-1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0)) -> str:
        """The numbers as plain text: one loss a line."""
        width = max(len(name) for name in (*self.names, "loss"))
        bins = [f"{a:g}..{b:g}" for a, b in zip(edges[:-1], edges[1:], strict=True)]
        counts = np.bincount(
            np.clip(np.digitize(self.similarity, edges) - 1, 0, len(bins) - 1), minlength=len(bins)
        )
        lines = ["value, and cosine between gradients", f"{'loss':{width}} {'value':>10} {'unexpl.':>8}"]
        lines[-1] += "".join(f" {name[:10]:>10}" for name in self.names)
        for name, value, left, row in zip(
            self.names, self.values, self.unexplained, self.agreement, strict=True
        ):
            lines.append(
                f"{name:{width}} {value:10.4f} {left:8.2f}" + "".join(f" {cosine:10.3f}" for cosine in row)
            )
        lines += ["", "fraction of the weight on negatives, by their similarity"]
        lines.append(f"{'':{width}}" + "".join(f" {label:>10}" for label in bins))
        lines.append(
            f"{'negatives':{width}}"
            + "".join(f" {fraction:10.3f}" for fraction in counts / max(len(self.similarity), 1))
        )
        for name, row in zip(self.names, self.profile(edges), strict=True):
            lines.append(f"{name:{width}}" + "".join(f" {fraction:10.3f}" for fraction in row))
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()


def compare_losses(
    z1: Array, z2: Array, losses: Mapping[str, Callable[[Array, Array], Array]]
) -> LossComparison:
    """Values, gradients and negatives of several losses at the same two views: [n, d], [n, d].

    losses
        name -> (z1, z2) -> scalar. A loss that draws takes its key in a lambda, as
        `lambda z1, z2: generalized(key, z1, z2, ...)`.

    The weight of a negative pair (i, j) is |d loss / d s_ij|, s the cosine. It is read off the gradient: a loss that
    knows rows by their products alone has d loss / d z = A z with A_ij |z_i| |z_j| = d loss / d s_ij, and A follows
    where the rows are linearly independent. With more rows than columns they are not; each row is then given a small
    coordinate of its own (a twentieth of its length, which shrinks similarities by 1/400), so a loss must take rows
    wider than d. Work grows with the cube of the rows: a few hundred images at most.

    >>> from jaxcl.losses import nt_xent
    >>> z = jax.random.normal(jax.random.key(0), (6, 16))
    >>> found = compare_losses(z, -z, {"nt_xent": nt_xent, "twice": lambda a, b: 2 * nt_xent(a, b)})
    >>> found.agreement.round(4).tolist(), found.similarity.shape
    ([[1.0, 1.0], [1.0, 1.0]], (60,))
    """
    z1, z2 = checks.views("compare_losses", z1, z2)
    if not losses:
        raise ValueError("compare_losses takes a mapping from names to (z1, z2) -> scalar; got an empty one.")
    n = checks.several("compare_losses", len(z1), None, "it weighs negatives")
    rows = np.concatenate([z1, z2]).astype(np.float64)
    length = np.linalg.norm(rows, axis=1)
    lifted = rows
    if len(rows) > rows.shape[1]:
        lifted = np.concatenate([rows, np.diag(length / 20)], axis=1)
    inverse = np.linalg.pinv(lifted)
    upper = np.triu_indices(2 * n, 1)
    negative = (upper[0] % n) != (upper[1] % n)
    i, j = upper[0][negative], upper[1][negative]

    def gradient(loss, at):
        at = jnp.asarray(at, z1.dtype)
        value, (g1, g2) = jax.jit(jax.value_and_grad(loss, (0, 1)))(at[:n], at[n:])
        return float(value), np.concatenate([g1, g2]).astype(np.float64)

    values, gradients, weights, unexplained = [], [], [], []
    for loss in losses.values():
        value, g = gradient(loss, rows)
        a = (g if lifted is rows else gradient(loss, lifted)[1]) @ inverse
        a = (a + a.T) / 2
        push = np.abs(a[i, j]) * length[i] * length[j]
        values.append(value)
        gradients.append(g.ravel() / (np.linalg.norm(g) or np.nan))
        weights.append(push / (push.sum() or 1.0))
        unexplained.append(np.linalg.norm(g - a @ rows) / (np.linalg.norm(g) or np.nan))
    unit = np.stack(gradients)
    return LossComparison(
        tuple(losses),
        np.asarray(values),
        unit @ unit.T,
        np.sum(rows[i] * rows[j], axis=1) / np.maximum(length[i] * length[j], 1e-300),
        np.stack(weights),
        np.asarray(unexplained),
    )
