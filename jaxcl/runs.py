"""A run directory: making it, checking it, opening it, training and evaluating in it.

RUN_DIR/
  config.py  knobs.json      what was run: the config's text, the value of every knob
  run.json                   "about" the training images, versions, devices, when, by which command
  trained_on.txt             the files that were trained on, below the folder that --data names; of images in files
  metrics.jsonl  events.*    the curves, as JSON lines and for TensorBoard
  checkpoints/               the newest states, each with a sha256 manifest
  evaluations/NAME.json      a protocol's result with its settings
  plots/  report.html        the pictures

Paths among the knobs are recorded absolute, and "about" says what a recipe must know of the images: a run can be opened
from any directory, and without its images.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxcl import longer
from jaxcl.config import (
    CommonKnobs,
    Recipe,
    changed_knobs,
    check_knobs,
    knobs_from_json,
    knobs_to_json,
    load_config,
    open_data,
    recipe_of,
    resolved,
    same_program,
)
from jaxcl.identity import check_processes, check_same, fingerprint, identity
from jaxcl.owner import owned
from jaxcl.records import check_fits, read_json, read_text
from jaxcl.tables import describe
from jaxcl.trust import is_own, stranger, vouch
from jaxcl.typing import About, Array, Images

if TYPE_CHECKING:
    from jaxcl.data import Data
    from jaxcl.train import Callback, Trained

BASELINES = ("raw pixels", "untrained encoder")
FILES = "trained_on.txt"
OLD_SPLIT = (
    " (An older jaxcl held out every tenth file of a folder without splits, by its place in the list; now a file's name"
    " decides.)"
)
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


def create_or_resume(
    run_dir: str | Path,
    config: str | Path,
    knobs: CommonKnobs,
    about: About,
    files: Sequence[str] = (),
    *,
    besides: Collection[str] = (),
) -> Path:
    """Makes a run directory, or checks that the one there is the same run. One in which nothing was learnt yet, as it
    ended before its first line of the log, is made anew.

    files
        the training images' own, where they have any (`Images.files`).
    besides
        knobs that may differ from the run's.

    Raises ValueError where a knob, the config's program or the training images differ from the run's.
    """
    run_dir, text = Path(run_dir), read_text(config)
    if check_same_run(run_dir, config, knobs, about, files, besides=besides):
        return run_dir
    run_dir.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0:
        (run_dir / "config.py").write_text(text)
        vouch(run_dir, text)
        (run_dir / FILES).unlink(missing_ok=True)
        if files:
            (run_dir / FILES).write_text("".join(f"{file}\n" for file in files), encoding="utf-8")
        record = {"config": str(config), "command": sys.argv, "about": about._asdict()}
        record |= {"versions": versions(), "device": device()}
        record["started"] = time.strftime("%Y-%m-%d %H:%M:%S")
        (run_dir / "run.json").write_text(json.dumps(record, indent=2) + "\n")
        # Last, and whole at once: its presence makes this a run, which another process may be looking for.
        (run_dir / ".knobs.json").write_text(knobs_to_json(knobs))
        (run_dir / ".knobs.json").replace(run_dir / "knobs.json")
    return run_dir


def check_same_run(
    run_dir: Path,
    config: str | Path,
    knobs: CommonKnobs,
    about: About,
    files: Sequence[str] = (),
    *,
    besides: Collection[str] = (),
) -> bool:
    """Whether there is a run that can be gone on with; an error, as of `create_or_resume`, where it is another one."""
    if not (run_dir / "knobs.json").exists() or nothing_learnt(run_dir):
        return False
    changes = changed_knobs(read_json(run_dir / "knobs.json"), knobs, besides=besides)
    if changes:
        raise ValueError(
            f"{run_dir} holds a run with other knobs, so it cannot be gone on with:\n  "
            + "\n  ".join(changes)
            + "\nGive the knobs of that run, or another --run-dir (which --init"
            + f" {run_dir} starts from this one's encoder)."
        )
    if not same_program(read_text(run_dir / "config.py"), read_text(config)):
        raise ValueError(
            f"{run_dir} holds a run of another version of {config}. Go on with `jaxcl train {run_dir}/config.py"
            f" --run-dir {run_dir}`, or choose another --run-dir."
        )
    recorded = _about(run_dir, read_json(run_dir / "run.json"))
    if recorded != about:
        raise ValueError(
            f"The training images of {run_dir} have changed: the run began with {_in_words(recorded)}; now there are"
            f" {_in_words(about)}. Give it the images of before, or choose another --run-dir."
            + ("" if (run_dir / FILES).exists() or not files else OLD_SPLIT)
        )
    before = trained_on(run_dir)
    if before is not None and tuple(files) != before:
        gone, new = sorted(set(before) - set(files)), sorted(set(files) - set(before))
        changes = [
            f"{len(some)} {what}, as {some[0]}" for some, what in ((gone, "gone"), (new, "new")) if some
        ]
        raise ValueError(
            f"The files that {run_dir} is trained on have changed: {'; '.join(changes) or 'their order'}. Give it those"
            f" of before ({run_dir / FILES}), or choose another --run-dir."
        )
    return True


def nothing_learnt(run_dir: Path) -> bool:
    """Whether a run has neither a checkpoint nor a line in its log."""
    log = run_dir / "metrics.jsonl"
    saved = [one for one in (run_dir / "checkpoints").glob("*") if one.name.isdecimal()]
    return not saved and (not log.exists() or log.stat().st_size == 0)


def trained_on(run_dir: Path) -> tuple[str, ...] | None:
    """The files that a run was trained on; None where it does not say: its images are no files, or it is an old one."""
    record = run_dir / FILES
    return tuple(record.read_text(encoding="utf-8").split("\n")[:-1]) if record.exists() else None


def open_run(run_dir: str | Path, *, trust: bool = False) -> Run:
    """The run in a directory, by its own copy of the config; its images are not touched.

    trust
        execute the config whoever made it; otherwise only one's own, or one that is shipped (`jaxcl.trust`).

    Raises ValueError where the config is a stranger's, and where something in the directory is damaged.
    """
    run_dir = Path(run_dir)
    if not (run_dir / "knobs.json").exists():
        raise FileNotFoundError(
            f"{run_dir} is not a run directory: it has no knobs.json. `jaxcl train` makes one."
        )
    record = read_json(run_dir / "run.json")
    about = _about(run_dir, record)
    check_fits(run_dir / "run.json", record, {"config": str, "device": str})
    check_trust(run_dir, trust=trust)
    config = load_config(run_dir / "config.py")
    try:
        knobs = knobs_from_json(config, read_text(run_dir / "knobs.json"))
    except ValueError as error:
        raise ValueError(f"{run_dir / 'knobs.json'} does not fit {run_dir / 'config.py'}: {error}") from error
    try:
        recipe = recipe_of(config, knobs, about)
    except Exception as error:  # whatever a program may raise
        raise ValueError(
            f"{run_dir / 'config.py'} makes no recipe of its knobs: {type(error).__name__}: {error}"
        ) from error
    return Run(run_dir, config, knobs, about, record, recipe)


def check_trust(run_dir: Path, *, trust: bool) -> None:
    """Raises ValueError where a run's config is a stranger's; `trust` makes it one's own. Process 0 decides for all."""
    text, refused = read_text(run_dir / "config.py"), False
    if jax.process_index() == 0:
        refused = not trust and not is_own(run_dir, text)
        if trust:
            vouch(run_dir, text)
    if jax.process_count() > 1:
        refused = bool(multihost_utils.broadcast_one_to_all(np.int32(refused)))
    if refused:
        raise ValueError(stranger(run_dir))


