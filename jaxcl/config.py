"""A config is a Python file that says what is learnt: `Knobs`, and `recipe(knobs, about) -> Recipe`.

    @dataclass(frozen=True)
    class Knobs(CommonKnobs):
        temperature: float = 0.5
        \"\"\"NT-Xent's temperature.\"\"\"

    def recipe(knobs: Knobs, about: About) -> Recipe: ...

The same file serves the command line (the options are made from the dataclass, their help from the docstrings), a
notebook (`recipe(Knobs(temperature=0.1), about)`) and a run that is picked up again. A config never opens its images:
it knows their number, shape and classes. Only where the images need more than `--data` says, the file also has
`data(knobs) -> Data`.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import optax

from jaxcl import devices
from jaxcl.typing import About, Array, Method, Net, PyTree, Views

# (params, state, images) -> features or logits
Apply = Callable[[PyTree, PyTree, Array], Array]

# Kinds of data whose specification ends in a path: folder:PATH.
PATHS = ("folder", "npz", "tfrecord")


@dataclasses.dataclass(frozen=True)
class CommonKnobs:
    """What every config can be asked; a config inherits it, changes defaults and adds knobs of its own."""

    data: str = "tfds:cifar10"
    """Images: digits, tfds:NAME, folder:PATH, npz:PATH or tfrecord:PATTERN."""
    data_dir: str | None = None
    """Where TFDS prepared its data sets (its own default if not given)."""
    evaluate_on: str = "test"
    """The split that evaluations test on; they train on "train"."""
    train_on: str = "train"
    """The split that is learnt from: of a TFDS data set any, as unlabelled or train+unlabelled of stl10."""
    size: int | None = None
    """Side of the images in pixels, to which they are resized; None leaves them as they are."""
    encoded: bool = False
    """The images stay encoded where they are, and each is decoded when its turn comes: for what does not fit into
    memory. Needs --size."""
    epochs: float = 20
    """Passes over the training images."""
    batch_size: int = 512
    """Images a training step, over all devices."""
    seed: int = 0
    """Initial weights, order of the images, augmentation."""
    input: Literal["device", "resident", "host", "images"] = "device"
    """Who makes the views: the device, from batches it is sent or from images it keeps (resident); or the host, by
    tf.data. images: the host decodes files, the device makes the views. Of encoded files the host crops from whole
    images, as papers do; the device from their centre squares of 8/7 the size."""
    placement: Literal["jit", "shard_map", "pmap"] = "jit"
    """How a training step runs on several devices."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the encoder computes in; parameters and loss are float32."""
    remat: bool = False
    """Activations within an encoder's blocks are computed again in the backward pass, not kept: less memory, a third
    more arithmetic."""
    chunks: int = 1
    """Encoders see a batch in so many chunks, one after the other, and only one chunk's activations are in memory; the
    loss sees the whole batch. Batch statistics are then a chunk's. With several devices each works on all chunks."""
    log_every: int = 20
    """Training steps between two lines of the log."""
    save_every: int = 500
    """Training steps between two checkpoints."""
    knn_every: float = 0
    """Epochs between two online kNN accuracies; 0: never."""
    init: str | None = None
    """A run directory whose trained encoder this run starts from."""
    learning_rate: float = 2e-3
    """Peak of the learning rate."""
    weight_decay: float = 1e-4
    """On kernels only; decoupled, where the optimizer is AdamW."""


class Recipe(NamedTuple):
    """What is learnt: pure functions and numbers. It can be traced, with the numeric knobs as tracers."""

    method: Method
    optimizer: optax.GradientTransformation
    learning_rate: Callable[[Any], Any]  # training step -> learning rate, to be logged
    views: Views  # what the method sees: made on the device, or by the host
    steps: int
    batch_size: int  # global: over all devices of all processes
    probe_views: Views | None = None  # what a classifier trained by SGD sees: linear_sgd, fine-tuning
    # Parts of the representation by name, each as `Method.embed`, to be evaluated on their own: the heads of LooC++.
    parts: Mapping[str, Apply] | None = None
    # A classifier trained along (methods.with_probe), to be evaluated too; its batches carry "label".
    classify: Apply | None = None


class Basics(NamedTuple):
    """What nearly every recipe takes from the common knobs and its images."""

    size: int  # pixels a side of an image
    steps: int  # training steps, of --epochs
    axis: str | None  # the devices' axis under --placement, for the method and its norms
    dtype: Any  # what the encoder computes in
    lean: Callable[[Net], Net]  # an encoder -> the same with as little memory as --remat and --chunks ask


def basics(knobs: CommonKnobs, about: About) -> Basics:
    """What the common knobs and the images give.

    >>> basics(CommonKnobs(epochs=2, batch_size=4, placement="pmap"), About(10, (32, 32, 3), ()))
    Basics(size=32, steps=4, axis='devices', dtype=dtype('float32'), lean=...)
    """
    from jaxcl import nets

    def lean(net):
        net = nets.remat(net) if knobs.remat else net
        return net if knobs.chunks == 1 else nets.chunked(net, knobs.chunks)

    steps = steps_of(knobs.epochs, about.count, knobs.batch_size)
    return Basics(about.shape[0], steps, devices.axis_name(knobs.placement), jnp.dtype(knobs.dtype), lean)


