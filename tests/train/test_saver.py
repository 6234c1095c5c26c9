"""A state that is written beside the training is the one that was given, or an error says that it is not."""

import dataclasses
import errno
import os
import threading
import time
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcl import devices
from jaxcl.config import load_config
from jaxcl.runs import train_run
from jaxcl.runs.training import train_runs
from jaxcl.shipped import named
from jaxcl.train import checkpoint, loop, population
from jaxcl.train.saver import Saver, check_renames


def a_state(step):
    return {
        "w": jnp.full((300, 1000), step, jnp.float32),
        "half": jnp.full(5, step, jnp.bfloat16),
        "n": jnp.int32(step),
        "key": jax.random.key(step),
        "none": jnp.zeros((0, 3)),
        "seen": jnp.array([True, False]),
    }


def plain(state):
    return {**state, "key": jax.random.key_data(state["key"])}


def test_each_save_is_that_of_its_own_step_and_reads_as_one_that_was_waited_for(tmp_path):
    with Saver() as saver:
        for step in (1, 2, 3):
            saver.save(tmp_path / "beside", step, a_state(step), keep=2, beside={"step": step})
    checkpoint.save(tmp_path / "before", 3, a_state(3))
    assert checkpoint.steps(tmp_path / "beside") == [2, 3]
    for step in (2, 3):
        found, _ = checkpoint.restore(tmp_path / "beside", a_state(0), step=step)
        chex.assert_trees_all_equal(plain(found), plain(a_state(step)))
        assert {name: x.dtype for name, x in found.items()} == {
            name: x.dtype for name, x in a_state(0).items()
        }
        assert checkpoint.beside(tmp_path / "beside", step) == {"step": step}
    names = [checkpoint.names(tmp_path / folder, 3) for folder in ("beside", "before")]
    assert names[0] == names[1]


@pytest.mark.parametrize("count", [1, 8])
def test_what_is_written_is_the_state_before_the_next_step_took_its_memory(tmp_path, monkeypatch, count):
    mesh = devices.make_mesh(devices=count)
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    x, go, save = devices.replicate(jnp.zeros((400, 1000)), mesh), threading.Event(), checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *a, **k: go.wait() and save(*a, **k))
    with Saver() as saver:
        for number in (0, 5):  # the second copy is made where the first was
            saver.save(tmp_path, number, {"x": x})
            for _ in range(5):
                x = step(x)
            jax.block_until_ready(x)
            go.set()
            saver.wait()
            go.clear()
        go.set()
    for number in (0, 5):
        found, _ = checkpoint.restore(tmp_path, {"x": np.ones((400, 1000), np.float32)}, step=number)
        np.testing.assert_array_equal(found["x"], number)


def test_the_next_save_and_the_end_wait_for_the_one_before_and_training_does_not():
    done, may_end = [], {1: threading.Event(), 2: threading.Event()}

    def slowly(state):
        assert may_end[int(state["n"])].wait(60)
        done.append(int(state["n"]))

    with Saver() as saver:
        saver.run(slowly, {"n": jnp.int32(1)})
        saver.look()
        assert done == []  # and we are here
        threading.Timer(0.05, may_end[1].set).start()
        saver.run(slowly, {"n": jnp.int32(2)})
        assert done == [1]
        threading.Timer(0.05, may_end[2].set).start()
    assert done == [1, 2]


def test_a_save_that_fails_is_an_error_of_whatever_comes_next(tmp_path):
    (tmp_path / "file").write_text("")

    def look(saver):
        while True:
            saver.look()
            time.sleep(0.01)

    def save(saver):
        saver.save(tmp_path / "elsewhere", 2, a_state(2))

    for follows in (save, Saver.wait, look, lambda saver: None):

        def run(follows=follows):
            with Saver() as saver:
                saver.save(tmp_path / "file", 1, a_state(1))
                follows(saver)

        with pytest.raises(OSError, match="file"):
            run()
    assert not (tmp_path / "elsewhere").exists()


def test_an_error_of_the_run_is_not_hidden_by_one_of_its_save(tmp_path):
    (tmp_path / "file").write_text("")

    def run():
        with Saver() as saver:
            saver.save(tmp_path / "file", 1, a_state(1))
            raise FloatingPointError("the loss")

    lost = pytest.warns(UserWarning, match="when the run ended is lost: .*file")
    with lost, pytest.raises(FloatingPointError, match="loss"):
        run()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_whatever_ends_the_run_waits_for_the_save(error):
    done = []

    def slowly(state):
        time.sleep(0.1)
        done.append(state)

    def run():
        with Saver() as saver:
            saver.run(slowly, {})
            raise error

    with pytest.raises(error):
        run()
    assert done == [{}]


def flat_bucket(monkeypatch, error=errno.EMFILE):
    """Renaming a directory fails, as in a bucket without folders of its own; files are renamed."""
    real = Path.rename

    def rename(self, target):
        if self.is_dir():
            raise OSError(error, os.strerror(error), str(self))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)


def test_where_directories_are_renamed_the_check_leaves_nothing(tmp_path):
    (tmp_path / "there").mkdir()
    check_renames(tmp_path / "there")
    check_renames(tmp_path / "not there" / "run")
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENOTSUP, errno.ENOSYS])
def test_where_no_directory_can_be_renamed_that_is_said_with_what_to_do(tmp_path, monkeypatch, error):
    flat_bucket(monkeypatch, error)
    with pytest.raises(ValueError, match="NFS, Filestore.* or in a bucket with a hierarchical name") as told:
        check_renames(tmp_path / "run")
    assert f"cannot be renamed in {tmp_path / 'run'} ({os.strerror(error)})" in str(told.value)
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_written_in_is_left_to_whoever_writes(tmp_path):
    (tmp_path / "file").touch()
    check_renames(tmp_path / "file" / "run")


def test_no_run_compiles_anything_where_it_could_not_save(tmp_path, monkeypatch):
    flat_bucket(monkeypatch)
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "images.npz", train_images=images, test_images=images)
    config = named("quickstart")
    knobs = load_config(config).Knobs(
        data=f"npz:{tmp_path / 'images.npz'}", epochs=1, batch_size=8, knn_every=0
    )

    def too_late(*_):
        raise AssertionError("it is compiled before it is refused")

    monkeypatch.setattr(loop, "init_state", too_late)
    monkeypatch.setattr(population, "init_state", too_late)
    members = [dataclasses.replace(knobs, seed=seed) for seed in (0, 1)]
    folders = [tmp_path / f"seed {seed}" for seed in (0, 1)]
    for start in (
        lambda: train_run(config, knobs, tmp_path / "run"),
        lambda: train_runs(config, members, folders, numbers=[]),
    ):
        with pytest.raises(ValueError, match="A directory cannot be renamed in "):
            start()
        assert [path.name for path in tmp_path.iterdir()] == ["images.npz"]
