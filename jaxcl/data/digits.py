"""The embedded data set: handwritten digits, scattered.

The 1797 digits of 8 x 8 pixels that come with scikit-learn (Alpaydin and Kaynak 1998, "Optical Recognition of
Handwritten Digits", UCI) are drawn at a random position and size over a net of random colors, with some clutter.
Nothing is downloaded, and a second is enough to draw them. They are hard for raw pixels and for an untrained
network, because colors and position vary more than the digit does; and colors, position and size are what cropping,
color jitter and grayscale take away.
"""

from __future__ import annotations

import numpy as np

from jaxcl.typing import Images

SPLITS = {"train": 8000, "test": 2000}
SIZE = 32
# The first 1437 originals are for training, the other 360 for testing.
TRAIN_ORIGINALS = 1437
# Hues of the background along each side of the canvas.
CELLS = 6
# Luma weights of ITU-R BT.601, as in every grayscale conversion of the field.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def scattered_digits(
    split: str,
    *,
    n: int | None = None,
    size: int = SIZE,
    seed: int = 0,
    clutter: float = 1.0,
    colors: float = 0.9,
    scale: tuple[float, float] = (2.6, 3.4),
    contrast: tuple[float, float] = (0.4, 0.5),
) -> Images:
    """Scattered digits: images uint8 [n, size, size, 3], labels int32 [n] in 0..9.

    split
        "train" (8000 images of 1437 originals) or "test" (2000 images of the other 360); `n` draws more or fewer
        images of the same originals.
    size
        side of the canvas in pixels, at least 16.
    clutter
        how much there is besides digit and colors: 0 is nothing; 1, the default, a stroke, a scrap of another digit
        and some noise; 2 twice that.
    colors
        how far red, green and blue of the background stray from gray, of 1; 0 is a gray background.
    scale
        the digit's side is 8 pixels times a number drawn from this range, on a canvas of 32 pixels; it grows with
        the canvas.
    contrast
        range of the difference in luminance, of 1, between the digit's ink and what is under it.

    The same arguments give the same images (a gray level more or less may differ from machine to machine). Raises
    ValueError for another split, for a canvas under 16 pixels, for negative clutter or colors, for n < 1, and for a
    scale that does not fit on the canvas.

    >>> scattered_digits("test", n=4).images.shape
    (4, 32, 32, 3)
    """
    if split not in SPLITS:
        raise ValueError(f"the digits are split into {' and '.join(SPLITS)}; got split={split!r}.")
    n = SPLITS[split] if n is None else n
    if n < 1 or size < 16 or clutter < 0 or colors < 0:
        raise ValueError(
            "expected n >= 1, size >= 16, clutter >= 0 and colors >= 0;"
            f" got n={n}, size={size}, clutter={clutter}, colors={colors}."
        )
    if not 1 <= scale[0] <= scale[1] <= 4:
        raise ValueError(f"expected scale = (low, high) with 1 <= low <= high <= 4; got {scale}.")
    originals, names = _originals(split)
    # Philox is counter-based: (seed, split) names a stream that no other seed or split shares.
    stream = np.random.Generator(np.random.Philox(key=[seed, sorted(SPLITS).index(split)]))
    chosen = _deal(stream, len(originals), n)
    images = np.empty((n, size, size, 3), np.uint8)
    for start in range(0, n, 500):
        some = slice(start, start + 500)
        images[some] = _scatter(stream, originals, chosen[some], size, clutter, colors, scale, contrast)
    return Images(f"digits/{split}", images, names[chosen], tuple("0123456789"))


