"""What a program costs is counted as by hand."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from jaxcl import devices, machines, programs
from jaxcl.programs import Collective, arithmetic, by_kind, collectives

# Shapes and layouts as XLA writes them for TPUs and GPUs.
TEXT = """\
HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%body (carry: (s32[], f32[256])) -> (s32[], f32[256]) {
  %carry = (s32[]{:T(128)}, f32[256]{0:T(256)S(1)}) parameter(0)
  %part = f32[256]{0:T(256)} get-tuple-element(%carry), index=1
  %all-reduce.1 = f32[256]{0:T(256)} all-reduce(%part), replica_groups=mesh['devices'=8] {'devices'}, to_apply=%add
  ROOT %next = (s32[], f32[256]) tuple(%n, %all-reduce.1)
}

%condition (carry: (s32[], f32[256])) -> pred[] {
  %carry.1 = (s32[], f32[256]) parameter(0)
  %bound = s32[]{:T(128)} constant(7)
  %n = s32[] get-tuple-element(%carry.1), index=0
  ROOT %more = pred[] compare(%n, %bound), direction=LT
}

%other_body (carry: (s32[], f32[256])) -> (s32[], f32[256]) {
  %carry.2 = (s32[], f32[256]) parameter(0)
  %permuted = (f32[4,8]{1,0}, f32[4,8]{1,0}, u32[], u32[]) collective-permute-start(%p), source_target_pairs={{0,1}}
  %done = f32[4,8]{1,0} collective-permute-done(%permuted)
  ROOT %next.1 = (s32[], f32[256]) tuple(%n, %x)
}

%wrapped (p: bf16[64]) -> bf16[8] {
  %p.1 = bf16[64]{0} parameter(0)
  ROOT %scattered = bf16[8]{0} reduce-scatter(%p.1), replica_groups=[1,8]<=[8], dimensions={0}, to_apply=%add
}

