"""Part 2: encoders, heads and their norms. The only room that knows flax.

An encoder is a `Net` whose output is a tuple of feature maps, shallow to deep; a head is a `Net` from
[b, d] to [b, out]. Both are given their norm: `norm = batch_norm(axis_name=axis_name)`.
"""

from jaxcl.nets.amdim import amdim, amdim_head
from jaxcl.nets.convnet import conv_n, conv_stage, small_convnet
from jaxcl.nets.cpc import cpc_resnet, masked_context, residual_classifier
from jaxcl.nets.equinox import from_equinox
from jaxcl.nets.heads import mlp_head, projection_head
from jaxcl.nets.net import STATISTICS, from_linen, standardized
from jaxcl.nets.nnx import from_nnx
from jaxcl.nets.norm import batch_norm, layer_norm, map_norm, no_norm
from jaxcl.nets.recompute import chunked, remat
from jaxcl.nets.resnet import resnet, resnet_stage
from jaxcl.nets.small import SMALL
from jaxcl.nets.wide_resnet import wide_resnet

__all__ = [
    "SMALL",
    "STATISTICS",
    "amdim",
    "amdim_head",
    "batch_norm",
    "chunked",
    "conv_n",
    "conv_stage",
    "cpc_resnet",
    "from_equinox",
    "from_linen",
    "from_nnx",
    "layer_norm",
    "map_norm",
    "masked_context",
    "mlp_head",
    "no_norm",
    "projection_head",
    "remat",
    "residual_classifier",
    "resnet",
    "resnet_stage",
    "small_convnet",
    "standardized",
    "wide_resnet",
]
