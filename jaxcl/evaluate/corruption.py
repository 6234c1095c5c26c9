"""Images as they are met outside: 15 corruptions in 5 severities (Hendrycks and Dietterich 2019, "Benchmarking neural
network robustness to common corruptions and perturbations", arXiv:1903.12261), made on the device for any image size.

A corruption is a pure function (key, image [h, w, c] in [0, 1], severity 1 to 5) -> image in [0, 1]:

    CORRUPTIONS["fog"].apply(key, image, severity)
    corrupt(key, "fog", images, severity=3)                 # a whole data set, uint8 [n, h, w, c]

Severities. Images of up to 64 rows take the constants of CIFAR-10-C, larger ones those of ImageNet-C; both were read
in the authors' published programs. What is a length in pixels is scaled by height / 32 and height / 224, which is ours
(at 32 and 224 rows the constants are the published ones; for 64 pixels the authors have a table of its own).

What is the published definition, and what is not:

    as published      Gaussian, shot and impulse noise, defocus and zoom blur, brightness, contrast, pixelate
    as published, by our reading of the library that they call
                      motion blur and snow's flakes (ImageMagick's offsets and weights), elastic transform (without
                      OpenCV's rounding of places to 1/32 pixel), JPEG (libjpeg's tables, chroma at half resolution)
    fog               as published; the random numbers are drawn in another order
    glass blur        pixels take a neighbor's color all at once. The published program walks from pixel to pixel, and
                      where it means to swap two it copies one (arrays in Python); for CIFAR-10's displacement of a
                      pixel that is the same, for larger ones it copies some of the copies
    frost             ours altogether: the authors lay photographs of ice over the image, we a drawn texture of ridges
                      with their weights. Its severity is not comparable with theirs

So a table made with these compares encoders with one another; beside published numbers, say that the images are others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcl import devices
from jaxcl.evaluate.embed import EmbedFn, Progress, embed, told
from jaxcl.evaluate.knn import check_labels
from jaxcl.evaluate.linear import L2, LinearProbe, linear_probe
from jaxcl.typing import Array, Images

SEVERITIES = (1, 2, 3, 4, 5)

# (key, image [h, w, c] in [0, 1], severity) -> image [h, w, c] in [0, 1]; the severity may be traced.
Apply = Callable[[Array, Array, Array], Array]

# name -> the constants of the five severities: for CIFAR-10's size, and for ImageNet's.
CONSTANTS: dict[str, tuple[Sequence, Sequence]] = {
    # standard deviation
    "gaussian_noise": ((0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    # photons at white
    "shot_noise": ((500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    # share of values replaced
    "impulse_noise": ((0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    # radius of the disk in pixels, sigma of its softening
    "defocus_blur": (
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    # sigma of the blur before and after in pixels, largest displacement in pixels, repetitions
    "glass_blur": (
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    # radius and sigma in pixels
    "motion_blur": (
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    # end and step of the zoom factors, which start at 1
    "zoom_blur": (
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    ),
    # mean and deviation of the flakes, their zoom, threshold, radius and sigma of their fall in pixels, share of the
    # image that is not whitened
    "snow": (
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    # weight of the image, weight of the ice
    "frost": (
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    ),
    # weight of the fog, by what its roughness falls from scale to scale
    "fog": (
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    # added to HSV's value
    "brightness": ((0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    # factor about each channel's mean
    "contrast": ((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    # strength and sigma of the displacement, displacement of the affine map's three points: in image heights
    "elastic_transform": (
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        # Of 244 pixels, as the authors wrote for 224.
        tuple(
            tuple(244 / 224 * x for x in row)
            for row in (
                (2, 0.7, 0.1),
                (2, 0.08, 0.2),
                (0.05, 0.01, 0.02),
                (0.07, 0.01, 0.02),
                (0.12, 0.01, 0.02),
            )
        ),
    ),
    # share of the side that is left
    "pixelate": ((0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
    # libjpeg's quality
    "jpeg_compression": ((80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}


def constants(name: str, height: int) -> np.ndarray:
    """The constants of the five severities for images of so many rows: [5] or [5, k], float64; lengths unscaled.

    >>> constants("gaussian_noise", 32).tolist(), constants("gaussian_noise", 224).tolist()
    ([0.04, 0.06, 0.08, 0.09, 0.1], [0.08, 0.12, 0.18, 0.26, 0.38])
    """
    return np.asarray(CONSTANTS[name][0 if height <= 64 else 1], np.float64)


def unit(height: int) -> float:
    """By what the published lengths in pixels are multiplied.

    >>> unit(32), unit(224), unit(448)
    (1.0, 1.0, 2.0)
    """
    return height / (32 if height <= 64 else 224)


def of_severity(table: np.ndarray, severity: Array) -> Array:
    return jnp.asarray(table, jnp.float32)[jnp.asarray(severity) - 1]


# ---------------------------------------------------------------------------------------------- noise


def gaussian_noise(key: Array, image: Array, severity: Array) -> Array:
    """x + s N(0, 1), for every value on its own."""
    s = of_severity(constants("gaussian_noise", len(image)), severity)
    return clipped(image + s * jax.random.normal(key, image.shape, image.dtype))


def shot_noise(key: Array, image: Array, severity: Array) -> Array:
    """Poisson(c x) / c: light that comes in quanta, c of them at white."""
    c = of_severity(constants("shot_noise", len(image)), severity)
    return clipped(jax.random.poisson(key, image * c).astype(image.dtype) / c)


def impulse_noise(key: Array, image: Array, severity: Array) -> Array:
    """Salt and pepper: a value becomes 0 or 1, as likely, with the given probability."""
    p = of_severity(constants("impulse_noise", len(image)), severity)
    u = jax.random.uniform(key, image.shape)
    return jnp.where(u < p / 2, 0.0, jnp.where(u < p, 1.0, image)).astype(image.dtype)


# ---------------------------------------------------------------------------------------------- blur


def defocus_blur(key: Array, image: Array, severity: Array) -> Array:
    """Convolution with a disk that is softened by a small Gaussian; mirrored at the border's pixels."""
    h = len(image)
    table = constants("defocus_blur", h)
    table[:, 0] *= unit(h)
    r, softness = of_severity(table, severity)
    reach = int(np.ceil(np.max(table[:, 0]))) + 2
    x = jnp.arange(-reach, reach + 1, dtype=jnp.float32)
    disk = (x[:, None] ** 2 + x**2 <= r**2).astype(jnp.float32)
    # OpenCV's kernels of 3 and 5 taps, cut off where they are not small.
    taps = jnp.exp(-(x**2) / (2 * softness**2)) * (jnp.abs(x) <= jnp.where(r <= 8 * unit(h), 1, 2))
    soften = taps / jnp.sum(taps)
    disk = exact("ij,jk,lk->il", toeplitz(soften), disk / jnp.sum(disk), toeplitz(soften))
    return clipped(correlate(disk, image))


