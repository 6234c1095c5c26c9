"""Machines that a program can be compiled for without having them: what they are called, what their makers say of them,
and how XLA gets to know them. A TPU needs the extra `tpu`, a GPU the extra `cuda`; no device and no driver."""

from __future__ import annotations

import importlib.util
import os
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# Bytes, as makers count them.
GB = 10**9
# A thousand of these.
TB = 10**12
# Bytes, as compilers count them.
GIB = 2**30


class Chip(NamedTuple):
    """What the maker publishes of one chip; a rate that nobody published is None."""

    kind: str  # how the `device_kind` of jax begins
    flops: float  # peak FLOP/s of bfloat16 products, without sparsity
    memory: int  # bytes
    memory_rate: float  # bytes/s
    link_rate: float  # bytes/s to the other chips of a slice or a host, in one direction, all links together
    per_host: int  # chips
    source: str
    cores: int = 1  # devices that jax shows a chip as
    network_rate: float | None = (
        None  # bytes/s a chip to other hosts, one direction, where links end at the host
    )
    host_cpus: Mapping[int, int] | None = None  # chips of a host that is rented -> its vCPUs
    usable: float | None = None  # GiB of a device that its compiler lets a program take; None: all there is


_CLOUD = "Google Cloud, docs.cloud.google.com/tpu/docs/"
# Of the sources, what stands behind "not looked up again" was written down from memory. What is usable is what libtpu
# 0.0.50.1 calls available where it refuses a program; of a v5p that is more than is published (95.73), so that stays.
CHIPS = {
    "tpu-v2": Chip(
        "TPU v2", 45e12, 16 * GIB, 700e9, 248e9, 4,
        f"{_CLOUD}v2, not looked up again; links: Jouppi et al. 2020, CACM 63(7), 4 x 496 Gbit/s", cores=2,
        usable=7.48,
    ),
    "tpu-v3": Chip(
        "TPU v3", 123e12, 32 * GIB, 900e9, 328e9, 4,
        f"{_CLOUD}v3; links: Jouppi et al. 2020, CACM 63(7), 4 x 656 Gbit/s (not looked up again)", cores=2,
        usable=15.48,
    ),
    "tpu-v4": Chip(
        "TPU v4", 275e12, 32 * GIB, 1200e9, 300e9, 4,
        f"{_CLOUD}v4; links: Jouppi et al. 2023, arXiv:2304.01433, 6 x 50 GB/s (not looked up again)",
        usable=30.75,
    ),
    "tpu-v5e": Chip(
        "TPU v5 lite", 197e12, 16 * GIB, 819e9, 200e9, 4, f"{_CLOUD}v5e: 400 GB/s in both directions",
        host_cpus={1: 24, 4: 112, 8: 224}, usable=15.75,
    ),
    "tpu-v5p": Chip(
        "TPU v5", 459e12, 95 * GIB, 2765e9, 600e9, 4, f"{_CLOUD}v5p: 1,200 GB/s in both directions",
        host_cpus={4: 208},
    ),
    "tpu-v6e": Chip(
        "TPU v6 lite", 918e12, 32 * GIB, 1638e9, 400e9, 4, f"{_CLOUD}v6e: 800 GB/s in both directions",
        host_cpus={1: 44, 4: 180, 8: 180}, usable=31.24,
    ),
    "tpu-7x": Chip(
        "TPU7x", 2307e12, 192 * GIB, 7380e9, 600e9, 4,
        f"{_CLOUD}tpu7x; memory's rate and links (1,200 GB/s in both directions) not looked up again", cores=2,
        host_cpus={4: 224}, usable=94.74,
    ),
    "a100": Chip(
        "NVIDIA A100", 312e12, 85_100_068_864, 2039e9, 300e9, 8,
        "NVIDIA A100 80GB SXM data sheet; network of a DGX A100, 200 Gbit/s a GPU (not looked up again)",
        network_rate=25e9,
    ),
    "h100": Chip(
        "NVIDIA H100", 989.4e12, 84_978_434_048, 3352e9, 450e9, 8,
        "NVIDIA H100 SXM data sheet; network of a DGX H100, 400 Gbit/s a GPU (not looked up again)",
        network_rate=50e9,
    ),
    "h200": Chip(
        "NVIDIA H200", 989.4e12, 151_397_597_184, 4800e9, 450e9, 8,
        "NVIDIA H200 data sheet; network of a DGX H200, 400 Gbit/s a GPU (not looked up again)",
        network_rate=50e9,
    ),
    "b200": Chip(
        "NVIDIA B200", 2250e12, 191_514_411_008, 7672e9, 900e9, 8,
        "memory: XLA's description of it; peak, links and network (400 Gbit/s a GPU) not looked up again",
        network_rate=50e9,
    ),
}  # fmt: skip

