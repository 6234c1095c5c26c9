"""What a run leaves to be read: metrics.jsonl, what loggers make of it, and a line or a bar on the screen."""

from __future__ import annotations

import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from jaxcl.records import check_ends, fits, parsed, write_whole
from jaxcl.train.loggers import PACKAGES, Logger, open_logger

# In a run directory, a line of JSON for every line of the log.
FILE = "metrics.jsonl"
# ... and for every warning.
WARNINGS = "warnings.jsonl"
# Without a progress bar, a line is printed at least this often, however long a step takes.
SECONDS_BETWEEN_LINES = 20.0


class Log:
    """Writes the metrics of a run; only process 0 does, in the others nothing happens.

        with Log(run_dir, steps=1000) as log:
            log.write(step, {"loss": 5.1, "images_per_second": 812.0})

    run_dir
        gets metrics.jsonl (one JSON object a line: "step", "time" in seconds since 1970, the metrics; a value that is
        not finite is null) and events.* for TensorBoard. None: only the screen is written to, and one's own loggers.
    start_step
        the step from which the run resumes. Records of later steps, from before the run stopped, are removed from
        metrics.jsonl and purged in TensorBoard, so no step appears twice; 0 removes all.
    steps
        where the run ends, for the bar and the time left.
    loggers
        who else gets what is a finite number: names (`train.loggers.PACKAGES`), or objects with `write(step, metrics)`
        and `close()`. One that raises an error is reported once, and then left out.
    console
        a rich console; by default standard output. A terminal gets a bar, anything else (a file, a pipe, a notebook)
        a line per `write`.
    say
        who gets a line where a logger fails; the console unless given.
    """

    def __init__(
        self,
        run_dir: str | Path | None = None,
        *,
        start_step: int = 0,
        steps: int | None = None,
        loggers: Sequence[str | Logger] = ("tensorboard",),
        console: Console | None = None,
        say: Callable[[str], None] | None = None,
    ):
        self._say_failure = say or self.say
        self._active = jax.process_index() == 0
        self._lines = self._bar = None
        self._unwritable = False
        self._loggers: dict[str, Logger] = {}
        if not self._active:
            return
        self._steps = steps
        self._said = time.perf_counter()
        # A pipe gets lines even where FORCE_COLOR makes rich take it for a terminal.
        self._console = console or Console(force_interactive=None if sys.stdout.isatty() else False)
        self._pace = _Pace(start_step)
        purge: int | None = None
        if run_dir is not None:
            run_dir = Path(run_dir)
            run_dir.mkdir(parents=True, exist_ok=True)
            resumed = _forget_after(run_dir / FILE, start_step)
            self._file, self._unwritten = run_dir / FILE, b""
            self._lines = open(self._file, "ab", buffering=0)
            forget_warnings(run_dir, start_step)
            if resumed:
                purge = start_step + 1 if start_step else 0
        self._open(loggers, None if run_dir is None else Path(run_dir), start_step, purge)
        if self._console.is_interactive and not self._console.is_jupyter:
            self._bar = Progress(
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("{task.fields[shown]}", markup=False),
                console=self._console,
                refresh_per_second=4,
            )
            self._task = self._bar.add_task("", total=steps, completed=start_step, shown="")
            self._bar.start()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Records the metrics of one step; waits for the device if they are on one.

        Numbers, or arrays of one. An array with one axis (a histogram) goes to metrics.jsonl alone, as a list.
        """
        if not self._active:
            return
        values: dict[str, Any] = {name: _number(name, value) for name, value in metrics.items()}
        numbers = {name: value for name, value in values.items() if not isinstance(value, list)}
        seconds_left = None if self._steps is None else self._pace.seconds_left(step, self._steps)
        now = time.time()
        if self._lines is not None:
            finite = {name: _or_none(value) for name, value in values.items()}
            self._put(json.dumps({"step": step, "time": now, **finite}, allow_nan=False) + "\n")
        finite_numbers = {name: value for name, value in numbers.items() if math.isfinite(value)}
        for name in list(self._loggers):
            self._try(name, lambda logger: logger.write(step, finite_numbers), f"at step {step}")
        shown = _shown(numbers, seconds_left)
        if self._bar is not None and "loss" in values:
            self._bar.update(self._task, completed=step, shown=shown)
        else:  # with a bar: an evaluation, which is rare and stays on the screen above it
            where = f"step {step}" if self._steps is None else f"step {step}/{self._steps}"
            self.say(f"{where}  {shown}")

    def _put(self, line: str) -> None:
        """Writes a line, after those that could not be written before."""
        lines = self._lines
        assert lines is not None
        left = self._unwritten = self._unwritten + line.encode()
        try:
            size = os.fstat(lines.fileno()).st_size
            try:
                while left:
                    left = left[lines.write(left) :]
            except OSError:
                # Half a line is no record: it is taken back, and comes whole when there is room.
                os.ftruncate(lines.fileno(), size)
                raise
        except OSError as error:
            self._cannot_write(error)
        else:
            self._unwritten = b""

    def _cannot_write(self, error: OSError) -> None:
        """Says so once, and trains on: a run is more than its log."""
        self._loggers.pop("tensorboard", None)  # not closed, which would write
        if not self._unwritable:
            self._unwritable = True
            self.say(
                f"Warning: {self._file} cannot be written ({error.strerror}). The run goes on, and writes what it logs"
                " when it can; TensorBoard's events end here."
            )

    def warn(self, step: int, sentence: str, *, of: str = "") -> None:
        """A warning at a step: on the screen, and kept for `jaxcl status`."""
        if not self._active:
            return
        self.say(f"Warning, at step {step}{of}: {sentence}")
        if self._lines is not None:
            try:
                with open(self._file.with_name(WARNINGS), "a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": step, "warning": sentence}) + "\n")
            except OSError as error:
                self._cannot_write(error)

    def advance(self, step: int) -> None:
        """Moves the bar, between two `write`s; waits for nothing."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def say(self, sentence: str) -> None:
        """A line on the screen, above the bar where there is one, and nowhere else."""
        if self._active:
            self._said = time.perf_counter()
            self._console.print(sentence, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def began(self, step: int, *, compiling: float, seconds: float) -> None:
        """Says what the first step took, in seconds, and what is left; from here on the pace is counted."""
        if not self._active:
            return
        self._pace = _Pace(step, counting=True)
        left = "" if self._steps is None else f"; {_clock(seconds * (self._steps - step))} left at this pace"
        self.say(f"step {step}: compiled in {compiling:.1f} s, a step takes {seconds:.2g} s{left}")

    def glance(self, step: int, loss: Callable[[], float]) -> None:
        """A line on the screen where nothing was said for long, for whoever watches a file; the bar needs none."""
        if (
            not self._active
            or self._bar is not None
            or time.perf_counter() - self._said < SECONDS_BETWEEN_LINES
        ):
            return
        left = None if self._steps is None else self._pace.seconds_left(step, self._steps)
        where = f"step {step}" if self._steps is None else f"step {step}/{self._steps}"
        self.say(f"{where}  {_shown({'loss': loss()}, left)}")

    def close(self) -> None:
        """May be called twice."""
        bar, lines = self._bar, self._lines
        self._bar = self._lines = None
        for stop in (bar and bar.stop, lines and lines.close):
            if stop:
                stop()
        for name in list(self._loggers):
            self._try(name, lambda logger: logger.close(), "when it was closed")
        self._loggers = {}
        self._active = False

    def _open(
        self, loggers: Sequence[str | Logger], run_dir: Path | None, start_step: int, purge_step: int | None
    ) -> None:
        for i, given in enumerate(loggers):
            if not isinstance(given, str):
                self._loggers[f"logger {i + 1} ({type(given).__name__})"] = given
                continue
            try:
                made = open_logger(given, run_dir, start_step=start_step, purge_step=purge_step)
            except ModuleNotFoundError:
                package, brings = PACKAGES[given]
                self._say_failure(
                    f"Without {given}, as {package} is not installed (pip install {brings}); {_instead(run_dir)}"
                )
            except Exception as error:  # whatever another library raises, a network that is down
                self._say_failure(
                    f"Without {given}, which failed at the start ({_in_short(error)}); {_instead(run_dir)}"
                )
            else:
                if made is not None:
                    self._loggers[given] = made

    def _try(self, name: str, do: Callable[[Logger], None], when: str) -> None:
        """A logger that fails must not end a run of days."""
        try:
            do(self._loggers[name])
        except Exception as error:
            if name == "tensorboard" and isinstance(error, OSError) and self._lines is not None:
                self._cannot_write(error)  # the disk, which is that of the other files
                return
            del self._loggers[name]
            self._say_failure(f"{name} failed {when} and gets no more of this run: {_in_short(error)}")


def _instead(run_dir: Path | None) -> str:
    return "the run goes on." if run_dir is None else f"the metrics are in {run_dir / FILE}."


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def read_metrics(run_dir: str | Path) -> list[dict[str, float]]:
    """The records of a run, oldest first, one a step: what was written about the same step is put together.

    NaN where a value was not finite. A last line that a killed run left half written is not there; [] without a
    file.
    """
    records: dict[int, dict[str, float]] = {}
    for _, record in _read(Path(run_dir) / FILE):
        values = {name: math.nan if value is None else value for name, value in record.items()}
        records.setdefault(record["step"], {}).update(values)
    return [records[step] for step in sorted(records)]


def read_warnings(run_dir: str | Path) -> list[tuple[int, str]]:
    """What a run was warned of, each with its step, oldest first; [] without a file."""
    file, found = Path(run_dir) / WARNINGS, []
    for line in file.read_bytes().split(b"\n")[:-1] if file.is_file() else []:
        try:
            said = parsed(line)
        except ValueError:
            continue
        if isinstance(said, dict) and fits(said.get("step"), int) and isinstance(said.get("warning"), str):
            found.append((said["step"], said["warning"]))
    return found


def forget_warnings(run_dir: Path, step: int) -> None:
    """Drops those after `step` (0: all), as the run lives them again."""
    file = run_dir / WARNINGS
    if file.is_file():
        kept = [
            {"step": at, "warning": said} for at, said in read_warnings(run_dir) if 0 < step and at <= step
        ]
        write_whole(file, "".join(json.dumps(one) + "\n" for one in kept))


def set_aside(run_dir: str | Path) -> str | None:
    """Puts the metrics of a run that begins anew out of the way, and returns a sentence about them; None without any.

    They are in metrics.jsonl.aside then, in place of those that were there.
    """
    file = Path(run_dir) / FILE
    last = max((record["step"] for _, record in _read(file)), default=None)
    if last is None:
        return None
    aside = file.with_name(f"{FILE}.aside")
    os.replace(file, aside)
    return (
        f"There is no checkpoint in {run_dir}, so the run begins anew; what was logged up to step {last} is in"
        f" {aside.name}."
    )


def _read(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each whole line, and what it says."""
    if not file.exists():
        return
    if file.is_dir():
        raise ValueError(f"{file} is a directory; it should be the file of a run's metrics. Move it away.")
    check_ends(file)
    # Not splitlines: only "\n" ends a record, and a record without one was never finished.
    *lines, _ = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            record = parsed(line)
            check_record(record)
        except ValueError as problem:
            warnings.warn(
                f"Line {number} of {file} is not a record and is left out ({problem}).", stacklevel=3
            )
            continue
        yield line.decode(), record


def check_record(record: Any) -> None:
    """Raises ValueError where a line is no record of metrics: {"step": 7, name: a number, null, or a list of them}."""
    if not isinstance(record, dict) or not fits(record.get("step"), int) or not 0 <= record["step"] < 2**53:
        raise ValueError("it has no step, a whole number from 0 to 2^53")

    def number(x: Any) -> bool:
        return x is None or isinstance(x, float | bool) or fits(x, float)

    for name, value in record.items():
        if not (number(value) or (isinstance(value, list) and all(map(number, value)))):
            raise ValueError(f"{name!r} is not a number")


def _forget_after(file: Path, step: int) -> bool:
    """Drops the records after `step` (0: all), and a torn end; tells whether there was anything before."""
    if not file.exists():
        return False
    kept = "".join(f"{line}\n" for line, record in _read(file) if 0 < step and record["step"] <= step)
    if kept.encode() != file.read_bytes():
        write_whole(file, kept)
    return True


def _number(name: str, value: Any) -> float | int | list[float]:
    if np.ndim(value) == 1 and np.size(value) > 1:
        return np.asarray(value, float).tolist()
    if np.size(value) != 1:
        raise ValueError(
            f"A metric is a number or has one axis; {name!r} has the shape {np.shape(value)}. Take its mean, or write a"
            " plot."
        )
    value = np.asarray(value).item()
    return value if isinstance(value, int) else float(value)


def _or_none(value: Any) -> Any:
    """JSON knows no nan and no infinity."""
    if isinstance(value, list):
        return [_or_none(entry) for entry in value]
    return value if math.isfinite(value) else None


class _Pace:
    """How long a step takes, not counting what came before the first `write` (compiling), or before it was made where
    it is `counting`."""

    def __init__(self, step: int, *, counting: bool = False):
        self._first = (step, time.perf_counter())
        self._counting = counting

    def seconds_left(self, step: int, steps: int) -> float | None:
        now = (step, time.perf_counter())
        done = step - self._first[0]
        left = (now[1] - self._first[1]) / done * (steps - step) if done > 0 else None
        if not self._counting:
            self._first, self._counting = now, True
        return left


def _shown(values: Mapping[str, float], seconds_left: float | None) -> str:
    """What one looks at while it runs: of a training record the loss and the speed, of an evaluation all."""
    if "loss" not in values:
        return "  ".join(f"{name} {value:.5g}" for name, value in values.items())
    parts = [f"loss {values['loss']:.4f}"]
    if "images_per_second" in values:
        parts.append(f"{values['images_per_second']:.0f} images/s")
    if "input_wait" in values:
        parts.append(f"{values['input_wait']:.1%} waiting for input")
    return "  ".join(parts + ([] if seconds_left is None else [f"{_clock(seconds_left)} left"]))


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> _clock(3725.4)
    '1:02:05'
    """
    minutes, s = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{s:02d}"
