"""AMDIM (Bachman, Hjelm and Buchwalter, 2019, arXiv:1906.00910) on one page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxcl import keys
from jaxcl.extract import Maps, of_widths, pool
from jaxcl.methods import checks
from jaxcl.monitor import contrast_monitor
from jaxcl.typing import Array, FiveParts, Loss, Method, Net, Scores, Views

ONE_FIVE_SEVEN = of_widths(1, 5, 7)


def amdim(
    *,
    views: Views,
    encoder: Net,
    heads: Sequence[Net | None],
    loss: Loss,
    extract: Callable[[Maps], Maps] = ONE_FIVE_SEVEN,
    compare: Sequence[tuple[int, int]] = ((0, 1), (0, 2), (1, 1)),
    represent: Callable[[Maps], Array] = pool,
    scores: Scores | None = None,
    axis_name: str | None = None,
) -> Method:
    """Find the positions of an image's other view among those of all images, at several scales.

    views
        (key, batch) -> two views [b, h, w, c]; AMDIM's have the same flip:
        `each_view([augment.amdim(32)] * 2, shared=augment.flip())`.
    encoder, extract
        the maps that are compared are r_0, r_1, ... = extract(encoder(x)), by default those of width 1, 5 and 7
        (`nets.amdim`).
    heads
        one a map, from [b, h, w, c] to [b, h, w, d] (`nets.amdim_head`), all to one width d; None compares the map
        as it is, as AMDIM does with r_1: `heads=(None, head, head)`.
    compare
        (a, b): a vector of r_a in one view against all positions of r_b in the other, in both directions. Where r_a has
        several positions, one is drawn for each image.
    loss
        (key, source [n, d], targets [n, positions, d], axis_name=None) -> scalar, as
        `keyless(map_nce, clip=20.0)`. The two directions are averaged, the pairs of
        `compare` added.
    represent
        what is evaluated, of all of the encoder's maps.
    scores
        (q, k, negatives, own=None, axis_name=None) -> metrics (`monitor.score_monitor`), of
        what is evaluated, of one view against the other.

    As in the authors' code the views are encoded one after the other, each a batch by itself to all norms. With
    `represent=extract.flatten` the features are those of their classifiers; the last map of `nets.amdim` has one
    position, so `pool` is the same.
    """

    beyond = [pair for pair in compare if not all(0 <= i < len(heads) for i in pair)]
    if beyond or not compare:
        raise ValueError(
            f"amdim compares maps by their number, 0 to {len(heads) - 1} with {len(heads)} heads; got"
            f" compare={tuple(compare)}."
        )

    def forward(params, state, images, *, train):
        maps, encoder_state = encoder.apply(params["encoder"], state["encoder"], images, train=train)
        embedded, new = [], {"encoder": encoder_state}
        for i, (r, head) in enumerate(zip(extracted(maps), heads, strict=True)):
            if head is not None:
                r, new[f"head_{i}"] = head.apply(params[f"head_{i}"], state[f"head_{i}"], r, train=train)
            embedded.append(r)
        return represent(maps), embedded, new

    def extracted(maps):
        picked = checks.maps("amdim", extract(maps))
        if len(picked) != len(heads):
            raise ValueError(
                f"amdim needs one head (or None) a map; got {len(heads)} for {len(picked)} maps."
            )
        return picked

    def init(key, batch):
        views_key, encoder_key, *head_keys = keys.of_init(key, 1 + len(heads))
        x = views(views_key, batch)[0]
        params, state = {}, {}
        params["encoder"], state["encoder"] = encoder.init(encoder_key, x)
        maps, _ = encoder.apply(params["encoder"], state["encoder"], x, train=False)
        for i, (head_key, r, head) in enumerate(zip(head_keys, extracted(maps), heads, strict=True)):
            if head is not None:
                params[f"head_{i}"], state[f"head_{i}"] = head.init(head_key, r)
        return params, state

    def loss_fn(params, state, key, batch):
        views_key, position_key, loss_key = keys.of_step(key, 2)
        x1, x2 = checks.views_of("amdim", views(views_key, batch), 2)
        h1, r1, state = forward(params, state, x1, train=True)
        h2, r2, state = forward(params, state, x2, train=True)

        def source(view, a):
            drawn = jax.random.fold_in(position_key, len(heads) * view + a)
            return one_position(drawn, batch["index"], (r1, r2)[view][a])

        value = jnp.zeros(())
        for number, (a, b) in enumerate(compare):
            pair_key = jax.random.fold_in(loss_key, number)
            for view, targets in ((0, r2[b]), (1, r1[b])):
                targets = targets.reshape(len(targets), -1, targets.shape[-1])
                direction = jax.random.fold_in(pair_key, view)
                value = value + loss(direction, source(view, a), targets, axis_name=axis_name) / 2
        return value, (state, contrast_monitor(h1, h2, h1, scores=scores, axis_name=axis_name))

    def embed(params, state, images):
        return represent(encoder.apply(params["encoder"], state["encoder"], images, train=False)[0])

    five_parts = FiveParts(
        views={"views": views},
        encoder={"encoder": encoder},
        extraction={"extract": extract, "heads": heads, "compare": compare, "represent": represent},
        similarity={},
        loss={"loss": loss},
    )
    return Method(init, loss_fn, embed, five_parts)


def one_position(key: Array, index: Array, r: Array) -> Array:
    """A position of each image's map, drawn by its number in the data set: [b, h, w, c] -> [b, c]."""
    flat = r.reshape(len(r), -1, r.shape[-1])
    if flat.shape[1] == 1:
        return flat[:, 0]

    def one(index, positions):
        return positions[jax.random.randint(jax.random.fold_in(key, index), (), 0, len(positions))]

    return jax.vmap(one)(jnp.asarray(index), flat)