def glass_blur(key: Array, image: Array, severity: Array) -> Array:
    """Blurred, every pixel replaced by a random neighbor's, blurred again."""
    h, w, _ = image.shape
    table = constants("glass_blur", h)
    table[:, 0] *= unit(h)
    table[:, 1] = np.maximum(1, np.round(table[:, 1] * unit(h)))
    sigma, delta, times = of_severity(table, severity)
    delta = delta.astype(jnp.int32)
    rows = gaussian_matrix(sigma, h, most=np.max(table[:, 0]), truncate=4, border=nearest)
    columns = gaussian_matrix(sigma, w, most=np.max(table[:, 0]), truncate=4, border=nearest)
    y, x = jnp.arange(h)[:, None], jnp.arange(w)
    inside = (y > delta) & (y <= h - delta) & (x > delta) & (x <= w - delta)

    def shuffle(i, image):
        moved = jax.random.randint(jax.random.fold_in(key, i), (2, h, w), -delta, delta)
        dy, dx = jnp.where(inside, moved, 0)
        return image[jnp.clip(y + dy, 0, h - 1), jnp.clip(x + dx, 0, w - 1)]

    blurred = eight_bits(matrices(rows, columns, image))
    return clipped(matrices(rows, columns, lax.fori_loop(0, times.astype(jnp.int32), shuffle, blurred)))


