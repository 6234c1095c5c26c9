"""A plan says what a step needs before it is taken, and a run refuses what does not fit."""

import dataclasses
import importlib.util
import json
import re
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path
from types import ModuleType, SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcl import augment, devices, machines, nets, plan, programs
from jaxcl.cli import main
from jaxcl.config import CommonKnobs, Recipe, basics, load_config
from jaxcl.losses import keyless, nt_xent
from jaxcl.machines import GIB, at_hand
from jaxcl.methods import simclr
from jaxcl.programs import Collective
from jaxcl.runs.training import planned_ahead
from jaxcl.train import train, train_together
from jaxcl.train.placement import layout, place
from jaxcl.typing import About, Images

ABOUT = About(64, (16, 16, 3), ("dark", "light"))


@dataclasses.dataclass(frozen=True)
class Knobs(CommonKnobs):
    data: str = "npz:nowhere.npz"
    batch_size: int = 16


def recipe(knobs, about):
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm = nets.batch_norm(axis_name=axis)
    views = augment.two_views(augment.flip())
    method = simclr(
        views=views,
        encoder=lean(nets.small_convnet(features=(4,), norm=norm, dtype=dtype)),
        head=nets.mlp_head(norm=nets.no_norm(), hidden=(), out=8),
        loss=keyless(nt_xent, temperature=0.5),
        axis_name=axis,
    )
    rate = optax.constant_schedule(1e-3)
    return Recipe(method, optax.adam(rate), rate, views, steps, knobs.batch_size)


CONFIG = ModuleType("tiny")
CONFIG.Knobs, CONFIG.recipe = Knobs, recipe  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def here():
    # Published rates, so that seconds can be foretold.
    return at_hand(measure=False)._replace(flops=1e9, memory_rate=1e9, link_rate=1e6, capacity=GIB)


@pytest.fixture(scope="module")
def planned(here):
    return plan.plan(CONFIG, Knobs(), ABOUT, here)


def test_a_plan_holds_for_each_device_what_the_whole_needs(planned):
    assert (planned.devices, planned.hosts, planned.batch_size) == (8, 1, 16)
    assert 0 < planned.parameters < 10_000
    assert planned.argument_bytes > 3 * 4 * planned.parameters  # Adam keeps two more of each
    assert planned.peak_bytes >= planned.temporary_bytes
    assert planned.fits
    assert planned.flops_per_device >= planned.flops_shared_out > 0


def test_the_gradient_is_summed_over_the_devices(planned):
    assert planned.collectives["all-reduce"]["bytes"] >= 4 * planned.parameters


def test_the_floor_is_the_longest_part_and_the_run_is_its_steps(planned):
    parts = {
        "compute": planned.flops_per_device / 1e9,
        "memory": planned.bytes_accessed / 1e9,
        "links": planned.links_seconds,
    }
    assert planned.step_seconds_floor == max(parts.values()) == parts[planned.bound_by]
    assert planned.steps == 20 * 64 // 16
    assert planned.hours == pytest.approx(planned.steps * planned.step_seconds_floor / 3600)
    assert planned.chip_hours == pytest.approx(8 * planned.hours)
    assert planned.images_per_second == pytest.approx(16 / planned.step_seconds_floor)


def test_a_rate_that_nobody_knows_bounds_nothing(here):
    found = plan.Costs.of
    unknown = here._replace(flops=None, memory_rate=None, link_rate=None)
    traced = jax.jit(lambda x: x @ x).trace(jax.ShapeDtypeStruct((8, 8), np.float32))
    costs = found(traced, None, unknown)
    assert (costs.floor, costs.bound_by, costs.shared_out) == (None, None, 2 * 8**3 / 8)


class Silent:
    """A compiled program of which the compiler tells no bytes, as those for GPUs."""

    def __init__(self, compiled):
        self.as_text = compiled.as_text

    def cost_analysis(self):
        return None


def test_bytes_that_a_compiler_does_not_tell_are_counted_from_the_text(here):
    traced = jax.jit(lambda x: x + 1).trace(jax.ShapeDtypeStruct((1024, 1024), np.float32))
    costs = plan.Costs.of(traced, Silent(traced.lower().compile()), here._replace(memory_rate=2**23))
    assert (costs.accessed, costs.counted, costs.seconds["memory"]) == (2**23, True, 1)
    assert (costs.bound_by, costs.bound_in_words) == ("memory", "memory")


