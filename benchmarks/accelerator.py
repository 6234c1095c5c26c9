"""Everything that a few minutes on a GPU can tell, in one script.

    python benchmarks/accelerator.py kernels --out DIR [--minutes 5]                 # no data needed
    python benchmarks/accelerator.py train --data npz:PATH --out DIR [--minutes 8]   # CIFAR-10, uint8 arrays
    python benchmarks/accelerator.py train --only record --data npz:PATH --out DIR --minutes 10
    python benchmarks/accelerator.py rehearse [--out DIR]                            # all at toy size, on any machine
    python benchmarks/accelerator.py compile [--out FILE]                            # for an H100, without one

`kernels` and `train` go through their phases in the order of their worth. Each phase has a time limit, writes its rows
to DIR/rows.jsonl as soon as it has them, and is a task of its own: one that fails or hangs is named, and the next one
runs. What the minutes do not suffice for is listed as not run. DIR/report.md shows all rows that are there, of both
commands if they share a DIR. Needed are jax, flax, optax, orbax and, for what is compared with, torch, torchvision and
scikit-learn; TensorFlow, tyro and tensorboardX are not.

`rehearse` runs the same phases with toy sizes in under three minutes of two CPU cores. `compile` compiles every
program at its real size with XLA's compiler for an NVIDIA GPU (extra `cuda`), which needs no GPU, and tabulates what
memory each plans.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent.parent))  # jaxcl need not be installed
MARK = "@@ "  # before what a worker says to its parent; all else that it prints goes to the log


class Phase(NamedTuple):
    """A task for a worker: `run` or `run_torch` of a module, and the seconds that it may take."""

    name: str
    module: str
    framework: str  # "jax" or "torch"
    limit: float
    settings: dict[str, Any] = {}
    least: float = 10.0  # seconds without which it is not begun


# In the order of what is still to be known; the exactness of losses on an H100 is, and comes last.
KERNELS = [
    Phase("ceilings", "ceilings", "jax", 40),
    Phase("step, ResNet-18", "training", "jax", 120, {"depth": 18}, 20),
    Phase("step, ResNet-18, PyTorch", "training", "torch", 120, {"depth": 18}, 20),
    Phase("step, ResNet-50", "training", "jax", 150, {"depth": 50}, 30),
    Phase("step, ResNet-50, PyTorch", "training", "torch", 150, {"depth": 50}, 30),
    Phase("augmentation", "views", "jax", 60),
    Phase("augmentation, PyTorch", "views", "torch", 60),
    Phase("nt_xent", "nt_xent", "jax", 120),
    Phase("nt_xent, PyTorch", "nt_xent", "torch", 75),
    Phase("evaluation and sorting", "evaluation", "jax", 60),
    Phase("evaluation and sorting, PyTorch", "evaluation", "torch", 30),
    Phase("truth", "truth", "jax", 90),
]
TRAIN = [
    Phase("ceilings", "ceilings", "jax", 40),
    Phase("reference", "record", "jax", 600, {"recipe": "reference"}, 60),
    Phase("record", "record", "jax", 600, {"recipe": "record"}, 60),
]
MODULES = ["ceilings", "truth", "nt_xent", "training", "views", "evaluation", "record"]


# --- one worker a framework ------------------------------------------------------------------------------------------


def work(framework: str) -> None:
    """Runs phases as they are asked for on standard input; rows and ends go to standard output."""

    def say(**message):
        print(MARK + json.dumps(message), flush=True)

    say(ready=framework)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            module = importlib.import_module(f"accelerator_phases.{order['module']}")
            run = module.run if framework == "jax" else module.run_torch
            run(order["toy"], lambda row: say(row=row), **order["settings"])
            say(end="done")
        except ModuleNotFoundError as error:
            say(end=f"not run: {error.name} is not installed")
        except Exception as error:
            import traceback

            traceback.print_exc()
            say(end=f"failed: {type(error).__name__}: {str(error)[:300]}")
        clear(framework)


def clear(framework: str) -> None:
    """Gives back what the phase held on the device, as far as the framework lets go of it."""
    import gc

    gc.collect()
    if framework == "jax" and "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    if framework == "torch" and "torch" in sys.modules:
        torch = sys.modules["torch"]
        if hasattr(torch, "cuda") and torch.cuda.is_available():
            torch.cuda.empty_cache()


class Worker:
    """A process of this script that runs the phases of one framework, one after the other."""

    def __init__(self, framework: str, log):
        environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE), "worker", framework],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        self.said: queue.Queue[dict[str, Any]] = queue.Queue()

        def listen():
            for line in self.process.stdout:
                if line.startswith(MARK):
                    self.said.put(json.loads(line[len(MARK) :]))
                else:
                    log.write(line)
                    log.flush()
            self.process.wait()  # its output ends a moment before it does, and until then it seems alive
            self.said.put({"end": "failed: its process ended"})

        self.listener = threading.Thread(target=listen, daemon=True)
        self.listener.start()
        self.said.get()  # that it is ready, or has ended: starting Python is no part of a phase's time

    def run(self, phase: Phase, toy: bool, settings: dict[str, Any], limit: float, emit: Callable) -> str:
        """How the phase ended; its rows go to `emit` as they come."""
        order = {"module": phase.module, "toy": toy, "settings": settings}
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        except OSError:
            return "failed: its process ended"
        end = time.monotonic() + limit
        while True:
            try:
                message = self.said.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                self.stop()
                return f"stopped after its limit of {limit:.0f} s; the rows until then count"
            if "end" in message:
                return message["end"]
            emit(message["row"])

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.listener.join()
        self.process.stdin.close()
        self.process.stdout.close()


def go_through(
    command: str,
    phases: list[Phase],
    out: Path,
    minutes: float,
    *,
    toy: bool = False,
    data: str | None = None,
    side_by_side: int = 1,
) -> dict[str, str]:
    """Phase -> how it ended. Rows are appended to out/rows.jsonl, the report is written anew after each phase.

    side_by_side: how many phases run at a time; what is measured then means nothing.
    """
    out.mkdir(parents=True, exist_ok=True)
    begin, ends, waiting, lock = time.monotonic(), {}, list(reversed(phases)), threading.RLock()
    with open(out / "rows.jsonl", "a", encoding="utf-8") as rows, open(out / "log.txt", "a") as log:

        def note(phase: Phase, row: dict[str, Any]) -> None:
            with lock:
                rows.write(
                    json.dumps({"command": command, "phase": phase.name, "module": phase.module, **row})
                    + "\n"
                )
                rows.flush()

        def end(phase: Phase, how: str, started: float) -> None:
            with lock:
                ends[phase.name] = how
                note(phase, {"end": how, "seconds": time.monotonic() - started})
                print(f"{time.monotonic() - begin:6.1f} s  {phase.name}: {how}", flush=True)
                (out / "report.md").write_text(report(out))

        def take_turns() -> None:
            workers: dict[str, Worker] = {}
            while waiting:
                with lock:
                    phase = waiting.pop()
                started = time.monotonic()
                left = 60 * minutes - (started - begin)
                if left < min(phase.least, 60 * minutes / 10):
                    end(phase, "not run: no time was left", started)
                    continue
                worker = workers.get(phase.framework)
                if worker is not None and not worker.alive:
                    worker.stop()
                if worker is None or not worker.alive:
                    worker = workers[phase.framework] = Worker(phase.framework, log)
                limit, settings = min(phase.limit, left), dict(phase.settings)
                if phase.module == "record":
                    settings |= {"data": data, "deadline": limit - 5}
                how = worker.run(phase, toy, settings, limit, lambda row, phase=phase: note(phase, row))
                end(phase, how, started)
            for worker in workers.values():
                worker.stop()

        threads = [threading.Thread(target=take_turns) for _ in range(side_by_side)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return ends


# --- the report ------------------------------------------------------------------------------------------------------


def report(out: Path) -> str:
    """All rows of a directory as one page."""
    found = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    ceilings = {row["name"]: row["rate"] for row in found if row.get("kind") == "ceiling"}
    lines = [
        "# What the device showed",
        "",
        f"`{' '.join(['python', 'benchmarks/accelerator.py', *words()])}`",
        "",
    ]
    lines += [f"{time.strftime('%Y-%m-%d')}. Times are medians, of a run of calls each.", ""]
    for name in MODULES:
        rows = [row for row in found if row["module"] == name and "end" not in row]
        if rows:
            module = importlib.import_module(f"accelerator_phases.{name}")
            lines += [f"## {module.TITLE}", "", *module.report(rows, ceilings)]
    lines += ["## How the phases ended", ""]
    for row in found:
        if "end" in row:
            lines.append(f"- {row['command']}, {row['phase']}: {row['end']} ({row['seconds']:.0f} s)")
    return "\n".join(lines) + "\n"


def words() -> list[str]:
    """The command line without this machine's paths."""
    kept = list(sys.argv[1:])
    for i, word in enumerate(kept[:-1]):
        if word == "--out":
            kept[i + 1] = "DIR"
        if word == "--data":
            kept[i + 1] = f"{kept[i + 1].partition(':')[0]}:PATH"
    return kept


