"""A recipe in another form: whole runs of ops as two small matrix products, one change of color and one clip.

    recipe = simclr(32)
    views = two_views(fuse(recipe))       # the same draws as two_views(recipe); nearly the same pictures, sooner

Crops, flips, shifts and blurs are linear in an image's rows and columns, so any number of them is one matrix for the
rows and one for the columns; a jitter and a grayscale are, or nearly are, an affine map of every pixel's color.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

from jaxcl.augment.blur import blur_of_lines
from jaxcl.augment.color import JITTERS, Grayscale, Jitter
from jaxcl.augment.composition import flat, flat_params
from jaxcl.augment.op import Op, Shape, known
from jaxcl.images import BORDERS, center_matrices, resize_matrix
from jaxcl.typing import Array, PyTree


class Linear(NamedTuple):
    """What an op does to an image [h, w, c], where that is linear; what is None stays as it is.

    `rows`, `columns`: what is done to every line along the axis: a matrix [H, h] (and [W, w]), or a function that
        multiplies by it: [h, n] -> [H, n]
    `color`: mean color [c] -> matrix [c, c], offset [c]; the pixel x becomes matrix @ x + offset
    `clips`: what comes out lies in [0, 1]
    """

    rows: Array | Callable[[Array], Array] | None = None
    columns: Array | Callable[[Array], Array] | None = None
    color: Callable[[Array], tuple[Array, Array]] | None = None
    clips: bool = False


def fuse(recipe: Op, *, dtype: DTypeLike = jnp.float32) -> Op:
    """The fast form of a recipe: an op that draws the same, parameter for parameter, and does nearly the same.

    Every run of crops, flips, shifts, blurs, jitters, grayscales and clips is done at once, as R x Cᵀ with one matrix
    for the rows and one for the columns, an affine map of each pixel's color, and one clip to [0, 1] at the end (if
    any op of the run clips). Other ops are done as they are. What differs from the exact form:

    - a jitter's hue is a rotation in YIQ (about the grays, keeping luma), and its saturation a mixture with the gray
      of the same luma; the exact form rotates the hue in HSV, and scales the saturation there unless its colors are
      torchvision's, whose saturation is that mixture;
    - nothing is clipped on the way; and the mean color about which contrast is changed is that of unclipped pixels.

    Recipes without jitter, such as `crop_and_flip`, come out equal up to rounding. With a jitter and a flip or a blur
    the pictures differ where colors leave [0, 1] on the way or hues change by much: `simclr(32,
    strength=0.5, blur=False)` on CIFAR-10 by 0.018 on average (nine images in ten by less than 0.045), `simclr(32)` by
    0.027 (0.07), where the whole range is 1.

    dtype
        of the factors of the matrix products (sums are float32): bfloat16 halves their memory on an accelerator.
    """
    steps = flat(recipe)

    def apply(params: PyTree, image: Array) -> Array:
        run = None
        for step, drawn in zip(steps, flat_params(recipe, params), strict=True):
            h, w, c = image.shape if run is None else run.shape
            does = linear(step, drawn, (h, w, c))
            if does is None or (run is not None and run.ends_before(does)):
                image, run = (image if run is None else run.image(dtype)), None
            if does is None:
                image = step.apply(drawn, image)
            else:
                run = (Run(image) if run is None else run).then(does)
        return image if run is None else run.image(dtype)

    return recipe._replace(apply=apply)


class Run(NamedTuple):
    """What is still to be done to `start` [h, w, c]. Immutable: `then` makes the next one."""

    start: Array
    rows: Array | None = None  # [H, h]
    columns: Array | None = None  # [W, w]
    color: tuple[Array, Array, Array] | None = (
        None  # matrix [c, c], offset [c], and the mean color before both
    )
    # What is done to lines after the color: a blur darkens an offset, too, towards the border.
    after_rows: Array | None = None  # [H]
    after_columns: Array | None = None  # [W]
    clips: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        h, w, c = self.start.shape
        return (
            h if self.rows is None else len(self.rows),
            w if self.columns is None else len(self.columns),
            c,
        )

    def ends_before(self, op: Linear) -> bool:
        """A color cannot be changed about a mean that a blur has changed since."""
        return op.color is not None and self.after_rows is not None

    def then(self, op: Linear) -> Run:
        height, width, channels = self.shape
        rows, columns, color = self.rows, self.columns, self.color
        after_rows, after_columns = self.after_rows, self.after_columns
        if op.color is not None:
            if color is None:
                color = jnp.eye(channels), jnp.zeros(channels), mean_color(rows, columns, self.start)
            matrix, offset = op.color(times(color[0], color[2]) + color[1])
            color = product(matrix, color[0]), times(matrix, color[1]) + offset, color[2]
        if op.rows is not None or op.columns is not None:
            if color is not None and after_rows is None:
                after_rows, after_columns = jnp.ones(height), jnp.ones(width)
            rows, columns = lines(op.rows, rows, height), lines(op.columns, columns, width)
            if after_rows is not None and after_columns is not None:
                after_rows = lines(op.rows, after_rows[:, None], height)[:, 0]
                after_columns = lines(op.columns, after_columns[:, None], width)[:, 0]
        return Run(self.start, rows, columns, color, after_rows, after_columns, self.clips or op.clips)

    def image(self, dtype: DTypeLike) -> Array:
        """Does it all: [H, W, c]."""
        # Planes in front: then both products are plain ones of matrices, and a pixel's neighbors are its neighbors.
        x = jnp.moveaxis(self.start, 2, 0)
        if self.columns is not None:
            x = contract("chw,Ww->chW", x, self.columns, dtype)
        # From here on [H, c, W].
        x = jnp.moveaxis(x, 1, 0) if self.rows is None else contract("Hh,chW->HcW", self.rows, x, dtype)
        if self.color is not None:
            matrix, offset, _ = self.color
            offsets = offset[None, :, None]
            if self.after_rows is not None and self.after_columns is not None:
                offsets = offsets * self.after_rows[:, None, None] * self.after_columns
            # A sum of three, and not a product of matrices, which would be slower for matrices this small.
            x = sum(matrix[:, i, None] * x[:, i : i + 1] for i in range(x.shape[1])) + offsets
        return jnp.swapaxes(jnp.clip(x, 0, 1) if self.clips else x, 1, 2)


def lines(does: Any, matrix: Array | None, n: int) -> Any:
    """`does`, to the lines of `matrix` [n, m]; of the identity if that is None."""
    if does is None:
        return matrix
    if callable(does):
        return does(jnp.eye(n) if matrix is None else matrix)
    return does if matrix is None else jnp.dot(does, matrix, precision="highest")


def contract(what: str, x: Array, y: Array, dtype: DTypeLike) -> Array:
    # The highest precision: an accelerator's default would round float32 to about three digits.
    return jnp.einsum(
        what,
        x.astype(dtype),
        y.astype(dtype),
        precision=lax.Precision.HIGHEST if dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )


def product(a: Array, b: Array) -> Array:
    """a @ b, for matrices of three by three: as a sum, which vmap and fusion leave alone."""
    return jnp.sum(a[:, :, None] * b[None], axis=1)


def times(a: Array, x: Array) -> Array:
    return jnp.sum(a * x, axis=1)


def mean_color(rows: Array | None, columns: Array | None, image: Array) -> Array:
    """The mean color [c] of rows @ image @ columnsᵀ, without making it."""
    h, w, _ = image.shape
    of_rows = jnp.full(h, 1 / h) if rows is None else jnp.mean(rows, axis=0)
    of_columns = jnp.full(w, 1 / w) if columns is None else jnp.mean(columns, axis=0)
    return jnp.einsum(
        "h,hc->c",
        of_rows,
        jnp.einsum("hwc,w->hc", image, of_columns, precision="highest"),
        precision="highest",
    )


# ---------------------------------------------------------------------------------------------- the ops' linear forms


def linear(op: Op, params: Any, shape: Shape) -> Linear | None:
    """What `op` does to an image of `shape` with these params, as linear maps; None where it is not (nearly) that."""
    # By name *and* settings: an op of the same name that was made otherwise is left as it is.
    settings, (h, w, _) = dict(op.settings), shape
    match op.name:
        case "crop" if "antialias" in settings:
            how = settings["method"], settings["antialias"]
            out_h, out_w = settings["size"]
            return Linear(
                rows=resize_matrix(params.top, params.height, h, out_h, *how),
                columns=resize_matrix(params.left, params.width, w, out_w, *how),
            )
        case "flip" if "probability" in settings:
            return Linear(columns=lambda matrix: jnp.where(params.on, matrix[::-1], matrix))
        case "translate" if "border" in settings:
            pixel = BORDERS[settings["border"]]
            return Linear(
                rows=lambda matrix: matrix[pixel(jnp.arange(h) - params.down, h)],
                columns=lambda matrix: matrix[pixel(jnp.arange(w) - params.right, w)],
            )
        case "center crop" if "fraction" in settings:
            rest = settings["fraction"], settings["method"], settings["antialias"]
            return Linear(*center_matrices((h, w), settings["size"], *rest))
        case "blur" if "boxes" in settings:
            blur = blur_of_lines(params, settings, h)
            return Linear() if blur is None else Linear(rows=blur, columns=blur)
        case "jitter" if "brightness_form" in settings:
            return Linear(color=lambda mean: jitter_color(params, mean, settings), clips=True)
        case "grayscale" if "probability" in settings:
            return Linear(color=lambda mean: (gray_matrix(params, len(mean)), jnp.zeros_like(mean)))
        case "clip" if not settings:
            return Linear(clips=True)
    return None


LUMA = np.array([0.299, 0.587, 0.114])
# I and Q of YIQ; that the rows sum to 0 leaves grays alone.
YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def hue_matrices() -> np.ndarray:
    """[3, 3, 3]: the matrix that rotates hues by an angle is the first + cos times the second + sin times the third."""
    back = np.linalg.inv(YIQ)
    quarter = np.array([[0, 0, 0], [0, 0, 1], [0, -1, 0]])
    return np.stack([back @ part @ YIQ for part in (np.diag([1, 0, 0]), np.diag([0, 1, 1]), quarter)]).astype(
        np.float32
    )


def gray_matrix(params: Grayscale, channels: int) -> Array:
    if channels != 3:
        return jnp.eye(channels)
    return jnp.where(params.on, jnp.asarray([[0.2989, 0.587, 0.114]] * 3, jnp.float32), jnp.eye(3))


def jitter_color(params: Jitter, mean: Array, settings: dict[str, Any]) -> tuple[Array, Array]:
    """The jitter's four changes in their order, as one matrix [c, c] and one offset [c], given the mean color [c]."""
    c = len(mean)
    eye = np.eye(c, dtype=np.float32)
    adds = settings["brightness_form"] == "add"
    matrices = [
        eye if adds else params.brightness * eye,
        params.contrast * eye,
        eye,
        eye,
    ]
    if c == 3:
        gray = np.tile(LUMA.astype(np.float32), (3, 1))
        base, cosine, sine = hue_matrices()
        angle = 2 * math.pi * params.hue
        matrices[2] = params.saturation * eye + (1 - params.saturation) * gray
        matrices[3] = base + jnp.cos(angle) * cosine + jnp.sin(angle) * sine
    matrices = [eye if known(settings[name]) == 0 else m for name, m in zip(JITTERS, matrices, strict=True)]
    # To [x, 1] with x the color: what each change multiplies, what it adds, and how much of the mean it adds.
    pull = jnp.stack(
        [
            jnp.float32(0),
            1 - params.contrast if known(settings["contrast"]) != 0 else jnp.float32(0),
            *2 * [jnp.float32(0)],
        ]
    )
    add = jnp.stack([params.brightness if adds else jnp.float32(0), *3 * [jnp.float32(0)]])
    every = jnp.stack([jnp.broadcast_to(m, (c, c)) for m in matrices])

    about_gray = settings.get("colors") == "torchvision" and c == 3
    matrix, offset, now = jnp.asarray(eye), jnp.zeros(c), mean
    for i in range(4):
        change = params.order[i]
        of = every[change]
        about = jnp.sum(LUMA.astype(np.float32) * now) if about_gray else now
        more = pull[change] * about + add[change]
        matrix, offset, now = product(of, matrix), times(of, offset) + more, times(of, now) + more
    return jnp.where(params.on, matrix, eye), jnp.where(params.on, offset, 0.0)