def nonzero(knob: Any) -> Any:
    """None where a knob is known to be 0, which means "off"; otherwise the knob, and a traced one always.

    >>> nonzero(0.0), nonzero(2.0)
    (None, 2.0)
    """
    return None if isinstance(knob, int | float) and knob == 0 else knob


def steps_of(epochs: float, count: int, batch_size: int) -> int:
    """Training steps in so many epochs of `count` images; the last incomplete batch of an epoch is left out.

    >>> steps_of(3, 10, 4)
    6
    """
    per_epoch = count // batch_size
    if per_epoch == 0:
        raise ValueError(f"A batch of {batch_size} does not fit into {count} images; lower --batch-size.")
    return round(epochs * per_epoch)


def steps_across(epochs: float, count: int, batch_size: int) -> int:
    """Training steps in so many epochs of `count` images whose batches run on from one epoch into the next, as where a
    repeated data set is batched (SimCLR's and BYOL's code): epochs count // batch_size.

    An epoch of ours leaves its last incomplete batch out, so these steps are a little more than `epochs` of them.

    >>> steps_across(3, 10, 4), steps_across(1000, 50000, 512)
    (7, 97656)
    """
    steps = int(epochs * count // batch_size)
    if count < batch_size:
        raise ValueError(f"A batch of {batch_size} does not fit into {count} images; lower --batch-size.")
    return steps


def load_config(path: str | Path) -> ModuleType:
    """The config at `path` as a module, checked to have `Knobs` and `recipe`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no config {path}. A config is a Python file, such as configs/quickstart.py."
        )
    name = f"jaxcl_config_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    knobs = getattr(module, "Knobs", None)
    if (
        not isinstance(knobs, type)
        or not issubclass(knobs, CommonKnobs)
        or not callable(getattr(module, "recipe", None))
    ):
        raise ValueError(
            f"{path} is not a config: it must define a frozen dataclass `Knobs(CommonKnobs)` and a function"
            " `recipe(knobs, about)`."
        )
    return module


def open_data(config: ModuleType, knobs: CommonKnobs) -> Any:
    """The images of a config, still unread: its own `data(knobs)`, or what --data, --data-dir and --size name."""
    own = getattr(config, "data", None)
    if callable(own):  # not the module jaxcl.data, which a config may have imported
        return own(knobs)
    from jaxcl import data

    return data.open(
        knobs.data,
        data_dir=knobs.data_dir,
        size=knobs.size,
        evaluate_on=knobs.evaluate_on,
        train_on=knobs.train_on,
        encoded=knobs.encoded or None,
    )


# --- knobs as text -----------------------------------------------------------------------------------------------


def resolved(knobs: Any) -> Any:
    """The same knobs with absolute paths, so that they mean the same from every working directory.

    data_dir, init, and every knob that names data by a path (folder:PATH, npz:PATH, tfrecord:PATTERN).
    """

    def absolute(name: str, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        kind, colon, where = value.partition(":")
        if colon and kind in PATHS:
            return f"{kind}:{Path(where).expanduser().absolute()}"
        return str(Path(value).expanduser().absolute()) if name in ("data_dir", "init") else value

    values = {field.name: getattr(knobs, field.name) for field in dataclasses.fields(knobs)}
    return dataclasses.replace(knobs, **{name: absolute(name, value) for name, value in values.items()})


def knobs_to_json(knobs: Any) -> str:
    """The value of every knob, as `knobs_from_json` reads it."""
    return json.dumps(dataclasses.asdict(knobs), indent=2) + "\n"


def knobs_from_json(module: ModuleType, text: str) -> Any:
    """The knobs that `knobs_to_json` wrote. A knob that the config no longer has is an error that names it."""
    values = json.loads(text)
    fields = {field.name: field for field in dataclasses.fields(module.Knobs)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ValueError(f"The config has no knob {', '.join(unknown)}; it has {', '.join(fields)}.")
    # JSON has no tuples, and knobs are hashable: every sequence among them is one.
    return module.Knobs(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def changed_knobs(saved: dict[str, Any], knobs: Any) -> list[str]:
    """One line for every knob whose value is not the saved one."""
    asked = json.loads(knobs_to_json(knobs))
    absent = "(none)"
    return [
        f"--{name.replace('_', '-')}: the run has {saved.get(name, absent)!r}, you ask for {asked.get(name, absent)!r}"
        for name in sorted(saved.keys() | asked.keys())
        if saved.get(name, absent) != asked.get(name, absent)
    ]


def same_program(one: str, other: str) -> bool:
    """Whether two configs differ in comments and layout alone."""
    return ast.dump(ast.parse(one)) == ast.dump(ast.parse(other))
