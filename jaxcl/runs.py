"""A run directory, and the three things one does with it: train, evaluate, look.

RUN_DIR/
  config.py  knobs.json      what was run: the config's text, the value of every knob
  run.json                   versions, devices, when, by which command
  metrics.jsonl  events.*    the curves, as JSON lines and for TensorBoard
  checkpoints/               the newest states, each with a sha256 manifest
  evaluations/NAME.json      a protocol's result with its settings
  plots/  report.html        the pictures
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
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcl import keys
from jaxcl.experiment import (
    Experiment,
    changed_knobs,
    knobs_from_json,
    knobs_to_json,
    load_config,
    same_program,
)
from jaxcl.typing import Array, Images

BASELINES = ("raw pixels", "untrained encoder")
PACKAGES = ("jaxcl", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}


def device() -> str:
    """The devices in words, as "8 x NVIDIA H100" or "1 x cpu (4 cores)"."""
    kind = jax.devices()[0].device_kind
    cores = f" ({os.cpu_count()} cores)" if jax.default_backend() == "cpu" else ""
    return f"{jax.device_count()} x {kind}{cores}"


# --- opening -----------------------------------------------------------------------------------------------------


def create_or_resume(run_dir: str | Path, config: str | Path, knobs: Any) -> Path:
    """Makes a run directory, or checks that the one there is the same run.

    Raises ValueError where a knob or the config's program differs from the run's.
    """
    run_dir, text = Path(run_dir), Path(config).read_text()
    if not (run_dir / "knobs.json").exists():
        run_dir.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            (run_dir / "config.py").write_text(text)
            about = {"config": str(config), "command": sys.argv, "versions": versions(), "device": device()}
            about["started"] = time.strftime("%Y-%m-%d %H:%M:%S")
            (run_dir / "run.json").write_text(json.dumps(about, indent=2) + "\n")
            (run_dir / "knobs.json").write_text(knobs_to_json(knobs))  # last: its presence makes this a run
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
    return run_dir


def open_run(run_dir: str | Path) -> Experiment:
    """The experiment of a run directory, from its own copy of the config."""
    run_dir = Path(run_dir)
    if not (run_dir / "knobs.json").exists():
        raise FileNotFoundError(
            f"{run_dir} is not a run directory: it has no knobs.json. `jaxcl train` makes one."
        )
    config = load_config(run_dir / "config.py")
    return config.experiment(knobs_from_json(config, (run_dir / "knobs.json").read_text()))


class Encoders(NamedTuple):
    """What an evaluation compares, each float images [b, h, w, c] -> features [b, d]."""

    trained: Callable[[Array], Array]
    untrained: Callable[[Array], Array]
    step: int
    classify: Callable[[Array], Array] | None = None  # -> logits, where a classifier was trained along
    parts: Mapping[str, Callable[[Array], Array]] = {}  # of the trained representation


def encoders(experiment: Experiment, run_dir: str | Path) -> Encoders:
    """The run's encoder at its newest good checkpoint, and the same encoder as it was initialised."""
    from jaxcl.train import checkpoint, placement
    from jaxcl.train.loop import first_batch
    from jaxcl.train.state import init_state

    e = experiment
    key = keys.init_key(e.seed)
    fresh = init_state(key, e.method, e.optimizer, first_batch(e))
    fresh = placement.replicate(fresh, placement.make_mesh())
    trained, step = checkpoint.restore(Path(run_dir) / "checkpoints", fresh)
    return Encoders(
        partial(e.method.embed, trained.params, trained.state),
        partial(e.method.embed, fresh.params, fresh.state),
        step,
        None if e.classify is None else partial(e.classify, trained.params, trained.state),
        {name: partial(embed, trained.params, trained.state) for name, embed in (e.parts or {}).items()},
    )


# --- the three verbs ---------------------------------------------------------------------------------------------


def train_run(config: str | Path, knobs: Any, run_dir: str | Path):
    """Trains a config's experiment in `run_dir`, or goes on with the run that is there."""
    from jaxcl.train import train

    module = load_config(config)
    run_dir = create_or_resume(run_dir, config, knobs)
    e = module.experiment(knobs)
    if jax.process_index() == 0:
        print(
            f"{describe(e.train)}\n{e.steps} steps of {e.batch_size} images on {device()}: {run_dir}",
            flush=True,
        )
    return train(e, run_dir=run_dir)


