"""The command line."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

HELP = """\
jaxcl: contrastive self-supervised learning in JAX.

A config is a Python file with a dataclass of knobs and a function that makes a recipe of them. Those that come with
jaxcl are known by their names in every folder: quickstart is configs/quickstart.py. Start from one:

  jaxcl configs                                         their names, and what each is
  jaxcl configs quickstart > mine.py                    a copy, to change

Three commands take it from images to a reported accuracy:

  jaxcl train configs/quickstart.py                     pretrain; a second time, go on where it stopped
  jaxcl train configs/quickstart.py --epochs 40         a finished run of 15: go on for longer
  jaxcl train configs/quickstart.py --run-dir runs/two --temperature 0.1      change a knob, in another run
  jaxcl train configs/quickstart.py --help              the knobs of a config
  jaxcl evaluate runs/quickstart                        kNN and linear accuracy, beside two baselines
  jaxcl evaluate runs/quickstart --protocol fewshot5 rotation corruption
  jaxcl evaluate runs/quickstart --protocol transfer --data tfds:mnist
  jaxcl evaluate runs/quickstart --layers 1 -1          what the projection head makes of the representation, too
  jaxcl embed runs/quickstart --data folder:photos --out features.csv     features, with file names, for other tools
  jaxcl export runs/RUN --to torchvision                weights for PyTorch; `jaxcl train CONFIG --init FILE` takes some
  jaxcl plot runs/quickstart                            views, curves, map, neighbors: runs/quickstart/plots/report.html

  jaxcl replay runs/quickstart                          after a loss of nan: the operation that made it

  jaxcl status runs/quickstart                          step, speed, time left, last save; also while it trains

  jaxcl plan configs/quickstart.py                      before training: what a step needs of this machine,
  jaxcl plan configs/simclr_imagenet.py --machine tpu-v5e-64      or of another: does it fit, what bounds it, how long
  jaxcl views configs/quickstart.py                     before training: what the network will be shown
  jaxcl parts configs/quickstart.py                     what a method is made of: its five parts with their settings
  jaxcl sweep configs/quickstart.py --seed 0 1 2 --temperature 0.1 0.5
                                                        every combination, with means and 95 % intervals over seeds
  jaxcl study                                           the studies that come with jaxcl: questions of papers
  jaxcl study temperature_and_loss                      its runs, as far as they are not there, and a page of answers

With --debug, as in `jaxcl --debug train ...`, an error shows where in the program it arose.
"""


TRAIN_HELP = """\
usage: jaxcl train CONFIG [--run-dir DIR] [--distributed [HOST:PORT PROCESSES PROCESS]] [--join-timeout SECONDS]
                   [--anyway] [--preset NAME] [--knob value ...]

Pretrains. CONFIG is a file, or the name of one that comes with jaxcl (`jaxcl configs`). DIR is runs/CONFIG unless given
(runs/CONFIG_NAME of a preset); a run that is there is gone on with, bit for bit. `jaxcl train CONFIG --help` shows the
knobs of a config, and its presets if it has any. What does not fit into this machine's memory is refused before the
first step, unless --anyway is given.

A finished run is made longer by more --epochs; its learning rate then goes on as that of the longer run. Another run
starts from its encoder by --init DIR, or from a file of weights by --init FILE (.safetensors, .pth).

Ctrl-C and SIGTERM save after the step that is being made, and end (status 130 and 75); a second Ctrl-C ends at once.

On several hosts run the same command on each, with a DIR that all of them see. `--distributed` alone is enough where
jax knows the cluster (Cloud TPU, Slurm, Kubernetes, Open MPI); elsewhere say where process 0 listens, how many
processes there are, and which this one is: --distributed 10.0.0.1:1234 4 0
They wait SECONDS (120) for each other. Where one ends, the others do within a minute; start all of them again.
"""


PLAN_HELP = """\
usage: jaxcl plan CONFIG.py [--machine NAME] [--json FILE] [--no-advise]
                  [--images N] [--shape HEIGHT WIDTH CHANNELS] [--classes K] [--preset NAME]
                  [--knob value ...]

Compiles the training step of a config for a machine, which need not be there, and tells whether it fits, what a step
and the run take at the least, and what bounds them. NAME is tpu-GENERATION-CHIPS (tpu-v5e-64; v2, v3, v4, v5e, v5p,
v6e or 7x), h100, a100, h200 or b200, with a number for several (h100-8); without it, the machine at hand. A TPU needs
the extra `tpu`, a GPU `cuda`: pip install 'jaxcl[tpu]'. A large network takes minutes to compile.

Nothing is trained and no image is opened. Where the data is not there, --images, --shape and --classes say what it is.
What would fit in place of what does not is tried out, unless --no-advise is given; each attempt compiles.
`jaxcl plan CONFIG.py --help` shows the knobs of a config.
"""


VIEWS_HELP = """\
usage: jaxcl views CONFIG.py [--out FILE] [--images N] [--knob value ...]

