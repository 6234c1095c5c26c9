"""MoCo (He, Fan, Wu, Xie and Girshick, 2019, arXiv:1911.05722; v2: Chen, Fan, Girshick and He, 2020, arXiv:2003.04297)
on one page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from jaxcl import keys
from jaxcl.extract import pool
from jaxcl.feature_transform import Transform
from jaxcl.losses import temperature_of
from jaxcl.memory import ema, push, random_queue
from jaxcl.methods import checks
from jaxcl.methods.projected import Projected, of_state, projected
from jaxcl.monitor import contrast_monitor
from jaxcl.shuffle import shuffled
from jaxcl.similarity import normalize
from jaxcl.typing import Array, FiveParts, Method, Net, PyTree, QueueLoss, Scores, Views


def moco(
    *,
    views: Views,
    encoder: Net,
    head: Net,
    loss: QueueLoss,
    queue_size: int = 65536,
    decay: float | Array = 0.999,
    symmetric: bool = False,
    shuffle: bool | Literal["uniform"] = True,
    transform: Transform | None = None,
    scores: Scores | None = None,
    extract: Callable[[tuple[Array, ...]], Array] = pool,
    axis_name: str | None = None,
) -> Method:
    """Find the key of an image's other view among a long queue of the keys of other images.

    views
        (key, batch) -> a query view and a key view, each [b, h, w, c].
    encoder, head
        the query is q = normalize(head(extract(encoder(x)))). v1: `mlp_head(hidden=())`, v2: `hidden=(2048,)`, both
        without norm. The authors' networks are torchvision's: `resnet(..., zero_init_last_gamma=False,
        initialization="torch")` and `mlp_head(..., initialization="torch")`.
    loss
        (key, q, k, queue [m, d], axis_name=None) -> scalar, as `keyless(queue_nce, temperature=0.2)`. The temperature
        belongs to the head: 0.07 for v1, 0.2 for v2.
    queue_size, decay
        K keys are remembered; the key encoder's parameters are a moving average of the query encoder's,
        decay * old + (1 - decay) * new.
    symmetric
        both views are queries in turn, and both are pushed as keys. The two losses are added, as in the authors'
        CIFAR-10 demo, so the gradient is twice as large, and a step costs twice as much.
    shuffle
        keys go through the network in a random order of the global batch. It matters where rows are normalized by
        less than the global batch (`nets.batch_norm(axis_name=axis_name, groups=8)`: one group a device on eight, eight
        virtual devices on one): a query and its key are then normalized by different statistics. With the same
        statistics the network could recognize the key by them (section 3.3; the demo says that this costs 4 points on
        CIFAR-10). With `groups=1` nothing changes. True: an order that devices can exchange in equal parts; each group
        then gets equally many keys from every group, which in the published code is so on average only. "uniform": any
        order, as in the published code; each device then gathers all images (`jaxcl.shuffle`).
    transform
        what is done to q, k and the queue before the loss sees them (`feature_transform.mixing`). The queue itself
        keeps unmixed keys.
    scores
        (q, k, negatives, axis_name=None) -> metrics (`monitor.score_monitor`), of what the loss sees; with a
        `transform` also of what it would have seen without, with "unmixed_" before their names.

    The order of events is that of the authors' code: the moving average is taken before the keys are made, the queue
    that the loss sees is that of the training steps before. The key encoder keeps batch statistics of its own.
    """

    network = projected("moco", encoder, head, extract)

    def forward(params, stats, images):
        h, z, stats = network.apply(params, stats, images, train=True)
        return h, normalize(z), stats

    def init(key, batch):
        views_key, *made_keys = keys.of_init(key, 3)
        params, state = with_queue(made_keys, network, views(views_key, batch)[0], queue_size)
        return params, {**state, "step": jnp.zeros((), jnp.int32)}

    def loss_fn(params, state, key, batch):
        views_key, *direction_keys = keys.of_step(key, 2)
        x1, x2 = checks.views_of("moco", views(views_key, batch), 2)
        target = ema(state["target"], params, decay)
        query_stats, key_stats, queue = state["query"], state["key"], state["queue"]

        value, metrics, pushed = jnp.zeros(()), {}, []
        for direction, (x, other) in enumerate([(x1, x2), (x2, x1)] if symmetric else [(x1, x2)]):
            shuffle_key, mix_key, loss_key = jax.random.split(direction_keys[direction], 3)
            h, q, query_stats = forward(params, query_stats, x)

            def keys_of(images, stats=key_stats):
                return forward(target, stats, images)[1:]

            k, key_stats = shuffled(shuffle_key, keys_of, other, shuffle=shuffle, axis_name=axis_name)
            k = jax.lax.stop_gradient(k)
            seen = (q, k, queue.keys)
            if transform is not None:
                seen = transform(mix_key, state["step"], *seen, axis_name=axis_name)
            value = value + loss(loss_key, *seen, axis_name=axis_name)
            pushed.append(k)
            if direction == 0:
                metrics = contrast_monitor(q, k, h, temperature=temperature_of(loss), axis_name=axis_name)
                if scores is not None:
                    metrics |= scores(*seen, axis_name=axis_name)
                    if transform is not None:
                        unmixed = scores(q, k, queue.keys, axis_name=axis_name)
                        metrics |= {f"unmixed_{name}": x for name, x in unmixed.items()}

        for k in reversed(pushed):
            queue = push(queue, k, axis_name=axis_name)
        return value, (
            {
                "query": query_stats,
                "key": key_stats,
                "target": target,
                "queue": queue,
                "step": state["step"] + 1,
            },
            metrics,
        )

    def embed(params, state, images):
        return network.represent(params, state["query"], images)

    five_parts = FiveParts(
        views={"views": views},
        encoder={"encoder": encoder, "decay": decay, "shuffle": shuffle},
        extraction={"extract": extract, "head": head, "transform": transform},
        similarity={"rows": normalize},
        loss={"loss": loss, "queue_size": queue_size, "symmetric": symmetric},
    )
    layers = of_state(network.layers, "query")
    return Method(init, loss_fn, embed, five_parts, layers)


def with_queue(
    made_keys: Sequence[Array], network: Projected, x: Array, queue_size: int
) -> tuple[PyTree, dict]:
    """A network's params; and as state its statistics, a key network that starts as its copy, and a random queue."""
    *network_keys, queue_key = made_keys
    params, stats = network.init(*network_keys, x)
    d = network.apply(params, stats, x, train=False)[1].shape[1]
    return params, {
        "query": stats,
        # Copies, as what is donated may not be there twice.
        "key": jax.tree.map(jnp.copy, stats),
        "target": jax.tree.map(jnp.copy, params),
        "queue": random_queue(queue_key, queue_size, d),
    }
