"""Views that the host makes by recipes, for training and for probes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import keys
from jaxcl.augment.composition import flat
from jaxcl.augment.op import Op
from jaxcl.augment.spaces import SPACES
from jaxcl.augment.views import RecipeViews, each_view, n_views
from jaxcl.data.host.crops import around, shifted, shown
from jaxcl.data.host.files import decoded, where
from jaxcl.data.host.pipeline import Input, run, run_in_order
from jaxcl.data.host_ops import Implementation, begins_with_crop, host_apply
from jaxcl.data.stream import Encoded, Pixels
from jaxcl.data.tf_read import tensorflow
from jaxcl.typing import Array, Images, Views


def host_views(
    source: Images | Encoded,
    recipe: Op | Sequence[Op] | Views,
    *,
    n: int = 2,
    dtype: str = "float32",
    threads: int | None = None,
    tolerate: float = 0.01,
    implementations: dict[str, Implementation] | None = None,
) -> Input:
    """An input that makes n views of every image on the host: {"views": [b, n, h, w, c], "index": int32 [b]}; where the
    views' sizes differ, "views" is a tuple of n arrays [b, h, w, c].

    source
        images in memory, or encoded in files (`data.find_images`). Of a JPEG only the part that some view shows is
        decoded.
    recipe
        one for all n views, or a sequence of one a view; or the views themselves, if they are made by recipes: those of
        `augment.n_views`, `each_view`, `channel_views` (the host makes the whole picture, the views object cuts it)
        and `leave_one_out` are. A recipe for files must begin with a crop.
    dtype
        "float32" in [0, 1], or "uint8", a quarter of the bytes to move and a rounding of 1/510 at most; views
        objects read both. What ends in a color space is not within [0, 1] and needs "float32".
    threads
        how many images are worked on at once; by default as many as there are cores.
    tolerate
        the fraction of the files that may turn out damaged when they are decoded. Such a file is named in a warning
        and in `source.damaged`, and in each batch for which it cannot be decoded the next good file stands in for it
        (and `index` says so), whatever came before: a run that goes on has the batches of one that never stopped.
        Beyond that fraction a ValueError names them; 0 refuses the first.
    implementations
        those of ops of your own; see `host_ops.host_apply`.

    The views are those that `augment.n_views(recipe, n)` makes in a method of ours, to within rounding. Give the batch
    to the same views object: it takes what is under "views".
    """
    views: Any = recipe
    if isinstance(views, Op):
        views = n_views(views, n)
    elif isinstance(views, Sequence) and all(isinstance(op, Op) for op in views):
        views = each_view(views)
    if not isinstance(views, RecipeViews):
        raise ValueError(
            "the host makes views from recipes, those of augment.n_views, each_view, channel_views and leave_one_out;"
            f" got a {type(recipe).__name__}. Make other views on the device (--input device)."
        )
    check(views, source if isinstance(source, Encoded) else None, dtype)

    def start(*, seed, **order):
        tf = tensorflow()
        made, one = maker(tf, views, source, run_keys(seed), dtype, implementations)
        return run(tf, source, made, one, threads, tolerate, seed=seed, **order)

    return start


def crops_whole_images(images: object, views: object) -> bool:
    """Whether `crops_of` can make the views: of encoded images, by recipes that begin with a crop."""
    return (
        isinstance(images, Pixels)
        and isinstance(views, RecipeViews)
        and all(map(begins_with_crop, views.recipes))
    )


def crops_of(
    key: Array,
    images: Pixels,
    views: Views,
    rows: Callable[[int], np.ndarray],
    *,
    steps: int,
    threads: int | None = None,
) -> Generator[dict[str, np.ndarray]]:
    """Batches of one's own choice, cropped from whole images: {"views": uint8 [b, n, h, w, c], "index": int32 [b]}
    (floats, where the views are in a color space).

    What a probe or a fine-tuning trains on, whose images lie encoded: `images` itself only has their centre squares.

    rows
        step -> the numbers [b] of the images of that step's batch, of steps 0 to `steps` - 1.
    key
        the views of a step are those of `views(step_key(key, step), {"image": whole images, "index": rows})`, to within
        1/510.

    Raises ValueError where an image is damaged. `crops_whole_images(images, views)` says whether they can be made.
    """
    numbers: Any = np.asarray(jax.random.key_data(key))  # free of any device
    key = jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(key))
    assert isinstance(views, RecipeViews)
    try:
        tf, source = tensorflow(), images.source
    except ImportError as error:
        raise ImportError(
            "Crops of encoded images are made by TensorFlow, which is not installed: pip install 'jaxcl[tfds]', or"
            " probe the images as they are (--set augmentation=none)."
        ) from error
    dtype = "float32" if any(map(ends_in_a_space, views.recipes)) else "uint8"
    made, one = maker(tf, views, source, partial(keys.step_key, key), dtype, None)

    def chosen(first: int, last: int | None) -> Iterator[dict[str, np.ndarray]]:
        return ({"index": np.asarray(rows(step), np.int32)} for step in range(first, steps))

    batch_size = len(rows(0))
    return run_in_order(tf, source, made, one, threads, 0.0, chosen, batch_size, stop_step=steps)


def check(views: RecipeViews, files: Encoded | None, dtype: str) -> None:
    """Refuses views that the host cannot make of these images in this dtype."""
    recipes = views.recipes
    if dtype not in ("float32", "uint8"):
        raise ValueError(f'dtype must be "float32" or "uint8"; got {dtype!r}.')
    if dtype == "uint8" and any(map(ends_in_a_space, recipes)):
        raise ValueError(
            f'dtype="uint8" holds no values below 0, which a recipe that ends in a color space has; got'
            f' {recipes[0].name}. Take dtype="float32".'
        )
    if files is not None and not all(map(begins_with_crop, recipes)):
        raise ValueError(
            "files have any size, so a recipe for them must begin with a crop (augment.random_resized_crop; of AMDIM's:"
            f" crop=True), or with a flip and a crop; got {', '.join(op.name for op in recipes)}."
        )


def maker(tf, views: RecipeViews, source: Images | Encoded, key_of_step, dtype: str, implementations):
    """The two functions that `run` takes: what a batch is made of, and an example of it."""
    recipes = views.recipes
    files = source if isinstance(source, Encoded) else None
    images: Any = None if isinstance(source, Encoded) else source.images
    applies = [host_apply(op, implementations=implementations) for op in recipes]
    draw = draws(views, source, key_of_step)

    def made(step, index):
        params = draw(step, index)
        leaves, tree = jax.tree.flatten(params)
        if files is None:
            return tree, {"index": index, "leaves": tuple(leaves), "image": images[index]}
        widths = files.sizes[index][:, 1]
        boxes = around([shown(op, p, widths) for op, p in zip(recipes, params, strict=True)])
        return tree, {"index": index, "leaves": tuple(leaves), **where(files, index, boxes)}

    def one(tree, row):
        params = jax.tree.unflatten(tree, row["leaves"])
        image = row["image"] if files is None else decoded(tf, row)
        if files is not None:
            part = row["box"], row["size"][1]
            params = [shifted(tf, op, p, *part)[0] for op, p in zip(recipes, params, strict=True)]
        made = [apply(p, image) for apply, p in zip(applies, params, strict=True)]
        if dtype == "uint8":
            made = [tf.cast(tf.round(tf.clip_by_value(view, 0, 1) * 255), tf.uint8) for view in made]
        alike = len({tuple(view.shape) for view in made}) == 1
        return {"views": tf.stack(made) if alike else tuple(made), "index": row["index"]}

    return made, one


def run_keys(seed: int) -> Callable[[Array], Array]:
    """step -> the key of a training run's views."""
    return lambda step: keys.views_key(keys.step_key(keys.run_key(seed), step))


def draws(
    views: RecipeViews, source: Images | Encoded, key_of_step: Callable[[Array], Array]
) -> Callable[[int, np.ndarray], Any]:
    """(step, index [b]) -> the parameters of every view, numpy arrays [b, ...], as the device would draw them."""
    fixed = None if isinstance(source, Encoded) else source.images.shape[1:]

    def of_batch(step: Array, index: Array, sizes: Array):
        key = key_of_step(step)

        def of_image(index, size):
            return views.sample(key, index, fixed or (size[0], size[1], 3))

        return jax.vmap(of_image)(index, sizes)

    compiled = jax.jit(of_batch)
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS may leave the CPU out
        device = jax.local_devices()[0]

    def draw(step: int, index: np.ndarray):
        sizes = source.sizes[index] if isinstance(source, Encoded) else np.zeros((len(index), 2), np.int32)
        with jax.default_device(device):
            return jax.tree.map(np.asarray, compiled(jnp.int32(step), index, sizes))

    return draw


def ends_in_a_space(op: Op) -> bool:
    """Whether what a recipe makes is in a color space, and so partly below 0."""
    return flat(op)[-1].name in SPACES