def motion_blur(key: Array, image: Array, severity: Array) -> Array:
    """Smeared along a line, in a direction within 45 degrees of the horizontal."""
    table = constants("motion_blur", len(image)) * unit(len(image))
    radius, sigma = of_severity(table, severity)
    angle = jax.random.uniform(key, (), jnp.float32, -45, 45)
    return rounded(smear(image, radius, sigma, angle, most=np.max(table[:, 0])))


def zoom_blur(key: Array, image: Array, severity: Array) -> Array:
    """The mean of the image and of its center at several magnifications, of which the first is 1."""
    h, w, _ = image.shape
    factors = [np.arange(1, end, step) for end, step in constants("zoom_blur", h)]
    counts = [len(f) for f in factors]
    rows, columns = (
        np.stack([stacked([zoom_matrix(n, z) for z in f], max(counts)) for f in factors]) for n in (h, w)
    )
    zoomed = exact("zij,jkc,zlk->ilc", of_severity(rows, severity), image, of_severity(columns, severity))
    return clipped((image + zoomed) / (of_severity(np.array(counts), severity) + 1))


# ---------------------------------------------------------------------------------------------- weather


def snow(key: Array, image: Array, severity: Array) -> Array:
    """Whitened, with flakes that fall in two directions."""
    h, w, _ = image.shape
    table = constants("snow", h)
    table[:, 4:6] *= unit(h)
    mean, deviation, _, threshold, radius, sigma, kept = of_severity(table, severity)
    flakes_key, angle_key = jax.random.split(key)
    flakes = mean + deviation * jax.random.normal(flakes_key, (h, w, 1))
    rows, columns = (np.stack([zoom_matrix(n, z) for z in table[:, 2]]) for n in (h, w))
    flakes = matrices(of_severity(rows, severity), of_severity(columns, severity), flakes)
    flakes = eight_bits(clipped(jnp.where(flakes < threshold, 0, flakes)))
    angle = jax.random.uniform(angle_key, (), jnp.float32, -135, -45)
    flakes = smear(flakes, radius, sigma, angle, most=np.max(table[:, 4]))
    pale = jnp.maximum(image, 1.5 * gray(image) + 0.5)
    return clipped(kept * image + (1 - kept) * pale + flakes + flakes[::-1, ::-1])


def frost(key: Array, image: Array, severity: Array) -> Array:
    """Ice over the image: bright ridges of a fractal height field, bluish. The texture is ours (see above)."""
    h, w, c = image.shape
    mine, ice = of_severity(constants("frost", h), severity)
    first, second = jax.random.split(key)
    ridges = [1 - jnp.abs(2 * plasma(k, h, w, jnp.float32(2.0)) - 1) for k in (first, second)]
    texture = (0.3 + 0.7 * jnp.maximum(*ridges) ** 3)[:, :, None]
    color = jnp.asarray([0.85, 0.95, 1.0] if c == 3 else [0.93], jnp.float32)
    return clipped(mine * image + ice * texture * color)


def fog(key: Array, image: Array, severity: Array) -> Array:
    """A fractal field added, and the sum scaled to the image's own brightest value."""
    h, w, _ = image.shape
    weight, decay = of_severity(constants("fog", h), severity)
    brightest = jnp.max(image)
    foggy = image + weight * plasma(key, h, w, decay)[:, :, None]
    return clipped(foggy * brightest / (brightest + weight))


def brightness(key: Array, image: Array, severity: Array) -> Array:
    """HSV's value (the greatest channel) raised; hue and saturation stay."""
    top = jnp.max(image, axis=2, keepdims=True)
    raised = jnp.minimum(top + of_severity(constants("brightness", len(image)), severity), 1)
    return clipped(jnp.where(top > 0, image * raised / jnp.where(top > 0, top, 1), raised))


# ---------------------------------------------------------------------------------------------- digital


def contrast(key: Array, image: Array, severity: Array) -> Array:
    """About each channel's mean."""
    mean = jnp.mean(image, axis=(0, 1), keepdims=True)
    return clipped((image - mean) * of_severity(constants("contrast", len(image)), severity) + mean)