# Chips of a slice -> its shape.
_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_OLD = {4: "2x2", 16: "4x4", 64: "8x8", 128: "8x16", 256: "16x16"}
_DEEP = {
    1: "1x1x1",
    4: "2x2x1",
    8: "2x2x2",
    16: "2x2x4",
    32: "2x4x4",
    64: "4x4x4",
    128: "4x4x8",
    256: "4x8x8",
}
_DEEP |= {512: "8x8x8", 1024: "8x8x16", 2048: "8x16x16", 4096: "16x16x16"}
# Kind of TPU -> how many chips a slice may have, and how they lie.
SHAPES: dict[str, Mapping[int, str]] = {
    "tpu-v2": _OLD,
    "tpu-v3": _OLD | {512: "16x32", 1024: "32x32"},
    "tpu-v4": _DEEP,
    "tpu-v5e": _FLAT,
    "tpu-v5p": _DEEP,
    "tpu-v6e": _FLAT,
    "tpu-7x": _DEEP,
}

# What XLA wants to know of a GPU beside `Chip`: multiprocessors, float32 units of each, shared memory of each in KiB
# and how much of it a block may take, level-2 cache in bytes, GHz, compute capability.
_GPUS = {
    "a100": (108, 64, 164, 163, 41_943_040, 1.41, "8.0"),
    "h100": (132, 128, 228, 227, 52_428_800, 1.98, "9.0"),
    "h200": (132, 128, 228, 227, 52_428_800, 1.98, "9.0"),
    "b200": (148, 128, 228, 227, 132_644_864, 1.965, "10.0"),
}

# Of a GPU's memory jax takes this part for itself, unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
TAKEN = 0.75