def _originals(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Ink in [0, 1] [m, 8, 8] and labels [m]."""
    from sklearn.datasets import load_digits  # its import takes a second; only who wants digits pays for it

    data = load_digits()
    part = slice(None, TRAIN_ORIGINALS) if split == "train" else slice(TRAIN_ORIGINALS, None)
    return data.images[part].astype(np.float32) / 16, data.target[part].astype(np.int32)


def _scatter(stream, originals, chosen, size, clutter, colors, scale, contrast) -> np.ndarray:
    n, unit = len(chosen), size / 32
    # The background: a medium gray, and over it a coarse net of hues without luminance, smoothly joined. It must look
    # alike wherever one cuts: a slope, or a color of the whole canvas, is shared by two crops of one image, and
    # contrastive learning would rather recognize that than the digit. The hues vanish in grayscale.
    middle, step = np.full(n, size / 2, np.float32), np.full(n, size / (CELLS - 1), np.float32)
    net = _taps(middle, step, CELLS, size)[:, None]
    hues = _hue(stream, n * CELLS**2, colors).reshape(n, CELLS, CELLS, 3).transpose(0, 3, 1, 2)
    shade = _uniform(stream, (n, 1, CELLS, CELLS), -0.05, 0.05) * clutter
    level = _uniform(stream, (n, 1, 1, 1), 0.35, 0.5)
    canvas = (net @ (level + shade + hues) @ net.transpose(0, 1, 3, 2)).transpose(0, 2, 3, 1).copy()

    def lay(ink, luminance):
        color = luminance[:, None] + _hue(stream, n, 0.05)
        canvas[...] += np.minimum(ink, 1)[..., None] * color[:, None, None]

    # What is not the digit: strokes, and scraps of 3 x 3 cells torn out of other digits.
    three = np.arange(3)
    for _ in range(round(clutter)):
        lay(_strokes(stream, n, size, 8 * unit, 0.9 * unit), _uniform(stream, n, -0.3, 0.3))
        other = originals[_deal(stream, len(originals), n)]
        row, column = (stream.random((2, n, 1, 1)) * 6).astype(int)
        scrap = other[np.arange(n)[:, None, None], row + three[:, None], column + three]
        x, y = _uniform(stream, n, 0, size), _uniform(stream, n, 0, size)
        cell = _uniform(stream, n, *scale) * unit
        lay(_enlarge(scrap, x, y, cell, cell, size), _uniform(stream, n, -0.3, 0.3))

    # The digit, wholly on the canvas, lighter than what is under it.
    cell, stretch = _uniform(stream, n, *scale) * unit, _uniform(stream, n, 0.9, 1.1)
    width, height = cell * stretch, cell / stretch
    room_x, room_y = np.maximum(size - 8 * width, 0), np.maximum(size - 8 * height, 0)
    x = size / 2 + room_x * _uniform(stream, n, -0.5, 0.5)
    y = size / 2 + room_y * _uniform(stream, n, -0.5, 0.5)
    lay(1.3 * _enlarge(originals[chosen], x, y, width, height, size), _uniform(stream, n, *contrast))

    canvas += 0.05 * clutter * _uniform(stream, canvas.shape, -1, 1)
    return np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8)


def _uniform(stream: np.random.Generator, shape, low=0.0, high=1.0) -> np.ndarray:
    return np.float32(low) + np.float32(high - low) * stream.random(shape, dtype=np.float32)


def _deal(stream: np.random.Generator, originals: int, n: int) -> np.ndarray:
    """n of the originals, in random order: every one once before one is dealt a second time."""
    rounds = -(-n // originals)
    return np.argsort(stream.random((rounds, originals)), axis=1).reshape(-1)[:n]


def _hue(stream: np.random.Generator, n: int, strength: float) -> np.ndarray:
    """[n, 3]: differences of color without luminance."""
    hue = _uniform(stream, (n, 3), -strength, strength)
    return hue - (hue @ LUMA)[:, None]


def _taps(center: np.ndarray, step: np.ndarray, cells: int, size: int) -> np.ndarray:
    """[n, size, cells]: how much of each cell each of `size` pixels takes, linearly interpolated.

    Cell j of image i has its middle at pixel center[i] + (j - (cells - 1) / 2) step[i]. Outside there is nothing.
    """
    pixel = np.arange(size, dtype=np.float32) + 0.5
    cell = (pixel - center[:, None]) / step[:, None] + (cells - 1) / 2
    return np.maximum(0, 1 - np.abs(cell[:, :, None] - np.arange(cells, dtype=np.float32)))


def _enlarge(small: np.ndarray, x, y, step_x, step_y, size: int) -> np.ndarray:
    """[n, s, s] enlarged, on canvases [n, size, size], with its middle at pixel (x, y)."""
    rows = _taps(y, step_y, small.shape[1], size)
    columns = _taps(x, step_x, small.shape[2], size)
    return rows @ small @ columns.transpose(0, 2, 1)


def _strokes(stream: np.random.Generator, n: int, size: int, length: float, width: float) -> np.ndarray:
    """One soft straight stroke on each of n canvases, [n, size, size] in [0, 1]."""
    start, angle = _uniform(stream, (n, 2), 0, size), _uniform(stream, n, 0, 2 * np.pi)
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1) * _uniform(stream, (n, 1), 0.5, 1) * length
    dx, dy = along[:, 0, None, None], along[:, 1, None, None]
    pixel = np.arange(size, dtype=np.float32) + 0.5
    x, y = pixel - start[:, 0, None, None], pixel[:, None] - start[:, 1, None, None]
    t = np.clip((x * dx + y * dy) / np.maximum(dx * dx + dy * dy, 1e-6), 0, 1)
    return np.clip(width - np.hypot(x - t * dx, y - t * dy), 0, 1)