def elastic_transform(key: Array, image: Array, severity: Array) -> Array:
    """A random affine map, then a smooth random displacement of every pixel."""
    h, w, _ = image.shape
    table = constants("elastic_transform", h) * h
    strength, sigma, jitter = of_severity(table, severity)
    affine_key, x_key, y_key = jax.random.split(key, 3)
    y, x = jnp.meshgrid(jnp.arange(h, dtype=jnp.float32), jnp.arange(w, dtype=jnp.float32), indexing="ij")

    # Three points (x, y) of the image and where they are moved; every place is traced back.
    cx, cy, side = w // 2, h // 2, min(h, w) // 3
    points = jnp.asarray(
        [[cx + side, cy + side], [cx + side, cy - side], [cx - side, cy - side]], jnp.float32
    )
    moved = points + jax.random.uniform(affine_key, (3, 2), jnp.float32, -1, 1) * jitter
    from_x, from_y = affine(moved, points, x, y)
    image = bilinear(image, from_y, from_x, mirror)

    matrix = functools.partial(
        gaussian_matrix, sigma, most=np.max(table[:, 1]), truncate=3, border=mirror_doubled
    )
    dx, dy = (
        strength
        * matrices(matrix(h), matrix(w), jax.random.uniform(k, (h, w, 1), jnp.float32, -1, 1))[..., 0]
        for k in (x_key, y_key)
    )
    return clipped(bilinear(image, y + dy, x + dx, mirror_doubled))


def pixelate(key: Array, image: Array, severity: Array) -> Array:
    """Made smaller by Pillow's box filter, and as large as before by the same."""
    h, w, _ = image.shape
    shares = constants("pixelate", h)
    rows, columns = (np.stack([pixel_matrix(n, max(1, int(n * share))) for share in shares]) for n in (h, w))
    # Pillow rounds after each of its four passes; once, at the end, differs from it by a level or two.
    return rounded(matrices(of_severity(rows, severity), of_severity(columns, severity), image))


def jpeg_compression(key: Array, image: Array, severity: Array) -> Array:
    """Baseline JPEG and back: Y'CbCr, chroma at half resolution, blocks of 8 x 8 in quantized cosines."""
    h, w, c = image.shape
    quality = constants("jpeg_compression", h)
    factor = of_severity(np.where(quality < 50, np.floor(5000 / quality), 200 - 2 * quality), severity)
    luminance, chrominance = (
        jnp.clip(jnp.floor((table * factor + 50) / 100), 1, 255) for table in (LUMINANCE, CHROMINANCE)
    )
    if c == 1:
        y = coded(jnp.round(255 * image[..., 0]), luminance)
        return clipped(y[:, :, None] / 255)
    ycc = jnp.clip(jnp.round(exact("hwc,kc->hwk", 255 * image, TO_YCC) + CENTER), 0, 255)
    y = coded(ycc[..., 0], luminance)
    chroma = [upsampled(coded(halved(ycc[..., i]), chrominance), (h, w)) for i in (1, 2)]
    rgb = exact("hwk,ck->hwc", jnp.stack([y, *chroma], axis=2) - CENTER, FROM_YCC)
    return clipped(jnp.clip(jnp.round(rgb), 0, 255) / 255)


class Corruption(NamedTuple):
    group: str  # "noise", "blur", "weather" or "digital"
    apply: Apply


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption("noise", gaussian_noise),
    "shot_noise": Corruption("noise", shot_noise),
    "impulse_noise": Corruption("noise", impulse_noise),
    "defocus_blur": Corruption("blur", defocus_blur),
    "glass_blur": Corruption("blur", glass_blur),
    "motion_blur": Corruption("blur", motion_blur),
    "zoom_blur": Corruption("blur", zoom_blur),
    "snow": Corruption("weather", snow),
    "frost": Corruption("weather", frost),
    "fog": Corruption("weather", fog),
    "brightness": Corruption("weather", brightness),
    "contrast": Corruption("digital", contrast),
    "elastic_transform": Corruption("digital", elastic_transform),
    "pixelate": Corruption("digital", pixelate),
    "jpeg_compression": Corruption("digital", jpeg_compression),
}

# ---------------------------------------------------------------------------------------------- a data set, a score