ENTRY %main (param: f32[256]) -> f32[256] {
  %param = f32[256]{0} parameter(0)
  %grads = (f32[3,3,8,16]{3,2,1,0}, bf16[16]{0}) all-reduce(%a, %b), replica_groups={}, to_apply=%add
  %gathered = (f32[2,128]{1,0}, f32[16,128]{1,0}) all-gather-start(%z), replica_groups=[1,8]<=[8], dimensions={0}
  %keys = f32[16,128]{1,0} all-gather-done(%gathered)
  %dealt = ((f32[16,128]{1,0}), f32[2,128]{1,0}) reduce-scatter-start(%y), replica_groups=[1,8]<=[8], to_apply=%add
  %own = f32[2,128]{1,0} reduce-scatter-done(%dealt)
  %pairs = f32[16]{0} all-reduce(%c), replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add
  %sum = ((f32[32]{0}), f32[32]{0}) all-reduce-start(%d), replica_groups={}, to_apply=%add
  %sums = (f32[8]{0}, f32[24]{0}) all-reduce-start(%d, %e), replica_groups={}, to_apply=%add
  %loop = (s32[], f32[256]) while(%start), condition=%condition, body=%body
  %known = (s32[], f32[256]) while(%start), condition=%c, body=%other_body, "known_trip_count":{"n":"3"}
  %later = ((bf16[64]), bf16[8]) async-start(%p), calls=%wrapped
  ROOT %out = f32[256]{0} fusion(%all-reduce.9), kind=kLoop, calls=%fused
}
"""


def test_collectives_are_counted_with_their_bytes_and_as_often_as_their_loop_runs():
    assert by_kind(collectives(TEXT, devices=8)) == {
        "all-reduce": {"count": 11, "bytes": 4 * 3 * 3 * 8 * 16 + 2 * 16 + 4 * 16 + 2 * 4 * 32 + 7 * 4 * 256},
        "all-gather": {"count": 1, "bytes": 4 * 16 * 128},
        "collective-permute": {"count": 3, "bytes": 3 * 4 * 4 * 8},
        "reduce-scatter": {"count": 2, "bytes": 2 * 64 + 4 * 16 * 128},
    }


def test_a_group_of_two_is_a_group_of_two():
    together = [one.devices for one in collectives(TEXT, devices=8) if one.kind == "all-reduce"]
    assert together == [8, 2, 8, 8, 8]


def test_a_sum_that_all_get_is_sent_twice_and_what_one_device_has_is_not():
    assert Collective("all-reduce", 800, 8, 1).sent == 2 * 700
    assert Collective("all-gather", 800, 8, 1).sent == 700
    assert Collective("all-reduce", 800, 1, 1).sent == 0


def test_the_sum_of_a_gradient_is_found_in_a_real_program():
    mesh = devices.make_mesh(devices=8)
    everywhere, rows = (jax.NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("devices",)))
    step = jax.jit(
        jax.grad(lambda w, x: ((x @ w) ** 2).sum()), in_shardings=(everywhere, rows), out_shardings=everywhere
    )
    compiled = step.lower(jnp.zeros((4, 6)), jnp.zeros((16, 4))).compile()
    found = by_kind(collectives(compiled.as_text(), devices=8))
    assert found == {"all-reduce": {"count": 1, "bytes": 4 * 4 * 6}}
    told = programs.memory(compiled)
    assert told["argument_bytes"] == 4 * (4 * 6 + 2 * 4)
    assert told["peak_bytes"] >= told["argument_bytes"] + told["output_bytes"]


@pytest.mark.parametrize("split", [False, True])
def test_a_product_is_two_mnk_whether_one_program_makes_it_or_one_a_device(split):
    product = jnp.matmul
    if split:
        rows, everywhere = PartitionSpec("devices"), PartitionSpec()
        mesh = devices.make_mesh(devices=8)
        product = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(rows, everywhere), out_specs=rows)
    assert arithmetic(product, jnp.zeros((16, 3)), jnp.zeros((3, 5))) == 2 * 16 * 3 * 5


def test_where_triton_has_no_form_for_a_product_cublas_makes_all_and_other_errors_are_raised():
    class Lowered:
        def __init__(self, complaint):
            self.complaint, self.asked = complaint, []

        def compile(self, compiler_options):
            self.asked.append(compiler_options)
            if len(self.asked) == 1:
                raise RuntimeError(self.complaint)
            return "program"

    lowered, notes = Lowered("INTERNAL: No supported configs found for gemm_fusion"), []
    assert programs.compiled(lowered, options={"xla_gpu_autotune_level": 0}, notes=notes) == "program"
    assert lowered.asked[1] == {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
    assert notes == [programs.WITHOUT_TRITON]
    with pytest.raises(RuntimeError, match="out of memory"):
        programs.compiled(Lowered("out of memory"))


# --- bytes through memory ----------------------------------------------------------------------------------------

MIB = 2**20


def traffic_of(function, *arguments):
    return programs.traffic(jax.jit(function).lower(*arguments).compile().as_text()) / MIB


def test_what_is_added_to_is_read_and_written():
    """4 MiB in, 4 MiB out."""
    assert traffic_of(lambda x: x + 1, jnp.zeros((1024, 1024))) == 8
    assert traffic_of(lambda x, y: x + y, *2 * [jnp.zeros((1024, 1024))]) == 12
    assert traffic_of(lambda x: x + 1, jnp.zeros((1024, 1024), jnp.int8)) == 2


def test_a_loop_moves_as_much_as_its_rounds():
    def rounds(k):
        scan = lambda x: jax.lax.scan(lambda y, _: (jnp.sin(y), None), x, None, length=k)[0]  # noqa: E731
        return traffic_of(scan, jnp.zeros((1024, 1024)))

    assert rounds(9) - rounds(4) == pytest.approx(5 * 8, rel=1e-5)  # and a few bytes of the counter


def test_of_what_a_loop_slices_and_stacks_each_round_moves_its_rows_alone():
    """4 MiB are made for the results, 4 MiB read and 4 MiB written, however many rounds there are."""
    for rows in (64, 1024):
        x = jnp.zeros((rows, 2**20 // rows))
        assert traffic_of(lambda x: jax.lax.map(lambda row: row + 1, x), x) == pytest.approx(12, rel=0.01)


MOVES = """\
HloModule jit_step, is_scheduled=true

