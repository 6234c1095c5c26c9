"""Part 5: losses. Each returns the mean over the global batch, the same number on every device."""

from jaxcl.losses.compare import compare_losses
from jaxcl.losses.contrast import (
    cross_view_nt_xent,
    dcl,
    nt_xent,
    queue_nce,
    supervised_contrastive,
)
from jaxcl.losses.decorrelation import barlow_twins, covariance_term, variance_term, vicreg, visreg
from jaxcl.losses.distribution import (
    alignment,
    alignment_uniformity,
    decoupled_nt_xent,
    generalized,
    log_sum_exp,
    normal,
    orthogonal_directions,
    sliced_wasserstein,
    uniform_cube,
    uniform_sphere,
    uniformity,
)
from jaxcl.losses.family import family
from jaxcl.losses.keyless import keyless, scaled, temperature_of
from jaxcl.losses.looc import info_nce, looc
from jaxcl.losses.nce import binary_nce, map_nce, patch_nce, softmax_nce
from jaxcl.losses.pairs import margin_triplet, nt_logistic
from jaxcl.losses.regression import negative_cosine, regression

__all__ = [
    "alignment",
    "alignment_uniformity",
    "barlow_twins",
    "binary_nce",
    "compare_losses",
    "covariance_term",
    "cross_view_nt_xent",
    "dcl",
    "decoupled_nt_xent",
    "family",
    "generalized",
    "info_nce",
    "keyless",
    "log_sum_exp",
    "looc",
    "map_nce",
    "margin_triplet",
    "negative_cosine",
    "normal",
    "nt_logistic",
    "nt_xent",
    "orthogonal_directions",
    "patch_nce",
    "queue_nce",
    "regression",
    "scaled",
    "sliced_wasserstein",
    "softmax_nce",
    "supervised_contrastive",
    "temperature_of",
    "uniform_cube",
    "uniform_sphere",
    "uniformity",
    "variance_term",
    "vicreg",
    "visreg",
]
