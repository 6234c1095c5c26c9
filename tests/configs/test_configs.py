"""Every config makes an experiment whose step can be traced, for every choice that its knobs offer."""

import dataclasses
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxcl.experiment import Experiment, load_config
from jaxcl.train.loop import init_state
from jaxcl.train.step import make_step

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))
# What makes an experiment small; a config takes the ones that it has.
SMALL = {"batch_size": 16, "train_canvases": 64, "test_canvases": 32}


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """64 images of 32 x 32 x 3, and of 28 x 28 x 1, of 10 classes; and 64 JPEGs of many sizes, of 3 classes."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name, shape in {"color": (32, 32, 3), "gray": (28, 28, 1)}.items():
        images, labels = rng.integers(0, 256, (64, *shape), np.uint8), np.arange(64) % 10
        np.savez(
            folder / f"{name}.npz",
            train_images=images,
            train_labels=labels,
            test_images=images,
            test_labels=labels,
        )
    for i in range(64):
        path = folder / "photos" / ("train" if i % 2 else "test") / str(i % 3) / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 30 + i, 3), np.uint8)).save(path)
    return {
        "color": f"npz:{folder / 'color'}.npz",
        "gray": f"npz:{folder / 'gray'}.npz",
        "imagenet": f"folder:{folder / 'photos'}",
    }


def choices():
    """A config, and one of its knobs at one of the values it may have."""
    for path in CONFIGS:
        yield pytest.param(path, {}, id=path.stem)
        knobs = load_config(path).Knobs
        for name, kind in typing.get_type_hints(knobs).items():
            values = (True, False) if kind is bool else ()
            if typing.get_origin(kind) is typing.Literal:
                values = typing.get_args(kind)
            for value in values if name not in ("placement", "run_as") else ():
                if value != getattr(knobs, name):
                    yield pytest.param(path, {name: value}, id=f"{path.stem}-{name}={value}")


@pytest.mark.parametrize(("path", "chosen"), choices())
def test_a_config_makes_an_experiment_whose_step_can_be_traced(path, chosen, archives):
    module = load_config(path)
    has = {field.name for field in dataclasses.fields(module.Knobs)}
    source = {"photos": archives["color"], "digits": archives["gray"]} if "photos" in has else {}
    if "data" in has:
        kinds = {"mnist": "gray", "imagenet": "imagenet"}
        kind = next((kind for name, kind in kinds.items() if name in module.Knobs.data), "color")
        source = {"data": archives[kind]}
    small = {name: value for name, value in SMALL.items() if name in has}
    experiment = module.experiment(module.Knobs(**(small | source | chosen)))

    assert isinstance(experiment, Experiment)
    batch = {
        "image": jnp.asarray(experiment.train.images[: experiment.batch_size]),
        "index": jnp.arange(experiment.batch_size, dtype=jnp.int32),
    }
    if chosen.get("input", getattr(module.Knobs, "input", None)) == "host":  # views come with the batch
        views = len(experiment.views.recipes)
        batch["views"] = jnp.zeros((experiment.batch_size, views, *experiment.train.images.shape[1:]))

    def one_step(key):
        train_state = init_state(key, experiment.method, experiment.optimizer, batch)
        return make_step(experiment.method, experiment.optimizer)(train_state, key, batch)

    _, metrics = jax.eval_shape(one_step, jax.random.key(0))
    assert metrics["loss"].shape == ()
    assert experiment.steps > 0


def test_the_docstring_of_a_config_says_how_it_is_run():
    for path in CONFIGS:
        text = load_config(path).__doc__ or ""
        assert f"jaxcl train configs/{path.name}" in text or f"jaxcl sweep configs/{path.name}" in text, (
            path.name
        )
