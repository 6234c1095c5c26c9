"""The endurance of runs is counted rightly, and a few of its cases pass each time the tests run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "endurance.py"


@pytest.fixture(scope="module", autouse=True)
def beside_the_benchmarks():
    sys.path.insert(0, str(SCRIPT.parent))
    yield
    sys.path.remove(str(SCRIPT.parent))


def endurance(folder, *words):
    """The rows of a call of the script, and what it said."""
    out = folder / "rows.jsonl"
    called = subprocess.run(
        [sys.executable, str(SCRIPT), *words, "--out", str(out), "--work", str(folder / "work")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert called.returncode == 0, called.stdout + called.stderr
    return [json.loads(line) for line in out.read_text().splitlines()], called.stdout


def test_a_few_kills_and_signals_do_no_harm(tmp_path):
    rows, said = endurance(tmp_path, "kills", "signals", "table", "--processes", "1", "--cases", "2")
    assert [row["kind"] for row in rows] == ["kill"] * 2 + ["signal"] * 2
    assert [row["why"] for row in rows] == [""] * 4
    assert all(row["passed"] for row in rows)
    assert {row["aim"] for row in rows[:2]} == {"save", "moment"}
    assert [row["statuses"] for row in rows[2:4]] == [[75], [130]]
    assert "| **together** | 4 | 4 |" in said
    assert (tmp_path / "rows.md").read_text() in said


@pytest.mark.slow
def test_kills_and_signals_of_two_processes_do_no_harm(tmp_path):
    rows, _ = endurance(tmp_path, "kills", "signals", "--processes", "2", "--cases", "3")
    assert [row["why"] for row in rows] == [""] * len(rows)


@pytest.mark.slow
def test_a_file_of_each_kind_is_damaged_without_harm(tmp_path):
    rows, _ = endurance(tmp_path, "damage", "--cases", "10")
    assert len({row["target"] for row in rows}) == 10
    assert [row["why"] for row in rows] == [""] * 10


@pytest.mark.slow
def test_devices_differ_by_no_more_than_rounding(tmp_path):
    rows, _ = endurance(tmp_path, "devices", "--cases", "4")
    assert [row["why"] for row in rows] == [""] * 4
    assert all(row["last_bit"] > 0 for row in rows)


@pytest.mark.slow
def test_a_minute_of_a_soak_is_judged(tmp_path):
    [row], _ = endurance(tmp_path, "soak", "--seconds", "60")
    assert row["steps"] > 0
    assert row["threads"][0] >= 1


# ------------------------------------------------------------------------------------- what counts as passed


def test_ends_that_differ_are_told_apart():
    from endurance_parts.lives import End

    whole = End({"w": "a", "step": "8"}, [{"step": 3, "loss": 1.0}, {"step": 6, "loss": 0.5}], ["config.py"])
    assert whole.differs(whole) == ""
    assert "other arrays" in whole._replace(state={"w": "b", "step": "8"}).differs(whole)
    assert "other arrays" in whole._replace(state={"step": "8"}).differs(whole)
    assert "stands twice" in whole._replace(lines=[*whole.lines, whole.lines[0]]).differs(whole)
    assert "step 6" in whole._replace(lines=[whole.lines[0], {"step": 6, "loss": 0.4}]).differs(whole)
    assert "1 lines in place of 2" in whole._replace(lines=whole.lines[:1]).differs(whole)
    assert ".saving-4" in whole._replace(files=["config.py", "checkpoints/.saving-4"]).differs(whole)


def test_a_soak_that_grows_fails_and_one_that_fluctuates_passes():
    from endurance_parts.soak import Sample, judged

    def samples(growth, threads=lambda i: 9):
        return [Sample(30.0 * i, 300 + growth * i / 20 + i % 3, threads(i), 12, i) for i in range(120)]

    assert judged(samples(0.5))["why"] == ""
    assert "memory grows by 1.5" in judged(samples(1.5))["why"]
    assert judged(samples(0, lambda i: 9 + i % 2))["why"] == ""
    assert "more threads" in judged(samples(0, lambda i: 9 + i // 50))["why"]
    assert "too short" in judged(samples(0)[:21])["why"]
    warming = [x._replace(megabytes=200 + 5 * i) if i < 20 else x for i, x in enumerate(samples(0))]
    assert judged(warming)["why"] == ""


def test_an_exit_without_a_sentence_fails():
    from endurance_parts import kills
    from endurance_parts.lives import Life

    class Said(Life):
        def said(self):
            return self.file.name

    def alone(words, status=1, seconds=5.0):
        return kills.alone(Said(0, Path(words)), status, seconds)

    sentence = "jaxcl: Process 1 of 2 has been silent. Start all processes again: a run goes on."
    assert alone(sentence) == ""
    assert "no sentence" in alone("Traceback")
    assert "had not ended" in alone(sentence, None)
    assert "had not ended" in alone(sentence, 1, 90.0)


def test_largest_differences_are_relative_to_an_array_and_see_what_is_missing():
    import numpy as np
    from endurance_parts.devices import cases, difference, name_of

    one = {"w": np.array([1.0, -10.0]), "step": np.array(3), "none": np.zeros((0, 2))}
    assert difference(one, one) == 0
    assert difference(one | {"w": np.array([1.0, -9.0])}, one) == pytest.approx(0.1)
    assert difference({"w": one["w"]}, one) == float("inf")
    names = [name_of(case) for case in cases()]
    assert len(set(names)) == len(names)


def test_the_table_counts_each_row_once():
    from endurance_parts.table import KINDS, text

    common = {"why": "", "passed": True}
    rows = [
        {"kind": "kill", "processes": p, "aim": aim, **common} for p in (1, 2) for aim in ("save", "moment")
    ]
    rows += [{"kind": "signal", "processes": 1, "signal_sent": "SIGTERM", "seconds": 0.5, **common}]
    rows += [{"kind": "damage", "target": "older", "status": 1, "why": "a traceback", "passed": False}]
    for row in rows:
        assert sum(kind.holds(row) for kind in KINDS) == 1, row
    said = text(rows)
    assert "| **together** | 6 | 5 |" in said
    assert "- kind damage, target older: a traceback" in said


def test_every_case_has_a_row_in_the_table():
    from endurance_parts import damage
    from endurance_parts.devices import cases
    from endurance_parts.table import KINDS

    rows = [{"kind": "devices", **case} for case in cases()]
    rows += [{"kind": "damage", "target": target} for target in damage.TARGETS]
    for row in rows:
        assert sum(kind.holds(row) for kind in KINDS) == 1, row
