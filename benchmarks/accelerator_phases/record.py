"""Accuracy on CIFAR-10 against time: the contest's recipe for 100 epochs, and our own (benchmarks/record.py)."""

from __future__ import annotations

from accelerator_phases.common import Emit, Program, table

KNOWN = ("command", "phase", "module", "recipe", "run", "event")  # what a line need not repeat
TITLE = "CIFAR-10 without a label: kNN accuracy against time"


def programs(toy: bool) -> list[Program]:
    import record

    return [Program(*program) for program in record.programs(toy)]


def run(toy: bool, emit: Emit, *, recipe: str, data: str | None, deadline: float) -> None:
    import record

    loaded = None if data is None else record.load(data)
    train = {"reference": record.reference, "record": record.record}[recipe]
    train(loaded, lambda row: emit({"recipe": recipe, **row}), deadline=deadline, toy=toy)


def report(rows, ceilings) -> list[str]:
    lines, rate = [], ceilings.get("matmul bfloat16")
    for name in dict.fromkeys(row["recipe"] for row in rows):
        own = [row for row in rows if row["recipe"] == name]
        lines += [f"### {name}", ""]
        for row in own:
            if row["event"] in ("measured", "not run", "not finished"):
                words = ", ".join(f"{k} {v}" for k, v in row.items() if k not in KNOWN)
                lines += [f"{row['event']}: {words}", ""]
        header = ["epoch", "seconds", "of training", "of evaluation", "PFLOP", "kNN, %"]
        keys = ("epoch", "seconds", "training_seconds", "evaluation_seconds", "pflop", "knn")
        lines += table(header, [[row[key] for key in keys] for row in own if row["event"] == "accuracy"])
        reached = [row for row in own if row["event"] == "target"]
        cells = [
            [
                f"{row['target']} %",
                *(row.get(f"at_{k}") for k in ("seconds", "training_seconds", "pflop", "epoch")),
            ]
            if row["reached"]
            else [f"{row['target']} %", "not reached", None, None, None]
            for row in reached
        ]
        if cells:
            lines += table(["first seen at or above", "seconds", "of training", "PFLOP", "epoch"], cells)
        for row in own:
            if row["event"] == "finished":
                share = f", {row['tflop_per_second'] * 1e14 / rate:.0f} % of the matmul rate" if rate else ""
                lines += [
                    f"{row['epochs']} epochs: kNN {row['knn']:.2f} %, by scikit-learn {row['knn_sklearn']} %;"
                    f" {row['tflop_per_second']:.1f} TFLOP/s in training{share}.",
                    "",
                ]
    return lines
