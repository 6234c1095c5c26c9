"""YADIM (Falcon and Cho, 2020, arXiv:2009.00104), of AMDIM's parts.

What is written here was inferred: from the paper's abstract, from the tables that others quote, and from the parts in
PyTorch Lightning Bolts that its authors left there. The paper's text and its code were not at hand.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxcl.extract import Maps, last, pool
from jaxcl.methods.amdim import amdim
from jaxcl.typing import Array, Loss, Method, Net, Scores, Views


def yadim(
    *,
    views: Views,
    encoder: Net,
    loss: Loss,
    head: Net | None = None,
    extract: Callable[[Maps], Maps] = last,
    represent: Callable[[Maps], Array] = pool,
    scores: Scores | None = None,
    axis_name: str | None = None,
) -> Method:
    """AMDIM without its scales: the last map of one view against the last map of the other, in both directions.

    views
        two independent views by the union of CPC v2's and AMDIM's transforms, as the paper is remembered; that this
        is flip, shift or crop, jitter and grayscale, each view with a flip of its own, is inferred:
        `two_views(augment.compose(augment.flip(), augment.amdim(32)))`.
    encoder
        any; the paper's main results have AMDIM's, as they are remembered, whose last map is one position. Then each
        vector has one positive and n - 1 negatives in each direction. Of a map with several positions one is drawn as
        the source and all are targets, as for AMDIM's maps (inferred); for an average instead:
        `extract=extract.average`.
    loss
        (key, source, targets, axis_name=None) -> scalar: AMDIM's, `keyless(map_nce, clip=10.0)`.
        The similarity is a dot product, as it is remembered; that it is divided by sqrt(d), clipped and has a penalty,
        as AMDIM's, is inferred. (Bolts clips AMDIM's scores at 10, whatever its option says; its authors at 20.)
    head
        between the map and its comparison; None, which is inferred, compares it as it is. For an encoder whose last
        map is no embedding of its own (a ReLU at its end), `nets.amdim_head`, as configs/yadim_cifar10_cpu.py has it.
    """
    return amdim(
        views=views,
        encoder=encoder,
        heads=(head,),
        loss=loss,
        extract=extract,
        compare=((0, 0),),
        represent=represent,
        scores=scores,
        axis_name=axis_name,
    )
