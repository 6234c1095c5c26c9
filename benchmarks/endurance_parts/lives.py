"""Lives of a run: each a process of its own that is `jaxcl train`, or another command, from its first line to its end.

A life is forked from a process that has imported everything and has not touched a device, which saves the two seconds
that imports take; from there it is the command as a shell starts it, with its own interpreter's exit. The process that
forks stays without threads: whatever needs jax, as reading a checkpoint, is a life as well.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

WAIT = 0.03  # seconds between two looks at what a life does
LONGEST = 300.0  # seconds; a life that takes longer hangs


class Born(BaseException):
    """Leads a forked process out of what its parent was doing; `as_main` catches it."""

    def __init__(self, act: Callable[[], int | None]):
        self.act = act


def as_main(main: Callable[[], None]) -> None:
    """Runs a program that starts lives, and, in the processes that it forks, what these are to do."""
    try:
        main()
    except Born as born:
        act = born.act
    else:
        return
    sys.exit(act())  # outside of `except`, so that an error has no other beside it


class Life(NamedTuple):
    pid: int
    file: Path  # what it says, both streams

    def said(self) -> str:
        return self.file.read_text(errors="replace") if self.file.exists() else ""

    def send(self, number: int) -> None:
        os.kill(self.pid, number)  # never of another: nobody but `wait` and `ended` collects it

    def ended(self) -> int | None:
        """Its exit status (-9: killed), or None where it lives. Not to be asked again afterwards."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def step(self) -> int:
        """The last training step that it has told of; 0 before it did."""
        return max([0, *map(int, re.findall(r"^step (\d+)[:/]", self.said(), re.M))])

    def reach(self, step: int, seconds: float = LONGEST) -> bool:
        """Waits until it has told of this step; False where it ended before, or takes too long."""
        return self.until(lambda: self.step() >= step, seconds)

    def until(self, holds: Callable[[], bool], seconds: float = LONGEST) -> bool:
        """Waits until something holds; False where it ended before, or takes too long."""
        until = time.monotonic() + seconds
        while not holds():
            if self.gone() or time.monotonic() > until:
                return False
            time.sleep(WAIT)
        return True

    def gone(self, seconds: float = 0.0) -> bool:
        """Whether it has ended, or does within so many seconds; its status stays to be asked for."""
        until = time.monotonic() + seconds
        while not os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if time.monotonic() >= until:
                return False
            time.sleep(min(1.0, max(0.0, until - time.monotonic())))
        return True

    def wait(self, seconds: float = LONGEST) -> int | None:
        """Its exit status; None if it had to be killed after so many seconds."""
        until = time.monotonic() + seconds
        while (status := self.ended()) is None:
            if time.monotonic() > until:
                self.send(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return None
            time.sleep(WAIT)
        return status


def start(act: Callable[[], int | None], file: Path, *, devices: int = 1) -> Life:
    """A process that does `act`; what it says goes to a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Life(pid, file)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    sys.stdout.reconfigure(line_buffering=True)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell may have told its children to ignore it
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    raise Born(act)


def command(words: Sequence[str], *, devices: int = 1, file: Path, before: Callable[[], Any] | None = None):
    """`jaxcl WORDS` as a life. `before` is called in it first."""

    def act() -> int:
        from jaxcl.cli import main

        sys.argv = ["jaxcl", *words]
        if before is not None:
            before()
        return main(list(words))

    return start(act, file, devices=devices)


def several(
    words: Sequence[str],
    *,
    processes: int,
    devices: int = 1,
    file: Path,
    before: Callable[[int], Callable[[], Any] | None] = lambda process: None,
    join_timeout: float = 30.0,
) -> list[Life]:
    """The same command as several processes that find each other on this machine; as one, without a word of that."""
    if processes == 1:
        return [command(words, devices=devices, file=file, before=before(0))]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    together = ["--join-timeout", f"{join_timeout:g}", "--distributed", address, str(processes)]
    return [
        command(
            [*words, *together, str(process)],
            devices=devices,
            file=file.with_name(f"{file.name}-{process}"),
            before=before(process),
        )
        for process in range(processes)
    ]


# --- what is left of a run -------------------------------------------------------------------------------------------

# Of a line of the log: when it was written and how fast it went is not of what was learnt.
OF_THE_CLOCK = {"time", "images_per_second", "input_wait"}


class End(NamedTuple):
    """What a run leaves: compared, not looked at."""

    state: dict[str, str]  # array -> sha256 of type, shape and entries
    lines: list[dict[str, Any]]  # the log
    files: list[str]

    def differs(self, other: End) -> str:
        """What is not as in another, in words; "" if nothing."""
        wrong = [
            name for name in {**self.state, **other.state} if self.state.get(name) != other.state.get(name)
        ]
        if wrong:
            return f"other arrays at the end: {', '.join(wrong[:5])}"
        steps = [line["step"] for line in self.lines]
        if len(set(steps)) != len(steps):
            return f"a step number stands twice in the log: {steps}"
        for mine, theirs in zip(self.lines, other.lines, strict=False):
            if mine != theirs:
                return f"the log at step {mine['step']} is not that of the unbroken run at {theirs['step']}"
        if len(self.lines) != len(other.lines):
            return f"the log has {len(self.lines)} lines in place of {len(other.lines)}"
        if self.files != other.files:
            return f"other files at the end: {sorted(set(self.files) ^ set(other.files))[:5]}"
        return ""


def end_of(run_dir: Path, work: Path) -> End:
    """What is there of a run that has ended. Raises ValueError where it cannot be read."""
    file = work / "read"
    life = start(lambda: _print_state(run_dir / "checkpoints"), file)
    if life.wait() != 0:
        raise ValueError(f"the state at the end cannot be read: {life.said()[-500:]}")
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    lines = [{name: x for name, x in line.items() if name not in OF_THE_CLOCK} for line in lines]
    return End(json.loads(life.said().splitlines()[-1]), lines, left(run_dir))


def left(run_dir: Path) -> list[str]:
    """Files and folders of a run directory, without the insides of its checkpoints, TensorBoard's files, and the log
    that is kept of a life that ended before its first save. Of which steps the checkpoints are is not told: the newest
    three stay, and one that was asked for by a signal is one of them."""
    found = [*run_dir.iterdir(), *(run_dir / "checkpoints").glob("*"), *(run_dir / "checkpoints").glob(".*")]
    names = [
        re.sub(r"checkpoints/\d+$", "checkpoints/STEP", x.relative_to(run_dir).as_posix()) for x in found
    ]
    return sorted(name for name in names if not re.search("tfevents|jsonl.aside", name))


def _print_state(directory: Path) -> None:
    import numpy as np

    from jaxcl.train import checkpoint

    step = checkpoint.latest(directory)
    assert step is not None
    saved = json.loads((directory / str(step) / "manifest.json").read_text())["arrays"]
    like = {name: np.zeros(shape, dtype) for name, (dtype, shape) in saved.items()}
    state, _ = checkpoint.restore(directory, like, step=step)
    digests = {
        name: hashlib.sha256(f"{x.dtype} {x.shape} ".encode() + np.ascontiguousarray(x).tobytes()).hexdigest()
        for name, x in state.items()
    }
    print(json.dumps(digests | {"step": str(step)}))


def steps_saved(run_dir: Path) -> list[int]:
    """The checkpoints that have their name, oldest first."""
    folder = run_dir / "checkpoints"
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


# --- moments ---------------------------------------------------------------------------------------------------------


EVENTS = {
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.listdir",
    "os.scandir",
    "shutil.rmtree",
}


class Watch:
    """Counts what a process does to the files of its run: (the how manieth save of its life, the how manieth event in
    it); save 0 is all before the first, as the making of the run directory. To be made in the process itself."""

    def __init__(self, run_dir: Path, meets: Callable[[int, int], None]):
        self.run_dir, self.meets = str(run_dir), meets
        self.saving, self.save, self.event = "", 0, 0
        sys.addaudithook(self._hear)

    def _hear(self, name: str, arguments: tuple) -> None:
        if name not in EVENTS or not arguments or isinstance(arguments[0], int):
            return
        try:
            path = os.fsdecode(arguments[0])
        except TypeError:
            return
        # What is deleted below an opened folder is named without it.
        if self.run_dir not in path and not (name in ("os.remove", "os.rmdir") and not path.startswith("/")):
            return
        begun = re.search({"os.mkdir": r"\.saving-(\d+)$", "open": r"\.saving-(\d+)/"}.get(name, r"$^"), path)
        if begun and begun[1] != self.saving:
            self.saving, self.save, self.event = begun[1], self.save + 1, 0
        self.event += 1
        self.meets(self.save, self.event)


def killed_at(run_dir: Path, save: int, event: int, delay: float) -> Callable[[], Any]:
    """To be called in a process: kills it before that event of that save, or so many seconds later."""

    def meets(now: int, number: int) -> None:
        if (now, number) == (save, event):
            if delay:
                timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL))
                timer.daemon = True
                timer.start()
            else:
                os.kill(os.getpid(), signal.SIGKILL)

    return partial(Watch, run_dir, meets)


def told_at(run_dir: Path, save: int, event: int, file: Path) -> Callable[[], Any]:
    """To be called in a process: makes a file before that event of that save."""

    def meets(now: int, number: int) -> None:
        if (now, number) == (save, event):
            file.touch()

    return partial(Watch, run_dir, meets)


def counted(run_dir: Path, file: Path) -> Callable[[], Any]:
    """To be called in a process: writes how many events each of its saves had, [save 0, save 1, ...]."""
    seen: list[int] = []

    def meets(save: int, event: int) -> None:
        seen.extend([0] * (save + 1 - len(seen)))
        seen[save] = event
        if event == 1 and save:
            with open(file, "w") as out:
                json.dump(seen, out)

    return partial(Watch, run_dir, meets)