class Machine(NamedTuple):
    """Devices to compile for, and their rates; a rate that is not known is None."""

    name: str
    devices: list[Any]  # of jax, there or described
    chips: int
    capacity: int | None  # bytes of memory that a program may take of a device
    flops: float | None  # FLOP/s a device
    memory_rate: float | None  # bytes/s a device
    link_rate: float | None  # bytes/s a device, one direction
    chip: Chip | None = None
    rates_from: str = ""

    @property
    def hosts(self) -> int:
        return len({device.process_index for device in self.devices})

    @property
    def host_cpus(self) -> int | None:
        """Of each host, in vCPUs; None where that is not known."""
        return ((self.chip and self.chip.host_cpus) or {}).get(self.chips // self.hosts)

    @property
    def platform(self) -> str:
        """ "cpu", "gpu" or "tpu"."""
        platform = self.devices[0].platform
        return "gpu" if platform in ("cuda", "rocm") else platform


def parse(name: str) -> tuple[str, int]:
    """The kind of chip and the number of them that a machine's name says; of a TPU always chips, not cores.

    >>> parse("tpu-v5e-64"), parse("h100"), parse("h100-8")
    (('tpu-v5e', 64), ('h100', 1), ('h100', 8))

    Raises ValueError for an unknown machine or an impossible number of chips, and lists what is possible.
    """
    matched = re.fullmatch(r"(tpu-\w+|[a-z]+\d+)(?:-(\d+))?", name)
    if matched is None or matched[1] not in CHIPS or (matched[1] in SHAPES and matched[2] is None):
        tpus = ", ".join(f"{kind}-CHIPS" for kind in SHAPES)
        gpus = ", ".join(f"{kind} or {kind}-GPUS" for kind in _GPUS)
        raise ValueError(
            f"There is no machine {name!r}. There are {tpus} (tpu-v5e-64 has 64 chips), {gpus}, and, where no machine"
            " is named, the one at hand."
        )
    kind, chips = matched[1], int(matched[2] or 1)
    if kind in SHAPES and chips not in SHAPES[kind]:
        raise ValueError(
            f"{kind} comes in slices of {', '.join(map(str, SHAPES[kind]))} chips, not of {chips}."
        )
    hosts, rest = divmod(chips, 8)
    if kind in _GPUS and not (chips in (1, 2, 4) or (hosts >= 1 and rest == 0)):
        raise ValueError(
            f"The number of {kind}s must be 1, 2, 4 or a multiple of 8 (a host has 8); got {chips}."
        )
    return kind, chips


def topology_name(name: str) -> str:
    """How XLA calls a machine's topology.

    >>> topology_name("tpu-v5e-64"), topology_name("tpu-v5p-128"), topology_name("tpu-7x-4"), topology_name("h100-16")
    ('v5e:8x8', 'v5p:4x4x8', 'tpu7x:2x2x1', '1x2x8')
    """
    kind, chips = parse(name)
    if kind in _GPUS:
        return f"1x{-(-chips // 8)}x{min(chips, 8)}"  # one slice, hosts, GPUs of each
    return f"{'tpu7x' if kind == 'tpu-7x' else kind.removeprefix('tpu-')}:{SHAPES[kind][chips]}"


def described(name: str) -> Machine:
    """A machine by its name, to compile for; it need not be there.

    Call it before anything else touches a device: it makes the CPU jax's only platform, as those of the machine at
    hand are not wanted, and turns jax's cache of compiled programs off. Several processes may describe TPUs at once.

    Raises ModuleNotFoundError, with the command that installs it, where its compiler is missing; OSError where that
    does not start.
    """
    from jax.experimental import topologies

    kind, chips = parse(name)
    chip, tpu = CHIPS[kind], kind in SHAPES
    needed = ("libtpu",) if tpu else ("jax_cuda12_plugin", "jax_cuda13_plugin")
    if not any(importlib.util.find_spec(module) for module in needed):
        extra = "tpu" if tpu else "cuda"
        raise ModuleNotFoundError(
            f"{name} is compiled for by {needed[0]}, which is not installed here (no device is needed):"
            f" pip install 'jaxcl[{extra}]'."
        )
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # else libtpu asks the network which machine it is on
    if tpu:
        # No TPU is opened, so a program that uses one, or its compiler, is not in the way.
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    jax.config.update("jax_platforms", "cpu")
    # What was compiled for a machine that is not there can be kept, but not read again.
    jax.config.update("jax_enable_compilation_cache", False)
    options: dict[str, Any] = {"topology_name": topology_name(name)}
    if not tpu:
        options |= {"topology": options["topology_name"], "target_config": _target_config(kind)}
    elif kind in ("tpu-v4", "tpu-v5p"):
        options["chip_config_name"] = (
            "megacore"  # both cores of a chip are one device, as Cloud TPUs show them
        )
    elif chips == 8 and 8 in (chip.host_cpus or {}):
        options["chips_per_host_bounds"] = (2, 4, 1)  # one host; left alone, libtpu makes two of four chips
    try:
        with _quiet():
            devices = topologies.get_topology_desc(platform="tpu" if tpu else "cuda", **options).devices
    except RuntimeError as error:
        what = "tpu" if tpu else "cuda"
        raise OSError(
            f"The compiler for {name} did not start: {str(error).rstrip('.')}. No device is needed for it. It has to be"
            f" of jax's release (pip install --upgrade 'jaxcl[{what}]')"
            + (", and may be shared (ALLOW_MULTIPLE_LIBTPU_LOAD=1)." if tpu else ".")
        ) from error
    whole = chip.memory / chip.cores
    if not tpu:
        capacity = int(float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", TAKEN)) * whole)
    else:
        capacity = int(whole if chip.usable is None else chip.usable * GIB)
    machine = _machine(name, list(devices), chip, capacity=capacity)
    if chip.usable is None:
        return machine
    kept = f"of {whole / GIB:g} GiB a device its compiler lets a program take {chip.usable:g}"
    return machine._replace(rates_from=f"{chip.source}; {kept}")


def at_hand(*, devices: list[Any] | None = None, measure: bool = True) -> Machine:
    """The devices of this process's machine, or some of them. Their rates are those published, where jax names them as
    `CHIPS` does; else `measure` says whether to measure them, which takes a second."""
    devices = list(jax.devices()) if devices is None else devices
    first = _own(devices)
    # The longest match: "TPU v5 lite" is no "TPU v5". A card for a PCIe slot has other rates than those published here.
    slot = any(word in first.device_kind for word in ("PCIe", "NVL"))
    chips = [
        chip for chip in CHIPS.values() if f"{first.device_kind} ".startswith(f"{chip.kind} ") and not slot
    ]
    chip = max(chips, key=lambda chip: len(chip.kind), default=None)
    capacity = (first.memory_stats() or {}).get("bytes_limit") if first.platform != "cpu" else None
    if first.platform == "cpu" and jax.process_count() == 1:
        free = available_memory()
        capacity = None if free is None else free // len(devices)
    if chip is not None:
        return _machine("here", devices, chip, capacity=capacity)
    flops, how = None, ""
    if measure:
        flops, how = measured_flops(), "one large product, measured just now; too low if the machine is busy"
        if first.platform == "cpu":  # pretended devices share one
            flops /= len(devices)
    return Machine("here", devices, len(devices), capacity, flops, None, None, rates_from=how)


def in_use(devices: list[Any]) -> int:
    """Bytes that are in use on this process's first of these devices: state, and images that are kept there."""
    return (_own(devices).memory_stats() or {}).get("bytes_in_use", 0)


def _own(devices: list[Any]) -> Any:
    """The first of these devices that is this process's, as the memory of no other can be asked for; else the first."""
    return next((one for one in devices if one.process_index == jax.process_index()), devices[0])


def available_memory() -> int | None:
    """Bytes of memory that a new program could take of this machine, by Linux; None elsewhere."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            found = dict(line.split(":", 1) for line in lines if ":" in line)
        return 1024 * int(found["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None


def measured_flops() -> float:
    """FLOP/s of a large product on the default device, the best of a few: float32 on a CPU, bfloat16 elsewhere."""
    n, dtype = (1024, jnp.float32) if jax.default_backend() == "cpu" else (4096, jnp.bfloat16)
    x, product, times = jnp.ones((n, n), dtype), jax.jit(jnp.matmul), []
    for _ in range(4):  # the first compiles
        start = time.perf_counter()
        jax.block_until_ready(product(x, x))
        times.append(time.perf_counter() - start)
    return 2 * n**3 / min(times)


def _machine(name: str, devices: list[Any], chip: Chip, *, capacity: int | None) -> Machine:
    rates = chip.flops / chip.cores, chip.memory_rate / chip.cores, chip.link_rate / chip.cores
    return Machine(name, devices, len(devices) // chip.cores, capacity, *rates, chip, chip.source)


def _target_config(kind: str) -> str:
    """A GPU as XLA's text (GpuTargetConfigProto); by hand, from public data."""
    chip, (cores, units, shared, block, cache, clock, capability) = CHIPS[kind], _GPUS[kind]
    major, minor = capability.split(".")
    info = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49152,
        "shared_memory_per_core": shared * 1024,
        "threads_per_core_limit": 2048,
        "core_count": cores,
        "fpus_per_core": units,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "memory_bandwidth": int(chip.memory_rate),
        "l2_cache_size": cache,
        "clock_rate_ghz": clock,
        "device_memory_size": chip.memory,
        "shared_memory_per_block_optin": block * 1024,
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
    }
    words = " ".join(f"{name}: {value}" for name, value in info.items())
    return (
        f"gpu_device_info {{ {words} cuda_compute_capability {{ major: {major} minor: {minor} }} }}\n"
        'platform_name: "CUDA"\ndnn_version_info { major: 9 minor: 10 }\nruntime_version { major: 12 minor: 8 }\n'
        f'device_description_str: "{chip.kind}"\n'
    )


class _quiet:
    """Keeps what libtpu writes about the machine it is not on off the screen."""

    def __enter__(self) -> None:
        self.kept = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)

    def __exit__(self, *_: Any) -> None:
        os.dup2(self.kept, 2)
        os.close(self.kept)