@pytest.mark.parametrize(("seconds", "batches"), [(0.033, 30 + 3), (1e-4, 32 + 3), (3.0, 3)])
def test_batches_of_a_second_of_steps_and_three_more_wait_on_a_device(seconds, batches, monkeypatch, here):
    """Those of calls that are sent ahead, two that are prefetched, and one in the thread's hands."""
    of = plan.Costs.of
    monkeypatch.setattr(plan.Costs, "of", lambda *given: of(*given)._replace(seconds={"compute": seconds}))
    found = plan.plan(CONFIG, Knobs(), ABOUT, here)
    a_device = 2 * (16 * 16 * 3 + 4)  # two images of bytes, and their numbers
    assert found.input_bytes == batches * a_device
    assert not plan.plan(CONFIG, Knobs(), ABOUT, here._replace(capacity=found.peak_bytes)).fits
    enough = here._replace(capacity=found.peak_bytes + batches * a_device)
    assert plan.plan(CONFIG, Knobs(), ABOUT, enough).fits


class Once:
    """A compiled loop of which the compiler tells the bytes of one round, as those for TPUs."""

    def __init__(self, told, rounds):
        self.told = told
        self.text = LOOP.replace("ROUNDS", str(rounds)).replace("PART", str(1024 // rounds))

    def as_text(self):
        return self.text

    def cost_analysis(self):
        return {"bytes accessed": self.told}


# 4 MiB are read from memory and written on the chip, a part a round.
LOOP = """\
HloModule jit_step

%body (carry: (s32[], f32[1024,1024])) -> (s32[], f32[1024,1024]) {
  %carry = (s32[], f32[1024,1024]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%carry), index=0
  %all = f32[1024,1024]{1,0} get-tuple-element(%carry), index=1
  %part = f32[PART,1024]{1,0:S(1)} dynamic-slice(%all, %i, %i), dynamic_slice_sizes={PART,1024}
  ROOT %next = (s32[], f32[1024,1024]{1,0}) tuple(%i, %all)
}

%condition (carry.1: (s32[], f32[1024,1024])) -> pred[] {
  %carry.1 = (s32[], f32[1024,1024]{1,0}) parameter(0)
  %bound = s32[] constant(ROUNDS)
  ROOT %more = pred[] compare(%n, %bound), direction=LT
}

ENTRY %main (x: f32[1024,1024]) -> f32[1024,1024] {
  %x = f32[1024,1024]{1,0} parameter(0)
  %start = (s32[], f32[1024,1024]{1,0}) tuple(%zero, %x)
  ROOT %loop = (s32[], f32[1024,1024]{1,0}) while(%start), condition=%condition, body=%body
}
"""


@pytest.mark.parametrize("rounds", [1, 4, 16])
def test_a_loop_accesses_the_same_bytes_in_however_many_rounds(rounds, here):
    traced = jax.jit(lambda x: x + 1).trace(jax.ShapeDtypeStruct((1024, 1024), np.float32))
    moved = 8 * 2**20
    costs = plan.Costs.of(traced, Once(moved // rounds, rounds), here._replace(memory_rate=2.0**23))
    assert costs.accessed == pytest.approx(moved, rel=1e-4)
    assert costs.by_rounds == pytest.approx(rounds, rel=1e-4)
    assert costs.seconds["memory"] == pytest.approx(1, rel=1e-4)
    assert not costs.counted


def test_that_the_compiler_s_bytes_were_multiplied_is_said(monkeypatch, here):
    of = plan.Costs.of
    monkeypatch.setattr(plan.Costs, "of", lambda *given: of(*given)._replace(by_rounds=4.0))
    notes = plan.plan(CONFIG, Knobs(), ABOUT, here).notes
    assert any("its bytes are multiplied by 4," in note for note in notes)


def test_where_memory_is_not_known_that_is_said_with_what_bounds_a_step(planned, here):
    traced = jax.jit(lambda x: x @ x).trace(jax.ShapeDtypeStruct((8, 8), np.float32))
    assert plan.Costs.of(traced, None, here).bound_in_words == "compute (memory not known)"
    unknown = planned._replace(memory_seconds=None, bound_by="compute")
    assert any("bound by compute (memory not known) (" in line for line in plan.lines(unknown))
    assert not any("not known" in line for line in plan.lines(planned))


@pytest.mark.parametrize("placement", ["shard_map", "pmap"])
def test_each_placement_can_be_planned_and_needs_the_same_arithmetic(planned, here, placement):
    other = plan.plan(CONFIG, Knobs(placement=placement), ABOUT, here)
    assert other.placement == placement
    assert other.parameters == planned.parameters
    # The loss of a device's rows is made of its own pairs alone under shard_map.
    assert other.flops_shared_out == pytest.approx(planned.flops_shared_out, rel=0.1)


def test_hosts_must_decode_encoded_images_as_fast_as_the_devices_could_learn(planned, here):
    assert planned.decoded_images_per_second is None
    about = ABOUT._replace(shape=(14, 14, 3))  # decoded to 16 x 16
    encoded = plan.plan(CONFIG, Knobs(encoded=True, size=14, input="images"), about, here)
    assert encoded.decoded_images_per_second == encoded.images_per_second
    cores = encoded.images_per_second / plan.DECODED_A_CORE["images"]
    assert encoded.decoding_cores_per_host == pytest.approx(cores)
    (said,) = [line for line in plan.lines(encoded) if line.strip().startswith("decoding")]
    assert "500 x 375 pixels and 110 KiB" in said  # of which files the rate is
    for needed, there, said in (
        (40.0, 112, "40 cores each of the 112 vCPUs there"),
        (300.0, 112, "it has 112 vCPUs"),
    ):
        many = encoded._replace(decoding_cores_per_host=needed, cpus_per_host=there, hosts=16)
        assert any("by 16 hosts" in line and said in line for line in plan.lines(many))


@pytest.mark.parametrize(
    ("knobs", "names"),
    [
        ({"input": "device"}, {"image": (16, 16, 16, 3)}),
        ({"input": "resident"}, {"image": (16, 16, 16, 3)}),
        ({"input": "host"}, {"views": (16, 2, 16, 16, 3)}),
        ({"input": "images", "encoded": True, "size": 224}, {"image": (16, 256, 256, 3)}),
    ],
)
def test_a_batch_has_the_shapes_that_its_input_will_bring(knobs, names):
    knobs = Knobs(**knobs)
    about = ABOUT._replace(shape=(224, 224, 3)) if knobs.encoded else ABOUT
    batch = plan.abstract_batch(recipe(knobs, about), knobs, about)
    assert {name: x.shape for name, x in batch.items()} == {**names, "index": (16,)}


@pytest.mark.parametrize("placement", devices.PLACEMENTS)
def test_the_planned_step_is_the_step_that_a_run_compiles(placement):
    """The shapes, and so the memory, are those of a real batch and a real state."""
    knobs, said = Knobs(epochs=1, placement=placement), []
    compiled = []

    def ahead(step, *arguments):
        compiled.append(programs.memory(step.trace(*arguments).lower().compile()))
        return plan.ahead(step, *arguments, batch_size=16, config="tiny.py", say=said.append)

    train(recipe(knobs, ABOUT), noise(), placement=placement, quiet=True, ahead=ahead)
    mine = plan.plan(CONFIG, knobs, ABOUT, at_hand(measure=False))
    # pmap is planned as a form of shard_map.
    about = partial(pytest.approx, rel=0.01 if placement == "pmap" else 0)
    assert mine.peak_bytes == about(compiled[0]["peak_bytes"])
    assert mine.temporary_bytes == about(compiled[0]["temporary_bytes"])
    assert mine.argument_bytes == about(compiled[0]["argument_bytes"])
    assert len(said) == 1
    assert "GiB" in said[0]


@pytest.mark.parametrize("placement", devices.PLACEMENTS)
def test_a_step_takes_the_memory_of_the_state_that_it_is_given(placement):
    mesh = devices.make_mesh(devices=8)
    placed = place(lambda state, key, batch: (state + 1, {}), placement, mesh)
    state, key = (devices.replicate(x, mesh) for x in (np.zeros(1000, np.float32), jax.random.key(0)))
    batch = devices.split(np.ones((8, 4), np.float32), mesh)
    aliased = placed.trace(state, key, batch).lower().compile().memory_analysis().alias_size_in_bytes
    new, _ = placed(state, key, batch)
    assert aliased == 4 * 1000
    assert state.is_deleted()
    assert float(new[0]) == 1


@pytest.mark.parametrize("placement", ["shard_map", "pmap"])
def test_what_cannot_split_the_state_is_called_by_the_name_that_was_given(here, placement, monkeypatch):
    monkeypatch.setattr(import_module("jaxcl.plan.step"), "layout", partial(layout, small=8))
    with pytest.raises(ValueError, match=f"under --placement jit; got {placement}"):
        plan.plan(CONFIG, Knobs(placement=placement, shard_state=True), ABOUT, here)


def noise():
    rng = np.random.default_rng(0)
    return Images("noise", rng.integers(0, 256, (64, 16, 16, 3), np.uint8), np.arange(64) % 2)


@pytest.mark.parametrize("placement", devices.PLACEMENTS)
def test_a_step_that_was_compiled_ahead_learns_bit_for_bit_the_same(placement):
    made = recipe(Knobs(epochs=1, placement=placement), ABOUT)
    run = partial(train, made, noise(), placement=placement, quiet=True)
    ahead = partial(plan.ahead, batch_size=16, config="tiny.py", say=lambda line: None)
    chex.assert_trees_all_equal(run(ahead=ahead), run())


def test_a_last_call_of_fewer_steps_goes_to_the_step_itself():
    mesh = devices.make_mesh(devices=8)

    def step(state, key, batch):
        return state + batch.sum(), {}

    placed = place(step, "jit", mesh, axis=1)
    state, key = (devices.replicate(x, mesh) for x in (np.float32(0), jax.random.key(0)))
    three, one = (devices.split(np.ones((k, 8), np.float32), mesh, axis=1) for k in (3, 1))
    ready = plan.ahead(placed, state, key, three, batch_size=8, config="tiny.py", say=lambda line: None)
    state, _ = ready(state, key, three)
    state, _ = ready(state, key, one)
    assert float(state) == 32


def test_under_pmap_a_device_s_share_is_told_and_the_batch_is_cut():
    """A row of [1000] by [1000, 1000] is 2 million operations."""
    mesh, said = devices.make_mesh(devices=8), []

    def step(state, key, batch):
        return state + jax.lax.psum((batch @ jnp.ones((1000, 1000))).sum(), devices.AXIS), {}

    placed = place(step, "pmap", mesh)
    state, key = (devices.replicate(x, mesh) for x in (np.float32(0), jax.random.key(0)))
    batch = devices.split(np.ones((8, 1000), np.float32), mesh)
    ready = plan.ahead(placed, state, key, batch, batch_size=8, config="tiny.py", say=said.append)
    assert "and 2 MFLOP of each device" in said[0]
    assert float(ready(state, key, batch)[0]) == 8e6


@pytest.mark.parametrize("placement", devices.PLACEMENTS)
def test_a_run_that_does_not_fit_is_refused_before_its_first_step(monkeypatch, placement):
    monkeypatch.setattr(machines, "available_memory", lambda: 8 * 1000)
    refused = partial(plan.ahead, batch_size=16, config="tiny.py")
    with pytest.raises(
        ValueError, match=r"needs .* GiB a device.*9.31e-07 are free\. `jaxcl plan tiny.py.*--anyway"
    ):
        train(
            recipe(Knobs(placement=placement), ABOUT),
            noise(),
            placement=placement,
            quiet=True,
            ahead=refused,
        )
    if placement == "jit":
        one_step = recipe(Knobs(epochs=0.25), ABOUT)
        train(one_step, noise(), quiet=True, ahead=partial(refused, refuse=False, say=lambda line: None))


def flops_of(said):
    number, unit = re.search(r"and ([\d.]+) ([kMG])FLOP of each device", said).groups()
    return float(number) * {"k": 1e3, "M": 1e6, "G": 1e9}[unit]


def test_what_a_step_needs_is_of_one_however_many_a_call_makes():
    said = []
    for each in (1, 4):
        ahead = partial(plan.ahead, batch_size=16, config="tiny.py", say=said.append)
        train(
            recipe(Knobs(epochs=1), ABOUT),
            noise(),
            quiet=True,
            steps_per_call=each,
            log_every=4,
            save_every=4,
            ahead=ahead,
        )
    assert flops_of(said[1]) == pytest.approx(flops_of(said[0]), rel=0.02)


@pytest.mark.parametrize("members", [2, 3])
def test_runs_together_that_do_not_fit_are_told_to_be_fewer(monkeypatch, members):
    """A batch or a plan of one of them would be no answer."""
    monkeypatch.setattr(machines, "available_memory", lambda: 8 * 1000)
    images = noise()

    def recipe_of(numbers):
        made = recipe(Knobs(epochs=0.25), ABOUT)
        return made._replace(optimizer=optax.sgd(numbers["learning_rate"]))

    ahead = planned_ahead("tiny.py", recipe(Knobs(epochs=0.25), ABOUT), members=members, anyway=False)
    run = partial(
        train_together,
        recipe_of,
        [{"learning_rate": 0.1}] * members,
        images,
        seeds=range(members),
        quiet=True,
    )
    with pytest.raises(plan.DoesNotFit, match="GiB a device for . runs together, and .* are free") as refused:
        run(ahead=ahead)
    assert f"for {members} runs together" in str(refused.value)
    assert str(refused.value).endswith("Fewer at once need less (--together M).")
    assert not re.search("batch|plan|anyway", str(refused.value))


def test_runs_together_say_what_all_of_them_need(capsys):
    made = recipe(Knobs(epochs=0.25), ABOUT)
    for count in (1, 8):  # one on each device
        ahead = planned_ahead("tiny.py", made, members=count, anyway=False)
        train_together(
            lambda numbers: made._replace(optimizer=optax.sgd(numbers["learning_rate"])),
            [{"learning_rate": 0.1}] * count,
            noise(),
            seeds=range(count),
            quiet=True,
            ahead=ahead,
        )
    one, eight = [line for line in capsys.readouterr().out.splitlines() if "FLOP" in line]
    assert one.startswith("A step needs ")
    assert eight.startswith("A step of 8 runs together needs ")
    assert flops_of(eight) == pytest.approx(flops_of(one), rel=0.02)


def test_a_batch_that_is_named_can_be_dealt_out_into_the_chunks():
    from jaxcl.plan.first_step import smaller_batch

    for batch, chunks, devices_ in product((48, 64, 96, 512), (1, 2, 3, 4), (1, 2, 8)):
        lower = smaller_batch(batch, devices_, 0.5, chunks=chunks)
        assert lower in (None, batch // 2)
        if lower and chunks > 1:
            for rows in (lower, 2 * lower):  # each view apart, or both together
                assert rows % (2 * chunks * devices_) == 0
    assert smaller_batch(64, 8, 0.5, chunks=4) is None  # 32 rows, and 64 is the least
    assert smaller_batch(64, 8, 0.5) == 32


def test_what_is_on_the_device_already_is_not_free(monkeypatch):
    """As the images of --input resident are; of the step itself there would be room enough."""
    real = machines.at_hand
    monkeypatch.setattr(machines, "at_hand", lambda **settings: real(**settings)._replace(capacity=10 * GIB))
    monkeypatch.setattr(machines.Machine, "platform", property(lambda self: "gpu"))
    used = {"bytes": 0}
    monkeypatch.setattr(machines, "in_use", lambda devices: used["bytes"])
    refused = partial(plan.ahead, batch_size=16, config="tiny.py", say=lambda line: None)
    train(recipe(Knobs(epochs=0.25), ABOUT), noise(), quiet=True, ahead=refused)
    used["bytes"] = 10 * GIB
    with pytest.raises(plan.DoesNotFit, match="and 0 are free"):
        train(recipe(Knobs(epochs=0.25), ABOUT), noise(), quiet=True, ahead=refused)
    # Of a GPU of 20 GiB jax took 10, and may have 18.4.
    chip = machines.CHIPS["h100"]._replace(memory=20 * GIB)
    taken = real(measure=False)._replace(capacity=10 * GIB, chip=chip)
    monkeypatch.setattr(machines, "at_hand", lambda **settings: taken)
    variable = "XLA_PYTHON_CLIENT_MEM_FRACTION=0.92"
    with pytest.raises(
        plan.DoesNotFit, match=rf"and 0 are free\. With {variable} in the environment it fits"
    ):
        train(recipe(Knobs(epochs=0.25), ABOUT), noise(), quiet=True, ahead=refused)


def test_what_does_not_fit_is_answered_with_what_was_compiled_and_does(planned, here, monkeypatch):
    step = import_module("jaxcl.plan.step")
    batch = planned.input_bytes // step.waiting_batches(planned.step_seconds_floor)
    monkeypatch.setattr(step, "waiting_batches", lambda floor: 2)
    tight, tried = here._replace(capacity=planned.peak_bytes), []
    over = planned._replace(capacity_bytes=tight.capacity, input_bytes=2 * batch, fits=False)
    advice = plan.advise(CONFIG, Knobs(), ABOUT, tight, over, say=tried.append)
    # Recomputing and chunks are tried first, and gain nothing in so small a network.
    assert [line.partition(":")[0] for line in tried[:3]] == ["--remat", "--shard-state", "--chunks 2"]
    assert advice[-1].startswith("batch 8 fits")
    assert "does not fit: needs" in plan.verdict(over._replace(advice=advice))


def test_a_batch_that_the_devices_cannot_share_is_answered_with_batches_that_they_can(here):
    with pytest.raises(
        ValueError, match="batch of 20 cannot be split evenly over the 8 devices .*; 16 and 24 can"
    ):
        plan.plan(CONFIG, Knobs(batch_size=20), ABOUT, here)


def test_links_that_end_at_the_host_are_bound_by_its_network_too(here):
    class Device:
        def __init__(self, host):
            self.process_index = host

    chip = machines.CHIPS["h100"]
    hosts = [Device(i // 8) for i in range(16)]
    machine = here._replace(devices=hosts, chips=16, chip=chip, link_rate=chip.link_rate)
    found = [Collective("all-reduce", 10**9, 16, 1)]
    within, between = 2 * 10**9 * 15 / 16 / 450e9, 2 * 10**9 / 2 / (8 * 50e9)
    assert plan.link_seconds(found, machine) == pytest.approx(max(within, between))
    assert plan.link_seconds(found, machine._replace(devices=hosts[:8], chips=8)) == pytest.approx(within)
    # In an all-to-all each of eight devices has rows of its own for the other host: half of what it deals out.
    dealt = [Collective("all-to-all", 10**9, 16, 1)]
    assert plan.link_seconds(dealt, machine) == pytest.approx(8 * 10**9 / 2 / (8 * 50e9))


def lacking(peak, *, temporary, capacity, waiting=0):
    """Of a plan what advice reads, in bytes."""
    fits = peak + waiting <= capacity
    of = {
        "peak_bytes": peak,
        "temporary_bytes": temporary,
        "capacity_bytes": capacity,
        "input_bytes": waiting,
    }
    plain = dict.fromkeys(plan.Plan._fields) | of | {"parameters": 1, "fits": fits, "compile_seconds": 60.0}
    return plan.Plan(**plain)


def told(monkeypatch, machine, over, temporary, *, knobs=None):
    """What is advised, and the words that were tried, where `temporary(knobs)` GiB are all that a change saves."""
    rest, heard = over.peak_bytes - over.temporary_bytes, []

    def planned_again(config, knobs, about, machine):
        needed = int(temporary(knobs) * GIB)
        return lacking(rest + needed, temporary=needed, capacity=machine.capacity, waiting=over.input_bytes)

    monkeypatch.setattr(import_module("jaxcl.plan.advice"), "plan", planned_again)
    said = plan.advise(
        CONFIG, knobs or Knobs(batch_size=32768), ABOUT, machine, over, say=lambda line: heard.append(line)
    )
    return said, [line.partition(":")[0] for line in heard]


def test_as_many_chunks_are_tried_as_do_by_proportion(here, monkeypatch):
    """330 GiB of temporaries on 59.4 (SimCLR, 32k, eight H100s): 8 by proportion; as some does not shrink, 16."""
    machine = here._replace(capacity=int(59.4 * GIB))
    over = lacking(331 * GIB, temporary=330 * GIB, capacity=machine.capacity, waiting=2 * GIB)
    said, tried = told(monkeypatch, machine, over, lambda knobs: 20 + 310 / knobs.chunks)
    assert tried == ["--remat", "--chunks 8", "--chunks 16"]
    assert len(said) == 1
    assert said[0].startswith("--chunks 16 fits (42.4 of 59.4 GiB: batch norm")


def test_chunks_and_less_kept_are_tried_together_where_each_alone_does_not_do(here, monkeypatch):
    machine = here._replace(capacity=60 * GIB)
    over = lacking(400 * GIB, temporary=399 * GIB, capacity=machine.capacity)
    said, tried = told(
        monkeypatch, machine, over, lambda knobs: (160 if knobs.remat else 399) * (1 / knobs.chunks + 0.2)
    )
    assert tried[:6] == [
        "--remat",
        *(f"--chunks {n}" for n in (8, 16, 32)),
        "--remat --chunks 4",
        "--remat --chunks 8",
    ]
    assert said[0].startswith("--remat --chunks 8 fits")


def test_what_trains_the_same_is_enough(here, monkeypatch):
    machine = here._replace(capacity=60 * GIB)
    over = lacking(100 * GIB, temporary=99 * GIB, capacity=machine.capacity)
    said, tried = told(monkeypatch, machine, over, lambda knobs: 40 if knobs.remat else 99)
    assert tried == ["--remat"]
    assert said == ("--remat fits (41 of 60 GiB: the same training, slower)",)


def gpus(memory):
    """Eight H100s, as they are described."""
    chip, one = machines.CHIPS["h100"], SimpleNamespace(platform="cuda", process_index=0)
    return machines.Machine("here", [one] * 8, 8, int(memory * chip.memory), None, None, None, chip)


def test_a_variable_is_named_where_more_of_a_gpu_s_memory_does(monkeypatch):
    """66 GiB are more than three quarters of an H100's 79.1, and less than 92 %, which are 72.8."""
    machine = gpus(0.75)
    over = lacking(66 * GIB, temporary=62 * GIB, capacity=machine.capacity)
    said, tried = told(monkeypatch, machine, over, lambda knobs: 62)
    assert tried == []
    assert said == ("it fits with XLA_PYTHON_CLIENT_MEM_FRACTION=0.92 in the environment (66 of 72.8 GiB)",)
    # With a change as well; not where the variable gives as much already.
    over = lacking(166 * GIB, temporary=162 * GIB, capacity=machine.capacity)
    said, _ = told(monkeypatch, machine, over, lambda knobs: 62 if knobs.chunks == 4 else 162)
    assert said[0].startswith(
        "--chunks 4 fits with XLA_PYTHON_CLIENT_MEM_FRACTION=0.92 (66 of 72.8 GiB: batch norm"
    )
    machine = gpus(0.95)
    over = lacking(80 * GIB, temporary=76 * GIB, capacity=machine.capacity)
    said, _ = told(monkeypatch, machine, over, lambda knobs: 76 / knobs.chunks)
    assert said[0].startswith("--chunks 2 fits (42 of 75.2 GiB")


def test_a_batch_of_fewer_than_two_images_is_not_tried(here, monkeypatch):
    machine = here._replace(devices=here.devices[:1], capacity=GIB)
    over = lacking(9 * GIB, temporary=GIB, capacity=GIB)
    _, tried = told(monkeypatch, machine, over, lambda knobs: 1, knobs=Knobs(batch_size=2))
    assert tried == ["--remat"]


def test_advice_outlives_a_compiler_that_fails(here, monkeypatch):
    def fails(*_):
        raise RuntimeError("INTERNAL: the compiler gave up")

    monkeypatch.setattr(import_module("jaxcl.plan.advice"), "plan", fails)
    over, heard = lacking(2, temporary=2, capacity=1), []
    said = plan.advise(CONFIG, Knobs(batch_size=16), ABOUT, here, over, say=heard.append)
    assert said == ("nothing that was tried fits",)
    assert any("--remat: INTERNAL: the compiler gave up" in line for line in heard)


# --- data that is not there --------------------------------------------------------------------------------------


def test_of_data_that_is_not_there_a_plan_takes_what_is_known_of_it(tmp_path):
    about, said = plan.about_of(CONFIG, Knobs(data="tfds:cifar10", data_dir=str(tmp_path)))
    assert (about.count, about.shape, len(about.classes)) == (50_000, (32, 32, 3), 10)
    assert "tfds:cifar10 is not here" in said
    knobs = Knobs(data="tfds:imagenet2012", data_dir=str(tmp_path), encoded=True, size=224)
    assert plan.about_of(CONFIG, knobs)[0].shape == (224, 224, 3)
    for data, train_on, count in (
        ("stl10", "unlabelled", 100_000),
        ("stl10", "train+unlabelled", 105_000),
        ("imagenet2012#imagenet100", "train", 126_689),
    ):
        knobs = Knobs(data=f"tfds:{data}", train_on=train_on, data_dir=str(tmp_path), size=64)
        assert plan.about_of(CONFIG, knobs)[0].count == count


def test_count_shape_and_classes_are_each_taken_from_who_knows_them(tmp_path):
    """Given, else of the data, else known; and --size resizes what is given, as in a run."""
    configs = Path(__file__).parents[1] / "configs"
    config = load_config(configs / "simclr_imagenet.py")
    about, _ = plan.about_of(config, config.Knobs(data_dir=str(tmp_path)), images=10, shape=(375, 500, 3))
    assert (about.count, about.shape, len(about.classes)) == (10, (224, 224, 3), 1000)
    about, said = plan.about_of(config, config.Knobs(data_dir=str(tmp_path)), shape=(375, 500, 1))
    assert (about.count, about.shape, len(about.classes)) == (1_281_167, (224, 224, 1), 1000)
    assert "is not here; planned for 1,281,167 images of 224 x 224 x 1" in said
    config = load_config(configs / "supervised.py")
    about, said = plan.about_of(
        config, config.Knobs(data_dir=str(tmp_path)), images=50_000, shape=(32, 32, 3)
    )
    assert (about.count, about.shape, len(about.classes), said) == (50_000, (32, 32, 3), 10, None)


def test_of_data_that_is_there_only_what_is_given_is_another(tmp_path):
    path = tmp_path / "small.npz"
    np.savez(path, images=np.zeros((6, 8, 8, 3), np.uint8), labels=np.arange(6) % 3)
    knobs = Knobs(data=f"npz:{path}", size=4)
    of = partial(plan.about_of, CONFIG, knobs)
    there, said = of()
    assert (there.count, there.shape, len(there.classes), said) == (6, (4, 4, 3), 3, None)
    assert of(images=9)[0] == there._replace(count=9)
    assert of(shape=(16, 16, 1))[0] == there._replace(shape=(4, 4, 1))
    assert of(images=9, shape=(16, 16, 3))[0] == there._replace(count=9)
    assert of(classes=2)[0] == there._replace(classes=("0", "1"))


def test_of_data_that_nobody_knows_it_asks(tmp_path):
    knobs = Knobs(data=f"npz:{tmp_path}/none.npz")
    with pytest.raises(ValueError, match="none.npz.*\n.*--images N --shape HEIGHT WIDTH CHANNELS"):
        plan.about_of(CONFIG, knobs)
    about, _ = plan.about_of(CONFIG, knobs, images=9, shape=(8, 8, 1), classes=3)
    assert about == About(9, (8, 8, 1), ("0", "1", "2"))


# --- the command -------------------------------------------------------------------------------------------------

NAMES = {
    "devices",
    "hosts",
    "parameters",
    "flops_per_device",
    "temporary_bytes",
    "peak_bytes",
    "capacity_bytes",
    "bytes_accessed",
    "collectives",
    "step_seconds_floor",
    "bound_by",
    "images_per_second",
    "fits",
    "hours",
    "chip_hours",
    "decoded_images_per_second",
}


@pytest.fixture
def config(tmp_path):
    """This file's config as a file of its own."""
    path = tmp_path / "tiny.py"
    source = Path(__file__).read_text()
    start, end = source.index("@dataclasses.dataclass"), source.index("CONFIG = ")
    imports = (
        "import dataclasses, optax\nfrom jaxcl import augment, nets\nfrom jaxcl.config import *\n"
        "from jaxcl.config import CommonKnobs, Recipe, basics\nfrom jaxcl.losses import keyless, nt_xent\n"
        "from jaxcl.methods import simclr\n"
    )
    path.write_text(imports + source[start:end])
    return str(path)


def test_the_command_prints_a_plan_and_writes_it_by_fixed_names(config, tmp_path, capsys):
    words = [
        "plan",
        config,
        "--images",
        "64",
        "--shape",
        "16",
        "16",
        "3",
        "--json",
        str(tmp_path / "plan.json"),
    ]
    assert main([*words, "--batch-size", "8"]) == 0  # compiled above
    printed = capsys.readouterr().out
    for expected in ("8 devices; batch 8, 1 a device", "fits: needs", "bound by", "all-reduce", "compiled"):
        assert expected in printed
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found.keys() >= NAMES
    assert found["batch_size"] == 8
    assert found["bound_by"] in ("compute", "memory", "links")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--machine", "tpu-v5e-12"], "not of 12"),
        (["--machine", "abacus"], "no machine 'abacus'"),
        (["--batch-size", "12"], "8 and 16 can"),
        ([], "--images N"),
    ],
)
def test_what_the_command_cannot_do_it_says_in_a_sentence(config, capsys, words, said):
    assert main(["plan", config, *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith("jaxcl plan: ")
    assert said in error


def test_the_command_alone_says_how_it_is_used(capsys):
    assert main(["plan"]) == 2
    assert "usage: jaxcl plan CONFIG.py [--machine NAME]" in capsys.readouterr().out


# --- described machines ------------------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra tpu")
@pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache")
@pytest.mark.parametrize("placement", ["jit", "shard_map"])
def test_a_tiny_config_fits_a_described_slice(placement):
    # libtpu 0.0.50.1 crashes on so small a network with fewer than some 16 images a device.
    knobs = Knobs(placement=placement, batch_size=64)
    found = plan.plan(CONFIG, knobs, ABOUT, machines.described("tpu-v5e-4"))
    assert (found.devices, found.hosts, found.fits) == (4, 1, True)
    assert found.bytes_accessed > 0
    assert found.collectives["all-reduce"]["bytes"] >= 4 * found.parameters
    assert found.bound_by in ("memory", "links")


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra tpu")
def test_on_a_tpu_products_in_chunks_access_what_they_do_at_once():
    """128 MiB in, as many out, and the factor; once a round, as XLA may bring it anew."""
    machine = machines.described("tpu-v5e-1")
    sharding = jax.sharding.SingleDeviceSharding(machine.devices[0])

    def costs(rounds):
        x, w = (
            jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=sharding)
            for shape in ((rounds, 2**16 // rounds, 1024), (1024, 1024))
        )
        traced = jax.jit(lambda x, w: jax.lax.map(lambda rows: jnp.tanh(rows @ w), x)).trace(x, w)
        return plan.Costs.of(traced, traced.lower().compile(), machine)

    at_once = 2 * 2 * 2**26 + 2 * 2**20
    for rounds in (1, 4, 16):
        assert 0.9 < costs(rounds).accessed / at_once < 1.5


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra tpu")
def test_a_compiler_that_runs_out_of_memory_says_how_much_it_needs(monkeypatch):
    machine = machines.described("tpu-v5e-1")
    x = jax.ShapeDtypeStruct((1 << 16, 1 << 17), np.float32)
    sharding = jax.sharding.SingleDeviceSharding(machine.devices[0])
    traced = jax.jit(lambda x: jax.numpy.sort(x + 1), in_shardings=sharding).trace(x)
    compiled, needed = plan.compile_for(traced, machine, [])
    assert compiled is None
    assert needed > machine.capacity


@pytest.mark.skipif(importlib.util.find_spec("jax_cuda12_plugin") is None, reason="needs the extra cuda")
def test_of_a_gpu_the_bytes_are_counted_and_its_memory_is_in_the_floor():
    found = plan.plan(CONFIG, Knobs(), ABOUT, machines.described("h100-8"))
    state = 3 * 4 * found.parameters  # with Adam's two moments, read and written
    assert 2 * state < found.bytes_accessed < 100 * state
    assert found.memory_seconds == found.bytes_accessed / machines.CHIPS["h100"].memory_rate
    assert found.flops_per_device == found.flops_shared_out > 0
    assert found.bound_by in ("memory", "links")
    assert any("counted from the program's text, as if nothing were cached" in note for note in found.notes)