def corrupt(key: Array, name: str, images: np.ndarray, severity: int, *, batch_size: int = 256) -> np.ndarray:
    """A data set with one corruption: uint8 [n, h, w, c] -> uint8 [n, h, w, c], values cut off to eight bits.

    What is drawn for an image is a function of (key, its number in the data set, the corruption, the severity).

    >>> images = np.full((2, 8, 8, 3), 100, np.uint8)
    >>> corrupt(jax.random.key(0), "brightness", images, severity=2)[0, 0, 0].tolist()       # 100 + 255 * 0.1
    [125, 125, 125]
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"There is no corruption {name!r}; there are {', '.join(CORRUPTIONS)}.")
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be one of {SEVERITIES}; got {severity}.")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(
            f"images must be uint8 [n, h, w, c] with one channel or three; got {images.dtype} {images.shape}."
        )
    mesh = devices.local_mesh()
    batch_size = -(-batch_size // mesh.size) * mesh.size
    key = devices.replicate(
        jax.random.fold_in(jax.random.fold_in(key, list(CORRUPTIONS).index(name)), severity), mesh
    )
    made = np.empty_like(images)
    for first in range(0, len(images), batch_size):
        batch = np.asarray(images[first : first + batch_size])
        rows = len(batch)
        # A batch that is not full is filled up, so that there is one program for data sets of any length.
        batch = np.concatenate([batch, np.zeros((batch_size - rows, *batch.shape[1:]), np.uint8)])
        index = np.arange(first, first + batch_size, dtype=np.int32)
        batch, index = devices.split((batch, index), mesh)
        out = _corrupt(key, batch, index, np.int32(severity), name=name)
        made[first : first + rows] = np.asarray(out)[:rows]
    return made


@functools.partial(jax.jit, static_argnames="name")
def _corrupt(key, images, index, severity, *, name):
    def one(image, index):
        image = image.astype(jnp.float32) / 255
        out = CORRUPTIONS[name].apply(jax.random.fold_in(key, index), image, severity)
        return (255 * eight_bits(out) + 0.5).astype(jnp.uint8)

    return jax.vmap(one)(images, index)


class Robustness(NamedTuple):
    """The accuracy, in [0, 1], of a classifier that has never seen a corrupted image."""

    clean: float
    accuracies: dict[str, np.ndarray]  # corruption -> [5], a severity each
    groups: dict[str, float]  # the means of "noise", "blur", "weather", "digital"
    mean: float  # over all 75
    severe: float  # over severities 3 to 5
    standard_error: float  # of the mean, over the draw of the test images
    probe: LinearProbe


def robustness(
    key: Array,
    embed_fn: EmbedFn,
    train: Images,
    test: Images,
    *,
    images: int | None = None,
    names: Sequence[str] = tuple(CORRUPTIONS),
    progress: Progress | None = None,
) -> Robustness:
    """How often a linear classifier, fitted on clean features, is right about corrupted test images.

    As LooC reports it (Xiao et al. 2020, arXiv:2008.05659, table 3): the classifier of the clean task, unchanged; the
    mean accuracy in each group, over all, and over severities 3 to 5. (Hendrycks and Dietterich report errors, and
    divide each corruption's by AlexNet's; that is not done here.) The classifier is `linear_probe`.

    images
        how many test images, chosen by the key, are corrupted; all if not given. They are embedded 75 times.
    names
        some of CORRUPTIONS, if not all.
    """
    labels = check_labels(f"Robustness on {train.name!r}", train.labels, len(train.images))
    test_labels = check_labels(f"Robustness on {test.name!r}", test.labels, len(test.images))
    shown, wanted = test.images, test_labels
    if not names or not set(names) <= set(CORRUPTIONS):
        raise ValueError(f"names must be some of {', '.join(CORRUPTIONS)}; got {', '.join(names) or 'none'}.")
    subset_key, noise_key = jax.random.split(key)
    if images is not None and images < len(shown):
        rows = np.sort(np.asarray(jax.random.permutation(subset_key, len(shown)))[:images])
        shown, wanted = shown[rows], wanted[rows]
    features = embed(embed_fn, train.images, progress=told(progress, "embedding training images"))
    clean = embed(embed_fn, shown, progress=told(progress, "embedding test images"))
    told(progress, "fitting")(0.0)
    probe = linear_probe(features, labels, clean, wanted, l2=L2)

    total, right, accuracies = len(names) * len(SEVERITIES), np.zeros(len(shown)), {}
    for i, name in enumerate(names):
        scores = []
        for severity in SEVERITIES:
            told(progress, name.replace("_", " "))((i * len(SEVERITIES) + severity - 1) / total)
            seen = embed(embed_fn, corrupt(noise_key, name, shown, severity))
            hits = probe.classes[np.argmax(seen @ probe.weights + probe.bias, axis=1)] == wanted
            scores.append(hits.mean())
            right += hits / total
        accuracies[name] = np.asarray(scores)
    groups: dict[str, list[np.ndarray]] = {}
    for name in names:
        groups.setdefault(CORRUPTIONS[name].group, []).append(accuracies[name])
    every = np.stack(list(accuracies.values()))
    return Robustness(
        clean=probe.accuracy,
        accuracies=accuracies,
        groups={group: float(np.mean(found)) for group, found in groups.items()},
        mean=float(every.mean()),
        severe=float(every[:, 2:].mean()),
        standard_error=float(right.std() / np.sqrt(len(right))),
        probe=probe,
    )


# ---------------------------------------------------------------------------------------------- parts


def clipped(x: Array) -> Array:
    return jnp.clip(x, 0, 1)


def eight_bits(x: Array) -> Array:
    """Cut off to a multiple of 1/255; what is one but for rounding stays it."""
    return jnp.floor(255 * x + 1e-3) / 255


def rounded(x: Array) -> Array:
    """To the nearest multiple of 1/255, as a library does that works in eight bits."""
    return jnp.round(255 * clipped(x)) / 255


def gray(image: Array) -> Array:
    """[h, w, c] -> [h, w, 1], by OpenCV's weights."""
    if image.shape[2] == 1:
        return image
    return exact("hwc,c->hw", image, jnp.asarray([0.299, 0.587, 0.114], jnp.float32))[:, :, None]


