"""Machines are called by their chips, and what cannot be is said in a sentence."""

import importlib.util
import os
import re
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.experimental import topologies

from jaxcl import devices, machines
from jaxcl.cli import main
from jaxcl.machines import CHIPS, GIB, SHAPES, Machine, at_hand, described, parse, topology_name


def chips_of(shape):
    n = 1
    for side in shape.split("x"):
        n *= int(side)
    return n


@pytest.mark.parametrize("kind", SHAPES)
def test_a_slice_has_as_many_chips_as_its_shape(kind):
    for chips, shape in SHAPES[kind].items():
        assert chips_of(shape) == chips
        assert topology_name(f"{kind}-{chips}").endswith(f":{shape}")


@pytest.mark.parametrize(
    ("name", "topology"),
    [
        ("tpu-v5e-64", "v5e:8x8"),
        ("tpu-v5p-128", "v5p:4x4x8"),
        ("tpu-v3-16", "v3:4x4"),
        ("tpu-7x-4", "tpu7x:2x2x1"),
        ("h100", "1x1x1"),
        ("h100-8", "1x1x8"),
        ("a100-16", "1x2x8"),
    ],
)
def test_a_name_is_a_topology(name, topology):
    assert topology_name(name) == topology


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tpu-v5e-12", "slices of 1, 4, 8, 16, 32, 64, 128, 256 chips, not of 12"),
        ("tpu-v5e", "no machine 'tpu-v5e'.*tpu-v5e-CHIPS"),
        ("tpu-v9-4", "no machine 'tpu-v9-4'"),
        ("cray", "h100 or h100-GPUS.*the one at hand"),
        ("h100-3", "multiple of 8.*got 3"),
    ],
)
def test_an_impossible_machine_is_answered_with_those_there_are(name, words):
    with pytest.raises(ValueError, match=words):
        parse(name)


@pytest.mark.parametrize(("name", "extra"), [("tpu-v5e-4", "tpu"), ("h100", "cuda")])
def test_a_compiler_that_is_missing_is_named_with_the_command_that_installs_it(name, extra, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'jaxcl\[{extra}\]'"):
        described(name)


@pytest.mark.parametrize(("name", "asked"), [("tpu-v5e-4", "1"), ("h100", None)])
def test_several_processes_may_have_a_tpus_compiler_at_once(name, asked, monkeypatch):
    """libtpu locks itself for one process, as a chip can serve one alone; here none is opened."""
    seen = []

    def faked(**_):
        seen.append(os.environ.get("ALLOW_MULTIPLE_LIBTPU_LOAD"))
        return SimpleNamespace(devices=[Shown("TPU v5 lite", (x, 0, 0)) for x in range(4)])

    without_its_compiler(monkeypatch, faked)
    assert described(name).chips == 4
    assert seen == [asked]


def test_who_says_otherwise_of_the_lock_is_heard(monkeypatch):
    without_its_compiler(monkeypatch, lambda **_: SimpleNamespace(devices=[Shown("TPU v5 lite", (0, 0, 0))]))
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "0")
    described("tpu-v5e-1")
    assert os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] == "0"


def test_a_compiler_that_does_not_start_is_a_sentence(monkeypatch, capsys):
    def refuses(**_):
        raise jax.errors.JaxRuntimeError(
            "ABORTED: Internal error when accessing libtpu multi-process lockfile."
        )

    without_its_compiler(monkeypatch, refuses)
    assert (
        main(["plan", str(Path(__file__).parents[1] / "configs" / "quickstart.py"), "--machine", "tpu-v5e-1"])
        == 1
    )
    said = capsys.readouterr().err
    assert said.startswith("jaxcl plan: The compiler for tpu-v5e-1 did not start: ABORTED: Internal error")
    assert "lockfile. No device is needed" in said
    assert "pip install --upgrade 'jaxcl[tpu]'" in said


