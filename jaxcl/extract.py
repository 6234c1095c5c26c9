"""Part 3: which vectors are compared. An encoder returns its feature maps, shallow to deep; these pick from them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxcl.typing import Array

Maps = tuple[Array, ...]


def pool(maps: Maps, *, width: int | None = None) -> Array:
    """The last map averaged over space: [b, h, w, c] -> [b, c]. A last map that is a vector [b, d] stays as it is.

    width
        of the map that is averaged in its place: the deepest that is so wide.

    >>> pool((jnp.ones((2, 5, 5, 4)), jnp.ones((2, 1, 1, 8))), width=5).shape
    (2, 4)
    """
    chosen = checked(maps)[-1] if width is None else of_widths(width)(maps)[0]
    return chosen if chosen.ndim == 2 else jnp.mean(chosen, axis=(1, 2))


def pool_to(side: int) -> Callable[[Maps], Array]:
    """The last map averaged over side x side equal tiles, laid out in a row: [b, h, w, c] -> [b, side side c].

    A position that a tile's edge cuts counts in both by its fraction. pool_to(1) is `pool`; pool_to(h) of h x h is
    `flatten`.

    >>> rows = jnp.broadcast_to(jnp.array([0.0, 3.0, 6.0])[:, None], (1, 3, 3, 1))  # each 0, 3, 6
    >>> pool_to(2)((rows,)).tolist()  # (0 + 3/2) / 1.5 and (3/2 + 6) / 1.5
    [[1.0, 5.0, 1.0, 5.0]]
    """
    if side < 1:
        raise ValueError(f"side, the number of tiles on each side, must be at least 1; got {side}.")

    def fractions(positions: int) -> Array:
        """How much of each tile each position makes up: [side, positions], rows of sum 1."""
        tiles, edges = jnp.arange(side)[:, None] * (positions / side), jnp.arange(positions)
        overlap = jnp.minimum(tiles + positions / side, edges + 1) - jnp.maximum(tiles, edges)
        return jnp.maximum(overlap, 0) * (side / positions)

    def pooled(maps: Maps) -> Array:
        last = as_map(checked(maps)[-1])
        _, h, w, _ = last.shape
        tiles = jnp.einsum(
            "th,uw,bhwc->btuc", fractions(h).astype(last.dtype), fractions(w).astype(last.dtype), last
        )
        return tiles.reshape(len(last), -1)

    return pooled


def flatten(maps: Maps) -> Array:
    """The last map laid out in a row: [b, h, w, c] -> [b, h w c].

    >>> flatten((jnp.zeros((2, 7, 7, 4)), jnp.zeros((2, 3, 3, 8)))).shape
    (2, 72)
    """
    return checked(maps)[-1].reshape(len(maps[-1]), -1)


def last(maps: Maps) -> Maps:
    """The last map alone, as a tuple of one [b, h, w, c]; a vector [b, d] becomes a map of one position.

    >>> [m.shape for m in last((jnp.zeros((2, 7, 7, 4)), jnp.zeros((2, 8))))]
    [(2, 1, 1, 8)]
    """
    return (as_map(checked(maps)[-1]),)


def average(maps: Maps) -> Maps:
    """The last map averaged over space, as a map of one position: [b, 1, 1, c].

    >>> [m.shape for m in average((jnp.zeros((2, 7, 7, 4)), jnp.zeros((2, 3, 3, 8))))]
    [(2, 1, 1, 8)]
    """
    return (as_map(pool(maps)),)


def larger(maps: Maps) -> Maps:
    """The deepest map that is larger than the last one.

    >>> [m.shape for m in larger((jnp.zeros((2, 7, 7, 4)), jnp.zeros((2, 3, 3, 8)), jnp.zeros((2, 3, 3, 9))))]
    [(2, 7, 7, 4)]
    """
    width = as_map(checked(maps)[-1]).shape[2]
    found = [m for m in map(as_map, maps) if m.shape[2] > width]
    if not found:
        raise ValueError(
            f"larger needs a feature map wider than the last, {width}; this encoder has {len(maps)} maps, none wider."
            " Take another encoder, or extract.last."
        )
    return (found[-1],)


def scales(count: int) -> Callable[[Maps], Maps]:
    """`count` maps of growing size: the last one's average (itself, if it has one position), then each width's deepest.

    For any encoder what `of_widths(1, 5, 7)` is for AMDIM's own: a vector, and maps to find it in.

    >>> one, three, seven = jnp.zeros((2, 8)), jnp.zeros((2, 3, 3, 8)), jnp.zeros((2, 7, 7, 4))
    >>> [m.shape for m in scales(2)((seven, three))], [m.shape for m in scales(3)((seven, three, one))]
    ([(2, 1, 1, 8), (2, 3, 3, 8)], [(2, 1, 1, 8), (2, 3, 3, 8), (2, 7, 7, 4)])
    """

    def extract(maps: Maps) -> Maps:
        found = {1: average(maps)[0]} | {m.shape[2]: m for m in map(as_map, maps)}
        if len(found) < count:
            raise ValueError(
                f"scales({count}) needs maps of {count} widths (the average has 1); this encoder gives"
                f" {', '.join(map(str, sorted(found)))}. Ask for fewer, or take an encoder with more maps."
            )
        return tuple(found[width] for width in sorted(found)[:count])

    return extract


def random_channels(
    extract: Callable[[Maps], Maps], channels: int, *, seed: int = 0
) -> Callable[[Maps], Maps]:
    """What `extract` picks, its channels mixed to fewer (or more) by a fixed random matrix: [b, h, w, c] -> [b, h, w,
    channels]. Entries are N(0, 1 / channels), so lengths and angles are kept on average (Johnson and Lindenstrauss).

    >>> [m.shape for m in random_channels(last, 5)((jnp.zeros((2, 3, 3, 8)),))]
    [(2, 3, 3, 5)]
    """
    if channels < 1:
        raise ValueError(f"random_channels keeps at least one channel; got {channels}.")

    def mixed(maps: Maps) -> Maps:
        keys = jax.random.split(jax.random.key(seed), len(picked := extract(maps)))
        return tuple(
            m @ jax.random.normal(key, (m.shape[-1], channels), m.dtype) * channels**-0.5
            for key, m in zip(keys, picked, strict=True)
        )

    return mixed


def of_widths(*widths: int) -> Callable[[Maps], Maps]:
    """For each width the deepest map that is so wide, in the order asked for: AMDIM's are `of_widths(1, 5, 7)`.

    >>> shallow, seven, one = jnp.zeros((2, 7, 7, 4)), jnp.zeros((2, 7, 7, 8)), jnp.zeros((2, 16))
    >>> [m.shape for m in of_widths(1, 7)((shallow, seven, one))]
    [(2, 1, 1, 16), (2, 7, 7, 8)]
    """

    def extract(maps: Maps) -> Maps:
        found = {m.shape[2]: m for m in map(as_map, checked(maps))}
        missing = [width for width in widths if width not in found]
        if missing:
            raise ValueError(
                f"this encoder has maps of width {', '.join(map(str, found))}; asked for"
                f" {', '.join(map(str, missing))}. Choose among its own, or take another encoder or image size."
            )
        return tuple(found[width] for width in widths)

    return extract


def checked(maps: Maps) -> Maps:
    """The maps, which must be a tuple with a map [b, h, w, c] or a vector [b, d] in it."""
    if not isinstance(maps, tuple | list) or not maps:
        what = f"an array {list(maps.shape)}" if hasattr(maps, "shape") else repr(maps)
        raise ValueError(
            f"an encoder returns its maps as a tuple, shallow to deep; got {what}. Is it a head, or one map?"
        )
    return maps


def as_map(x: Array) -> Array:
    """[b, d] -> [b, 1, 1, d]; a map stays as it is."""
    return x[:, None, None] if x.ndim == 2 else x
