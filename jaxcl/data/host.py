"""The host input pipeline: tf.data decodes, crops and augments on the CPU while the accelerator trains.

    input = host_views(images_or_files, recipe)        # batch["views"]: n augmented views of every image
    input = host_images(files, 256)                    # batch["image"]: decoded alone; the device makes the views
    for batch in input(batch_size=512, seed=0, start_step=1000): ...

An input is `data.batches` with its first argument given: the same order of the images, the same sharing among
processes, and the step number as its only state. Which images a step meets is computed, not shuffled in a buffer, so a
run goes on at any step at once. What is drawn for a view is drawn by the recipe itself, from the same keys as on the
device: device and host make the same views.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import warnings
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcl import keys
from jaxcl.augment.composition import flat, flat_params
from jaxcl.augment.op import Op
from jaxcl.augment.spaces import SPACES
from jaxcl.augment.views import RecipeViews, each_view, n_views
from jaxcl.data.batches import index_batches
from jaxcl.data.decode import ToBytes, first, full_range, read_rgb, reason, within
from jaxcl.data.host_ops import Implementation, begins_with_crop, host_apply
from jaxcl.data.stream import Encoded, Pixels, read_bytes
from jaxcl.data.tf_read import square, tensorflow
from jaxcl.typing import Array, Images, Views

# (batch_size, seed, start_step, stop_step, process_index, process_count, by name) -> this process's batches.
Input = Callable[..., Iterator[dict[str, np.ndarray]]]


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
        and in `source.damaged`, and wherever its turn comes, the next good file stands in for it (and `index` says
        so). Beyond that fraction a ValueError names them; 0 refuses the first.
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


def crops_whole_images(images: Any, views: Any) -> bool:
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
        the views of a step are those that `views(fold_in(key, step), {"image": whole images, "index": rows})` makes, to
        within 1/510.

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
    made, one = maker(tf, views, source, lambda step: jax.random.fold_in(key, step), dtype, None)

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
            f"bytes hold values in [0, 1], and what ends in a color space goes below 0; got {recipes[0].name}."
            ' Take dtype="float32".'
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


def host_images(source: Encoded, size: int, *, threads: int | None = None, tolerate: float = 0.01) -> Input:
    """An input that only decodes: {"image": uint8 [b, size, size, 3], "index": int32 [b]}.

    The shorter side is resized to `size` (bicubic, antialiased) and the centre square kept, as by `data.load`; the
    device makes the views, from images that are larger than its crops. `threads` and `tolerate` as in `host_views`.
    """

    def start(**order):
        tf = tensorflow()

        def made(step, index):
            sides = source.sizes[index]
            side = sides.min(axis=1, keepdims=True)
            low = (sides - side) // 2  # where a half pixel is cut off, both halves are kept for the resize
            box = np.concatenate([low, sides - 2 * low], axis=1).astype(np.int32)
            return None, {"index": index, **where(source, index, box)}

        def one(tree, row):
            return {"image": square(tf, decoded(tf, row), size), "index": row["index"]}

        return run(tf, source, made, one, threads, tolerate, **order)

    return start


# ---------------------------------------------------------------------------------------------- the pipeline


def run(
    tf, source, made, one, threads, tolerate, *, batch_size, seed, start_step=0, stop_step=None, **processes
):
    """The batches of a training run; see `run_in_order`."""
    n = len(source.paths) if isinstance(source, Encoded) else len(source.images)

    def order(first, last):
        return index_batches(
            n, batch_size=batch_size, seed=seed, start_step=first, stop_step=last, **processes
        )

    order(start_step, stop_step)  # refuses at once what cannot be dealt out
    rows_here = batch_size // processes.get("process_count", 1)
    steps = {"start_step": start_step, "stop_step": stop_step}
    return run_in_order(tf, source, made, one, threads, tolerate, order, rows_here, **steps)


def run_in_order(tf, source, made, one, threads, tolerate, order, rows_here, *, start_step=0, stop_step=None):
    """made(step, index) -> tree, what a batch is made of; one(tree, row) -> an example; order(first, last) -> which
    images the steps have, {"index": [rows_here]} each. Yields the batches."""
    threads = threads or os.cpu_count() or 1

    def dataset(first):
        tree, example = made(first, stand_in(source, next(order(first, None))["index"]))
        signature = tf.nest.map_structure(lambda x: tf.TensorSpec((None, *x.shape[1:]), x.dtype), example)

        def batches():
            for step, batch in enumerate(order(first, stop_step), start=first):
                yield made(step, stand_in(source, batch["index"]))[1]

        # Only numbers and small arrays pass through Python, a batch at a time; the rest is TensorFlow's.
        rows = tf.data.Dataset.from_generator(batches, output_signature=signature).unbatch()
        work = tf.autograph.experimental.do_not_convert(lambda row: one(tree, row))
        ready = rows.map(work, num_parallel_calls=threads, deterministic=True)
        ready = ready.batch(rows_here, drop_remainder=True).prefetch(2)
        options = tf.data.Options()
        # A pool of its own, and one thread an image: the training's threads are left alone.
        options.threading.private_threadpool_size = threads
        options.threading.max_intra_op_parallelism = 1
        options.deterministic = True
        return ready.with_options(options)

    def walk():
        step = start_step
        while stop_step is None or step < stop_step:
            try:
                for batch in dataset(step).as_numpy_iterator():
                    yield batch
                    step += 1
                return
            except tf.errors.OpError:
                # Some file of this step cannot be decoded. Find it, and begin again at this step without it.
                index = stand_in(source, next(order(step, None))["index"])
                if not (isinstance(source, Encoded) and look_closer(tf, source, index, tolerate)):
                    raise

    batches = walk()
    RUNNING.add(batches)
    return batches


# TensorFlow's threads call into Python for each batch, and a process that ends before they do is aborted.
RUNNING: weakref.WeakSet = weakref.WeakSet()


@atexit.register
def stop_running() -> None:
    for batches in list(RUNNING):
        with contextlib.suppress(ValueError):  # it is just running, in another thread
            batches.close()


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


# ---------------------------------------------------------------------------------------------- files


def where(source: Encoded, index: np.ndarray, box: np.ndarray) -> dict[str, np.ndarray]:
    """What `decoded` needs to know of files, to get a box (top, left, height, width) [b, 4] of each."""
    sizes = source.sizes[index]
    # At the edge of what it decodes, a decoder lacks the neighbors from which it interpolates colors. So it gets a
    # pixel more, in whole blocks (of 32, the largest there are), and the pixels are those of the whole image.
    low = np.maximum(box[:, :2] - 1, 0) // 32 * 32
    high = np.minimum(-(-(box[:, :2] + box[:, 2:] + 1) // 32) * 32, sizes)
    more = {} if source.spans is None else {"span": source.spans[index]}
    if source.value_range is not None:
        more["range"] = np.tile(np.asarray(source.value_range, np.float64), (len(index), 1))
    return {
        "path": np.array([os.fsencode(source.paths[i]) for i in index]),
        **more,
        "plain": source.plain[index],
        "size": sizes,
        "box": box,
        "blocks": np.concatenate([low, high - low], axis=1).astype(np.int32),
    }


def decoded(tf, row: dict[str, Any]) -> Any:
    """The part row["box"] (top, left, height, width) of an encoded image, uint8 [height, width, 3]."""
    box, blocks = row["box"], row["blocks"]
    if "span" in row:
        content = tf.ensure_shape(tf.numpy_function(read_span, [row["path"], row["span"]], tf.string), ())
    else:
        content = tf.io.read_file(row["path"])

    def plain():
        # The accurate transform, as Pillow's: device and host then see the same pixels.
        some = tf.io.decode_and_crop_jpeg(content, blocks, channels=3, dct_method="INTEGER_ACCURATE")
        top, left = box[0] - blocks[0], box[1] - blocks[1]
        return some[top : top + box[2], left : left + box[3]]

    def other():
        ranges = [row["range"]] if "range" in row else []
        return tf.numpy_function(read_box, [content, box, row["size"], *ranges], tf.uint8)

    return tf.ensure_shape(tf.cond(row["plain"], plain, other), (None, None, 3))


def read_span(path: bytes, span: np.ndarray) -> bytes:
    return read_bytes(os.fsdecode(path), *span)


def read_box(
    content: bytes, box: np.ndarray, size: np.ndarray, value_range: np.ndarray | None = None
) -> np.ndarray:
    top, left, height, width = box
    to_bytes = full_range if value_range is None else within((value_range[0], value_range[1]))
    return np.ascontiguousarray(read_whole(content, size, to_bytes)[top : top + height, left : left + width])


def read_whole(content: bytes, size: np.ndarray, to_bytes: ToBytes = full_range) -> np.ndarray:
    image = read_rgb(content, to_bytes)
    if image.shape[:2] != tuple(size):
        raise ValueError(f"its header says {tuple(size)}, and it decodes to {image.shape[:2]}")
    return image


def look_closer(tf, source: Encoded, index: np.ndarray, tolerate: float) -> bool:
    """Decodes these images one by one; tells whether anything was learnt about any of them, and notes it in source."""
    learnt = False
    for i in map(int, np.unique(index)):
        try:
            content = source.content(i)
            if source.plain[i]:
                try:
                    tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
                    continue
                except tf.errors.OpError:
                    source.plain[i], learnt = False, True  # Pillow may know better
            read_whole(content, source.sizes[i], source.to_bytes)
        except Exception as error:  # whatever is wrong with it
            source.damaged[i], learnt = reason(error), True
            warnings.warn(
                f"{source.where(i)} is damaged and left out: {source.damaged[i]}. ({len(source.damaged)} of"
                f" {len(source.paths)} so far)",
                stacklevel=2,
            )
    if len(source.damaged) > tolerate * len(source.paths):
        names = [f"{source.where(i)}: {reason}" for i, reason in sorted(source.damaged.items())]
        raise ValueError(
            f"{len(names)} of the {len(source.paths)} images of {source.name} are damaged, more than the fraction of"
            f" {tolerate:g} that is tolerated: {first(names)} Mend or remove them, or raise tolerate."
        )
    if not learnt and source.plain[index].any():
        # Whole they can be decoded, in part they cannot: let Pillow have them all.
        source.plain[index], learnt = False, True
    return learnt


def stand_in(source: Images | Encoded, index: np.ndarray) -> np.ndarray:
    """The same numbers, but for each damaged file the next good one's."""
    if not (isinstance(source, Encoded) and source.damaged):
        return index
    n = len(source.paths)
    if len(source.damaged) == n:
        raise ValueError(f"all {n} images of {source.name} are damaged.")
    out = index.copy()
    for i in np.flatnonzero(np.isin(index, list(source.damaged))):
        while int(out[i]) in source.damaged:
            out[i] = (out[i] + 1) % n
    return out


