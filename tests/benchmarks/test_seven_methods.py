"""The comparison of seven methods: what it does where a run fails, and that it says what it changed."""

import json
import subprocess
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def seven(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import seven_methods

    monkeypatch.setattr(seven_methods, "KEPT", tmp_path)
    monkeypatch.setattr(seven_methods, "held_out", lambda own: "held_out")
    step = {"flops": 1e9, "seconds": 1.0, "batch_size": 256, "parameters": 10}
    monkeypatch.setattr(seven_methods, "measured_step", lambda config, knobs, own: step)
    return seven_methods


def started(seven, ends):
    """A stand-in for what starts processes: a run reaches its rate, in percent, or ends as `ends(name)` says."""
    begun = []

    def start_logged(command, core, log):
        folder = Path(command[command.index("--run-dir" if "--run-dir" in command else "--score") + 1])
        begun.append((folder.name, "--score" in command))
        if folder.name == "pixels":
            return
        folder.mkdir(exist_ok=True, parents=True)
        words = dict(zip(command, command[1:], strict=False))
        if "--score" not in command:
            knobs = {
                name: float(words[f"--{name.replace('_', '-')}"]) for name in ("epochs", "learning_rate")
            }
            (folder / "knobs.json").write_text(json.dumps(knobs | {"batch_size": 256}))
            if ends(folder.name):
                if ends(folder.name) == "diverges":
                    (folder / "nonfinite").mkdir()
                raise subprocess.CalledProcessError(1, command)
            return
        times = float(folder.name.split("times=")[1].split(",")[0])
        figures = {"width": 4, "knn": times, "linear": times}
        found = {kind: figures for kind in ("own", "projected")} | {
            "untrained": dict(figures, knn=0.25, linear=0.25)
        }
        seven.keep(folder, found)

    return start_logged, begun


def asked(tmp_path, **more):
    return Namespace(data_dir=None, core=[0], work=tmp_path / "work", method=["SimCLR"], steps=None, **more)


def test_a_rate_that_diverges_loses_and_the_rest_goes_on(seven, tmp_path, monkeypatch):
    own = asked(tmp_path)
    own.work.mkdir()
    start_logged, begun = started(
        seven, lambda name: "diverges" if name.split(",")[1] in ("times=3.00", "times=9.00") else None
    )
    monkeypatch.setattr(seven, "start_logged", start_logged)
    seven.measure(own)
    assert seven.best("SimCLR") == 1.0
    table = (own.work / "seven_methods.md").read_text()
    assert "| SimCLR | 0.3 | 1.0 | diverged | diverged |" in table
    assert "Missing" not in table
    # Three seeds at the rate that was best; gains are over the encoder as it began.
    assert [name for name, scored in begun if not scored][4:] == [
        f"simclr,times=1.00,seed={k}" for k in (0, 1, 2)
    ]
    assert "| SimCLR | 1.0 ± 0.0 (n=3) | 0.2 ± 0.0 (n=3) | 0.8 ± 0.0 (n=3) |" in table
    count = len(begun)
    seven.measure(own)  # nothing is done twice
    assert [name for name, _ in begun[count:]] == ["pixels"]


def test_what_a_method_reaches_more_than_simclr_is_by_seed_and_corrected(seven):
    """With seeds 0, 1, 2 CMC has 1, 2, 3 points more: 2 +- 2.48, t = 2 sqrt 3 with two degrees of freedom, p 0.0742,
    twice for the two protocols. MoCo's one seed tells nothing."""

    def reached(*values):
        return {seed: {"projected": {"knn": x, "linear": x}} for seed, x in enumerate(values)}

    told = seven.less_the_first({"SimCLR": reached(50.0, 51.0, 52.0), "CMC": reached(51.0, 53.0, 55.0)})
    assert told == [["CMC", *["+2.0 ± 2.5, p 0.15 (n=3)"] * 2]]
    told = seven.less_the_first({"SimCLR": reached(50.0, 51.0), "MoCo": reached(51.0), "CMC": reached()})
    assert told == [["MoCo", *["+1.0 (n=1)"] * 2], ["CMC", "", ""]]


def test_another_error_ends_it(seven, tmp_path, monkeypatch):
    own = asked(tmp_path)
    own.work.mkdir()
    monkeypatch.setattr(seven, "start_logged", started(seven, lambda name: "fails")[0])
    with pytest.raises(subprocess.CalledProcessError):
        seven.measure(own)


def test_a_result_of_other_settings_is_not_taken(seven, tmp_path, monkeypatch):
    own = asked(tmp_path)
    own.work.mkdir()
    monkeypatch.setattr(seven, "start_logged", started(seven, lambda name: None)[0])
    seven.measure(own)
    monkeypatch.setattr(seven, "SIMCLR_EPOCHS", 7)
    with pytest.raises(SystemExit, match=r"is of epochs 6\.0, and this run has 7\.000\. Delete it"):
        seven.measure(own)


def test_every_method_says_what_it_changed(seven):
    assert list(seven.CHANGED) == list(seven.METHODS)


def test_principal_components_are_of_the_bank_and_by_their_variance(seven):
    """Of three directions with variances 9, 4 and 1 the first is that of 9."""
    bank = np.random.default_rng(0).normal(size=(2000, 3)).astype(np.float32) * (1, 3, 2) + 5
    rows, queries = seven.projected(bank.astype(np.float32), np.float32([[5, 8, 5]]))
    np.testing.assert_allclose(rows.std(0), [3, 2, 1], rtol=0.05)
    np.testing.assert_allclose(np.abs(queries[0]), [3, 0, 0], atol=0.3)
