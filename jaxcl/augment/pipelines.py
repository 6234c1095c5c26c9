"""Recipes, and the views they make.

    recipe = simclr(32, strength=0.5, blur=False)
    views = two_views(recipe)
    x1, x2 = views(key, batch)                     # inside the compiled training step

    params = draw(key, recipe, batch, view=0)      # the same draws, to look at: every field [b, ...]
    x1 = render(recipe, params, batch["image"])

What is drawn for a view is a function of (key, the image's index, the view's number): of nothing else in the batch,
and not of the device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxcl.augment import ops
from jaxcl.augment.channels import cut
from jaxcl.augment.ops import Op
from jaxcl.typing import Array, Batch, PyTree, Views

# ---------------------------------------------------------------------------------------------- recipes


def compose(*steps: Op) -> Op:
    """One after the other; the parameters are a tuple, one entry a step. A composed op is an op and composes again."""

    numbers = sum(step.numbers for step in steps)

    def take(u, key, shape):
        params, start = [], 0
        for place, step in enumerate(steps):
            if step.decide is not None:
                drawn = step.decide(u[start : start + step.numbers], shape)
                start += step.numbers
            else:
                # A branch of its own: the numbers above hang on the key itself.
                drawn = step.sample(jax.random.fold_in(jax.random.fold_in(key, 2**31 - 1), place), shape)
            shape = shape_after(step, drawn, shape)  # what the next step will see
            params.append(drawn)
        return tuple(params)

    def sample(key, shape):
        return take(ops.uniform(key, (numbers,)), key, shape)

    decide = None if any(step.decide is None for step in steps) else (lambda u, shape: take(u, None, shape))

    def apply(params, image):
        for step, drawn in zip(steps, params, strict=True):
            image = step.apply(drawn, image)
        return image

    outs = [step.out for step in steps if step.out is not None]

    def out(shape):
        return functools.reduce(lambda shape, out: out(shape), outs, shape)

    name = " > ".join(step.name for step in steps)
    known = out if len(outs) == len(steps) else None
    # What a step without `decide` needs is not counted: such a composed op draws by its own key, too.
    return Op(name, sample, apply, (("steps", steps),), known, numbers if decide else 0, decide)


def flat(op: Op) -> list[Op]:
    """The steps of a composed op, of those that are composed themselves too, in order."""
    steps = dict(op.settings).get("steps")
    return [op] if steps is None else [inner for step in steps for inner in flat(step)]


def flat_params(op: Op, params: PyTree) -> list[PyTree]:
    """What each of `flat(op)` drew, out of the parameters of the whole."""
    steps = dict(op.settings).get("steps")
    if steps is None:
        return [params]
    return [inner for step, drawn in zip(steps, params, strict=True) for inner in flat_params(step, drawn)]


def shape_after(op: Op, params: PyTree, shape: ops.Shape) -> ops.Shape:
    """The shape of what an op makes of an image; nothing is computed."""
    if op.out is not None:
        return op.out(shape)
    seen = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), params)
    return jax.eval_shape(op.apply, seen, jax.ShapeDtypeStruct(shape, jnp.float32)).shape


def simclr(
    size: int,
    *,
    strength: float = 1.0,
    blur: bool = True,
    flip: bool = True,
    min_area: float = 0.08,
    max_area: float = 1.0,
    law: ops.CropLaw = ops.uniform_height,
    brightness_form: str = "multiply",
) -> Op:
    """SimCLR's augmentation (Chen et al. 2020, appendix A), in the order and with the clips of its code:

        crop and resize (bicubic), flip (p 0.5), color jitter (p 0.8; brightness, contrast and saturation 0.8 s,
        hue 0.2 s), grayscale (p 0.2), clip to [0, 1], blur (p 0.5, sigma from U(0.1, 2)).

    ImageNet: `simclr(224)`. CIFAR-10: `simclr(32, strength=0.5, blur=False)`. Pixels stay in [0, 1]: SimCLR does not
    normalize by mean and deviation.

    flip
        False where left and right matter, as for digits.
    min_area, max_area
        the least and the greatest share of the image that a crop keeps.
    law
        how crops are drawn. The default is that of the published code; the paper's text says `ops.uniform_area`,
        whose crops are larger on average.
    brightness_form
        "multiply" as in SimCLRv2, "add" as in the first version.
    """
    jitter = (0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
    steps = [
        ops.random_resized_crop(size, area=(min_area, max_area), law=law),
        *([ops.flip()] if flip else []),
        ops.color_jitter(*jitter, brightness_form=brightness_form),
        ops.grayscale(),
        ops.clip(),
        *([ops.gaussian_blur()] if blur else []),
    ]
    return compose(*steps)


def crop_and_flip(size: int, *, min_area: float = 0.08, law: ops.CropLaw = ops.uniform_height) -> Op:
    """What a linear probe or fine-tuning trains on: SimCLR's crop and flip, no color, no blur."""
    crop = ops.random_resized_crop(size, area=(min_area, 1.0), law=law)
    return compose(crop, ops.flip(), ops.clip())


