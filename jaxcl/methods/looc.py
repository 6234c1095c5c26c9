"""LooC and LooC++ (Xiao, Wang, Efros and Darrell, 2020, "What should not be contrastive in contrastive learning",
arXiv:2008.05659, first version) on one page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from jaxcl import collectives, keys, losses
from jaxcl.extract import pool
from jaxcl.feature_transform import Transform
from jaxcl.losses.contrast import interleave
from jaxcl.memory import Queue, ema, push, random_queue
from jaxcl.methods import checks
from jaxcl.monitor import contrast_monitor
from jaxcl.shuffle import shuffled
from jaxcl.similarity import normalize
from jaxcl.typing import Array, Batch, FiveParts, Method, Net, Scores, Views


def looc(
    *,
    views: Views,
    encoder: Net,
    head: Net,
    spaces: int,
    branch: Net | None = None,
    temperature: float | Array = 0.2,
    queue_size: int = 16384,
    decay: float | Array = 0.999,
    shuffle: bool | Literal["uniform"] = True,
    collisions: Callable[[Array, Batch], Array] | None = None,
    embedded: Sequence[int] | None = None,
    transform: Transform | None = None,
    extract: Callable[[tuple[Array, ...]], Array] = pool,
    scores: Scores | None = None,
    axis_name: str | None = None,
) -> Method:
    """MoCo in several spaces at once: one invariant to every augmentation, each of the others to all but one.

    views
        (key, batch) -> a query view and `spaces` key views (`augment.leave_one_out`): key 0 is drawn on its own, key
        i repeats the query's i-th augmentation. With a single key view (`augment.two_views`) all spaces are
        invariant: with a `branch` this is the paper's control, MoCo++.
    encoder, head
        MoCo's networks, with torchvision's start: `initialization="torch"`, `zero_init_last_gamma=False`.
    head, spaces
        every space has a head of its own, z_i = normalize(head_i(h)), and a queue of its own. With spaces=1 it is
        MoCo.
    branch
        None: LooC. The spaces share h, and h is what is evaluated. LooC++: a network from the encoder's last map to
        maps of its own (a ResNet's last stage, `nets.resnet_stage`, above `nets.resnet(..., stages=3)`), of which
        every space has one; what is evaluated is the concatenation of what they give, before the heads.
    collisions
        (key, batch) -> bool [spaces, spaces, b], as `augment.leave_one_out` makes it: same-image keys that drew
        the query's parameters by chance are then no negatives. The paper leaves them in (None): with rotation, a
        third of the keys have the query's angle and are pushed away nevertheless.
    embedded
        the spaces whose branches are concatenated for evaluation; all of them if not given.
    transform
        what is done in each space to the query, its positive and the queue before the loss sees them
        (`feature_transform.mixing`), drawn for each by itself; same-image negatives stay as they are, queues keep
        unmixed keys. Ours: no paper has both.
    scores
        (q, k, negatives, axis_name=None) -> metrics (`monitor.score_monitor`), of the invariant space and its queue.
    queue_size
        keys in each space's queue, 16384 in the paper. decay, shuffle: as in `moco`.

    Only the query is differentiated. All key views go through the key encoder as one batch; whether the authors' did
    is not known, as their code was not published. Temperature and decay are MoCo v2's, as the paper does not say.
    """
    if spaces < 1:
        raise ValueError(f"looc needs at least one embedding space; got spaces={spaces}.")
    loss = partial(losses.looc, temperature=temperature)
    shown = tuple(range(spaces)) if embedded is None else tuple(embedded)

    def trunk(params, stats, images, *, train):
        """h of every space (one for all of them without branches), and the new statistics."""
        maps, encoder_stats = encoder.apply(params["encoder"], stats["encoder"], images, train=train)
        if branch is None:
            return [checks.vectors("looc", extract(maps))], {**stats, "encoder": encoder_stats}
        h, branch_stats = [], []
        for own_params, own_stats in zip(params["branches"], stats["branches"], strict=True):
            own_maps, new = branch.apply(own_params, own_stats, maps[-1], train=train)
            h.append(checks.vectors("looc", extract(own_maps)))
            branch_stats.append(new)
        return h, {**stats, "encoder": encoder_stats, "branches": branch_stats}

    def forward(params, stats, images, *, train):
        """The projections of images into every space, [b, spaces, d], and the new statistics."""
        h, stats = trunk(params, stats, images, train=train)
        z, head_stats = [], []
        for i, (own_params, own_stats) in enumerate(zip(params["heads"], stats["heads"], strict=True)):
            out, new = head.apply(own_params, own_stats, h[i % len(h)], train=train)
            z.append(normalize(out))
            head_stats.append(new)
        return jnp.stack(z, axis=1), {**stats, "heads": head_stats}, h

    def init(key, batch):
        views_key, encoder_key, branch_key, head_key, queue_key = keys.of_init(key, 4)
        x = views(views_key, batch)[0]
        params, stats = {}, {}
        params["encoder"], stats["encoder"] = encoder.init(encoder_key, x)
        if branch is not None:
            maps, _ = encoder.apply(params["encoder"], stats["encoder"], x, train=False)
            made = [branch.init(own_key, maps[-1]) for own_key in jax.random.split(branch_key, spaces)]
            params["branches"], stats["branches"] = map(list, zip(*made, strict=True))
        h, _ = trunk(params, stats, x, train=False)
        made = [head.init(own_key, h[0]) for own_key in jax.random.split(head_key, spaces)]
        params["heads"], stats["heads"] = map(list, zip(*made, strict=True))
        d = forward(params, stats, x, train=False)[0].shape[2]
        return params, {
            **({} if transform is None else {"step": jnp.zeros((), jnp.int32)}),
            "query": stats,
            # Copies, as what is donated may not be there twice.
            "key": jax.tree.map(jnp.copy, stats),
            "target": jax.tree.map(jnp.copy, params),
            "queues": [
                random_queue(own_key, queue_size, d) for own_key in jax.random.split(queue_key, spaces)
            ],
        }

    def loss_fn(params, state, key, batch):
        views_key, shuffle_key, *mix_keys = keys.of_step(key, 1 + spaces)
        x, *others = views(views_key, batch)
        if len(others) not in (1, spaces):
            raise ValueError(
                f"looc in {spaces} spaces needs a query view and {spaces} key views, or one key view for all;"
                f" got {len(others)} key views."
            )
        target = ema(state["target"], params, decay)
        q, query_stats, h = forward(params, state["query"], x, train=True)
        k, key_stats = shuffled(
            shuffle_key,
            lambda x: forward(target, state["key"], x, train=True)[:2],
            interleave(*others),
            shuffle=shuffle,
            axis_name=axis_name,
        )
        # [b views, spaces, d] -> [spaces, views, b, d]
        k = jnp.moveaxis(k.reshape(len(x), len(others), *k.shape[1:]), (2, 1), (0, 1))
        k, q = jax.lax.stop_gradient(k), jnp.swapaxes(q, 0, 1)
        # Space i has its own positive: what head i makes of key i.
        own = [min(i, len(others) - 1) for i in range(spaces)]
        seen_q, seen_k, seen_queues, steps = q, k, [queue.keys for queue in state["queues"]], {}
        if transform is not None:
            steps = {"step": state["step"] + 1}
            for i, view in enumerate(own):
                seen = q[i], k[i, view], seen_queues[i]
                mixed = transform(mix_keys[i], state["step"], *seen, axis_name=axis_name)
                seen_q, seen_k = seen_q.at[i].set(mixed[0]), seen_k.at[i, view].set(mixed[1])
                seen_queues[i] = mixed[2]
        value = loss(
            seen_q,
            seen_k,
            seen_queues,
            where=None if collisions is None else ~collisions(views_key, batch),
            axis_name=axis_name,
        )
        positives = [k[i, view] for i, view in enumerate(own)]
        queues: list[Queue] = [
            push(queue, rows, axis_name=axis_name)
            for queue, rows in zip(state["queues"], positives, strict=True)
        ]
        h = jnp.concatenate(h, axis=1)
        metrics = contrast_monitor(q[0], positives[0], h, temperature=temperature, axis_name=axis_name)
        if scores is not None:
            metrics |= scores(q[0], positives[0], state["queues"][0].keys, axis_name=axis_name)
        return value, (
            {**steps, "query": query_stats, "key": key_stats, "target": target, "queues": queues},
            metrics | space_monitor(q, k, axis_name=axis_name),
        )

    def embed(params, state, images):
        h, _ = trunk(params, state["query"], images, train=False)
        return h[0] if branch is None else jnp.concatenate([h[i] for i in shown], axis=1)

    five_parts = FiveParts(
        views={"views": views},
        encoder={"encoder": encoder, "branch": branch, "decay": decay, "shuffle": shuffle},
        extraction={
            "extract": extract,
            "head": head,
            "spaces": spaces,
            "embedded": embedded,
            "transform": transform,
        },
        similarity={"rows": normalize},
        loss={"loss": loss, "queue_size": queue_size, "collisions": collisions},
    )
    return Method(init, loss_fn, embed, five_parts)


def space_monitor(q: Array, k: Array, *, axis_name: str | None = None) -> dict[str, Array]:
    """Mean scores in each space: with its positive, and, from space 1 on, with the other keys of the same image."""
    scores = jax.lax.stop_gradient(jnp.mean(jnp.sum(q[:, None] * k, axis=-1), axis=-1))
    spaces, views = scores.shape
    metrics = {f"space{i}_positive": scores[i, min(i, views - 1)] for i in range(spaces)}
    if views > 1:
        for i in range(1, spaces):
            metrics[f"space{i}_same_image"] = (jnp.sum(scores[i]) - scores[i, i]) / (views - 1)
    return collectives.mean(metrics, axis_name)
