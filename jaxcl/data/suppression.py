"""Data sets with competing features (Chen, Luo and Li, 2021, arXiv:2011.02803): what does a method learn first?

Every image holds two things that its views share, and a knob says how loud one of them is: random bits beside a
picture, many digits on one canvas, a large digit beside a small one, a digit on a photograph. A method that could
learn both often learns the easier one and drops the other.

    rand_bits       images with a code of their own in further channels; the knob is the number of bits
    multi_digits    several digits on a blank canvas; the knob is how many
    two_digits      one digit of fixed size, one of any size; the knob is the other's size
    digit_on_image  a digit pasted over photographs; the knob is how many different digits there are

All are functions of their arguments alone: the same seed gives the same pixels, on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcl.data.arrays import allocate
from jaxcl.typing import Images

# --- random bits -------------------------------------------------------------------------------------------------


def rand_bits(images: Images, *, bits: int, seed: int) -> Images:
    """RandBits: [n, h, w, c] -> [n, h, w, c + bits], each further channel all 0 or all 255.

    The code is the hash of the image's pixels, modulo 2^bits, lowest bit first (see `codes`): an image has the same
    code whenever it is met, in both views, in every epoch and in the test set. Codes of different images may collide.
    Augmentation must leave the code alone: `augment.first_channels(op, c)`.

    The published notebook (`randbits_mnist.ipynb`) hashes the JPEG file with FarmHash; here it is BLAKE2 of the
    pixels, so single codes differ from the notebook's, while their distribution does not.

    Raises ValueError unless 0 <= bits <= 64.

    >>> blank = Images("blank", np.zeros((1, 2, 2, 1), np.uint8))
    >>> rand_bits(blank, bits=3, seed=0).images.shape
    (1, 2, 2, 4)
    """
    code = codes(images.images, bits=bits, seed=seed)
    n, h, w, c = images.images.shape
    coded = allocate((n, h, w, c + bits))
    for some in range(0, n, 4096):  # large data sets are files, of which not all is to be in memory
        rows = slice(some, some + 4096)
        coded[rows, ..., :c] = images.images[rows]
        coded[rows, ..., c:] = 255 * code[rows, None, None, :]
    return images._replace(name=f"{images.name} with {bits} random bits", images=coded)


def codes(images: np.ndarray, *, bits: int, seed: int) -> np.ndarray:
    """The hash of every image modulo 2^bits, lowest bit first: uint8 [n, h, w, c] -> uint8 [n, bits] of 0 and 1."""
    if not 0 <= bits <= 64:
        raise ValueError(f"bits must be from 0 to 64; got {bits}.")
    key = int(seed).to_bytes(8, "little", signed=True)
    hashes = b"".join(hashlib.blake2b(image.tobytes(), digest_size=8, key=key).digest() for image in images)
    words = np.frombuffer(hashes, np.uint8).reshape(len(images), 8)
    return np.unpackbits(words, axis=1, bitorder="little")[:, :bits]


# --- digits on a canvas ------------------------------------------------------------------------------------------


def multi_digits(
    images: Images, *, digits: int, count: int, seed: int, canvas: int = 112, placement: str = "random"
) -> tuple[Images, np.ndarray]:
    """MultiDigits: `count` blank canvases [canvas, canvas, c], each with `digits` of the images on it.

    Returns the canvases and the classes int [count, digits] of what is on them. Digits are drawn independently; where
    they overlap they are added and clipped at 255. The canvases' labels are the classes where there is one digit on
    each; for more there is no one label, so they are None. `presence` turns classes into targets for ten yes-or-no
    questions.

    placement
        "random": anywhere on the canvas, whole, overlaps allowed; "grid": in different cells of the grid that the
        images' size makes (4 x 4 for 28 pixels on 112).

    The first canvases of a larger `count` are those of a smaller one. Raises ValueError where labels are missing, the
    digits do not fit on the grid, or an image is larger than the canvas.
    """
    size = images.images.shape[1]
    made, classes = scatter(
        images, (size,) * digits, count=count, seed=seed, canvas=canvas, placement=placement
    )
    name = f"{images.name}, {digits} on a canvas ({placement})"
    labels = classes[:, 0] if digits == 1 else None
    return Images(name, made, labels, images.classes), classes


def two_digits(
    images: Images, *, sizes: tuple[int, int], count: int, seed: int, canvas: int = 112
) -> dict[str, Images]:
    """Modified MultiDigits: two digits at random positions, resized to `sizes` pixels (in the paper 20, and 20 to 80).

    Returns the same canvases twice, labelled by either: {"first digit": ..., "second digit": ...}. Where both sizes
    are the same nothing tells the first from the second, so either label can at best be guessed half of the time.
    """
    if len(sizes) != 2:
        raise ValueError(f"two_digits needs two sizes in pixels, as (20, 60); got {sizes}.")
    made, classes = scatter(images, sizes, count=count, seed=seed, canvas=canvas, placement="random")
    name = f"{images.name}, digits of {sizes[0]} and {sizes[1]} pixels"
    return {
        kind: Images(f"{name}, by the {kind}", made, classes[:, i], images.classes)
        for i, kind in enumerate(("first digit", "second digit"))
    }


def presence(classes: np.ndarray, *, count: int) -> np.ndarray:
    """Which of `count` classes are on each canvas: int [n, k] -> bool [n, count].

    >>> presence(np.array([[2, 0], [1, 1]]), count=3).astype(int).tolist()
    [[1, 0, 1], [0, 1, 0]]
    """
    return np.any(np.asarray(classes)[:, :, None] == np.arange(count), axis=1)


def scatter(
    images: Images, sizes: Sequence[int], *, count: int, seed: int, canvas: int, placement: str
) -> tuple[np.ndarray, np.ndarray]:
    """Canvases uint8 [count, canvas, canvas, c] with one image of each size, and the classes [count, k] on them."""
    labels = labels_of(images)
    if not sizes:
        raise ValueError("A canvas needs at least one digit.")
    if max(sizes) > canvas or min(sizes) < 1:
        raise ValueError(f"Digits of {tuple(sizes)} pixels do not fit on a canvas of {canvas}.")
    # A generator for each quantity, so that more canvases do not change the first ones.
    chosen = np.random.default_rng([seed, 0]).integers(0, len(images.images), (count, len(sizes)))
    draw_position = np.random.default_rng([seed, 1])
    if placement == "random":
        corners = (
            draw_position.random((count, len(sizes), 2)) * (canvas + 1 - np.array(sizes)[:, None])
        ).astype(int)
    elif placement == "grid":
        side = canvas // max(sizes)
        if len(sizes) > side * side:
            raise ValueError(
                f"{len(sizes)} digits of {max(sizes)} pixels do not fit on a grid of {side} x {side} cells."
            )
        cells = np.argsort(draw_position.random((count, side * side)), axis=1)[:, : len(sizes)]
        corners = np.stack(np.divmod(cells, side), axis=-1) * max(sizes)
    else:
        raise ValueError(f'placement must be "random" or "grid"; got {placement!r}.')

    made = np.zeros((count, canvas, canvas, images.images.shape[3]), np.uint8)
    for j, size in enumerate(sizes):
        for i in range(count):
            digit = resized(images.images[chosen[i, j]], size)
            top, left = corners[i, j]
            under = made[i, top : top + size, left : left + size]
            under += np.minimum(digit, 255 - under)  # added, clipped at 255
    return made, labels[chosen]


# --- digits on photographs ---------------------------------------------------------------------------------------

POSITIONS = (
    0.15,
    0.45,
    0.75,
)  # of a pasted digit's upper left corner, as fractions of the image, on both axes


def digit_on_image(
    photos: Images, digits: Images, *, unique: int, seed: int, size: int = 224
) -> dict[str, Images]:
    """DigitOnImageNet: a digit pasted nine times over each photograph, resized to [size, size].

    The digit is one of the first `unique` of `digits`, drawn once an image; more of them make it a finer shortcut. (The
    authors' notebook draws it anew in every pass over the images.)
    It is `size` / 8 pixels wide (28 at the published 224), stands at nine fixed positions, and the brighter of digit
    and photograph counts, pixel by pixel and channel by channel (`digits_on_tf_flowers.ipynb`). All this comes before
    augmentation, so the views share the digit. Give the same `digits` for training and test images.

    Returns the same images under each kind of label that there is: {"photo": ..., "digit": ...}.
    """
    if not 1 <= unique <= len(digits.images):
        raise ValueError(f"unique must be from 1 to the {len(digits.images)} digits there are; got {unique}.")
    h, w, c = digits.images.shape[1:]
    if h != w or c != 1:
        raise ValueError(f"digits must be square and gray, [n, h, h, 1]; got images of {(h, w, c)}.")
    wide = max(1, round(size / 8))
    overlays = np.zeros((unique, size, size, 1), np.uint8)
    for overlay, digit in zip(overlays, digits.images[:unique], strict=True):
        for top in (int(size * position) for position in POSITIONS):
            for left in (int(size * position) for position in POSITIONS):
                under = overlay[top : top + wide, left : left + wide]
                small = resized(digit, wide)[: under.shape[0], : under.shape[1]]
                np.maximum(under, small, out=under)

    drawn = np.random.default_rng(seed).integers(0, unique, len(photos.images))
    made = allocate((len(photos.images), size, size, photos.images.shape[3]))
    for i, photo in enumerate(photos.images):
        np.maximum(resized(photo, size), overlays[drawn[i]], out=made[i])
    name = f"{photos.name} with {unique} different digits"
    kinds = {}
    if photos.labels is not None:
        kinds["photo"] = photos._replace(name=f"{name}, by the photo", images=made)
    if digits.labels is not None:
        kinds["digit"] = Images(
            f"{name}, by the digit", made, np.asarray(digits.labels)[drawn], digits.classes
        )
    if not kinds:
        raise ValueError(f"Neither {photos.name} nor {digits.name} has labels; one of them needs some.")
    return kinds


# --- parts -------------------------------------------------------------------------------------------------------


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 [h, w, c] -> [size, size, c], bilinear, averaging where it shrinks; unchanged if it has that size."""
    if image.shape[:2] == (size, size):
        return image
    from PIL import Image

    gray = image.shape[2] == 1
    picture: Any = Image.fromarray(image[..., 0] if gray else image)
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR)).reshape(size, size, -1)


def labels_of(images: Images) -> np.ndarray:
    if images.labels is None:
        raise ValueError(f"{images.name} has no labels; the digits of a canvas need them.")
    return np.asarray(images.labels)