# ---------------------------------------------------------------------------------------------- views


@dataclass(frozen=True)
class RecipeViews:
    """Views that say how they are made: `views(key, batch)` as ever, and each view's recipe and what is drawn for
    it, so that a picture can tell (`captions`) and the host can make the same views (`data.host_views`)."""

    make: Callable[[Array, Batch], tuple[Array, ...]]
    recipes: tuple[Op, ...]
    sample: Callable[
        [Array, Array, ops.Shape], tuple[PyTree, ...]
    ]  # (key, index, shape) -> each recipe's parameters

    def __call__(self, key: Array, batch: Batch) -> tuple[Array, ...]:
        return self.make(key, batch)


def two_views(recipe: Op, *, dtype: Any = jnp.float32, chunk: int | None = None) -> Views:
    """(key, batch) -> (x1, x2), each [b, h, w, c]: `recipe` applied twice, with independent draws. See n_views."""
    return n_views(recipe, 2, dtype=dtype, chunk=chunk)


def n_views(recipe: Op, n: int, *, dtype: Any = jnp.float32, chunk: int | None = None) -> Views:
    """(key, batch) -> n arrays [b, h, w, c] of `dtype`: n independent views of every image.

    The batch holds "image" uint8 [b, h, w, c] (or float in [0, 1]) and "index" int [b]. `key` should differ from step
    to step. Everything is computed in float32 and then cast to `dtype`.

    chunk
        how many images are worked on at once. By default some 32 thousand pixels' worth on a CPU, so that an image
        stays in the cache from crop to clip (two to three times faster), and all of them elsewhere. It changes
        speed only. Set it where the memory of an accelerator is short.
    """

    def one_image(key, index, image):
        image = as_float(image)
        keys = view_keys(key, index, jnp.arange(n))
        return jax.vmap(lambda key: recipe.apply(recipe.sample(key, image.shape), image).astype(dtype))(keys)

    def views(key: Array, batch: Batch) -> tuple[Array, ...]:
        image, index = checked(batch)
        made = chunked(lambda image, index: one_image(key, index, image), chunk, image, index)
        return tuple(made[:, view] for view in range(n))

    return RecipeViews(views, (recipe,) * n, sample_each((recipe,) * n))


def each_view(
    recipes: Sequence[Op], *, shared: Op | None = None, dtype: Any = jnp.float32, chunk: int | None = None
) -> Views:
    """(key, batch) -> one array [b, h, w, c] a recipe: views made in different ways, and perhaps of different sizes.

    shared
        an op that is drawn once for an image and done before all of its views: AMDIM's flip. It must keep the shape.

        each_view(byol(224))                        # two views, the first always blurred, the second solarized
        each_view(multi_crop(224, 96))              # two large views and six small ones
        each_view([amdim(32)] * 2, shared=flip())   # both views flipped, or none

    `each_view([recipe] * n)` makes the views of `n_views(recipe, n)`.
    """
    recipes = tuple(recipes)

    def views(key: Array, batch: Batch) -> tuple[Array, ...]:
        images, indices = checked(batch)

        def one_image(image, index):
            image = as_float(image)
            if shared is not None:
                changed = shared.apply(shared.sample(view_keys(key, index, SHARED), image.shape), image)
                if changed.shape != image.shape:
                    raise ValueError(
                        f"shared must keep the shape; {shared.name} made {changed.shape} of {image.shape}."
                    )
                image = changed
            keys = (view_keys(key, index, view) for view in range(len(recipes)))
            return tuple(
                recipe.apply(recipe.sample(key, image.shape), image).astype(dtype)
                for key, recipe in zip(keys, recipes, strict=True)
            )

        return chunked(one_image, chunk, images, indices)

    whole = recipes if shared is None else tuple(compose(shared, recipe) for recipe in recipes)
    return RecipeViews(views, whole, sample_each(recipes, shared))


