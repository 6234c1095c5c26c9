"""A step that was not finite is made again from what a run keeps, and the operation is named."""

import numpy as np
import pytest

from jaxcl.cli import main
from jaxcl.data.batches import indices
from jaxcl.replay import lines, replay
from jaxcl.train import finite

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