def _about(run_dir: Path, record: Mapping[str, Any]) -> About:
    if "about" not in record:
        raise ValueError(f'{run_dir}/run.json says nothing "about" the images; an older jaxcl made this run.')
    about, file = record["about"], run_dir / "run.json"
    if not isinstance(about, dict) or {"count", "shape", "classes"} - about.keys():
        raise ValueError(
            f'{file} is damaged: "about" should say count, shape and classes of the images; it is {about!r}.'
        )
    check_fits(file, about, {"count": int, "shape": tuple[int, int, int], "classes": tuple[str, ...]})
    return About(about["count"], tuple(about["shape"]), tuple(about["classes"]))


def _in_words(about: About) -> str:
    return f"{about.count} images of {' x '.join(map(str, about.shape))}, {len(about.classes)} classes"


def evaluations(run_dir: str | Path) -> list[dict[str, Any]]:
    """The results that `evaluate_run` left."""
    return [
        row
        for file in sorted(Path(run_dir, "evaluations").glob("*.json"))
        for row in read_json(file, kind=list)
    ]


# --- training ----------------------------------------------------------------------------------------------------


def train_run(config: str | Path, knobs: CommonKnobs, run_dir: str | Path, *, anyway: bool = False):
    """Trains the recipe of a config in `run_dir`, or goes on with the run that is there; returns the final state.

    A finished run is made longer by more epochs (`jaxcl.longer`); everything else must be as it was.

    Before the first step it prints what a step needs of this machine. Raises ValueError where that does not fit, unless
    it is to be trained `anyway`.
    """
    from jaxcl import plan
    from jaxcl.train import train

    check_knobs(knobs)
    module, knobs = load_config(config), resolved(knobs)
    data = open_data(module, knobs)
    recipe = recipe_of(module, knobs, data.about)
    if recipe.steps < 1:
        raise ValueError(
            f"--epochs {knobs.epochs:g} of {data.about.count} images is not one step of {recipe.batch_size}."
        )
    init = starting_point(knobs, recipe)
    # All that the data can be wrong in is found before there is a directory.
    images = data.train
    first = jax.process_index() == 0
    told = partial(print, flush=True) if first else _silent
    for line in (describe(images), *images.notes):
        told(line)
    callbacks = online_knn(knobs, recipe, data, told=told)
    if images.images.shape[3] not in (1, 3):
        told(
            f"Of images with {images.images.shape[3]} channels grayscale, saturation and hue are left as they are;"
            " brightness and contrast of each channel are changed."
        )
    run_dir, text = Path(run_dir), read_text(config)
    with owned(run_dir) if first else nullcontext():
        mine = identity(text, knobs, fingerprint(images))
        check_processes(run_dir, mine)
        more = longer.longer(run_dir, module, knobs, data.about)
        besides = {"epochs"} if more else set()
        check_same_run(run_dir, config, knobs, data.about, images.files, besides=besides)
        check_same(run_dir, mine, knobs, besides=besides)
        if more:
            told(longer.said(more))

        def begin() -> None:
            create_or_resume(run_dir, config, knobs, data.about, images.files, besides=besides)
            if more and first:
                longer.record(run_dir, knobs, more)

        told(f"{recipe.steps} steps of {recipe.batch_size} images on {device()}: {run_dir}")
        return train(
            recipe,
            images,
            seed=knobs.seed,
            input=knobs.input,
            placement=knobs.placement,
            shard_state=knobs.shard_state,
            nonfinite=knobs.nonfinite,
            log_every=knobs.log_every,
            save_every=knobs.save_every,
            keep_every=knobs.keep_every,
            callbacks=callbacks,
            init=init,
            run_dir=run_dir,
            identity=mine,
            begin=begin,
            ahead=partial(
                plan.ahead,
                batch_size=recipe.batch_size,
                config=str(config),
                refuse=not anyway,
                told=partial(print, flush=True),
            ),
        )


