"""jaxcl: contrastive self-supervised learning in JAX. Every part of every method is a pure function."""

__version__ = "0.1.0"
