"""CMC (Tian, Krishnan and Isola, 2019, arXiv:1906.05849) on one page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from jaxcl import collectives, keys
from jaxcl.extract import Maps, pool
from jaxcl.feature_transform import ScoresTransform
from jaxcl.memory import blend, random_bank
from jaxcl.methods.projected import projected
from jaxcl.monitor import contrast_monitor
from jaxcl.similarity import dot, dot_with_rows, normalize
from jaxcl.typing import Array, FiveParts, Loss, Method, Net, PyTree, Scores, Views


def cmc(
    *,
    views: Views,
    channels: Callable[[Array], tuple[Array, ...]],
    encoders: Sequence[Net],
    heads: Sequence[Net],
    images: int,
    loss: Loss,
    pairs: Literal["all", "core"] = "all",
    negatives: int | Literal["batch"] = 16384,
    temperature: float | Array = 0.07,
    momentum: float | Array = 0.5,
    extract: Callable[[Maps], Array] = pool,
    transform: ScoresTransform | None = None,
    scores: Scores | None = None,
    axis_name: str | None = None,
) -> Method:
    """Find an image's colors among those of other images by its brightness, and the other way round.

    views
        (key, batch) -> one view of every image in two parts, L [b, h, w, 1] and ab [b, h, w, 2]:
        `channel_views(augment.cmc(32), (1, 2))`, or with space="ycbcr" or "ydbdr". Or in more: (1, 1, 1).
    channels
        the same cut of images [b, h, w, 3] in [0, 1] as they are, for what is evaluated:
        `augment.split_channels(augment.color_space("lab"), (1, 2))`.
    pairs
        which pairs of parts are contrasted, of more than two (the paper's section 3.2): "all", its full graph, the sum
        over all pairs; "core", its core view, the first part with each of the others.
    encoders, heads
        one of each a part; f = normalize(head(extract(encoder(x)))). The paper's are two ResNets of half the width,
        with a linear head to 128.
    images, negatives, momentum
        a bank a part remembers f of every image of the data set, by its number. A query is scored against the *other*
        part's bank: its own row, and the rows of `negatives` images drawn with replacement (so its own may recur,
        as in the authors' code). Then the batch's f are blended in, normalize(momentum old + (1 - momentum) f).
        Banks are as large as the data set, and kept whole on every device.
        "batch": no banks. The negatives are the other part's current f of the other images in the batch, and the
        gradient flows into both. Banks need many epochs: in the first they hold noise, and for long after it the f of
        an older encoder.
    loss
        (key, scores [n, 1 + negatives], partition, axis_name=None) -> scalar, of scores divided by the temperature, the
        first the positive; both directions of every pair are added. NCE: `keyless(binary_nce, images=images)`; softmax:
        `keyless(softmax_nce)`.
    temperature
        0.07; 0.1 for STL-10.
    transform
        features are mixed before they are scored: `feature_transform.mixing_scores()`.
    scores
        (q, k, negatives, own=None, axis_name=None) -> metrics (`monitor.score_monitor`), of
        the parts' f against each other within the batch.

    The partition, one number a direction, is `images` times the mean of exp(score) over the first batch, and never
    changed after it. What is evaluated is the parts' representations h beside each other, [b, 2 d] of two.
    """
    if len(encoders) < 2 or pairs not in ("all", "core"):
        raise ValueError(
            f'cmc needs at least two encoders, and pairs="all" or "core"; got'
            f" {len(encoders)} encoders and pairs={pairs!r}."
        )
    count = len(encoders)
    # (query, key): who looks for whom.
    directions = [
        (i, j) for i in range(count) for j in range(count) if i != j and (pairs == "all" or 0 in (i, j))
    ]

    networks = [
        projected("cmc", encoder, head, extract) for encoder, head in zip(encoders, heads, strict=True)
    ]

    def forward(params, state, parts, *, train):
        hs, fs, new = [], [], {}
        for i, (network, x) in enumerate(zip(networks, parts, strict=True)):
            part = f"part_{i}"
            h, f, new[part] = network.apply(params[part], state[part], x, train=train)
            hs.append(h)
            fs.append(normalize(f))
        return jnp.concatenate(hs, axis=1), fs, new

    def init(key, batch):
        if negatives != "batch" and not (isinstance(negatives, int) and negatives > 0):
            raise ValueError(f'negatives must be a number of at least 1, or "batch"; got {negatives!r}.')
        views_key, *made_keys = keys.of_init(key, 3 * count)
        params: dict[str, PyTree] = {}
        state: dict[str, PyTree] = {}
        parts = views(views_key, batch)
        if len(parts) != count:
            number = "two" if count == 2 else count
            raise ValueError(
                f"cmc needs one view of an image in {number} parts, one for each encoder, as"
                f" augment.channel_views(recipe, (1, 2)) has two; its `views` made {len(parts)}."
            )
        image = jax.ShapeDtypeStruct((*parts[0].shape[:3], sum(x.shape[3] for x in parts)), jnp.float32)
        cuts = [[x.shape[-1] for x in cut] for cut in (parts, jax.eval_shape(channels, image))]
        if cuts[0] != cuts[1]:
            raise ValueError(
                f"cmc's `views` cut an image into parts of {cuts[0]} channels and its `channels` into {cuts[1]}; they"
                " must agree, as what is evaluated goes through the same encoders."
            )
        for i, (network, x) in enumerate(zip(networks, parts, strict=True)):
            part, (encoder_key, head_key, bank_key) = f"part_{i}", made_keys[3 * i : 3 * i + 3]
            params[part], state[part] = network.init(encoder_key, head_key, x)
            _, f, _ = network.apply(params[part], state[part], x, train=False)
            if negatives != "batch":
                state[f"bank_{i}"] = random_bank(bank_key, images, f.shape[1])
        return params, {**state, "partition": jnp.ones(len(directions)), "step": jnp.zeros((), jnp.int32)}

    def loss_fn(params, state, key, batch):
        views_key, negatives_key, *loss_keys = keys.of_step(key, 1 + count)
        h, f, new = forward(params, state, views(views_key, batch), train=True)
        index = jnp.asarray(batch["index"])

        def logits_of(i, j):
            if negatives == "batch":
                own = f[j]

                def scored(q):
                    return own_first(dot(q, collectives.gather(own, axis_name)), axis_name)

            else:
                rows, bank = (
                    with_negatives(negatives_key, index, int(negatives), images),
                    state[f"bank_{j}"].rows,
                )
                own = bank[index]

                def scored(q):
                    return dot_with_rows(q, bank, rows, axis_name=axis_name)

            if transform is None:
                return scored(f[i]) / temperature
            mix_key = jax.random.fold_in(loss_keys[i], count + j)
            return transform(mix_key, f[i], own, scored, axis_name=axis_name) / temperature

        value, partitions = jnp.zeros(()), []
        for number, (i, j) in enumerate(directions):
            logits = logits_of(i, j)
            of_batch = collectives.mean(jnp.mean(jnp.exp(jax.lax.stop_gradient(logits))), axis_name)
            partitions.append(jnp.where(state["step"] == 0, of_batch * images, state["partition"][number]))
            loss_key = jax.random.fold_in(loss_keys[i], j)
            value = value + loss(loss_key, logits, partitions[-1], axis_name=axis_name)
        for i in range(count) if negatives != "batch" else ():
            new[f"bank_{i}"] = blend(state[f"bank_{i}"], index, f[i], momentum=momentum, axis_name=axis_name)
        new |= {"partition": jnp.stack(partitions), "step": state["step"] + 1}
        metrics = contrast_monitor(f[0], f[1], h, temperature=temperature, scores=scores, axis_name=axis_name)
        return value, (new, metrics)

    def embed(params, state, images):
        return forward(params, state, channels(images), train=False)[0]

    five_parts = FiveParts(
        views={"views": views, "channels": channels},
        encoder={"encoders": encoders},
        extraction={"extract": extract, "heads": heads, "transform": transform},
        similarity={
            "rows": normalize,
            "scores": dot if negatives == "batch" else dot_with_rows,
            "transform": transform,
            "temperature": temperature,
        },
        loss={
            "loss": loss,
            "images": images,
            "pairs": pairs,
            "negatives": negatives,
            "momentum": momentum,
        },
    )
    return Method(init, loss_fn, embed, five_parts)


def with_negatives(key: Array, index: Array, count: int, images: int) -> Array:
    """Each image's number and those of `count` images drawn for it, with replacement: [b] -> [b, 1 + count]."""

    def one(index):
        return jax.random.randint(jax.random.fold_in(key, index), (count,), 0, images)

    return jnp.concatenate([index[:, None], jax.vmap(one)(index).astype(index.dtype)], axis=1)


def own_first(scores: Array, axis_name: str | None) -> Array:
    """[n, N], this device's images against all: each row begins with its own image, and goes on with those after it."""
    n, total = scores.shape
    columns = (collectives.rows(n, axis_name)[:, None] + jnp.arange(total)) % total
    return jnp.take_along_axis(scores, columns, axis=1)