def without_its_compiler(monkeypatch, describes):
    """`described` with a compiler that is not there, and jax's settings left as they are."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: True)
    monkeypatch.setattr(topologies, "get_topology_desc", describes)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    for name in ("TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD"):
        monkeypatch.setenv(name, "")  # so that it is put back as it was
        monkeypatch.delenv(name)


def test_every_chip_has_rates_above_zero_and_a_source():
    for chip in CHIPS.values():
        assert min(chip.flops, chip.memory, chip.memory_rate, chip.link_rate, chip.per_host) > 0
        assert (chip.usable or 0) <= chip.memory / chip.cores / GIB
        assert chip.source


@pytest.mark.parametrize(
    ("kind", "chips", "hosts", "cpus"),
    [
        ("tpu-v5e", 1, 1, 24),
        ("tpu-v5e", 4, 1, 112),
        ("tpu-v5e", 8, 1, 224),
        ("tpu-v5e", 16, 4, 112),
        ("tpu-v6e", 1, 1, 44),
        ("tpu-v6e", 8, 1, 180),
        ("tpu-v5p", 1, 1, None),  # a part of a host, of which nothing was found
        ("tpu-v5p", 128, 32, 208),
        ("h100", 8, 1, None),
    ],
)
def test_a_host_has_the_cpus_that_are_rented_with_so_many_chips(kind, chips, hosts, cpus):
    """By Google's tables of VM types: ct5lp-hightpu-1t, -4t, -8t; ct6e-standard-1t, -4t, -8t; ct5p-hightpu-4t."""
    devices = [SimpleNamespace(process_index=i * hosts // chips) for i in range(chips)]
    machine = Machine(kind, devices, chips, None, None, None, None, CHIPS[kind])
    assert (machine.hosts, machine.host_cpus) == (hosts, cpus)


@pytest.mark.parametrize("name", ["tpu-v5e-8", "tpu-v6e-8", "tpu-v5e-4", "tpu-v5e-16", "tpu-v4-8"])
def test_eight_chips_that_are_rented_as_one_host_are_described_as_one(name, monkeypatch):
    from jax.experimental import topologies

    asked = {}

    def described_as(**options):
        asked.update(options)
        return SimpleNamespace(devices=[SimpleNamespace(process_index=0)])

    monkeypatch.setattr(importlib.util, "find_spec", lambda module: True)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setattr(topologies, "get_topology_desc", described_as)
    described(name)
    one = name in ("tpu-v5e-8", "tpu-v6e-8")
    assert asked.get("chips_per_host_bounds") == ((2, 4, 1) if one else None)


def test_the_machine_at_hand_is_its_devices_with_rates_that_are_measured():
    machine = at_hand()
    assert (len(machine.devices), machine.hosts, machine.platform) == (8, 1, "cpu")
    assert machine.flops > 1e7
    assert at_hand(measure=False).flops is None


class Shown:
    """A device as jax shows one of a real machine."""

    platform, process_index = "tpu", 0

    def __init__(self, kind, coords, core=0):
        self.device_kind, self.coords, self.core_on_chip = kind, coords, core

    def memory_stats(self):
        return {"bytes_limit": 1000}


def test_a_known_device_has_its_published_rates_a_chip_of_two_cores_half_of_them_each():
    lite = at_hand(devices=[Shown("TPU v5 lite", (x, 0, 0)) for x in range(4)])
    assert (lite.chips, lite.flops, lite.capacity) == (4, CHIPS["tpu-v5e"].flops, 1000)
    pairs = at_hand(devices=[Shown("TPU v3", (x, 0, 0), core) for x in range(2) for core in range(2)])
    assert (pairs.chips, pairs.flops) == (2, CHIPS["tpu-v3"].flops / 2)


def test_of_several_hosts_a_process_asks_its_own_device():
    """Of another process's device jax refuses to tell the memory."""

    class Elsewhere(Shown):
        process_index = 1

        def memory_stats(self):
            raise RuntimeError("MemoryStats is only supported for addressable PjRt devices")

    both = [Elsewhere("TPU v5 lite", (0, 0, 0)), Shown("TPU v5 lite", (1, 0, 0))]
    assert at_hand(devices=both).capacity == 1000


@pytest.mark.parametrize("kind", ["NVIDIA H100 PCIe", "NVIDIA H100 NVL", "TPU v5x"])
def test_a_card_of_another_kind_has_no_rates_of_its_cousin(kind):
    assert at_hand(devices=[Shown(kind, (0, 0, 0))], measure=False).flops is None


def test_a_meshs_devices_stand_in_the_order_of_their_processes(monkeypatch):
    """A batch is dealt out in this order; make_mesh's own follows the wires of a slice."""
    ours = jax.devices()[:4]
    of = dict(zip(ours, (1, 0, 1, 0), strict=True))
    monkeypatch.setattr(devices, "process_of", of.__getitem__)
    assert [of[one] for one in devices.row(ours).devices.flat] == [0, 0, 1, 1]

    def refuses(*_, **__):
        raise AssertionError  # as it does where chips of a slice fill no rectangle

    monkeypatch.setattr(jax, "make_mesh", refuses)
    mesh = devices.row(ours)
    assert [of[one] for one in mesh.devices.flat] == [0, 0, 1, 1]
    assert mesh.axis_names == (devices.AXIS,)


def test_memory_that_linux_does_not_tell_of_is_not_known(monkeypatch):
    def absent(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", absent)
    assert machines.available_memory() is None


needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra tpu")
needs_cuda = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda12_plugin") is None, reason="needs the extra cuda"
)


@needs_libtpu
@pytest.mark.parametrize(
    ("name", "devices", "hosts"),
    [
        ("tpu-v5e-64", 64, 16),
        ("tpu-v5p-8", 8, 2),
        ("tpu-v3-16", 32, 4),
        ("tpu-v4-4", 4, 1),
        ("tpu-7x-4", 8, 1),
    ],
)
def test_a_described_slice_has_the_devices_that_jax_would_show(name, devices, hosts):
    machine = described(name)
    chip = CHIPS[parse(name)[0]]
    assert (len(machine.devices), machine.hosts, machine.chips) == (devices, hosts, parse(name)[1])
    assert machine.devices[0].device_kind == chip.kind
    assert 0.92 <= machine.capacity * len(machine.devices) / (chip.memory * machine.chips) <= 1


@needs_libtpu
@pytest.mark.parametrize("name", ["tpu-v2-4", "tpu-v3-4", "tpu-v4-4", "tpu-v5e-1", "tpu-v6e-1", "tpu-7x-4"])
def test_of_a_tpu_a_program_may_take_what_its_compiler_says_where_it_refuses_one(name):
    machine = described(name)
    sharding = jax.sharding.SingleDeviceSharding(machine.devices[0])
    x = jax.ShapeDtypeStruct((machine.capacity // 1024, 1024), np.float32)  # four times as much
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"available HBM") as refused:
        jax.jit(lambda x: 2 * x, in_shardings=sharding).lower(x).compile()
    available = re.search(r"available HBM \(([\d.]+)G\)", str(refused.value))[1]
    assert machine.capacity == int(float(available) * GIB)
    assert machine.rates_from.endswith(f"its compiler lets a program take {available}")


@needs_libtpu
def test_libtpu_describes_eight_chips_as_one_host():
    machine = described("tpu-v5e-8")
    assert (len(machine.devices), machine.hosts, machine.host_cpus) == (8, 1, 224)


@needs_cuda
def test_a_described_gpu_leaves_jax_three_quarters_of_its_memory(monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    machine = described("h100-16")
    assert (len(machine.devices), machine.hosts, machine.platform) == (16, 2, "gpu")
    assert machine.capacity == int(0.75 * CHIPS["h100"].memory)
    assert jax.default_backend() == "cpu"
