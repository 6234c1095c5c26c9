"""The randomness law: what hangs on what, from a seed to a step's views."""

import ast
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from jaxcl import keys


def bits(key):
    return np.asarray(jax.random.key_data(key))


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_the_views_key_does_not_depend_on_how_many_keys_a_method_draws_beside_it(n):
    key = keys.step_key(keys.run_key(3), 5)
    views_key, *further = keys.of_step(key, n)
    np.testing.assert_array_equal(bits(views_key), bits(keys.views_key(key)))
    # The whole prefix stays: a method that comes to draw one more draws what it drew before.
    chex.assert_trees_all_equal([bits(k) for k in further], [bits(k) for k in keys.of_step(key, n + 1)[1:-1]])


def test_no_two_keys_of_a_run_are_the_same():
    drawn = [keys.init_key(0), keys.run_key(0), keys.run_key(1)]
    drawn += keys.of_init(keys.init_key(0), 7)
    for step in range(3):
        key = keys.step_key(keys.run_key(0), step)
        drawn += [key, keys.probe_key(key), keys.views_key(keys.probe_key(key)), *keys.of_step(key, 7)]
    assert len({bits(key).tobytes() for key in drawn}) == len(drawn)


def test_a_traced_seed_and_step_lead_to_the_same_keys():
    def drawn(seed, step):
        run = keys.run_key(seed)
        return jax.random.key_data(keys.init_key(seed)), *map(
            jax.random.key_data, keys.of_step(keys.step_key(run, step), 2)
        )

    chex.assert_trees_all_equal(jax.jit(drawn)(4, 9), drawn(4, 9))


def test_the_keys_of_a_seed_are_those_of_all_runs_so_far():
    """Recorded with jax 0.12, from jax.random.split(jax.random.key(0)) and what follows; another generator or another
    split would draw other views from the same seed."""
    key = keys.step_key(keys.run_key(0), 7)
    first, second = jax.random.split(jax.random.key(0))
    np.testing.assert_array_equal(bits(keys.init_key(0)), bits(first))
    np.testing.assert_array_equal(bits(key), bits(jax.random.fold_in(second, 7)))
    np.testing.assert_array_equal(bits(keys.views_key(key)), RECORDED)


def test_a_protocol_is_given_the_seed_s_own_key_and_splits_it_once():
    """Recorded as those above: figures of evaluations are compared over the versions."""
    key = keys.evaluation_key(4)
    np.testing.assert_array_equal(bits(key), bits(jax.random.key(4)))
    for n in (2, 3, 5):
        chex.assert_trees_all_equal(
            [bits(k) for k in keys.of_protocol(key, n)], [bits(k) for k in jax.random.split(key, n)]
        )


def keys_of_seeds(text):
    """The lines that make a key of what is no literal: of a seed."""
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    made = [node for node in calls if ast.unparse(node.func) in ("jax.random.key", "jax.random.PRNGKey")]
    return [node.lineno for node in made if not all(isinstance(x, ast.Constant) for x in node.args)]


def test_the_keys_of_a_seed_are_made_in_one_file():
    """One for each purpose stands there, so that no two draw by the same without a word."""
    root = Path(keys.__file__).parent
    found = {str(path.relative_to(root)): keys_of_seeds(path.read_text()) for path in root.rglob("*.py")}
    assert len(found.pop("keys.py")) == 3
    del found["extract.py"]  # of a function's own seed, which is no run's
    assert not {name: lines for name, lines in found.items() if lines}
    assert keys_of_seeds("x = 1\nregions(jax.random.key(run.knobs.seed), jax.random.key(0))") == [2]


RECORDED = [4228094792, 4289384040]
