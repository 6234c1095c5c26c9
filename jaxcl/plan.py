"""What a config costs on a machine, before the first step and without the machine: its training step is compiled for a
described one, and what the compiled program says is read off. Memory, FLOPs, bytes and collectives are facts; seconds
are a floor, as if every rate that the maker publishes were reached."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxcl import keys, machines, programs
from jaxcl.config import CommonKnobs, Recipe, open_data, recipe_of
from jaxcl.data.host import ends_in_a_space
from jaxcl.devices import along, axis_name, row
from jaxcl.machines import GIB, Machine
from jaxcl.train.finite import guarded
from jaxcl.train.placement import layout, place
from jaxcl.train.state import TrainState, blank_batch, init_state
from jaxcl.train.step import make_step
from jaxcl.typing import About, PyTree

# Data sets that a plan knows without their files: TFDS's name, and the split if that is not "train" -> images that are
# learnt from, shape (None: any), classes.
KNOWN: dict[str, tuple[int, tuple[int, int, int] | None, int]] = {
    "cifar10": (50_000, (32, 32, 3), 10),
    "cifar100": (50_000, (32, 32, 3), 100),
    "fashion_mnist": (60_000, (28, 28, 1), 10),
    "imagenet2012": (1_281_167, None, 1000),
    "imagenet2012#imagenet100": (126_689, None, 100),
    "mnist": (60_000, (28, 28, 1), 10),
    "stl10": (5_000, (96, 96, 3), 10),
    "stl10 unlabelled": (100_000, (96, 96, 3), 0),
    "stl10 train+unlabelled": (105_000, (96, 96, 3), 0),
    "svhn_cropped": (73_257, (32, 32, 3), 10),
}

# JPEGs of 500 x 375 pixels and 17 KiB that a core reads for 224 pixels, a second: decoded alone, and made into two
# views as well (benchmarks/results/augment-cpu.md). ImageNet's files are some six times as large.
DECODED_A_CORE = {"images": 274.0, "host": 135.0}

# So many batches wait on the devices for their turn (train.loop).
AHEAD = 2


class Plan(NamedTuple):
    """What one training step needs of each device, and what that makes of the whole run. Bytes and FLOPs are a
    device's; None is what is not known."""

    config: str
    machine: str
    placement: str
    batch_size: int
    devices: int
    hosts: int
    chips: int
    parameters: int
    flops_per_device: float
    flops_shared_out: float  # products and convolutions of the traced step, divided by the devices
    temporary_bytes: int | None
    argument_bytes: int | None
    output_bytes: int | None
    input_bytes: int  # batches that wait for their turn, and images that stay on the device
    peak_bytes: int | None
    capacity_bytes: int | None
    bytes_accessed: float | None
    collectives: dict[str, dict[str, int]] | None
    compute_seconds: float | None
    memory_seconds: float | None
    links_seconds: float | None
    step_seconds_floor: float | None
    bound_by: str | None  # "compute", "memory" or "links"
    images_per_second: float | None  # at the floor
    fits: bool | None
    steps: int
    hours: float | None  # of the whole run, at the floor
    chip_hours: float | None
    decoded_images_per_second: (
        float | None
    )  # by all hosts together, to keep the devices busy; None: nothing to decode
    decoding_cores_per_host: float | None
    compile_seconds: float
    rates_from: str
    notes: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()


# --- what is planned ---------------------------------------------------------------------------------------------


