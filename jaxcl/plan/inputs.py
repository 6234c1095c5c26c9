"""What a training step is given, without opening a pixel: the size, shape and classes of the data, and the shapes of a
batch."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from jaxcl import keys
from jaxcl.config import CommonKnobs, Recipe, open_data
from jaxcl.data.host import ends_in_a_space
from jaxcl.machines import Machine
from jaxcl.train.state import blank_batch
from jaxcl.typing import About, PyTree

# Data sets that a plan knows without their files: TFDS's name, and the split if that is not "train" -> images that are
# learnt from, shape (None: any), classes.
KNOWN: dict[str, tuple[int, tuple[int, int, int] | None, int]] = {
    "cifar10": (50_000, (32, 32, 3), 10),
    "cifar100": (50_000, (32, 32, 3), 100),
    "fashion_mnist": (60_000, (28, 28, 1), 10),
    "imagenet2012": (1_281_167, None, 1000),
    "imagenet2012#imagenet100": (126_689, None, 100),
    "mnist": (60_000, (28, 28, 1), 10),
    "stl10": (5_000, (96, 96, 3), 10),
    "stl10 unlabelled": (100_000, (96, 96, 3), 0),
    "stl10 train+unlabelled": (105_000, (96, 96, 3), 0),
    "svhn_cropped": (73_257, (32, 32, 3), 10),
}


def about_of(
    config: ModuleType,
    knobs: CommonKnobs,
    *,
    images: int | None = None,
    shape: tuple[int, int, int] | None = None,
    classes: int | None = None,
) -> tuple[About, str | None]:
    """What a recipe may know of its data, and a sentence where that was not read off the data: of the count, the shape
    and the classes each, what is given goes first; then what describes the data; then, for data that is not there, what
    is `KNOWN` of it. A shape that is given is that of the data: `knobs.size` resizes it, as a run would.

    Raises ValueError where all this leaves the count or the shape open, and says how to give it.
    """
    there, why = None, ""
    if images is None or shape is None or classes is None:
        try:
            there = open_data(config, knobs).about
        except (FileNotFoundError, ImportError, ValueError) as error:
            why = str(error)
    known = _known(knobs)
    count = images or (there.count if there else known[0])
    found = shape or (there.shape if there else known[1])
    if knobs.size and (shape is not None or there is None):
        found = (knobs.size, knobs.size, found[2] if found else 3)
    if not count or found is None:
        raise ValueError(
            f"The images of this config cannot be described: {why}\nSay what they are: --images N --shape HEIGHT"
            " WIDTH CHANNELS (and --classes K)."
        )
    said = None
    if there is None and (images is None or shape is None):
        said = f"{knobs.data} is not here; planned for {count:,} images of {' x '.join(map(str, found))}."
    if classes is not None:
        return About(count, found, _numbered(classes)), said
    return About(count, found, there.classes if there else _numbered(known[2])), said


def _known(knobs: CommonKnobs) -> tuple[int, tuple[int, int, int] | None, int]:
    """The row of `KNOWN` that the data has, or one in which all is open."""
    if not knobs.data.startswith("tfds:"):
        return 0, None, 0
    name = re.split(r"[/:]", knobs.data.removeprefix("tfds:"))[0]
    return KNOWN.get(name if knobs.train_on == "train" else f"{name} {knobs.train_on}", (0, None, 0))


def _numbered(classes: int) -> tuple[str, ...]:
    return tuple(map(str, range(classes)))


def is_encoded(knobs: CommonKnobs) -> bool:
    """Whether images are decoded when their turn comes."""
    return knobs.encoded or knobs.data.startswith("tfrecord:")


def abstract_batch(recipe: Recipe, knobs: CommonKnobs, about: About) -> PyTree:
    """The shapes of a global batch, as `data.input_pipeline` would bring it."""
    size, encoded = recipe.batch_size, is_encoded(knobs)
    height, width, channels = about.shape
    if encoded and knobs.input != "host":
        height, width = height * 8 // 7, width * 8 // 7  # the host sends more than the crops need
    image = blank_batch(about._replace(shape=(height, width, channels)), 1)
    batch = {name: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype) for name, x in image.items()}
    if recipe.classify is None or not recipe.labelled:
        del batch["label"]
    if knobs.input == "host":
        batch = {"views": _host_views(recipe.views, batch, encoded), **batch}
        del batch["image"]
    return batch


def _host_views(views: Any, batch: PyTree, encoded: bool) -> PyTree:
    """The shapes of what `data.host_views` makes of a batch: bytes of files, floats of images in memory."""
    made = jax.eval_shape(views, keys.run_key(0), batch)
    if views.channels is not None:  # the host makes whole pictures, and the views object cuts them
        n, channels = len(views.channels), sum(views.channels)
        made = tuple(jax.ShapeDtypeStruct((*x.shape[:3], channels), x.dtype) for x in made[::n])
    dtype = jnp.uint8 if encoded and not any(map(ends_in_a_space, views.recipes)) else jnp.float32
    if len({x.shape for x in made}) == 1:
        size, *shape = made[0].shape
        return jax.ShapeDtypeStruct((size, len(made), *shape), dtype)
    return tuple(jax.ShapeDtypeStruct(x.shape, dtype) for x in made)


def check_batch(batch_size: int, machine: Machine) -> None:
    """Raises ValueError, with batches that can, where a batch cannot be split evenly over a machine's devices."""
    n = len(machine.devices)
    if batch_size % n:
        below = batch_size // n * n
        near = f"{below} and {below + n} can" if below else f"{n} can"
        raise ValueError(
            f"A batch of {batch_size} cannot be split evenly over the {n} devices of {machine.name}; {near}."
            " Change --batch-size."
        )