def exact(formula: str, *operands: Array | np.ndarray) -> Array:
    # The highest precision: an accelerator's default would round pixels to about three digits.
    return jnp.einsum(formula, *operands, precision=lax.Precision.HIGHEST)


def matrices(rows: Array, columns: Array, image: Array) -> Array:
    """rows [H, h], columns [W, w], image [h, w, c] -> [H, W, c]."""
    return exact("Hh,hwc,Ww->HWc", rows, image, columns)


# Where in a line of n pixels the place i is found that may lie outside.


def nearest(i: Array, n: int) -> Array:
    """a a | a b c d | d d"""
    return jnp.clip(i, 0, n - 1)


def mirror(i: Array, n: int) -> Array:
    """c b | a b c d | c b"""
    period = max(2 * (n - 1), 1)
    i = i % period
    return jnp.minimum(i, period - i) if n > 1 else jnp.zeros_like(i)


def mirror_doubled(i: Array, n: int) -> Array:
    """b a | a b c d | d c"""
    i = i % (2 * n)
    return jnp.minimum(i, 2 * n - 1 - i)


def toeplitz(taps: Array) -> Array:
    """The matrix that convolves a line with symmetric taps [2 r + 1], nothing beyond its ends: [2 r + 1, 2 r + 1]."""
    n = len(taps)
    place = jnp.arange(n)[:, None] - jnp.arange(n) + n // 2
    return jnp.where((place >= 0) & (place < n), taps[jnp.clip(place, 0, n - 1)], 0)


def correlate(kernel: Array, image: Array) -> Array:
    """kernel [2 r + 1, 2 r + 1] over image [h, w, c], mirrored at the border's pixels."""
    h, w, _ = image.shape
    r = len(kernel) // 2
    around = [mirror(jnp.arange(-r, n + r), n) for n in (h, w)]
    padded = jnp.moveaxis(image[around[0]][:, around[1]], 2, 0)[:, None]
    out = lax.conv(padded, kernel[None, None], (1, 1), "VALID", precision=lax.Precision.HIGHEST)
    return jnp.moveaxis(out[:, 0], 0, 2)


def gaussian_matrix(sigma: Array, n: int, *, most: float, truncate: float, border: Callable) -> Array:
    """The matrix [n, n] of a Gaussian, cut off at `truncate` sigma, rounded; `most` bounds sigma."""
    reach = int(truncate * most + 0.5)
    t = jnp.arange(-reach, reach + 1)
    r = jnp.floor(truncate * sigma + 0.5)
    taps = jnp.where(jnp.abs(t) <= r, jnp.exp(-0.5 * (t / jnp.maximum(sigma, 1e-6)) ** 2), 0)
    i = jnp.arange(n)[:, None]
    return jnp.zeros((n, n)).at[i, border(i + t, n)].add(taps / jnp.sum(taps))


