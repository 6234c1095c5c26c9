"""A program's text is read as it was written."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jaxcl import hlo

# As XLA writes for TPUs: layouts with brackets, a tuple's type, a condition that knows its bound.
TEXT = """\
HloModule jit_step, is_scheduled=true

%body (carry: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
  %carry = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)}) parameter(0)
  ROOT %next = (s32[], bf16[8,128]) tuple(%n, %x)
}

%condition (carry: (s32[], bf16[8,128])) -> pred[] {
  %carry.1 = (s32[], bf16[8,128]) parameter(0)
  %bound = s32[]{:T(128)} constant(7)
  ROOT %more = pred[] compare(%n, %bound), direction=LT
}

ENTRY %main (param: bf16[8,128]) -> bf16[8,128] {
  %param = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %loop = (s32[], bf16[8,128]) while(%start), condition=%condition, body=%body
  %either = f32[] conditional(%which, %a, %b), branch_computations={%one, %other}
  %choice = f32[] conditional(%which, %a, %b), true_computation=%one, false_computation=%other
  ROOT %out = f32[8]{0} reduce(%param, %zero), dimensions={1}, to_apply=%add, metadata={op_name="a(b"}
}
"""


@pytest.fixture(scope="module")
def main():
    computations, entry = hlo.read(TEXT)
    return {each.name: each for each in computations[entry]}


def test_an_instruction_is_taken_apart(main):
    out = main["out"]
    assert (out.type, out.operation, out.operands) == ("f32[8]{0}", "reduce", ("param", "zero"))
    assert hlo.shapes(main["loop"].type) == [("s32", ()), ("bf16", (8, 128))]
    assert hlo.sizes(main["loop"].type) == [4, 2 * 8 * 128]


def test_a_loop_without_a_written_count_runs_as_often_as_its_condition_says(main):
    computations, _ = hlo.read(TEXT)
    assert hlo.trips(main["loop"], computations) == 7
    other = main["loop"]._replace(rest=main["loop"].rest + ', "known_trip_count":{"n":"3"}')
    assert hlo.trips(other, computations) == 3
    assert hlo.trips(other._replace(rest="condition=%unknown, body=%body"), computations) == 1


def test_what_is_called_is_found_and_what_adds_two_numbers_is_not(main):
    assert sorted(hlo.called(main["loop"])) == [("body", "body"), ("condition", "condition")]
    assert (
        hlo.called(main["either"]) == hlo.called(main["choice"]) == [("branch", "one"), ("branch", "other")]
    )
    assert hlo.called(main["out"]) == []


def test_a_real_loop_is_found_with_its_rounds():
    def five(x):
        return lax.fori_loop(0, 5, lambda i, y: jnp.sin(y) @ x, x)

    text = jax.jit(five).lower(jax.ShapeDtypeStruct((8, 8), jnp.float32)).compile().as_text()
    computations, entry = hlo.read(text)
    loops = [each for body in computations.values() for each in body if each.operation == "while"]
    assert [hlo.trips(each, computations) for each in loops] == [5]
    assert entry in computations


def test_a_bracket_that_nobody_closes_is_an_error():
    with pytest.raises(ValueError, match="closing bracket"):
        hlo.closing("f(a, (b)", 1)
