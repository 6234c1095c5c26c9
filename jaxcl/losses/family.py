"""The losses that "Intriguing Properties of Contrastive Losses" and SimCLR's table 4 compare, by name."""

from __future__ import annotations

from functools import partial

from jaxcl.losses.contrast import nt_xent
from jaxcl.losses.distribution import (
    decoupled_nt_xent,
    generalized,
    normal,
    sliced_wasserstein,
    uniform_cube,
    uniform_sphere,
)
from jaxcl.losses.keyless import keyless
from jaxcl.losses.pairs import margin_triplet, nt_logistic
from jaxcl.typing import Array, Loss

PRIORS = {"swd_sphere": uniform_sphere, "swd_cube": uniform_cube, "swd_normal": normal}


def family(
    name: str,
    *,
    temperature: float | Array = 0.2,
    weight: float | Array = 5.0,
    margin: float | Array = 0.4,
    semi_hard: bool = False,
) -> Loss:
    """A loss of the generalized family (Chen, Luo and Li, 2021, arXiv:2011.02803), or one that SimCLR compares with
    NT-Xent (Chen et al. 2020, arXiv:2002.05709, table 4), for `methods.simclr`.

    (key, z1 [n, d], z2 [n, d], axis_name=None) -> scalar, the mean over the global batch.

    name
        nt_xent: of `temperature`. decoupled: its two terms apart, at the notebook's temperature of 1 and weight of 0.1
        and by its convention (by the paper's, a weight of 0.1 hardly spreads the rows at all). swd_sphere, swd_cube,
        swd_normal: alignment and `weight` times the sliced Wasserstein distance to this prior; rows have unit length
        for the sphere alone. nt_logistic, of `temperature`; margin_triplet, of `margin`; both with `semi_hard`
        negatives, or with all of them.

    Raises ValueError for another name.

    >>> family("swd_cube", weight=2.0).keywords["normalized"]
    False
    """
    if name == "nt_xent":
        return keyless(nt_xent, temperature=temperature)
    if name == "decoupled":
        return keyless(decoupled_nt_xent, temperature=1.0, weight=0.1, convention="notebook")
    if name == "nt_logistic":
        return keyless(nt_logistic, temperature=temperature, semi_hard=semi_hard)
    if name == "margin_triplet":
        return keyless(margin_triplet, margin=margin, semi_hard=semi_hard)
    if name not in PRIORS:
        others = "nt_xent, decoupled, nt_logistic, margin_triplet"
        raise ValueError(f"family has the losses {others}, {', '.join(PRIORS)}; got {name!r}.")
    distance = partial(sliced_wasserstein, prior=PRIORS[name])
    return partial(generalized, distribution=distance, weight=weight, normalized=name == "swd_sphere")
