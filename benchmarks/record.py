"""The CIFAR-10 record: 90.0 % kNN without a label, as soon as possible, on one GPU.

    python benchmarks/record.py reference --data cifar10.npz --out rows.jsonl
    python benchmarks/record.py record --data cifar10.npz --out rows.jsonl --minutes 10

The contest is of dkobak/simclr-cifar10 (July 2025): any network, any training, on the training images alone; the
accuracy is that of scikit-learn's KNeighborsClassifier(10, metric="cosine") on the features before the head, training
images as the bank. Its only entry is SimCLR with ResNet-18, 500 epochs in 1 h 39 min on an A100 (90.3 +- 0.3); 100
epochs take 20 min (83.2 +- 0.2). `reference` is that recipe for 100 epochs, nearly; `record` is ours.

The data are an .npz of uint8 arrays: train_images [n, 32, 32, 3], train_labels, test_images, test_labels.

Longer than other files: whoever checks a record reads one program from top to bottom.

What the clocks say: `seconds` starts before anything is compiled and stops for evaluations alone; `training_seconds`
counts training steps alone. PFLOP are those of all convolutions and matrix products of the training steps, forward and
backward, counted in the traced program, 2 a multiply-add (augmentation's and the optimizer's products included).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import record_parts as parts
from accelerator_phases.common import arithmetic
from record_parts import Phase, Recipe

from jaxcl.evaluate import knn

TARGETS = (70, 80, 83, 85, 90)
Emit = Callable[[dict[str, Any]], None]

# dkobak/simclr-cifar10 at 44b2500, with the learning rate that its README has for 100 epochs. Where this still differs:
# convolutions in bfloat16 where PyTorch has TF32; colors are jittered as tf.image does it (contrast about each
# channel's mean, no rounding to bytes in between); running variances are the biased ones.
REFERENCE = Recipe(
    "reference",
    network="resnet18",
    features=(64,),
    initialization="torch",
    zero_init_last_gamma=False,
    head=(1024,),
    head_norm=False,
    out=128,
    norm_by_view=True,
    loss="nt_xent",
    temperature=0.5,
    batch_size=512,
    drop_last=False,
    views=2,
    phases=(Phase(1.0, 32, 0.2),),
    jitter=(0.4, 0.4, 0.4, 0.1),
    gray=0.1,
    optimizer="sgd",
    learning_rate=0.06 * 512 / 256,
    momentum=0.9,
    nesterov=False,
    weight_decay=5e-4,
    decay_all=True,
    warmup=0.0,
    rate_by_epoch=True,
)
REFERENCE_EPOCHS = 100

# Chosen on 5,000 training images by small runs on a CPU: results/record-search-cpu.md says what won and what did not.
RECORD = Recipe(
    "record",
    network="resnet18",
    features=(64,),
    head=(1024,),
    temperature=0.2,
    batch_size=256,
    views=4,
    phases=(Phase(1.0, 32, 0.2),),
    optimizer="muon",
    learning_rate=0.1,
    muon_rms=None,
    vector_rate=0.1,
    momentum=0.95,
    weight_decay=3e-3,
    warmup=0.02,
    ema=0.99,
)
# The longest of these that fits is taken, before the first step.
RECORD_EPOCHS = (400, 320, 260, 210, 170, 140, 110, 90, 70, 55, 45, 35, 25, 20, 15, 10, 5)


class Data(NamedTuple):
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load(path: str | Path) -> Data:
    with np.load(str(path).removeprefix("npz:")) as archive:
        data = Data(*(archive[name] for name in Data._fields))
    return data._replace(
        train_labels=data.train_labels.astype(np.int32), test_labels=data.test_labels.astype(np.int32)
    )


class Scale(NamedTuple):
    """What a real run and a rehearsal differ in."""

    images: int = 50_000
    tests: int = 10_000
    calls_per_epoch: int = 1  # a call makes an epoch's steps, or such a part of them
    features_at_once: int = 10_000
    features_batch: int = 1_000
    closing: float = 15.0  # seconds for scikit-learn's own word


REAL = Scale()
TOY = Scale(images=128, tests=64, calls_per_epoch=1, features_at_once=64, features_batch=64, closing=1.0)
# A rehearsal waits for the compiler more than for anything else.
TOY_COMPILER = {"xla_backend_optimization_level": 0}


def toy(recipe: Recipe) -> Recipe:
    """The same program with a network and batches that two CPU cores can bear."""
    return dataclasses.replace(
        recipe,
        features=tuple(max(4, f // 16) for f in recipe.features),
        head=(16,),
        out=8,
        stages=1,
        batch_size=56,  # 2 steps and a rest of 16
        phases=tuple(phase._replace(size=phase.size // 2) for phase in recipe.phases),
        dtype="float32",
    )


def toy_data(seed: int = 0) -> Data:
    """Ten colors under noise."""
    draws = np.random.default_rng(seed)
    colors = draws.integers(60, 196, (10, 1, 1, 3))
    labels = draws.integers(0, 10, TOY.images + TOY.tests).astype(np.int32)
    noise = draws.integers(-128, 128, (len(labels), 2, 2, 1)).repeat(16, 1).repeat(16, 2)
    images = np.clip(colors[labels] + noise, 0, 255).astype(np.uint8)
    n = TOY.images
    return Data(images[:n], labels[:n], images[n:], labels[n:])


# ---------------------------------------------------------------------------------------------- what is compiled


class Program(NamedTuple):
    name: str
    function: Callable
    arguments: tuple  # abstract
    donate: tuple[int, ...] = ()

    def lowered(self):
        return jax.jit(self.function, donate_argnums=self.donate).lower(*self.arguments)


def order(seed: int, epoch: int, images: int) -> np.ndarray:
    """The order of the images in an epoch: int32 [images]."""
    return np.random.default_rng((seed, epoch)).permutation(images).astype(np.int32)


def calls(sizes: tuple[int, ...], per_epoch: int) -> list[tuple[int, int]]:
    """The compiled calls of an epoch, (steps, batch size) each: steps of one size, cut in about `per_epoch` parts."""
    full = sizes.count(sizes[0])
    most = -(-full // per_epoch)
    made = [(min(most, full - first), sizes[0]) for first in range(0, full, most)]
    return made + [(1, size) for size in sizes[full:]]


def programs_of(recipe: Recipe, scale: Scale) -> dict[Any, Program]:
    """All that a run of the recipe compiles: "init", "features", and (phase, steps, batch size) for training."""

    def array(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype)

    key = jax.eval_shape(lambda: jax.random.key(0))
    carry = jax.eval_shape(lambda key: parts.init(recipe, key), key)
    images = array((scale.images, 32, 32, 3), jnp.uint8)
    sizes = parts.batch_sizes(recipe, scale.images)
    made: dict[Any, Program] = {
        "init": Program(f"{recipe.name}: init", lambda key: parts.init(recipe, key), (key,)),
        "features": Program(
            f"{recipe.name}: features",
            parts.features(recipe, batch_size=scale.features_batch),
            (carry, array((scale.features_at_once, 32, 32, 3), jnp.uint8)),
        ),
    }
    for i, phase in enumerate(recipe.phases):
        for steps, size in dict.fromkeys(calls(sizes, scale.calls_per_epoch)):
            made[i, steps, size] = Program(
                f"{recipe.name}: {steps} steps of {size} images, views of {phase.size} pixels",
                parts.training_steps(recipe, phase, len(sizes)),
                (carry, key, images, array((), jnp.float32), array((steps, size), jnp.int32)),
                donate=(0,),
            )
    return made


def programs(toy: bool = False) -> list[tuple[str, Callable, tuple]]:
    """(name, function, abstract arguments) of every program that both runs compile, at their real or toy size."""
    return [
        (program.name, jax.jit(program.function, donate_argnums=program.donate), program.arguments)
        for recipe in recipes(toy)
        for program in programs_of(recipe, TOY if toy else REAL).values()
    ]


def recipes(small: bool = False) -> tuple[Recipe, Recipe]:
    return (toy(REFERENCE), toy(RECORD)) if small else (REFERENCE, RECORD)


# ---------------------------------------------------------------------------------------------- runs


def reference(
    data: Data | None, emit: Emit, *, deadline: float | None = None, toy: bool = False, seed: int = 0
):
    """Our run of the contest's recipe for 100 epochs; `deadline` as in `run`."""
    epochs = (2,) if toy else (REFERENCE_EPOCHS,)
    return run(recipes(toy)[0], data, emit, epochs=epochs, deadline=deadline, toy=toy, seed=seed)