Draws training images beside the views that the config makes of them, as in its first steps, with what was drawn for
each printed under it. FILE is CONFIG-views.png unless given; N is 8.
`jaxcl views CONFIG.py --help` shows the knobs of a config.
"""


PARTS_HELP = """\
usage: jaxcl parts CONFIG.py [--knob value ...]

Prints what the method of a config is made of, in five parts: data augmentation, encoder, representation extraction,
similarity and loss, each with its functions and their settings. Nothing is trained.
`jaxcl parts CONFIG.py --help` shows the knobs of a config.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [word for word in arguments if word != "--debug"]
    commands = {
        "train": train,
        "plan": plan,
        "evaluate": evaluate,
        "embed": embed,
        "export": export,
        "plot": plot,
        "report": report,
        "sweep": sweep,
        "study": study,
        "replay": replay,
        "views": views,
        "parts": parts,
        "configs": configs,
        "status": status,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP)
        return 0
    if arguments[0] == "--version":
        from jaxcl import __version__

        print(f"jaxcl {__version__}")
        return 0
    if arguments[0] not in commands:
        print(f"jaxcl knows the commands {', '.join(commands)}; not {arguments[0]!r}. Try `jaxcl --help`.")
        return 2
    try:
        with ended_by_the_second_interrupt():
            return commands[arguments[0]](arguments[1:])
    except Exception as error:
        ended_by_another(error)
        # An error of the user's world is a sentence, not a traceback.
        sentence = in_a_sentence(error)
        if sentence is None:
            raise
        if debug:
            traceback.print_exc()
        print(f"jaxcl {arguments[0]}: {sentence}", file=sys.stderr)
        return end_alone(1, sentence)
    except KeyboardInterrupt as interrupt:
        if hasattr(interrupt, "step"):
            print(f"jaxcl {arguments[0]}: {interrupt} The same command goes on from there.", file=sys.stderr)
            return 130
        print(f"jaxcl {arguments[0]}: interrupted.", file=sys.stderr)
        return end_alone(130, "it was interrupted")
    except SystemExit as end:
        if hasattr(end, "step"):
            sentence = f"Asked to end after step {end.step}, and saved. The same command goes on from there."
            print(f"jaxcl {arguments[0]}: {sentence}", file=sys.stderr)
        raise


# A package that may be missing -> the extra that brings it.
EXTRAS = {
    "matplotlib": "plot",
    "plotly": "report",
    "tensorflow": "tfds",
    "tensorflow_datasets": "tfds",
    "importlib_resources": "tfds",
    "libtpu": "tpu",
    "wandb": "wandb",
    "mlflow": "mlflow",
}