def smear(image: Array, radius: Array, sigma: Array, angle: Array, *, most: float) -> Array:
    """ImageMagick's motion blur: a one-sided Gaussian of 2 ceil(radius) + 1 taps along a line, at whole pixels.

    The angle is in degrees, clockwise from the right, as rows count downward; beyond the border is its nearest pixel.
    """
    h, w, _ = image.shape
    width = 2 * jnp.ceil(radius) + 1
    i = jnp.arange(2 * int(np.ceil(most)) + 1, dtype=jnp.float32)
    taps = jnp.where(i < width, jnp.exp(-(i**2) / (2 * sigma**2)), 0)
    taps = taps / jnp.sum(taps)
    radians = angle * (np.pi / 180)
    dx = jnp.ceil(i * jnp.cos(radians) - 0.5).astype(jnp.int32)
    dy = jnp.ceil(i * jnp.sin(radians) - 0.5).astype(jnp.int32)

    def add(k, total):
        rows, columns = nearest(jnp.arange(h) + dy[k], h), nearest(jnp.arange(w) + dx[k], w)
        return total + taps[k] * image[rows][:, columns]

    return lax.fori_loop(0, len(i), add, jnp.zeros_like(image))


def zoom_matrix(n: int, factor: float) -> np.ndarray:
    """The matrix [n, n] that magnifies the center of a line, linearly, as scipy.ndimage.zoom and a crop do.

    >>> zoom_matrix(4, 2.0)[0].round(4).tolist()            # of the middle two pixels made four, the first
    [0.0, 1.0, 0.0, 0.0]
    """
    kept = int(np.ceil(n / factor))
    first = (n - kept) // 2
    made = round(kept * factor)
    trimmed = (made - n) // 2
    place = (np.arange(n) + trimmed) * ((kept - 1) / max(made - 1, 1)) + first
    return np.maximum(1 - np.abs(place[:, None] - np.arange(n)), 0)


def stacked(parts: list[np.ndarray], count: int) -> np.ndarray:
    """The matrices in one array, with matrices of zeros up to `count`."""
    return np.stack(parts + [np.zeros_like(parts[0])] * (count - len(parts)))


def pixel_matrix(n: int, m: int) -> np.ndarray:
    """The matrix [n, n] that shrinks a line to m pixels and widens it again, both by Pillow's box filter."""

    def box(size, out):
        scale = size / out
        center, reach = (np.arange(out) + 0.5) * scale, max(scale, 1) / 2
        # Half-open: of two pixels that are as near the left one counts, where the filter is one pixel wide.
        offset = (np.arange(size) + 0.5 - center[:, None]) / (2 * reach)
        inside = (offset > -0.5) & (offset <= 0.5)
        return inside / inside.sum(axis=1, keepdims=True)

    return box(m, n) @ box(n, m)


def plasma(key: Array, h: int, w: int, decay: Array) -> Array:
    """A fractal field [h, w] in [0, 1] by the diamond-square algorithm, on the power of two that holds the image.

    Every level halves the grid: centers of squares are the mean of their four corners, centers of edges the mean of
    two corners and two centers, on a torus, each plus U(-a, a), where a falls by decay^2 from level to level.
    """
    levels = int(np.ceil(np.log2(max(h, w, 2))))
    # All at once, the coarsest level's first: many small draws would take long to compile.
    draws = jax.random.uniform(key, (4**levels - 1,), jnp.float32, -1, 1)
    field, used = jnp.zeros((1, 1)), 0
    size = jnp.float32(100.0)
    for _ in range(levels):
        n = len(field)
        noise = size**2 * draws[used : used + 3 * n * n].reshape(3, n, n)
        corners = field + jnp.roll(field, -1, axis=0)
        squares = (corners + jnp.roll(corners, -1, axis=1)) / 4 + noise[0]
        across = field + jnp.roll(field, -1, axis=1) + squares + jnp.roll(squares, 1, axis=0)
        down = field + jnp.roll(field, -1, axis=0) + squares + jnp.roll(squares, 1, axis=1)
        across, down = across / 4 + noise[1], down / 4 + noise[2]
        used += 3 * n * n
        n *= 2
        above = jnp.stack([field, across], axis=2).reshape(-1, n)
        below = jnp.stack([down, squares], axis=2).reshape(-1, n)
        field = jnp.stack([above, below], axis=1).reshape(n, n)
        size = size / decay
    field = field - jnp.min(field)
    return (field / jnp.max(field))[:h, :w]