%fused_put (p.0: f32[100,8], p.1: f32[50,8], p.2: s32[]) -> (f32[100,8], f32[8]) {
  %p.0 = f32[100,8]{1,0} parameter(0)
  %p.1 = f32[50,8]{1,0} parameter(1)
  %p.2 = s32[] parameter(2)
  %row = f32[1,8]{1,0} dynamic-slice(%p.1, %p.2, %p.2), dynamic_slice_sizes={1,8}
  %same = f32[100,8]{1,0} bitcast(%p.0)
  %put = f32[100,8]{1,0} dynamic-update-slice(%same, %row, %p.2, %p.2)
  %flat = f32[8]{0} bitcast(%row)
  ROOT %both = (f32[100,8]{1,0}, f32[8]{0}) tuple(%put, %flat)
}

%fused_whole (q.0: f32[100,8], q.1: s32[]) -> f32[100,8] {
  %q.0 = f32[100,8]{1,0} parameter(0)
  %q.1 = s32[] parameter(1)
  %part = f32[1,8]{1,0} dynamic-slice(%q.0, %q.1, %q.1), dynamic_slice_sizes={1,8}
  %wide = f32[100,8]{1,0} broadcast(%part), dimensions={0,1}
  ROOT %sum = f32[100,8]{1,0} add(%q.0, %wide)
}

ENTRY %main (a: f32[100,8], b: f32[50,8], i: s32[]) -> f32[8] {
  %a = f32[100,8]{1,0} parameter(0)
  %b = f32[50,8]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %changed = (f32[100,8]{1,0}, f32[8]{0}) fusion(%a, %b, %i), kind=kLoop, calls=%fused_put
  %kept = f32[100,8]{1,0} get-tuple-element(%changed), index=0
  %whole = f32[100,8]{1,0} fusion(%kept, %i), kind=kLoop, calls=%fused_whole
  %near = (f32[50,8]{1,0:S(1)}, f32[50,8]{1,0}, u32[]) copy-start(%b)
  %here = f32[50,8]{1,0:S(1)} copy-done(%near)
  %conv = (f32[8]{0}, u8[4096]{0}) custom-call(%here), custom_call_target="product"
  %one = f32[8]{0} get-tuple-element(%conv), index=0
  %all = (f32[8]{0}, f32[64]{0}) all-gather-start(%one), replica_groups=[1,8]<=[8], dimensions={0}
  %out = f32[64]{0} all-gather-done(%all)
  ROOT %sum.1 = f32[8]{0} all-reduce(%one), replica_groups={}, to_apply=%add
}
"""


def test_a_program_s_text_is_counted_as_by_hand():
    found = {one.instruction.name: (one.through, one.inside) for one in programs.moved(MOVES)}
    row = 4 * 8
    assert found == {
        "changed": (row + 4 + row + row, 0),  # a row of b, the place; a row of a, and the row apart
        "whole": (100 * row + 4 + 100 * row, 0),
        "near": (50 * row, 50 * row),  # from memory to the chip
        "conv": (row, 50 * row),  # without its scratch
        "all": (row + 8 * row, 0),
        "sum.1": (2 * row, 0),
    }
    assert programs.traffic(MOVES) == sum(through for through, _ in found.values())


# Sixteen rounds, each of which moves a sixteenth of an array: with an asynchronous fusion, as XLA writes for GPUs, and
# with a fusion within a fusion, as for TPUs.
ROUNDS = """\
HloModule jit_rounds, is_scheduled=true

%fused_put (p.0: bf16[16,4096,1024], p.1: s32[], p.2: bf16[4096,1024]) -> bf16[16,4096,1024] {
  %p.0 = bf16[16,4096,1024]{2,1,0} parameter(0)
  %p.2 = bf16[4096,1024]{1,0} parameter(2)
  %part = bf16[1,4096,1024]{2,1,0} bitcast(%p.2)
  %p.1 = s32[] parameter(1)
  ROOT %put = bf16[16,4096,1024]{2,1,0} dynamic-update-slice(%p.0, %part, %p.1, %p.1, %p.1)
}

