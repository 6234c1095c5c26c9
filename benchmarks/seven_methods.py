"""Seven methods of the five-part framework on CIFAR-10 at equal compute, each at the best of four learning rates.

    python benchmarks/seven_methods.py --data-dir DATA_DIR [--core 0 1] [--work DIR] [--method NAME ...]

All have the encoder of configs/simclr_cifar10_cpu.py with 16 to 128 channels, where the method allows one: CMC has two
of half the width, CPC one of patches. What a method has that is not its own is in its name.

1. The FLOPs of an image are counted in each method's compiled training step, and epochs are chosen so that all methods
   take as many FLOPs as SimCLR takes in six epochs. Seconds are printed beside them.
2. Each is trained at a third of its config's learning rate, at it, at three times and at nine times it, seed 100, on
   45,000 training images; the rate is the one whose linear accuracy, of 128 principal components, is best on the 5,000
   others. A run that diverges loses.
3. Each is trained at its rate on all training images, seeds 0, 1 and 2, and evaluated once on the test images: its own
   features, and their first 128 principal components (of the training images' features; no labels are used). Beside
   them the same of the encoder as that seed began, and of raw pixels.

One run a core at a time, 49 in all, of five minutes each. What a run reached is kept as results/seven-methods/NAME.json
and is not done again; delete the file to have it anew. A run that was stopped goes on. The table is written anew after
each run, in WORK/seven_methods.md, and says which runs are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from contenders import processor
from five_parts import measured_step, on_cores, options, path_of, start_logged, table_of
from robustness import in_words

from jaxcl.config import load_config
from jaxcl.records import write_whole
from jaxcl.statistics import paired_difference
from jaxcl.tables import mean_and_interval
from jaxcl.train.finite import FOLDER as NONFINITE
from jaxcl.train.log import read_metrics

SIMCLR_EPOCHS = 6
RATES = (
    1 / 3,
    1.0,
    3.0,
    9.0,
)  # times the config's own; of the first three the last was best for all methods
KEPT = Path(__file__).resolve().parent / "results" / "seven-methods"
TRYING, SEEDS = 100, (0, 1, 2)
WIDTH = 128
IMAGES = 50_000
HELD_OUT = 5_000
UNITS = {"flops": 1e12, "seconds": 1.0}

CONVNET = {"features": "16,32,64,128", "batch_size": "256"}
SHARED = {"encoder": "convnet", "channels": "16,32,64,128", "out": "128", "batch_size": "128"}
METHODS = {
    "SimCLR": ("simclr", CONVNET),
    "MoCo v2, SimCLR's head": ("moco", CONVNET | {"head": "projection"}),
    "BYOL, normed projection": ("byol", CONVNET | {"batch_size": "64"}),
    "AMDIM, SimCLR's encoder": ("amdim", SHARED),
    "CPC v2, encoder of patches": ("cpc", {"features": "16,32,64", "hidden": "64", "batch_size": "32"}),
    "CMC, two encoders of half the width": ("cmc", {"features": "8,16,32,64", "batch_size": "256"}),
    "YADIM, SimCLR's encoder": ("yadim", SHARED),
}

FIRST = "SimCLR"  # what the others are compared with

# What of a method is not its paper's, beside encoder, length and AdamW with a cosine, which all of them have here.
CHANGED = {
    "SimCLR": "nothing more",
    "MoCo v2, SimCLR's head": "4,096 keys, a moving average of 0.99, batch norm in groups of the batch",
    "BYOL, normed projection": "batches of 64, a target that follows at 0.9, a norm behind the projector",
    "AMDIM, SimCLR's encoder": "its vector goes through a network, as the maps do",
    "CPC v2, encoder of patches": "a row predicts the next three, patches are changed one by one",
    "CMC, two encoders of half the width": "negatives and a softmax of the batch, in place of a memory and NCE",
    "YADIM, SimCLR's encoder": "a network embeds the positions that are compared",
}


class Run(NamedTuple):
    """A training at one rate and with one seed; `times` is the rate over its config's own."""

    method: str
    times: float
    seed: int

    def folder(self, work: Path) -> Path:
        return work / f"{METHODS[self.method][0]},times={self.times:.2f},seed={self.seed}"

    def result(self) -> dict[str, Any] | None:
        file = kept(self.folder(KEPT))
        return json.loads(file.read_text()) if file.exists() else None


