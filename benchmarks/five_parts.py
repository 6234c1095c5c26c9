"""The five-part framework on CIFAR-10: seven methods in minutes, and how much hangs on encoder and extraction.

    python benchmarks/five_parts.py methods --data-dir DATA_DIR [--seed 0 1 2] [--core 0 1 2 3] [--work DIR]
    python benchmarks/five_parts.py robustness --data-dir DATA_DIR ...

Every run is a `jaxcl sweep` on one core, printed when it starts and left under --work; what is there already is not
done again, so that a benchmark that was stopped goes on. What the runs of `robustness` reached is kept as
results/robustness/NAME.json, and not done again either; delete the file to have it anew. The tables are printed and
left in WORK as well, with a picture for `robustness`; benchmarks/results has them with words around. On four cores
either takes an hour or two. (benchmarks/seven_methods.py compares the methods at equal compute and chosen learning
rates.)

`methods` also times a training step of every method, one after the other when all runs have ended, and reads what
memory it takes off the compiled program.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from contenders import ONE_THREAD, pin, processor

from jaxcl.cli import knobs_of, words_of
from jaxcl.config import load_config, open_data
from jaxcl.statistics import paired_difference
from jaxcl.tables import mean_and_interval, mean_and_spread
from jaxcl.train.log import read_metrics

HOUSE = Path(__file__).parents[1]
PROTOCOLS = ("knn", "linear")
IMAGES = 50_000

# Each with its own small encoder, for as many epochs as fit into about the same time.
SMALL = {"features": "16,32,64,128", "batch_size": "256"}
METHODS = {
    "SimCLR": ("simclr", SMALL | {"epochs": "4"}),
    "MoCo v2": ("moco", SMALL | {"epochs": "6", "head": "projection"}),
    "BYOL": ("byol", SMALL | {"batch_size": "64", "epochs": "6"}),
    "AMDIM": ("amdim", {"features": "16", "out": "128", "batch_size": "128", "epochs": "1"}),
    "CPC v2": (
        "cpc",
        {"features": "16,32,64", "hidden": "64", "batch_size": "32", "represent": "flat", "epochs": "1"},
    ),
    "CMC": ("cmc", {"epochs": "4"}),
    "YADIM": ("yadim", {"batch_size": "128", "epochs": "2"}),
}

# What is exchanged, one at a time; the first of each is the method's own. Every map that is compared goes through a
# network, AMDIM's vector too (--embed-vector), so that no encoder is compared with fewer; and what is evaluated is the
# average of the encoder's last map in all of them, whatever was compared. 1,640 training steps.
SAME = {"features": "16", "out": "128", "batch_size": "64", "epochs": "2.1"}
ENCODERS = ("amdim", "convnet", "conv_n", "small_resnet18")
ROBUSTNESS = {
    "AMDIM": (
        "amdim",
        SAME | {"embed_vector": "True"},
        {"encoder": ENCODERS, "extraction": ("scales", "global_small", "local", "last")},
    ),
    "YADIM": ("yadim", SAME, {"encoder": ENCODERS, "extraction": ("last", "average", "larger", "random")}),
}


class Run(NamedTuple):
    """One training with its evaluation."""

    config: str
    knobs: dict[str, str]
    protocols: tuple[str, ...]
    untrained: bool

    def folder(self, work: Path) -> Path:
        return work / ",".join([self.config, *(f"{k}={v}" for k, v in self.knobs.items() if k != "data_dir")])

    def results(self, kept: Path) -> list[dict[str, Any]]:
        return json.loads(self.kept(kept).read_text())

    def kept(self, folder: Path) -> Path:
        """Where the results are kept."""
        return folder / f"{self.folder(folder).name}.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what", choices=("methods", "robustness", "step"), help="`step` is for the script itself"
    )
    parser.add_argument("--data-dir", help="where TFDS prepared CIFAR-10")
    parser.add_argument("--seed", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--core", nargs="+", type=int, default=list(range(os.cpu_count() or 1)))
    parser.add_argument("--work", type=Path, default=Path("runs/five_parts"))
    parser.add_argument("--method", nargs="+", help="only these rows")
    parser.add_argument("--settings", type=json.loads, help="for the script itself: [config, knobs]")
    own = parser.parse_args()
    data = {} if own.data_dir is None else {"data_dir": own.data_dir}
    if own.what == "step":
        print(json.dumps(step(*own.settings)))
        return
    table = methods if own.what == "methods" else robustness
    known = METHODS if own.what == "methods" else ROBUSTNESS
    own.kept = HOUSE / "benchmarks" / "results" / "robustness" if own.what == "robustness" else own.work
    own.steps = own.work / "steps.json"
    for folder in (own.work, own.kept):
        folder.mkdir(parents=True, exist_ok=True)
    table([name for name in known if not own.method or name in own.method], data, own)


# --- seven methods ---------------------------------------------------------------------------------------------------


def methods(names: list[str], data: dict[str, str], own: argparse.Namespace) -> None:
    """The table of methods."""
    runs = {
        name: [
            Run(
                METHODS[name][0],
                METHODS[name][1] | {"seed": seed} | data,
                PROTOCOLS,
                seed == own.seed[0],
            )
            for seed in own.seed
        ]
        for name in names
    }
    train([run for seed in zip(*runs.values(), strict=True) for run in seed], own)
    steps = {name: measured_step(*METHODS[name], own) for name in names}
    rows = []
    for name in names:
        results = [row for run in runs[name] for row in run.results(own.kept)]
        knobs, step = METHODS[name][1], steps[name]
        rows.append(
            [
                name,
                knobs["epochs"],
                *(
                    mean_and_spread(accuracies(results, protocol, encoder))
                    for protocol in ("knn", "linear")
                    for encoder in ("trained", "untrained encoder")
                ),
                f"{step['seconds'] / step['batch_size'] * IMAGES:.0f}",
                f"{statistics.median(seconds_per_epoch(own.work, runs[name])):.0f}",
                f"{step['mib']:.0f}",
                f"{step['parameters'] / 1e6:.2f}",
            ]
        )
    header = ["method", "epochs", "kNN", "untrained", "linear", "untrained", "seconds an epoch, alone"] + [
        "with the others",
        "step's memory, MiB",
        "parameters, million",
    ]
    write("methods", [table_of(header, rows)], own)


def step(config: str, settings: dict[str, str]) -> dict[str, float]:
    """Seconds (a median), FLOPs and memory of a method's compiled training step, in this process."""
    import jax

    from jaxcl import cost, devices
    from jaxcl.train import init_state, make_step, placement
    from jaxcl.train.state import blank_batch

    path = path_of(config)
    module, knobs = load_config(path), knobs_of("step", path, words_of(path, settings))
    about = open_data(module, knobs).about
    recipe = module.recipe(knobs, about)
    mesh = devices.make_mesh(devices=1)
    batch = devices.split(blank_batch(about, recipe.batch_size), mesh)
    key = devices.replicate(jax.random.key(0), mesh)
    state = devices.replicate(init_state(key, recipe.method, recipe.optimizer, batch), mesh)
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    step = placement.place(make_step(recipe.method, recipe.optimizer), "jit", mesh)
    compiled = step.lower(state, key, batch).compile()
    memory = compiled.memory_analysis()
    seconds = []
    for _ in range(12):
        start = time.perf_counter()
        state, metrics = compiled(state, key, batch)
        float(metrics["loss"])
        seconds.append(time.perf_counter() - start)
    mib = (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 2**20
    return {
        "seconds": statistics.median(seconds[2:]),
        "flops": cost.cost(compiled).operations,
        "mib": mib,
        "batch_size": recipe.batch_size,
        "parameters": parameters,
    }


def measured_step(config: str, knobs: dict[str, str], own: argparse.Namespace) -> dict[str, float]:
    """`step` in a process of its own, on one core; what was measured with the same settings is kept."""
    file = own.steps
    known = json.loads(file.read_text()) if file.exists() else {}
    settings = json.dumps([config, knobs])
    if settings not in known:
        data = {} if own.data_dir is None else {"data_dir": own.data_dir}
        command = [
            sys.executable,
            str(Path(__file__).resolve()),
            "step",
            "--settings",
            json.dumps([config, knobs | data]),
        ]
        done = start(command, own.core[0], stdout=subprocess.PIPE, text=True)
        known[settings] = json.loads(done.stdout.strip().splitlines()[-1])
        file.write_text(json.dumps(known, indent=2) + "\n")
        print(f"{config}: {known[settings]}", flush=True)
    return known[settings]


def seconds_per_epoch(work: Path, runs: Iterable[Run]) -> Iterator[float]:
    """Of training, as each log line measured it beside whatever else ran."""
    for run in runs:
        for file in run.folder(work).glob("*/metrics.jsonl"):
            for record in read_metrics(file.parent):
                yield IMAGES / record["images_per_second"]


# --- exchanges -------------------------------------------------------------------------------------------------------


def robustness(names: list[str], data: dict[str, str], own: argparse.Namespace) -> None:
    """How far a method's accuracy falls, seed by seed, when its encoder, or what is extracted, is exchanged."""
    cells: dict[tuple[str, str, str], list[Run]] = {}
    for name in names:
        config, knobs, exchanges = ROBUSTNESS[name]
        usual = {part: values[0] for part, values in exchanges.items()}
        for part, values in exchanges.items():
            for value in values:
                chosen = knobs | usual | {part: value}
                cells[name, part, value] = [
                    Run(config, chosen | {"seed": seed} | data, PROTOCOLS, seed == own.seed[0])
                    for seed in own.seed
                ]
    unique = {run.folder(own.work): run for seed in zip(*cells.values(), strict=True) for run in seed}
    train(list(unique.values()), own, after=partial(write_robustness, names, cells, own))
    write_robustness(names, cells, own)


def write_robustness(names: list[str], cells: Mapping[tuple[str, str, str], list[Run]], own) -> None:
    """The tables as far as they are measured, which say what is missing; the picture once all is."""
    there = {at: [run for run in runs if run.kept(own.kept).exists()] for at, runs in cells.items()}
    results = {at: [row for run in runs for row in run.results(own.kept)] for at, runs in there.items()}
    # (method, exchanged, choice, protocol) -> {seed: accuracy}
    found = {
        (*at, protocol): dict(
            zip([run.knobs["seed"] for run in there[at]], accuracies(rows, protocol, "trained"), strict=True)
        )
        for at, rows in results.items()
        for protocol in PROTOCOLS
    }
    each, header = [], ["method", "exchanged", "choice"]
    for protocol in PROTOCOLS:
        header += [protocol, "untrained", "less its own, by seed"]
    for (name, part, value), rows in results.items():
        row = [name, part, value]
        for protocol in PROTOCOLS:
            reached, usual = found[name, part, value, protocol], ROBUSTNESS[name][2][part][0]
            untrained = accuracies(rows, protocol, "untrained encoder")
            row += [mean_and_interval(list(reached.values())) if reached else ""]
            row += [mean_and_spread(untrained) if untrained else ""]
            row += ["" if value == usual else difference(found[name, part, usual, protocol], reached)]
        each.append(row)
    tables = [table_of(header, each)]
    missing = [
        f"{' '.join(at)}: {len(runs) - len(there[at])} of {len(runs)} seeds"
        for at, runs in cells.items()
        if len(there[at]) < len(runs)
    ]
    if missing:
        tables.append("Missing: " + "; ".join(missing) + ".")
    else:
        if len(names) == 2:
            tables.append(table_of(*beside_each_other(names, found)))
        picture(names, found).savefig(own.work / "robustness.png", dpi=150, facecolor="white")
    write("robustness", tables, own)


def beside_each_other(names: list[str], found: dict[tuple[str, ...], dict[str, float]]):
    """Header and rows: what each of two methods loses on average by an exchange, and the difference, by seed."""
    header, rows = ["exchanged"], []
    for protocol in PROTOCOLS:
        header += [f"{name}, {protocol}: mean of all others less its own" for name in names]
        header += [f"{names[1]} - {names[0]}, {protocol}"]
    for part in ("encoder", "extraction"):
        row = [part]
        for protocol in PROTOCOLS:
            falls = [others_less_own(found, name, part, protocol) for name in names]
            row += [mean_and_interval(list(fall.values())) for fall in falls] + [difference(*falls)]
        rows.append(row)
    return header, rows


def others_less_own(found, name, part, protocol):
    """{seed: the mean accuracy of the other choices less that of the method's own}, in points."""
    usual, *others = ROBUSTNESS[name][2][part]
    return {
        seed: statistics.mean(found[name, part, value, protocol][seed] for value in others) - accuracy
        for seed, accuracy in found[name, part, usual, protocol].items()
    }


def difference(a: dict[str, float], b: dict[str, float]) -> str:
    """b - a, seed by seed, with its 95 % interval."""
    by_seed = paired_difference(a, b)
    return "" if by_seed is None else f"{by_seed.mean:+.1f} ± {by_seed.half:.1f}, p {by_seed.p:.2g}"


def picture(names, found):
    """A column a method, a dot a seed, a choice beside the other; above kNN, below linear."""
    from jaxcl.plot import style

    figure = style.new_figure(8.6, 6.4)
    axes = figure.subplots(len(PROTOCOLS), 2, sharey="row")
    for row, protocol in zip(axes, PROTOCOLS, strict=True):
        for ax, part in zip(row, ("encoder", "extraction"), strict=True):
            style.tidy(ax)
            labels = []
            for column, name in enumerate(names):
                for value in ROBUSTNESS[name][2][part]:
                    heights = list(found[name, part, value, protocol].values())
                    ax.plot(
                        [len(labels)] * len(heights), heights, "o", color=style.COLORS[column], markersize=5
                    )
                    labels.append(f"{name}\n{value.replace('_', ' ')}")
            ax.set_xticks(range(len(labels)), labels, rotation=60, ha="right", fontsize=style.SMALL)
            ax.set_title(f"Exchanged: {part}", loc="left", fontsize=style.TITLE, color=style.INK)
        row[0].set_ylabel(f"{protocol} accuracy, %", fontsize=style.LABEL, color=style.GRAY)
    return figure


# --- running and writing ---------------------------------------------------------------------------------------------


def train(runs: list[Run], own: argparse.Namespace, after: Callable[[], None] = lambda: None) -> None:
    """Trains and evaluates what is not there yet, one run a core at a time."""

    def one(run: Run, core: int) -> None:
        folder = run.folder(own.work)
        command = [sys.executable, "-m", "jaxcl", "sweep", str(path_of(run.config)), *options(run.knobs)]
        command += ["--run-dir", str(folder), "--protocol", *run.protocols]
        command += ["--baselines", "untrained"] * run.untrained
        start_logged(command, core, own.work / f"{folder.name}.log")
        shutil.copy(folder / "sweep.json", run.kept(own.kept))
        after()

    missing = [run for run in runs if not run.kept(own.kept).exists()]
    on_cores(own.core, [partial(one, run) for run in missing])


def on_cores(cores: list[int], jobs: list[Callable[[int], None]]) -> None:
    """Each job(core), in order, one a core at a time."""
    free: queue.Queue[int] = queue.Queue()
    for core in cores:
        free.put(core)

    def one(job: Callable[[int], None]) -> None:
        core = free.get()
        try:
            job(core)
        finally:
            free.put(core)

    with ThreadPoolExecutor(len(cores)) as pool:
        list(pool.map(one, jobs))


def options(knobs: Mapping[str, str | list[str]]) -> list[str]:
    """The command line of some knobs; `jaxcl train` takes the entries of a tuple as words, `sweep` as 16,32."""
    words: list[str] = []
    for knob, value in knobs.items():
        words += [f"--{knob.replace('_', '-')}", *([value] if isinstance(value, str) else value)]
    return words


def start_logged(command: list[str], core: int, log: Path) -> None:
    """`start`, announced, with all that it prints at the end of a file."""
    print(f"{time.strftime('%H:%M:%S')} core {core}: {' '.join(command[1:])}", flush=True)
    try:
        with open(log, "a") as out:
            start(command, core, stdout=out, stderr=subprocess.STDOUT)
    except subprocess.CalledProcessError:
        print(f"FAILED, see {log}", flush=True)
        raise


def start(command: list[str], core: int, **pipes: Any) -> subprocess.CompletedProcess:
    """Runs a command on one core and one thread."""
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(HOUSE)}
    return subprocess.run(command, env=environment, check=True, preexec_fn=lambda: pin(core), **pipes)


def path_of(config: str) -> Path:
    return HOUSE / "configs" / f"{config}_cifar10_cpu.py"


def accuracies(results: list[dict[str, Any]], protocol: str, encoder: str) -> list[float]:
    return [row["accuracy"] for row in results if (row["protocol"], row["encoder"]) == (protocol, encoder)]


def table_of(header: list[str], rows: list[list[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def write(what: str, tables: list[str], own: argparse.Namespace) -> None:
    """The tables, with what they were measured by, for a person to put words around."""
    import jax

    seeds = " ".join(own.seed)
    about = (
        f"`python benchmarks/five_parts.py {what} --seed {seeds}`, one core a run of {processor()},"
        f" {len(own.core)} runs at a time; Python {sys.version.split()[0]}, jax {jax.__version__},"
        f" {time.strftime('%Y-%m-%d')}."
    )
    text = "\n\n".join([*tables, about]) + "\n"
    print(text)
    (own.work / f"{what}.md").write_text(text)


if __name__ == "__main__":
    main()
