"""The whole training step, augmentation included, in bfloat16: ResNet-18 at 32 pixels and ResNet-50 at 224."""

from __future__ import annotations

import itertools
import time
from typing import Any, NamedTuple

from accelerator_phases.common import Emit, Program, abstract, arithmetic, mib, seconds_of, spread, table

TITLE = "A training step of SimCLR: views, network, NT-Xent, gradient, SGD"
TEMPERATURE = 0.5


class Task(NamedTuple):
    name: str
    depth: int
    stem: str
    size: int
    batch: int
    blur: bool
    steps_per_call: int
    small: bool = False


def task(depth: int, toy: bool) -> Task:
    if depth == 18:
        if toy:
            return Task("ResNet-18, 32 px, batch 512", 18, "cifar", 16, 8, False, 2, True)
        return Task("ResNet-18, 32 px, batch 512", 18, "cifar", 32, 512, False, 10)
    if toy:
        return Task("ResNet-50, 224 px, batch 256", 18, "imagenet", 32, 4, True, 2, True)
    return Task("ResNet-50, 224 px, batch 256", 50, "imagenet", 224, 256, True, 10)


def method_of(t: Task, *, augmented: bool = True):
    """SimCLR for a task, and its encoder and head to count the arithmetic of."""
    import jax.numpy as jnp

    from jaxcl import augment, nets
    from jaxcl.losses import keyless, nt_xent
    from jaxcl.methods import simclr

    norm = nets.batch_norm()
    encoder = nets.resnet(
        t.depth,
        stem=t.stem,
        norm=norm,
        dtype=jnp.bfloat16,
        **({"features": 4, "stages": 1} if t.small else {}),
    )
    head = nets.projection_head(layers=2, out=128, norm=norm)
    recipe = augment.simclr(t.size, strength=0.5, blur=t.blur)
    views = augment.two_views(recipe)

    def as_they_are(key, batch):
        x = batch["image"].astype(jnp.float32) / 255
        return x, x[::-1]

    method = simclr(
        views=views if augmented else as_they_are,
        encoder=encoder,
        head=head,
        loss=keyless(nt_xent, temperature=TEMPERATURE),
    )
    return method, encoder, head


def step_of(t: Task, *, augmented: bool = True, several: bool = False):
    """The step, and (state, key, batch) as shapes."""
    import jax
    import jax.numpy as jnp

    from jaxcl.train import init_state, make_step, optim
    from jaxcl.train.step import in_one_call

    method, _, _ = method_of(t, augmented=augmented)
    optimizer = optim.sgd(0.12, momentum=0.9, weight_decay=5e-4)
    batch = {
        "image": jax.ShapeDtypeStruct((t.batch, t.size, t.size, 3), jnp.uint8),
        "index": jax.ShapeDtypeStruct((t.batch,), jnp.int32),
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    some = {name: jnp.zeros((2, *x.shape[1:]), x.dtype) for name, x in batch.items()}
    (state,) = abstract(jax.eval_shape(lambda: init_state(jax.random.key(0), method, optimizer, some)))
    step = make_step(method, optimizer)
    if several:
        step = in_one_call(step)
        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((t.steps_per_call, *x.shape), x.dtype), batch)
    return step, (state, key, batch), lambda: init_state(jax.random.key(0), method, optimizer, some)


def programs(toy: bool, depths=(18, 50)) -> list[Program]:
    found = []
    for depth in depths:
        t = task(depth, toy)
        for options in ({}, {"augmented": False}, {"several": True}):
            step, arguments, _ = step_of(t, **options)
            found.append(Program(name_of(t, **options), step, arguments, donate=(0,)))
    return found


def name_of(t: Task, *, augmented: bool = True, several: bool = False) -> str:
    """Of the program with these options."""
    how = "" if augmented else ", no augmentation"
    return t.name + how + (f", {t.steps_per_call} steps a call" if several else "")


