"""The augmentations of the papers, as recipes.

Sizes, probabilities, strengths and orders are the published ones, and so is the library whose operations they were:
SimCLR and BYOL have crops, colors and blur of TensorFlow, MoCo, CMC and AMDIM those of torchvision and Pillow. What
stays different of the latter: nothing is rounded to 8 bits on the way, and where none of ten boxes fits, the whole
image is taken and not its center. Standardizing by mean and standard deviation is the network's part:
`nets.standardized`.
"""

from __future__ import annotations

from jaxcl.augment import color, geometry
from jaxcl.augment.blur import gaussian_blur, texture
from jaxcl.augment.composition import compose
from jaxcl.augment.geometry import CropDistribution, uniform_area_cut, uniform_area_log_ratio, uniform_height
from jaxcl.augment.op import Number, Op
from jaxcl.augment.patches import each_patch
from jaxcl.augment.spaces import color_space


def simclr(
    size: int,
    *,
    strength: Number = 1.0,
    blur: bool = True,
    flip: bool = True,
    min_area: Number = 0.08,
    max_area: Number = 1.0,
    distribution: CropDistribution = uniform_height,
    brightness_form: str = "multiply",
    hue: Number | None = None,
    grayscale: Number = 0.2,
) -> Op:
    """SimCLR's augmentation (Chen et al. 2020, appendix A), in the order and with the clips of its code:

        crop and resize (bicubic), flip (p 0.5), color jitter (p 0.8; brightness, contrast and saturation 0.8 s,
        hue 0.2 s), grayscale (p 0.2), clip to [0, 1], blur (p 0.5, sigma from U(0.1, 2)).

    ImageNet: `simclr(224)`. CIFAR-10: `simclr(32, strength=0.5, blur=False)`. Pixels stay in [0, 1]: SimCLR does not
    normalize by mean and standard deviation.

    flip
        False where left and right matter, as for digits.
    min_area, max_area
        the least and the greatest fraction of the image that a crop keeps.
    distribution
        of the crops. The default is that of the published code; the paper's text says `uniform_area`, whose crops are
        larger on average.
    brightness_form
        "multiply" as in SimCLRv2, "add" as in the first version.
    hue
        the largest shift of the hue, as a fraction of the color circle; None is 0.2 s, 0.5 is any hue.
    grayscale
        the probability that a view is gray. Raise it where colors alone tell the images apart.
    """
    jitter = (0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength if hue is None else hue)
    steps = [
        geometry.random_resized_crop(size, area=(min_area, max_area), distribution=distribution),
        *([geometry.flip()] if flip else []),
        color.color_jitter(*jitter, brightness_form=brightness_form),
        color.grayscale(probability=grayscale),
        color.clip(),
        *([gaussian_blur()] if blur else []),
    ]
    return compose(*steps)


def crop_and_flip(
    size: int, *, min_area: Number = 0.08, distribution: CropDistribution = uniform_height
) -> Op:
    """What a linear probe or fine-tuning trains on: SimCLR's crop and flip, no color, no blur."""
    crop = geometry.random_resized_crop(size, area=(min_area, 1.0), distribution=distribution)
    return compose(crop, geometry.flip(), color.clip())


def torchvision_crop_and_flip(size: int, *, min_area: Number = 0.08) -> Op:
    """The same with torchvision's crop, as MoCo's code and those built on it train their linear classifiers."""
    return compose(torchvision_crop(size, min_area), geometry.flip(), color.clip())


def moco_v1(size: int, *, min_area: Number = 0.2, gray_first: bool = True) -> Op:
    """MoCo's first (He et al. 2020): crop, grayscale (p 0.2), jitter (0.4, 0.4, 0.4, 0.4) always, flip.

    gray_first
        False: grayscale after the jitter, as in PyContrast's MoCo and in what is built on it (feature transformation).
    """
    jitter = color.color_jitter(0.4, 0.4, 0.4, 0.4, probability=1.0, colors="torchvision")
    colors = (color.grayscale(), jitter) if gray_first else (jitter, color.grayscale())
    return compose(
        torchvision_crop(size, min_area),
        *colors,
        geometry.flip(),
        color.clip(),
    )


def moco_v2(size: int, *, min_area: Number = 0.2, blur: bool = True) -> Op:
    """MoCo v2 (Chen et al. 2020): crop, jitter (0.4, 0.4, 0.4, 0.1; p 0.8), grayscale (p 0.2), blur (p 0.5), flip.

    The authors' CIFAR-10 demo: `moco_v2(32, min_area=0.08, blur=False)`. The blur is Pillow's: sigma from U(0.1, 2)
    pixels whatever the image's size, by three boxes, beyond the border its nearest pixel.
    """
    return compose(
        torchvision_crop(size, min_area),
        color.color_jitter(0.4, 0.4, 0.4, 0.1, colors="torchvision"),
        color.grayscale(),
        *([gaussian_blur(border="edge", boxes=3)] if blur else []),
        geometry.flip(),
        color.clip(),
    )


