"""A run says how it stands, to whoever looks, while it trains and afterwards."""

import json
import math
import os

import pytest

from jaxcl.cli import main
from jaxcl.owner import owned
from jaxcl.status import runs_in, status
from jaxcl.train.saved import DIVERGED


@pytest.fixture
def run(tmp_path):
    """100 images in batches of 30: three steps an epoch, twelve in all, of which four are made."""
    folder = tmp_path / "run"
    (folder / "checkpoints" / "3").mkdir(parents=True)
    (folder / "knobs.json").write_text(json.dumps({"epochs": 4, "batch_size": 30}))
    records = [
        {"step": 2, "time": 1000.0, "loss": 4.0, "images_per_second": 60.0, "epoch": 0.6, "input_wait": 0.01},
        {"step": 3, "time": 1001.0, "knn_accuracy": 51.5},
        {"step": 4, "time": 1002.0, "loss": 3.5, "images_per_second": 60.0, "epoch": 1.2, "input_wait": 0.02},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_a_run_that_trains_says_where_how_far_and_how_long(run):
    with owned(run):
        found = status(run, now=1012.0)
    assert found.state == "training"
    assert str(os.getpid()) in found.where
    assert (found.step, found.steps, found.saved, found.knn) == (4, 12, 3, 51.5)
    assert found.seconds_left == pytest.approx(8 * 30 / 60)
    assert found.seconds_silent == pytest.approx(10)
    assert found.loss == 3.5


def test_what_a_run_was_warned_of_is_shown(run, capsys):
    (run / "warnings.jsonl").write_text('{"step": 4, "warning": "the loss has been 0"}\n')
    assert main(["status", str(run)]) == 0
    assert "  Warning, at step 4: the loss has been 0\n" in capsys.readouterr().out


def test_a_run_that_nobody_trains_is_stopped_done_diverged_or_not_begun(run):
    assert status(run).state == "stopped"
    (run / "checkpoints" / "12").mkdir()
    assert status(run).state == "done"
    (run / DIVERGED).write_text('{"step": 5}')
    assert status(run).state == "diverged"
    fresh = run.parent / "fresh"
    fresh.mkdir()
    (fresh / "knobs.json").write_text("{}")
    assert status(fresh).state == "not begun"
    assert [path.name for path in runs_in(run.parent)] == ["fresh", "run"]


def test_the_command_line_shows_runs_and_sweeps_and_names_what_is_no_run(run, capsys):
    assert main(["status", str(run)]) == 0
    said = capsys.readouterr().out
    assert "run: stopped, step 4 of 12" in said
    assert "loss 3.5000, online kNN 51.5 %, 60 images/s, 2.0% waiting for input, 4 s left" in said
    assert "saved at step 3" in said
    assert main(["status", str(run.parent)]) == 0
    assert main(["status", str(run / "checkpoints")]) == 1
    assert "neither a run directory nor that of a sweep" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_and_a_long_silence_are_warnings(run, capsys):
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 5, "time": 1003.0, "loss": None, "epoch": 1.5}) + "\n")
    assert math.isnan(status(run).loss)
    with owned(run):
        assert main(["status", str(run)]) == 0
    said = capsys.readouterr().out
    assert "the loss is not finite" in said
    assert "written nothing for long" in said
