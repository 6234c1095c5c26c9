"""Every config makes a recipe, for every choice that its knobs offer and with its numbers traced, and trains."""

import dataclasses
import functools
import itertools
import re
import typing
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from jaxcl.cli.words import knobs_of
from jaxcl.config import CommonKnobs, Recipe, open_data, preset, recipe_of
from jaxcl.config import load_config as load
from jaxcl.data import input_pipeline
from jaxcl.plan import about_of
from jaxcl.plan.inputs import abstract_batch
from jaxcl.runs import evaluate_run, train_run
from jaxcl.sweep import groups
from jaxcl.train import init_state, make_step
from jaxcl.train.log import read_metrics
from jaxcl.train.state import blank_batch
from jaxcl.typing import About
from jaxcl.weights import check_seen_alike

load_config = functools.cache(load)
CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))
COMMON = {field.name for field in dataclasses.fields(CommonKnobs)}
# Numbers that decide how many training steps there are, or when something happens between them.
COUNTS = {"epochs", "knn_every"}
# ResNets of full width take most of a minute to compile.
LARGE = {
    "amdim",
    "byol",
    "cmc",
    "cpc",
    "yadim",
    "digit_on_image",
    "looc",
    "moco_cifar10",
    "moco_imagenet",
    "moco_imagenet100",
    "simclr_augmentations",
    "simclr_cifar10",
    "simclr_imagenet",
    "simclr_v2",
}
# Of those that differ from another in images or settings alone, and of the dearest, a step is traced; slow tests train
# them. (randbits_mnist is trained with its classifier below, and so is a smaller step of the quickstart.)
OTHERS = {
    "amdim_cifar10_cpu",
    "byol_cifar10_cpu",
    "cmc_cifar10_cpu",
    "cpc_cifar10_cpu",
    "distill",
    "looc_cpu",
    "losses_cifar10",
    "moco_cifar10_cpu",
    "multidigits",
    "quickstart",
    "randbits",
    "randbits_mnist",
    "simclr_cifar10_cpu",
    "supervised",
    "yadim_cifar10_cpu",
}
SMALL_FIRST = [
    pytest.param(path, marks=[pytest.mark.slow] if path.stem in LARGE | OTHERS else [], id=path.stem)
    for path in CONFIGS
]


def others_of(knobs):
    """Name -> the other values that a knob may have."""
    found = {}
    hints = typing.get_type_hints(knobs)
    for name, kind in hints.items():
        values = (True, False) if kind is bool else ()
        if typing.get_origin(kind) is typing.Literal:
            values = typing.get_args(kind)
            if name == "mix":  # the last does all; where it is for one loss alone, test_mix has it
                values = () if "nt_xent" in typing.get_args(hints.get("loss")) else values[-1:]
        # Of the common ones those that a recipe knows are tried below; the last changes numbers alone.
        if name not in COMMON | {"standardize"}:
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
        config = load_config(path)
        marks = [pytest.mark.slow] if hasattr(config, "PRESETS") else []
        for chosen in together(config.Knobs)[
            0 if marks else 1 :
        ]:  # the first is tried below, but for those with presets
            yield pytest.param(
                path, chosen, id="-".join([path.stem, *map(str, chosen.values())]), marks=marks
            )
        for name, values in others_of(config.Knobs).items():
            for value in values:
                yield pytest.param(
                    path, {name: value}, id=f"{path.stem}-{name}={value}", marks=pytest.mark.slow
                )


def shallow(knobs, *, resnet=18):
    """The knobs that make an encoder the shallowest one; `resnet` is the depth of those that have blocks, None their
    own."""
    has = {field.name: field.default for field in dataclasses.fields(knobs)}
    depth = has.get("depth", 0)
    small = {"depth": (resnet or depth) if depth >= 18 else 1, "blocks": (1, 1, 2, 1), "negatives": 32}
    return {
        name: value for name, value in small.items() if has.get(name) and isinstance(value, type(has[name]))
    }


def one_step(recipe, batch, key, begun=None):
    """The state after the first step, and its metrics. `begun`: parameters and state before it, if not drawn here."""
    method = recipe.method if begun is None else recipe.method._replace(init=lambda key, batch: begun)
    state = init_state(key, method, recipe.optimizer, batch)
    return make_step(recipe.method, recipe.optimizer)(state, key, batch)


