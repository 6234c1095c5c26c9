"""What the device can do at most: a large bfloat16 matrix product and a large copy. All else is divided by these."""

from __future__ import annotations

import os
import platform
from importlib import metadata

from accelerator_phases.common import Emit, Program, compiled, floats, random, seconds_of, spread, table

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "torch",
    "torchvision",
    "scikit-learn",
)
TITLE = "The device"


def sizes(toy: bool):
    """Side of the matrices, bytes of the copy."""
    return (256, 2**20) if toy else (8192, 2**32)


def programs(toy: bool) -> list[Program]:
    import jax.numpy as jnp

    m, size = sizes(toy)
    a = floats(m, m, dtype=jnp.bfloat16)
    return [
        Program("matmul bfloat16", jnp.matmul, (a, a)),
        Program("matmul float32, default precision", jnp.matmul, (floats(m, m), floats(m, m))),
        # Adding one keeps the compiler from handing the same buffer back.
        Program("copy", lambda x: x + 1, (floats(size // 4),)),
    ]


def run(toy: bool, emit: Emit) -> None:
    import jax

    device = jax.devices()[0]
    emit(
        {
            "kind": "device",
            "device": device.device_kind,
            "devices": jax.device_count(),
            "driver": driver(),
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "versions": {name: version for name in PACKAGES if (version := installed(name))},
        }
    )
    m, size = sizes(toy)
    amounts = [("FLOP/s", 2 * m**3), ("FLOP/s", 2 * m**3), ("B/s", 2 * size)]
    for program, (unit, amount) in zip(programs(toy), amounts, strict=True):
        function, arguments = compiled(program), random(program.arguments)
        times = seconds_of(
            lambda f=function, a=arguments: f(*a), jax.block_until_ready, budget=0.1 if toy else 1
        )
        emit(
            {
                "kind": "ceiling",
                "name": program.name,
                "rate": amount / min(times),
                "unit": unit,
                **spread(times),
            }
        )


def installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def driver() -> str | None:
    """The NVIDIA driver's version, where there is one."""
    try:
        with open("/proc/driver/nvidia/version") as file:
            words = file.readline().split()
    except OSError:
        return None
    return next((word for word in words if word[0].isdigit() and "." in word), None)


def report(rows, ceilings) -> list[str]:
    lines = []
    for row in rows:
        if row["kind"] == "device":
            versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
            driver = f", driver {row['driver']}" if row["driver"] else ""
            lines += [f"{row['devices']} x {row['device']}{driver}, {row['cores']} CPU cores.", ""]
            lines += [f"Python {row['python']}, {versions}.", ""]
    found = [row for row in rows if row["kind"] == "ceiling"]
    if found:
        cells = [[r["name"], r["rate"] / 1e12, f"T{r['unit']}", r["ms"]] for r in found]
        lines += table(["ceiling", "rate", "unit", "ms"], cells)
    return lines
