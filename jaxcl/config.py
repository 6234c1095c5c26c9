"""A config is a Python file that says what is learnt: `Knobs`, and `recipe(knobs, about) -> Recipe`.

    @dataclass(frozen=True)
    class Knobs(CommonKnobs):
        temperature: float = 0.5
        \"\"\"NT-Xent's temperature.\"\"\"

    def recipe(knobs: Knobs, about: About) -> Recipe: ...

The same file serves the command line (the options are made from the dataclass, their help from the docstrings), a
notebook (`recipe(Knobs(temperature=0.1), about)`) and a run that is picked up again. A config never opens its images:
it knows their number, shape and classes. Only where the images need more than `--data` says, the file also has
`data(knobs) -> Data`. Where a paper has several settings it may have `PRESETS`, a dict from names to Knobs:
`--preset NAME` begins with those, and other options change them.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
import traceback
import typing
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import jax.numpy as jnp
import optax

from jaxcl import devices, neighbors
from jaxcl.reads import check_read
from jaxcl.records import check_fits, parsed, read_text
from jaxcl.typing import About, Array, Method, Net, PyTree, Views

if TYPE_CHECKING:
    from jaxcl.data import Data

K = TypeVar("K", bound="CommonKnobs")
# (params, state, images) -> features or logits
Apply = Callable[[PyTree, PyTree, Array], Array]

# Kinds of data whose specification ends in a path: folder:PATH.
PATHS = ("folder", "npz", "npy", "tfrecord")
# Knobs that may be changed when a run is resumed; the images' fingerprint tells whether those of data_dir are the same.
MAY_CHANGE = {"data_dir", "keep_every", "nonfinite", "logger"}
# So may these, which say how the same steps are made and when they are looked at. Of `input` not to or from "host".
SAME_STEPS = {"shard_state", "remat", "placement", "input", "log_every", "save_every", "knn_every"}


@dataclasses.dataclass(frozen=True)
class CommonKnobs:
    """What every config can be asked; a config inherits it, changes defaults and adds knobs of its own."""

    data: str = "tfds:cifar10"
    """Images: digits, tfds:NAME, folder:PATH, npz:PATH, npy:PATH or tfrecord:PATTERN; with #imagenet100 after it, those
    of these classes."""
    data_dir: str | None = None
    """Where TFDS prepared its data sets (its own default if not given)."""
    evaluate_on: str = "test"
    """The split that evaluations test on; they train on "train"."""
    train_on: str = "train"
    """The split that is learnt from: of a TFDS data set any, as unlabelled or train+unlabelled of stl10."""
    labels: str | None = None
    """A text file that says the classes of a folder's images, FILE or FILE:COLUMN; of npy:PATH a numpy file."""
    layout: Literal["auto", "splits", "classes", "deepest", "flat"] = "auto"
    """How sub-folders are read. splits: train, test, ... are splits; classes: they are classes; auto: whichever fits.
    deepest: every folder that directly holds images is a class, as in iNaturalist; flat: no folder is a class."""
    value_range: tuple[float, float] | None = None
    """For pixels of other than 8 bits: the values that become black and white. None: chosen from the largest value."""
    size: int | None = None
    """Side of the images in pixels, to which they are resized; None leaves them as they are, if all are of one size."""
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
    """Where the views are made. device: on the device, from batches it is sent; resident: from images it keeps; host:
    on the host, by tf.data; images: on the device, the host only decodes files. Of encoded files, host crops the whole
    image, as papers do; device and images crop the centre square, resized to 8/7 of --size."""
    placement: Literal["jit", "shard_map", "pmap"] = "jit"
    """How a training step runs on several devices."""
    shard_state: bool = False
    """Split the optimizer's state, target network, queue and bank over the devices: less memory, more communication.
    Only with --placement jit."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the encoder computes in; parameters and loss are float32."""
    remat: bool = False
    """Activations within an encoder's blocks are computed again in the backward pass, not kept: less memory, a third
    more arithmetic."""
    chunks: int = 1
    """Chunks of a batch that the encoder processes one after the other; the loss sees the whole batch. Activations in
    memory are a chunk's. Batch norm takes a chunk's statistics, or those of --groups, which keep their size."""
    nonfinite: Literal["stop", "skip"] = "stop"
    """What to do when loss, gradient or parameters are not finite after a training step: stop the run before that step,
    or skip the step. Other steps are the same either way, so a run may be resumed with the other choice."""
    probe: bool = False
    """Also train a linear classifier on the representation. No gradient flows from it into the encoder. Its accuracy is
    logged, and evaluated as "joint". Needs labels."""
    log_every: int = 20
    """Training steps between two lines of the log."""
    logger: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    """Who gets the metrics besides metrics.jsonl: tensorboard, wandb (Weights & Biases), mlflow; one or several."""
    save_every: int = 500
    """Training steps between two checkpoints, of which the newest three stay."""
    keep_every: int = 0
    """Checkpoints at multiples of so many training steps stay as well; 0: none."""
    knn_every: float = 0
    """Epochs between two online kNN accuracies; 0: never."""
    init: str | None = None
    """A run directory whose trained encoder this run starts from; or a file of weights, .safetensors or .pth (`jaxcl
    export`, torchvision, timm, MoCo, lightly, solo-learn)."""
    learning_rate: float = 2e-3
    """Peak of the learning rate."""
    weight_decay: float = 1e-4
    """On kernels only; decoupled, where the optimizer is AdamW."""


