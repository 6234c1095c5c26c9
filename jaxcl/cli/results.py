"""The commands that read a run: evaluate, embed, export, status, plot."""

from __future__ import annotations

import argparse
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from jaxcl.cli.shows import progress_bar, show
from jaxcl.cli.words import (
    add_baselines,
    add_processes,
    add_trust,
    baselines_of,
    join_processes,
    settings_of,
    speaks,
)

RUN_DIR = "the directory of a run, as runs/quickstart"
LAYOUT = "how a folder of images is read"
BLACK_AND_WHITE = (
    "the pixel values of black and white, for images that do not have 8 bits; default: as in training"
)


def evaluate(arguments: list[str]) -> int:
    """`jaxcl evaluate RUN_DIR [--protocol NAME ...] [--data SPEC] [--set NAME=VALUE ...]`"""
    from jaxcl.data.layout import LAYOUTS
    from jaxcl.evaluate import PROTOCOLS
    from jaxcl.runs import BASELINES, Unevaluated, evaluate_run
    from jaxcl.tables import accuracy_table, classes_table, robustness_table

    parser = argparse.ArgumentParser("jaxcl evaluate", description="Accuracy of a run's representation.")
    parser.add_argument("run_dir", type=Path, help=RUN_DIR)
    parser.add_argument(
        "--protocol",
        nargs="+",
        default=["knn", "linear"],
        metavar="NAME",
        help=f"how to evaluate: {', '.join(PROTOCOLS)}; default: knn and linear",
    )
    add_baselines(parser, default="raw and untrained")
    parser.add_argument("--no-baselines", action="store_true", help="the same as --baselines none")
    parser.add_argument(
        "--parts",
        action="store_true",
        help="evaluate also each part of the representation that the config names",
    )
    parser.add_argument(
        "--beside",
        nargs="+",
        default=[],
        metavar="RUN_DIR",
        help="other runs to compare with, such as a supervised one",
    )
    parser.add_argument(
        "--layers",
        nargs="+",
        type=int,
        default=[],
        metavar="K",
        help="evaluate also these layers of the projection head: 1 is the first, -1 the last, which the loss sees",
    )
    parser.add_argument(
        "--data", metavar="SPEC", help="another data set: tfds:NAME, folder:PATH, npz:PATH or digits"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="directory of TFDS data; default: the run's")
    parser.add_argument("--evaluate-on", metavar="SPLIT", help="another split to test on, such as val")
    parser.add_argument("--labels", metavar="FILE", help="another file of labels, FILE or FILE:COLUMN")
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        help=f"{LAYOUT}; default: as in training, and found from the folders for --data",
    )
    parser.add_argument(
        "--encoded",
        action="store_true",
        help="decode the images of --data when they are needed: training crops are cut from whole images, test images"
        " are the central 7/8",
    )
    parser.add_argument(
        "--test-data",
        metavar="SPEC",
        help="other test images, whose classes have the same names; --evaluate-on, --labels, --layout and --value-range"
        " then describe these; objectnet13:PATH for ImageNet-100",
    )
    parser.add_argument("--value-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help=BLACK_AND_WHITE)
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="settings of the protocol, such as epochs=10",
    )
    add_trust(parser)
    add_processes(parser)
    own = parser.parse_args(arguments)
    if own.distributed is not None:
        join_processes(own.distributed, timeout=own.join_timeout)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # jax keeps it for a training loop that saves
    words = ["none"] if own.no_baselines else own.baselines
    failed = None
    with progress_bar() if speaks(own) else nullcontext() as bar:
        more: dict[str, Any] = {} if bar is None else {"progress": bar.progress, "say": bar.say}
        try:
            results = evaluate_run(
                own.run_dir,
                protocols=own.protocol,
                baselines=baselines_of(words, unless_given=BASELINES),
                parts=own.parts,
                layers=own.layers,
                beside=own.beside,
                data=own.data,
                data_dir=own.data_dir,
                evaluate_on=own.evaluate_on,
                labels=own.labels,
                layout=own.layout,
                value_range=None if own.value_range is None else tuple(own.value_range),
                encoded=own.encoded,
                test_data=own.test_data,
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


def embed(arguments: list[str]) -> int:
    """`jaxcl embed RUN_DIR [--data SPEC] --out FILE`"""
    from jaxcl.data.layout import LAYOUTS

    parser = argparse.ArgumentParser(
        "jaxcl embed",
        description="Features of images by a run's encoder, with their file names and classes, in a file for other"
        " tools: .npz (features [n, d], files, splits, classes, labels), .csv or .parquet (file, split, class, f0, f1,"
        " ...). Needs none of the images that the run was trained on.",
    )
    parser.add_argument("run_dir", type=Path, help=RUN_DIR)
    parser.add_argument(
        "--data",
        metavar="SPEC",
        help="folder:PATH, npz:PATH, npy:PATH, tfds:NAME or digits, all its splits; default: the run's. Where the run"
        " was trained with --encoded, the central 7/8 of each image is embedded",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the file to write: .npz, .csv or .parquet"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="directory of TFDS data; default: the run's")
    parser.add_argument(
        "--labels", metavar="FILE", help="the classes of a folder's images, FILE or FILE:COLUMN"
    )
    parser.add_argument(
        "--layout", choices=LAYOUTS, default="auto", help=f"{LAYOUT}; default: auto, found from the folders"
    )
    parser.add_argument("--value-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help=BLACK_AND_WHITE)
    parser.add_argument(
        "--layer",
        type=int,
        metavar="K",
        help="a layer of the projection head: 1 is the first, -1 the projection z; default: the representation h",
    )
    parser.add_argument("--untrained", action="store_true", help="use the encoder as it was before training")
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
            say=bar.say,
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
    parser.add_argument("run_dir", type=Path, help=RUN_DIR)
    parser.add_argument(
        "--to",
        required=True,
        choices=("torchvision", "timm", "safetensors"),
        help="whose names and layouts the weights get; safetensors: those of jaxcl",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: a file in RUN_DIR/weights")
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
    parser.add_argument("directory", type=Path, nargs="+", help="the directory of a run or of a sweep")
    own = parser.parse_args(arguments)
    from jaxcl.status import lines, runs_in
    from jaxcl.status import status as status_of

    for directory in own.directory:
        for run_dir in runs_in(directory):
            print("\n".join(lines(status_of(run_dir))), flush=True)
    return 0


def plot(arguments: list[str]) -> int:
    """`jaxcl plot RUN_DIR [--data SPEC]`, or `jaxcl plot SWEEP_DIR [--knob NAME] [--lines NAME] [--where ...]`"""
    from jaxcl.data.layout import LAYOUTS
    from jaxcl.report import plot_run
    from jaxcl.sweep import plot_sweep

    parser = argparse.ArgumentParser(
        "jaxcl plot",
        description="Pictures of a run, and a report that shows them; or accuracy against a knob of a sweep.",
    )
    parser.add_argument("run_dir", type=Path, help="the directory of a run or of a sweep")
    of_run = parser.add_argument_group("of a run")
    of_run.add_argument("--data", metavar="SPEC", help="images to show; default: the run's")
    of_run.add_argument("--data-dir", metavar="DIR", help="directory of TFDS data; default: the run's")
    of_run.add_argument(
        "--labels", metavar="FILE", help="the classes of the images of --data, FILE or FILE:COLUMN"
    )
    of_run.add_argument("--layout", choices=LAYOUTS, help=LAYOUT)
    of_run.add_argument("--value-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help=BLACK_AND_WHITE)
    add_trust(of_run)
    of_sweep = parser.add_argument_group("of a sweep")
    of_sweep.add_argument(
        "--knob", metavar="NAME", help="the knob on the x axis; default: the first that varies"
    )
    of_sweep.add_argument(
        "--lines",
        metavar="NAME",
        help="which knob distinguishes the lines (one line per value); or labels, or protocol",
    )
    of_sweep.add_argument(
        "--where",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="which results to draw, such as protocol=knn",
    )
    of_sweep.add_argument(
        "--chance", type=float, metavar="PERCENT", help="the accuracy of chance, drawn as a line"
    )
    of_sweep.add_argument("--out", type=Path, metavar="FILE", help="default: SWEEP_DIR/sweep.png")
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
    how: dict[str, Any] = {"labels": own.labels, "layout": own.layout}
    how["value_range"] = None if own.value_range is None else tuple(own.value_range)
    how = {name: value for name, value in how.items() if value is not None}
    if how and own.data is None:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in how)
        raise ValueError(f"{named} is for other images than the run's own; name them with --data.")
    made = plot_run(own.run_dir, data=own.data, data_dir=own.data_dir, trust=own.trust, **how)
    for sentence in made.left_out:
        print(sentence)
    print(f"Report: {made.page}")
    return 0