def in_a_sentence(error: Exception) -> str | None:
    """What went wrong, for whoever can mend it; None for an error of the program, which deserves its traceback."""
    text = " ".join(str(error).split())
    if "No space left on device" in text or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        name = getattr(error, "filename", None)
        where = f" while {name} was written" if name else ""
        return f"the disk is full{where}. What was saved before stays; make room and give the same command. ({text})"
    if isinstance(error, ImportError):
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        return str(error) + (f". Install it: pip install 'jaxcl[{extra}]'" if extra else "")
    if isinstance(error, PermissionError):
        return f"there is no permission to use {error.filename or 'a file'} ({error.strerror or text})."
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError) and error.filename:
        return f"{error.filename} is in the way: {error.strerror}. Move it, or give another place."
    if getattr(error, "errno", None) == errno.EROFS:
        name = error.filename or "a file"  # type: ignore[attr-defined]
        return (
            f"{name} cannot be written, as its disk can only be read. Give another place (--run-dir, --out)."
        )
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}."
    if isinstance(error, ValueError | OSError | FloatingPointError):
        return str(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "Out of memory" in text:
        return (
            f"there was not enough memory: {text[:300]} A smaller --batch-size, --chunks N or --remat needs less;"
            " `jaxcl plan CONFIG.py` says how much. Images that do not fit may stay in their files: --encoded --size N."
        )
    if isinstance(error, RuntimeError) and ("initialize backend" in text or "Unknown backend" in text):
        return (
            f"{text} JAX_PLATFORMS is {os.environ.get('JAX_PLATFORMS', '')!r}: unset it, or install what it names"
            " (pip install 'jaxcl[cuda]', 'jaxcl[tpu]')."
        )
    return None


def end_alone(status: int, why: str) -> int:
    """The status to end with; one of several processes tells the others first, and is gone."""
    if one_of_several():
        from jaxcl.processes import leave

        leave(why, status=status)
    return status


def ended_by_another(error: Exception) -> None:
    """One of several processes whose error is that another is gone ends here, with a sentence that says so."""
    if one_of_several():
        from jaxcl.processes import wait_for_news

        wait_for_news(error)


def one_of_several() -> bool:
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


@contextmanager
def ended_by_the_second_interrupt() -> Iterator[None]:
    """Ctrl-C twice ends the program even where Python cannot listen, as while XLA compiles."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    listening, told = os.pipe()
    os.set_blocking(told, False)
    previous = signal.set_wakeup_fd(told, warn_on_full_buffer=False)

    def listen() -> None:
        interrupts = 0
        while numbers := os.read(listening, 64):
            interrupts += numbers.count(signal.SIGINT)
            if interrupts > 1:
                os.write(2, b"\njaxcl: ended at once, unsaved.\n")
                os._exit(130)
        os.close(listening)

    threading.Thread(target=listen, name="jaxcl-interrupts", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        os.close(told)


def train(arguments: list[str]) -> int:
    """`jaxcl train CONFIG.py [--run-dir DIR] [--knob value ...]`"""
    parser = argparse.ArgumentParser("jaxcl train", add_help=False, allow_abbrev=False)
    parser.add_argument("config", nargs="?")
    parser.add_argument("--run-dir", type=Path)
    add_processes(parser)
    parser.add_argument("--anyway", action="store_true")
    own, rest = parser.parse_known_args(arguments)
    if own.config is None:
        print(TRAIN_HELP)
        return 0 if "--help" in rest or "-h" in rest else 2
    if own.distributed is not None:
        join_processes(own.distributed, timeout=own.join_timeout)
    from jaxcl.runs import train_run

    own.config = found_config(own.config)
    knobs = knobs_of("train", own.config, rest, run_dir=own.run_dir)
    named = [own.config.stem, *filter(None, [preset_among(rest)[0]])]
    run_dir = own.run_dir or Path("runs") / "_".join(named)
    train_run(own.config, knobs, run_dir, anyway=own.anyway)
    if speaks(own):
        print(f"\nDone. Next: jaxcl evaluate {run_dir}; jaxcl plot {run_dir}")
    return 0


def plan(arguments: list[str]) -> int:
    """`jaxcl plan CONFIG.py [--machine NAME] [--json FILE] [--knob value ...]`"""
    parser = argparse.ArgumentParser("jaxcl plan", add_help=False, allow_abbrev=False)
    parser.add_argument("config", nargs="?")
    parser.add_argument("--machine", default="here", metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--advise", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--images", type=int, metavar="N")
    parser.add_argument("--shape", type=int, nargs=3, metavar=("HEIGHT", "WIDTH", "CHANNELS"))
    parser.add_argument("--classes", type=int, metavar="K")
    own, rest = parser.parse_known_args(arguments)
    if own.config is None:
        print(PLAN_HELP)
        return 0 if "--help" in rest or "-h" in rest else 2
    from jaxcl import machines
    from jaxcl.config import load_config, resolved
    from jaxcl.plan import about_of, advise, check_batch, lines, needs
    from jaxcl.plan import plan as plan_of

    path = found_config(own.config)
    config, knobs = load_config(path), resolved(knobs_of("plan", path, rest))
    # First of all: it decides what jax is to compile for.
    machine = machines.at_hand() if own.machine == "here" else machines.described(own.machine)
    check_batch(knobs.batch_size, machine)
    shape = None if own.shape is None else tuple(own.shape)
    about, said = about_of(config, knobs, images=own.images, shape=shape, classes=own.classes)
    if said:
        print(said, flush=True)
    print(
        f"Compiling the training step for {own.machine}; a large network takes minutes.",
        file=sys.stderr,
        flush=True,
    )
    named = [own.config, *(f"--preset {name}" for name in filter(None, [preset_among(rest)[0]]))]
    found = plan_of(config, knobs, about, machine, name=" ".join(named))
    if found.fits is False and own.advise:
        print(
            f"It does not fit: it needs {needs(found)} a device ({found.compile_seconds:.0f} s to compile). Trying what"
            " would:",
            file=sys.stderr,
            flush=True,
        )
        found = found._replace(advice=advise(config, knobs, about, machine, found, told=_aside))
    print("\n".join(lines(found)))
    if own.json is not None:
        own.json.parent.mkdir(parents=True, exist_ok=True)
        own.json.write_text(json.dumps(found._asdict(), indent=2) + "\n")
    return 0


def _aside(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def knobs_of(
    command: str, config: str | Path, words: Sequence[str], *, run_dir: str | Path | None = None
) -> Any:
    """A config's knobs as the words of a command line set them; --help among them prints the knobs and exits.

    run_dir
        of a run that is trained: its own config.py begins with the knobs that the run has.
    """
    import tyro

    from jaxcl.config import check_knobs, knobs_from_json, load_config, preset
    from jaxcl.records import read_text

    name, words = preset_among(words)
    module = load_config(config)
    presets, before = getattr(module, "PRESETS", {}), preset(module, name)
    had = Path(run_dir or "") / "knobs.json"
    if run_dir is not None and name is None and had.exists() and Path(config).parent.samefile(run_dir):
        before = knobs_from_json(module, read_text(had))
    knobs = tyro.cli(
        module.Knobs,
        args=words,
        default=before,
        prog=f"jaxcl {command} {config}" + ("" if name is None else f" --preset {name}"),
        description=f"--preset NAME sets all knobs at once: {', '.join(presets)}." if presets else None,
    )
    check_knobs(knobs)
    return knobs


def preset_among(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The preset that the words of a command line name, and the other words.

    >>> preset_among(["--seed", "1", "--preset", "stl10"]), preset_among(["--seed", "1"])
    (('stl10', ['--seed', '1']), (None, ['--seed', '1']))
    """
    parser = argparse.ArgumentParser("jaxcl", add_help=False, allow_abbrev=False)
    parser.add_argument("--preset")
    own, rest = parser.parse_known_args(words)
    return own.preset, rest


def add_processes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--distributed",
        nargs="*",
        metavar="WORD",
        help="as one of several processes: nothing where jax knows the cluster, or HOST:PORT PROCESSES PROCESS",
    )
    parser.add_argument(
        "--join-timeout", type=float, default=120.0, metavar="SECONDS", help="to wait for the others; 120"
    )


