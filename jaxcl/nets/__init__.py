"""Part 2: encoders, heads and their norms. The only room that knows flax.linen."""

from jaxcl.nets.net import from_linen

__all__ = ["from_linen"]