def sample_each(recipes: Sequence[Op], shared: Op | None = None) -> Callable[..., tuple[PyTree, ...]]:
    """(key, index, shape) -> the parameters of each recipe for its view of one image; with `shared`, of both."""

    def sample(key, index, shape):
        drawn = tuple(
            recipe.sample(view_keys(key, index, view), shape) for view, recipe in enumerate(recipes)
        )
        if shared is None:
            return drawn
        both = shared.sample(view_keys(key, index, SHARED), shape)
        return tuple((both, own) for own in drawn)

    return sample


def channel_views(
    recipe: Op, channels: Sequence[int], *, dtype: Any = jnp.float32, chunk: int | None = None
) -> Views:
    """(key, batch) -> one view of every image, cut into its channels: `channel_views(cmc(224), (1, 2))` gives L
    [b, h, w, 1] and ab [b, h, w, 2], as CMC contrasts them."""

    def views(key: Array, batch: Batch) -> tuple[Array, ...]:
        (whole,) = n_views(recipe, 1, dtype=dtype, chunk=chunk)(key, batch)
        return cut(whole, channels)

    return views


def from_host(n: int, *, dtype: Any = jnp.float32) -> Views:
    """(key, batch) -> the n views that the host made: `batch["views"]` [b, n, h, w, c], floats in [0, 1] or uint8; or,
    where their sizes differ, n arrays [b, h, w, c]."""

    def views(key: Array, batch: Batch) -> tuple[Array, ...]:
        if "views" not in batch:
            raise ValueError(
                f'from_host needs batch["views"] [b, {n}, h, w, c]; got {sorted(batch)}.'
                " To make views on the device, use n_views."
            )
        made = batch["views"]
        if isinstance(made, tuple) and len(made) == n:
            return tuple(as_float(view).astype(dtype) for view in made)
        if isinstance(made, tuple):
            raise ValueError(f"from_host({n}) was given {len(made)} views.")
        if made.ndim != 5 or made.shape[1] != n:
            raise ValueError(
                f'from_host({n}) needs batch["views"] of shape [b, {n}, h, w, c]; got {made.shape}.'
            )
        return tuple(as_float(made[:, view]).astype(dtype) for view in range(n))

    return views


def draw(key: Array, recipe: Op, batch: Batch, *, view: int = 0) -> PyTree:
    """The parameters with which `n_views(recipe, n)(key, batch)` makes view number `view`; every field [b, ...]."""
    image, index = checked(batch)
    _, h, w, c = image.shape
    return jax.vmap(lambda index: recipe.sample(view_keys(key, index, view), (h, w, c)))(index)


def render(recipe: Op, params: PyTree, images: Array, *, dtype: Any = jnp.float32) -> Array:
    """The view [b, h, w, c] that `params` (of `draw`; each field [b, ...]) make of `images` [b, h, w, c]."""
    return jax.vmap(lambda params, image: recipe.apply(params, as_float(image)).astype(dtype))(params, images)


def captions(key: Array, views: Views, batch: Batch) -> list[list[str]] | None:
    """For each image and view what `views(key, batch)` draws, in words, a line an op; None where views do not tell."""
    if not isinstance(views, RecipeViews):
        return None
    image, index = checked(batch)
    drawn = jax.jit(jax.vmap(lambda index: views.sample(key, index, image.shape[1:])))(index)
    told = [describe(params) or [[]] * len(index) for params in drawn]
    return [["\n".join(view[i]) for view in told] for i in range(len(index))]


