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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxcl import collectives
from jaxcl.augment.channels import cut
from jaxcl.augment.composition import compose, shape_after
from jaxcl.augment.op import Op, Shape
from jaxcl.augment.recipes import crop_and_flip, torchvision_crop_and_flip
from jaxcl.images import as_float
from jaxcl.shapes import check_numbers
from jaxcl.typing import Array, Batch, PyTree, Views


# Each is itself alone: two are compared, and hashed by jax, without looking at settings, which may be traced.
@dataclass(frozen=True, eq=False)
class RecipeViews:
    """Views that know how they are made. `views(key, batch)` makes them of the batch's "image", on the device; where
    the batch holds "views", which the host made, it takes those. So a method meets either input by one object.

        views = two_views(simclr(32))
        x1, x2 = views(key, {"image": images, "index": index})     # made here
        x1, x2 = views(key, {"views": made, "index": index})       # made by the host: data.host_views(images, views)

    make
        (key, batch) -> the views, made on the device
    recipes
        one a picture that is made: what the host does
    sample
        (key, index, shape) -> what each recipe draws for one image [shape]; of this the host makes the same pictures,
        and `captions` tells
    dtype
        of the views, wherever they are made
    channels
        into how many channels each picture is cut, a view a part (CMC); None where a picture is a view

    Raises ValueError where the batch's "views" are not [b, n, h, w, c], or n arrays [b, h, w, c], for n recipes.
    """

    make: Callable[[Array, Batch], tuple[Array, ...]]
    recipes: tuple[Op, ...]
    sample: Callable[[Array, Array, Shape], tuple[PyTree, ...]]
    dtype: DTypeLike = jnp.float32
    channels: tuple[int, ...] | None = None

    def __call__(self, key: Array, batch: Batch) -> tuple[Array, ...]:
        if "views" not in batch:
            return self.make(key, batch)
        made = unpack(batch["views"], len(self.recipes), self.dtype)
        return made if self.channels is None else tuple(part for x in made for part in cut(x, self.channels))


def two_views(recipe: Op, *, dtype: DTypeLike = jnp.float32, chunk: int | None = None) -> RecipeViews:
    """(key, batch) -> (x1, x2), each [b, h, w, c]: `recipe` applied twice, with independent draws. See n_views."""
    return n_views(recipe, 2, dtype=dtype, chunk=chunk)


def n_views(recipe: Op, n: int, *, dtype: DTypeLike = jnp.float32, chunk: int | None = None) -> RecipeViews:
    """(key, batch) -> n arrays [b, h, w, c] of `dtype`: n independent views of every image.

    The batch holds "image" uint8 [b, h, w, c] (or float in [0, 1]) and "index" int [b]. `key` should differ from one
    training step to the next. Everything is computed in float32 and then cast to `dtype`.

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

    return RecipeViews(views, (recipe,) * n, sample_each((recipe,) * n), dtype)


def each_view(
    recipes: Sequence[Op],
    *,
    shared: Op | None = None,
    dtype: DTypeLike = jnp.float32,
    chunk: int | None = None,
) -> RecipeViews:
    """(key, batch) -> one array [b, h, w, c] a recipe: views made in different ways, and perhaps of different sizes.

    shared
        an op that is drawn once for an image and done before all of its views: AMDIM's flip.

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
                image = shared.apply(shared.sample(view_keys(key, index, SHARED), image.shape), image)
            keys = (view_keys(key, index, view) for view in range(len(recipes)))
            return tuple(
                recipe.apply(recipe.sample(key, image.shape), image).astype(dtype)
                for key, recipe in zip(keys, recipes, strict=True)
            )

        return chunked(one_image, chunk, images, indices)

    whole = recipes if shared is None else tuple(compose(shared, recipe) for recipe in recipes)
    return RecipeViews(views, whole, sample_each(recipes, shared), dtype)


def probe_views(size: int, *, library: str = "tensorflow", min_area: float = 0.08) -> RecipeViews:
    """(key, batch) -> one view [b, size, size, c], cropped and flipped: what a classifier is trained on, by SGD on a
    frozen encoder or with it. The crop is that of a `library`: "tensorflow" (SimCLR), "torchvision" (MoCo); it keeps a
    fraction of the image of `min_area` at least: 0.08 in both, 0.2 for the classifiers of feature transformation, 0.3
    for AMDIM's."""
    crops = {"tensorflow": crop_and_flip, "torchvision": torchvision_crop_and_flip}
    if library not in crops:
        raise ValueError(f'library must be "tensorflow" or "torchvision"; got {library!r}.')
    return n_views(crops[library](size, min_area=min_area), 1)


def sample_each(recipes: Sequence[Op], shared: Op | None = None) -> Callable[..., tuple[PyTree, ...]]:
    """(key, index, shape) -> the parameters of each recipe for its view of one image; with `shared`, of both."""

    def sample(key, index, shape):
        both = None
        if shared is not None:
            both = shared.sample(view_keys(key, index, SHARED), shape)
            shape = shape_after(shared, both, shape)
        drawn = tuple(
            recipe.sample(view_keys(key, index, view), shape) for view, recipe in enumerate(recipes)
        )
        return drawn if shared is None else tuple((both, own) for own in drawn)

    return sample


