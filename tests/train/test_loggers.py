"""Metrics reach Weights & Biases, MLflow and one's own logger; a run that goes on is one run there; none ends a run.

The packages are played by modules that note what they are told; that the real ones take it so is tested where they are
installed, without a network.
"""

import io
import json
import sys
import types

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from jaxcl import augment, train
from jaxcl.cli import main
from jaxcl.config import CommonKnobs, Recipe, changed_knobs, knobs_from_json, knobs_to_json
from jaxcl.train import loggers
from jaxcl.train.log import Log, read_metrics
from jaxcl.typing import Images, Method


def quiet():
    return Console(file=io.StringIO(), width=300)


class Own:
    def __init__(self):
        self.written, self.closed = [], 0

    def write(self, step, metrics):
        self.written.append((step, dict(metrics)))

    def close(self):
        self.closed += 1


class Broken(Own):
    def write(self, step, metrics):
        super().write(step, metrics)
        raise ConnectionError("the network is down")

    def close(self):
        raise AssertionError("a logger that failed is left alone")


@pytest.fixture
def fake_wandb(monkeypatch):
    """wandb as a module that notes its calls."""
    told = []

    class Run:
        def __init__(self, name):
            self.id = name

        def define_metric(self, *args, **kwargs):
            told.append(("define", args, kwargs))

        def log(self, metrics):
            told.append(("log", self.id, metrics))

        def finish(self):
            told.append(("finish", self.id))

    def init(**kwargs):
        told.append(("init", kwargs))
        return Run(kwargs["id"] or f"made{len(told)}")

    module = types.ModuleType("wandb")
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("WANDB_PROJECT", "WANDB_NAME", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return told


def write(run_dir, steps, given, *, start_step=0, console=None):
    with Log(run_dir, start_step=start_step, steps=100, loggers=given, console=console or quiet()) as log:
        for step in steps:
            log.write(step, {"loss": step / 10, "bad": float("nan"), "histogram": np.arange(3)})


def test_one_s_own_logger_gets_each_finite_number_and_is_closed_once(tmp_path):
    own = Own()
    write(tmp_path, [1, 2], [own])
    assert own.written == [(1, {"loss": 0.1}), (2, {"loss": 0.2})]
    assert own.closed == 1
    assert not list(tmp_path.glob("events.*"))  # as TensorBoard was not asked for


def test_one_that_fails_is_told_of_once_and_left_out(tmp_path):
    broken, own, console = Broken(), Own(), quiet()
    write(tmp_path, [1, 2, 3], ["tensorboard", broken, own], console=console)
    assert len(broken.written) == 1
    assert [step for step, _ in own.written] == [1, 2, 3]
    assert console.file.getvalue().count("(Broken) failed at step 1") == 1
    assert "ConnectionError: the network is down" in console.file.getvalue()
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3]
    assert list(tmp_path.glob("events.*"))


def test_weights_and_biases_is_told_the_knobs_once_and_goes_on_with_the_same_run(tmp_path, fake_wandb):
    (tmp_path / "knobs.json").write_text('{"temperature": 0.5}')
    write(tmp_path, [10, 20], ["wandb"])
    (first,) = [told[1] for told in fake_wandb if told[0] == "init"]
    assert (first["project"], first["name"], first["id"]) == ("jaxcl", tmp_path.name, None)
    assert first["config"] == {"temperature": 0.5}
    assert ("log", "made1", {"loss": 1.0, "step": 10}) in fake_wandb
    assert fake_wandb[-1] == ("finish", "made1")
    write(tmp_path, [30], ["wandb"], start_step=20)
    again = [told[1] for told in fake_wandb if told[0] == "init"][-1]
    assert (again["id"], again["resume"]) == ("made1", "allow")
    write(tmp_path, [10], ["wandb"])  # which begins anew, and is another run
    assert [told[1] for told in fake_wandb if told[0] == "init"][-1]["id"] is None


def test_one_that_cannot_be_opened_does_not_end_the_run(tmp_path, fake_wandb, monkeypatch):
    def down(**kwargs):
        raise RuntimeError("no API key")

    monkeypatch.setattr(sys.modules["wandb"], "init", down)
    console = quiet()
    write(tmp_path, [1, 2], ["wandb"], console=console)
    assert (
        console.file.getvalue().count("Without wandb, which failed at the start (RuntimeError: no API key)")
        == 1
    )
    assert len(read_metrics(tmp_path)) == 2


def test_what_is_missing_is_said_before_the_run_with_the_command_that_brings_it(monkeypatch):
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=rf"--logger {name} needs .* pip install 'jaxcl\[{name}\]'"):
            loggers.check_loggers(["tensorboard", name])
    with pytest.raises(ValueError, match="got 'comet'"):
        loggers.check_loggers(["comet"])