def evaluate_run(
    run_dir: str | Path,
    protocols: Sequence[str] = ("knn", "linear"),
    *,
    baselines: Sequence[str] = BASELINES,
    parts: bool = False,
    data: str | None = None,
    data_dir: str | None = None,
    settings: Mapping[str, Any] | None = None,
    watch: Callable[[str, str, float], None] | None = None,
) -> list[dict[str, Any]]:
    """Runs each protocol on the run's encoder, and on those of `BASELINES` that are asked for.

    Every result is a dict with "encoder", "protocol", "accuracy" (percent), "standard_error" and the protocol's
    settings, and with "labels" where the experiment has several kinds of them; those of one protocol are written to
    evaluations/PROTOCOL.json. A classifier that was trained along is the further protocol "joint".

    baselines
        what stands beside it: "raw pixels", "untrained encoder" (as the run initialised it), both or none.
    parts
        evaluate the parts that the experiment names (`Experiment.parts`) as well.
    data, data_dir
        another data set to evaluate on, as for `data.load` (resized to the run's images; gray ones become RGB if the
        run's are): results then have "data", and lie in evaluations/PROTOCOL@DATA.json. Without data_dir that of the
        run's own knobs serves.
    settings
        keywords that the protocols take beside their own defaults, as {"epochs": 10}; they are in the result.
    watch
        is called now and then with ("protocol, encoder", what is being done, the share of it that is done).
    """
    from jaxcl import evaluate

    run_dir, settings = Path(run_dir), dict(settings or {})
    if strange := [name for name in baselines if name not in BASELINES]:
        raise ValueError(f"There is no baseline {', '.join(strange)}; there are {', '.join(BASELINES)}.")
    unknown = [name for name in protocols if name not in evaluate.PROTOCOLS]
    if unknown:
        raise ValueError(
            f"There is no protocol {', '.join(unknown)}; there are {', '.join(evaluate.PROTOCOLS)}."
        )
    for protocol in protocols:
        parameters = inspect.signature(evaluate.PROTOCOLS[protocol]).parameters
        taken = [name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY]
        taken = [name for name in taken if name not in ("views", "progress")]
        strange = [name for name in settings if name not in taken]
        if strange:
            raise ValueError(
                f"{protocol} has no setting {', '.join(strange)}; it has {', '.join(taken) or 'none'}."
            )
    e = open_run(run_dir)
    if data is not None:
        sets = {"": transfer_sets(e, run_dir, data, data_dir)}
    elif e.test is None:
        raise ValueError(f"The config of {run_dir} gives no test images, so nothing can be evaluated.")
    else:
        sets = dict(e.evaluated or {"": (e.train, e.test)})
    encoder = encoders(e, run_dir)
    beside = dict(zip(BASELINES, (pixels, encoder.untrained), strict=True))
    named = {name: fn for name, fn in beside.items() if name in baselines}
    named[run_dir.name] = encoder.trained
    if parts:
        if not encoder.parts:
            raise ValueError(
                f"The config of {run_dir} names no parts of its representation (Experiment.parts)."
            )
        named |= encoder.parts

    results, folder = [], run_dir / "evaluations"
    folder.mkdir(exist_ok=True)
    where = "" if data is None else "@" + re.sub(r"[^\w.-]+", "_", data)
    for protocol in protocols:
        rows = []
        for name, embed_fn in named.items():
            for labels, (train, test) in sets.items():
                key = jax.random.key(e.seed)
                told = None if watch is None else partial(_told, watch, protocol, name)
                result = evaluate.PROTOCOLS[protocol](
                    key, embed_fn, train, test, views=e.probe_views, progress=told, **settings
                )
                kind = {"labels": labels} if labels else {}
                kind |= {} if data is None else {"data": data}
                rows.append({"encoder": name, "step": encoder.step, **kind, **result})
        (folder / f"{protocol}{where}.json").write_text(json.dumps(rows, indent=2) + "\n")
        results += rows
    if encoder.classify is not None and data is None and e.test is not None:
        row = {"encoder": run_dir.name, "step": encoder.step, **joint(encoder.classify, e.test)}
        (folder / "joint.json").write_text(json.dumps([row], indent=2) + "\n")
        results.append(row)
    return results


