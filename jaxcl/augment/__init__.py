"""Part 1: augmentation. Ops are pure functions on one image; recipes compose them; views are what a method asks for."""

from jaxcl.augment.blur import gaussian_blur, texture
from jaxcl.augment.channels import first_channels, split_channels
from jaxcl.augment.color import clip, color_jitter, drop_channels, grayscale, solarize
from jaxcl.augment.composition import compose
from jaxcl.augment.fused import fuse
from jaxcl.augment.geometry import (
    center_crop,
    flip,
    random_resized_crop,
    rotate90,
    translate,
    uniform_area,
    uniform_area_cut,
    uniform_area_log_ratio,
    uniform_height,
)
from jaxcl.augment.leave_one_out import LeaveOneOut, leave_one_out
from jaxcl.augment.op import Op
from jaxcl.augment.patches import each_patch
from jaxcl.augment.pixels import cutout, gaussian_noise, sobel
from jaxcl.augment.recipes import (
    amdim,
    byol,
    cmc,
    cpc_patches,
    crop_and_flip,
    evaluation,
    looc,
    moco_v1,
    moco_v2,
    multi_crop,
    simclr,
    torchvision_crop,
)
from jaxcl.augment.spaces import color_space, lab, ycbcr, ydbdr
from jaxcl.augment.views import (
    RecipeViews,
    channel_views,
    draw,
    each_view,
    from_host,
    n_views,
    probe_views,
    render,
    two_views,
)
from jaxcl.augment.words import captions, describe

__all__ = [
    "LeaveOneOut",
    "Op",
    "RecipeViews",
    "amdim",
    "byol",
    "captions",
    "center_crop",
    "channel_views",
    "clip",
    "cmc",
    "color_jitter",
    "color_space",
    "compose",
    "cpc_patches",
    "crop_and_flip",
    "cutout",
    "describe",
    "draw",
    "drop_channels",
    "each_patch",
    "each_view",
    "evaluation",
    "first_channels",
    "flip",
    "from_host",
    "fuse",
    "gaussian_blur",
    "gaussian_noise",
    "grayscale",
    "lab",
    "leave_one_out",
    "looc",
    "moco_v1",
    "moco_v2",
    "multi_crop",
    "n_views",
    "probe_views",
    "random_resized_crop",
    "render",
    "rotate90",
    "simclr",
    "sobel",
    "solarize",
    "split_channels",
    "texture",
    "torchvision_crop",
    "translate",
    "two_views",
    "uniform_area",
    "uniform_area_cut",
    "uniform_area_log_ratio",
    "uniform_height",
    "ycbcr",
    "ydbdr",
]