@dataclasses.dataclass(frozen=True)
class ImageNetKnobs(CommonKnobs):
    """The common knobs with the defaults of a run on ImageNet, whose files are too many to be resident."""

    data: str = "tfds:imagenet2012"
    size: int = 224
    encoded: bool = True
    input: Literal["device", "resident", "host", "images"] = "host"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    log_every: int = 50


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
    # An online classifier (methods.with_probe), to be evaluated too; its batches carry "label".
    classify: Apply | None = None
    # Whether batches must carry labels where there is such a classifier; one that a teacher trains needs none.
    labelled: bool = True
    # What --init takes of the other run: None is params["encoder"]; else these parts of params, as ("encoder", "head"),
    # each with its batch statistics.
    carries: tuple[str, ...] | None = None
    # Part of the method's state -> the run directory whose params and state it is, as that of a teacher.
    given: Mapping[str, str | Path] | None = None


class Basics(NamedTuple):
    """What nearly every recipe takes from the common knobs and its images."""

    size: int  # pixels a side of an image
    steps: int  # training steps, of --epochs
    axis: str | None  # the devices' axis under --placement, for the method and its norms
    dtype: jnp.dtype  # what the encoder computes in
    lean: Callable[[Net], Net]  # an encoder -> the same with as little memory as --remat and --chunks ask


def basics(knobs: CommonKnobs, about: About) -> Basics:
    """What the common knobs and the images give.

    >>> basics(CommonKnobs(epochs=2, batch_size=4, placement="pmap"), About(10, (32, 32, 3), ()))
    Basics(size=32, steps=4, axis='devices', dtype=dtype('float32'), lean=...)
    """
    from jaxcl import nets
    from jaxcl.data.batches import check_steps

    def lean(net):
        net = nets.remat(net) if knobs.remat else net
        return net if knobs.chunks == 1 else nets.chunked(net, knobs.chunks)

    steps = steps_of(knobs.epochs, about.count, knobs.batch_size)
    check_steps(steps, knobs.epochs, about.count, knobs.batch_size)
    return Basics(about.shape[0], steps, devices.axis_name(knobs.placement), jnp.dtype(knobs.dtype), lean)


def recipe_of(config: ModuleType, knobs: CommonKnobs, about: About) -> Recipe:
    """The recipe of a config; with --probe, one whose method is trained with an online linear classifier.

    The classifier sees the recipe's `probe_views` (crop and flip), or the method's own where the host makes the views.
    It has an optimizer of its own, Adam at 1e-3, so the method's updates are those that it has alone. A recipe that
    trains a classifier by itself stays as it is.
    """
    recipe: Recipe = config.recipe(knobs, about)
    if not knobs.probe or recipe.classify is not None:
        return recipe
    from jaxcl import methods

    if len(about.classes) < 2:
        raise ValueError(
            f"--probe trains an online linear classifier, which needs two classes; the training images have"
            f" {len(about.classes)}. Give labelled images, or leave --probe out."
        )
    views = recipe.views if knobs.input == "host" or recipe.probe_views is None else recipe.probe_views
    method, classify = methods.with_probe(
        recipe.method, classes=len(about.classes), views=views, axis_name=devices.axis_name(knobs.placement)
    )
    parts = recipe.parts and {name: partial(_of_the_method, apply) for name, apply in recipe.parts.items()}
    optimizer = _apart({"method": recipe.optimizer, "probe": optax.adam(1e-3)})
    return recipe._replace(method=method, optimizer=optimizer, parts=parts, classify=classify)


def _of_the_method(apply: Apply, params: PyTree, state: PyTree, images: Array) -> Array:
    return apply(params["method"], state, images)


