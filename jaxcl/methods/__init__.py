"""The methods: each the paper on one page."""

from jaxcl.methods.looc import looc
from jaxcl.methods.moco import moco
from jaxcl.methods.probe import with_probe
from jaxcl.methods.simclr import simclr

__all__ = ["looc", "moco", "simclr", "with_probe"]
