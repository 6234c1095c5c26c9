"""A run is gone on with as what it is, or not at all."""

import configparser
import dataclasses
import json
import re
import shlex
import shutil
from importlib import metadata
from pathlib import Path

import chex
import numpy as np
import pytest

import jaxcl
from jaxcl import identity, machines, plan
from jaxcl.cli import knobs_of, main
from jaxcl.config import load_config, preset, resolved
from jaxcl.identity import fingerprint
from jaxcl.runs import directory, train_run
from jaxcl.runs.training import in_words
from jaxcl.shipped import shipped
from jaxcl.train import checkpoint
from jaxcl.train.log import read_metrics
from jaxcl.typing import Images

CONFIG = """
from dataclasses import dataclass
import jax.numpy as jnp
import optax
from jaxcl import About, CommonKnobs, Method, Recipe


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    batch_size: int = 8
    log_every: int = 4
    save_every: int = 3
    steps: int = 6
    rate: float = 0.1


def recipe(knobs: Knobs, about: About) -> Recipe:
    def init(key, batch):
        return {"w": jnp.ones(4)}, {}

    def loss(params, state, key, batch):
        value = jnp.mean((batch["image"].reshape(8, -1) / 255 @ params["w"]) ** 2)
        return value, (state, {"index": jnp.mean(1.0 * batch["index"])})

    method = Method(init, loss, lambda params, state, images: images.reshape(len(images), -1))
    return Recipe(method, optax.sgd(knobs.rate), lambda step: knobs.rate, None, STEPS, knobs.batch_size)
"""


@pytest.fixture
def train(tmp_path):
    """Trains in the run directory; by default 6 steps."""

    def images(seed):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 2, 2, 1), np.uint8)
        np.savez(tmp_path / "images.npz", train_images=pixels, test_images=pixels)

    def train(*words, steps=6, data=0, run="run"):
        images(data)
        (tmp_path / "config.py").write_text(CONFIG.replace("STEPS", str(steps)))
        where = ["--run-dir", str(tmp_path / run), "--data", f"npz:{tmp_path / 'images.npz'}"]
        return main(["train", str(tmp_path / "config.py"), *where, *words])

    return train


def test_without_its_knobs_a_run_is_still_known_by_its_checkpoint(train, tmp_path, capfd):
    assert train() == 0
    (tmp_path / "run" / "knobs.json").unlink()
    assert train("--rate", "0.2") == 1
    said = capfd.readouterr().err
    assert "checkpoint of step 6" in said
    assert "--rate: the run has 0.1, you ask for 0.2" in said
    assert not (tmp_path / "run" / "knobs.json").exists()
    assert train("--nonfinite", "skip") == 0  # changes nothing of what was learnt


def test_the_advice_to_go_on_with_ones_own_config_works_as_it_is_printed(train, tmp_path, capfd):
    assert train("--rate", "0.2") == 0
    assert train("--rate", "0.2", steps=7) == 1
    said = capfd.readouterr().err
    command = said.partition("Go on with `jaxcl ")[2].partition("`")[0]
    assert main(command.split()) == 0
    assert main([*command.split(), "--rate", "0.3"]) == 1
    assert "--rate: the run has 0.2, you ask for 0.3" in capfd.readouterr().err


def test_images_that_were_replaced_are_noticed(train, capfd):
    assert train() == 0
    assert train(data=1) == 1
    assert "the training images or their labels are others" in capfd.readouterr().err
    assert train(data=0) == 0


def test_a_run_without_its_checkpoints_begins_anew_and_says_so(train, tmp_path, capfd):
    assert train() == 0
    run = tmp_path / "run"
    before = (run / "metrics.jsonl").read_text()
    shutil.rmtree(run / "checkpoints")
    assert train() == 0
    assert "no checkpoint" in capfd.readouterr().out
    assert (run / "metrics.jsonl.aside").read_text() == before
    assert [record["step"] for record in read_metrics(run)] == [4, 6]