def _apart(optimizers: Mapping[str, optax.GradientTransformation]) -> optax.GradientTransformation:
    """Each of some parts of the parameters with an optimizer of its own."""

    def init(params):
        return {name: tx.init(params[name]) for name, tx in optimizers.items()}

    def update(updates, state, params=None):
        own = dict.fromkeys(optimizers) if params is None else params
        made = {name: tx.update(updates[name], state[name], own[name]) for name, tx in optimizers.items()}
        new, kept = ({name: both[i] for name, both in made.items()} for i in (0, 1))
        return new, kept

    return optax.GradientTransformation(init, update)


def check_knobs(knobs: CommonKnobs) -> None:
    """Raises ValueError for a knob that makes no sense, whatever the config.

    >>> check_knobs(CommonKnobs(batch_size=1))
    Traceback (most recent call last):
    ...
    ValueError: --batch-size must be at least 2, as an image is compared with others; got 1.
    """
    rules: dict[str, tuple[Callable[[Any], bool], str]] = {
        "epochs": (lambda x: 0 < x < float("inf"), "more than 0"),
        "batch_size": (lambda x: x >= 2, "at least 2, as an image is compared with others"),
        "seed": (lambda x: x >= 0, "at least 0"),
        "size": (lambda x: x >= 1, "the side of the images in pixels, at least 1"),
        "chunks": (lambda x: x >= 1, "at least 1"),
        "log_every": (lambda x: x >= 1, "in training steps, at least 1"),
        "save_every": (lambda x: x >= 1, "in training steps, at least 1"),
        "keep_every": (lambda x: x >= 0, "in training steps, at least 0 (none)"),
        "knn_every": (lambda x: x >= 0, "in epochs, at least 0 (never)"),
        "learning_rate": (lambda x: 0 <= x < float("inf"), "at least 0, and finite"),
        "weight_decay": (lambda x: 0 <= x < float("inf"), "at least 0, and finite"),
        "temperature": (lambda x: 0 < x < float("inf"), "more than 0"),
    }
    for name, (sound, wanted) in rules.items():
        value = getattr(knobs, name, None)
        # A traced knob is not known, and NaN is unsound in every comparison.
        if isinstance(value, int | float) and not sound(value):
            raise ValueError(f"--{name.replace('_', '-')} must be {wanted}; got {value}.")


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


