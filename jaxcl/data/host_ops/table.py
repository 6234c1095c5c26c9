"""The host implementations by the names of the ops."""

from __future__ import annotations

from jaxcl.data.host_ops.blur import blur, texture
from jaxcl.data.host_ops.color import clip, drop_channels, grayscale, jitter, solarize
from jaxcl.data.host_ops.geometry import crop, flip, rotate90, translate
from jaxcl.data.host_ops.op import Implementation
from jaxcl.data.host_ops.pixels import cutout, noise, sobel
from jaxcl.data.host_ops.spaces import lab, ycbcr, ydbdr

IMPLEMENTATIONS: dict[str, Implementation] = {
    "crop": crop,
    "flip": flip,
    "rotate90": rotate90,
    "translate": translate,
    "jitter": jitter,
    "grayscale": grayscale,
    "drop_channels": drop_channels,
    "solarize": solarize,
    "blur": blur,
    "texture": texture,
    "sobel": sobel,
    "cutout": cutout,
    "noise": noise,
    "clip": clip,
    "lab": lab,
    "ycbcr": ycbcr,
    "ydbdr": ydbdr,
}
