"""Losses that hold a positive against all negatives at once.

Rows are compared by `similarity`, cosine unless said otherwise; s below is its value. Every function returns the mean
over the global batch, the same on every device; `axis_name` names the axis over which the batch is split under
`shard_map` or `pmap`, and negatives then come from all devices, with their gradients.

Computed in float32 at least: bfloat16 in, float32 out; float64 stays. What accelerators make of a float32 product is
said in `jaxcl.losses.blockwise`. A zero row has cosine 0 to every other and a finite gradient, which float16, whose
numbers end at 65504, cuts off there. A nan anywhere makes the loss nan.

`block_size` chooses how the sum over all pairs is made: 0 stores the matrix of similarities, b > 0 makes it blockwise,
b rows by b columns at a time, and again in the backward pass (`jaxcl.losses.blockwise`: exact, memory proportional to
the rows), None decides by size. Blocks need dot products, so a similarity other than `cosine` and `dot` is always
computed plainly. Several devices share the blocks, also under `jit` where the mesh is known (`collectives.by_rows`);
beyond half a million rows they no longer gather them, but pass them round (`blockwise.GATHERED`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.scipy.special import logsumexp

from jaxcl import collectives
from jaxcl.losses import blockwise, checks, tiles
from jaxcl.similarity import cosine, dot, normalize
from jaxcl.typing import Array, Similarity


def nt_xent(
    z1: Array,
    z2: Array,
    *more: Array,
    temperature: float | Array = 0.5,
    similarity: Similarity = cosine,
    block_size: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """The normalised temperature-scaled cross entropy of SimCLR: [n, d], [n, d] -> scalar.

    Over all 2n rows, with j the other view of i (Chen et al. 2020, arXiv:2002.05709, eq. 1):

        loss = 1/(2n) sum_i -log( exp(s_ij / temperature) / sum_{k != i} exp(s_ik / temperature) ).

    In nats; log(2n - 1) where all rows are alike, 0 for a batch of one image (there is no other). The authors'
    code adds the means of the two views, which is twice this.

    With v > 2 views every anchor has v - 1 positives, and -log(...) is averaged over them, the denominator still
    running over all other rows, the positives included:

        loss = 1/(vn) sum_i 1/(v-1) sum_{j in positives of i} -log( exp(s_ij / t) / sum_{k != i} exp(s_ik / t) ),

    which is the supervised contrastive loss (Khosla et al. 2020, eq. 2) with every image its own class.

    block_size
        how the sum over all pairs is made: 0 keeps the matrix of similarities, b > 0 makes it b rows at a time, None
        decides by the size; the value is the same.
    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    Raises ValueError where shapes differ or a known temperature is not positive, TypeError for integers.

    >>> [round(float(nt_xent(z, z, temperature=1.0)), 4) for z in (jnp.eye(2), jnp.ones((2, 2)))]
    [0.5514, 1.0986]

    (log(e + 2) - 1 and log 3.)
    """
    views = checks.views("nt_xent", z1, z2, *more)
    log_z, positive = _anchors(
        "nt_xent", views, temperature, similarity, block_size, axis_name, leave_out_positives=False
    )
    return collectives.mean(jnp.mean(log_z - positive), axis_name)


def cross_view_nt_xent(
    z1: Array, z2: Array, *, temperature: float | Array = 0.1, axis_name: str | None = None
) -> Array:
    """Each view among the other view's images alone, both directions added: z1, z2 [n, d] -> scalar.

        loss = 1/n sum_i ( -log softmax_j(z1_i.z2_j / t)_i  -  log softmax_j(z2_i.z1_j / t)_i ),    rows of unit length

    The loss of `randbits_mnist.ipynb` (Chen, Luo and Li, 2021, arXiv:2011.02803): added, not averaged. Half of it is
    that of ConVIRT and CLIP.

    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> round(float(cross_view_nt_xent(jnp.eye(2), jnp.eye(2), temperature=1.0)), 4)  # 2 log(1 + 1 / e)
    0.6265
    """
    z1, z2 = checks.views("cross_view_nt_xent", z1, z2)
    z1, z2 = normalize(z1), normalize(z2)
    own = collectives.rows(len(z1), axis_name)

    def one_side(anchors, keys):
        logits = anchors @ collectives.gather(keys, axis_name).T / temperature
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, own))

    return collectives.mean(one_side(z1, z2) + one_side(z2, z1), axis_name)


def dcl(
    z1: Array,
    z2: Array,
    *more: Array,
    temperature: float | Array = 0.1,
    similarity: Similarity = cosine,
    block_size: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """Decoupled contrastive learning: NT-Xent whose denominator leaves the positive out: [n, d], [n, d] -> scalar.

        loss = 1/(2n) sum_i ( -s_ij / temperature + log sum_{k not a view of i's image} exp(s_ik / temperature) )

    (Yeh et al. 2022, arXiv:2110.06848, eq. 6). A well-placed positive then no longer shrinks the push of the
    negatives, which is what makes small batches slow under NT-Xent. May be negative. With more views the positives'
    similarities are averaged. Not the decoupled NT-Xent of `decoupled_nt_xent`, which weighs the two terms.

    block_size
        how the sum over all pairs is made: 0 keeps the matrix of similarities, b > 0 makes it b rows at a time, None
        decides by the size; the value is the same.
    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    Raises ValueError for a batch of one image: it has no negatives.

    >>> round(float(dcl(jnp.eye(2), jnp.eye(2), temperature=1.0)), 4)  # log 2 - 1
    -0.3069
    """
    views = checks.views("dcl", z1, z2, *more)
    checks.several("dcl", len(views[0]), axis_name, "the negatives are other images")
    log_z, positive = _anchors(
        "dcl", views, temperature, similarity, block_size, axis_name, leave_out_positives=True
    )
    return collectives.mean(jnp.mean(log_z - positive), axis_name)


def supervised_contrastive(
    labels: Array,
    z1: Array,
    *more: Array,
    temperature: float | Array = 0.1,
    similarity: Similarity = cosine,
    block_size: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """Every row of the same label is a positive: labels int [n], any number of views [n, d] -> scalar.

        loss = mean over anchors i of  -1/|P(i)| sum_{p in P(i)} log( exp(s_ip / t) / sum_{k != i} exp(s_ik / t) )

    with P(i) the other rows, of any view, that carry i's label (Khosla et al. 2020, arXiv:2004.11362, eq. 2, L_out).
    An anchor without positives (possible with one view) is left out of the mean; 0 where none has any. Labels are
    any integers. The authors' code multiplies by temperature / 0.07.

    block_size
        how the sum over all pairs is made: 0 keeps the matrix of similarities, b > 0 makes it b rows at a time, None
        decides by the size; the value is the same.
    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> z = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> round(float(supervised_contrastive(jnp.array([5, 5, 9]), z, temperature=1.0)), 4)  # log(e + 1) - 1
    0.3133
    """
    views = checks.views("supervised_contrastive", z1, *more, at_least=1)
    labels = jnp.asarray(labels)
    if labels.shape != (len(z1),) or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"supervised_contrastive takes one integer label a sample, [{len(z1)}]; got {labels.dtype}"
            f" {labels.shape}. Give labels first, then the views."
        )
    checks.several("supervised_contrastive", len(views) * len(z1), axis_name, "an anchor needs another row")
    known = checks.positive("supervised_contrastive", "temperature", temperature)
    z, is_dot = _scaled(
        views, temperature, similarity, _is_blockwise(views, block_size, axis_name), axis_name
    )
    labels = jnp.repeat(labels, len(views))
    all_labels = collectives.gather(labels, axis_name)
    if is_dot:
        # In float32: the positives are among these products, and of nearly collapsed rows rounding would drown them.
        log_z, _ = _log_partition(z, 1, 0, _bound(similarity, known), block_size, axis_name, "highest")
        # The sum over positives needs no pairs: s is linear in the other row, so one sum a class will do.
        sums, members = collectives.by_rows(
            _of_own_class, z, labels, whole=(all_labels,), axis_name=axis_name
        )
        count, total = members - 1, jnp.sum(z * (sums - z), axis=1)
    else:
        _refuse_blocks("supervised_contrastive", block_size)
        keys = collectives.gather(z, axis_name)
        s = similarity(z, keys) / temperature
        is_self = collectives.rows(len(z), axis_name)[:, None] == jnp.arange(len(keys))
        log_z = logsumexp(jnp.where(is_self, -jnp.inf, s), axis=1)
        same = (labels[:, None] == all_labels) & ~is_self
        count, total = jnp.sum(same, axis=1), jnp.sum(jnp.where(same, s, 0), axis=1)
    has_positive = count > 0
    each = jnp.where(has_positive, log_z - total / jnp.maximum(count, 1), 0)
    fraction = collectives.mean(jnp.mean(has_positive.astype(each.dtype)), axis_name)
    return collectives.mean(jnp.mean(each), axis_name) / jnp.where(fraction > 0, fraction, 1)


def _of_own_class(z: Array, labels: Array, all_labels: Array, axis_name: str | None) -> tuple[Array, Array]:
    """Of each of this device's rows: the sum of all rows of its class, and their number."""
    known = jnp.sort(all_labels)  # a class is numbered by its first row here
    own = jnp.searchsorted(known, labels)
    members = jnp.searchsorted(known, labels, side="right") - own
    sums = jax.ops.segment_sum(z, own, len(known))
    return collectives.total(sums, axis_name)[own], members


def queue_nce(
    q: Array,
    k: Array,
    queue: Array,
    *,
    temperature: float | Array = 0.2,
    similarity: Similarity = dot,
    block_size: int | None = None,
    axis_name: str | None = None,
) -> Array:
    """MoCo's InfoNCE: queries q [n, d], their keys k [n, d], negatives queue [m, d] -> scalar.

        loss = 1/n sum_i -log( exp(q_i.k_i / t) / ( exp(q_i.k_i / t) + sum_j exp(q_i.queue_j / t) ) )

    (He et al. 2020, arXiv:1911.05722, eq. 1). Rows are compared as they come, so normalise q and k yourself (the
    queue holds keys that were); `similarity=cosine` does it here. The gradient goes to whatever is not constant: stop
    it at k and queue for MoCo. Under an axis q and k are this device's rows, and the queue is the same everywhere.

    block_size
        how the sum over all pairs is made: 0 keeps the matrix of similarities, b > 0 makes it b rows at a time, None
        decides by the size; the value is the same.
    axis_name
        the axis over which rows are split under `shard_map` or `pmap`; None where one program sees the global batch.

    >>> q = jnp.array([[1.0, 0.0]])
    >>> round(float(queue_nce(q, q, jnp.array([[0.0, 1.0]]), temperature=1.0)), 4)  # log(1 + 1/e)
    0.3133
    """
    q, k = checks.views("queue_nce", q, k)
    queue = checks.rows("queue_nce", "queue", queue).astype(q.dtype)
    if queue.shape[1] != q.shape[1]:
        raise ValueError(f"queue_nce needs rows of one width; got q {q.shape} and queue {queue.shape}.")
    known = checks.positive("queue_nce", "temperature", temperature)
    if similarity is cosine:
        q, k, queue = normalize(q), normalize(k), normalize(queue)
    if similarity is cosine or similarity is dot:
        q = q / temperature
        positive = jnp.sum(q * k, axis=1)
        if blockwise.chosen(block_size, len(q), len(queue)):
            log_negatives = blockwise.log_partition_between(
                q,
                queue,
                bound=_bound(similarity, known),
                block_size=block_size,
                precision="highest",
                axis_name=axis_name,
            )
        else:
            log_negatives = logsumexp(jnp.matmul(q, queue.T, precision="highest"), axis=1)
    else:
        _refuse_blocks("queue_nce", block_size)
        positive = _row_by_row(similarity, q, k) / temperature
        log_negatives = logsumexp(similarity(q, queue) / temperature, axis=1)
    return collectives.mean(jnp.mean(jnp.logaddexp(log_negatives, positive) - positive), axis_name)


# --- what they use --------------------------------------------------------------------------------------------


def interleave(*views: Array) -> Array:
    """v arrays [n, ...] -> [v n, ...], the views of one image beside each other (and so on the same device)."""
    return jnp.stack(views, axis=1).reshape(-1, *views[0].shape[1:])


def _anchors(name, views, temperature, similarity, block_size, axis_name, *, leave_out_positives):
    """Of every row of every view: the log of its denominator, and the mean of its positives' s/temperature."""
    known = checks.positive(name, "temperature", temperature)
    v = len(views)
    z, is_dot = _scaled(
        views, temperature, similarity, _is_blockwise(views, block_size, axis_name), axis_name
    )
    group = v if leave_out_positives else 1
    if is_dot:
        return _log_partition(z, group, v, _bound(similarity, known), block_size, axis_name)
    _refuse_blocks(name, block_size)
    own = jax.vmap(similarity)(z.reshape(-1, v, z.shape[1]), z.reshape(-1, v, z.shape[1])) / temperature
    positive = (jnp.sum(own, axis=2) - jnp.diagonal(own, axis1=1, axis2=2)) / (v - 1)
    s = similarity(z, collectives.gather(z, axis_name)) / temperature
    return logsumexp(jnp.where(_outside(len(z), s, group, axis_name), s, -jnp.inf), axis=1), positive.reshape(
        -1
    )


def _scaled(views, temperature, similarity, is_blockwise: bool, axis_name: str | None) -> tuple[Array, bool]:
    """(rows of all views, whether s/temperature is their dot product)."""
    if similarity is not cosine and similarity is not dot:
        return interleave(*views), False

    def scale(views, root):
        return jnp.stack([(normalize(z) if similarity is cosine else z) * root for z in views])

    root = lax.rsqrt(jnp.asarray(temperature, views[0].dtype))
    if not is_blockwise:
        return jnp.moveaxis(scale(views, root), 0, 1).reshape(-1, views[0].shape[1]), True

    def by_some(*views_and_root, axis_name):
        del axis_name  # nothing is gathered
        *views, root = views_and_root
        # Some rows at a time, made again for the gradient: done at once, this alone would need more memory than the
        # blocks.
        scaled = lax.map(jax.checkpoint(lambda views: scale(views, root)), tuple(views), batch_size=128)
        return scaled.reshape(-1, views[0].shape[1])

    views = tuple(collectives.gather(z) for z in views)  # does nothing but on an explicitly sharded mesh
    return collectives.by_rows(by_some, *views, whole=(root,), axis_name=axis_name), True


def _log_partition(
    z: Array,
    group: int,
    views: int,
    bound: float | None,
    block_size: int | None,
    axis_name: str | None,
    precision: str | None = None,
) -> tuple[Array, Array]:
    """`blockwise.log_partition`, or the same from a matrix that is kept."""
    total = len(z) * collectives.size(axis_name)
    if blockwise.chosen(block_size, len(z), total):
        return blockwise.log_partition(
            z,
            group=group,
            views=views,
            bound=bound,
            block_size=block_size,
            precision=precision,
            axis_name=axis_name,
        )
    s = tiles.products(z, collectives.gather(z, axis_name), precision)
    log_z = logsumexp(jnp.where(_outside(len(z), s, group, axis_name), s, -jnp.inf), axis=1)
    return log_z, tiles.positives(z, views)


def _outside(n: int, s: Array, group: int, axis_name: str | None) -> Array:
    """Which columns of s [n, m] are not in the group of the row; all of them for group 0."""
    columns = jnp.arange(s.shape[1])
    if not group:
        return jnp.ones_like(columns, dtype=bool)
    return collectives.rows(n, axis_name)[:, None] // group != columns // group


def _is_blockwise(views: tuple[Array, ...], block_size: int | None, axis_name: str | None) -> bool:
    rows = len(views) * len(views[0])
    return blockwise.chosen(block_size, rows, rows * collectives.size(axis_name))


def _refuse_blocks(name: str, block_size: int | None) -> None:
    if block_size:
        raise ValueError(
            f"{name} computes blockwise only where s is a dot product: similarity=cosine or similarity=dot."
            " Leave block_size out for another similarity."
        )


def _bound(similarity: Similarity, temperature: float | None) -> float | None:
    """What no |s / temperature| exceeds; a hair more, because unit rows are unit up to rounding."""
    return 1.0 / temperature if similarity is cosine and temperature is not None else None


def _row_by_row(similarity: Similarity, q: Array, k: Array) -> Array:
    return jax.vmap(lambda a, b: similarity(a[None], b[None])[0, 0])(q, k)