def test_the_means_after_a_resume_are_those_of_the_unbroken_run(train, tmp_path):
    assert train() == 0
    unbroken = read_metrics(tmp_path / "run")
    for step in (6,):  # as killed after step 3 was saved, in the middle of the log's interval
        shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step))
    assert len(checkpoint.beside(tmp_path / "run" / "checkpoints", 3)["unlogged"]) == 3
    assert train() == 0
    resumed = read_metrics(tmp_path / "run")
    for before, after in zip(unbroken, resumed, strict=True):
        for name in ("step", "loss", "grad_norm", "index"):
            assert before[name] == after[name], name


def test_what_identifies_a_run_is_beside_each_checkpoint(train, tmp_path):
    assert train() == 0
    found = checkpoint.beside(tmp_path / "run" / "checkpoints", 6)["identity"]
    assert found["knobs"] == json.loads((tmp_path / "run" / "knobs.json").read_text())
    assert found["config"] == (tmp_path / "config.py").read_text()


@pytest.mark.parametrize("n", [3, 2**13])
def test_a_fingerprint_is_of_pixels_and_labels_and_not_of_the_name(n):
    pixels = np.random.default_rng(0).integers(0, 256, (n, 64, 64, 3), np.uint8)
    images = Images("one", pixels, np.arange(n) % 2)
    known = fingerprint(images)
    assert fingerprint(images._replace(name="two", images=pixels.copy())) == known
    others = (
        images._replace(images=pixels + np.uint8(1)),
        images._replace(images=pixels[:-1], labels=images.labels[:-1]),
        images._replace(images=pixels[::-1]),
        images._replace(labels=1 - images.labels),
        images._replace(labels=None),
    )
    assert known not in [fingerprint(other) for other in others]


LEAN = """
from dataclasses import dataclass
import optax
from jaxcl import CommonKnobs, Recipe, augment, nets
from jaxcl.config import basics
from jaxcl.losses import keyless, nt_xent
from jaxcl.methods import simclr


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    epochs: float = 1
    batch_size: int = 16
    save_every: int = 2


def recipe(knobs, about):
    basic = basics(knobs, about)
    norm = nets.batch_norm(axis_name=basic.axis)
    views = augment.two_views(augment.crop_and_flip(16))
    head = nets.mlp_head(norm=norm, hidden=(512,), out=64)
    encoder = basic.lean(nets.conv_n(features=(4,), dense=64, norm=norm))
    method = simclr(views=views, encoder=encoder, head=head, loss=keyless(nt_xent), axis_name=basic.axis)
    return Recipe(method, optax.sgd(0.1, momentum=0.9), lambda step: 0.1, views, basic.steps, knobs.batch_size)
"""


@pytest.fixture(scope="module")
def halfway(tmp_path_factory):
    """A config, its knobs, the state after 4 steps, and a run that has made 2 of them."""
    folder = tmp_path_factory.mktemp("halfway")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), np.uint8)
    np.savez(folder / "images.npz", train_images=pixels, test_images=pixels)
    (folder / "config.py").write_text(LEAN)
    knobs = load_config(folder / "config.py").Knobs(data=f"npz:{folder / 'images.npz'}")
    state = train_run(folder / "config.py", knobs, folder / "run")
    shutil.rmtree(folder / "run/checkpoints/4")
    return folder / "config.py", knobs, state, folder / "run"


@pytest.mark.parametrize(
    "otherwise",
    [
        {"shard_state": True, "remat": True},
        {"placement": "pmap", "save_every": 3, "log_every": 1},
        {"placement": "shard_map", "input": "resident", "knn_every": 0.5},
    ],
    ids=str,
)
def test_what_leaves_the_steps_the_same_may_change_and_the_end_is_that_of_the_unbroken_run(
    halfway, otherwise, tmp_path, capsys
):
    config, knobs, unbroken, run = halfway
    shutil.copytree(run, tmp_path / "run")
    state = train_run(config, dataclasses.replace(knobs, **otherwise), tmp_path / "run")
    said = capsys.readouterr().out
    assert "Goes on from step 2 of 4." in said
    words = {
        "shard_state": "--shard-state (before: --no-shard-state)",
        "placement": f"--placement {otherwise.get('placement')} (before: --placement jit)",
        "input": "--input resident (before: --input device)",
        "log_every": f"--log-every 1 (before: --log-every {knobs.log_every})",
    }
    for name in otherwise.keys() & words.keys():
        assert words[name] in said
    assert "the same steps, up to rounding" in said
    chex.assert_trees_all_close(state, unbroken, atol=1e-5)