def affine(before: Array, after: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Where the affine map that takes the three points `before` to `after`, each [3, 2], takes the places (x, y)."""
    (ax, ay), (bx, by) = before[1] - before[0], before[2] - before[0]
    area = ax * by - ay * bx
    px, py = x - before[0, 0], y - before[0, 1]
    s, t = (px * by - py * bx) / area, (ax * py - ay * px) / area
    out = after[0] + s[..., None] * (after[1] - after[0]) + t[..., None] * (after[2] - after[0])
    return out[..., 0], out[..., 1]


def bilinear(image: Array, y: Array, x: Array, border: Callable) -> Array:
    """The image [h, w, c] at the places (y, x), each [h, w], that may lie outside."""
    h, w, _ = image.shape
    top, left = jnp.floor(y), jnp.floor(x)
    down, right = (y - top)[..., None], (x - left)[..., None]
    rows = [border(top.astype(jnp.int32) + i, h) for i in (0, 1)]
    columns = [border(left.astype(jnp.int32) + i, w) for i in (0, 1)]
    above = image[rows[0], columns[0]] * (1 - right) + image[rows[0], columns[1]] * right
    below = image[rows[1], columns[0]] * (1 - right) + image[rows[1], columns[1]] * right
    return above * (1 - down) + below * down


# ---------------------------------------------------------------------------------------------- JPEG

# ITU-T T.81, annex K, tables K.1 and K.2.
LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
CHROMINANCE = np.full((8, 8), 99, np.float32)
CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
# JFIF 1.02.
TO_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32
)
FROM_YCC = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]], np.float32)
CENTER = np.array([0, 128, 128], np.float32)
# Orthonormal cosines: [frequency, place].
COSINES = np.cos(np.pi * np.outer(np.arange(8), np.arange(8) + 0.5) / 8).astype(np.float32) / 2
COSINES[0] /= np.sqrt(2, dtype=np.float32)


def coded(plane: Array, table: Array) -> Array:
    """A plane [h, w] of 0 to 255 after quantization of its 8 x 8 blocks; filled up by its last row and column."""
    h, w = plane.shape
    padded = jnp.pad(plane, ((0, -h % 8), (0, -w % 8)), mode="edge") - 128
    blocks = padded.reshape(padded.shape[0] // 8, 8, padded.shape[1] // 8, 8)
    waves = jnp.round(exact("ui,aibj,vj->aubv", COSINES, blocks, COSINES) / table[:, None]) * table[:, None]
    blocks = exact("ui,aubv,vj->aibj", COSINES, waves, COSINES)
    return jnp.clip(jnp.round(blocks.reshape(padded.shape)[:h, :w] + 128), 0, 255)


def halved(plane: Array) -> Array:
    """The mean of every 2 x 2 pixels, rounded up and down by turns, as libjpeg does."""
    h, w = plane.shape
    padded = jnp.pad(plane, ((0, h % 2), (0, w % 2)), mode="edge")
    total = padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2).sum(axis=(1, 3))
    return jnp.floor((total + 1 + jnp.arange(total.shape[1]) % 2) / 4)


def upsampled(plane: Array, shape: tuple[int, int]) -> Array:
    """Twice as large: every new pixel takes 3/4 of the nearest old one and 1/4 of the next, along each axis."""

    def twice(x):
        before, after = jnp.concatenate([x[:1], x[:-1]]), jnp.concatenate([x[1:], x[-1:]])
        return jnp.stack([3 * x + before, 3 * x + after], axis=1).reshape(2 * len(x), -1)

    sixteenths = twice(twice(plane).T).T
    # Rounded up and down by turns, as libjpeg does.
    return jnp.floor((sixteenths + 8 - jnp.arange(sixteenths.shape[1]) % 2) / 16)[: shape[0], : shape[1]]