def around(crops: Sequence[Any]) -> np.ndarray:
    """The smallest boxes (top, left, height, width) [b, 4] that hold one crop of every view."""
    top = np.min([crop.top for crop in crops], axis=0)
    left = np.min([crop.left for crop in crops], axis=0)
    bottom = np.max([crop.top + crop.height for crop in crops], axis=0)
    right = np.max([crop.left + crop.width for crop in crops], axis=0)
    return np.stack([top, left, bottom - top, right - left], axis=1).astype(np.int32)


def shown(op: Op, params: Any, widths: np.ndarray) -> Any:
    """The boxes [b] that a recipe's crop shows of images of these widths, before any flip that precedes it."""
    steps = flat(op)
    first = next(i for i, step in enumerate(steps) if step.name == "crop")
    *flips, crop = flat_params(op, params)[: first + 1]
    left = crop.left
    for flip in flips:
        left = np.where(flip.on, widths - left - crop.width, left)
    return crop._replace(left=left)


def shifted(
    tf: Any, op: Op, params: Any, box: Any, width: Any, flipped: Any = False
) -> tuple[Any, bool, Any]:
    """The parameters of a recipe that begins with a crop, or a flip and a crop, for an image of this width of which
    only a box (top, left, height, width) is there; whether the crop was among them; and whether it was flipped."""
    if "steps" in dict(op.settings):
        found, made = False, []
        for step, drawn in zip(dict(op.settings)["steps"], params, strict=True):
            if not found:
                drawn, found, flipped = shifted(tf, step, drawn, box, width, flipped)
            made.append(drawn)
        return tuple(made), found, flipped
    if op.name == "flip":
        return params, False, tf.math.logical_xor(flipped, params.on)
    # Seen in a mirror, a box begins where it ends.
    left = tf.where(flipped, width - box[1] - box[3], box[1])
    return params._replace(top=params.top - box[0], left=params.left - left), True, flipped