def starting_point(knobs: CommonKnobs, recipe: Recipe) -> Path | Callable[[Any], Any] | None:
    """What --init names: the checkpoints of a run, or a file of weights as a function of the state to start with."""
    from jaxcl import weights
    from jaxcl.train import checkpoint

    if knobs.init is None:
        return None
    if weights.is_file(knobs.init):
        told = print if jax.process_index() == 0 else _silent
        return weights.starting_from(knobs.init, recipe.method, carries=recipe.carries, told=told)
    init = Path(knobs.init) / "checkpoints"
    if checkpoint.latest(init) is None:
        raise FileNotFoundError(
            f"--init: there is no checkpoint in {init}; expected a run directory, or a file of weights"
            " (.safetensors, .pth)."
        )
    return init


def train_runs(
    config: str | Path,
    members: Sequence[CommonKnobs],
    run_dirs: Sequence[str | Path],
    *,
    numbers: Sequence[str],
    anyway: bool = False,
) -> list[Trained]:
    """Trains runs that differ in the seed and in these numeric knobs alone, all in one program (`train_together`).

    Each is afterwards a run as `train_run` leaves it. Raises `plan.DoesNotFit` where one program of so many is too
    large for this machine, unless it is to be trained `anyway`.
    """
    from jaxcl import plan
    from jaxcl.train import train_together

    for knobs in members:
        check_knobs(knobs)
    module, members = load_config(config), [resolved(knobs) for knobs in members]
    data = open_data(module, members[0])

    def recipe_with(values: Mapping[str, Any]) -> Recipe:
        return recipe_of(module, dataclasses.replace(members[0], **values), data.about)

    recipes = [recipe_of(module, knobs, data.about) for knobs in members]
    images, text, folders = data.train, read_text(config), [Path(folder) for folder in run_dirs]
    for line in (describe(images), *images.notes):
        print(line, flush=True)
    callbacks = [online_knn(knobs, recipe, data) for knobs, recipe in zip(members, recipes, strict=True)]
    pairs = list(zip(folders, members, strict=True))
    seen = fingerprint(images)
    identities: list[dict[str, Any]] = []

    def begin() -> None:
        for folder, knobs in pairs:
            create_or_resume(folder, config, knobs, data.about, images.files)

    with ExitStack() as owners:
        for folder, knobs in pairs:
            owners.enter_context(owned(folder))
            identities.append(identity(text, knobs, seen))
            check_same_run(folder, config, knobs, data.about, images.files)
            check_same(folder, identities[-1], knobs)
        print(
            f"{len(members)} runs together, {recipes[0].steps} steps of {recipes[0].batch_size} images each, on"
            f" {device()}: {folders[0].parent}",
            flush=True,
        )
        return train_together(
            recipe_with,
            [{name: getattr(knobs, name) for name in numbers} for knobs in members],
            images,
            seeds=[knobs.seed for knobs in members],
            log_every=members[0].log_every,
            save_every=members[0].save_every,
            keep_every=members[0].keep_every,
            callbacks=callbacks,
            run_dirs=folders,
            identities=identities,
            begin=begin,
            ahead=partial(
                plan.ahead,
                batch_size=recipes[0].batch_size,
                config=str(config),
                refuse=not anyway,
                told=partial(print, flush=True),
            ),
        )