def about_of(
    config: ModuleType,
    knobs: CommonKnobs,
    *,
    images: int | None = None,
    shape: tuple[int, int, int] | None = None,
    classes: int | None = None,
) -> tuple[About, str | None]:
    """What a recipe may know of its data, and a sentence where that was not read off the data: what is given goes
    first; then what describes the data; then, for data that is not there, what is `KNOWN` of it.

    Raises ValueError where all this leaves something open, and says how to give it.
    """
    if images is not None and shape is not None:
        return About(images, shape, _numbered(classes or 0)), None
    why = ""
    try:
        about = open_data(config, knobs).about
        said = None
    except (FileNotFoundError, ImportError, ValueError) as error:
        about, why = None, str(error)
    if about is None:
        name = re.split(r"[/:]", knobs.data.removeprefix("tfds:"))[0]
        name = name if knobs.train_on == "train" else f"{name} {knobs.train_on}"
        count, known, number = (
            KNOWN.get(name, (0, None, 0)) if knobs.data.startswith("tfds:") else (0, None, 0)
        )
        size = (knobs.size, knobs.size) if knobs.size else known[:2] if known else None
        channels = known[2] if known else 3
        found = (*size, channels) if size else None
        count, found = images or count, shape or found
        if not count or found is None:
            raise ValueError(
                f"The images of this config cannot be described: {why}\nSay what they are: --images N --shape HEIGHT"
                " WIDTH CHANNELS (and --classes K)."
            )
        about = About(count, found, _numbered(number))
        said = f"{knobs.data} is not here; planned for {count:,} images of {' x '.join(map(str, found))}."
    about = about._replace(count=images or about.count, shape=shape or about.shape)
    return about if classes is None else about._replace(classes=_numbered(classes)), said


def _numbered(classes: int) -> tuple[str, ...]:
    return tuple(map(str, range(classes)))


def is_encoded(knobs: CommonKnobs) -> bool:
    """Whether images are decoded when their turn comes."""
    return knobs.encoded or knobs.data.startswith("tfrecord:")


def abstract_batch(recipe: Recipe, knobs: CommonKnobs, about: About) -> PyTree:
    """The shapes of a global batch, as `data.input_pipeline` would bring it."""
    size, encoded = recipe.batch_size, is_encoded(knobs)
    height, width, channels = about.shape
    if encoded and knobs.input != "host":
        height, width = height * 8 // 7, width * 8 // 7  # the host sends more than the crops need
    image = blank_batch(about._replace(shape=(height, width, channels)), 1)
    batch = {name: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype) for name, x in image.items()}
    if recipe.classify is None or not recipe.labelled:
        del batch["label"]
    if knobs.input == "host":
        batch = {"views": _host_views(recipe.views, batch, encoded), **batch}
        del batch["image"]
    return batch


def _host_views(views: Any, batch: PyTree, encoded: bool) -> PyTree:
    """The shapes of what `data.host_views` makes of a batch: bytes of files, floats of images in memory."""
    made = jax.eval_shape(views, keys.run_key(0), batch)
    if views.channels is not None:  # the host makes whole pictures, and the views object cuts them
        n, channels = len(views.channels), sum(views.channels)
        made = tuple(jax.ShapeDtypeStruct((*x.shape[:3], channels), x.dtype) for x in made[::n])
    dtype = jnp.uint8 if encoded and not any(map(ends_in_a_space, views.recipes)) else jnp.float32
    if len({x.shape for x in made}) == 1:
        size, *shape = made[0].shape
        return jax.ShapeDtypeStruct((size, len(made), *shape), dtype)
    return tuple(jax.ShapeDtypeStruct(x.shape, dtype) for x in made)


def check_batch(batch_size: int, machine: Machine) -> None:
    """Raises ValueError, with batches that can, where a batch cannot be split evenly over a machine's devices."""
    n = len(machine.devices)
    if batch_size % n:
        below = batch_size // n * n
        near = f"{below} and {below + n} can" if below else f"{n} can"
        raise ValueError(
            f"A batch of {batch_size} cannot be split evenly over the {n} devices of {machine.name}; {near}."
            " Change --batch-size."
        )


# --- one plan ----------------------------------------------------------------------------------------------------


def trace_step(
    config: ModuleType, knobs: CommonKnobs, about: About, machine: Machine
) -> tuple[Recipe, TrainState, PyTree, Any]:
    """The recipe of a config, the shapes of its training state and of a batch, and its training step, traced for a
    machine: `compile_for` takes that.

    Raises ValueError where the batch cannot be split over the devices.
    """
    recipe = recipe_of(config, knobs, about)
    check_batch(recipe.batch_size, machine)
    # A mesh of described devices serves jit and shard_map; pmap today is a form of the latter.
    placement = "shard_map" if knobs.placement == "pmap" else knobs.placement
    mesh = row(machine.devices)
    batch = abstract_batch(recipe, knobs, about)
    state = jax.eval_shape(
        lambda key, batch: init_state(key, recipe.method, recipe.optimizer, batch), keys.init_key(0), batch
    )
    whole, rows = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, along(0))
    carry = layout(state, mesh, shard=knobs.shard_state)
    arguments = (
        jax.tree.map(_placed, state, carry),
        _placed(jax.eval_shape(lambda: keys.run_key(0)), whole),
        _placed(batch, rows),
    )
    step = guarded(make_step(recipe.method, recipe.optimizer, axis_name=axis_name(placement)))
    placed: Any = place(step, placement, mesh, carry=carry)
    return recipe, state, batch, placed.trace(*arguments)


