"""Parts 2 and 3 as SimCLR, MoCo and their kin put them together: encoder, representation, projection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxcl.methods import checks
from jaxcl.typing import Array, Net


class Projected(NamedTuple):
    """h = extract(encoder(x)), z = head(h); params and state are {"encoder": ..., name: ...}.

    init        (encoder_key, head_key, images) -> params, state
    apply       (params, state, images, *, train) -> h [b, d], z [b, e], state
    represent   (params, state, images) -> h [b, d], with the running statistics; the head has no part in it
    layers      (params, state, images) -> h and what each layer of the head makes of it; None where it shows none
    """

    init: Callable
    apply: Callable
    represent: Callable
    layers: Callable | None


def projected(
    method: str,
    encoder: Net,
    head: Net,
    extract: Callable[[tuple[Array, ...]], Array],
    *,
    name: str = "head",
) -> Projected:
    """`method` is named where `extract` makes no vectors; `name` is that of the head among parameters and state."""

    def init(encoder_key, head_key, images):
        params, state = {}, {}
        params["encoder"], state["encoder"] = encoder.init(encoder_key, images)
        params[name], state[name] = head.init(head_key, represent(params, state, images))
        return params, state

    def apply(params, state, images, *, train):
        maps, encoder_state = encoder.apply(params["encoder"], state["encoder"], images, train=train)
        h = checks.vectors(method, extract(maps))
        z, head_state = head.apply(params[name], state[name], h, train=train)
        return h, z, {"encoder": encoder_state, name: head_state}

    def represent(params, state, images):
        maps, _ = encoder.apply(params["encoder"], state["encoder"], images, train=False)
        return checks.vectors(method, extract(maps))

    of_head: Any = getattr(head, "layers", None)

    def layers(params, state, images):
        return of_head(params[name], state[name], represent(params, state, images))

    return Projected(init, apply, represent, None if of_head is None else layers)


def of_state(layers: Callable | None, part: str) -> Callable | None:
    """`Projected.layers` of a method that keeps the network's statistics in a part of its state."""
    return None if layers is None else lambda params, state, images: layers(params, state[part], images)
