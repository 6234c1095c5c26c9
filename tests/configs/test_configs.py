"""Every config makes a recipe, for every choice that its knobs offer and with its numbers traced, and trains."""

import dataclasses
import itertools
import re
import typing
from pathlib import Path

import chex
import jax
import pytest

from jaxcl.config import CommonKnobs, Recipe, load_config, open_data
from jaxcl.runs import evaluate_run, train_run
from jaxcl.train import init_state, make_step
from jaxcl.train.log import read_metrics
from jaxcl.train.state import blank_batch

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))
# Numbers that decide how many training steps there are, or when something happens between them.
COUNTS = {"epochs", "knn_every"}
# ResNets of full width take most of a minute to compile.
LARGE = {"digit_on_image", "moco_cifar10", "moco_imagenet", "simclr_cifar10", "simclr_imagenet"}
# Of those that differ from another in images or settings alone, and of the dearest, a step is traced; slow tests train
# them.
OTHERS = {
    "amdim_cifar10_cpu",
    "byol_cifar10_cpu",
    "cmc_cifar10_cpu",
    "cpc_cifar10_cpu",
    "looc_cpu",
    "losses_cifar10",
    "moco_cifar10_cpu",
    "multidigits",
    "randbits_mnist",
    "simclr_cifar10_cpu",
    "yadim_cifar10_cpu",
}
SMALL_FIRST = [
    pytest.param(path, marks=[pytest.mark.slow] if path.stem in LARGE | OTHERS else [], id=path.stem)
    for path in CONFIGS
]


def others_of(knobs):
    """Name -> the other values that a knob may have."""
    found = {}
    for name, kind in typing.get_type_hints(knobs).items():
        values = (True, False) if kind is bool else ()
        if typing.get_origin(kind) is typing.Literal:
            values = typing.get_args(kind)
        # Of the first three a recipe knows nothing; the others are tried below.
        if name not in ("placement", "input", "encoded", "dtype", "remat"):
            found[name] = [value for value in values if value != getattr(knobs, name)]
    return found


def together(knobs):
    """As many settings of all knobs at once as give each its every value: tracing takes its time."""
    rounds = itertools.zip_longest(
        *([(name, value) for value in values] for name, values in others_of(knobs).items())
    )
    return [dict(filter(None, chosen)) for chosen in rounds]


def choices():
    """A config as it is, with other values of its knobs at once, and (slow) with one of them."""
    for path in CONFIGS:
        yield pytest.param(path, {}, id=path.stem)
        knobs = load_config(path).Knobs
        for chosen in together(knobs)[1:]:  # the first is tried below
            yield pytest.param(path, chosen, id="-".join([path.stem, *map(str, chosen.values())]))
        for name, values in others_of(knobs).items():
            for value in values:
                yield pytest.param(
                    path, {name: value}, id=f"{path.stem}-{name}={value}", marks=pytest.mark.slow
                )


def shallow(knobs):
    """The knobs that make a ResNet the shallowest one."""
    depth = {field.name: field.default for field in dataclasses.fields(knobs)}.get("depth")
    return {} if depth is None else {"depth": 18 if depth >= 18 else 1}


def one_step(recipe, batch, key):
    """The state after the first step, and its metrics."""
    state = init_state(key, recipe.method, recipe.optimizer, batch)
    return make_step(recipe.method, recipe.optimizer)(state, key, batch)


@pytest.mark.parametrize(("path", "chosen"), list(choices()))
def test_a_config_makes_a_recipe_whose_step_can_be_traced(path, chosen, small_knobs):
    config = load_config(path)
    # Each network is traced at its own depth once; beside other choices and dtypes a shallow one tells as much.
    knobs = config.Knobs(**(small_knobs(config.Knobs) | (shallow(config.Knobs) | chosen if chosen else {})))
    about = open_data(config, knobs).about
    recipe = config.recipe(knobs, about)
    assert isinstance(recipe, Recipe)
    assert recipe.steps > 0
    batch = blank_batch(about, knobs.batch_size)
    _, metrics = jax.eval_shape(lambda key: one_step(recipe, batch, key), jax.random.key(0))
    chex.assert_shape(metrics["loss"], ())


def numbers(knobs):
    """The numeric knobs of a config that a population of runs may map over."""
    fields = dataclasses.fields(knobs)
    return [f.name for f in fields if isinstance(f.default, float) and f.name not in COUNTS]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_recipe_can_be_made_of_traced_numbers_in_either_dtype_and_in_chunks(path, small_knobs):
    """All at once: knobs have their next values, numbers are tracers, the encoder computes in the other type than by
    default, and takes the batch in chunks with blocks that are computed again."""
    config = load_config(path)
    (other,) = {"float32", "bfloat16"} - {config.Knobs.dtype}
    small = small_knobs(config.Knobs) | shallow(config.Knobs)
    chosen = next(iter(together(config.Knobs)), {})
    knobs = config.Knobs(**(small | chosen), dtype=other, remat=True, chunks=2)
    about = open_data(config, knobs).about
    batch = blank_batch(about, knobs.batch_size)
    names = numbers(config.Knobs)
    assert {"learning_rate", "weight_decay"} <= set(names)

    def step(values, key):
        return one_step(config.recipe(dataclasses.replace(knobs, **values), about), batch, key)[1]["loss"]

    values = {name: getattr(knobs, name) for name in names}
    chex.assert_shape(jax.eval_shape(step, values, jax.random.key(0)), ())