def _told(watch: Callable[[str, str, float], None], protocol: str, encoder: str, what: str, share: float):
    watch(f"{protocol}, {encoder}", what, share)


def transfer_sets(e: Experiment, run_dir: Path, data: str, data_dir: str | None) -> tuple[Images, Images]:
    """Training and test images of another data set, in the size and with the channels of the run's."""
    from jaxcl.data import load

    knobs = json.loads((run_dir / "knobs.json").read_text())
    h, w, c = e.train.images.shape[1:]
    if h != w:
        raise ValueError(f"Other data is resized to squares, and the run's images are {h} x {w}.")
    sets = []
    for split in ("train", "test"):
        images = load(data, split, data_dir=data_dir or knobs.get("data_dir"), size=h)
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
    share, n = float(np.mean(right)), len(right)
    error = 100 * (share * (1 - share) / n) ** 0.5
    seconds = time.perf_counter() - start
    return {
        "protocol": "joint",
        "accuracy": 100 * share,
        "standard_error": error,
        "settings": {},
        "seconds": seconds,
    }


def column(row: Mapping[str, Any]) -> str:
    """Where a result stands in a table: its protocol, and which labels or which other data, if that must be said."""
    return ", ".join(row[name] for name in ("protocol", "labels", "data") if name in row)


def evaluations(run_dir: str | Path) -> list[dict[str, Any]]:
    """The results that `evaluate_run` left."""
    return [
        row
        for file in sorted(Path(run_dir, "evaluations").glob("*.json"))
        for row in json.loads(file.read_text())
    ]