def _silent(line: str) -> None:
    pass


def online_knn(
    knobs: CommonKnobs, recipe: Recipe, data: Data, *, told: Callable[[str], None] = print
) -> list[Callback]:
    """Online kNN accuracy as a callback for training, where it is asked for and there are labels for it; where there
    are none, a line says so."""
    from jaxcl.evaluate import online_knn
    from jaxcl.train import Callback

    if not knobs.knn_every:
        return []
    try:
        test = data.test
        if test is None:
            raise ValueError(f"{data.name} has no images to test on.")
        call = online_knn(recipe.method.embed, data.train, test)
    except (ValueError, FileNotFoundError) as error:
        told(f"Without online kNN (--knn-every {knobs.knn_every:g}): {error}")
        return []
    every = int(knobs.knn_every * data.about.count // knobs.batch_size)
    return [Callback(max(every, 1), call)]


# --- evaluating --------------------------------------------------------------------------------------------------


class Unevaluated(ValueError):
    """Some protocols could not be run; `results` are those of the others, which are kept."""

    def __init__(self, why: str, results: list[dict[str, Any]]):
        super().__init__(why)
        self.results = results


def evaluate_run(
    run_dir: str | Path,
    protocols: Sequence[str] = ("knn", "linear"),
    *,
    baselines: Sequence[str] = BASELINES,
    parts: bool = False,
    layers: Sequence[int] = (),
    beside: Sequence[str | Path] = (),
    data: str | None = None,
    data_dir: str | None = None,
    evaluate_on: str | None = None,
    labels: str | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    told: Callable[[str], None] = _silent,
    trust: bool = False,
) -> list[dict[str, Any]]:
    """Runs each protocol on the run's encoder, and on those of `BASELINES` that are asked for.

    Every result is a dict with "encoder", "protocol", "accuracy" (percent), "standard_error" and the protocol's
    settings, and with "labels" where the run's data has several kinds of them; those of one protocol are written to
    evaluations/PROTOCOL.json, each as soon as it is there, the run's own encoder first. A classifier that was trained
    along is the further protocol "joint".

    baselines
        what stands beside it: "raw pixels", "untrained encoder" (as the run initialised it), both or none. Raw pixels
        are projected at random to fewer numbers where a classifier of all of them would take very long; the result
        then has "projected_to".
    parts
        evaluate the parts of the representation that the recipe names (`Recipe.parts`) as well.
    layers
        of the head to evaluate as well, beside the representation h that goes in: 1 is the first, -1 the last, whose
        output z the loss sees. (SimCLR's table 3 and figure 8 compare h and g(h); SimCLRv2 fine-tunes from layer 1.)
    beside
        directories of other runs, whose encoders are evaluated on the same images: a supervised run of the same
        encoder as a reference, say. Their images must be of the same shape.
    data, data_dir
        another data set to evaluate on, as for `data.load` (resized to the run's images; gray ones become RGB if the
        run's are): results then have "data", and lie in evaluations/PROTOCOL@DATA.json. Without data_dir that of the
        run's own knobs serves.
    evaluate_on, labels
        another split to test on, and another file of labels, than the run's knobs name.
    settings
        keywords that the protocols take beside their own defaults, as {"epochs": 10}; each goes to the protocols that
        have it, and is in the result.
    progress
        is called now and then with ("protocol, encoder", what is being done, the fraction of it that is done).
    told
        gets a line for each result, and for what else is to be known: test images that were trained on are left out.

    trust
        execute the run's config whoever made it (`open_run`).

    Raises `Unevaluated`, a ValueError, at the end where some protocols could not be run.
    With several processes all of them must call it: they share the images among them, and process 0 writes.
    """
    from jaxcl import evaluate
    from jaxcl.encoder import at_layer, encoder_of  # Here: it opens runs by this file.

    run_dir, settings = Path(run_dir), dict(settings or {})
    if strange := [name for name in baselines if name not in BASELINES]:
        raise ValueError(f"There is no baseline {', '.join(strange)}; there are {', '.join(BASELINES)}.")
    taken = _settings_taken(evaluate.PROTOCOLS, protocols, settings)
    run = open_run(run_dir, trust=trust)
    recipe = run.recipe
    sets = images_to_evaluate(run, data, data_dir, evaluate_on=evaluate_on, labels=labels)
    sets = _without_trained_on(run, sets, data, told)
    encoder = encoder_of(run, recipe.method.embed)
    # One's own first: the answer that one waits for.
    named: dict[str, Callable[[Array], Array]] = {run_dir.name: encoder.embed}
    if parts:
        if not recipe.parts:
            raise ValueError(f"The config of {run_dir} names no parts of its representation (Recipe.parts).")
        named |= {name: encoder_of(run, apply).embed for name, apply in recipe.parts.items()}
    named |= {f"layer {k} of the head": encoder_of(run, at_layer(run, k)).embed for k in layers}
    steps = dict.fromkeys(named, encoder.step)
    for other in beside:
        theirs = open_run(other, trust=trust)
        if theirs.about.shape != run.about.shape or Path(other).name in named:
            raise ValueError(
                f"{other} cannot stand beside {run_dir}: it needs images of the same shape"
                f" ({theirs.about.shape}, {run.about.shape}) and a name of its own among {', '.join(named)}."
            )
        found_there = encoder_of(theirs, theirs.recipe.method.embed)
        named[Path(other).name], steps[Path(other).name] = found_there.embed, found_there.step
    if "untrained encoder" in baselines:
        steps["untrained encoder"] = encoder.step
        named["untrained encoder"] = encoder_of(run, recipe.method.embed, untrained=True).embed
    width = None
    if "raw pixels" in baselines:
        steps["raw pixels"] = encoder.step
        width = projection_width(sets, protocols)
        named["raw pixels"] = pixels if width is None else projected_pixels(width)
        if width is not None:
            told(
                f"The raw pixels are projected at random to {width} numbers an image: a classifier of all of them would"
                " take very long. --baselines untrained leaves them out."
            )

    shown = [*BASELINES, *(name for name in named if name not in BASELINES)]  # in files and tables

    folder = run_dir / "evaluations"
    found: dict[str, list[dict[str, Any]]] = {protocol: [] for protocol in protocols}
    failed: dict[str, str] = {}
    first = jax.process_index() == 0
    folder.mkdir(exist_ok=True)
    where = "" if data is None else "@" + re.sub(r"[^\w.-]+", "_", data)
    for name, embed_fn in named.items():
        # One encoder after the other: its features serve all protocols, and only those of one are kept.
        subjects = evaluate.subjects(embed_fn, sets)
        for protocol, rows in found.items():
            for kind, subject in subjects.items():
                if protocol in failed:
                    continue
                key = jax.random.key(run.knobs.seed)
                report = None if progress is None else partial(progress, f"{protocol}, {name}")
                try:
                    result = evaluate.PROTOCOLS[protocol](
                        key, subject, views=recipe.probe_views, progress=report, **taken[protocol]
                    )
                except (ValueError, FloatingPointError) as error:
                    failed[protocol] = f"{protocol}: {error}"
                    if len(protocols) > 1:
                        told(failed[protocol])
                    continue
                more: dict[str, Any] = {"labels": kind} if kind else {}
                more |= {} if data is None else {"data": data}
                more |= {} if evaluate_on is None else {"evaluated_on": evaluate_on}
                more |= {"projected_to": width} if name == "raw pixels" and width is not None else {}
                rows.append({"encoder": name, "step": steps[name], **more, **result})
                rows.sort(key=lambda row: shown.index(row["encoder"]))
                told(f"{protocol}, {name}{f', {kind}' if kind else ''}: {result['accuracy']:.1f} %")
                if first:
                    (folder / f"{protocol}{where}.json").write_text(json.dumps(rows, indent=2) + "\n")
    results = [row for rows in found.values() for row in rows]
    if recipe.classify is not None and data is None:
        classify = encoder_of(run, recipe.classify).embed
        test = next(iter(sets.values()))[1]
        row = {"encoder": run_dir.name, "step": encoder.step, **joint(classify, test)}
        if first:
            (folder / "joint.json").write_text(json.dumps([row], indent=2) + "\n")
        results.append(row)
    if failed:
        raise Unevaluated(" ".join(failed.values()), results)
    return results


def _settings_taken(
    known: Mapping[str, Any], protocols: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The settings that each protocol takes. Raises ValueError for an unknown protocol, for a setting that none of them
    has, and for words where a number is taken."""
    unknown = [name for name in protocols if name not in known]
    if unknown:
        raise ValueError(f"There is no protocol {', '.join(unknown)}; there are {', '.join(known)}.")
    taken: dict[str, dict[str, Any]] = {}
    has: dict[str, list[str]] = {}
    for protocol in protocols:
        parameters = inspect.signature(known[protocol]).parameters
        own = {n: p.default for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
        has[protocol] = [name for name in own if name not in ("views", "progress")]
        taken[protocol] = {name: value for name, value in settings.items() if name in has[protocol]}
        for name, value in taken[protocol].items():
            default = own[name]
            # What the protocol itself fills in has no default to compare with.
            if default not in (None, inspect.Parameter.empty) and kind_of(value) != kind_of(default):
                raise ValueError(
                    f"{protocol}'s setting {name} is a {kind_of(default)}, as {json.dumps(default)}; got {value!r}."
                )
    strange = [name for name in settings if not any(name in names for names in has.values())]
    if strange:
        lists = "; ".join(
            f"{name} has no setting {', '.join(strange)}; it has {', '.join(names) or 'none'}"
            for name, names in has.items()
        )
        raise ValueError(f"{lists}.")
    return taken


def kind_of(value: Any) -> str:
    """What a setting is, in the words of an error."""
    kinds = {"truth value": bool, "number": int | float, "word": str, "list": list | tuple}
    return next((kind for kind, types in kinds.items() if isinstance(value, types)), "mapping")


def _without_trained_on(
    run: Run,
    sets: dict[str, tuple[Images, Images]],
    data: str | None,
    told: Callable[[str], None],
) -> dict[str, tuple[Images, Images]]:
    """The same without those test images that the run was trained on, and a line about them."""
    from jaxcl.data import take

    own, spec = trained_on(run.dir), run.knobs.data
    if own is None:
        if any(test.files for _, test in sets.values()) and data is None and spec.startswith("folder:"):
            told(
                f"{run.dir} does not record which files it was trained on, as an older jaxcl made it; where a folder"
                " has no splits, test images may be among them."
            )
        return sets
    root = os.path.realpath(spec.partition(":")[2])
    here = root if data is None else os.path.realpath(os.path.expanduser(data.partition(":")[2]))
    known = {os.path.join(root, file) for file in own}
    made = {}
    for kind, (train, test) in sets.items():
        rows = [i for i, file in enumerate(test.files) if os.path.join(here, file) not in known]
        seen = len(test.files) - len(rows)
        if seen and not rows:
            told(f"All {seen} test images were trained on: their accuracy is not that of new images.")
        elif seen:
            told(f"{seen} of {len(test.files)} test images were trained on, and are left out.")
            test = take(test, np.array(rows))
        made[kind] = train, test
    return made


# Numbers of all training images' pixels times the classes, beyond which a linear classifier of them takes many minutes
# on a few cores. CIFAR-10 has 1.5e9.
MOST_WORK = 2_000_000_000


def projection_width(sets: Mapping[str, tuple[Images, Images]], protocols: Sequence[str]) -> int | None:
    """To how many numbers raw pixels are projected; None: not at all, as for few images or where kNN alone is asked."""
    if all(protocol.startswith("knn") for protocol in protocols):
        return None
    width = None
    for train, _ in sets.values():
        n, h, w, c = train.images.shape
        classes = 1 if train.labels is None else len(np.unique(train.labels))
        if n * h * w * c * classes > MOST_WORK:
            width = min(h * w * c, max(64, MOST_WORK // (n * classes)), width or h * w * c)
    return width


def projected_pixels(width: int) -> Callable[[Array], Array]:
    """[b, h, w, c] -> [b, width], by a fixed matrix of independent N(0, 1 / width): distances are kept on average."""

    def project(images: Array) -> Array:
        flat = pixels(images)
        matrix = jax.random.normal(jax.random.key(0), (flat.shape[1], width)) * width**-0.5
        return (flat - 0.5) @ matrix

    return project


def images_to_evaluate(
    run: Run,
    data: str | None,
    data_dir: str | None,
    *,
    evaluate_on: str | None = None,
    labels: str | None = None,
) -> dict[str, tuple[Images, Images]]:
    """A kind of label -> training and test images that carry it: the run's own, or other data."""
    if data is not None:
        return {"": other_images(run, data, data_dir, evaluate_on=evaluate_on or "test", labels=labels)}
    changed = {"evaluate_on": evaluate_on, "labels": labels}
    knobs = dataclasses.replace(run.knobs, **{name: v for name, v in changed.items() if v is not None})
    run = run._replace(knobs=resolved(knobs))
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


def other_images(
    run: Run,
    data: str,
    data_dir: str | None,
    *,
    evaluate_on: str = "test",
    labels: str | None = None,
) -> tuple[Images, Images]:
    """Training and test images of another data set, in the size and with the channels of the run's."""
    from jaxcl.data import load

    h, w, c = run.about.shape
    if h != w:
        raise ValueError(f"Other data is resized to squares, and the run's images are {h} x {w}.")
    sets = []
    for split in ("train", evaluate_on):
        images = load(data, split, data_dir=data_dir or run.knobs.data_dir, size=h, labels=labels)
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
    logits = evaluate.embed(classify, test.images)
    classes = np.arange(logits.shape[1])
    found = evaluate.hits(evaluate.ranked(logits, classes), test.labels, len(classes))
    accuracy, n = float(found.first.mean()), len(logits)
    error = 100 * (accuracy * (1 - accuracy) / n) ** 0.5
    seconds = time.perf_counter() - start
    return {
        "protocol": "joint",
        "accuracy": 100 * accuracy,
        "standard_error": error,
        **evaluate.figures(found, test.labels, names=test.classes),
        "settings": {},
        "seconds": seconds,
    }
