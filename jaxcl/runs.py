"""A run directory: making it, checking it, opening it, training and evaluating in it.

RUN_DIR/
  config.py  knobs.json      what was run: the config's text, the value of every knob
  run.json                   "about" the training images, versions, devices, when, by which command
  metrics.jsonl  events.*    the curves, as JSON lines and for TensorBoard
  checkpoints/               the newest states, each with a sha256 manifest
  evaluations/NAME.json      a protocol's result with its settings
  plots/  report.html        the pictures

Paths among the knobs are recorded absolute, and "about" says what a recipe must know of the images: a run can be opened
from any directory, and without its images.
"""

from __future__ import annotations

import inspect
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxcl.config import (
    CommonKnobs,
    Recipe,
    changed_knobs,
    knobs_from_json,
    knobs_to_json,
    load_config,
    open_data,
    resolved,
    same_program,
)
from jaxcl.tables import describe
from jaxcl.typing import About, Array, Images

if TYPE_CHECKING:
    from jaxcl.data import Data
    from jaxcl.train import Callback

BASELINES = ("raw pixels", "untrained encoder")
PACKAGES = ("jaxcl", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")

# (what is evaluated, what is being done, the fraction of it that is done)
Progress = Callable[[str, str, float], None]


class Run(NamedTuple):
    """An opened run directory. Its images are read when they are asked for: `run.data().train`."""

    dir: Path
    config: ModuleType
    knobs: Any
    about: About
    record: dict[str, Any]  # run.json
    recipe: Recipe

    def data(self) -> Data:
        """Training and test images, still unread."""
        return open_data(self.config, self.knobs)


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}


def device() -> str:
    """The devices in words, as "8 x NVIDIA H100" or "1 x cpu (4 cores)"."""
    kind = jax.devices()[0].device_kind
    cores = f" ({os.cpu_count()} cores)" if jax.default_backend() == "cpu" else ""
    return f"{jax.device_count()} x {kind}{cores}"


# --- making and opening ------------------------------------------------------------------------------------------


def create_or_resume(run_dir: str | Path, config: str | Path, knobs: CommonKnobs, about: About) -> Path:
    """Makes a run directory, or checks that the one there is the same run.

    Raises ValueError where a knob, the config's program or the training images differ from the run's.
    """
    run_dir, text = Path(run_dir), Path(config).read_text()
    if not (run_dir / "knobs.json").exists():
        run_dir.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            (run_dir / "config.py").write_text(text)
            record = {"config": str(config), "command": sys.argv, "about": about._asdict()}
            record |= {"versions": versions(), "device": device()}
            record["started"] = time.strftime("%Y-%m-%d %H:%M:%S")
            (run_dir / "run.json").write_text(json.dumps(record, indent=2) + "\n")
            # Last, and whole at once: its presence makes this a run, which another process may be looking for.
            (run_dir / ".knobs.json").write_text(knobs_to_json(knobs))
            (run_dir / ".knobs.json").replace(run_dir / "knobs.json")
        return run_dir
    changes = changed_knobs(json.loads((run_dir / "knobs.json").read_text()), knobs)
    if changes:
        raise ValueError(
            f"{run_dir} holds a run with other knobs, so it cannot be gone on with:\n  "
            + "\n  ".join(changes)
            + "\nGive the knobs of that run, or another --run-dir."
        )
    if not same_program((run_dir / "config.py").read_text(), text):
        raise ValueError(
            f"{run_dir} holds a run of another version of {config}. Go on with `jaxcl train {run_dir}/config.py"
            f" --run-dir {run_dir}`, or choose another --run-dir."
        )
    recorded = _about(run_dir, json.loads((run_dir / "run.json").read_text()))
    if recorded != about:
        raise ValueError(
            f"The training images of {run_dir} have changed: the run began with {_in_words(recorded)}; now there are"
            f" {_in_words(about)}. Give it the images of before, or choose another --run-dir."
        )
    return run_dir


def open_run(run_dir: str | Path) -> Run:
    """The run in a directory, by its own copy of the config; its images are not touched."""
    run_dir = Path(run_dir)
    if not (run_dir / "knobs.json").exists():
        raise FileNotFoundError(
            f"{run_dir} is not a run directory: it has no knobs.json. `jaxcl train` makes one."
        )
    record = json.loads((run_dir / "run.json").read_text())
    config = load_config(run_dir / "config.py")
    knobs = knobs_from_json(config, (run_dir / "knobs.json").read_text())
    about = _about(run_dir, record)
    return Run(run_dir, config, knobs, about, record, config.recipe(knobs, about))


def _about(run_dir: Path, record: Mapping[str, Any]) -> About:
    if "about" not in record:
        raise ValueError(f'{run_dir}/run.json says nothing "about" the images; an older jaxcl made this run.')
    about = record["about"]
    return About(about["count"], tuple(about["shape"]), tuple(about["classes"]))


def _in_words(about: About) -> str:
    return f"{about.count} images of {' x '.join(map(str, about.shape))}, {len(about.classes)} classes"


