"""The methods: each the paper on one page."""

from jaxcl.methods.probe import with_probe
from jaxcl.methods.simclr import simclr

__all__ = ["simclr", "with_probe"]