%fused_take (t.0: bf16[16,4096,1024], t.1: s32[]) -> bf16[4096,1024] {
  %t.0 = bf16[16,4096,1024]{2,1,0} parameter(0)
  %t.1 = s32[] parameter(1)
  %taken = bf16[1,4096,1024]{2,1,0} dynamic-slice(%t.0, %t.1, %t.1, %t.1), dynamic_slice_sizes={1,4096,1024}
  ROOT %flat = bf16[4096,1024]{1,0} bitcast(%taken)
}

%fused_same (s.0: bf16[16,4096,1024]) -> bf16[16,4096,1024] {
  %s.0 = bf16[16,4096,1024]{2,1,0} parameter(0)
  ROOT %same = bf16[16,4096,1024]{2,1,0} bitcast(%s.0)
}

%nested_take (n.0: s32[], n.1: bf16[16,4096,1024]) -> bf16[4096,1024] {
  %n.0 = s32[] parameter(0)
  %n.1 = bf16[16,4096,1024]{2,1,0} parameter(1)
  %as.1 = bf16[16,4096,1024]{2,1,0} fusion(%n.1), kind=kLoop, calls=%fused_same
  %inner.1 = bf16[4096,1024]{1,0} fusion(%as.1, %n.0), kind=kLoop, calls=%fused_take
  ROOT %tanh.1 = bf16[4096,1024]{1,0} tanh(%inner.1)
}

%nested_put (n.2: bf16[16,4096,1024], n.3: s32[], n.4: bf16[4096,1024]) -> bf16[16,4096,1024] {
  %n.2 = bf16[16,4096,1024]{2,1,0} parameter(0)
  %n.3 = s32[] parameter(1)
  %n.4 = bf16[4096,1024]{1,0} parameter(2)
  %tanh.2 = bf16[4096,1024]{1,0} tanh(%n.4)
  ROOT %inner.2 = bf16[16,4096,1024]{2,1,0} fusion(%n.2, %n.3, %tanh.2), kind=kLoop, calls=%fused_put
}

%nested_whole (n.5: bf16[16,4096,1024], n.9: s32[]) -> bf16[16,4096,1024] {
  %n.5 = bf16[16,4096,1024]{2,1,0} parameter(0)
  %as.2 = bf16[16,4096,1024]{2,1,0} fusion(%n.5), kind=kLoop, calls=%fused_same
  ROOT %tanh.3 = bf16[16,4096,1024]{2,1,0} tanh(%as.2)
}

%nested_read (n.6: bf16[16,4096,1024], n.7: s32[], n.8: bf16[4096,1024]) -> bf16[16,4096,1024] {
  %n.6 = bf16[16,4096,1024]{2,1,0} parameter(0)
  %n.7 = s32[] parameter(1)
  %n.8 = bf16[4096,1024]{1,0} parameter(2)
  %inner.3 = bf16[16,4096,1024]{2,1,0} fusion(%n.6, %n.7, %n.8), kind=kLoop, calls=%fused_put
  ROOT %tanh.4 = bf16[16,4096,1024]{2,1,0} tanh(%inner.3)
}

%body (carry: (s32[], bf16[16,4096,1024], bf16[4096,1024])) -> (s32[], bf16[16,4096,1024], bf16[4096,1024]) {
  %carry = (s32[], bf16[16,4096,1024]{2,1,0}, bf16[4096,1024]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%carry), index=0
  %all = bf16[16,4096,1024]{2,1,0} get-tuple-element(%carry), index=1
  %row = bf16[4096,1024]{1,0} get-tuple-element(%carry), index=2
  MOVES
  ROOT %next = (s32[], bf16[16,4096,1024]{2,1,0}, bf16[4096,1024]{1,0}) tuple(%i, %all, %row)
}

