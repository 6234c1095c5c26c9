"""The methods: each the paper on one page."""

from jaxcl.methods.amdim import amdim
from jaxcl.methods.byol import byol, cosine_decay, simsiam
from jaxcl.methods.cmc import cmc
from jaxcl.methods.cpc import CPC_VARIANTS, cpc, falcon_cho_rows, henaff_rows, next_rows, pseudo_code_rows
from jaxcl.methods.distill import Teacher, distill
from jaxcl.methods.looc import looc
from jaxcl.methods.moco import moco
from jaxcl.methods.probe import with_probe
from jaxcl.methods.simclr import simclr
from jaxcl.methods.simclr_v2 import simclr_v2
from jaxcl.methods.supervised import supervised
from jaxcl.methods.yadim import yadim

__all__ = [
    "CPC_VARIANTS",
    "Teacher",
    "amdim",
    "byol",
    "cmc",
    "cosine_decay",
    "cpc",
    "distill",
    "falcon_cho_rows",
    "henaff_rows",
    "looc",
    "moco",
    "next_rows",
    "pseudo_code_rows",
    "simclr",
    "simclr_v2",
    "simsiam",
    "supervised",
    "with_probe",
    "yadim",
]