def record(data: Data | None, emit: Emit, *, deadline: float | None = None, toy: bool = False, seed: int = 0):
    """Our own recipe, for as many epochs as fit before the deadline."""
    epochs = (4, 3, 2) if toy else RECORD_EPOCHS
    return run(recipes(toy)[1], data, emit, epochs=epochs, deadline=deadline, toy=toy, seed=seed)


def run(
    recipe: Recipe,
    data: Data | None,
    emit: Emit,
    *,
    epochs: tuple[int, ...],
    deadline: float | None = None,
    toy: bool = False,
    seed: int = 0,
    evaluations: int = 10,
) -> dict[str, Any]:
    """Trains, evaluates at every tenth of the epochs, and emits a row (a dict) as soon as it is known.

    epochs
        lengths to choose from. How long a training step takes is measured, and the longest that ends before the
        deadline is taken; its learning rate and resolutions are then fixed before the first step.
    deadline
        seconds from now, None for none. Where nothing fits, a row says so and nothing is trained.

    Rows: event "compiled", "measured", "accuracy" (one an evaluation), "target" (one for each of TARGETS) and
    "finished"; or "not run", or "not finished", which say why. Returns the last one.
    """
    scale, data = (TOY, toy_data() if data is None else data) if toy else (REAL, data)
    if data is None:
        raise ValueError("a run needs data; see load.")
    scale = scale._replace(images=len(data.train_images), tests=len(data.test_images))
    clock = Clock()

    def say(event: str, **row) -> dict[str, Any]:
        row = {"run": recipe.name, "event": event, **clock.now(), **row}
        emit(row)
        return row

    # 1. All programs, compiled beside each other.
    sources = programs_of(recipe, scale)
    lowered = {name: program.lowered() for name, program in sources.items()}
    with ThreadPoolExecutor(8) as pool:
        options = TOY_COMPILER if toy else None
        made = pool.map(lambda program: program.compile(compiler_options=options), lowered.values())
        compiled = dict(zip(lowered, made, strict=True))
    flop = {
        name: arithmetic(program.function, *program.arguments)
        for name, program in sources.items()
        if isinstance(name, tuple)
    }
    say("compiled", programs=len(compiled), settings=dataclasses.asdict(recipe), seed=seed)

    init_key, run_key = jax.random.split(jax.random.key(seed))
    images = jax.device_put(data.train_images)
    carry = compiled["init"](init_key)
    sizes = parts.batch_sizes(recipe, scale.images)
    schedule = calls(sizes, scale.calls_per_epoch)

    def embed(carry, images):
        at_once, made = scale.features_at_once, []
        for first in range(0, len(images), at_once):
            part = images[first : first + at_once]
            rest = at_once - len(part)
            made.append(
                np.asarray(
                    compiled["features"](carry, np.pad(part, ((0, rest), *[(0, 0)] * 3)) if rest else part)
                )
            )
        return np.concatenate(made)[: len(images)]

    def evaluate(carry):
        return embed(carry, data.train_images), embed(carry, data.test_images)

    def accuracy_of(bank, queries):
        labels = knn(bank, data.train_labels, queries, k=10)
        return 100 * float(np.mean(labels == data.test_labels))

    def epoch_calls(epoch: int, numbers: np.ndarray):
        """(program's name, its images [k, b]) of each call of an epoch."""
        first = 0
        for steps, size in schedule:
            chosen = numbers[first : first + steps * size].reshape(steps, size)
            first += steps * size
            yield (steps, size), chosen

    # 2. How long things take: each program on a copy of the state, and one evaluation (of the untrained network).
    # The first call of each is not timed: it loads the program.
    steps_total = jnp.float32(1e6)
    seconds_of: dict[Any, float] = {}
    for name in flop:
        index = jnp.asarray(order(seed, 0, scale.images)[: name[1] * name[2]].reshape(name[1], name[2]))
        for _ in range(2):
            copy = jax.tree.map(jnp.copy, carry)
            jax.block_until_ready(copy)
            began = time.perf_counter()
            jax.block_until_ready(compiled[name](copy, run_key, images, steps_total, index))
            seconds_of[name] = time.perf_counter() - began
    seconds_an_epoch = [
        sum(seconds_of[i, steps, size] for steps, size in schedule) for i in range(len(recipe.phases))
    ]
    with clock.paused():
        accuracy_of(*evaluate(carry))
        began = time.perf_counter()
        untrained = accuracy_of(*evaluate(carry))
        seconds_an_evaluation = time.perf_counter() - began

    def predicted(length: int) -> float:
        ends = (0, *parts.plan(recipe, scale.images, length).ends)
        training = sum(n * s for n, s in zip(np.diff(ends), seconds_an_epoch, strict=True))
        return float(1.03 * training + (evaluations + 1) * seconds_an_evaluation + scale.closing)

    left = None if deadline is None else deadline - clock.wall()
    chosen = longest(epochs, predicted, left)
    say(
        "measured",
        seconds_an_epoch=[round(s, 4) for s in seconds_an_epoch],
        views_per_second=[round(sum(sizes) * views_of(recipe) / s) for s in seconds_an_epoch],
        tflop_per_second=[
            round(sum(flop[i, steps, size] for steps, size in schedule) / s / 1e12, 2)
            for i, s in enumerate(seconds_an_epoch)
        ],
        seconds_an_evaluation=round(seconds_an_evaluation, 3),
        untrained=round(untrained, 2),
        seconds_left=None if left is None else round(left, 1),
        predicted={length: round(predicted(length), 1) for length in epochs},
        chosen=chosen,
        do_not_fit=[length for length in epochs if chosen is None or length > chosen],
    )
    if chosen is None:
        return say(
            "not run", why=f"{min(epochs)} epochs need {predicted(min(epochs)):.0f} s, {left:.0f} are left"
        )

    # 3. Training. The host runs ahead of the device and waits for it only where it evaluates.
    plan = parts.plan(recipe, scale.images, chosen)
    steps_total = jnp.float32(plan.steps)
    at = sorted({-(-plan.epochs * i // evaluations) for i in range(1, evaluations + 1)})
    pflop, reached, accuracy = 0.0, {}, untrained
    features = None
    clock.start_training()
    for epoch in range(plan.epochs):
        numbers, phase = order(seed, epoch, scale.images), plan.phase(epoch)
        for call, index in epoch_calls(epoch, numbers):
            carry, losses = compiled[(phase, *call)](carry, run_key, images, steps_total, index)
            pflop += flop[(phase, *call)] / 1e15
        if epoch + 1 not in at:
            continue
        loss = float(np.mean(jax.block_until_ready(losses)))
        with clock.paused():
            if not np.isfinite(loss):
                return say("not finished", why=f"the loss was {loss} in epoch {epoch + 1}")
            features = evaluate(carry)
            accuracy = accuracy_of(*features)
        row = say(
            "accuracy", epoch=epoch + 1, loss=round(loss, 4), pflop=round(pflop, 4), knn=round(accuracy, 2)
        )
        reached |= {target: row for target in TARGETS if accuracy >= target and target not in reached}
        if deadline is not None and clock.wall() > deadline + 30 and epoch + 1 < plan.epochs:
            return say("not finished", why=f"stopped after epoch {epoch + 1}: 30 s over the deadline")

    # 4. The end: which accuracy was first seen when, and scikit-learn's own word on the last one.
    for target in TARGETS:
        kept = ("epoch", "seconds", "training_seconds", "pflop", "knn")
        if target in reached:
            say("target", target=target, reached=True, **{f"at_{k}": reached[target][k] for k in kept})
        else:
            say("target", target=target, reached=False)
    with clock.paused():
        theirs = sklearn_accuracy(features[0], data.train_labels, features[1], data.test_labels)
    return say(
        "finished",
        epochs=plan.epochs,
        pflop=round(pflop, 4),
        knn=round(accuracy, 2),
        knn_sklearn=None if theirs is None else round(theirs, 2),
        tflop_per_second=round(1e3 * pflop / clock.training, 2),
    )


def longest(epochs: tuple[int, ...], predicted: Callable[[int], float], left: float | None) -> int | None:
    """The largest number of epochs whose predicted seconds are not more than are left; None where there is none."""
    return max((n for n in epochs if left is None or predicted(n) <= left), default=None)


def views_of(recipe: Recipe) -> int:
    return recipe.views + (recipe.small[0] if recipe.small else 0)


def sklearn_accuracy(bank, labels, queries, answers) -> float | None:
    try:
        from sklearn.neighbors import KNeighborsClassifier
    except ImportError:
        return None
    return 100 * float(KNeighborsClassifier(10, metric="cosine").fit(bank, labels).score(queries, answers))


class Clock:
    """Seconds since it was made less those in which it was paused, and those of training."""

    def __init__(self):
        self.began = time.perf_counter()
        self.pauses = 0.0
        self.training_began: float | None = None
        self.pauses_before = 0.0

    def start_training(self):
        self.training_began, self.pauses_before = time.perf_counter(), self.pauses

    def paused(self):
        clock = self

        class Pause:
            def __enter__(self):
                self.began = time.perf_counter()

            def __exit__(self, *error):
                clock.pauses += time.perf_counter() - self.began

        return Pause()

    def wall(self) -> float:
        return time.perf_counter() - self.began

    @property
    def training(self) -> float:
        if self.training_began is None:
            return 0.0
        return time.perf_counter() - self.training_began - (self.pauses - self.pauses_before)

    def now(self) -> dict[str, float]:
        return {
            "seconds": round(self.wall() - self.pauses, 2),
            "training_seconds": round(self.training, 2),
            "evaluation_seconds": round(self.pauses, 2),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("reference", "record"))
    parser.add_argument("--data", help=".npz; not needed with --toy")
    parser.add_argument("--out", help="JSON lines, added to")
    parser.add_argument("--minutes", type=float, help="the longest schedule that fits is taken")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--toy", action="store_true", help="random images, a tiny network: a rehearsal")
    arguments = parser.parse_args()

    def emit(row):
        print(json.dumps(row), flush=True)
        if arguments.out:
            with open(arguments.out, "a") as file:
                file.write(json.dumps(row) + "\n")

    {"reference": reference, "record": record}[arguments.what](
        load(arguments.data) if arguments.data else None,
        emit,
        deadline=None if arguments.minutes is None else 60 * arguments.minutes,
        toy=arguments.toy,
        seed=arguments.seed,
    )


if __name__ == "__main__":
    main()
