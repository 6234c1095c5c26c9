"""What is read in a compiled program is what can be counted by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jaxcl import hlo
from jaxcl.cost import cost, counted

PLAIN = {"xla_backend_optimization_level": 0}


def of(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return cost(jax.jit(function).lower(*arguments).compile(compiler_options=PLAIN))


def test_a_matrix_product_is_two_operations_for_each_number_multiplied():
    assert of(jnp.matmul, (16, 32), (32, 8)).products == 2 * 16 * 32 * 8
    assert (
        of(lambda a, b: jnp.einsum("bij,bkj->bik", a, b), (5, 16, 32), (5, 8, 32)).products
        == 2 * 5 * 16 * 32 * 8
    )


def test_a_loop_counts_as_often_as_it_is_run_forth_and_back():
    def chain(x, w):
        return jnp.sum(lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=5)[0])

    product = 2 * 64 * 32 * 32
    assert of(chain, (64, 32), (32, 32)).products == 5 * product
    assert of(jax.grad(chain, (0, 1)), (64, 32), (32, 32)).products == 3 * 5 * product


CONVOLUTIONS = [((1, 1), "SAME", 1), ((2, 2), "SAME", 1), ((2, 1), "VALID", 1), ((1, 1), "SAME", 2)]


@pytest.mark.parametrize(("strides", "padding", "groups"), CONVOLUTIONS)
def test_convolutions_and_their_gradients_count_what_xla_counts(strides, padding, groups):
    """XLA's own count is right where there is no loop."""

    def convolve(x, kernel):
        y = lax.conv_general_dilated(
            x,
            kernel,
            strides,
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        return jnp.sum(y * y)

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((16, 8, 7, 4), (3, 2, 4 // groups, 6))]
    for function in (convolve, jax.grad(convolve, (0, 1))):
        program = jax.jit(function).lower(*shapes).compile(compiler_options=PLAIN)
        rest = cost(program).others
        assert cost(program).products + rest == pytest.approx(program.cost_analysis()["flops"], rel=0.02)


def test_sorting_is_m_log_m_and_moving_is_nothing():
    assert of(lambda x: jnp.sort(x, axis=1), (4, 1024)).others == pytest.approx(4 * 1024 * 10, rel=0.01)
    assert of(lambda x: jnp.transpose(x)[::-1], (4, 1024)).operations == 0
    assert of(lambda x: x + 1, (4, 1024)).others == 4 * 1024
    assert of(jnp.sum, (4, 1024)).others == pytest.approx(4 * 1024, rel=0.01)


def test_of_a_condition_the_dearer_branch_counts():
    def either(x):
        return lax.cond(jnp.sum(x) > 0, lambda x: x @ x, lambda x: x @ x @ x, x)

    assert of(either, (16, 16)).products == 2 * 2 * 16**3


ASYNCHRONOUS = """\
%added (p.0: f32[16], p.1: f32[16]) -> f32[16] {
  %p.0 = f32[16]{0} parameter(0)
  %p.1 = f32[16]{0} parameter(1)
  ROOT %sum = f32[16]{0} add(%p.0, %p.1)
}

ENTRY %main (a: f32[16]) -> f32[16] {
  %a = f32[16]{0} parameter(0)
  %begun = ((f32[16]{0}, f32[16]{0}), f32[16]{0}, u32[]) fusion-start(%a, %a), kind=kLoop, calls=%added
  ROOT %ended = f32[16]{0} fusion-done(%begun)
}
"""


def test_what_runs_beside_others_counts_once():
    assert counted(*hlo.read(ASYNCHRONOUS), {}) == (0, 16)