def plot_run(run_dir: str | Path, *, points: int = 1000) -> Path:
    """Draws views, curves, a map of the embedding and nearest neighbors; returns the path of the report.

    The maps show the first `points` test images.
    """
    from jaxcl import plot
    from jaxcl.train.log import read_metrics

    run_dir = Path(run_dir)
    e = open_run(run_dir)
    encoder = encoders(e, run_dir)
    figures = []
    if e.views is not None:
        figures.append(
            ("Views: an image, and what the method is asked to find the same.", picture_of_views(e))
        )
    if records := read_metrics(run_dir):
        figures.append(("Training: the raw values, and smoothed over them.", plot.training_curves(records)))
        if any("positive_histogram" in record for record in records):
            figures += pictures_of_scores(records)
    if e.test is not None:
        figures += pictures_of_embedding(e, encoder, points)
    about = json.loads((run_dir / "run.json").read_text())
    knobs = json.loads((run_dir / "knobs.json").read_text())
    summary = [("config", about["config"]), ("steps", str(encoder.step)), ("device", about["device"])]
    tables: list[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = [
        ("Knobs", ("knob", "value"), [(name, str(value)) for name, value in knobs.items()])
    ]
    if results := evaluations(run_dir):
        tables.insert(0, ("Accuracy on test images, percent", *accuracy_table(results)))
    return plot.write_report(
        run_dir / "plots", title=run_dir.name, summary=summary, tables=tables, figures=figures
    )


def picture_of_views(e: Experiment, *, n: int = 8, drawn: bool = False):
    """The first `n` training images beside their views; `drawn`: with what was drawn for each, where views can tell."""
    from jaxcl import augment, plot

    views = e.views
    assert views is not None
    shown = np.arange(min(n, len(e.train.images)))
    batch = {"image": e.train.images[shown], "index": shown.astype(np.int32)}
    key = jax.random.key(e.seed)
    made = jax.device_get(jax.jit(lambda batch: views(key, batch))(batch))
    captions = augment.captions(key, views, batch) if drawn else None
    return plot.views_sheet(visible(batch["image"]), tuple(map(visible, made)), captions=captions)


def pictures_of_scores(records) -> list[tuple[str, Any]]:
    from jaxcl import plot

    return [
        ("Scores of positives and negatives, before the temperature.", plot.score_curves(records)),
        ("How the scores are distributed, over the run.", plot.score_distributions(records)),
    ]


def draw_views(config: str | Path, knobs: Any, out: str | Path, *, n: int = 8) -> Path:
    """A picture in the file `out`: n training images and the views that a config makes of them, with what was drawn.

    Raises ValueError where the config's experiment names no `views`.
    """
    e, out = load_config(config).experiment(knobs), Path(out)
    if e.views is None:
        raise ValueError(
            f"The experiment of {config} names no views (Experiment.views), so none can be drawn."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    picture_of_views(e, n=n, drawn=True).savefig(out, dpi=160, facecolor="white")
    return out


def five_parts_of(config: str | Path, knobs: Any) -> dict[str, list[tuple[str, str]]]:
    """Part -> (role, function with its settings), of the method of a config (`jaxcl.five_parts`)."""
    from jaxcl.five_parts import NAMES, described, five_parts

    e = load_config(config).experiment(knobs)
    parts = five_parts(e.method)
    if e.input is not None:
        parts[NAMES["views"]].append(("input", described(e.input)))
    return parts


def pictures_of_embedding(e: Experiment, encoder: Encoders, points: int) -> list[tuple[str, Any]]:
    """Captions and figures: a map before and after training, and test images with their nearest training images."""
    from jaxcl import evaluate, plot

    assert e.test is not None
    images, classes = e.test.images[:points], e.test.classes
    labels = None if e.test.labels is None else e.test.labels[:points]
    figures = []
    for name, embed_fn in (("untrained", encoder.untrained), ("trained", encoder.trained)):
        features = evaluate.embed(embed_fn, images)
        caption = f"{len(features)} test images as the {name} encoder places them (t-SNE), colored by class."
        figures.append((caption, plot.embedding_map(features, labels, classes=classes, seed=e.seed)))
    bank = evaluate.embed(encoder.trained, e.train.images)
    queries = slice(0, 10)
    index, similarities = evaluate.nearest(bank, features[queries], 8)
    sheet = plot.neighbors_sheet(
        visible(images[queries]),
        visible(e.train.images[index]),
        query_labels=None if labels is None else labels[queries],
        neighbor_labels=None if e.train.labels is None else e.train.labels[index],
        similarities=similarities,
        classes=classes,
    )
    figures.append(
        ("Ten test images, and the training images nearest to them; green: of the same class.", sheet)
    )
    return figures


def accuracy_table(results: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows: an encoder a row, a protocol a column."""
    protocols = list(dict.fromkeys(map(column, results)))
    names = list(dict.fromkeys(row["encoder"] for row in results))
    cells = {(row["encoder"], column(row)): cell(row) for row in results}
    return ("encoder", *protocols), [(name, *(cells.get((name, p), "") for p in protocols)) for name in names]


def cell(row: Mapping[str, Any]) -> str:
    """An accuracy, with its interval where a protocol gives one.

    >>> cell({"accuracy": 67.91}), cell({"accuracy": 67.91, "interval": 0.52})
    ('67.9', '67.9 ± 0.5')
    """
    interval = row.get("interval")
    return f"{row['accuracy']:.1f}" + ("" if interval is None else f" ± {interval:.1f}")


def robustness_table(results: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of what "corruption" found: an encoder a row, a group a column; no rows where it was not run."""
    found = [row for row in results if "groups" in row]
    groups = list(found[0]["groups"]) if found else []
    rows = [
        (
            row["encoder"],
            f"{row['clean_accuracy']:.1f}",
            *(f"{row['groups'][group]:.1f}" for group in groups),
            f"{row['accuracy']:.1f}",
            f"{row['severe']:.1f}",
        )
        for row in found
    ]
    return ("encoder", "clean", *groups, "all", "severity 3 to 5"), rows


def visible(images: np.ndarray) -> np.ndarray:
    """What of the channels can be shown: all of 1 or 3, otherwise the first alone (further ones may hold a code)."""
    return images if images.shape[-1] in (1, 3) else images[..., :1]


def describe(images: Images) -> str:
    """One line about a data set."""
    n, h, w, c = images.images.shape
    classes = (
        f", {len(images.classes)} classes"
        if images.classes
        else ", no labels"
        if images.labels is None
        else ""
    )
    skipped = f", {len(images.skipped)} files skipped" if images.skipped else ""
    return f"{images.name}: {n} images of {h} x {w} x {c}{classes}{skipped}"