# --- for a device that is not there ----------------------------------------------------------------------------------


def compile_for(machine: str, out: Path, only: list[str]) -> int:
    """Compiles every program for a described GPU; writes a table of what memory each plans. Returns how many failed."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    # There is nothing to time algorithms on.
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_autotune_level=0"
    import jax
    from accelerator_phases.common import compiled, memory, mib, table
    from jax.experimental import topologies

    from jaxcl.programs import WITHOUT_TRITON

    described = (HERE.parent / "accelerator_phases" / f"{machine}.txt").read_text()
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name="1x1x1", topology="1x1x1", target_config=described
    )
    mesh = topologies.make_mesh(topology, (1,), ("devices",))

    kept = out.with_suffix(".jsonl")  # what is there already is not compiled again
    found = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    done = {(row["module"], row["name"]) for row in found if "error" not in row}
    failed = 0
    for name in MODULES:
        if only and name not in only:
            continue
        for program in importlib.import_module(f"accelerator_phases.{name}").programs(False):
            if (name, program.name) in done:
                continue
            start = time.perf_counter()
            row: dict[str, Any] = {"module": name, "name": program.name, "notes": []}
            try:
                row |= memory(compiled(program, mesh=mesh, notes=row["notes"]))
            except Exception as error:
                row["error"] = f"{type(error).__name__}: {str(error)[:200]}"
                failed += 1
            row["compile_seconds"] = time.perf_counter() - start
            found = [r for r in found if (r["module"], r["name"]) != (name, program.name)] + [row]
            kept.write_text("".join(json.dumps(row) + "\n" for row in found))
            print(
                name,
                program.name,
                row.get("error", f"{row.get('peak_bytes', 0) / 2**20:,.1f} MiB"),
                flush=True,
            )
            jax.clear_caches()
    lines = [
        f"# What the programs of benchmarks/accelerator.py need of an {machine.upper()}",
        "",
        "`python benchmarks/accelerator.py compile`",
        "",
        f"Compiled by XLA for a described {machine.upper()} of 80 GB on a machine without one, jax {jax.__version__},",
        f"{time.strftime('%Y-%m-%d')}; algorithms were not tuned, as that needs the device. MiB: what the compiled",
        "program plans; the peak counts arguments, results and temporaries. Seconds to compile are this CPU's.",
        f"(*): {WITHOUT_TRITON}",
        "",
    ]
    for name in MODULES:
        rows = [row for row in found if row["module"] == name]
        if rows:
            title = importlib.import_module(f"accelerator_phases.{name}").TITLE
            cells = [
                [row["name"], row["error"], None, row["compile_seconds"]]
                if "error" in row
                else [
                    row["name"] + (" (*)" if row["notes"] else ""),
                    mib(row["temporary_bytes"]),
                    mib(row["peak_bytes"]),
                    row["compile_seconds"],
                ]
                for row in rows
            ]
            lines += [f"## {title}", "", *table(["", "temporaries", "peak", "to compile, s"], cells)]
    out.write_text("\n".join(lines))
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    kernels = commands.add_parser("kernels", help="losses, steps, augmentation, evaluation: no data needed")
    train = commands.add_parser("train", help="accuracy against time on CIFAR-10")
    rehearse = commands.add_parser("rehearse", help="all phases at toy size")
    build = commands.add_parser("compile", help="every program for a described H100")
    worker = commands.add_parser("worker")
    for command, minutes in ((kernels, 5.0), (train, 8.0)):
        command.add_argument("--out", type=Path, required=True, metavar="DIR")
        command.add_argument("--minutes", type=float, default=minutes)
        command.add_argument("--only", nargs="+", metavar="PHASE", help="by name; all unless given")
    train.add_argument("--data", required=True, help="npz:PATH with train and test images, uint8, and labels")
    rehearse.add_argument("--out", type=Path, metavar="DIR", help="a temporary folder unless given")
    build.add_argument("--machine", default="h100")
    build.add_argument("--only", nargs="+", default=[], choices=MODULES, metavar="PHASE")
    build.add_argument("--out", type=Path, default=HERE.parent / "results" / "accelerator-h100-memory.md")
    worker.add_argument("framework", choices=["jax", "torch"])
    own = parser.parse_args()

    if own.command == "worker":
        work(own.framework)
        return 0
    if own.command == "compile":
        return 1 if compile_for(own.machine, own.out, own.only) else 0
    if own.command == "rehearse":
        out = own.out or Path(tempfile.mkdtemp(prefix="rehearsal-"))
        ends = go_through("rehearse", [*KERNELS, *TRAIN[1:]], out, 60, toy=True, side_by_side=2)
        print((out / "report.md").read_text())
    else:
        phases = KERNELS if own.command == "kernels" else TRAIN
        if unknown := set(own.only or ()) - {phase.name for phase in phases}:
            parser.error(
                f"{own.command} has no phase {sorted(unknown)}; it has {[phase.name for phase in phases]}"
            )
        phases = [phase for phase in phases if own.only is None or phase.name in own.only]
        ends = go_through(own.command, phases, own.out, own.minutes, data=getattr(own, "data", None))
    return 1 if any(end.startswith("failed") for end in ends.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