def describe(params: PyTree) -> list[list[str]]:
    """What `draw` drew, in words: for each of the b images one line an op; what a coin left out is not listed.

    >>> batch = {"image": jnp.zeros((1, 8, 8, 3)), "index": jnp.array([7])}
    >>> recipe = compose(ops.translate(0), ops.flip(probability=1.0), ops.clip())
    >>> describe(draw(jax.random.key(0), recipe, batch))
    [['shift down 0, right 0', 'flip']]
    """
    steps = [step for step in leaves(jax.device_get(params)) if step]
    images = len(steps[0][0]) if steps else 0
    lines = [[words(type(step)(*(field[i] for field in step))) for step in steps] for i in range(images)]
    return [[line for line in image if line] for image in lines]


# ---------------------------------------------------------------------------------------------- parts


# The number of the view that is none: what is drawn for all views of an image together.
SHARED = 2**31 - 1


def view_keys(key: Array, index: Array, view: Array | int) -> Array:
    """The key of an image's view, or the keys [n] of its views [n]."""
    of_image = jax.random.fold_in(key, index)
    if jnp.ndim(view) == 0:
        return jax.random.fold_in(of_image, view)
    return jax.vmap(jax.random.fold_in, (None, 0))(of_image, view)


def as_float(image: Any) -> Array:
    """uint8 -> float32 in [0, 1]; floats are taken to be there already."""
    if image.dtype == jnp.uint8:
        return jnp.asarray(image, jnp.float32) / 255
    if jnp.issubdtype(image.dtype, jnp.floating):
        return jnp.asarray(image, jnp.float32)
    raise ValueError(f"images are uint8 in 0..255 or floating point in [0, 1]; got {image.dtype}.")


def checked(batch: Batch) -> tuple[Any, Any]:
    missing = {"image", "index"} - set(batch)
    if missing:
        raise ValueError(f'a batch holds "image" [b, h, w, c] and "index" [b]; got {sorted(batch)}.')
    image, index = batch["image"], batch["index"]
    if image.ndim != 4 or index.shape != image.shape[:1]:
        raise ValueError(f"image must be [b, h, w, c] and index [b]; got {image.shape} and {index.shape}.")
    return image, index


def chunked(function: Callable[..., Any], chunk: int | None, image: Array, index: Array) -> Any:
    """function(image, index) for every row, `chunk` rows at a time."""
    if chunk is None:
        # Not where several devices share the batch: a loop over its rows would wait for one of them at a time.
        one_cpu = jax.default_backend() == "cpu" and jax.device_count() == 1
        most = 32 * 32 * 32 // (image.shape[1] * image.shape[2]) if one_cpu else len(image)
        # One that divides the batch: a remainder would be compiled as a second program.
        chunk = next((size for size in range(min(most, len(image)), 1, -1) if len(image) % size == 0), 1)
    if chunk >= len(image):
        return jax.vmap(function)(image, index)
    return lax.map(lambda rows: function(*rows), (image, index), batch_size=chunk)


def leaves(params: PyTree) -> Iterator[NamedTuple]:
    """The steps' own parameters, in order, out of tuples of tuples."""
    if hasattr(params, "_fields"):
        yield params
    elif isinstance(params, tuple):
        for step in params:
            yield from leaves(step)


def words(params: Any) -> str:
    """One step's parameters for one image; empty where its coin fell against it."""
    match params:
        case ops.Crop():
            return f"crop {params.height} x {params.width} at ({params.top}, {params.left})"
        case ops.Jitter():
            names = [ops.JITTERS[place] for place in params.order]
            changes = ", ".join(f"{name} {getattr(params, name):.2f}" for name in names)
            return f"jitter {changes}" if params.on else ""
        case ops.Turn():
            return f"turn {90 * params.turns} degrees" if params.turns else ""
        case ops.Shift():
            return f"shift down {params.down}, right {params.right}"
    if not getattr(params, "on", True):
        return ""
    values = [f"{name} {value:.2f}" for name, value in params._asdict().items() if name != "on"]
    return " ".join([type(params).__name__.lower(), *values])
