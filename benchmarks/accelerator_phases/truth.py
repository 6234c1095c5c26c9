"""Is it right on the device? Every loss, value and gradient, against float64 on the host, at several precisions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from accelerator_phases.common import Emit, Program, compiled_together, floats, table

TITLE = "Value and gradient on the device, against float64 on the host"
PRECISIONS = {"default": None, "bfloat16 products": "BF16_BF16_F32", "highest": "highest"}
# What the rows of the two views look like: spread over the sphere, or within a hundredth of one point.
KINDS = {"spread": 1.0, "nearly collapsed": 0.01}


def sizes(toy: bool) -> tuple[int, int]:
    return (32, 16) if toy else (512, 128)


def losses(n: int, d: int) -> dict[str, Callable]:
    """name -> (z1, z2) -> scalar; all draws are constants, so that each type sees the same."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxcl import losses as of

    rng = np.random.default_rng(0)
    unit = rng.normal(size=(4 * n, d))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    labels = np.arange(n) % 8

    def queue(z1, z2, **options):
        q, k = (z / jnp.linalg.norm(z, axis=1, keepdims=True) for z in (z1, z2))
        # Keys of other images, which collapse with the queries.
        others = jax.lax.stop_gradient(
            jnp.concatenate([jnp.roll(k, shift, axis=0) for shift in (1, 2, 3, 5)])
        )
        return of.queue_nce(q, k, others, temperature=0.2, **options)

    def maps(z1, z2):
        return of.map_nce(z1, jnp.stack([z2, z2[::-1]], axis=1))

    return {
        "nt_xent, plain": partial(of.nt_xent, temperature=0.1, block_size=0),
        "nt_xent, blockwise": partial(of.nt_xent, temperature=0.1, block_size=max(8, n // 4)),
        "dcl, blockwise": partial(of.dcl, temperature=0.1, block_size=max(8, n // 4)),
        "supervised_contrastive": partial(of.supervised_contrastive, labels, temperature=0.1),
        "queue_nce": queue,
        "queue_nce, blockwise": partial(queue, block_size=max(8, n // 4)),
        "nt_logistic": partial(of.nt_logistic, temperature=0.5),
        "margin_triplet": of.margin_triplet,
        "alignment": of.alignment,
        "log_sum_exp": lambda z1, z2: of.log_sum_exp(jnp.concatenate([z1, z2]), temperature=0.2),
        "uniformity": lambda z1, z2: of.uniformity(jnp.concatenate([z1, z2])),
        "decoupled_nt_xent": partial(of.decoupled_nt_xent, temperature=0.2, weight=0.1),
        "barlow_twins": of.barlow_twins,
        "vicreg": of.vicreg,
        "map_nce": maps,
        "regression": of.regression,
        "sliced_wasserstein": lambda z1, z2: of.sliced_wasserstein(
            jax.random.key(0),
            jnp.concatenate([z1, z2]),
            prior=lambda key, shape: jnp.asarray(unit[: shape[0]]),
        ),
    }


def views(kind: str, n: int, d: int):
    """Two views of n rows, in float64 with values that float32 can hold."""
    import numpy as np

    rng = np.random.default_rng(1)
    point = rng.normal(size=d) if kind == "nearly collapsed" else np.zeros(d)
    image = rng.normal(size=(n, d))
    made = (point + KINDS[kind] * (image + rng.normal(size=(n, d))) for _ in range(2))
    return [np.float64(np.float32(z)) for z in made]


def programs(toy: bool) -> list[Program]:
    import jax

    n, d = sizes(toy)
    z = floats(n, d)
    return [
        Program(f"{name}, {precision}", jax.value_and_grad(loss, (0, 1)), (z, z), PRECISIONS[precision])
        for name, loss in losses(n, d).items()
        for precision in precisions_of(name, toy)
    ]


def precisions_of(name: str, toy: bool) -> list[str]:
    """A rehearsal compiles one loss at all precisions, the others at one."""
    few = toy and not name.startswith("nt_xent, blockwise")
    return list(PRECISIONS)[: 1 if few else None]


def run(toy: bool, emit: Emit) -> None:
    import jax
    import jax.numpy as jnp
    import numpy as np

    n, d = sizes(toy)
    host = jax.devices("cpu")[0]
    samples = {kind: views(kind, n, d) for kind in KINDS}
    ready = compiled_together(programs(toy))

    def reference(name, loss):
        """On the host, in float64. Directions are drawn in the type of the day, so float64 would see others."""
        dtype = jnp.float32 if name == "sliced_wasserstein" else jnp.float64
        with jax.enable_x64(dtype == jnp.float64), jax.default_device(host):
            function = jax.jit(jax.value_and_grad(loss, (0, 1)))
            made = {kind: function(*(jnp.asarray(x, dtype) for x in z)) for kind, z in samples.items()}
            return dtype, jax.tree.map(np.float64, made)

    for name, loss in losses(n, d).items():
        dtype, want = reference(name, loss)
        for precision in precisions_of(name, toy):
            for kind, z in samples.items():
                row = {"name": name, "rows": kind, "precision": precision, "reference": jnp.dtype(dtype).name}
                try:
                    got = ready[f"{name}, {precision}"](*(jnp.asarray(x, jnp.float32) for x in z))
                    got = jax.tree.map(np.float64, got)
                    emit(row | {"value": float(want[kind][0]), **errors(got, want[kind])})
                except Exception as error:
                    emit(row | {"left_out": f"{type(error).__name__}: {str(error)[:100]}"})


def errors(got, want) -> dict[str, float]:
    """Relative to the value, and to the gradient's largest entry."""
    import numpy as np

    largest = max(float(np.max(np.abs(g))) for g in want[1])
    gap = max(float(np.max(np.abs(a - b))) for a, b in zip(got[1], want[1], strict=True))
    return {
        "value_error": abs(float(got[0] - want[0])) / max(abs(float(want[0])), 1e-30),
        "gradient_error": gap / max(largest, 1e-30),
    }


def report(rows, ceilings) -> list[str]:
    lines = ["Relative errors: value / gradient (its largest difference over its largest entry).", ""]
    for kind in KINDS:
        found: dict[str, dict[str, str]] = {}
        for row in rows:
            if row["rows"] == kind:
                cell = row.get("left_out") or f"{row['value_error']:.0e} / {row['gradient_error']:.0e}"
                found.setdefault(row["name"], {})[row["precision"]] = cell
        cells = [[name, *(by.get(p, "") for p in PRECISIONS)] for name, by in found.items()]
        lines += table([f"rows {kind}", *PRECISIONS], cells)
    return lines