def flops_of_step(t: Task) -> int:
    """Of the network's forward pass over both views, three times, and of the loss; augmentation is not counted."""
    import jax
    import jax.numpy as jnp

    _, encoder, head = method_of(t)
    x = jax.ShapeDtypeStruct((1, t.size, t.size, 3), jnp.float32)
    params, state = jax.eval_shape(encoder.init, jax.random.key(0), x)
    forward = arithmetic(lambda p, s, x: encoder.apply(p, s, x, train=False), params, state, x)
    rows = 2 * t.batch
    return 3 * rows * forward + 4 * rows**2 * 128


def run(toy: bool, emit: Emit, *, depth: int) -> None:
    import jax
    import numpy as np

    from accelerator_phases.common import compiled_together, memory, random
    from jaxcl import devices
    from jaxcl.data import batches, index_batches, prefetch
    from jaxcl.train import placement
    from jaxcl.typing import Images

    t = task(depth, toy)
    flops = flops_of_step(t)
    budget = 0.2 if toy else 3.0
    count = 64 if toy else 8192 if t.size < 100 else 2048
    rng = np.random.default_rng(0)
    images = Images("random", rng.integers(0, 256, (count, t.size, t.size, 3), dtype=np.uint8))
    mesh = devices.make_mesh(devices=1)
    key = devices.replicate(jax.random.key(1), mesh)
    order: dict[str, Any] = {"batch_size": t.batch, "seed": 0}

    def measured(options, feed):
        """The training step `call`, and the row of its times, fed in one way."""
        function = ready[name_of(t, **options)]
        if isinstance(function.program, Exception):
            raise function.program
        _, _, init = step_of(t, **options)
        carry = {"state": devices.replicate(init(), mesh), "wait": 0.0, "calls": 0}

        def call():
            before = time.perf_counter()
            batch = next(feed)
            carry["wait"] += time.perf_counter() - before
            carry["calls"] += 1
            carry["state"], metrics = function(carry["state"], key, batch)
            return metrics["loss"]

        steps = t.steps_per_call if options.get("several") else 1
        begin = time.perf_counter()
        times = seconds_of(call, jax.block_until_ready, budget=budget, calls=steps)
        waited = carry["wait"] / (time.perf_counter() - begin)
        return call, {
            "compile_seconds": function.seconds,
            "notes": function.notes,
            "input_wait": waited,
            **memory(function.program),
            **spread(times),
        }

    def device_feed():
        return prefetch((devices.split(batch, mesh) for batch in batches(images, **order)), size=2)

    def resident_feed(several=False):
        lay_out = placement.resident(images.images, mesh, axis=int(several))
        walk = index_batches(count, **order)
        if several:
            calls = iter(lambda: list(itertools.islice(walk, t.steps_per_call)), [])
            stacked = ({"index": np.stack([batch["index"] for batch in call])} for call in calls)
            return prefetch((lay_out(batches) for batches in stacked), size=2)
        return prefetch((lay_out(batch) for batch in walk), size=2)

    def one_batch(several=False):
        shape = step_of(t, several=several)[1][2]
        batch = devices.replicate(random(shape), mesh)
        return iter(lambda: batch, None)

    cases = [
        ("jaxcl, device input", {}, device_feed),
        ("jaxcl, resident input", {}, resident_feed),
        (
            f"jaxcl, resident input, {t.steps_per_call} steps a call",
            {"several": True},
            lambda: resident_feed(True),
        ),
        ("jaxcl, no augmentation", {"augmented": False}, one_batch),
    ]
    if toy and depth == 50:  # the other cases are rehearsed with the first network
        cases = cases[1:2]
    wanted = {name_of(t, **options) for _, options, _ in cases}
    ready = compiled_together([program for program in programs(toy, (depth,)) if program.name in wanted])
    for name, options, feed in cases:
        row = {"task": t.name, "name": name, "framework": "jax", "batch": t.batch, "flops": flops}
        try:
            call, found = measured(options, feed())
            emit(row | found)
        except Exception as error:
            emit(row | {"left_out": f"{type(error).__name__}: {str(error)[:200]}"})
            continue
        if name == "jaxcl, resident input":
            emit({"task": t.name, "kind": "profile", "operations": dearest(call, steps=2 if toy else 5)})


