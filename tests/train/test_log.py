"""The log of a run that was stopped and went on is that of a run that was not."""

import errno
import io
import json
import math
import os
import re
import struct
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from jaxcl.train import log as log_module
from jaxcl.train.log import Log, read_metrics, read_warnings


def quiet():
    return Console(file=io.StringIO(), width=100)


def terminal():
    return Console(file=io.StringIO(), force_terminal=True, force_interactive=True, width=100)


def write(run_dir, steps, *, start_step=0, value=float, **kwargs):
    with Log(run_dir, start_step=start_step, steps=100, console=quiet(), **kwargs) as log:
        for step in steps:
            log.write(step, {"loss": value(step)})


def losses(run_dir):
    return {record["step"]: record["loss"] for record in read_metrics(run_dir)}


def lines(run_dir):
    return (run_dir / "metrics.jsonl").read_text().splitlines()


def test_what_is_written_is_read(tmp_path):
    with Log(tmp_path / "new" / "run", console=quiet()) as log:
        log.write(
            10,
            {
                "loss": jnp.float32(0.5),
                "count": np.int64(3),
                "one": np.ones((1, 1)),
                "half": jnp.bfloat16(1.5),
            },
        )
        assert len(lines(tmp_path / "new" / "run")) == 1, "a line is there as soon as it is written"
    (record,) = read_metrics(tmp_path / "new" / "run")
    assert record.pop("time") > 1.7e9
    assert record == {"step": 10, "loss": 0.5, "count": 3, "one": 1.0, "half": 1.5}


def test_what_is_not_finite_is_null_and_the_line_is_json_for_everyone(tmp_path):
    with Log(tmp_path, console=quiet()) as log:
        log.write(1, {"loss": float("nan"), "a": jnp.inf, "b": -jnp.inf})

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    record = json.loads(lines(tmp_path)[0], parse_constant=refuse)
    assert [record[name] for name in ("loss", "a", "b")] == [None] * 3
    assert math.isnan(read_metrics(tmp_path)[0]["loss"])


def test_two_records_of_one_step_are_read_as_one(tmp_path):
    with Log(tmp_path, console=quiet()) as log:
        log.write(5, {"loss": 1.0})
        log.write(5, {"knn_accuracy": 80.0})
        log.write(10, {"loss": 0.5})
    first, second = read_metrics(tmp_path)
    assert (first["loss"], first["knn_accuracy"], second["loss"]) == (1.0, 80.0, 0.5)
    assert "knn_accuracy" not in second


def test_an_array_with_one_axis_is_read_back_as_a_list_and_more_axes_are_refused(tmp_path):
    with Log(tmp_path, console=quiet()) as log:
        log.write(1, {"loss": 1.0, "histogram": jnp.array([0.25, 0.75, jnp.nan])})
        with pytest.raises(ValueError, match=r"'loss' has the shape \(2, 3\)"):
            log.write(2, {"loss": jnp.ones((2, 3))})
    (record,) = read_metrics(tmp_path)
    assert record["histogram"] == [0.25, 0.75, None]


def test_no_file_is_no_records(tmp_path):
    assert read_metrics(tmp_path) == []


# --- Going on


def test_going_on_drops_what_came_after_and_doubles_nothing(tmp_path):
    write(tmp_path, [10, 20, 30, 40])
    write(tmp_path, [30, 40, 50], start_step=20, value=lambda step: -step)
    assert losses(tmp_path) == {10: 10, 20: 20, 30: -30, 40: -40, 50: -50}
    assert len(lines(tmp_path)) == 5


def test_starting_anew_drops_everything(tmp_path):
    write(tmp_path, [0, 10, 20])
    write(tmp_path, [0, 5])
    assert losses(tmp_path) == {0: 0, 5: 5}


def test_going_on_from_the_end_leaves_the_file_untouched(tmp_path):
    write(tmp_path, [10, 20])
    file = tmp_path / "metrics.jsonl"
    before = file.read_bytes(), file.stat().st_ino
    write(tmp_path, [], start_step=20)
    assert (file.read_bytes(), file.stat().st_ino) == before


@pytest.mark.parametrize("cut", [1, 2, 9, 20])
def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path, cut):
    write(tmp_path, [10, 20, 30])
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    assert losses(tmp_path) == {10: 10, 20: 20}
    write(tmp_path, [30], start_step=20)
    assert losses(tmp_path) == {10: 10, 20: 20, 30: 30}
    assert len(lines(tmp_path)) == 3


