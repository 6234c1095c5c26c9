"""A step that was not finite is made again from what a run keeps, and the operation is named."""

from pathlib import Path

import chex
import numpy as np
import pytest

from jaxcl.cli import main
from jaxcl.config import load_config, open_data
from jaxcl.data.batches import indices
from jaxcl.keys import init_key
from jaxcl.replay import lines, replay, state_before
from jaxcl.runs import create_or_resume, open_run
from jaxcl.train import checkpoint, finite, init_state
from jaxcl.train.state import blank_batch

CONFIGS = Path(__file__).parents[1] / "configs"

CONFIG = """
from dataclasses import dataclass
import jax
import jax.numpy as jnp
import optax
from jaxcl import About, CommonKnobs, Method, Recipe


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    batch_size: int = 8
    epochs: float = 3
    log_every: int = 5
    save_every: int = 4


def scores(z):
    return jnp.log(jnp.max(z))


def recipe(knobs: Knobs, about: About) -> Recipe:
    def init(key, batch):
        return {"w": 1 + jax.random.uniform(key, (4,))}, {}

    def loss(params, state, key, batch):
        z = batch["image"].reshape(8, -1) / 255 @ params["w"]
        return scores(z) + jnp.sum(params["w"]) + jax.random.uniform(key), (state, {})

    method = Method(init, loss, lambda params, state, images: images.reshape(len(images), -1))
    return Recipe(method, optax.adam(1e-3), lambda step: 1e-3, None, 15, knobs.batch_size)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Forty images, those of one batch of the second epoch all black; and a config whose loss is infinite there."""
    folder = tmp_path_factory.mktemp("world")
    images = np.full((40, 2, 2, 1), 200, np.uint8)
    # The seventh batch; in other epochs these images are dealt out among others.
    images[indices(0, 6, 8, 40)] = 0
    np.savez(folder / "images.npz", train_images=images, test_images=images)
    (folder / "config.py").write_text(CONFIG)
    return folder


def train(world, run, *more):
    data = ["--data", f"npz:{world / 'images.npz'}"]
    return main(["train", str(world / "config.py"), "--run-dir", str(run), *data, *more])


def test_a_run_stops_and_replay_names_the_line_of_its_config(world, tmp_path, capfd):
    run = tmp_path / "run"
    assert train(world, run) == 1
    said = capfd.readouterr().err
    assert "Training step 7 was not taken: its loss was -inf" in said
    assert f"jaxcl replay {run}" in said
    assert main(["replay", str(run)]) == 0
    said = capfd.readouterr().out
    assert "Training step 7: loss -inf" in said
    assert "first made by log" in said
    assert "config.py:18 in scores" in said


def test_a_step_that_was_left_out_is_made_again_from_the_checkpoint_before_it(world, tmp_path):
    run = tmp_path / "run"
    assert train(world, run, "--nonfinite", "skip") == 0
    assert [entry["step"] for entry in finite.read(run)] == [7]
    assert sorted(int(path.name) for path in (run / "checkpoints").iterdir()) == [8, 12, 15]
    found = replay(run)  # from the beginning, as the checkpoint of step 4 is gone
    assert (found.step, found.taken, len(found.images)) == (7, False, 8)
    assert found.origin.operation == "log"
    other = replay(run, step=10)
    assert other.taken
    assert other.origin is None
    assert "All of it is finite now" in lines(other)[-1]
    assert np.isfinite(other.loss)


def test_there_is_nothing_to_make_again_where_all_steps_were_taken(world, tmp_path, capfd):
    run = tmp_path / "run"
    assert train(world, run, "--seed", "1") == 0  # no batch is all black
    assert main(["replay", str(run)]) == 1
    assert "there is none to repeat" in capfd.readouterr().err


def test_the_first_step_of_a_run_is_made_from_what_it_started_from(small_knobs, tmp_path):
    """Encoder and the kept layer of the head of --init, and the teacher: as the training loop fills them in."""
    config = load_config(CONFIGS / "supervised.py")
    small = small_knobs(config.Knobs) | {"features": (4, 4), "head_width": 8}
    run = pretrained(tmp_path / "pretrained", config, {**small, "from_layer": 1})
    knobs = config.Knobs(**{**small, "from_layer": 1, "init": str(run.dir)})
    create_or_resume(tmp_path / "tuned", CONFIGS / "supervised.py", knobs, run.about)
    batch = blank_batch(run.about, 16)
    state, behind = state_before(open_run(tmp_path / "tuned"), 1, batch)
    theirs = checkpoint.restore(run.dir / "checkpoints", state)[0]
    assert behind == 0
    for part in ("encoder", "head"):
        chex.assert_trees_all_equal(state.params[part], theirs.params[part])

    config = load_config(CONFIGS / "distill.py")
    knobs = config.Knobs(**{**small_knobs(config.Knobs), "features": (4, 4), "teacher": str(run.dir)})
    create_or_resume(tmp_path / "student", CONFIGS / "distill.py", knobs, run.about)
    state, _ = state_before(open_run(tmp_path / "student"), 1, batch)
    chex.assert_trees_all_equal(state.state["teacher"]["params"], theirs.params)


def pretrained(folder, config, knobs):
    """A run directory of the config of supervised learning, saved before its first step."""
    about = open_data(config, config.Knobs(**knobs)).about
    create_or_resume(folder, CONFIGS / "supervised.py", config.Knobs(**knobs), about)
    run = open_run(folder)
    state = init_state(init_key(7), run.recipe.method, run.recipe.optimizer, blank_batch(about, 16))
    checkpoint.save(folder / "checkpoints", 1, state)
    return run