def channel_views(
    recipe: Op, channels: Sequence[int], *, dtype: DTypeLike = jnp.float32, chunk: int | None = None
) -> RecipeViews:
    """(key, batch) -> one picture of every image, cut into its channels: `channel_views(cmc(224), (1, 2))` gives L
    [b, h, w, 1] and ab [b, h, w, 2], as CMC contrasts them. The host makes the picture, and it is cut here."""

    def views(key: Array, batch: Batch) -> tuple[Array, ...]:
        (whole,) = n_views(recipe, 1, dtype=dtype, chunk=chunk).make(key, batch)
        return cut(whole, channels)

    return RecipeViews(views, (recipe,), sample_each((recipe,)), dtype, tuple(channels))


def from_host(n: int, *, dtype: DTypeLike = jnp.float32) -> Views:
    """(key, batch) -> the n views that came with the batch: `batch["views"]` [b, n, h, w, c], floats in [0, 1] or
    uint8; or, where their sizes differ, n arrays [b, h, w, c].

    For views that no recipe of ours makes. Those of `n_views` and its like take what came with the batch by themselves.
    """

    def views(key: Array, batch: Batch) -> tuple[Array, ...]:
        if "views" not in batch:
            raise ValueError(
                f'from_host needs batch["views"] [b, {n}, h, w, c]; got {sorted(batch)}.'
                " To make views on the device, use n_views."
            )
        return unpack(batch["views"], n, dtype)

    return views


def unpack(made: Any, n: int, dtype: DTypeLike) -> tuple[Array, ...]:
    """n arrays [b, h, w, c] of `dtype`, out of what the host made: [b, n, h, w, c], or a tuple of n arrays."""
    if isinstance(made, tuple) and len(made) != n:
        raise ValueError(
            f'expected {n} views in batch["views"]; got {len(made)}. Make the method\'s own on the host.'
        )
    if not isinstance(made, tuple):
        # Of patches (`cpc_patches`) seven: [b, n, rows, columns, p, p, c].
        if made.ndim not in (5, 7) or made.shape[1] != n:
            raise ValueError(
                f'expected batch["views"] of shape [b, {n}, h, w, c] for {n} views; got {made.shape}.'
                " Make the method's own views on the host."
            )
        made = tuple(made[:, view] for view in range(n))
    return tuple(as_float(view).astype(dtype) for view in made)


def draw(key: Array, recipe: Op, batch: Batch, *, view: int = 0) -> PyTree:
    """The parameters with which `n_views(recipe, n)(key, batch)` makes view number `view`; every field [b, ...]."""
    image, index = checked(batch)
    _, h, w, c = image.shape
    return jax.vmap(lambda index: recipe.sample(view_keys(key, index, view), (h, w, c)))(index)


def render(recipe: Op, params: PyTree, images: Array, *, dtype: DTypeLike = jnp.float32) -> Array:
    """The view [b, h, w, c] that `params` (of `draw`; each field [b, ...]) make of `images` [b, h, w, c]."""
    return jax.vmap(lambda params, image: recipe.apply(params, as_float(image)).astype(dtype))(params, images)


# ---------------------------------------------------------------------------------------------- parts


# The number of the view that is none: what is drawn for all views of an image together.
SHARED = 2**31 - 1


def view_keys(key: Array, index: Array, view: Array | int) -> Array:
    """The key of an image's view, or the keys [n] of its views [n]."""
    of_image = jax.random.fold_in(key, index)
    if jnp.ndim(view) == 0:
        return jax.random.fold_in(of_image, view)
    return jax.vmap(jax.random.fold_in, (None, 0))(of_image, view)


def checked(batch: Batch) -> tuple[Any, Any]:
    missing = {"image", "index"} - set(batch)
    if missing:
        raise ValueError(f'a batch holds "image" [b, h, w, c] and "index" [b]; got {sorted(batch)}.')
    image, index = batch["image"], batch["index"]
    if image.ndim != 4 or index.shape != image.shape[:1]:
        raise ValueError(f"image must be [b, h, w, c] and index [b]; got {image.shape} and {index.shape}.")
    check_numbers("a batch", index=index)
    return image, index


def chunked(function: Callable[..., Any], chunk: int | None, image: Array, index: Array) -> Any:
    """function(image, index) for every row, `chunk` rows at a time."""
    if chunk is None:
        # Not where several devices share the batch: a loop over its rows would wait for one of them at a time.
        some = collectives.target().platform == "cpu" and not collectives.is_split_by_xla()
        most = 32 * 32 * 32 // (image.shape[1] * image.shape[2]) if some else len(image)
        # One that divides the batch: a remainder would be compiled as a second program.
        chunk = next((size for size in range(min(most, len(image)), 1, -1) if len(image) % size == 0), 1)
    if chunk >= len(image):
        return jax.vmap(function)(image, index)

    def some_at_a_time(image, index, axis_name):
        del axis_name  # nothing is gathered
        return lax.map(lambda rows: function(*rows), (image, index), batch_size=chunk)

    return collectives.by_rows(some_at_a_time, image, index)
