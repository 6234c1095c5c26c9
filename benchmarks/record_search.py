"""What is worth changing in the record's recipe: many small runs on one CPU core, chosen on held-out training images.

    nice -n 19 python benchmarks/record_search.py --data cifar10.npz --out search.jsonl [--table search.md]

Every run trains a small network on the first 20,000 of CIFAR-10's training images (which are shuffled) for about the
same number of FLOP; accuracy is kNN (k = 10, cosine, features before the head, the images trained on as the bank) of
the last 5,000 training images. No test image is ever looked at. A run that is in the file is not run again, so the
script can be stopped at any time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import jax
import jax.numpy as jnp
import numpy as np
import record_parts as parts
from accelerator_phases.common import arithmetic
from record_parts import Phase, Recipe

from jaxcl.data.batches import order
from jaxcl.evaluate import knn_accuracy

FIRST = Recipe(
    "SGD 0.12, temperature 0.5",
    network="small",
    features=(32, 64, 128),
    head=(256,),
    batch_size=256,
    optimizer="sgd",
    learning_rate=0.12,
    fused=True,
    dtype="float32",
    phases=(Phase(1.0, 32, 0.2),),
    ema=0.98,
)
# (recipe, training steps), in the order in which they are run. Steps are chosen so that all of a round cost the same.
ROUND_1 = [
    (FIRST, 390),
    (dataclasses.replace(FIRST, name="temperature 0.2", temperature=0.2), 390),
    (
        dataclasses.replace(
            FIRST,
            name="Muon 0.01",
            optimizer="muon",
            learning_rate=0.01,
            momentum=0.95,
            weight_decay=0.01,
        ),
        390,
    ),
    (
        dataclasses.replace(
            FIRST, name="AdamW 0.003", optimizer="adamw", learning_rate=3e-3, weight_decay=1e-2, warmup=0.05
        ),
        390,
    ),
]
# The winners of the first round together, changed in one thing at a time.
SECOND = dataclasses.replace(
    FIRST,
    name="Muon 0.01, temperature 0.2",
    optimizer="muon",
    learning_rate=0.01,
    momentum=0.95,
    weight_decay=0.01,
    temperature=0.2,
)


def second(name: str, steps: int = 234, **settings):
    return dataclasses.replace(SECOND, name=name, **settings), steps


ROUND_2 = [
    (SECOND, 234),
    second("four views of 128 images", views=4, batch_size=128),
    second("16 pixels for 60 % of the steps", 420, phases=(Phase(0.6, 16, 0.2), Phase(1.0, 32, 0.2))),
    second("Muon 0.03", learning_rate=0.03),
    second("decoupled, temperature 0.2", loss="dcl"),
    second("temperature 0.1", temperature=0.1),
    second("Muon 0.03, four views of 128 images", learning_rate=0.03, views=4, batch_size=128),
    second("2 views of 32 and 4 of 16 pixels", 156, small=(4, 16, 0.05, 0.3)),
    second("crops from 0.08", phases=(Phase(1.0, 32, 0.08),)),
    second("batch norm in the head", head_norm=True),
    second("SGD 0.12", optimizer="sgd", learning_rate=0.12, momentum=0.9, weight_decay=5e-4),
    second("head of 3 layers", head=(256, 256)),
    second("batch 512", 117, batch_size=512),
    second("AdamW 0.003", optimizer="adamw", learning_rate=3e-3, warmup=0.05),
    second("LARS 1.0", optimizer="lars", learning_rate=1.0, momentum=0.9, weight_decay=1e-4, warmup=0.05),
    second("batch 128", 468, batch_size=128),
    second("24 pixels for 60 % of the steps", 312, phases=(Phase(0.6, 24, 0.2), Phase(1.0, 32, 0.2))),
    second("head 1,024 wide", head=(1024,)),
    second("grayscale 0.2", gray=0.2),
]


# The winners of the second together; and four times as long, as what is quick at first need not be good at last.
THIRD = dataclasses.replace(
    SECOND,
    name="Muon 0.03, four views of 128 images, temperature 0.1",
    learning_rate=0.03,
    views=4,
    batch_size=128,
    temperature=0.1,
)
FOUR_VIEWS = dataclasses.replace(THIRD, name="Muon 0.03, four views of 128 images", temperature=0.2)


def third(name: str, steps: int = 234, **settings):
    return dataclasses.replace(THIRD, name=f"third: {name}", **settings), steps


ROUND_3 = [
    (THIRD, 234),
    (FOUR_VIEWS, 936),
    (FIRST, 936),
    (THIRD, 936),
    third("Muon of spectral norm 0.1", learning_rate=0.1, muon_rms=None, vector_rate=0.3, weight_decay=3e-3),
    third("16 pixels for 60 % of the steps", 420, phases=(Phase(0.6, 16, 0.2), Phase(1.0, 32, 0.2))),
    third(
        "Muon of spectral norm 0.1, vectors at 0.01",
        learning_rate=0.1,
        muon_rms=None,
        vector_rate=0.1,
        weight_decay=3e-3,
    ),
    third("Muon of spectral norm 0.3", learning_rate=0.3, muon_rms=None, vector_rate=0.1, weight_decay=1e-3),
    (
        dataclasses.replace(
            THIRD, name="Muon 0.03, four views of 128 images, temperature 0.5", temperature=0.5
        ),
        936,
    ),
    (
        dataclasses.replace(
            SECOND, name="SGD 0.12", optimizer="sgd", learning_rate=0.12, momentum=0.9, weight_decay=5e-4
        ),
        936,
    ),
    third("eight views of 64 images", views=8, batch_size=64),
    third("vectors at a tenth of the rate", vector_rate=0.1),
    third("Muon 0.1", learning_rate=0.1),
    third("weight decay 0.1", weight_decay=0.1),
    third("decoupled", loss="dcl"),
    third("24 pixels for 60 % of the steps", 312, phases=(Phase(0.6, 24, 0.2), Phase(1.0, 32, 0.2))),
    third("256 images", 117, batch_size=256),
]


def run(recipe: Recipe, bank, held_out, *, steps: int, seed: int) -> dict:
    (images, labels), (queries, answers) = bank, held_out
    sizes = parts.batch_sizes(recipe, len(images))
    init_key, run_key = jax.random.split(jax.random.key(seed))
    began, cpu = time.perf_counter(), time.process_time()
    carry = jax.jit(lambda key: parts.init(recipe, key))(init_key)
    compiled: dict[int, tuple] = {}
    flop, kept, now = 0.0, [], -1
    for step in range(steps):
        epoch, place = divmod(step, len(sizes))
        if epoch != now:
            now, numbers = epoch, order(seed, epoch, len(images))
        index = numbers[place * recipe.batch_size :][: sizes[place]][None]
        phase = next(i for i, phase in enumerate(recipe.phases) if step < round(phase.until * steps))
        arguments = carry, run_key, images, jnp.float32(steps), index
        if phase not in compiled:
            function = parts.training_steps(recipe, recipe.phases[phase], len(sizes))
            cost = arithmetic(function, *arguments)
            compiled[phase] = jax.jit(function, donate_argnums=0), cost
        program, cost = compiled[phase]
        carry, loss = program(*arguments)
        flop += cost
        kept.append(loss)
    losses = np.concatenate([np.asarray(x) for x in kept])

    def accuracy(recipe):
        embed = jax.jit(parts.features(recipe))
        features = (np.asarray(embed(carry, x)) for x in (images, queries))
        return 100 * knn_accuracy(next(features), labels, next(features), answers, k=10)

    return {
        "name": recipe.name,
        "seed": seed,
        "steps": steps,
        "tflop": round(float(flop) / 1e12, 2),
        "last": round(accuracy(dataclasses.replace(recipe, ema=0.0)), 2),
        "averaged": round(accuracy(recipe), 2) if recipe.ema else None,
        "loss": round(float(losses[-20:].mean()), 4),
        "cpu_s": round(time.process_time() - cpu, 1),
        "wall_s": round(time.perf_counter() - began, 1),
    }


def rows_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def table(rows: list[dict]) -> str:
    lines = [
        "| recipe | steps | TFLOP | kNN, last weights | kNN, averaged weights | loss | seeds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, steps in dict.fromkeys((row["name"], row["steps"]) for row in rows):
        of = [row for row in rows if (row["name"], row["steps"]) == (name, steps)]

        def cell(key, of=of):
            values = [row[key] for row in of if row.get(key) is not None]
            return " / ".join(f"{value:.1f}" for value in values) or "-"

        loss, tflop = np.mean([row["loss"] for row in of]), np.mean([row["tflop"] for row in of])
        lines.append(
            f"| {name} | {steps} | {tflop:.1f} | {cell('last')} | {cell('averaged')} | {loss:.3f} | {len(of)} |"
        )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help=".npz with train_images, train_labels")
    parser.add_argument("--out", required=True, help="JSON lines, read and added to")
    parser.add_argument("--table", help="Markdown, made of the JSON lines")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="*", help="names of recipes")
    parser.add_argument("--most", type=int, default=10**9, help="leave out runs of more steps")
    arguments = parser.parse_args()
    with np.load(arguments.data) as archive:
        images, labels = archive["train_images"], archive["train_labels"].astype(np.int32)
    bank, held_out = (images[:20000], labels[:20000]), (images[45000:], labels[45000:])
    out = Path(arguments.out)
    for seed in arguments.seeds:
        for recipe, steps in ROUND_1 + ROUND_3 + ROUND_2:
            done = {(row["name"], row["steps"], row["seed"]) for row in rows_of(out)}
            chosen = steps <= arguments.most and recipe.name in (arguments.only or [recipe.name])
            if not chosen or (recipe.name, steps, seed) in done:
                continue
            row = run(recipe, bank, held_out, steps=steps, seed=seed)
            with out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
            if arguments.table:
                Path(arguments.table).write_text(table(rows_of(out)))


if __name__ == "__main__":
    main()
