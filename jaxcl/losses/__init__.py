"""Part 5: losses. Each returns the mean over the global batch, the same number on every device."""

from jaxcl.losses.contrast import nt_xent

__all__ = ["nt_xent"]