%condition (carry.1: (s32[], bf16[16,4096,1024], bf16[4096,1024])) -> pred[] {
  %carry.1 = (s32[], bf16[16,4096,1024]{2,1,0}, bf16[4096,1024]{1,0}) parameter(0)
  %bound = s32[] constant(16)
  %n = s32[] get-tuple-element(%carry.1), index=0
  ROOT %more = pred[] compare(%n, %bound), direction=LT
}

ENTRY %main (x: bf16[16,4096,1024], y: bf16[4096,1024]) -> bf16[16,4096,1024] {
  %x = bf16[16,4096,1024]{2,1,0} parameter(0)
  %y = bf16[4096,1024]{1,0} parameter(1)
  %place = bf16[16,4096,1024]{2,1,0} custom-call(), custom_call_target="AllocateBuffer"
  %start = (s32[], bf16[16,4096,1024]{2,1,0}, bf16[4096,1024]{1,0}) tuple(%zero, %place, %y)
  ROOT %loop = (s32[], bf16[16,4096,1024]{2,1,0}, bf16[4096,1024]{1,0}) while(%start), condition=%condition, body=%body
}
"""
PART, WHOLE = 2 * 4096 * 1024, 2 * 16 * 4096 * 1024
TYPES = "bf16[16,4096,1024]{2,1,0}", "bf16[4096,1024]{1,0}"
MOVED = {
    "put": (
        f"%a = (({TYPES[0]}, s32[], {TYPES[1]}), {TYPES[0]}, u32[]) fusion-start(%all, %i, %row),"
        " kind=kLoop, calls=%fused_put",
        2 * PART,
    ),
    "take": (
        f"%a = (({TYPES[0]}, s32[]), ({TYPES[1]}), u32[]) fusion-start(%all, %i), kind=kLoop, calls=%fused_take",
        2 * PART,
    ),
    "nested take": (f"%a = {TYPES[1]} fusion(%i, %all), kind=kLoop, calls=%nested_take", 2 * PART),
    "nested put": (f"%a = {TYPES[0]} fusion(%all, %i, %row), kind=kLoop, calls=%nested_put", 2 * PART),
    "nested whole": (f"%a = {TYPES[0]} fusion(%all, %i), kind=kLoop, calls=%nested_whole", 2 * WHOLE),
    # What is changed is read on within the fusion, so it is no change where it lies.
    "changed and read": (
        f"%a = {TYPES[0]} fusion(%all, %i, %row), kind=kLoop, calls=%nested_read",
        2 * WHOLE + PART,
    ),
}


@pytest.mark.parametrize("which", MOVED)
def test_a_round_moves_its_part_in_an_asynchronous_and_in_a_nested_fusion(which):
    line, by_hand = MOVED[which]
    text = ROUNDS.replace("MOVES", line)
    assert programs.traffic(text) == 16 * (by_hand + 4) + 9  # the place; what the condition compares
    assert programs.by_rounds(text) == pytest.approx(16)


@pytest.mark.skipif(importlib.util.find_spec("jax_cuda12_plugin") is None, reason="needs the extra cuda")
def test_on_a_gpu_a_product_in_sixteen_rounds_moves_little_more_than_one_in_four():
    """Zeros for the results; each part taken, multiplied and put; and the factor a round."""
    sharding = jax.sharding.SingleDeviceSharding(machines.described("h100").devices[0])

    def moved(rounds):
        x, w = (
            jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=sharding)
            for shape in ((rounds, 2**16 // rounds, 1024), (1024, 1024))
        )
        products = jax.jit(lambda x, w: jax.lax.map(lambda rows: jnp.tanh(rows @ w), x))
        lowered = products.lower(x, w)
        return programs.traffic(programs.compiled(lowered, options={"xla_gpu_autotune_level": 0}).as_text())

    four, sixteen = moved(4), moved(16)
    assert sixteen - four == pytest.approx(12 * 2 * 1024 * 1024, rel=1e-3)
    assert sixteen <= (1 + 2 * 3) * WHOLE + 16 * 2 * 1024 * 1024 + 1000
