"""The methods: each the paper on one page."""

from jaxcl.methods.simclr import simclr

__all__ = ["simclr"]