def add_trust(parser: Any) -> None:
    parser.add_argument(
        "--trust",
        action="store_true",
        help="execute the run's config.py whoever made it (your own, and those of jaxcl, need no word)",
    )


def speaks(own: argparse.Namespace) -> bool:
    """Whether this process is the one that prints: the only one, or the first of several."""
    if own.distributed is None:
        return True
    import jax

    return jax.process_index() == 0


def join_processes(words: Sequence[str], *, timeout: float) -> None:
    """Makes this process one of several; must come before anything else touches a device."""
    from jaxcl.processes import join

    if not words:
        join(timeout=timeout)
        return
    if len(words) != 3 or not (words[1].isdigit() and words[2].isdigit()):
        raise ValueError(
            f"--distributed takes nothing, or HOST:PORT, the number of processes and this one's number; got {words}."
        )
    join(words[0], int(words[1]), int(words[2]), timeout=timeout)


def evaluate(arguments: list[str]) -> int:
    """`jaxcl evaluate RUN_DIR [--protocol NAME ...] [--data SPEC] [--set NAME=VALUE ...]`"""
    from jaxcl.evaluate import PROTOCOLS
    from jaxcl.runs import BASELINES, Unevaluated, evaluate_run
    from jaxcl.tables import accuracy_table, classes_table, robustness_table

    parser = argparse.ArgumentParser("jaxcl evaluate", description="Accuracy of a run's representation.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument(
        "--protocol",
        nargs="+",
        default=["knn", "linear"],
        metavar="NAME",
        help=f"among {', '.join(PROTOCOLS)}",
    )
    named = {name.split()[0]: name for name in BASELINES}  # raw, untrained
    parser.add_argument(
        "--baselines",
        nargs="*",
        choices=(*named, "none"),
        help="what stands beside it: raw pixels, the untrained encoder; both unless said, none or nothing for neither",
    )
    parser.add_argument("--no-baselines", action="store_true", help="the same as --baselines none")
    parser.add_argument(
        "--parts", action="store_true", help="also each part of the representation that the config names"
    )
    parser.add_argument(
        "--beside",
        nargs="+",
        default=[],
        metavar="RUN_DIR",
        help="other runs to compare with, as a supervised one",
    )
    parser.add_argument(
        "--layers",
        nargs="+",
        type=int,
        default=[],
        metavar="K",
        help="also these layers of the projection head: 1 is the first, -1 the last, which the loss sees",
    )
    parser.add_argument(
        "--data", metavar="SPEC", help="another data set: tfds:NAME, folder:PATH, npz:PATH or digits"
    )
    parser.add_argument("--data-dir", help="where TFDS prepared it (that of the run, if not given)")
    parser.add_argument("--evaluate-on", metavar="SPLIT", help="another split to test on, as val")
    parser.add_argument("--labels", metavar="FILE", help="another file of labels, FILE or FILE:COLUMN")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of the protocol, as epochs=10"
    )
    add_trust(parser)
    add_processes(parser)
    own = parser.parse_args(arguments)
    if own.distributed is not None:
        join_processes(own.distributed, timeout=own.join_timeout)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # jax keeps it for a training loop that saves
    baselines = [*named] if own.baselines is None else [word for word in own.baselines if word != "none"]
    failed = None
    with progress_bar() if speaks(own) else nullcontext() as bar:
        more: dict[str, Any] = {} if bar is None else {"progress": bar.progress, "told": bar.told}
        try:
            results = evaluate_run(
                own.run_dir,
                own.protocol,
                baselines=() if own.no_baselines else [named[word] for word in baselines],
                parts=own.parts,
                layers=own.layers,
                beside=own.beside,
                data=own.data,
                data_dir=own.data_dir,
                evaluate_on=own.evaluate_on,
                labels=own.labels,
                settings=settings_of(own.set),
                trust=own.trust,
                **more,
            )
        except Unevaluated as error:
            if not error.results:
                raise
            results, failed = error.results, error
    if speaks(own):
        show(f"Accuracy on test images, percent ({results[0]['step']} steps)", *accuracy_table(results))
        header, rows = classes_table(results)
        if rows:
            show("The same by class, percent", header, rows)
        header, rows = robustness_table(results)
        if rows:
            show("Accuracy on corrupted test images, percent", header, rows)
    if failed is not None:
        raise failed
    return 0