def dearest(call, *, steps: int, most: int = 10) -> list[dict[str, Any]]:
    """The operations that took most of the device's time in so many steps: name, milliseconds a step, fraction."""
    import glob
    import tempfile

    import jax

    with tempfile.TemporaryDirectory() as folder:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(steps):
                result = call()
            jax.block_until_ready(result)
        files = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        if not files:
            return []
        profile = jax.profiler.ProfileData.from_file(files[0])
        times: dict[str, float] = {}
        planes = list(profile.planes)
        on_device = [plane for plane in planes if plane.name.startswith("/device:")]
        for plane in on_device or planes:
            for line in plane.lines:
                if on_device and not line.name.startswith("Stream"):
                    continue
                for event in line.events:
                    times[event.name] = times.get(event.name, 0.0) + event.duration_ns
    total = sum(times.values())
    ordered = sorted(times.items(), key=lambda item: -item[1])[:most]
    return [{"operation": n[:80], "ms": ns / 1e6 / steps, "fraction": ns / total} for n, ns in ordered]


def run_torch(toy: bool, emit: Emit, *, depth: int) -> None:
    import torch

    from accelerator_phases import peers

    t = task(depth, toy)
    kind = peers.device()
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    images = torch.randint(0, 256, (t.batch, t.size, t.size, 3), dtype=torch.uint8, device=kind)
    augmentations = (
        ("by hand, each image its own draws", peers.by_hand),
        ("torchvision v2, one draw a batch", peers.torchvision_v2),
        ("no augmentation", peers.none),
    )
    for name, augment in augmentations:
        row = {"task": t.name, "name": f"PyTorch, {name}", "framework": "torch", "batch": t.batch}
        try:
            net = peers.with_head(*peers.resnet(t.depth, stem=t.stem, width=0.5 if t.small else 1))
            net = net.to(kind, memory_format=torch.channels_last)
            step = peers.training_step(
                net,
                augment,
                t.size,
                temperature=TEMPERATURE,
                amp=True,
                blur=t.blur,
                compile="eager" if toy else "inductor",
            )
            if kind == "cuda":
                torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter()
            step(images)
            peers.wait()
            first = time.perf_counter() - start
            times = seconds_of(
                lambda step=step: step(images), lambda _: peers.wait(), budget=0.2 if toy else 3.0
            )
            peak = torch.cuda.max_memory_allocated() if kind == "cuda" else None
            emit(row | {"compile_seconds": first, "peak_bytes": peak, **spread(times)})
        except Exception as error:
            emit(row | {"left_out": f"{type(error).__name__}: {str(error)[:200]}"})


def report(rows, ceilings) -> list[str]:
    lines, rate = [], ceilings.get("matmul bfloat16")
    for name in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == name]
        flops = next((row["flops"] for row in own if "flops" in row), None)
        peer = min((row["ms"] for row in own if "hand" in row.get("name", "") and "ms" in row), default=None)
        cells = []
        for row in own:
            if row.get("kind") == "profile":
                continue
            if "left_out" in row:
                cells.append([row["name"], row["left_out"], *[None] * 6])
                continue
            images = row["batch"] / (row["ms"] / 1e3)
            fraction = 100 * flops / (row["ms"] / 1e3) / rate if flops and rate else None
            wait = 100 * row["input_wait"] if "input_wait" in row else None
            ratio = peer / row["ms"] if peer else None
            cells.append(
                [
                    row["name"],
                    images,
                    ratio,
                    fraction,
                    row["ms"],
                    wait,
                    mib(row["peak_bytes"]),
                    row["compile_seconds"],
                ]
            )
        header = ["", "images/s", "times PyTorch, by hand", "% of the matmul rate", "ms a step"]
        lines += [
            f"### {name}",
            "",
            *table([*header, "waiting for input, %", "peak, MiB", "to compile, s"], cells),
        ]
        for row in own:
            if row.get("kind") == "profile" and row["operations"]:
                dear = [[o["operation"], o["ms"], 100 * o["fraction"]] for o in row["operations"]]
                lines += ["Dearest operations of a step (resident input):", "", *table(["", "ms", "%"], dear)]
    return lines