def plan(config: ModuleType, knobs: CommonKnobs, about: About, machine: Machine, *, name: str = "") -> Plan:
    """Compiles the training step of a config for a machine and reads off what it needs. No pixel is opened, no number
    computed.

    Raises ValueError where the batch cannot be split over the devices.
    """
    start = time.perf_counter()
    recipe, state, batch, traced = trace_step(config, knobs, about, machine)
    notes: list[str] = []
    compiled, needed = compile_for(traced, machine, notes)
    seconds = time.perf_counter() - start

    n = len(machine.devices)
    waiting = AHEAD * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(batch)) // n
    if knobs.input == "resident":
        waiting += about.count * int(np.prod(about.shape))
    costs = Costs.of(traced, compiled, machine)
    found = programs.memory(compiled) if compiled else {"peak_bytes": needed}
    peak, capacity = found["peak_bytes"], machine.capacity
    if needed is not None:
        capacity = capacity if capacity is None else min(capacity, needed - 1)
        fits: bool | None = False
    else:
        fits = None if capacity is None or peak is None else peak + waiting <= capacity
    if costs.flops > 1.5 * costs.shared_out and n > 1:
        notes.append(
            f"Each device computes {costs.flops / costs.shared_out:.1f} times its share of the products: something is"
            " not split over the devices (try --placement shard_map)."
        )
    if compiled is None:
        notes.append(
            "It did not compile, so bytes and collectives are not known: the floor is that of compute alone."
        )
    elif costs.accessed is None:
        notes.append(
            "Compilers for GPUs do not tell the bytes accessed, so memory's time is not in the floor."
        )
    if knobs.placement == "pmap":
        notes.append("Planned as shard_map, of which pmap is a form.")
    floor = costs.floor
    hours = floor and floor * recipe.steps / 3600
    per_second = floor and recipe.batch_size / floor
    decoded = per_second if is_encoded(knobs) else None
    rate = DECODED_A_CORE["host" if knobs.input == "host" else "images"]
    return Plan(
        config=name or getattr(config, "__file__", "") or "",
        machine=machine.name,
        placement=knobs.placement,
        batch_size=recipe.batch_size,
        devices=n,
        hosts=machine.hosts,
        chips=machine.chips,
        parameters=sum(x.size for x in jax.tree.leaves(state.params)),
        flops_per_device=costs.flops,
        flops_shared_out=costs.shared_out,
        temporary_bytes=found.get("temporary_bytes"),
        argument_bytes=found.get("argument_bytes"),
        output_bytes=found.get("output_bytes"),
        input_bytes=waiting,
        peak_bytes=peak,
        capacity_bytes=capacity,
        bytes_accessed=costs.accessed,
        collectives=None if costs.collectives is None else programs.by_kind(costs.collectives),
        compute_seconds=costs.seconds.get("compute"),
        memory_seconds=costs.seconds.get("memory"),
        links_seconds=costs.seconds.get("links"),
        step_seconds_floor=floor,
        bound_by=costs.bound_by,
        images_per_second=per_second,
        fits=fits,
        steps=recipe.steps,
        hours=hours,
        chip_hours=hours and hours * machine.chips,
        decoded_images_per_second=decoded,
        decoding_cores_per_host=decoded and decoded / rate / machine.hosts,
        compile_seconds=seconds,
        rates_from=machine.rates_from,
        notes=tuple(notes),
    )