def assert_traced(config, knobs):
    about = open_data(config, knobs).about
    recipe = config.recipe(knobs, about)
    assert isinstance(recipe, Recipe)
    assert recipe.steps > 0
    batch = blank_batch(about, knobs.batch_size)
    _, metrics = jax.eval_shape(lambda key: one_step(recipe, batch, key), jax.random.key(0))
    chex.assert_shape(metrics["loss"], ())


@pytest.mark.parametrize(("path", "chosen"), list(choices()))
def test_a_config_makes_a_recipe_whose_step_can_be_traced(path, chosen, small_knobs, few_blocks):
    config = load_config(path)
    small = small_knobs(config.Knobs)
    # Its network can be made at its own depth. A shallow one is traced, which tells as much.
    own = config.Knobs(**small)
    assert isinstance(config.recipe(own, open_data(config, own).about), Recipe)
    assert_traced(config, config.Knobs(**(small | shallow(config.Knobs, resnet=None) | chosen)))


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_step_can_be_traced_at_a_configs_own_depth(path, small_knobs):
    config = load_config(path)
    assert_traced(config, config.Knobs(**small_knobs(config.Knobs)))


@pytest.mark.parametrize("name", ["quickstart", "cmc_cifar10_cpu", "looc_cpu"])
def test_every_config_trains_a_classifier_along_where_it_is_asked_to(name, small_knobs):
    config = load_config(next(path for path in CONFIGS if path.stem == name))
    knobs = config.Knobs(**small_knobs(config.Knobs), probe=True)
    about = open_data(config, knobs).about
    recipe, batch = recipe_of(config, knobs, about), blank_batch(about, knobs.batch_size)
    state, metrics = jax.eval_shape(lambda key: one_step(recipe, batch, key), jax.random.key(0))
    chex.assert_shape(metrics["probe_accuracy"], ())
    images = jax.ShapeDtypeStruct((2, *about.shape), "float32")
    logits = jax.eval_shape(recipe.classify, state.params, state.state, images)
    assert logits.shape == (2, len(about.classes))
    for apply in (recipe.parts or {}).values():
        chex.assert_shape(jax.eval_shape(apply, state.params, state.state, images), (2, None))


def test_a_classifier_along_needs_classes(small_knobs):
    config = load_config(next(path for path in CONFIGS if path.stem == "quickstart"))
    knobs = config.Knobs(**small_knobs(config.Knobs), probe=True)
    about = open_data(config, knobs).about._replace(classes=())
    with pytest.raises(ValueError, match="needs two classes; the training images have"):
        recipe_of(config, knobs, about)


def numbers(knobs):
    """The numeric knobs of a config that a population of runs may map over; a default may be written 10."""
    hints = typing.get_type_hints(knobs)
    return [name for name, hint in hints.items() if hint is float and name not in COUNTS]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_recipe_can_be_made_of_traced_numbers_in_either_dtype_and_in_chunks(path, small_knobs, few_blocks):
    """All at once: knobs have their next values, numbers are tracers, the encoder computes in the other type than by
    default, and takes the batch in chunks with blocks that are computed again."""
    config = load_config(path)
    (other,) = {"float32", "bfloat16"} - {config.Knobs.dtype}
    # Choices of a config with presets are tried by slow tests.
    chosen = {} if hasattr(config, "PRESETS") else next(iter(together(config.Knobs)), {})
    small = small_knobs(config.Knobs) | shallow(config.Knobs, resnet=None)
    knobs = config.Knobs(**(small | chosen), dtype=other, remat=True, chunks=2)
    about = open_data(config, knobs).about
    batch = blank_batch(about, knobs.batch_size)
    names = numbers(config.Knobs)
    assert {"learning_rate", "weight_decay"} <= set(names)

    def step(values, key):
        return one_step(config.recipe(dataclasses.replace(knobs, **values), about), batch, key)[1]["loss"]

    values = {name: float(getattr(knobs, name)) for name in names}
    chex.assert_shape(jax.eval_shape(step, values, jax.random.key(0)), ())


@pytest.mark.parametrize("name", ["byol", "simclr_imagenet", "simclr_cifar10"])
def test_a_traced_warm_up_is_as_long_as_that_of_the_same_number(name):
    """10 epochs of 50,000 images are 976 batches of 512 and 288 images more; half an epoch is 48 batches and more."""
    config = load_config(next(path for path in CONFIGS if path.stem == name))
    about = About(50_000, (32, 32, 3), ("a", "b"))
    knobs = config.Knobs(batch_size=512, epochs=40)
    every = 97 if name == "simclr_cifar10" else 1  # its rate changes once an epoch

    def rates(warmup_epochs):
        rate = config.recipe(dataclasses.replace(knobs, warmup_epochs=warmup_epochs), about).learning_rate
        return jax.vmap(rate)(np.arange(3000))

    peak = float(rates(0.0)[0])
    for epochs, steps in ((10.0, 976), (0.5, 48)):
        traced = np.asarray(jax.jit(rates)(epochs))
        np.testing.assert_allclose(traced, rates(epochs), rtol=1e-5, atol=1e-6 * peak)
        last = (steps - 1) // every * every
        assert traced[steps - 1] == pytest.approx(peak * last / steps, rel=1e-5)
    assert traced[0] == 0


