"""The embedded data set: handwritten digits, scattered.

The 1797 digits of 8 x 8 pixels that come with scikit-learn (Alpaydin & Kaynak 1998, "Optical Recognition of
Handwritten Digits", UCI) are drawn at a random place, size and colour on a cluttered canvas. Nothing is downloaded,
and a few seconds are enough to make it. It is hard for raw pixels and for an untrained network, because place, size,
colour and polarity vary more than the digit does, and all of these are what cropping and colour jitter take away.
"""

from __future__ import annotations

import numpy as np

from jaxcl.typing import Images

SPLITS = {"train": 8000, "test": 2000}
# Originals: the first 1437 for training, the other 360 (other writers) for testing.
TRAIN_ORIGINALS = 1437
# Luma weights of ITU-R BT.601, as in every grayscale conversion of the field.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def scattered_digits(
    split: str,
    *,
    n: int | None = None,
    size: int = 32,
    seed: int = 0,
    clutter: float = 1.0,
    scale: tuple[float, float] = (2.0, 3.0),
    contrast: tuple[float, float] = (0.3, 0.45),
) -> Images:
    """Scattered digits: images uint8 [n, size, size, 3], labels int32 [n] in 0..9.

    split
        "train" (8000 images of 1437 originals) or "test" (2000 images of the other 360); `n` makes more or fewer,
        and the first of them are not the same then.
    size
        side of the canvas in pixels, at least 16.
    clutter
        how much there is besides the digit: 0 is a plain background, 1 the default; strokes, scraps of other digits,
        pixel noise and the unevenness of the background grow with it.
    scale
        the digit's side is 8 pixels times a number drawn from this range, on a canvas of 32; other canvases
        enlarge it with them.
    contrast
        range of the difference in luminance, of 1, between digit and background; lighter or darker is drawn.

    The same arguments give the same images (a gray level more or less may differ from machine to machine). Raises
    ValueError for another split, for a canvas under 16 pixels, for negative clutter or n < 1, and for a scale that
    does not fit on the canvas.

    >>> scattered_digits("test", n=4).images.shape
    (4, 32, 32, 3)
    """
    if split not in SPLITS:
        raise ValueError(f"the digits are split into {' and '.join(SPLITS)}; got split={split!r}.")
    n = SPLITS[split] if n is None else n
    if n < 1 or size < 16 or clutter < 0:
        raise ValueError(
            f"expected n >= 1, size >= 16 and clutter >= 0; got n={n}, size={size}, clutter={clutter}."
        )
    if not 1 <= scale[0] <= scale[1] <= 4:
        raise ValueError(f"expected scale = (low, high) with 1 <= low <= high <= 4; got {scale}.")
    originals, names = _originals(split)
    # Philox is counter-based: (seed, split) names a stream that no other seed or split shares.
    stream = np.random.Generator(np.random.Philox(key=[seed, sorted(SPLITS).index(split)]))
    images = np.empty((n, size, size, 3), np.uint8)
    labels = np.empty(n, np.int32)
    for start in range(0, n, 1000):
        stop = min(start + 1000, n)
        # Each chunk walks on through shuffled originals, so each of them is drawn about equally often.
        chosen = _deal(stream, len(originals), stop - start)
        labels[start:stop] = names[chosen]
        images[start:stop] = _scatter(stream, originals, chosen, size, clutter, scale, contrast)
    return Images(f"digits/{split}", images, labels, tuple("0123456789"))