def _placed(tree: PyTree, sharding: NamedSharding) -> PyTree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def compile_for(traced: Any, machine: Machine, notes: list[str]) -> tuple[Any, int | None]:
    """A traced program compiled for a machine, and None; or None and the bytes that it would need, where its compiler
    says that they are more than a device has. `notes` gets what was out of the ordinary."""
    # On a described GPU there is nothing to time algorithms on.
    described_gpu = machine.platform == "gpu" and machine.name != "here"
    options = {"xla_gpu_autotune_level": 0} if described_gpu else None
    try:
        return programs.compiled(traced.lower(), options=options, notes=notes), None
    except Exception as error:
        if (needed := bytes_in_error(str(error))) is None:
            raise
        return None, needed


def bytes_in_error(message: str) -> int | None:
    """The bytes a device that a program would need, by the compiler's complaint that there are fewer; else None.

    >>> bytes_in_error("Ran out of memory on HBM, ... for HLO temporaries (21.25G) exceeds available HBM (15.75G).")
    22817013760
    >>> bytes_in_error("Ran out of memory in memory space hbm. Used 21.25G of 15.75G hbm.")
    22817013760
    """
    if "out of memory" not in message.lower() and "RESOURCE_EXHAUSTED" not in message:
        return None
    found = re.search(r"\(([\d.]+)([KMGT])\) exceeds|Used ([\d.]+)([KMGT]) of", message)
    if found is None:
        return None
    number, unit = found[1] or found[3], found[2] or found[4]
    return int(float(number) * 1024 ** (1 + "KMGT".index(unit)))


class Costs(NamedTuple):
    """What a device does in a call of a program, and the least seconds for each part of it."""

    flops: float
    shared_out: float
    accessed: float | None
    collectives: list[programs.Collective] | None
    seconds: dict[str, float]

    @classmethod
    def of(cls, traced: Any, compiled: Any, machine: Machine) -> Costs:
        """Of a traced program and the compiled one, or None where it would not compile."""
        n = len(machine.devices)
        shared_out = programs.arithmetic_of(traced.jaxpr.jaxpr) / n
        told = (compiled.cost_analysis() if compiled else None) or {}
        # What is compiled says what each device really does, but of a loop a TPU's counts one round; what is traced
        # knows the rounds, but not what every device repeats.
        flops = max(shared_out, float(told.get("flops", 0)))
        accessed = float(told["bytes accessed"]) if told.get("bytes accessed", 0) > 0 else None
        found = programs.collectives(compiled.as_text(), devices=n) if compiled else None
        seconds = {}
        if machine.flops:
            seconds["compute"] = flops / machine.flops
        if machine.memory_rate and accessed:
            seconds["memory"] = accessed / machine.memory_rate
        if found is not None and machine.link_rate and n > 1:
            seconds["links"] = link_seconds(found, machine)
        return cls(flops, shared_out, accessed, found, seconds)

    @property
    def floor(self) -> float | None:
        """Seconds: the longest part, as if all overlapped."""
        return max(self.seconds.values()) if "compute" in self.seconds else None

    @property
    def bound_by(self) -> str | None:
        return max(self.seconds, key=lambda part: self.seconds[part]) if "compute" in self.seconds else None


def link_seconds(found: Sequence[programs.Collective], machine: Machine) -> float:
    """The least seconds that collectives take: what a device sends over all its links at once; and where these end at
    the host, what a host must send to others over its network."""
    if machine.link_rate is None:
        return 0.0
    within = sum(one.times * one.sent for one in found) / machine.link_rate
    rate, hosts = machine.chip and machine.chip.network_rate, machine.hosts
    if rate is None or hosts == 1:
        return within
    together = rate * machine.chips / hosts
    between = sum(
        one.times * one._replace(devices=hosts).sent for one in found if one.devices > machine.chips // hosts
    )
    return max(within, between / together)


# --- what would fit ----------------------------------------------------------------------------------------------


def advise(
    config: ModuleType,
    knobs: CommonKnobs,
    about: About,
    machine: Machine,
    over: Plan,
    *,
    told: Callable[[str], None] = lambda _: None,
) -> tuple[str, ...]:
    """Sentences on what would fit in place of a plan that does not; each was compiled. `told` hears of each attempt."""
    found: list[str] = []
    for words, changed, other in _attempts(knobs, machine, over):
        if any(words.split()[0] == sentence.split()[0] for sentence in found):
            continue  # a milder change of the same kind fits
        try:
            tried = plan(config, changed, about, other() if callable(other) else other)
        except ValueError as error:
            told(f"{words}: {error}")
            continue
        told(f"{words}: {needs(tried)} ({tried.compile_seconds:.0f} s to compile)")
        if tried.fits:
            found.append(f"{words} fits ({needs(tried)})")
    return tuple(found) or ("nothing that was tried fits",)


