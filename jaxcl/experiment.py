"""A config is a Python file with two names: a frozen dataclass `Knobs`, and `experiment(knobs) -> Experiment`.

The same file serves the command line (the options are made from the dataclass), a notebook
(`experiment(Knobs(temperature=0.1))`) and a run that is picked up again.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import optax

from jaxcl.typing import Array, Batch, Images, Method, PyTree, Views


class Experiment(NamedTuple):
    """Everything a run needs; what a config returns."""

    method: Method
    optimizer: optax.GradientTransformation
    train: Images
    batch_size: int  # global: over all devices of all processes
    steps: int
    test: Images | None = None
    learning_rate: Callable[[int], Any] | None = None  # step -> learning rate, to be logged
    views: Views | None = None  # for pictures; the method has its own
    probe_views: Views | None = None  # what a linear probe trained by SGD sees
    # What is evaluated where it is not (train, test): a kind of label -> training and test images that carry it.
    evaluated: Mapping[str, tuple[Images, Images]] | None = None
    # (params, state, images) -> logits: a classifier that was trained along (methods.with_probe), to be evaluated too.
    classify: Callable[[PyTree, PyTree, Array], Array] | None = None
    # Parts of the representation by name, each as `Method.embed`, to be evaluated on their own: the heads of LooC++.
    parts: Mapping[str, Callable[[PyTree, PyTree, Array], Array]] | None = None
    seed: int = 0
    # Where batches come from: (batch_size, seed, start_step, stop_step, process_index, process_count, by name) -> an
    # iterator of this process's, as data.host_views makes; None: the rows of `train`, as data.batches gives them.
    input: Callable[..., Iterator[Batch]] | None = None
    resident: bool = False  # keep the images of `train` on the devices, and take each batch's rows there
    placement: str = "jit"
    steps_per_call: int = 1  # steps that are compiled and run as one; divides the three numbers below
    log_every: int = 50  # steps
    save_every: int = 1000  # steps
    knn_every: int = 0  # steps between two looks at kNN accuracy; 0: never


def steps_of(epochs: float, images: Images, batch_size: int) -> int:
    """Steps in so many epochs; the last incomplete batch of an epoch is left out."""
    per_epoch = len(images.images) // batch_size
    if per_epoch == 0:
        raise ValueError(
            f"A batch of {batch_size} does not fit into {images.name}'s {len(images.images)} images;"
            " lower --batch-size."
        )
    return round(epochs * per_epoch)


def load_config(path: str | Path) -> ModuleType:
    """The config at `path` as a module, checked to have `Knobs` and `experiment`."""
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
    if not dataclasses.is_dataclass(knobs) or not callable(getattr(module, "experiment", None)):
        raise ValueError(
            f"{path} is not a config: it must define a frozen dataclass `Knobs` and a function `experiment(knobs)`."
        )
    return module


def knobs_to_json(knobs: Any) -> str:
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