@pytest.mark.parametrize("name", ["byol", "simclr_cifar10"])
def test_a_sweep_trains_runs_of_other_warm_ups_together(name, small_knobs, few_blocks):
    """With ten epochs written as a default writes them, and none apart from the others: there 0 means off."""
    config = load_config(next(path for path in CONFIGS if path.stem == name))
    small = small_knobs(config.Knobs) | {"epochs": 40}
    runs = [config.Knobs(**small, warmup_epochs=epochs) for epochs in (10, 5.0, 0.0, 2.5)]
    assert groups(config, runs) == [((0, 1, 3), ("warmup_epochs",)), ((2,), ())]


def test_amdims_warm_up_may_be_traced():
    """Its code has (updates + 1) / 500 of the rate for 500 updates."""
    config = load_config(next(path for path in CONFIGS if path.stem == "amdim"))
    about = About(50_000, (32, 32, 3), ("a", "b"))

    def rate(warmup_steps):
        knobs = config.Knobs(warmup_steps=warmup_steps, learning_rate=1.0)
        return config.recipe(knobs, about).learning_rate(249)

    assert float(jax.jit(rate)(500)) == pytest.approx(0.5)


def test_chunks_that_do_not_divide_a_batch_are_refused_with_numbers(small_knobs):
    config = load_config(next(path for path in CONFIGS if path.stem == "quickstart"))
    knobs = config.Knobs(**small_knobs(config.Knobs), chunks=3)
    about = open_data(config, knobs).about
    recipe, batch = config.recipe(knobs, about), blank_batch(about, knobs.batch_size)
    with pytest.raises(ValueError, match="rows cannot be split into 3 equal chunks"):
        jax.eval_shape(lambda key: one_step(recipe, batch, key), jax.random.key(0))


def test_the_page_of_simclr_v2_fine_tunes_the_very_network_that_it_pretrains(few_blocks):
    """Its commands as they stand there: what the second carries over, the first has, in the same shapes."""
    page = (CONFIGS[0].parents[1] / "docs" / "methods" / "simclr_v2.md").read_text()
    lines = re.findall(r"^jaxcl train (configs/\w+\.py) (.*)$", re.sub(r" *\\\n *", " ", page), re.MULTILINE)
    assert [name for name, _ in lines] == [
        f"configs/{name}.py" for name in ("simclr_v2", "supervised", "distill")
    ]
    made = {}
    for name, words in lines[:2]:
        path = CONFIGS[0].parents[1] / name
        knobs, config = knobs_of("train", path, words.split()), load_config(path)
        about = About(12811, (knobs.size, knobs.size, 3), tuple(map(str, range(1000))))
        recipe = config.recipe(knobs, about)
        made[path.stem] = recipe, jax.eval_shape(recipe.method.init, jax.random.key(0), blank_batch(about))[0]
    (first, theirs), (second, own) = made["simclr_v2"], made["supervised"]
    assert second.carries == ("encoder", "head")
    chex.assert_trees_all_equal_shapes(own["encoder"], theirs["encoder"])
    assert own["head"]
    for layer, arrays in own["head"].items():
        chex.assert_trees_all_equal_shapes(arrays, theirs["head"][layer])
    check_seen_alike("runs/simclr_v2", first.method, second.method)
    assert second.steps == 60 * 12811 // 1024 + 1
    # Section 3: 0.002 sqrt(batch) for networks larger than ResNet-50.
    np.testing.assert_allclose(second.learning_rate(0), 0.002 * 1024**0.5, rtol=1e-3)


class Small(typing.NamedTuple):
    """A config with small networks, and a first step of it."""

    config: typing.Any
    knobs: typing.Any
    about: About
    batch: typing.Any
    begun: typing.Any  # parameters and state
    numbers: dict  # the numeric knobs
    step: (
        typing.Any
    )  # numbers, begun -> the parameters after it, metrics, and the learning rate of the one after it