def _changed(knobs: CommonKnobs, **values: Any) -> CommonKnobs:
    return dataclasses.replace(knobs, **values)


def _attempts(knobs: CommonKnobs, machine: Machine, over: Plan) -> Iterator[tuple[str, CommonKnobs, Any]]:
    if not knobs.remat:
        yield "--remat", _changed(knobs, remat=True), machine
    for many in (2 * knobs.chunks, 4 * knobs.chunks, 8 * knobs.chunks):
        yield f"--chunks {many}", _changed(knobs, chunks=many), machine
    n, batch = len(machine.devices), knobs.batch_size // 2
    # Worth compiling where what it splits is a tenth of the memory or more.
    if not knobs.shard_state and knobs.placement == "jit" and n > 1:
        if 80 * over.parameters > (over.capacity_bytes or 0):
            yield "--shard-state", _changed(knobs, shard_state=True), machine
    while batch >= n and batch % n == 0:
        # By proportion; what is over by half is not worth compiling.
        if (over.peak_bytes or 0) * batch / knobs.batch_size <= 1.5 * (over.capacity_bytes or 0):
            yield f"batch {batch}", _changed(knobs, batch_size=batch), machine
        batch //= 2
    if machine.name == "here":
        return
    kind, chips = machines.parse(machine.name)
    doubled = (2 * chips, 4 * chips, 8 * chips)
    for count in [count for count in machines.SHAPES.get(kind, doubled) if count > chips][:3]:
        if knobs.batch_size % (count * n // chips) == 0:
            other = f"{kind}-{count}"
            yield f"machine {other}", knobs, partial(machines.described, other)


# --- in words ----------------------------------------------------------------------------------------------------


def needs(one: Plan) -> str:
    """Memory in words, as "4.4 of 16.0 GiB"."""
    total = "?" if one.peak_bytes is None else f"{(one.peak_bytes + one.input_bytes) / GIB:.3g}"
    return f"{total} of {one.capacity_bytes / GIB:.3g} GiB" if one.capacity_bytes else f"{total} GiB"


def verdict(one: Plan) -> str:
    """Whether it fits, in a sentence; and what would."""
    if one.fits is None:
        return f"needs {needs(one)} a device; how much there is is not known"
    if one.fits:
        return f"fits: needs {needs(one)} a device"
    return "; ".join([f"does not fit: needs {needs(one)} a device", *one.advice])


def lines(one: Plan) -> list[str]:
    """A plan as lines for people."""
    rows = [("memory", verdict(one))]
    parts = {"temporaries": one.temporary_bytes, "arguments": one.argument_bytes, "waiting": one.input_bytes}
    if one.temporary_bytes is not None:
        rows.append(("", ", ".join(f"{name} {size(n)}B" for name, n in parts.items() if n is not None)))
    accessed = "" if one.bytes_accessed is None else f", {size(one.bytes_accessed)}B accessed"
    rows.append(("work a device", f"{size(one.flops_per_device)}FLOP{accessed}"))
    if one.collectives is not None:
        each = [f"{row['count']} {kind} of {size(row['bytes'])}B" for kind, row in one.collectives.items()]
        rows.append(("between devices", ", ".join(each) or "nothing"))
    if one.step_seconds_floor is None or one.hours is None:
        rows.append(("step", "seconds: not known for this machine"))
    else:
        taken = {"compute": one.compute_seconds, "memory": one.memory_seconds, "links": one.links_seconds}
        each = [f"{name} {duration(seconds)}" for name, seconds in taken.items() if seconds is not None]
        floor = f"at least {duration(one.step_seconds_floor)}, bound by {one.bound_by}"
        rows.append(("step", f"{floor} ({', '.join(each)})"))
        rows.append(("", f"at most {one.images_per_second:,.0f} images/s"))
        run = f"{one.steps:,} steps: at least {duration(3600 * one.hours)}, {one.chip_hours:.2g} chip-hours"
        rows += [("whole run", run), ("rates", one.rates_from)]
    if one.decoded_images_per_second is not None:
        text = (
            f"{one.decoded_images_per_second:,.0f} images/s by {one.hosts} hosts, {one.decoding_cores_per_host:,.0f}"
            " cores each by benchmarks/results/augment-cpu.md; measure yours with `python benchmarks/augment.py --tasks"
            " jpeg`"
        )
        rows.append(("decoding", text))
    rows += [("note", note) for note in one.notes]
    plural = "s" if one.devices > 1 else ""
    chips = "" if one.chips == one.devices else f" ({one.chips} chips)"
    hosts = f", {one.hosts} hosts" if one.hosts > 1 else ""
    head = (
        f"{one.config} on {one.machine}: {one.devices} device{plural}{chips}{hosts}; batch {one.batch_size:,},"
        f" {one.batch_size // one.devices:,} a device; {one.placement}; {one.parameters / 1e6:,.3g} M parameters"
    )
    rows.append(("compiled", f"in {one.compile_seconds:.1f} s"))
    return [head, *(f"  {name:16}{text}" for name, text in rows)]


def size(number: float) -> str:
    """A number with a letter for thousands, without its unit.

    >>> size(1.5e12), size(45_100_000), size(12)
    ('1.5 T', '45.1 M', '12 ')
    """
    for letter, unit in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= unit:
            return f"{number / unit:.3g} {letter}"
    return f"{number:.3g} "


def duration(seconds: float) -> str:
    """
    >>> duration(0.0123), duration(2.5), duration(4e-5), duration(600), duration(7200)
    ('12.3 ms', '2.5 s', '40 us', '10 minutes', '2 hours')
    """
    if seconds >= 120:
        return f"{seconds / 60:.3g} minutes" if seconds < 7200 else f"{seconds / 3600:.3g} hours"
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} us"