def steps_across(epochs: float | Array, count: int, batch_size: int) -> Any:
    """Training steps in so many epochs (or, of a warm-up, in a traced number of them) of `count` images whose batches
    run on from one epoch into the next, as where a repeated data set is batched (SimCLR's and BYOL's code): epochs
    count // batch_size, a little more than those of `steps_of`, where an epoch's last incomplete batch is left out.

    >>> steps_across(3, 10, 4), steps_across(1000, 50000, 512)
    (7, 97656)
    """
    steps_of(0, count, batch_size)  # a batch that does not fit is refused
    if not isinstance(epochs, jnp.ndarray):
        return int(epochs * count // batch_size)
    whole = jnp.floor(epochs)  # taken by itself: the product has more digits than float32
    return (whole.astype(int) * count + ((epochs - whole) * count).astype(int)) // batch_size


def load_config(
    path: str | Path, *, text: str | None = None, beside: Mapping[str, str] | None = None
) -> ModuleType:
    """The config at `path` as a module, checked to have `Knobs` and `recipe`. It may import files beside it, which are
    kept with its runs (`jaxcl.neighbors`).

    text, beside
        the text of the config and of those files, if the caller has read them already. Exactly this text is executed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no config {path}. A config is a Python file, such as configs/quickstart.py; `jaxcl configs`"
            " lists those that come with jaxcl."
        )
    module = executed(path, what="a config", text=text, beside=beside)
    knobs = getattr(module, "Knobs", None)
    sound = isinstance(knobs, type) and issubclass(knobs, CommonKnobs)
    if not sound or not callable(getattr(module, "recipe", None)):
        raise ValueError(
            f"{path} is not a config: it must define a frozen dataclass `Knobs(CommonKnobs)` and a function"
            " `recipe(knobs, about)`."
        )
    return module


def executed(
    path: Path, *, what: str, text: str | None = None, beside: Mapping[str, str] | None = None
) -> ModuleType:
    """A file's program as a module; ValueError, with the line, where it is no text or fails. It says `what` the file
    should be, as "a config". `text` and `beside` are executed and imported, where the files were read before."""
    name = f"jaxcl_{what.split()[-1]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up
    text = read_text(path) if text is None else text
    module.__dict__["__neighbors__"] = neighbors.look_beside(path, given=beside)
    try:
        # Not by the loader: it would take a compiled program that lies beside the text, whoever made it, and leave one.
        exec(compile(text, str(path), "exec", dont_inherit=True), module.__dict__)
    except Exception as error:  # whatever a program may raise
        raise ValueError(f"{path} cannot be run as {what}: {_where(error, path)}.") from error
    return module


def preset(config: ModuleType, name: str | None) -> CommonKnobs:
    """The knobs of a config before the command line changes them: its defaults, or its preset of that name."""
    presets = getattr(config, "PRESETS", {})
    if name is None:
        return config.Knobs()
    if name not in presets:
        there = f"its presets are {', '.join(presets)}" if presets else "it has none"
        raise ValueError(f"The config has no preset {name!r}; {there}.")
    return presets[name]


def _where(error: Exception, path: Path) -> str:
    """An error of a config's program in words, with its line."""
    lines = [one.lineno for one in traceback.extract_tb(error.__traceback__) if Path(one.filename) == path]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    line = f"line {lines[-1]}: " if lines and lines[-1] else ""
    return f"{line}{type(error).__name__}: {error}"


def open_data(config: ModuleType, knobs: CommonKnobs) -> Data:
    """The images of a config, still unread: its own `data(knobs)`, or what --data, --data-dir and --size name."""
    own = getattr(config, "data", None)
    if callable(own):  # not the module jaxcl.data, which a config may have imported
        return own(check_read(own, knobs))
    from jaxcl import data

    same = ("data_dir", "size", "evaluate_on", "train_on", "labels", "layout", "value_range")
    return data.open(knobs.data, encoded=knobs.encoded or None, **{n: getattr(knobs, n) for n in same})


# --- knobs as text -----------------------------------------------------------------------------------------------


def resolved(knobs: K) -> K:
    """The same knobs with absolute paths, so that they mean the same from every working directory.

    data_dir, init, teacher, labels, and every knob that names data by a path (folder:PATH, npz:PATH, tfrecord:PATTERN).
    """

    def absolute(name: str, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        kind, colon, where = value.partition(":")
        if colon and kind in PATHS:
            return f"{kind}:{Path(where).expanduser().absolute()}"
        if name == "labels":  # FILE or FILE:COLUMN; one that lies with the data is found there
            whole = Path(value).expanduser().exists()
            file, mark, column = (value, "", "") if whole else value.rpartition(":")
            here = Path(file).expanduser()
            return f"{here.absolute()}{mark}{column}" if file and here.exists() else value
        return str(Path(value).expanduser().absolute()) if name in ("data_dir", "init", "teacher") else value

    values = {field.name: getattr(knobs, field.name) for field in dataclasses.fields(knobs)}
    return dataclasses.replace(knobs, **{name: absolute(name, value) for name, value in values.items()})


def knobs_to_json(knobs: CommonKnobs) -> str:
    """The value of every knob, as `knobs_from_json` reads it."""
    return json.dumps(dataclasses.asdict(knobs), indent=2) + "\n"


def knobs_from_json(module: ModuleType, text: str) -> CommonKnobs:
    """The knobs that `knobs_to_json` wrote. A knob that the config no longer has is an error that names it."""
    values = parsed(text)
    if not isinstance(values, dict):
        raise ValueError(f"Knobs are a dict by their names; got {type(values).__name__}.")
    fields = {field.name: field for field in dataclasses.fields(module.Knobs)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ValueError(f"The config has no knob {', '.join(unknown)}; it has {', '.join(fields)}.")
    check_fits("What is recorded of the knobs", values, typing.get_type_hints(module.Knobs))
    # JSON has no tuples, and knobs are hashable: every sequence among them is one.
    return module.Knobs(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def changed_knobs(saved: Mapping[str, Any], knobs: Any, *, besides: Collection[str] = ()) -> list[str]:
    """One line for every knob whose value is not the saved one, but for those that a run may change (`MAY_CHANGE`,
    `SAME_STEPS`) and those named `besides`."""
    return [
        f"--{name.replace('_', '-')}: the run has {before!r}, you ask for {now!r}"
        for name, (before, now) in _differing(saved, knobs).items()
        if name not in besides and (name not in SAME_STEPS or (name == "input" and "host" in (before, now)))
    ]


def same_steps_otherwise(saved: Mapping[str, Any], knobs: Any) -> dict[str, tuple[Any, Any]]:
    """{knob: (the saved value, the one asked for)} of those of `SAME_STEPS` that differ."""
    return {name: both for name, both in _differing(saved, knobs).items() if name in SAME_STEPS}


def _differing(saved: Mapping[str, Any], knobs: Any) -> dict[str, tuple[Any, Any]]:
    asked = json.loads(knobs_to_json(knobs))
    names = sorted((saved.keys() | asked.keys()) - MAY_CHANGE)
    both = {name: tuple(values.get(name, "(none)") for values in (saved, asked)) for name in names}
    return {name: (before, now) for name, (before, now) in both.items() if before != now}