def smaller(name, small_knobs, drawn, **more):
    config = load_config(next(path for path in CONFIGS if path.stem == name))
    sizes = {"size": 16, "features": (4,) * len(config.Knobs.features)}
    knobs = config.Knobs(**(small_knobs(config.Knobs) | sizes | more))
    about = open_data(config, knobs).about
    rng, batch = np.random.default_rng(0), blank_batch(about, knobs.batch_size)
    batch |= {"image": rng.integers(0, 256, batch["image"].shape, np.uint8)}
    batch |= {"label": rng.integers(0, 10, len(batch["label"])).astype(np.int32)}

    def step(values, begun):
        recipe = config.recipe(dataclasses.replace(knobs, **values), about)
        state, metrics = one_step(recipe, batch, jax.random.key(0), begun)
        return state.params, metrics, recipe.learning_rate(1)

    begun = drawn(lambda: config.recipe(knobs, about).method.init(jax.random.key(0), batch))
    values = {name: float(getattr(knobs, name)) for name in numbers(config.Knobs)}
    return Small(config, knobs, about, batch, begun, values, step)


def test_the_method_is_trained_as_without_the_classifier_also_by_traced_numbers_and_the_classifier_by_adam(
    small_knobs, drawn
):
    """From the same parameters. (What is drawn for them is the same too: tests/methods/test_probe.py.) Of two programs
    one has the classifier and numbers, the other neither: a difference of either shows."""
    small = smaller("quickstart", small_knobs, drawn, epochs=2)
    alone, metrics, rate = jax.jit(small.step)(small.numbers, small.begun)
    recipe = recipe_of(small.config, dataclasses.replace(small.knobs, probe=True), small.about)
    probe = drawn(lambda: recipe.method.init(jax.random.key(0), small.batch))[0]["probe"]
    begun = {"method": small.begun[0], "probe": probe}, small.begun[1]
    along, metrics_along = jax.jit(lambda begun: one_step(recipe, small.batch, jax.random.key(0), begun))(
        begun
    )
    chex.assert_trees_all_close(along.params["method"], alone, atol=1e-6)
    # These two are of the classifier too.
    own = metrics.keys() - {"loss", "grad_norm"}
    chex.assert_trees_all_close(
        *({name: of[name] for name in own} for of in (metrics_along, metrics)), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(recipe.learning_rate(1), rate, rtol=1e-5)
    # Adam's first step is the sign of the gradient, and the bias began at zero.
    np.testing.assert_allclose(np.abs(along.params["probe"]["bias"]), 1e-3, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("cmc_cifar10_cpu", {}),
        (
            "moco_cifar10_cpu",
            {"extrapolate": 2.0, "interpolate": 1.6, "start_epoch": 0.5, "queue_size": 32},
        ),
    ],
)
def test_traced_numbers_give_the_step_of_the_same_numbers_in_other_configs(name, more, small_knobs, drawn):
    small = smaller(name, small_knobs, drawn, **more)
    concrete = jax.jit(functools.partial(small.step, small.numbers))(small.begun)
    traced = jax.jit(small.step)(small.numbers, small.begun)
    chex.assert_trees_all_close(traced, concrete, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("path", SMALL_FIRST)
def test_a_config_trains_two_steps(path, small_knobs, tmp_path):
    config = load_config(path)
    has = {field.name: field.default for field in dataclasses.fields(config.Knobs)}
    smaller = {"epochs": 0.5, "warmup_epochs": 0, "log_every": 1, "queue_size": 32} | shallow(config.Knobs)
    smaller |= {"size": 64} if path.stem == "digit_on_image" else {}
    smaller |= {"input": "images"} if has["encoded"] else {}
    smaller |= {"memory": 32} if "memory" in has else {}
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
    train_run(path, knobs(**small_knobs(knobs), epochs=0.5, log_every=1), tmp_path / "run")
    assert [record["step"] for record in read_metrics(tmp_path / "run")] == [1, 2]
    rows = evaluate_run(tmp_path / "run", protocols=["knn"], baselines=())
    assert [row["protocol"] for row in rows] == ["knn", "joint"]
    assert all(0 <= row["accuracy"] <= 100 for row in rows)
    assert (tmp_path / "run/evaluations/joint.json").is_file()


def test_a_preset_that_is_not_there_is_refused_with_those_that_are():
    config = load_config(next(path for path in CONFIGS if path.stem == "byol"))
    assert preset(config, None) == config.Knobs()
    assert preset(config, "stl10") == config.PRESETS["stl10"]
    with pytest.raises(ValueError, match="no preset 'mnist'; its presets are cifar10, stl10, imagenet"):
        preset(config, "mnist")


def presets():
    for path in CONFIGS:
        for name in getattr(load_config(path), "PRESETS", {}):
            yield pytest.param(path, name, id=f"{path.stem}-{name}")


def full_size(path, name, batch_size=32):
    """The abstract parameters of a preset as it is, and what it makes them with; the batch alone is small."""
    config = load_config(path)
    knobs = dataclasses.replace(config.PRESETS[name], batch_size=batch_size)
    about, _ = about_of(config, dataclasses.replace(knobs, data_dir="/nowhere"))
    height, width, channels = about.shape
    about = about._replace(shape=(height, width, channels + getattr(knobs, "bits", 0)))
    recipe, batch = config.recipe(knobs, about), blank_batch(about, batch_size)
    return recipe, batch, jax.eval_shape(recipe.method.init, jax.random.key(0), batch)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "name"), presets())
