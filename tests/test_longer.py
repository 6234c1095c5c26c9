"""A finished run goes on for longer as the longer run would have, and no other way."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxcl.cli import main
from jaxcl.train import checkpoint
from jaxcl.train.log import read_metrics

CONFIG = """
from dataclasses import dataclass
import jax.numpy as jnp
import optax
from jaxcl import About, CommonKnobs, Method, Recipe, steps_of


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    batch_size: int = 8
    epochs: float = 1
    log_every: int = 1
    cosine: bool = False


def recipe(knobs: Knobs, about: About) -> Recipe:
    def init(key, batch):
        return {"w": jnp.ones(4)}, {}

    def loss(params, state, key, batch):
        x = batch["image"].reshape(8, -1) / 255
        return jnp.mean((x @ params["w"] - jnp.mean(batch["index"])) ** 2), (state, {})

    steps = steps_of(knobs.epochs, about.count, knobs.batch_size)
    rate = optax.cosine_decay_schedule(0.1, steps) if knobs.cosine else optax.constant_schedule(0.1)
    method = Method(init, loss, lambda params, state, images: images.reshape(len(images), -1))
    return Recipe(method, optax.sgd(rate, momentum=0.9), rate, None, steps, knobs.batch_size)
"""


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Trains `run`; an epoch is 4 steps."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 2, 2, 1), np.uint8)
    np.savez("images.npz", train_images=pixels, test_images=pixels)
    (tmp_path / "config.py").write_text(CONFIG)
    return lambda run, *words: main(
        ["train", "config.py", "--run-dir", run, "--data", "npz:images.npz", *words]
    )


def weights(run):
    found, step = checkpoint.restore(
        f"{run}/checkpoints", {"params": {"w": np.zeros(4, np.float32)}}, part=True
    )
    return step, found["params"]["w"].tolist()


def test_with_a_schedule_that_knows_no_length_it_is_the_longer_run_bit_for_bit(train, capsys):
    assert train("whole", "--epochs", "2") == 0
    assert train("run", "--epochs", "1") == 0
    assert weights("run")[0] == 4
    capsys.readouterr()
    assert train("run", "--epochs", "2") == 0
    assert "ended with step 4 and goes on to 2, step 8" in capsys.readouterr().out
    assert weights("run") == weights("whole")
    assert [r["step"] for r in read_metrics("run")] == list(range(1, 9))
    assert json.loads(Path("run/knobs.json").read_text())["epochs"] == 2
    (entry,) = json.loads(Path("run/run.json").read_text())["longer"]
    assert (entry["epochs"], entry["from_step"]) == ([1, 2], 4)
    assert train("run", "--epochs", "2") == 0  # as any finished run
    assert len(json.loads(Path("run/run.json").read_text())["longer"]) == 1


def test_a_cosine_goes_on_as_that_of_the_longer_run_which_is_said(train, capsys):
    assert train("run", "--cosine") == 0
    capsys.readouterr()
    assert train("run", "--cosine", "--epochs", "2") == 0
    # 0.1 (1 + cos(pi step / steps)) / 2 at step 3 of 4, and at step 4 of 8
    said = capsys.readouterr().out
    assert "the learning rate was 0.0146 in its last step, and is 0.05 in the next" in said
    rates = {r["step"]: r["learning_rate"] for r in read_metrics("run")}
    np.testing.assert_allclose([rates[4], rates[5]], [0.1 * (1 + np.cos(np.pi * 3 / 4)) / 2, 0.05], rtol=1e-6)


def test_one_that_ended_before_its_first_checkpoint_since_is_made_longer_again(train):
    assert train("run", "--epochs", "1") == 0
    shutil.copytree("run/checkpoints", "kept")
    assert train("run", "--epochs", "2") == 0
    shutil.rmtree("run/checkpoints")
    shutil.move("kept", "run/checkpoints")
    assert train("run", "--epochs", "2") == 0
    assert weights("run")[0] == 8
    assert len(json.loads(Path("run/run.json").read_text())["longer"]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "0.5"], "A run can be made longer, not shorter"),
        (["--epochs", "2", "--seed", "1"], "--seed: the run has 0, you ask for 1"),
        (["--epochs", "2", "--cosine"], "--init run starts from this one's encoder"),
    ],
)
def test_nothing_else_may_differ(train, capsys, words, message):
    assert train("run", "--epochs", "1") == 0
    before = json.loads(Path("run/knobs.json").read_text())
    assert train("run", *words) == 1
    assert message in capsys.readouterr().err
    assert json.loads(Path("run/knobs.json").read_text()) == before


def test_only_a_finished_run_is_made_longer(train, capsys):
    assert train("run", "--epochs", "1", "--save-every", "2") == 0
    shutil.rmtree("run/checkpoints/4")
    assert train("run", "--epochs", "2", "--save-every", "2") == 1
    assert "is at step 2 of 4. Only a finished run can be made longer" in capsys.readouterr().err
