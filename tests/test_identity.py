"""A run is gone on with as what it is, or not at all."""

import json
import shutil

import numpy as np
import pytest

from jaxcl.cli import main
from jaxcl.identity import fingerprint
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
