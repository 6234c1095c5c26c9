"""The five-part framework on CIFAR-10: seven methods in minutes, and how much hangs on encoder and extraction.

    python benchmarks/five_parts.py methods --data-dir DATA_DIR [--seed 0 1 2] [--core 0 1 2 3] [--work DIR]
    python benchmarks/five_parts.py robustness --data-dir DATA_DIR ...
    JAX_PLATFORMS=cuda,cpu python benchmarks/five_parts.py robustness --data npz:FILE --core 0 1 2 3    (on one GPU)

Every run is a `jaxcl sweep` on one core, printed when it starts and left under --work; what is there already is not
done again, so that a benchmark that was stopped goes on. What a run reached is kept, with its knobs and versions, as
WORK/NAME.json, of `robustness` as results/robustness/NAME.json; a run that diverged is kept as that, and the others go
on. Delete the file, and the folder WORK/NAME, to have it anew. The tables are printed and left in WORK as well, with a
picture for `robustness`; benchmarks/results has them with words around. On four cores either takes an hour or two.
(benchmarks/seven_methods.py compares the methods at equal compute and chosen learning rates.)

`methods` also times a training step of every method, one after the other when all runs have ended, and reads what
memory it takes off the compiled program.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from contenders import ONE_THREAD, pin, processor
from robustness import (
    PROTOCOLS,
    ROBUSTNESS,
    UNTRAINED,
    At,
    Cell,
    accuracies,
    missing_of,
    picture,
    settings,
    table_of,
    tables_of,
)

from jaxcl.cli import knobs_of, words_of
from jaxcl.config import changed_knobs, knobs_to_json, load_config, open_data
from jaxcl.records import read_json, write_whole
from jaxcl.tables import mean_and_spread
from jaxcl.train.log import read_metrics
from jaxcl.train.saved import DIVERGED
from jaxcl.typing import About

HOUSE = Path(__file__).parents[1]
WHERE = ("data", "data_dir")  # where CIFAR-10 lies: elsewhere on each machine, the same images
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


class Run(NamedTuple):
    """One training with its evaluation."""

    config: str
    knobs: dict[str, str]
    protocols: tuple[str, ...]
    untrained: bool

    def folder(self, work: Path) -> Path:
        return work / ",".join([self.config, *(f"{k}={v}" for k, v in self.knobs.items() if k not in WHERE)])

    def keep(self, work: Path, kept: Path) -> None:
        """Writes what a sweep left under `work`: its results, or why it diverged."""
        run_dirs = [file.parent for file in self.folder(work).glob("*/knobs.json")]
        folder = max(run_dirs, key=lambda one: one.stat().st_mtime)  # several: the data lay elsewhere before
        results = read_json(self.folder(work) / "sweep.json", kind=list)
        for its in [
            knobs := json.loads(knobs_to_json(self.every_knob())),
            *(row["knobs"] for row in results),
        ]:
            for name in WHERE:
                its.pop(name, None)
        run = read_json(folder / "run.json")
        own = {name: run["versions"][name] for name in ("jaxcl", "jax")}
        record = {"knobs": knobs, "versions": own, "device": run["device"], "results": results}
        if (folder / DIVERGED).exists():
            why = read_json(folder / DIVERGED).get("why", "its loss was not finite")
            record["diverged"] = why.partition(". ")[0]  # what follows are remedies
        write_whole(self.kept(kept), json.dumps(record, indent=2) + "\n")

    def read(self, kept: Path) -> dict[str, Any]:
        """What was kept; ends the script where that is of other knobs."""
        file = self.kept(kept)
        record = json.loads(file.read_text())
        if not isinstance(record, dict):
            sys.exit(f"{file} does not say by which knobs it was made; delete {file} to have it anew.")
        changes = changed_knobs(record["knobs"], self.every_knob(), besides=WHERE)
        if changes:
            sys.exit(f"{file} is of other knobs ({'; '.join(changes)}); delete {file} to have it anew.")
        return record

    def kept(self, folder: Path) -> Path:
        """Where the results are kept."""
        return folder / f"{self.folder(folder).name}.json"

    def every_knob(self) -> Any:
        return every_knob(self.config, tuple(self.knobs.items()))


@cache
def every_knob(config: str, knobs: tuple[tuple[str, str], ...]) -> Any:
    """The config's knobs, defaults too."""
    path = path_of(config)
    return knobs_of("sweep", path, words_of(path, dict(knobs)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what",
        choices=("methods", "robustness", "step", "features"),
        help="the last two are for the script itself",
    )
    parser.add_argument("--data-dir", help="where TFDS prepared CIFAR-10")
    parser.add_argument("--data", help="CIFAR-10 as npz:FILE, where TFDS is not installed")
    parser.add_argument("--seed", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--core", nargs="+", type=int, default=list(range(os.cpu_count() or 1)))
    parser.add_argument("--work", type=Path, default=Path("runs/five_parts"))
    parser.add_argument("--method", nargs="+", help="only these rows")
    parser.add_argument(
        "--settings", type=json.loads, help="for the script itself: [config, knobs], of `features` several"
    )
    own = parser.parse_args()
    data = where(own)
    if own.what == "step":
        print(json.dumps(step(*own.settings)))
        return
    if own.what == "features":
        print(json.dumps([features(*one) for one in own.settings]))
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
        kept = [run.read(own.kept) for run in runs[name]]
        knobs, step = METHODS[name][1], steps[name]
        seconds = list(seconds_per_epoch(own.work, runs[name]))  # none where all diverged at once
        rows.append(
            [
                name,
                knobs["epochs"],
                *(
                    mean_and_spread([x for one in kept for x in accuracies(one, protocol, encoder)])
                    or "diverged"
                    for protocol in PROTOCOLS
                    for encoder in ("trained", UNTRAINED)
                ),
                f"{step['seconds'] / step['batch_size'] * IMAGES:.0f}",
                f"{statistics.median(seconds):.0f}" if seconds else "",
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
        data = where(own)
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
    cells = {
        at: [
            Run(ROBUSTNESS[name][0], knobs | {"seed": seed} | data, PROTOCOLS, seed == own.seed[0])
            for seed in own.seed
        ]
        for name in names
        for at, knobs in settings(name).items()
    }
    # In a process of its own: jax starts threads, and this one starts processes.
    asked = json.dumps([[ROBUSTNESS[name][0], runs[0].knobs] for (name, _, _), runs in cells.items()])
    command = [sys.executable, str(Path(__file__).resolve()), "features", "--settings", asked]
    done = start(command, own.core[0], stdout=subprocess.PIPE, text=True)
    features = dict(zip(cells, json.loads(done.stdout.strip().splitlines()[-1]), strict=True))
    unique = {run.folder(own.work): run for seed in zip(*cells.values(), strict=True) for run in seed}
    lock = Lock()  # runs end on several cores

    def after() -> None:
        with lock:
            write_robustness(cells, features, own)

    train(list(unique.values()), own, after=after)
    write_robustness(cells, features, own)


def write_robustness(
    cells: Mapping[At, list[Run]], features: Mapping[At, int], own: argparse.Namespace
) -> None:
    """The tables as far as they are measured; the picture once all is."""
    read = {
        at: Cell(
            tuple(run.knobs["seed"] for run in runs),
            {run.knobs["seed"]: run.read(own.kept) for run in runs if run.kept(own.kept).exists()},
            features[at],
        )
        for at, runs in cells.items()
    }
    made = {
        ", ".join([*(f"{name} {version}" for name, version in kept["versions"].items()), kept["device"]])
        for cell in read.values()
        for kept in cell.kept.values()
    }
    tables = tables_of(read)
    if made:
        tables.append(f"The runs are of {'; '.join(sorted(made))}.")
    if not missing_of(read):
        picture(read).savefig(own.work / "robustness.png", dpi=150, facecolor="white")
    write("robustness", tables, own)


def features(config: str, knobs: Mapping[str, str]) -> int:
    """How many numbers of an image are evaluated."""
    import jax

    from jaxcl.train.state import blank_batch

    module, about = load_config(path_of(config)), About(IMAGES, (32, 32, 3), ())
    method = module.recipe(every_knob(config, tuple(knobs.items())), about).method

    def made():
        batch = blank_batch(about)
        return method.embed(*method.init(jax.random.key(0), batch), jax.numpy.zeros((1, *about.shape)))

    return jax.eval_shape(made).shape[-1]


# --- running and writing ---------------------------------------------------------------------------------------------


def train(runs: list[Run], own: argparse.Namespace, after: Callable[[], None] = lambda: None) -> None:
    """Trains and evaluates what is not there yet, one run a core at a time."""

    def one(run: Run, core: int) -> None:
        folder = run.folder(own.work)
        command = [sys.executable, "-m", "jaxcl", "sweep", str(path_of(run.config)), *options(run.knobs)]
        command += ["--run-dir", str(folder), "--protocol", *run.protocols]
        command += ["--baselines", "untrained"] * run.untrained
        try:
            start_logged(command, core, own.work / f"{folder.name}.log")
        except subprocess.CalledProcessError:
            if not any(folder.glob(f"*/{DIVERGED}")):
                raise
            print(f"{folder.name} diverged; the others go on.", flush=True)
        run.keep(own.work, own.kept)
        after()

    for run in runs:
        if run.kept(own.kept).exists():
            run.read(own.kept)  # one of other knobs is told before anything is trained
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


def where(own: argparse.Namespace) -> dict[str, str]:
    """The knobs that say where the data lies, as far as they are given."""
    return {name: value for name in WHERE if (value := getattr(own, name, None)) is not None}


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
    """Runs a command on one core and one thread; and on what JAX_PLATFORMS names, if it is set, of whose memory each
    takes what it needs."""
    usual = {"JAX_PLATFORMS": "cpu", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    given = {name: os.environ.get(name, value) for name, value in usual.items()}
    paths = os.pathsep.join(filter(None, [str(HOUSE), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **ONE_THREAD, **given, "PYTHONPATH": paths}
    return subprocess.run(command, env=environment, check=True, preexec_fn=lambda: pin(core), **pipes)


def path_of(config: str) -> Path:
    return HOUSE / "configs" / f"{config}_cifar10_cpu.py"


def write(what: str, tables: list[str], own: argparse.Namespace) -> None:
    """The tables, with what they were measured by, for a person to put words around."""
    import jax

    seeds, platform = " ".join(own.seed), os.environ.get("JAX_PLATFORMS", "cpu")
    there = [] if platform == "cpu" else [f"JAX_PLATFORMS={platform}"]
    command = " ".join([*there, f"python benchmarks/five_parts.py {what} --seed {seeds}"])
    runs = f"{len(own.core)} runs at a time, one core a run of {processor()}{' and one device for all' * len(there)}"
    made = f"Python {sys.version.split()[0]}, jax {jax.__version__}, {time.strftime('%Y-%m-%d')}"
    about = f"`{command}`, {runs}; {made}."
    text = "\n\n".join([*tables, about]) + "\n"
    print(text)
    (own.work / f"{what}.md").write_text(text)


if __name__ == "__main__":
    main()