def _originals(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Ink in [0, 1] [m, 8, 8] and labels [m]."""
    from sklearn.datasets import load_digits  # half a second; only who wants digits pays for it

    data = load_digits()
    part = slice(None, TRAIN_ORIGINALS) if split == "train" else slice(TRAIN_ORIGINALS, None)
    return data.images[part].astype(np.float32) / 16, data.target[part].astype(np.int32)


def _uniform(stream: np.random.Generator, shape, low=0.0, high=1.0) -> np.ndarray:
    return (low + (high - low) * stream.random(shape)).astype(np.float32)


def _deal(stream: np.random.Generator, originals: int, n: int) -> np.ndarray:
    """n of the originals, in random order: every one once before one is dealt a second time."""
    rounds = -(-n // originals)
    return np.argsort(stream.random((rounds, originals)), axis=1).reshape(-1)[:n]


def _taps(centre: np.ndarray, step: np.ndarray, source: int, size: int) -> np.ndarray:
    """[n, size, source]: how much of each of `source` cells each of `size` pixels takes, linearly interpolated.

    Cell j of image i has its centre at pixel centre[i] + (j - (source - 1) / 2) step[i]. Outside there is nothing.
    """
    pixel = np.arange(size, dtype=np.float32) + 0.5
    cell = (pixel - centre[:, None]) / step[:, None] + (source - 1) / 2
    return np.maximum(0, 1 - np.abs(cell[:, :, None] - np.arange(source, dtype=np.float32)))


def _draw(small: np.ndarray, x, y, step_x, step_y, size: int) -> np.ndarray:
    """[n, s, s] enlarged and laid on canvases [n, size, size], centred at pixel (x, y)."""
    rows = _taps(y, step_y, small.shape[1], size)
    columns = _taps(x, step_x, small.shape[2], size)
    return rows @ small @ columns.transpose(0, 2, 1)


def _paint(canvas: np.ndarray, ink: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """`colour` [n, 3] laid over canvas [n, h, w, 3] where there is ink [n, h, w] in [0, 1]."""
    return canvas + np.clip(ink, 0, 1)[..., None] * (colour[:, None, None] - canvas)


def _colour(stream: np.random.Generator, luminance: np.ndarray, strength: float) -> np.ndarray:
    """Random hues of about the given luminance [n] -> [n, 3]."""
    hue = _uniform(stream, (len(luminance), 3), -1, 1)
    hue -= (hue @ LUMA)[:, None]
    return np.clip(luminance[:, None] + strength * hue, 0, 1)


def _segments(stream: np.random.Generator, n: int, size: int, length: float, width: float) -> np.ndarray:
    """One soft straight stroke on each of n canvases, [n, size, size] in [0, 1]."""
    a = _uniform(stream, (n, 2), 0, size)
    angle = _uniform(stream, n, 0, 2 * np.pi)
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1) * _uniform(stream, (n, 1), 0.5, 1) * length
    pixel = np.arange(size, dtype=np.float32) + 0.5
    x, y = pixel[None, None, :] - a[:, 0, None, None], pixel[None, :, None] - a[:, 1, None, None]
    dx, dy = along[:, 0, None, None], along[:, 1, None, None]
    t = np.clip((x * dx + y * dy) / np.maximum(dx * dx + dy * dy, 1e-6), 0, 1)
    distance = np.hypot(x - t * dx, y - t * dy)
    return np.clip(width - distance, 0, 1)


def _scatter(
    stream, originals, chosen, size, clutter, scale, contrast, uneven=0.05, tint=0.05, pieces=1, level=(0.35, 0.5), hue=0.5, cells=7, invert=0.0
) -> np.ndarray:
    n, unit = len(chosen), size / 32
    # The background: a medium gray, and over it a coarse net of colours, smoothly joined, that have no luminance.
    weights = _taps(np.full(n, size / 2, np.float32), np.full(n, size / (cells - 1), np.float32), cells, size)
    colours = _hue(stream, n * cells * cells, hue).reshape(n, cells, cells, 3).transpose(0, 3, 1, 2)
    base = _uniform(stream, (n, 1, 1, 1), *level)
    levels = base + colours + _uniform(stream, (n, 1, cells, cells), -uneven, uneven)
    canvas = weights[:, None] @ levels @ weights.transpose(0, 2, 1)[:, None]
    canvas = np.ascontiguousarray(canvas.transpose(0, 2, 3, 1))

    # What is not the digit: strokes, and scraps of 3 x 3 cells torn out of other digits.
    for _ in range(int(round(pieces * clutter))):
        ink = _segments(stream, n, size, 8 * unit, 0.9 * unit)
        canvas += (
            ink[..., None] * (_uniform(stream, (n, 1), -0.3, 0.3) + _hue(stream, n, tint))[:, None, None]
        )
    for _ in range(int(round(pieces * clutter))):
        other = originals[_deal(stream, len(originals), n)]
        row, column = (stream.random((2, n, 1, 1)) * 6).astype(int)
        three = np.arange(3)
        scrap = other[np.arange(n)[:, None, None], row + three[:, None], column + three]
        x, y = _uniform(stream, n, 0, size), _uniform(stream, n, 0, size)
        cell = _uniform(stream, n, *scale) * unit
        ink = _draw(scrap, x, y, cell, cell, size)
        canvas += (
            ink[..., None] * (_uniform(stream, (n, 1), -0.3, 0.3) + _hue(stream, n, tint))[:, None, None]
        )

    # The digit, wholly on the canvas, lighter or darker than what is under it.
    cell = _uniform(stream, n, *scale) * unit
    stretch = _uniform(stream, n, 0.9, 1.1)
    step_x, step_y = cell * stretch, cell / stretch
    half_x, half_y = np.minimum(4 * step_x, size / 2), np.minimum(4 * step_y, size / 2)
    x = half_x + _uniform(stream, n) * (size - 2 * half_x)
    y = half_y + _uniform(stream, n) * (size - 2 * half_y)
    # Lighter on a dark background and darker on a light one; either on a medium one.
    sign = np.where(stream.random((n, 1)) < invert, -1, 1)
    ink = _draw(originals[chosen], x, y, step_x, step_y, size)
    colour = sign * _uniform(stream, (n, 1), *contrast) + _hue(stream, n, tint)
    canvas += np.minimum(1.3 * ink, 1)[..., None] * colour[:, None, None].astype(np.float32)

    canvas += 0.03 * clutter * _uniform(stream, canvas.shape, -1.7, 1.7)
    return np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8)


def _hue(stream: np.random.Generator, n: int, strength: float) -> np.ndarray:
    """[n, 3]: colours without luminance."""
    hue = _uniform(stream, (n, 3), -strength, strength)
    return hue - (hue @ LUMA)[:, None]
