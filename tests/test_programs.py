"""What a program costs is counted as by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from jaxcl import devices, programs
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