def kept(folder: Path) -> Path:
    """Where the result of a run is, or will be."""
    return KEPT / f"{folder.name}.json"


def keep(folder: Path, result: dict[str, Any]) -> None:
    """With the settings by which a later start knows whether it would make the same run."""
    import jax

    knobs = json.loads((folder / "knobs.json").read_text())
    made = {name: knobs[name] for name in ("epochs", "learning_rate", "batch_size")}
    write_whole(kept(folder), json.dumps({"made": made | {"jax": jax.__version__}} | result, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", help="where TFDS prepared CIFAR-10")
    parser.add_argument("--core", nargs="+", type=int, default=list(range(os.cpu_count() or 1)))
    parser.add_argument("--work", type=Path, default=Path("runs/seven_methods"))
    parser.add_argument("--method", nargs="+", choices=list(METHODS), default=list(METHODS), metavar="NAME")
    parser.add_argument("--score", type=Path, help="for the script itself: a run")
    own = parser.parse_args()
    own.work.mkdir(parents=True, exist_ok=True)
    KEPT.mkdir(exist_ok=True)
    own.steps = KEPT / "steps.json"
    if own.score is None:
        measure(own)
    elif own.score == Path("pixels"):
        write_whole(kept(own.score), json.dumps(score_pixels(own), indent=2) + "\n")
    else:
        keep(own.score, score(own.score))


def measure(own: argparse.Namespace) -> None:
    """All runs that are not there yet, and the table."""
    held_out(own)
    # Steps are timed before runs share the machine.
    budget = SIMCLR_EPOCHS * flops_an_image("SimCLR", own)
    epochs = {name: budget / flops_an_image(name, own) for name in own.method}
    tried = [Run(name, times, TRYING) for times in (1.0, *RATES[:1], *RATES[2:]) for name in own.method]
    train(tried, epochs, own)
    chosen = {name: best(name) for name in own.method}
    if not kept(Path("pixels")).exists():
        data = [] if own.data_dir is None else ["--data-dir", own.data_dir]
        command = [sys.executable, __file__, *data, "--score", "pixels"]
        start_logged(command, own.core[0], own.work / "pixels.log")
    runs = [Run(name, times, seed) for seed in SEEDS for name, times in chosen.items() if times is not None]
    train(runs, epochs, own)
    write(epochs, own)


def flops_an_image(name: str, own: argparse.Namespace) -> float:
    step = measured_step(*METHODS[name], own)
    return step["flops"] / step["batch_size"]


def best(name: str) -> float | None:
    """The rate that is best on held-out training images, as a factor; None while one of them is missing, or where all
    have diverged."""
    found = [Run(name, times, TRYING).result() for times in RATES]
    reached = {
        times: result["projected"]["linear"]
        for times, result in zip(RATES, found, strict=True)
        if result and "diverged" not in result
    }
    return max(reached, key=lambda times: reached[times]) if all(found) and reached else None


# --- scores, in a process of their own -------------------------------------------------------------------------------


def score(folder: Path) -> dict[str, Any]:
    """Accuracies in percent of a run's features, and of their principal components. Of a rate that is tried its own
    features have no linear accuracy, which takes CPC's 3,136 eight minutes."""
    import jaxcl
    from jaxcl import evaluate
    from jaxcl.runs import open_run

    run = open_run(folder)
    train, test = run.data().train, run.data().test
    labels = (train.labels, test.labels)

    def features(**which: Any) -> tuple[np.ndarray, np.ndarray]:
        encoder = jaxcl.load_encoder(folder, **which)
        return evaluate.embed(encoder, train.images), evaluate.embed(encoder, test.images)

    last, own = list(read_metrics(folder))[-1], features()
    tried = run.knobs.seed == TRYING
    found = {"step": last["step"], "loss": last["loss"], "own": accuracies(*own, *labels, linear=not tried)}
    found["projected"] = accuracies(*projected(*own), *labels)
    if not tried:
        found["untrained"] = accuracies(*projected(*features(untrained=True)), *labels)
    return found


def score_pixels(own: argparse.Namespace) -> dict[str, Any]:
    """The same of raw pixels."""
    from jaxcl.data import load

    train, test = (load("tfds:cifar10", split, data_dir=own.data_dir) for split in ("train", "test"))
    flat = [np.float32(some.images).reshape(len(some.images), -1) / 255 for some in (train, test)]
    labels = (train.labels, test.labels)
    return {
        "own": accuracies(*flat, *labels, linear=False),
        "projected": accuracies(*projected(*flat), *labels),
    }


def accuracies(
    bank: np.ndarray, queries: np.ndarray, bank_labels: Any, labels: Any, *, linear: bool = True
) -> dict[str, float]:
    from jaxcl import evaluate

    near = evaluate.knn_accuracy(bank, bank_labels, queries, labels, k=10)
    found = {"width": bank.shape[1], "knn": 100 * near}
    if linear:
        found["linear"] = 100 * evaluate.linear_probe(bank, bank_labels, queries, labels).accuracy
    return found


def projected(bank: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in the first principal components of the bank, in the order of their variances."""
    center = bank.mean(0)
    x = (bank - center).astype(np.float64)
    axes = np.linalg.eigh(x.T @ x)[1][:, ::-1][:, :WIDTH].astype(np.float32)
    return (bank - center) @ axes, (queries - center) @ axes


# --- running and writing ---------------------------------------------------------------------------------------------


def held_out(own: argparse.Namespace) -> Path:
    """An archive whose training images lack 5,000, drawn by a fixed seed, which are its test images."""
    from jaxcl.data import load

    file = own.work / "held_out.npz"
    if not file.exists():
        whole = load("tfds:cifar10", "train", data_dir=own.data_dir)
        order = np.random.default_rng(0).permutation(len(whole.images))
        parts = {"test": np.sort(order[:HELD_OUT]), "train": np.sort(order[HELD_OUT:])}
        arrays = {f"{part}_images": whole.images[rows] for part, rows in parts.items()}
        arrays |= {f"{part}_labels": whole.labels[rows] for part, rows in parts.items()}
        np.savez(file.with_suffix(".partial.npz"), **arrays)
        file.with_suffix(".partial.npz").rename(file)
    return file


def train(runs: list[Run], epochs: dict[str, float], own: argparse.Namespace) -> None:
    """Trains and scores what is not there yet, one run a core at a time, and writes the table after each."""

    def one(run: Run, core: int) -> None:
        folder = run.folder(own.work)
        log = Path(f"{folder}.log")
        try:
            start_logged(command_of(run, epochs[run.method], own), core, log)
        except subprocess.CalledProcessError:
            if not (folder / NONFINITE).exists():
                raise
            keep(folder, {"diverged": True})
        else:
            start_logged([sys.executable, __file__, "--score", str(folder)], core, log)
        write(epochs, own)

    for run in runs:
        check_made(run, epochs[run.method])
    on_cores(own.core, [partial(one, run) for run in runs if run.result() is None])


def check_made(run: Run, epochs: float) -> None:
    """Ends with a sentence where a kept result is of other settings than this run would have."""
    result = run.result()
    if result is None:
        return
    made = result["made"]
    for name, wanted in length_and_rate(run, epochs).items():
        if float(wanted) != made[name]:
            raise SystemExit(
                f"{kept(run.folder(KEPT))} is of {name} {made[name]}, and this run has {wanted}. Delete it to have it"
                " anew."
            )


def length_and_rate(run: Run, epochs: float) -> dict[str, str]:
    """The knobs that are this experiment's, as the command line has them."""
    rate = run.times * load_config(path_of(METHODS[run.method][0])).Knobs().learning_rate
    return {"epochs": f"{epochs:.3f}", "learning_rate": f"{rate:.3g}"}


def command_of(run: Run, epochs: float, own: argparse.Namespace) -> list[str]:
    """`jaxcl train` of a run: of a rate that is tried without the held-out images, else with all training images."""
    config, knobs = METHODS[run.method]
    words: dict[str, str | list[str]] = {knob: value.split(",") for knob, value in knobs.items()}
    words |= length_and_rate(run, epochs) | {"seed": str(run.seed)}
    words |= {"input": "resident", "run_dir": str(run.folder(own.work))}
    if run.seed == TRYING:
        words["data"] = f"npz:{held_out(own)}"
    elif own.data_dir is not None:
        words["data_dir"] = own.data_dir
    return [sys.executable, "-m", "jaxcl", "train", str(path_of(config)), *options(words)]


def write(epochs: dict[str, float], own: argparse.Namespace) -> None:
    """The tables as far as they are measured, for a person to put words around."""
    import jax

    rows, rates, gains, missing = [], [], [], []
    reached: dict[str, dict[int, dict[str, Any]]] = {}
    for name in epochs:
        times, step = best(name), measured_step(*METHODS[name], own)
        tried = [Run(name, factor, TRYING).result() for factor in RATES]
        rates.append([name, *map(tried_cell, tried)])
        if times is None:
            missing.append(f"{name}: {tried.count(None)} of {len(RATES)} rates")
            continue
        there = {seed: result for seed in SEEDS if (result := Run(name, times, seed).result())}
        if len(there) < len(SEEDS):
            missing.append(f"{name}: {len(SEEDS) - len(there)} of {len(SEEDS)} seeds")
        reached[name] = {seed: result for seed, result in there.items() if "diverged" not in result}
        found = list(reached[name].values())
        if not found:
            continue
        images = epochs[name] * IMAGES
        edge = " (the outermost)" if times in (RATES[0], RATES[-1]) else ""
        rows.append([name, f"{times:.2g}{edge}", f"{epochs[name]:.1f}", str(step["batch_size"])])
        rows[-1] += [
            f"{images * step[unit] / step['batch_size'] / scale:.0f}" for unit, scale in UNITS.items()
        ]
        rows[-1] += [f"{step['parameters'] / 1e6:.2f}", str(found[0]["own"]["width"])]
        rows[-1] += [
            mean_and_interval([each["own"][protocol] for each in found]) for protocol in ("knn", "linear")
        ]
        gains.append([name])
        for protocol in ("knn", "linear"):
            for kind in ("projected", "untrained"):
                gains[-1].append(mean_and_interval([each[kind][protocol] for each in found]))
            by_seed = [each["projected"][protocol] - each["untrained"][protocol] for each in found]
            gains[-1].append(mean_and_interval(by_seed))
    if (pixels := kept(Path("pixels"))).exists():
        raw = json.loads(pixels.read_text())
        knn, linear = (f"{raw['projected'][protocol]:.1f}" for protocol in ("knn", "linear"))
        gains.append(["raw pixels", knn, "", "", linear, "", ""])
        rows.append(["raw pixels", *[""] * 6, str(raw["own"]["width"]), f"{raw['own']['knn']:.1f}", ""])
    header = ["method", "rate, times its config's", "epochs", "batch", "TFLOP", "seconds of its steps, alone"]
    header += ["parameters, million", "features", "kNN", "linear"]
    tables = ["Its own features:", table_of(header, rows), f"Their first {WIDTH} principal components:"]
    header = ["method", "kNN", "untrained", "gain, seed by seed", "linear", "untrained", "gain, seed by seed"]
    tables += [
        table_of(header, gains),
        f"{FIRST} subtracted, seed by seed: 95 % intervals, p of a paired t test, corrected for all of these (Holm):",
        table_of(["method", "kNN", "linear"], less_the_first(reached)),
        f"Linear accuracy of {WIDTH} components on held-out training images, by rate:",
    ]
    tables.append(table_of(["method", *(f"x {factor:.2g}" for factor in RATES)], rates))
    tables.append("What is changed beside encoder, length and optimizer:")
    tables.append("\n".join(f"- {name}: {CHANGED[name]}." for name in epochs))
    if missing:
        tables.append("Missing: " + "; ".join(missing) + ".")
    tables.append(
        f"`python benchmarks/seven_methods.py`, one core a run of {processor()}, {len(own.core)} runs at a time; Python"
        f" {sys.version.split()[0]}, jax {jax.__version__}, {time.strftime('%Y-%m-%d')}."
    )
    write_whole(own.work / "seven_methods.md", "\n\n".join(tables) + "\n")


def less_the_first(reached: Mapping[str, Mapping[int, dict[str, Any]]]) -> list[list[str]]:
    """Rows: of every other method what its components reach more than those of the first, with the same seed."""

    def by_seed(name: str, protocol: str) -> dict[str, float]:
        return {str(seed): result["projected"][protocol] for seed, result in reached.get(name, {}).items()}

    others = [name for name in reached if name != FIRST]
    said = in_words(
        {
            (name, protocol): paired_difference(by_seed(FIRST, protocol), by_seed(name, protocol))
            for name in others
            for protocol in ("knn", "linear")
        }
    )
    return [[name, said[name, "knn"], said[name, "linear"]] for name in others]


def tried_cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return ""
    return "diverged" if "diverged" in result else f"{result['projected']['linear']:.1f}"


if __name__ == "__main__":
    main()