def byol(
    size: int,
    *,
    min_area: Number = 0.08,
    distribution: CropDistribution = uniform_area_cut,
    brightness_form: str = "add",
    blur: bool = True,
) -> tuple[Op, Op]:
    """BYOL's two recipes (Grill et al. 2020), for `each_view`: the first view is always blurred and never solarized,
    the second blurred with probability 0.1 and solarized with 0.2. Both: crop, flip, jitter (0.4, 0.4, 0.2, 0.1;
    p 0.8), grayscale (p 0.2) before, clip after. Crops and brightness are those of the authors' code: uniform in area,
    and a summand ("multiply" makes it a factor). Without `blur` there is none, as in solo-learn's for CIFAR-10."""

    def one(blurred, solarize):
        return compose(
            geometry.random_resized_crop(size, area=(min_area, 1.0), distribution=distribution),
            color.clip(),
            geometry.flip(),
            color.color_jitter(0.4, 0.4, 0.2, 0.1, brightness_form=brightness_form),
            color.grayscale(),
            color.clip(),
            *([gaussian_blur(probability=blurred)] if blur else []),
            color.solarize(probability=solarize),
        )

    return one(1.0, 0.0), one(0.1, 0.2)


def amdim(size: int, *, crop: bool | None = None, hue: Number = 0.2) -> Op:
    """AMDIM's (Bachman et al. 2019) but for its flip, which both views share: `each_view([amdim(32)] * 2,
    shared=flip())`. Shift or crop (bicubic, antialiased, as Pillow resizes), jitter (0.4, 0.4, 0.4, `hue`; p 0.8; its
    colors torchvision's), grayscale (p 0.25).

    crop
        False: shifted by up to 4 pixels, mirrored at the border (p 0.8), as on CIFAR-10; True: a crop of 0.3 to 1 of
        the area, as on STL-10 (64 pixels) and ImageNet (128 pixels, there with hue=0.1). By default False up to 32.
    """
    move = geometry.translate(4, probability=0.8, border="reflect")
    if size > 32 if crop is None else crop:
        distribution = uniform_area_log_ratio
        move = geometry.random_resized_crop(
            size, area=(0.3, 1.0), ratio=(0.7, 1.4), distribution=distribution, antialias=True
        )
    jitter = color.color_jitter(0.4, 0.4, 0.4, hue, colors="torchvision")
    return compose(move, jitter, color.grayscale(probability=0.25), color.clip())


def looc(*, colors: str = "tensorflow") -> dict[str, Op]:
    """Of what LooC (Xiao et al. 2020) makes spaces, by name: color, that is jitter (0.4, 0.4, 0.4, 0.1; p 0.8) with
    grayscale (p 0.2); rotation by 90 degrees (p 0.5); and texture, here `texture` for stylised photographs.

    `leave_one_out({"color": looc()["color"]}, before=crop)`. colors: whose the jitter is, see `color_jitter`.
    """
    jitter = color.color_jitter(0.4, 0.4, 0.4, 0.1, colors=colors)
    return {
        "color": compose(jitter, color.grayscale()),
        "rotation": geometry.rotate90(),
        "texture": texture(),
    }


def cpc_patches(size: int, stride: int, *, drop: Number = 0.5) -> Op:
    """An image -> its patches [rows, columns, size, size, c], each changed by itself; the last op of CPC v2's recipe:

        n_views(compose(flip(), amdim(64), cpc_patches(16, 8)), 1)

    Each patch is shifted by up to an eighth of its size, jittered (0.4, 0.4, 0.4, 0.1; p 0.8), made gray (p 0.25), and
    loses two of its channels with probability `drop`. That CPC v2 (Henaff et al. 2019, arXiv:1905.09272) changes its
    patches one by one is known; which changes, and how strong, was not found: this choice is ours. Falcon and Cho's
    runs had none of it.
    """
    change = compose(
        geometry.translate(max(1, size // 8), border="reflect"),
        color.color_jitter(0.4, 0.4, 0.4, 0.1),
        color.grayscale(probability=0.25),
        color.drop_channels(probability=drop),
    )
    return each_patch(change, size, stride)


def cmc(size: int, *, min_area: Number = 0.2, space: str = "lab") -> Op:
    """CMC's (Tian et al. 2020): crop and flip, then "lab", or PyContrast's "ycbcr" or "ydbdr"; see `channel_views`,
    which cuts the channels."""
    return compose(torchvision_crop(size, min_area), geometry.flip(), color.clip(), color_space(space))


def multi_crop(
    large: int,
    small: int,
    *,
    counts: tuple[int, int] = (2, 6),
    areas: tuple[float, float, float] = (0.05, 0.14, 1.0),
    strength: Number = 1.0,
) -> tuple[Op, ...]:
    """SimCLR's recipe in two sizes, for `each_view`: `counts` large and small crops, of areas from the second number
    of `areas` to the third, and from the first to the second. (The defaults are SwAV's, from memory: not verified.)
    `methods.simclr` takes such views, with a loss of more than two: `nt_xent` or `dcl`."""
    least, border, most = areas
    big = simclr(
        large, strength=strength, min_area=border, max_area=most, distribution=uniform_area_log_ratio
    )
    little = simclr(
        small, strength=strength, min_area=least, max_area=border, distribution=uniform_area_log_ratio
    )
    return (big,) * counts[0] + (little,) * counts[1]


def evaluation(size: int, *, fraction: Number = 0.875) -> Op:
    """What a trained network is evaluated on: the center, resized, clipped. Draws nothing."""
    return compose(geometry.center_crop(size, fraction=fraction), color.clip())


def torchvision_crop(size: int, min_area: Number) -> Op:
    """RandomResizedCrop as of images that Pillow resizes: bilinear, antialiased, the ratio's logarithm uniform."""
    return geometry.random_resized_crop(
        size, area=(min_area, 1.0), distribution=uniform_area_log_ratio, method="bilinear", antialias=True
    )