@pytest.mark.parametrize("bad", [b"\xff\xfe?", b"{}", b"[1]", b"", b"null", b'{"step": "x"}'])
def test_a_broken_line_in_the_middle_is_named_and_left_out(tmp_path, bad):
    write(tmp_path, [10, 20])
    first, second = (tmp_path / "metrics.jsonl").read_bytes().splitlines()
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([first, bad, second, b""]))
    with pytest.warns(UserWarning, match="Line 2 of .*metrics.jsonl"):
        assert losses(tmp_path) == {10: 10, 20: 20}


def test_a_kill_while_dropping_leaves_the_old_file_or_the_new(tmp_path, monkeypatch):
    write(tmp_path, [10, 20, 30])
    before = (tmp_path / "metrics.jsonl").read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(log_module.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        Log(tmp_path, start_step=10, console=quiet())
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


# --- TensorBoard


def seen(run_dir, name):
    """[(step, value)] as TensorBoard shows them: a session's START voids what was written from its step on."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    shown = []
    for file in sorted(run_dir.glob("events.*"), key=str):
        data, position = file.read_bytes(), 0
        while position < len(data):  # uint64 length, its checksum, the record, its checksum
            (length,) = struct.unpack_from("<Q", data, position)
            event = Event.FromString(data[position + 12 : position + 12 + length])
            position += 16 + length
            if event.session_log.status == SessionLog.START:
                shown = [(step, value) for step, value in shown if step < event.step]
            shown += [(event.step, value.simple_value) for value in event.summary.value if value.tag == name]
    return shown


def seen_by_tensorboard(run_dir, name):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs TensorBoard itself"
    )
    read = accumulator.EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
    read.Reload()
    return [(event.step, event.value) for event in read.Scalars(name)]


READERS = pytest.mark.parametrize("reader", [seen, pytest.param(seen_by_tensorboard, marks=pytest.mark.slow)])


@READERS
def test_tensorboard_sees_each_step_once_after_going_on(tmp_path, reader):
    write(tmp_path, [10, 20, 30, 40])
    write(tmp_path, [30, 40, 50], start_step=20, value=lambda step: -step)
    write(tmp_path, [60], start_step=50)
    assert reader(tmp_path, "loss") == [(10, 10), (20, 20), (30, -30), (40, -40), (50, -50), (60, 60)]


@READERS
def test_tensorboard_sees_a_new_start_as_one(tmp_path, reader):
    write(tmp_path, [0, 10, 20])
    write(tmp_path, [0, 10], value=lambda step: -step - 1)
    assert reader(tmp_path, "loss") == [(0, -1), (10, -11)]


def test_tensorboard_is_given_what_is_finite(tmp_path):
    with Log(tmp_path, console=quiet()) as log:
        log.write(1, {"loss": 1.0, "grad_norm": float("inf"), "knn_accuracy": 50.0})
    assert [seen(tmp_path, name) for name in ("loss", "grad_norm", "knn_accuracy")] == [
        [(1, 1.0)],
        [],
        [(1, 50.0)],
    ]


# --- The screen


def test_without_tensorboard_the_log_says_so_once_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)  # as where it is not installed
    console = quiet()
    with Log(tmp_path, steps=100, console=console) as log:
        log.write(1, {"loss": 1.0})
        log.write(2, {"loss": 0.5})
    assert console.file.getvalue().count("tensorboardX is not installed") == 1
    assert losses(tmp_path) == {1: 1.0, 2: 0.5}
    assert not list(tmp_path.glob("events.*"))


def test_a_pipe_gets_a_line_a_record():
    console = quiet()
    with Log(steps=100, console=console) as log:
        log.write(10, {"alignment": 0.1, "loss": 2.0, "images_per_second": 812.4})
        log.advance(15)
        log.write(20, {"loss": 1.25})
        log.write(20, {"knn_accuracy": 87.5})
    first, second, third = console.file.getvalue().splitlines()
    assert re.fullmatch(r"step 10/100  loss 2.0000  812 images/s  \d:\d\d:\d\d left", first)
    assert re.fullmatch(r"step 20/100  loss 1.2500  \d:\d\d:\d\d left", second)
    assert third == "step 20/100  knn_accuracy 87.5"


def test_a_terminal_gets_a_bar_with_loss_speed_and_time():
    console = terminal()
    with Log(steps=100, console=console) as log:
        log.write(10, {"loss": 2.0, "images_per_second": 812.4})
        log.advance(15)
        log.write(20, {"knn_accuracy": 87.5})
        log.write(50, {"loss": 1.25, "images_per_second": 99.6})
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    last = [line for line in re.split(r"[\r\n]+", shown) if line.strip()][-1]
    assert re.search(r"step\s+50/100 .*loss 1.2500  100 images/s  \d:\d\d:\d\d left", last)
    assert "step 20/100  knn_accuracy 87.5" in shown
    assert "\x1b[?25h" in console.file.getvalue(), "the cursor is given back"


def test_standard_output_that_is_no_terminal_gets_lines(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Log(steps=10) as log:
        log.write(5, {"loss": 1.0})
    assert capsys.readouterr().out.startswith("step 5/10  loss 1.0000")


def test_time_left_follows_from_the_pace_since_the_first_record(monkeypatch):
    clock = iter([0.0, 60.0, 70.0, 75.0])
    monkeypatch.setattr(log_module.time, "perf_counter", lambda: next(clock))
    pace = log_module._Pace(0)
    assert pace.seconds_left(10, 100) == 540  # compiling included: all there is to go by
    assert pace.seconds_left(20, 100) == 80
    assert pace.seconds_left(20, 100) == 120


def test_the_first_step_reports_and_time_left_does_not_count_the_compilation(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(log_module.time, "perf_counter", lambda: now[0])
    console = quiet()
    with Log(steps=101, console=console) as log:
        now[0] = 600.0
        log.began(1, compiling=598.0, seconds=2.0)
        now[0] = 620.0
        log.write(11, {"loss": 1.0})
    first, second = console.file.getvalue().splitlines()
    assert first == "step 1: compiled in 598.0 s, a step takes 2 s; 0:03:20 left at this pace"
    assert second.endswith("0:03:00 left")  # 90 steps of 2 s


def test_a_line_comes_by_seconds_where_there_is_no_bar(monkeypatch):
    now, fetched = [0.0], []
    monkeypatch.setattr(log_module.time, "perf_counter", lambda: now[0])

    def loss():
        fetched.append(now[0])
        return 3.0

    console = quiet()
    with Log(steps=100, console=console) as log:
        log.began(1, compiling=1.0, seconds=6.0)
        for step in range(2, 10):
            now[0] += 6.0
            log.glance(step, loss)
    assert fetched == [24.0, 48.0]  # the device is waited for only where something is said
    lines = console.file.getvalue().splitlines()[1:]
    assert lines == ["step 5/100  loss 3.0000  0:09:30 left", "step 9/100  loss 3.0000  0:09:06 left"]
    with Log(steps=100, console=terminal()) as log:
        now[0] += 100
        log.glance(5, loss)
    assert len(fetched) == 2


def test_the_bar_is_taken_down_when_the_run_fails(tmp_path):
    console = terminal()

    def run(log):
        log.write(1, {"loss": 1.0})
        return 1 / 0

    with pytest.raises(ZeroDivisionError), Log(tmp_path, steps=10, console=console) as log:
        run(log)
    assert "\x1b[?25h" in console.file.getvalue()
    assert losses(tmp_path) == {1: 1.0}
    log.close()


class Full:
    """A file on a disk that has room for so many bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self.file.write(data[: self.room])
        self.room -= written
        return written

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_log_that_cannot_be_written_is_told_once_and_written_when_there_is_room(tmp_path):
    screen = quiet()
    with Log(tmp_path, steps=100, console=screen) as log:
        log.write(1, {"loss": 1.0})
        log._lines = disk = Full(log._lines, 20)
        for step in (2, 3):
            log.write(step, {"loss": float(step)})
        assert losses(tmp_path) == {1: 1.0}
        disk.room = 10**6
        log.write(4, {"loss": 4.0})
    assert losses(tmp_path) == {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}
    said = screen.file.getvalue().replace("\n", " ")
    assert said.count("cannot be written (No space left on device). The run goes on") == 1


def test_warnings_are_said_kept_and_dropped_where_the_run_went_back(tmp_path):
    screen = quiet()
    with Log(tmp_path, console=screen) as log:
        for step in (2, 4):
            log.warn(step, f"too little at {step}", of=", of member 1")
    assert "Warning, at step 4, of member 1: too little at 4" in screen.file.getvalue()
    assert read_warnings(tmp_path) == [(2, "too little at 2"), (4, "too little at 4")]
    with Log(tmp_path, start_step=3, console=quiet()):
        assert read_warnings(tmp_path) == [(2, "too little at 2")]
    with open(tmp_path / "warnings.jsonl", "ab") as file:
        file.write(b'\xff\n[]\n{"step": "2", "warning": "x"}\n{"step": 3, "warning": 4}\n{"step": 5')
    assert read_warnings(tmp_path) == [(2, "too little at 2")]


def test_only_process_0_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    console = quiet()
    with Log(tmp_path / "run", steps=10, console=console) as log:
        log.write(1, {"loss": 1.0})
        log.advance(2)
    assert not (tmp_path / "run").exists()
    assert console.file.getvalue() == ""
