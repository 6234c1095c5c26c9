"""Many encoders evaluated: features, neighbors and linear classifiers of all at once, beside one after the other.

    python benchmarks/members.py [--members 8] [--networks convn convnet] [--images 8000]

Encoders as they are initialised, of the networks of `population.py`, on the digits of scikit-learn (the embedded data
set) at 16 pixels. "at once" is one program mapped over the members (`embed_each`, `knn_ranked_each`,
`linear_probe_each`), "in turn" one program called for each, as a sweep on a CPU does. Seconds are those of the second
call, when all is compiled: by the clock on an accelerator, of the processor on a CPU, which other programs may share.
The table is written to benchmarks/results/members-WHERE.md (cpu or gpu).
"""

from __future__ import annotations

import argparse
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path

from contenders import processor

HERE = Path(__file__).parent
SIZE = 16


def encoders_of(network: str, members: int) -> list:
    """functools.partial(embed, params, state), one a member."""
    import jax
    import jax.numpy as jnp

    from jaxcl import nets

    norm = nets.batch_norm()
    net = nets.conv_n(features=(16, 32), dense=64, norm=norm)
    if network == "convnet":
        net = nets.small_convnet(features=(16, 32, 64), norm=norm)
    init = jax.jit(lambda key: net.init(key, jnp.zeros((2, SIZE, SIZE, 3))))

    def embed(params, state, images):
        last = net.apply(params, state, images, train=False)[0][-1]
        return last.mean(axis=(1, 2)) if last.ndim == 4 else last

    return [functools.partial(embed, *init(jax.random.key(i))) for i in range(members)]


def seconds_of(call: Callable[[], object], clock: Callable[[], float]) -> tuple[float, object]:
    """The seconds of the second call, and what it returned."""
    call()
    begun = clock()
    made = call()
    return clock() - begun, made


def measured(network: str, members: int, images: int) -> list[dict]:
    """Rows of the table: features, neighbors, classifiers."""
    import jax
    import numpy as np

    from jaxcl import data, evaluate

    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    encoders = encoders_of(network, members)
    sets = [data.load("digits", split, size=SIZE) for split in ("train", "test")]
    sets = [one._replace(images=one.images[:images], labels=one.labels[:images]) for one in sets]
    labels = [one.labels for one in sets]
    timed = {}

    def both(
        what: str, at_once: Callable[[], object], in_turn: Callable[[], object]
    ) -> tuple[object, object]:
        together, one = seconds_of(at_once, clock)
        alone, other = seconds_of(in_turn, clock)
        timed[what] = together, alone
        return one, other

    def embedded(of):
        return [of(one.images) for one in sets]

    each, alone = both(
        "features",
        lambda: embedded(lambda x: evaluate.embed_each(encoders, x)),
        lambda: embedded(lambda x: np.stack([evaluate.embed(encoder, x) for encoder in encoders])),
    )
    apart = max(float(abs(one - other).max()) for one, other in zip(each, alone, strict=True))
    bank, queries = alone
    pairs = list(zip(bank, queries, strict=True))
    one, other = both(
        "kNN, k = 10",
        lambda: evaluate.knn_ranked_each(bank, labels[0], queries, k=10),
        lambda: np.stack([evaluate.knn_ranked(x, labels[0], q, k=10) for x, q in pairs]),
    )
    knn_apart = int((one[..., 0] != other[..., 0]).sum())
    one, other = both(
        "linear, L-BFGS",
        lambda: evaluate.linear_probe_each(bank, labels[0], queries, labels[1]),
        lambda: [evaluate.linear_probe(x, labels[0], q, labels[1]) for x, q in pairs],
    )
    n = len(labels[1])
    linear_apart = max(round(n * abs(a.accuracy - b.accuracy)) for a, b in zip(one, other, strict=True))
    said = {
        "features": f"at most {apart:.1e} apart",
        "kNN, k = 10": f"{knn_apart} of {members * n} answers differ",
        "linear, L-BFGS": f"at most {linear_apart} of {n} images apart",
    }
    return [
        {"network": network, "what": what, "members": members, "times": times, "values": said[what]}
        for what, times in timed.items()
    ]


def table(rows: list[dict], images: int) -> str:
    import jax

    device = jax.devices()[0].device_kind
    kind = "seconds by the clock"
    if jax.default_backend() == "cpu":
        device = f"{processor()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores"
        kind = "seconds of the processor"
    lines = [
        f"# Evaluation of many encoders: {device}",
        "",
        f"`python benchmarks/members.py`, {images} training images of {SIZE} pixels, jax {jax.__version__},"
        f" {time.strftime('%Y-%m-%d')}; {kind}.",
        "",
        "| network | what | members | at once, s | in turn, s | times as quick | values |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        together, alone = row["times"]
        cells = [row["network"], row["what"], str(row["members"]), f"{together:.2f}", f"{alone:.2f}"]
        lines.append(f"| {' | '.join([*cells, f'{alone / together:.2f}', row['values']])} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--networks", nargs="+", choices=["convn", "convnet"], default=["convn", "convnet"])
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    own = parser.parse_args()
    import jax

    rows = []
    for network in own.networks:
        rows += measured(network, own.members, own.images)
        (own.out / f"members-{jax.default_backend()}.md").write_text(table(rows, own.images))
        print(table(rows, own.images), flush=True)


if __name__ == "__main__":
    main()