def evaluations(run_dir: str | Path) -> list[dict[str, Any]]:
    """The results that `evaluate_run` left."""
    return [
        row
        for file in sorted(Path(run_dir, "evaluations").glob("*.json"))
        for row in json.loads(file.read_text())
    ]


# --- training ----------------------------------------------------------------------------------------------------


def train_run(config: str | Path, knobs: CommonKnobs, run_dir: str | Path, *, anyway: bool = False):
    """Trains the recipe of a config in `run_dir`, or goes on with the run that is there; returns the final state.

    Before the first step it prints what a step needs of this machine. Raises ValueError where that does not fit, unless
    it is to be trained `anyway`.
    """
    from jaxcl import plan
    from jaxcl.train import train

    module, knobs = load_config(config), resolved(knobs)
    data = open_data(module, knobs)
    recipe = module.recipe(knobs, data.about)
    run_dir = create_or_resume(run_dir, config, knobs, data.about)
    images = data.train
    if jax.process_index() == 0:
        print(
            f"{describe(images)}\n{recipe.steps} steps of {recipe.batch_size} images on {device()}: {run_dir}",
            flush=True,
        )
    return train(
        recipe,
        images,
        seed=knobs.seed,
        input=knobs.input,
        placement=knobs.placement,
        log_every=knobs.log_every,
        save_every=knobs.save_every,
        callbacks=online_knn(knobs, recipe, data),
        init=None if knobs.init is None else Path(knobs.init) / "checkpoints",
        run_dir=run_dir,
        ahead=partial(
            plan.ahead,
            batch_size=recipe.batch_size,
            config=str(config),
            refuse=not anyway,
            told=partial(print, flush=True),
        ),
    )