def settings_of(words: Sequence[str]) -> dict[str, Any]:
    """["epochs=10", "drops=[0.5]", "schedule=steps"] -> {"epochs": 10, "drops": [0.5], "schedule": "steps"}"""
    settings = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not value:
            raise ValueError(
                "--set takes NAME=VALUE, with a number, a word, true, false or a list for VALUE, as epochs=10 or"
                f" schedule=steps; got {word!r}."
            )
        try:
            settings[name.replace("-", "_")] = json.loads(value)
        except ValueError:
            settings[name.replace("-", "_")] = value
    return settings


class Shown(NamedTuple):
    progress: Callable[[str, str, float], None]
    told: Callable[[str], None]


# Where standard output is no terminal: so long may nothing be said.
SECONDS_BETWEEN_LINES = 20.0


@contextmanager
def progress_bar(*, clock: Callable[[], float] = time.monotonic) -> Iterator[Shown]:
    """A bar that moves as an evaluation does, and lines above it. Where standard output is no terminal: a line for each
    encoder and protocol, and one now and then with how far it is and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeftColumn

    # A pipe gets lines even where FORCE_COLOR makes rich take it for a terminal.
    console = Console(force_interactive=None if sys.stdout.isatty() else False)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    left = (TextColumn("left:"), TimeLeftColumn(), TextColumn("{task.fields[what]}"))
    bar = Progress(*columns, *left, console=console, transient=True)
    tasks: dict[str, Any] = {}
    said, began, doing = clock(), clock(), ""

    def told(line: str) -> None:
        nonlocal said
        console.print(line, markup=False, highlight=False, soft_wrap=True)
        said = clock()

    def progress(name: str, what: str, fraction: float) -> None:
        nonlocal began, doing
        if name not in tasks:
            for task in tasks.values():
                bar.update(task, visible=False)
            tasks[name] = bar.add_task(name, total=1.0, what=what)
            if not console.is_interactive:
                told(name)
        if f"{name} {what}" != doing:
            began, doing = clock(), f"{name} {what}"
            bar.reset(tasks[name])
        bar.update(tasks[name], completed=fraction, what=what)
        if not console.is_interactive and clock() - said > SECONDS_BETWEEN_LINES:
            rest = f", {(clock() - began) * (1 - fraction) / fraction:.0f} s left of it" if fraction else ""
            told(f"{name}: {what}, {fraction:.0%}{rest}")

    if not console.is_interactive:
        yield Shown(progress, told)
        return
    with bar:
        yield Shown(progress, told)


def embed(arguments: list[str]) -> int:
    """`jaxcl embed RUN_DIR [--data SPEC] --out FILE`"""
    parser = argparse.ArgumentParser(
        "jaxcl embed",
        description="Features of images by a run's encoder, with their file names and classes, in a file for other"
        " tools: .npz (features [n, d], files, splits, classes, labels), .csv or .parquet (file, split, class, f0, f1,"
        " ...). Needs none of the images that the run was trained on.",
    )
    parser.add_argument("run_dir", type=Path)
    parser.add_argument(
        "--data",
        metavar="SPEC",
        help="folder:PATH, npz:PATH, npy:PATH, tfds:NAME or digits, all splits of it; the run's own unless given",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--data-dir", help="where TFDS prepared it (that of the run, if not given)")
    parser.add_argument(
        "--labels", metavar="FILE", help="the classes of a folder's images, FILE or FILE:COLUMN"
    )
    parser.add_argument("--layout", choices=("auto", "splits", "classes"), default="auto")
    parser.add_argument("--value-range", type=float, nargs=2, metavar=("LOW", "HIGH"))
    parser.add_argument(
        "--layer", type=int, metavar="K", help="of the head: 1 is the first, -1 the projection z"
    )
    parser.add_argument("--untrained", action="store_true", help="by the encoder as it was initialised")
    add_trust(parser)
    own = parser.parse_args(arguments)
    from jaxcl.features import check_file, embed_run, write

    check_file(own.out)
    with progress_bar() as bar:
        found = embed_run(
            own.run_dir,
            data=own.data,
            data_dir=own.data_dir,
            labels=own.labels,
            layout=own.layout,
            value_range=None if own.value_range is None else tuple(own.value_range),
            layer=own.layer,
            untrained=own.untrained,
            trust=own.trust,
            progress=lambda name, fraction: bar.progress(name, "embedding", fraction),
            told=bar.told,
        )
    print(f"{found.features.shape[0]} features of {found.features.shape[1]} numbers: {write(own.out, found)}")
    return 0


def export(arguments: list[str]) -> int:
    """`jaxcl export RUN_DIR --to torchvision|timm|safetensors [--out FILE]`"""
    parser = argparse.ArgumentParser(
        "jaxcl export",
        description="The weights of a run's encoder in a file. torchvision: a ResNet by torchvision's names, with the"
        " lines of Python that load it; timm: the same for timm, with ResNet-D, SE and SK too; safetensors: any encoder"
        " by jaxcl's own names. `jaxcl train CONFIG --init FILE` starts a run from any.",
    )
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--to", required=True, choices=("torchvision", "timm", "safetensors"))
    parser.add_argument("--out", type=Path, metavar="FILE", help="a file in RUN_DIR/weights unless given")
    add_trust(parser)
    own = parser.parse_args(arguments)
    from jaxcl.weights import export_run

    export_run(own.run_dir, own.to, out=own.out, trust=own.trust)
    return 0


def status(arguments: list[str]) -> int:
    """`jaxcl status DIR ...`"""
    parser = argparse.ArgumentParser(
        "jaxcl status",
        description="How runs stand, also while they train: step, speed, time left, last save. Nothing is executed.",
    )
    parser.add_argument("directory", type=Path, nargs="+", help="of a run, or of a sweep")
    own = parser.parse_args(arguments)
    from jaxcl.status import lines, runs_in
    from jaxcl.status import status as status_of

    for directory in own.directory:
        for run_dir in runs_in(directory):
            print("\n".join(lines(status_of(run_dir))), flush=True)
    return 0


def plot(arguments: list[str]) -> int:
    """`jaxcl plot RUN_DIR [--data SPEC]`, or `jaxcl plot SWEEP_DIR [--knob NAME] [--lines NAME] [--where ...]`"""
    from jaxcl.report import plot_run
    from jaxcl.sweep import plot_sweep

    parser = argparse.ArgumentParser(
        "jaxcl plot",
        description="Pictures of a run, and a report that shows them; or accuracy against a knob of a sweep.",
    )
    parser.add_argument("run_dir", type=Path, help="of a run, or of a sweep")
    of_run = parser.add_argument_group("of a run")
    of_run.add_argument("--data", metavar="SPEC", help="other images to show than the run's own")
    of_run.add_argument("--data-dir", help="where TFDS prepared them (that of the run, if not given)")
    add_trust(of_run)
    of_sweep = parser.add_argument_group("of a sweep")
    of_sweep.add_argument("--knob", metavar="NAME", help="on the x axis; the first that varies unless given")
    of_sweep.add_argument(
        "--lines", metavar="NAME", help="tells the lines apart: another knob, labels, protocol"
    )
    of_sweep.add_argument(
        "--where", nargs="+", default=[], metavar="NAME=VALUE", help="which runs, as protocol=knn"
    )
    of_sweep.add_argument("--chance", type=float, help="the accuracy of guessing, in percent")
    of_sweep.add_argument("--out", type=Path, help="SWEEP_DIR/sweep.png unless given")
    own = parser.parse_args(arguments)
    if (own.run_dir / "sweep.json").is_file():
        where = dict(word.split("=", 1) for word in own.where if "=" in word)
        if len(where) < len(own.where):
            raise ValueError(f"--where takes NAME=VALUE, as protocol=knn; got {' '.join(own.where)}.")
        picture = plot_sweep(
            own.run_dir, knob=own.knob, lines=own.lines, where=where, chance=own.chance, out=own.out
        )
        print(f"Picture: {picture}")
        return 0
    made = plot_run(own.run_dir, data=own.data, data_dir=own.data_dir, trust=own.trust)
    for sentence in made.left_out:
        print(sentence)
    print(f"Report: {made.page}")
    return 0


def report(arguments: list[str]) -> int:
    """`jaxcl report DIR ... [--out FILE] [--static]`"""
    from jaxcl.report import report_runs

    parser = argparse.ArgumentParser(
        "jaxcl report",
        description="One page, a single HTML file, of runs and sweeps: accuracy with its intervals, against each knob"
        " and two at a time, differences by seed, curves of all runs, scores, pictures that `jaxcl plot` drew, what"
        " ran where. It reads the directories alone: no config is executed and no image opened.",
    )
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR", help="of a run, or of a sweep")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="DIR/report.html unless given; of several, report.html here"
    )
    parser.add_argument(
        "--static",
        action="store_true",
        help="pictures alone: smaller by 5 MB, as plotly, which answers when one points at a line, is left out",
    )
    own = parser.parse_args(arguments)
    made = report_runs(own.directories, out=own.out, interactive=False if own.static else None)
    for sentence in made.left_out:
        print(sentence)
    print(f"Report: {made.page}")
    return 0


def replay(arguments: list[str]) -> int:
    """`jaxcl replay RUN_DIR [--step N]`"""
    parser = argparse.ArgumentParser(
        "jaxcl replay",
        description="Makes a training step of a run again, by default the last one that was not taken as its numbers"
        " were not finite, and names the operation that made them.",
    )
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--step", type=int, metavar="N", help="another training step; the first is 1")
    add_trust(parser)
    own = parser.parse_args(arguments)
    from jaxcl.replay import lines
    from jaxcl.replay import replay as replay_step

    found = replay_step(own.run_dir, step=own.step, trust=own.trust, told=_aside)
    print("\n".join(lines(found)))
    return 0


def views(arguments: list[str]) -> int:
    """`jaxcl views CONFIG.py [--out FILE] [--images N] [--knob value ...]`"""
    parser = argparse.ArgumentParser("jaxcl views", add_help=False, allow_abbrev=False)
    parser.add_argument("config", nargs="?")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--images", type=int, default=8)
    own, rest = parser.parse_known_args(arguments)
    if own.config is None:
        print(VIEWS_HELP)
        return 0 if "--help" in rest or "-h" in rest else 2
    if own.images < 1:
        raise ValueError(f"--images is how many images are shown, at least 1; got {own.images}.")
    from jaxcl.report import draw_views

    own.config = found_config(own.config)
    knobs = knobs_of("views", own.config, rest)
    out = own.out or Path(f"{own.config.stem}-views.png")
    print(f"Views: {draw_views(own.config, knobs, out, n=own.images)}")
    return 0


def parts(arguments: list[str]) -> int:
    """`jaxcl parts CONFIG.py [--knob value ...]`"""
    if not arguments or arguments[0].startswith("-"):
        print(PARTS_HELP)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    import textwrap

    from jaxcl.config import load_config, open_data, recipe_of
    from jaxcl.five_parts import NAMES, five_parts

    word, *rest = arguments
    path = found_config(word)
    config, knobs = load_config(path), knobs_of("parts", path, rest)
    found = five_parts(recipe_of(config, knobs, open_data(config, knobs).about).method)
    found[NAMES["views"]].append(("made by", knobs.input))
    for name, lines in found.items():
        print(name)
        for role, text in lines:
            print(
                textwrap.fill(f"    {role:18}{text}", 110, subsequent_indent=22 * " ", break_long_words=False)
            )
    return 0


def configs(arguments: list[str]) -> int:
    """`jaxcl configs [NAME]`"""
    parser = argparse.ArgumentParser(
        "jaxcl configs",
        description="Lists the configs that come with jaxcl; with a name, prints that config, to be kept and changed:"
        " jaxcl configs quickstart > mine.py",
    )
    parser.add_argument("name", nargs="?", metavar="NAME")
    own = parser.parse_args(arguments)
    from jaxcl.shipped import about, named, shipped

    if own.name is not None:
        sys.stdout.write(named(own.name).read_text(encoding="utf-8"))
        return 0
    there = shipped()
    width = max(map(len, there), default=0)
    for name, path in there.items():
        print(f"{name:{width}}  {about(path)}")
    return 0


def found_config(word: str | Path) -> Path:
    """The config that a word of the command line means: a file, or the name of one that comes with jaxcl."""
    from jaxcl.shipped import found

    return found(word)


def sweep(arguments: list[str]) -> int:
    """`jaxcl sweep CONFIG.py [--run-dir DIR] [--protocol NAME ...] --knob value value ...`"""
    from jaxcl.runs import BASELINES
    from jaxcl.sweep import sweep as run_sweep
    from jaxcl.tables import differences_table, fewest_seeds, sweep_table

    named = {name.split()[0]: name for name in BASELINES}  # raw, untrained
    parser = argparse.ArgumentParser(
        "jaxcl sweep",
        allow_abbrev=False,
        description="Trains and evaluates every combination of the values that are given for knobs"
        " (--seed 0 1 2, or 0..2; --temperature 0.1 0.5), skips what is done already, and prints means with their 95 %"
        " intervals over seeds, and differences by seed. A knob that holds several values takes each choice as one"
        " word: --features 16,32 32,64; one that is on or off takes True and False.",
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--run-dir", type=Path, help="runs/CONFIG-sweep unless given")
    parser.add_argument("--protocol", nargs="+", default=["knn", "linear"], metavar="NAME")
    parser.add_argument(
        "--baselines",
        nargs="*",
        choices=tuple(named),
        help="also raw pixels (with the linear protocol the slowest of all) or the untrained encoder; both if not said",
    )
    parser.add_argument(
        "--together",
        type=int,
        metavar="N",
        help="runs that one program trains at once, where they differ in numbers alone (seeds, temperature, rates); on"
        " an accelerator as many as its memory holds unless given, on a CPU 1: one after the other",
    )
    own, rest = parser.parse_known_args(arguments)
    own.config = found_config(own.config)
    grid: dict[str, list[str]] = {}
    for word in rest:
        if word.startswith("--"):
            values = grid.setdefault(word[2:].replace("-", "_"), [])
        elif grid:
            values += values_of(word)
    sweep_dir = own.run_dir or Path("runs") / f"{own.config.stem}-sweep"
    results = run_sweep(
        own.config,
        lambda combination: knobs_of("sweep", own.config, words_of(own.config, combination)),
        grid or {"seed": ["0"]},
        sweep_dir,
        protocols=own.protocol,
        baselines=() if own.baselines is None else [named[word] for word in own.baselines or named],
        together=own.together,
    )
    if not results:
        raise ValueError(
            "Every run of the sweep diverged, so there is nothing to report; lower --learning-rate."
        )
    show(
        "Accuracy on test images, percent: mean and 95 % confidence interval over seeds",
        *sweep_table(results),
    )
    header, rows = differences_table(results)
    if rows:
        show("Difference by seed: mean, 95 % interval, p value (Holm)", header, rows)
    if fewest_seeds(results) < 3:
        print(
            "Fewer than three seeds say next to nothing: of two, the interval reaches nine standard deviations to"
            " either side. Add some, as --seed 0..4."
        )
    print(f"One page of all this: jaxcl report {sweep_dir}")
    return 0


STUDY_HELP = """\
usage: jaxcl study [NAME] [--small] [--seed SEED ...] [--together N] [--run-dir DIR] [--knob value ...]

