"""The augmentations of the papers, as recipes. (SimCLR's is in `pipelines`.)

Sizes, probabilities, strengths and orders are the published ones. Two things are this library's for all of them, and
differ from what MoCo, CMC and AMDIM had from torchvision: colors are changed as tf.image does it (contrast about each
channel's mean, HSV's saturation), and a blur's kernel is a tenth of the image. Standardizing by mean and deviation is
the network's affair: `nets.standardized`.
"""

from __future__ import annotations

from jaxcl.augment import ops
from jaxcl.augment.ops import Op
from jaxcl.augment.pipelines import compose, simclr


def moco_v1(size: int, *, min_area: float = 0.2) -> Op:
    """MoCo's first (He et al. 2020): crop, grayscale (p 0.2), jitter (0.4, 0.4, 0.4, 0.4) always, flip."""
    return compose(
        torchvision_crop(size, min_area),
        ops.grayscale(),
        ops.color_jitter(0.4, 0.4, 0.4, 0.4, probability=1.0),
        ops.flip(),
        ops.clip(),
    )


def moco_v2(size: int, *, min_area: float = 0.2, blur: bool = True) -> Op:
    """MoCo v2 (Chen et al. 2020): crop, jitter (0.4, 0.4, 0.4, 0.1; p 0.8), grayscale (p 0.2), blur (p 0.5), flip.

    The authors' CIFAR-10 demo: `moco_v2(32, min_area=0.08, blur=False)`.
    """
    return compose(
        torchvision_crop(size, min_area),
        ops.color_jitter(0.4, 0.4, 0.4, 0.1),
        ops.grayscale(),
        *([ops.gaussian_blur()] if blur else []),
        ops.flip(),
        ops.clip(),
    )


def byol(size: int, *, min_area: float = 0.08) -> tuple[Op, Op]:
    """BYOL's two recipes (Grill et al. 2020), for `each_view`: the first view is always blurred and never solarized,
    the second blurred with probability 0.1 and solarized with 0.2. Both: crop, flip, jitter (0.4, 0.4, 0.2, 0.1;
    p 0.8), grayscale (p 0.2) before, clip after."""

    def one(blur, solarize):
        return compose(
            ops.random_resized_crop(size, area=(min_area, 1.0), law=ops.uniform_height),
            ops.flip(),
            ops.color_jitter(0.4, 0.4, 0.2, 0.1),
            ops.grayscale(),
            ops.clip(),
            ops.gaussian_blur(probability=blur),
            ops.solarize(probability=solarize),
        )

    return one(1.0, 0.0), one(0.1, 0.2)


def amdim(size: int, *, crop: bool | None = None, hue: float = 0.2) -> Op:
    """AMDIM's (Bachman et al. 2019) but for its flip, which both views share: `each_view([amdim(32)] * 2,
    shared=flip())`. Shift or crop, jitter (0.4, 0.4, 0.4, `hue`; p 0.8), grayscale (p 0.25).

    crop
        False: shifted by up to 4 pixels, mirrored at the border (p 0.8), as on CIFAR-10; True: a crop of 0.3 to 1 of
        the area, as on STL-10 (64 pixels) and ImageNet (128 pixels, there with hue=0.1). By default False up to 32.
    """
    place = ops.translate(4, probability=0.8, border="reflect")
    if size > 32 if crop is None else crop:
        place = ops.random_resized_crop(
            size, area=(0.3, 1.0), ratio=(0.7, 1.4), law=ops.uniform_area_log_ratio
        )
    jitter = ops.color_jitter(0.4, 0.4, 0.4, hue)
    return compose(place, jitter, ops.grayscale(probability=0.25), ops.clip())


def cpc_patches(size: int, stride: int, *, drop: float = 0.5) -> Op:
    """An image -> its patches [rows, columns, size, size, c], each changed by itself; the last step of CPC v2's recipe:

        n_views(compose(flip(), amdim(64), cpc_patches(16, 8)), 1)

    Each patch is shifted by up to an eighth of its size, jittered (0.4, 0.4, 0.4, 0.1; p 0.8), made gray (p 0.25), and
    loses two of its channels with probability `drop`. That CPC v2 (Henaff et al. 2019, arXiv:1905.09272) changes its
    patches one by one is known; with what, and how strongly, was not at hand: this choice is ours. Falcon and Cho's
    runs had none of it.
    """
    change = compose(
        ops.translate(max(1, size // 8), border="reflect"),
        ops.color_jitter(0.4, 0.4, 0.4, 0.1),
        ops.grayscale(probability=0.25),
        ops.drop_channels(probability=drop),
    )
    return ops.each_patch(change, size, stride)


# What CMC cuts into brightness and color.
SPACES = {"lab": ops.lab, "ycbcr": ops.ycbcr, "ydbdr": ops.ydbdr}


def cmc(size: int, *, min_area: float = 0.2, space: str = "lab") -> Op:
    """CMC's (Tian et al. 2020): crop and flip, then "lab", or PyContrast's "ycbcr" or "ydbdr"; see `channel_views`,
    which cuts the channels."""
    return compose(torchvision_crop(size, min_area), ops.flip(), ops.clip(), color_space(space))


def color_space(name: str) -> Op:
    """The op "lab", "ycbcr" or "ydbdr": brightness first, then two channels of color, each within [-1, 1]."""
    if name not in SPACES:
        raise ValueError(f"space must be one of {', '.join(SPACES)}; got {name!r}.")
    return SPACES[name]()


def multi_crop(
    large: int,
    small: int,
    *,
    counts: tuple[int, int] = (2, 6),
    areas: tuple[float, float, float] = (0.05, 0.14, 1.0),
    strength: float = 1.0,
) -> tuple[Op, ...]:
    """SimCLR's recipe in two sizes, for `each_view`: `counts` large and small crops, of areas from the second number
    of `areas` to the third, and from the first to the second. (The defaults are SwAV's, from memory: not verified.)"""
    least, border, most = areas
    big = simclr(large, strength=strength, min_area=border, max_area=most, law=ops.uniform_area_log_ratio)
    little = simclr(small, strength=strength, min_area=least, max_area=border, law=ops.uniform_area_log_ratio)
    return (big,) * counts[0] + (little,) * counts[1]


def evaluation(size: int, *, share: float = 0.875) -> Op:
    """What a trained network is evaluated on: the center, resized, clipped. Draws nothing."""
    return compose(ops.center_crop(size, share=share), ops.clip())


def torchvision_crop(size: int, min_area: float) -> Op:
    """RandomResizedCrop as of images that Pillow resizes: bilinear, antialiased, the ratio's logarithm uniform."""
    return ops.random_resized_crop(
        size, area=(min_area, 1.0), law=ops.uniform_area_log_ratio, method="bilinear", antialias=True
    )
