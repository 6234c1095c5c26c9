"""What the losses without a `similarity` argument compare rows with, in words that `jaxcl parts` prints; nothing where
the loss within them says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jaxcl import losses

GIVEN = "none: the loss is given scores"

SIMILARITIES: Mapping[Callable[..., Any], str] = {
    losses.alignment: "cosine_by_row of the pair (squared differences with per='entry')",
    losses.alignment_uniformity: "distance of the pair, squared distances of all unit rows",
    losses.cross_view_nt_xent: "cosine",
    losses.decoupled_nt_xent: "cosine (squared differences of the pair in the notebook's convention)",
    losses.generalized: "squared differences of the pair (cosine_by_row with per='sample')",
    losses.log_sum_exp: "cosine",
    losses.sliced_wasserstein: "none: sorted projections of all rows",
    losses.uniformity: "squared distances of unit rows",
    losses.barlow_twins: "correlations of coordinates",
    losses.covariance_term: "none: covariances of coordinates",
    losses.variance_term: "none: variances of coordinates",
    losses.vicreg: "squared differences of the pair",
    losses.visreg: "squared differences of the pair",
    losses.info_nce: GIVEN,
    losses.looc: "dot",
    losses.binary_nce: GIVEN,
    losses.softmax_nce: GIVEN,
    losses.negative_cosine: "cosine_by_row",
    losses.regression: "cosine_by_row",
    losses.scaled: "",
}