Makes the runs of a study, those that are not there yet, and the page of its answer: DIR/NAME.md with tables,
intervals, differences by seed and a picture. NAME is one that comes with jaxcl, or a file; without it they are listed.
A study says which knobs vary, which are fixed, and which settings are compared; --seed 0..9 takes other seeds than its
own, and other knobs, as --data-dir, hold for all runs.

--small       fewer and shorter runs of a smaller encoder, for a CPU, where the study has such
--together N  as for `jaxcl sweep`
--run-dir     runs/NAME-study unless given, or runs/NAME-small-study
"""


def study(arguments: list[str]) -> int:
    """`jaxcl study [NAME] [--small] [--run-dir DIR] [--knob value ...]`"""
    parser = argparse.ArgumentParser("jaxcl study", add_help=False, allow_abbrev=False)
    parser.add_argument("study", nargs="?")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seed", nargs="+", metavar="SEED")
    parser.add_argument("--together", type=int, metavar="N")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--help", "-h", action="store_true")
    own, rest = parser.parse_known_args(arguments)
    if own.help:
        print(STUDY_HELP)
        return 0
    from jaxcl.shipped import about, studies

    if own.study is None:
        there = studies()
        for name, path in there.items():
            print(f"{name:{max(map(len, there))}}  {about(path)}")
        return 0
    from jaxcl.study import load_study, run_study, settings

    path = studies().get(own.study, Path(own.study))
    asked = load_study(path, small=own.small)
    seeds = None if own.seed is None else [int(seed) for word in own.seed for seed in values_of(word)]
    varied = {knob for setting in settings(asked) for knob in setting}
    if taken := [word for word in rest if word[2:].replace("-", "_") in varied]:
        raise ValueError(
            f"{', '.join(taken)} is what the study varies. For other values copy {path} and change them, or give"
            " them to `jaxcl sweep`."
        )

    def knobs(config: str, combination: Mapping[str, str]) -> Any:
        return knobs_of("study", config, [*words_of(config, combination), *rest])

    named = f"{path.stem}-small-study" if own.small else f"{path.stem}-study"
    page = run_study(
        path,
        knobs,
        own.run_dir or Path("runs") / named,
        small=own.small,
        seeds=seeds,
        together=own.together,
        command=["jaxcl", "study", *arguments],
    )
    print(page.read_text(encoding="utf-8"))
    print(f"Page: {page}")
    return 0


def values_of(word: str) -> list[str]:
    """A word of a sweep: a value, or whole numbers from the first to the last.

    >>> values_of("0..3"), values_of("0.5")
    (['0', '1', '2', '3'], ['0.5'])
    """
    first, dots, last = word.partition("..")
    if dots and first.isdigit() and last.isdigit():
        return [str(value) for value in range(int(first), int(last) + 1)]
    return [word]


def words_of(config: str | Path, combination: Mapping[str, str]) -> list[str]:
    """One value for each of some knobs of a config, as the words of a command line."""
    from jaxcl.config import load_config

    defaults = {field.name: field.default for field in dataclasses.fields(load_config(config).Knobs)}
    return [word for knob, value in combination.items() for word in option(knob, value, defaults.get(knob))]


def option(knob: str, value: str, default: Any) -> list[str]:
    """One value of a sweep as the words of a command line.

    >>> option("features", "16,32", (8, 8)), option("fused", "False", True), option("min_area", "0.3", 0.2)
    (['--features', '16', '32'], ['--no-fused'], ['--min-area', '0.3'])
    """
    name = knob.replace("_", "-")
    if isinstance(default, bool):
        if value not in ("True", "False"):
            raise ValueError(f"--{name} is True or False in a sweep; got {value!r}.")
        return [f"--{name}" if value == "True" else f"--no-{name}"]
    return [f"--{name}", *(value.split(",") if isinstance(default, tuple) else [value])]


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
