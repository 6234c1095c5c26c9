"""A sweep finds what can be trained together, and each run is the one that it would be alone."""

import json
import textwrap

import pytest

from jaxcl.cli import main, values_of
from jaxcl.config import load_config
from jaxcl.evaluate import features
from jaxcl.reads import knobs_read_by
from jaxcl.runs import evaluation, evaluations
from jaxcl.sweep import _write, combinations, groups, name_of
from jaxcl.tables import differences_table, fewest_seeds, sweep_table
from jaxcl.train.log import read_metrics

CONFIG = """
from dataclasses import dataclass
from typing import Literal

import numpy as np
import optax

from jaxcl import About, CommonKnobs, Recipe, augment, basics, losses, methods, nets
from jaxcl.data import Data
from jaxcl.typing import Images


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    batch_size: int = 8
    epochs: float = 2
    log_every: int = 2
    temperature: float = 0.2
    brightness: float = 1.0
    width: int = 4


def data(knobs):
    def split(n, salt):
        pixels = np.random.default_rng(salt).integers(0, 200, (n, 8, 8, 3))
        labels = np.arange(n) % 2
        pixels = knobs.brightness * pixels + 30 * labels[:, None, None, None]
        return Images("noise", pixels.astype(np.uint8), labels, ("a", "b"))

    about = About(16, (8, 8, 3), ("a", "b"))
    return Data("noise", train=lambda: split(16, 0), test=lambda: split(12, 1), about=lambda: about)


def recipe(knobs, about):
    size, steps, axis, dtype, lean = basics(knobs, about)
    norm = nets.batch_norm(axis_name=axis)
    views = augment.two_views(augment.flip())
    loss = losses.keyless(losses.nt_xent, temperature=knobs.temperature)
    encoder = nets.conv_n(features=(4,), dense=knobs.width, norm=norm)
    head = nets.mlp_head(norm=norm, hidden=(), out=8)
    method = methods.simclr(views=views, encoder=encoder, head=head, loss=loss, axis_name=axis)
    rate = optax.constant_schedule(knobs.learning_rate)
    return Recipe(method, optax.sgd(knobs.learning_rate), rate, views, steps, knobs.batch_size)
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "noise.py"
    path.write_text(textwrap.dedent(CONFIG))
    return path


def test_runs_that_differ_in_numbers_and_seeds_are_one_group(config):
    module = load_config(config)
    runs = [
        module.Knobs(temperature=t, seed=s, learning_rate=r) for t, s, r in [(0.1, 0, 0.1), (0.5, 1, 0.2)]
    ]
    found = groups(module, runs)
    assert [group.members for group in found] == [(0, 1)]
    assert set(found[0].numbers) == {"temperature", "learning_rate"}


def test_what_shapes_the_program_or_the_images_stands_apart(config):
    module = load_config(config)
    assert knobs_read_by(module.data, {"brightness", "seed"}) == {"brightness"}
    runs = [
        module.Knobs(),
        module.Knobs(seed=1),
        module.Knobs(width=8),
        module.Knobs(epochs=3.0),
        module.Knobs(brightness=0.5),
        module.Knobs(weight_decay=0.0),  # off, which is another program
        module.Knobs(input="host"),
        module.Knobs(knn_every=1.0),  # another cadence
        module.Knobs(temperature=0.9),
    ]
    assert [group.members for group in groups(module, runs)] == [
        (0, 1, 8),
        (2,),
        (3,),
        (4,),
        (5,),
        (6,),
        (7,),
    ]


def test_a_sweep_together_is_the_sweep_one_by_one(config, tmp_path, capsys, monkeypatch):
    opened = []
    looked = evaluation.images_to_evaluate
    monkeypatch.setattr(
        evaluation, "images_to_evaluate", lambda run, *rest: opened.append(run.dir) or looked(run, *rest)
    )
    command = ["sweep", str(config), "--protocol", "knn", "--temperature", "0.5", "--seed", "0..1"]
    assert main([*command, "--run-dir", str(tmp_path / "all"), "--together", "4"]) == 0
    out = capsys.readouterr().out
    assert "2 runs together" in out
    assert "2 encoders are evaluated at once" in out
    assert len(opened) == 1
    compiled = features._forward._cache_size()
    assert "Fewer than three seeds" in out
    assert main([*command, "--run-dir", str(tmp_path / "each")]) == 0  # on a CPU one after the other
    assert "runs together" not in capsys.readouterr().out
    # Their images are read once, and one program embeds them for both.
    assert len(opened) == 2
    assert features._forward._cache_size() == compiled + 1
    for folder in sorted((tmp_path / "all").glob("temperature*")):
        one, other = (read_metrics(path) for path in (folder, tmp_path / "each" / folder.name))
        assert [record["step"] for record in one] == [record["step"] for record in other] == [2, 4]
        for mine, theirs in zip(one, other, strict=True):
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        (found,), (alone,) = (evaluations(path) for path in (folder, tmp_path / "each" / folder.name))
        assert found.keys() == alone.keys()
        assert abs(found["accuracy"] - alone["accuracy"]) < 100 / 12 + 1e-6
    assert main([*command, "--run-dir", str(tmp_path / "all")]) == 0
    assert "==" not in capsys.readouterr().out  # nothing is done twice


def results(accuracies):
    return [
        {
            "protocol": "knn",
            "encoder": "trained",
            "accuracy": value,
            "knobs": {"t": t, "bits": "5", "seed": str(seed)},
        }
        for t, values in accuracies.items()
        for seed, value in enumerate(values)
    ]


def test_tables_show_intervals_and_differences_by_seed():
    found = results({"0.1": [50.0, 60.0, 70.0], "0.5": [51.0, 61.5, 70.5]})
    header, rows = sweep_table(found)
    assert header == ("t", "encoder", "knn")
    assert rows[0] == ("0.1", "trained", "60.0 ± 24.8 (n=3)")
    header, rows = differences_table(found)
    assert header == ("t", "minus", "knn")
    assert rows == [("0.5", "0.1", "+1.0 ± 1.2, p 0.074 (n=3)")]
    assert fewest_seeds(found) == 3
    assert differences_table(results({"0.1": [1.0, 2.0]}))[1] == []
    # What was the same in all runs, though it was given, is no column.
    assert sweep_table(results({"0.1": [1.0, 3.0]}))[0] == ("encoder", "knn")


def test_of_many_settings_each_stands_against_the_first():
    found = results({str(t): [50.0 + t, 60.0 + 2 * t] for t in range(6)})
    rows = differences_table(found)[1]
    assert [row[:2] for row in rows] == [(str(t), "0") for t in range(1, 6)]


def test_a_range_of_whole_numbers_is_one_word():
    assert values_of("0..4") == ["0", "1", "2", "3", "4"]
    assert values_of("../runs/a") == ["../runs/a"]


def test_of_several_grids_a_result_has_nothing_for_a_knob_that_only_others_name(tmp_path):
    grid = [{"loss": ["a"], "temperature": ["0.1", "0.2"]}, {"loss": ["b"]}, {"loss": ["b"]}]
    runs = combinations(grid)
    assert len(runs) == 3  # none is done twice
    folders = [tmp_path / name_of(run) for run in runs]
    for folder in folders:
        (folder / "evaluations").mkdir(parents=True)
        row = {"protocol": "knn", "encoder": folder.name, "accuracy": 50.0}
        (folder / "evaluations" / "knn.json").write_text(json.dumps([row]))
    found = _write(tmp_path, runs, folders)
    assert [row["knobs"] for row in found] == [
        {"loss": "a", "temperature": "0.1"},
        {"loss": "a", "temperature": "0.2"},
        {"loss": "b", "temperature": ""},
    ]
