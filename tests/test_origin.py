"""The operation that is named is the first on the way to the result, wherever it is hidden."""

import jax
import jax.numpy as jnp
import pytest

from jaxcl.origin import origin

LINE = "tests/test_origin.py"


def log_of_a_negative(x):
    return jnp.log(x - 2)


def infinity_less_itself(x):
    y = jnp.exp(1000 * x)
    return y - jnp.mean(y)


def through_scan(x):
    return jax.lax.scan(lambda carry, y: (carry + jnp.log(y - 2), y), 0.0, x)[0]


def through_while(x):
    return jax.lax.while_loop(lambda c: c[0] < 5, lambda c: (c[0] + 1, jnp.sqrt(c[1] - 1)), (0, x[0] + 2))[1]


def through_cond(x):
    return jax.lax.cond(x[0] > 0, lambda x: jnp.log(x - 2), lambda x: x, x)


def through_checkpoint(x):
    return jax.checkpoint(lambda x: jnp.log(x - 2))(x)


CASES = [
    (log_of_a_negative, "log", "nan"),
    (jax.jit(log_of_a_negative), "log", "nan"),
    (jax.vmap(log_of_a_negative), "log", "nan"),
    (through_scan, "log", "nan"),
    (through_while, "sqrt", "nan"),
    (through_cond, "log", "nan"),
    (through_checkpoint, "log", "nan"),
    (infinity_less_itself, "sub", "nan"),
    (lambda x: jnp.exp(1000 * x), "exp", "infinity"),
]


@pytest.mark.parametrize(("function", "operation", "made"), CASES)
def test_the_operation_is_named_with_its_line(function, operation, made):
    found = origin(function, jnp.array([0.5, 1.0]))
    assert (found.operation, found.made, found.backward) == (operation, made, False)
    assert found.where[0].startswith(LINE)


def test_where_an_infinity_becomes_a_nan_both_are_named():
    found = origin(infinity_less_itself, jnp.array([0.5, 1.0]))
    assert found.given.operation == "exp"
    assert str(found).count(LINE) == 2


def test_an_infinity_that_is_meant_is_not_blamed():
    def masked(x):
        scores = jnp.where(x > 0.7, -jnp.inf, x)
        return jax.nn.logsumexp(scores) + jnp.log(x[0] - 2)

    found = origin(masked, jnp.array([0.5, 1.0]))
    assert (found.operation, found.given) == ("log", None)


def test_of_a_gradient_the_line_is_that_of_the_operation_it_is_of():
    found = origin(jax.grad(lambda x: jnp.sqrt(jnp.sum(x**2))), jnp.zeros(3))
    assert found.backward
    assert "the gradient of" in str(found)
    assert LINE in found.where[0]


def test_what_was_not_finite_before_is_named_as_an_argument():
    found = origin(
        lambda state, batch: state + batch["image"],
        1.0,
        {"image": jnp.array([1.0, jnp.nan])},
        names=("state", "batch"),
    )
    assert (found.operation, found.where) == ("argument", ("batch/image",))
    assert "batch/image" in str(found)


def test_there_is_nothing_to_name_where_all_is_finite():
    assert origin(lambda x: jnp.where(x > 1, jnp.log(x - 1), x), jnp.array([0.5, 1.0])) is None