def test_the_step_of_a_preset_can_be_traced_at_full_size(path, name):
    recipe, batch, (params, state) = full_size(path, name)
    key = jax.random.key(0)
    loss, _ = jax.eval_shape(recipe.method.loss, params, state, key, batch)
    chex.assert_shape(loss, ())


# Millions of parameters in table 6 of the SimCLR paper, arXiv:2002.05709: of AMDIM's encoder without what embeds its
# maps, and of both of CMC's. (CPC's 305 are of another network than that of Falcon and Cho.)
@pytest.mark.parametrize(
    ("stem", "name", "millions"),
    [("amdim", "imagenet_large", 626), ("byol", "imagenet", 24), ("cmc", "imagenet_2x", 188)],
)
def test_encoders_of_presets_are_as_large_as_published(stem, name, millions):
    path = next(path for path in CONFIGS if path.stem == stem)
    _, _, (params, _) = full_size(path, name)
    encoders = [one["encoder"] for one in params.values() if "encoder" in one] or [params["encoder"]]
    count = sum(w.size for w in jax.tree.leaves(encoders))
    assert round(count / 1e6) == millions


def test_every_config_offers_the_common_knobs():
    common = {field.name for field in dataclasses.fields(CommonKnobs)}
    for path in CONFIGS:
        knobs = load_config(path).Knobs
        assert common < {field.name for field in dataclasses.fields(knobs)}, path.name
        hints = typing.get_type_hints(knobs)
        inputs = set(typing.get_args(hints["input"]))
        assert {"device", "resident", "host"} <= inputs, path.name


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[] if path.stem.startswith("randbits") else [pytest.mark.slow], id=path.stem)
        for path in CONFIGS
    ],
)
def test_a_config_learns_from_views_that_the_host_made(path, small_knobs, few_blocks):
    """From the shapes that it makes, without them; what it makes is tests/data's."""
    config = load_config(path)
    small = small_knobs(config.Knobs) | shallow(config.Knobs, resnet=None)
    knobs = config.Knobs(**small, input="host")
    about = open_data(config, knobs).about
    recipe = config.recipe(knobs, about)
    batch = abstract_batch(recipe, knobs, about)
    assert "image" not in batch
    _, metrics = jax.eval_shape(functools.partial(one_step, recipe), batch, jax.random.key(0))
    chex.assert_shape(metrics["loss"], ())


def test_images_of_an_imagenet_config_that_are_in_memory_may_be_resident(small_knobs):
    config = load_config(next(path for path in CONFIGS if path.stem == "moco_imagenet"))
    small = small_knobs(config.Knobs)
    for encoded in (True, False):
        knobs = config.Knobs(**(small | {"input": "resident", "encoded": encoded}))
        data = open_data(config, knobs)
        views = config.recipe(knobs, data.about).views
        if encoded:
            with pytest.raises(ValueError, match="stay encoded in.*leave out --encoded"):
                input_pipeline(knobs.input, data.train, views)
        else:
            assert input_pipeline(knobs.input, data.train, views).resident.shape[1:] == (32, 32, 3)


def test_the_docstring_of_a_config_says_how_it_is_run():
    for path in CONFIGS:
        text = load_config(path).__doc__ or ""
        assert re.search(rf"jaxcl (train|sweep) configs/{path.name}", text), path.name


def test_configs_are_pages():
    lines = {path.name: len(path.read_text().splitlines()) for path in CONFIGS}
    assert sum(lines.values()) <= 2100
    assert max(lines.values()) <= 110