def online_knn(knobs: CommonKnobs, recipe: Recipe, data: Data) -> list[Callback]:
    """Online kNN accuracy as a callback for training, where it is asked for."""
    from jaxcl.evaluate import online_knn
    from jaxcl.train import Callback

    if not knobs.knn_every:
        return []
    if data.test is None:
        raise ValueError(f"--knn-every needs images to test on, and {data.name} has none; set it to 0.")
    every = int(knobs.knn_every * data.about.count // knobs.batch_size)
    bank, queries = data.train, data.test
    if knobs.train_on != "train" and data.evaluated is not None:
        bank, queries = next(iter(data.evaluated.values()))
    return [Callback(max(every, 1), online_knn(recipe.method.embed, bank, queries))]


# --- evaluating --------------------------------------------------------------------------------------------------


def evaluate_run(
    run_dir: str | Path,
    protocols: Sequence[str] = ("knn", "linear"),
    *,
    baselines: Sequence[str] = BASELINES,
    parts: bool = False,
    data: str | None = None,
    data_dir: str | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Runs each protocol on the run's encoder, and on those of `BASELINES` that are asked for.

    Every result is a dict with "encoder", "protocol", "accuracy" (percent), "standard_error" and the protocol's
    settings, and with "labels" where the run's data has several kinds of them; those of one protocol are written to
    evaluations/PROTOCOL.json. A classifier that was trained along is the further protocol "joint".

    baselines
        what stands beside it: "raw pixels", "untrained encoder" (as the run initialised it), both or none.
    parts
        evaluate the parts of the representation that the recipe names (`Recipe.parts`) as well.
    data, data_dir
        another data set to evaluate on, as for `data.load` (resized to the run's images; gray ones become RGB if the
        run's are): results then have "data", and lie in evaluations/PROTOCOL@DATA.json. Without data_dir that of the
        run's own knobs serves.
    settings
        keywords that the protocols take beside their own defaults, as {"epochs": 10}; they are in the result.
    progress
        is called now and then with ("protocol, encoder", what is being done, the fraction of it that is done).

    With several processes all of them must call it: they share the images among them, and process 0 writes.
    """
    from jaxcl import evaluate
    from jaxcl.encoder import encoder_of  # Here: it opens runs by this file.

    run_dir, settings = Path(run_dir), dict(settings or {})
    if strange := [name for name in baselines if name not in BASELINES]:
        raise ValueError(f"There is no baseline {', '.join(strange)}; there are {', '.join(BASELINES)}.")
    _check_protocols(evaluate.PROTOCOLS, protocols, settings)
    run = open_run(run_dir)
    recipe = run.recipe
    sets = images_to_evaluate(run, data, data_dir)
    encoder = encoder_of(run, recipe.method.embed)
    named: dict[str, Callable[[Array], Array]] = {}
    if "raw pixels" in baselines:
        named["raw pixels"] = pixels
    if "untrained encoder" in baselines:
        named["untrained encoder"] = encoder_of(run, recipe.method.embed, untrained=True).embed
    named[run_dir.name] = encoder.embed
    if parts:
        if not recipe.parts:
            raise ValueError(f"The config of {run_dir} names no parts of its representation (Recipe.parts).")
        named |= {name: encoder_of(run, apply).embed for name, apply in recipe.parts.items()}

    folder = run_dir / "evaluations"
    found: dict[str, list[dict[str, Any]]] = {protocol: [] for protocol in protocols}
    first = jax.process_index() == 0
    folder.mkdir(exist_ok=True)
    where = "" if data is None else "@" + re.sub(r"[^\w.-]+", "_", data)
    for i, (name, embed_fn) in enumerate(named.items()):
        # One encoder after the other: its features serve all protocols, and only those of one are kept.
        subjects = evaluate.subjects(embed_fn, sets)
        for protocol, rows in found.items():
            for labels, subject in subjects.items():
                key = jax.random.key(run.knobs.seed)
                report = None if progress is None else partial(progress, f"{protocol}, {name}")
                result = evaluate.PROTOCOLS[protocol](
                    key, subject, views=recipe.probe_views, progress=report, **settings
                )
                kind = {"labels": labels} if labels else {}
                kind |= {} if data is None else {"data": data}
                rows.append({"encoder": name, "step": encoder.step, **kind, **result})
            if first and i + 1 == len(named):
                (folder / f"{protocol}{where}.json").write_text(json.dumps(rows, indent=2) + "\n")
    results = [row for rows in found.values() for row in rows]
    if recipe.classify is not None and data is None:
        classify = encoder_of(run, recipe.classify).embed
        test = next(iter(sets.values()))[1]
        row = {"encoder": run_dir.name, "step": encoder.step, **joint(classify, test)}
        if first:
            (folder / "joint.json").write_text(json.dumps([row], indent=2) + "\n")
        results.append(row)
    return results


def _check_protocols(known: Mapping[str, Any], protocols: Sequence[str], settings: Mapping[str, Any]) -> None:
    unknown = [name for name in protocols if name not in known]
    if unknown:
        raise ValueError(f"There is no protocol {', '.join(unknown)}; there are {', '.join(known)}.")
    for protocol in protocols:
        parameters = inspect.signature(known[protocol]).parameters
        taken = [name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY]
        taken = [name for name in taken if name not in ("views", "progress")]
        strange = [name for name in settings if name not in taken]
        if strange:
            raise ValueError(
                f"{protocol} has no setting {', '.join(strange)}; it has {', '.join(taken) or 'none'}."
            )
        for name, value in settings.items():
            default = parameters[name].default
            if default is not None and kind_of(value) != kind_of(default):
                raise ValueError(
                    f"{protocol}'s setting {name} is a {kind_of(default)}, as {json.dumps(default)}; got {value!r}."
                )


def kind_of(value: Any) -> str:
    """What a setting is, in the words of an error."""
    kinds = {"truth value": bool, "number": int | float, "word": str, "list": list | tuple}
    return next((kind for kind, types in kinds.items() if isinstance(value, types)), "mapping")


def images_to_evaluate(run: Run, data: str | None, data_dir: str | None) -> dict[str, tuple[Images, Images]]:
    """A kind of label -> training and test images that carry it: the run's own, or other data."""
    if data is not None:
        return {"": other_images(run, data, data_dir)}
    try:
        own = run.data()
        sets: dict[str, tuple[Images, Images | None]] = {"": (own.train, own.test)}
        if own.evaluated is not None:
            sets = {kind: (train, test) for kind, (train, test) in own.evaluated.items()}
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"The images of {run.dir} cannot be read, and an evaluation needs labelled images: bring them back, or"
            f" give others with --data. ({error})"
        ) from error
    found = {kind: (train, test) for kind, (train, test) in sets.items() if test is not None}
    if not found:
        raise ValueError(f"The data of {run.dir} has no test images, so nothing can be evaluated.")
    return found


def other_images(run: Run, data: str, data_dir: str | None) -> tuple[Images, Images]:
    """Training and test images of another data set, in the size and with the channels of the run's."""
    from jaxcl.data import load

    h, w, c = run.about.shape
    if h != w:
        raise ValueError(f"Other data is resized to squares, and the run's images are {h} x {w}.")
    sets = []
    for split in ("train", "test"):
        images = load(data, split, data_dir=data_dir or run.knobs.data_dir, size=h)
        found = images.images.shape[3]
        if found == 1 and c == 3:
            images = images._replace(images=np.repeat(images.images, 3, axis=3))
        elif found != c:
            raise ValueError(
                f"The run's encoder takes images with {c} channels; those of {data} have {found}."
            )
        sets.append(images)
    return sets[0], sets[1]


def pixels(images: Array) -> Array:
    """The baseline below all encoders: [b, h, w, c] -> [b, h w c]."""
    return images.reshape(len(images), -1)


def joint(classify: Callable[[Array], Array], test: Images) -> dict[str, Any]:
    """How often a classifier that was trained along is right about the test images, as a protocol's result."""
    from jaxcl import evaluate

    if test.labels is None:
        raise ValueError(f"{test.name} has no labels, so its classifier cannot be evaluated.")
    start = time.perf_counter()
    right = np.argmax(evaluate.embed(classify, test.images), axis=1) == test.labels
    accuracy, n = float(np.mean(right)), len(right)
    error = 100 * (accuracy * (1 - accuracy) / n) ** 0.5
    seconds = time.perf_counter() - start
    return {
        "protocol": "joint",
        "accuracy": 100 * accuracy,
        "standard_error": error,
        "settings": {},
        "seconds": seconds,
    }
