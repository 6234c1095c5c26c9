"""A run directory has one owner at a time: the process that trains in it.

    with owned("runs/quickstart"):
        ...                             # nobody else trains there

RUN_DIR/owner.json says who: host, process, since when. The file is locked, and the system lets the lock go when the
process ends, however it ends. Between hosts, where a file system may not pass locks on, the owner touches the file
every few seconds; one that has stopped doing so is gone.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FILE = "owner.json"
TOUCHED_EVERY = 5.0  # seconds
GONE_AFTER = 20.0


@contextmanager
def owned(
    run_dir: str | Path,
    *,
    touched_every: float = TOUCHED_EVERY,
    gone_after: float = GONE_AFTER,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> Iterator[None]:
    """Makes this process the owner of a run directory, which is made if it is not there, until the block ends.

    touched_every, gone_after
        seconds between two signs of life, and of silence after which an owner on another host counts as gone. Only
        where its file was left behind there, this waits for so long, and says so with `say`.

    Raises ValueError, with who it is, where another process is.
    """
    run_dir = Path(run_dir)
    made = not run_dir.exists()
    run_dir.mkdir(parents=True, exist_ok=True)
    descriptor = _opened(run_dir)
    try:
        other = _read(descriptor)
        while not _lock(descriptor) or _is_deleted(descriptor, run_dir):
            if not _is_deleted(descriptor, run_dir):
                raise ValueError(_taken(run_dir, other))
            # Its last owner had just made the directory, and took it away again.
            os.close(descriptor)
            run_dir.mkdir(parents=True, exist_ok=True)
            descriptor = _opened(run_dir)
        if other and other.get("host") != platform.node() and _lives(descriptor, gone_after, other, say):
            raise ValueError(_taken(run_dir, other))
        me = {"host": platform.node(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        _write(descriptor, json.dumps(me) + "\n")
        ended = threading.Event()

        def touch() -> None:
            while not ended.wait(touched_every):
                try:
                    os.utime(descriptor)
                except OSError:  # a disk that is away for a while must not end the run
                    pass

        thread = threading.Thread(target=touch, name="jaxcl-owner", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            _write(descriptor, "")
            if made and os.listdir(run_dir) == [FILE]:  # nothing came of it
                (run_dir / FILE).unlink()
                run_dir.rmdir()
    finally:
        os.close(descriptor)


def _opened(run_dir: Path) -> int:
    # Not truncated: until it is locked it is the other's.
    return os.open(run_dir / FILE, os.O_RDWR | os.O_CREAT, 0o644)


def _is_deleted(descriptor: int, run_dir: Path) -> bool:
    """Whether the file of this descriptor is no longer the one in the directory: its lock then keeps nobody out."""
    try:
        return not os.path.samestat(os.fstat(descriptor), os.stat(run_dir / FILE))
    except FileNotFoundError:
        return True


def owner(run_dir: str | Path) -> dict | None:
    """Who trains in a run directory, {"host", "process", "since"}; None: nobody on this host, as far as can be seen."""
    try:
        # A stranger's may be a pipe, whose other end nobody opens.
        descriptor = os.open(Path(run_dir) / FILE, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        said = _read(descriptor)
        return None if not said or (said.get("host") == platform.node() and _lock(descriptor)) else said
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Locks the file for this process; False: another has locked it. True as well where nothing can be locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def _lives(descriptor: int, seconds: float, other: dict, say: Callable[[str], None]) -> bool:
    """Whether somebody touches the file. No clock is compared: another host's may go otherwise."""
    say(
        f"This run was not released by process {other.get('process')} on {other.get('host')}; waiting"
        f" {seconds:g} s for a sign that it is alive."
    )
    before, until = os.fstat(descriptor).st_mtime_ns, time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(min(1.0, seconds / 10))
        if os.fstat(descriptor).st_mtime_ns != before:
            return True
    return False


def _taken(run_dir: Path, other: dict) -> str:
    who = f"process {other.get('process', '?')} on {other.get('host', 'this host')}, since {other.get('since', '?')}"
    return (
        f"{run_dir} is being trained in by {who}. Wait for it, end it (it saves itself when interrupted), or choose"
        " another --run-dir."
    )


def _read(descriptor: int) -> dict:
    try:
        said = json.loads(os.pread(descriptor, 4096, 0) or b"{}")
    except (OSError, ValueError, RecursionError):  # being written, or not ours
        return {}
    return said if isinstance(said, dict) else {}


def _write(descriptor: int, text: str) -> None:
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
    except OSError:  # a full disk: the lock holds all the same
        pass