def test_chunks_that_do_not_divide_a_batch_are_refused_with_numbers(small_knobs):
    config = load_config(next(path for path in CONFIGS if path.stem == "quickstart"))
    knobs = config.Knobs(**small_knobs(config.Knobs), chunks=3)
    about = open_data(config, knobs).about
    recipe, batch = config.recipe(knobs, about), blank_batch(about, knobs.batch_size)
    with pytest.raises(ValueError, match="rows are to be dealt out into 3 chunks"):
        jax.eval_shape(lambda key: one_step(recipe, batch, key), jax.random.key(0))


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("quickstart", {}),
        pytest.param("cmc_cifar10_cpu", {}, marks=pytest.mark.slow),
        pytest.param(
            "moco_cifar10_cpu",
            {"extrapolate": 2.0, "interpolate": 1.6, "start_epoch": 0.5, "queue_size": 32},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_traced_numbers_give_the_step_of_the_same_numbers(name, more, small_knobs):
    config = load_config(next(path for path in CONFIGS if path.stem == name))
    smaller = {"size": 16, "features": (4,) * len(config.Knobs.features)}
    knobs = config.Knobs(**(small_knobs(config.Knobs) | smaller | more))
    about = open_data(config, knobs).about
    batch = blank_batch(about, knobs.batch_size)
    names = numbers(config.Knobs)

    @jax.jit
    def step(values, key):
        recipe = config.recipe(dataclasses.replace(knobs, **values), about)
        state, metrics = one_step(recipe, batch, key)
        return state.params, metrics, recipe.learning_rate(1)

    values = {name: getattr(knobs, name) for name in names}
    traced = step(values, jax.random.key(0))
    concrete = jax.jit(lambda key: step.__wrapped__(values, key))(jax.random.key(0))
    chex.assert_trees_all_close(traced, concrete, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("path", SMALL_FIRST)
def test_a_config_trains_two_steps(path, small_knobs, tmp_path):
    config = load_config(path)
    has = {field.name: field.default for field in dataclasses.fields(config.Knobs)}
    smaller = {"epochs": 0.5, "warmup_epochs": 0, "log_every": 1, "queue_size": 32} | shallow(config.Knobs)
    smaller |= {"size": 64} if path.stem == "digit_on_image" else {}
    smaller |= {"input": "images"} if has["encoded"] else {}
    if isinstance(has.get("features"), tuple):
        smaller["features"] = (4,) * len(has["features"])
    small = small_knobs(config.Knobs) | {name: value for name, value in smaller.items() if name in has}
    knobs = config.Knobs(**small)
    train_run(path, knobs, tmp_path)
    steps = config.recipe(knobs, open_data(config, knobs).about).steps
    assert [record["step"] for record in read_metrics(tmp_path)] == list(range(1, steps + 1))


def test_a_classifier_that_is_trained_along_is_evaluated_too(small_knobs, tmp_path):
    path = next(path for path in CONFIGS if path.stem == "randbits_mnist")
    knobs = load_config(path).Knobs
    train_run(path, knobs(**small_knobs(knobs), epochs=0.25), tmp_path / "run")
    rows = evaluate_run(tmp_path / "run", ["knn"], baselines=())
    assert [row["protocol"] for row in rows] == ["knn", "joint"]
    assert all(0 <= row["accuracy"] <= 100 for row in rows)
    assert (tmp_path / "run/evaluations/joint.json").is_file()


def test_every_config_offers_the_common_knobs():
    common = {field.name for field in dataclasses.fields(CommonKnobs)}
    for path in CONFIGS:
        knobs = load_config(path).Knobs
        assert common < {field.name for field in dataclasses.fields(knobs)}, path.name
        hints = typing.get_type_hints(knobs)
        inputs = set(typing.get_args(hints["input"]))
        assert "device" in inputs, path.name


def test_the_docstring_of_a_config_says_how_it_is_run():
    for path in CONFIGS:
        text = load_config(path).__doc__ or ""
        assert re.search(rf"jaxcl (train|sweep) configs/{path.name}", text), path.name


def test_configs_are_pages():
    lines = {path.name: len(path.read_text().splitlines()) for path in CONFIGS}
    assert sum(lines.values()) <= 1150
    assert max(lines.values()) <= 110