@pytest.mark.parametrize("otherwise", [{"chunks": 2}, {"input": "host"}, {"dtype": "bfloat16"}], ids=str)
def test_what_changes_the_numbers_may_not_change(halfway, otherwise, tmp_path):
    config, knobs, _, run = halfway
    shutil.copytree(run, tmp_path / "run")
    with pytest.raises(ValueError, match=f"--{next(iter(otherwise))}: the run has "):
        train_run(config, dataclasses.replace(knobs, **otherwise), tmp_path / "run")


def test_a_run_that_goes_on_and_does_not_fit_is_told_what_leaves_it_the_same_run(
    halfway, tmp_path, monkeypatch
):
    """Another batch would be another run."""
    config, knobs, _, run = halfway
    monkeypatch.setattr(machines, "available_memory", lambda: 8 * 1000)
    for given, options in (
        ({}, "--remat, --shard-state or more devices"),
        ({"remat": True}, "--shard-state or more devices"),
        ({"remat": True, "placement": "pmap"}, "more devices"),
    ):
        asked = dataclasses.replace(knobs, **given)
        shutil.copytree(run, tmp_path / str(given))
        with pytest.raises(plan.DoesNotFit, match=f"keeps its batch; it needs less with {options}\\."):
            train_run(config, asked, tmp_path / str(given))
        with pytest.raises(plan.DoesNotFit, match="are free\\. `jaxcl plan"):
            train_run(config, asked, tmp_path / f"{given} from the beginning")


def test_a_run_that_does_not_fit_is_told_the_command_that_plans_just_it(halfway, tmp_path, monkeypatch):
    _, knobs, _, _ = halfway
    config = tmp_path / "my config.py"
    presets = (
        'PRESETS = {"small": Knobs(epochs=0.5, seed=3), "large": Knobs(epochs=2, batch_size=32, seed=3)}'
    )
    config.write_text(f"{LEAN}\n\n{presets}\n")
    monkeypatch.setattr(machines, "available_memory", lambda: 8 * 1000)
    words = ["--preset", "large", "--data", knobs.data, "--batch-size", "64", "--remat"]
    asked = knobs_of("train", config, words)
    with pytest.raises(plan.DoesNotFit) as refused:
        train_run(config, asked, tmp_path / "run")
    command, name, *named = shlex.split(re.search("`jaxcl (.*)` tries", str(refused.value))[1])
    assert (command, name) == ("plan", str(config))
    assert sorted(named) == sorted(words)
    assert vars(knobs_of("plan", config, named)) == vars(asked)


@pytest.mark.parametrize("config", shipped().values(), ids=lambda path: path.stem)
def test_knobs_in_words_are_these_knobs_again(config):
    """Of every config and preset, with other numbers, flags, paths and several values."""
    module = load_config(config)
    for name in (None, *getattr(module, "PRESETS", {})):
        knobs = preset(module, name)
        other = {"batch_size": 6, "encoded": not knobs.encoded, "logger": ("mlflow", "wandb"), "size": 64}
        for asked in (knobs, dataclasses.replace(knobs, **other, data_dir="/a b", value_range=(0.0, 4095.0))):
            _, *words = shlex.split(in_words(config, module, asked))
            assert vars(resolved(knobs_of("plan", config, words))) == vars(resolved(asked))
    if config.stem == "byol":
        asked = dataclasses.replace(preset(module, "imagenet"), batch_size=8192)
        assert in_words("byol.py", module, asked) == "byol.py --preset imagenet --batch-size 8192"


def test_a_clone_that_is_not_installed_knows_its_own_version(monkeypatch):
    """PYTHONPATH=CLONE python -m jaxcl train ... where pip has never seen jaxcl."""

    def not_installed(package):
        if package == "jaxcl":
            raise metadata.PackageNotFoundError(package)
        return "1.2"

    monkeypatch.setattr(metadata, "version", not_installed)
    assert (identity.version("jaxcl"), identity.version("jax")) == (jaxcl.__version__, "1.2")
    assert directory.versions()["jaxcl"] == jaxcl.__version__


def test_the_version_is_that_of_setup_cfg():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg")
    assert setup["metadata"]["version"] == jaxcl.__version__
