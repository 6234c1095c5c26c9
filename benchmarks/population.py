"""Many runs in one program: what a training step of a population takes, beside the same members one after another.

    python benchmarks/population.py here [--members 2 4 8] [--networks convn convnet]    runs it on this machine
    python benchmarks/population.py h100 [--members 2 8]     compiles it for a described H100: memory, floor of a step

SimCLR with NT-Xent and its augmentation without blur, on the digits of scikit-learn (the embedded data set);
members differ in temperature and learning rate. `convn` is a ConvN of 16 pixels and 32 images a step, `convnet` the
small ConvNet of 32 pixels and 64 images. A step's time is the median of those that follow the first; members one after
another are the step that `train` makes (`make_step`, guarded, jitted), timed in turn with the population's. Memory is
what the compiled step plans for temporaries, a member.

The table is written to benchmarks/results/population-WHERE.md (cpu, gpu, or the machine's name); a row that is there
already stays.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

from contenders import processor

HERE = Path(__file__).parent
NETWORKS = {"convn": (16, 32), "convnet": (32, 64)}  # pixels, images a step


def recipe_of(network: str):
    """numbers -> recipe, of a network of the table."""
    import optax

    from jaxcl import augment, losses, methods, nets
    from jaxcl.config import Recipe

    size, batch = NETWORKS[network]
    norm = nets.batch_norm()
    if network == "convn":
        encoder = nets.conv_n(features=(16, 32), dense=64, norm=norm)
    else:
        encoder = nets.small_convnet(features=(16, 32, 64, 128), norm=norm)
    views = augment.two_views(augment.simclr(size, strength=0.5, blur=False))

    def made(numbers):
        method = methods.simclr(
            views=views,
            encoder=encoder,
            head=nets.projection_head(layers=2, width=128, out=64, norm=norm),
            loss=losses.keyless(losses.nt_xent, temperature=numbers["temperature"]),
        )
        rate = numbers["learning_rate"]
        return Recipe(method, optax.adam(rate), optax.constant_schedule(rate), views, 100, batch)

    return made


def start_of(network: str):
    """numbers, key -> the state of a member before its first step."""
    from jaxcl.train import init_state
    from jaxcl.train.state import blank_batch
    from jaxcl.typing import About

    size, _ = NETWORKS[network]
    made, batch = recipe_of(network), blank_batch(About(8000, (size, size, 3), ()))

    def start(numbers, key):
        recipe = made(numbers)
        return init_state(key, recipe.method, recipe.optimizer, batch)

    return start


def arguments_of(network: str, members: int):
    """The images, and what each of the members is given: numbers, states, keys and a batch."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxcl import data

    size, batch = NETWORKS[network]
    images = data.load("digits", "train", size=size).images
    i = jnp.arange(members) / members
    numbers = {"temperature": 0.1 + 0.4 * i, "learning_rate": 1e-3 * (1 + i)}
    keys = jax.vmap(jax.random.key)(jnp.arange(members))
    states = jax.jit(jax.vmap(start_of(network)))(numbers, keys)
    index = np.random.default_rng(0).integers(0, len(images), (members, batch), np.int32)
    return images, numbers, states, keys, {"index": index}


