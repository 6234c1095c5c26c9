"""The methods: each the paper on one page."""

from jaxcl.methods.looc import looc
from jaxcl.methods.moco import moco
from jaxcl.methods.probe import with_probe
from jaxcl.methods.simclr import simclr
from jaxcl.methods.simclr_v2 import simclr_v2

__all__ = ["looc", "moco", "simclr", "simclr_v2", "with_probe"]