# --- before the first step of a run ------------------------------------------------------------------------------


def ahead(
    step: Any, *arguments: Any, batch_size: int, config: str, refuse: bool = True, told=print
) -> Callable:
    """Compiles a placed training step for the arguments of its first call, tells in a line what it needs of this
    machine, and returns it compiled: nothing is compiled twice.

    Raises ValueError, with what to do, where it does not fit; not if `refuse` is False. Arguments of other shapes than
    those of the first call go to `step` itself; so does everything under pmap, which cannot be asked.
    """
    if not hasattr(step, "trace"):
        return step
    machine = machines.at_hand(
        devices=list(jax.tree.leaves(arguments)[0].sharding.mesh.devices.flat), measure=False
    )
    traced = step.trace(*arguments)
    compiled, needed = compile_for(traced, machine, [])
    if needed is None:
        planned = programs.memory(compiled)
        needed = planned["peak_bytes"]
        if machine.platform == "cpu":
            needed -= planned["argument_bytes"]  # they are there, and are no longer among what is available
    capacity = machine.capacity
    if refuse and capacity is not None and (needed > capacity or compiled is None):
        fraction = capacity / needed
        lower = batch_size
        while lower > len(machine.devices) and lower / batch_size > fraction:
            lower //= 2
        raise ValueError(
            f"A training step needs {needed / GIB:.3g} GiB a device, and there are {capacity / GIB:.3g}. By"
            f" proportion a batch of {lower} would fit; `jaxcl plan {config}` tries out what does. --anyway trains all"
            " the same."
        )
    if compiled is None:
        return step
    if jax.process_index() == 0:
        costs = Costs.of(traced, compiled, machine)
        told(_short(costs, needed, machine))
    shapes = jax.tree.map(jnp.shape, arguments)

    def first_or_other(*arguments: Any) -> Any:
        same = jax.tree.map(jnp.shape, arguments) == shapes
        return compiled(*arguments) if same else step(*arguments)

    return first_or_other


def _short(costs: Costs, needed: int, machine: Machine) -> str:
    room = f" of {machine.capacity / GIB:.3g}" if machine.capacity else ""
    floor = ""
    if costs.floor is not None:
        floor = f"; at least {duration(costs.floor)}, bound by {costs.bound_by}"
    return f"A step needs {needed / GIB:.2g}{room} GiB and {size(costs.flops)}FLOP of each device{floor}."