def measured(network: str, members: int, steps: int) -> dict:
    """A row of the table: the population's step, and its members' one after another, in turn."""
    import jax

    from jaxcl import devices
    from jaxcl.train import finite, make_step
    from jaxcl.train.population import make_population_step

    images, numbers, states, keys, batch = arguments_of(network, members)
    mesh = devices.make_mesh(devices=1)
    begun = time.perf_counter()
    together = (
        make_population_step(recipe_of(network), mesh).lower(images, numbers, states, keys, batch).compile()
    )
    compiling = time.perf_counter() - begun
    made = recipe_of(network)

    def member(tree, i):
        return jax.tree.map(lambda x: x[i], tree)

    # Alone a number is known when the program is compiled; here one program serves all, which is kinder to it.
    def one_step(images, numbers, state, key, batch):
        recipe = made(numbers)
        step = finite.guarded(make_step(recipe.method, recipe.optimizer))
        return step(state, key, {"image": images[batch["index"]], **batch})

    own = [member((numbers, states, keys, batch), i) for i in range(members)]
    begun = time.perf_counter()
    alone = jax.jit(one_step, donate_argnums=2).lower(images, *own[0]).compile()
    compiling_alone = time.perf_counter() - begun
    pixels = jax.device_put(images)
    singles = [state for _, state, _, _ in own]
    times: dict[str, list[float]] = {"together": [], "alone": []}
    for _ in range(steps + 1):
        begun = time.perf_counter()
        states, metrics = together(pixels, numbers, states, keys, batch)
        jax.block_until_ready((states, metrics))
        times["together"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        for i, (values, _, key, rows) in enumerate(own):
            singles[i], metrics = alone(pixels, values, singles[i], key, rows)
        jax.block_until_ready((singles, metrics))
        times["alone"].append(time.perf_counter() - begun)
    return {
        "network": network,
        "members": members,
        "together": statistics.median(times["together"][1:]),
        "alone": statistics.median(times["alone"][1:]),
        "compiling": compiling,
        "compiling_alone": compiling_alone,
        "temporaries": together.memory_analysis().temp_size_in_bytes / members,
        "temporaries_alone": alone.memory_analysis().temp_size_in_bytes,
    }


def planned(network: str, members: int, where: str) -> dict:
    """A row of the table for a machine that is not there."""
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    from jaxcl import devices, machines, plan, programs
    from jaxcl.train.population import make_population_step

    machine = machines.described(where)
    mesh = devices.row(machine.devices)
    shapes = jax.eval_shape(lambda: arguments_of(network, members)[1:])
    size, _ = NETWORKS[network]
    images = jax.ShapeDtypeStruct((8000, size, size, 3), "uint8")
    split = NamedSharding(mesh, PartitionSpec(devices.AXIS))
    whole = NamedSharding(mesh, PartitionSpec())

    def placed(tree, sharding):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    begun = time.perf_counter()
    traced = make_population_step(recipe_of(network), mesh).trace(
        placed(images, whole), *placed(shapes, split)
    )
    compiled, _ = plan.compile_for(traced, machine, [])
    costs = plan.Costs.of(traced, compiled, machine)
    return {
        "network": network,
        "members": members,
        "floor": costs.floor,
        "compiling": time.perf_counter() - begun,
        "temporaries": programs.memory(compiled)["temporary_bytes"] / members,
    }


def table(where: str, rows: list[dict]) -> str:
    import jax

    here = where == "here"
    device = jax.devices()[0].device_kind if here else f"compiled for a described {where} (nothing was run)"
    cores = ""
    if here and jax.default_backend() == "cpu":
        device, cores = processor(), f", {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores"
    lines = [
        f"# A population's training step: {device}{cores}",
        "",
        f"`python benchmarks/population.py {where}`, jax {jax.__version__}, {time.strftime('%Y-%m-%d')}",
        "",
    ]
    head = ["network", "members"]
    head += ["together, ms", "one after another, ms", "times as quick"] if here else ["floor of the step, ms"]
    head += [
        "temporaries a member, MiB",
        *(["alone, MiB"] if here else []),
        "to compile, s",
        *(["alone, s"] if here else []),
    ]
    lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in sorted(rows, key=lambda row: (row["network"], row["members"])):
        cells = [row["network"], str(row["members"])]
        if here:
            both = row["together"], row["alone"]
            cells += [f"{1e3 * x:.1f}" for x in both] + [f"{both[1] / both[0]:.2f}"]
        else:
            cells += [f"{1e3 * row['floor']:.3f}"]
        cells += [f"{row['temporaries'] / 2**20:.1f}"]
        cells += [f"{row['temporaries_alone'] / 2**20:.1f}"] if here else []
        cells += [f"{row['compiling']:.0f}"] + ([f"{row['compiling_alone']:.0f}"] if here else [])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("where", help="here, or a machine as for `jaxcl plan`")
    parser.add_argument("--members", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    own = parser.parse_args()
    if own.where == "here":
        import jax

        name = jax.default_backend()
    else:
        name = own.where
    kept = own.out / f"population-{name}.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    for network in own.networks:
        for members in own.members:
            if (network, members) in {(row["network"], row["members"]) for row in rows}:
                continue
            found = (
                measured(network, members, own.steps)
                if own.where == "here"
                else planned(network, members, own.where)
            )
            rows.append(found)
            print(found, flush=True)
            kept.write_text("".join(json.dumps(row) + "\n" for row in rows))
            kept.with_suffix(".md").write_text(table(own.where, rows))


if __name__ == "__main__":
    main()
