"""jaxcl: contrastive self-supervised learning in JAX. Every part of every method is a pure function."""

from jaxcl.losses import compare_losses as compare_losses

__version__ = "0.1.0"
