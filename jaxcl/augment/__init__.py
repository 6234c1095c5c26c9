"""Part 1: augmentation. Ops are pure functions on one image; recipes compose them; views are what a method asks for."""

from jaxcl.augment.channels import first_channels
from jaxcl.augment.fused import fuse
from jaxcl.augment.ops import (
    Op,
    clip,
    color_jitter,
    flip,
    gaussian_blur,
    grayscale,
    random_resized_crop,
    rotate90,
    solarize,
    translate,
    uniform_area,
    uniform_height,
)
from jaxcl.augment.pipelines import (
    compose,
    crop_and_flip,
    describe,
    draw,
    from_host,
    n_views,
    render,
    simclr,
    two_views,
)
from jaxcl.augment.shared import LeaveOneOut, leave_one_out, texture

__all__ = [
    "LeaveOneOut",
    "Op",
    "clip",
    "color_jitter",
    "compose",
    "crop_and_flip",
    "describe",
    "draw",
    "first_channels",
    "flip",
    "from_host",
    "fuse",
    "gaussian_blur",
    "grayscale",
    "leave_one_out",
    "n_views",
    "random_resized_crop",
    "render",
    "rotate90",
    "simclr",
    "solarize",
    "texture",
    "translate",
    "two_views",
    "uniform_area",
    "uniform_height",
]