CONFIG = """
from dataclasses import dataclass
import optax
from jaxcl import CommonKnobs, Recipe, augment, losses, methods, nets

@dataclass(frozen=True)
class Knobs(CommonKnobs):
    data: str = "npz:images.npz"
    batch_size: int = 16
    log_every: int = 1

def recipe(knobs, about):
    views = augment.two_views(augment.compose(augment.flip(), augment.clip()))
    method = methods.simclr(
        views=views,
        encoder=nets.conv_n(features=(2,), dense=4, norm=nets.no_norm()),
        head=nets.mlp_head(norm=nets.no_norm(), hidden=(), out=4),
        loss=losses.keyless(losses.nt_xent, temperature=0.5),
    )
    return Recipe(method, optax.sgd(0.1), optax.constant_schedule(0.1), views, round(knobs.epochs), 16)
"""


def test_the_command_line_has_it_and_a_run_goes_on_with_others(tmp_path, monkeypatch, capsys, fake_wandb):
    monkeypatch.chdir(tmp_path)
    np.savez("images.npz", images=np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), np.uint8))
    (tmp_path / "config.py").write_text(CONFIG)
    command = ["train", "config.py", "--run-dir", "run", "--epochs"]
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert main([*command, "1", "--logger", "mlflow"]) == 1
    assert "pip install 'jaxcl[mlflow]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*command, "1", "--logger", "tensorboard", "wandb"]) == 0
    assert list((tmp_path / "run").glob("events.*"))
    (first,) = [told[1] for told in fake_wandb if told[0] == "init"]
    assert first["config"]["logger"] == ["tensorboard", "wandb"]
    logged = [told for told in fake_wandb if told[0] == "log"]
    assert [told[2]["step"] for told in logged] == [1]
    assert "loss" in logged[0][2]
    # A longer run goes on as the same one; that it tells others is no other run.
    assert main([*command, "2", "--logger", "wandb"]) == 0
    assert [told[1]["id"] for told in fake_wandb if told[0] == "init"] == [None, logged[0][1]]
    assert [told[2]["step"] for told in fake_wandb if told[0] == "log"] == [1, 2]


def test_who_is_told_may_change_and_is_read_back():
    knobs = CommonKnobs(logger=("wandb", "mlflow"))
    module = types.SimpleNamespace(Knobs=CommonKnobs)
    assert knobs_from_json(module, knobs_to_json(knobs)) == knobs
    assert changed_knobs(json.loads(knobs_to_json(CommonKnobs())), knobs) == []


def test_members_of_a_population_are_runs_of_their_own(tmp_path, fake_wandb):
    views = augment.two_views(augment.compose(augment.flip(), augment.clip()))

    def loss(params, state, key, batch):
        return jnp.mean(params["w"] ** 2), (state, {})

    method = Method(lambda key, batch: ({"w": jnp.ones(3)}, {}), loss, None)

    def recipe_of(numbers):
        tx = optax.inject_hyperparams(optax.sgd)(numbers["rate"])
        return Recipe(method, tx, optax.constant_schedule(0.1), views, steps=1, batch_size=8)

    images = Images("noise", np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), np.uint8))
    folders = [tmp_path / name for name in "ab"]
    numbers = [{"rate": 0.1}, {"rate": 0.2}]
    train.train_together(
        recipe_of, numbers, images, seeds=[0, 0], run_dirs=folders, loggers=["wandb"], quiet=True
    )
    assert [told[1]["name"] for told in fake_wandb if told[0] == "init"] == ["a", "b"]
    assert len({told[1] for told in fake_wandb if told[0] == "log"}) == 2


# --- the real ones -----------------------------------------------------------------------------------------------


def test_mlflow_keeps_one_run_with_its_parameters_and_every_step(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    run_dir, console = tmp_path / "run", quiet()
    run_dir.mkdir()
    (run_dir / "knobs.json").write_text('{"temperature": 0.5}')
    write(run_dir, [10, 20], ["mlflow"], console=console)
    write(run_dir, [30], ["mlflow"], start_step=20, console=console)
    assert "mlflow" not in console.file.getvalue()
    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("jaxcl").experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params == {"temperature": "0.5"}
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(one.step, one.value) for one in history] == [(10, 1.0), (20, 2.0), (30, 3.0)]


@pytest.mark.slow
def test_weights_and_biases_keeps_one_run_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run_dir, console = tmp_path / "run", quiet()
    run_dir.mkdir()
    (run_dir / "knobs.json").write_text('{"temperature": 0.5}')
    write(run_dir, [10, 20], ["wandb"], console=console)
    name = loggers.ids(run_dir)["wandb"]
    write(run_dir, [30], ["wandb"], start_step=20, console=console)
    assert "wandb" not in console.file.getvalue()
    assert loggers.ids(run_dir)["wandb"] == name
    kept = list((run_dir / "wandb").glob(f"offline-run-*/run-{name}.wandb"))
    assert kept
    assert any(b"loss" in file.read_bytes() for file in kept)
