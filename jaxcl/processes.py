"""Several processes as one program: they come together, and they end together.

    join(address="10.0.0.1:1234", processes=4, process=0)

in each of four, with its own number as `process`, before anything touches a device.

By itself jax waits five minutes for a process that never starts, a minute and a half for one that dies during a step,
and for ever for one that ended with an error; then it aborts. Here each process writes a heartbeat every few seconds
into the key-value store that jax's processes share, and reads those of the others. When a process ended or stopped
writing, the others end with a message and status 1. Only if process 0 is killed, jax is faster, as the store is gone
with it: it aborts the others (status 134), and our message follows jax's.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import re
import signal
import socket
import sys
import threading
import time
from typing import Any, NoReturn

import jax

# What every process says when another one is lost.
WHAT_NOW = "Start all processes again: a run goes on from its newest checkpoint."

_STORE = "jaxcl/processes"
_PERIODS = 8  # signs of life within the time after which a process counts as lost
_BROKEN = re.compile(
    r"(UNKNOWN|INTERNAL|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED|FAILED_PRECONDITION): "
)
_ends = threading.Event()
_lost_after = 0.0
_waited_for: BaseException | None = None


def join(
    *,
    address: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    timeout: float = 120.0,
    lost_after: float = 30.0,
) -> None:
    """Makes this process number `process` of several; all of them meet at process 0's HOST:PORT.

    Without arguments jax asks the cluster (Cloud TPU, Slurm, Kubernetes, Open MPI).

    timeout
        seconds to wait for the others to come. After it the program ends with a sentence and status 1.
    lost_after
        seconds of silence after which a process counts as dead, and the others end.

    An error that ends this process is sent to the others, and ends them too.
    """
    global _lost_after
    _lost_after = lost_after
    timer = threading.Timer(timeout, _nobody_came, (timeout,))
    timer.daemon = True
    timer.start()
    try:
        # jax's own limits only serve where this file fails: it ends the program without a word to the others.
        jax.distributed.initialize(
            address,
            processes,
            process,
            initialization_timeout=int(timeout) + 60,
            heartbeat_timeout_seconds=int(2 * lost_after) + 20,
        )
    except ValueError as error:
        if address is None:
            raise ValueError(
                f"jax finds no cluster here ({error}). Say where process 0 listens (HOST:PORT), how many processes"
                " there are, and which this one is."
            ) from error
        raise
    finally:
        timer.cancel()
    if _state().num_processes > 1:
        _explain_aborts()
        thread = threading.Thread(target=_watch, args=(lost_after,), name="jaxcl-processes", daemon=True)
        thread.start()
        # Runs before jax's own end, which was registered when jax was imported.
        atexit.register(_end_together, thread)


def leave(why: str, *, status: int = 1, error: BaseException | None = None) -> NoReturn:
    """Ends this process, and tells the others to end as well, with `why` in their sentence.

    error
        what ended it. One of jax's may be that of another process which is gone: then there is time to learn of it.
    """
    wait_for_news(error)
    me, n = _state().process_id, _state().num_processes
    _go(f"Process {me} of {n} ended ({why}).", status)


def wait_for_news(error: BaseException | None) -> None:
    """After an error that may be the end of another process: waits until that would be known, and it ends this one.

    Where an array is fetched, jax raises what a broken connection says as a ValueError that begins with its status.
    For the same error it waits once: the command line asks, and then the end of the program does.
    """
    global _waited_for
    if error is not None and error is _waited_for:
        return
    _waited_for = error
    of_jax = isinstance(error, jax.errors.JaxRuntimeError) and not str(error).startswith("RESOURCE_EXHAUSTED")
    if of_jax or (isinstance(error, ValueError) and _BROKEN.match(str(error))):
        # Until it must be known, and until process 0, which waits for the others' last words, must have ended.
        time.sleep(_lost_after * (1 + 2 / _PERIODS) + _last_words() + 2)


def _watch(lost_after: float) -> None:
    """Says that this process is there, and ends it where another is not."""
    client, me, n = _state().client, _state().process_id, _state().num_processes
    reached = time.monotonic()
    heard = {i: ("", reached) for i in range(n) if i != me}
    beat = 0
    while not _ends.wait(lost_after / _PERIODS if beat else 0):
        beat += 1
        try:
            client.key_value_set(f"{_STORE}/pulse/{me}", str(beat), allow_overwrite=True)
            said = {key.removeprefix(f"{_STORE}/"): value for key, value in client.key_value_dir_get(_STORE)}
        except Exception:  # the store is process 0's; it may answer in a moment
            if time.monotonic() - reached > lost_after:
                _end(f"Process 0 of {n} no longer answers: it ended, or its host did.", tell=False)
            continue
        reached = time.monotonic()
        for i, (pulse, since) in heard.items():
            if f"left/{i}" in said:
                _end(said[f"left/{i}"])
            if said.get(f"pulse/{i}", "") != pulse:
                heard[i] = said[f"pulse/{i}"], reached
            elif reached - since > lost_after:
                _end(f"Process {i} of {n} has been silent for {lost_after:g} s: it ended, or its host did.")


def _end(sentence: str, *, tell: bool = True) -> None:
    """Ends this process because of another; nothing where the program is at its end."""
    if not _ends.is_set():
        print(f"jaxcl: {sentence} {WHAT_NOW}", file=sys.stderr, flush=True)
        if tell:
            _go(sentence, 1)
        _exit(1)


def _last_words() -> float:
    """Seconds that process 0 leaves the others to read why all end."""
    return 2 * _lost_after / _PERIODS + 1


def _go(sentence: str, status: int) -> NoReturn:
    """Leaves the sentence to the others and ends, process 0 last: where it ends, the store does."""
    client, me, n = _state().client, _state().process_id, _state().num_processes
    try:
        client.key_value_set(f"{_STORE}/left/{me}", sentence, allow_overwrite=True)
        until = time.monotonic() + _last_words()
        while me == 0 and time.monotonic() < until and len(client.key_value_dir_get(f"{_STORE}/left")) < n:
            time.sleep(0.2)
        time.sleep(0.5 if me == 0 else 0)  # who has just said that it goes is still there
    except Exception:  # process 0 is gone, and the others learn it from jax
        pass
    _exit(status)


def _end_together(thread: threading.Thread) -> None:
    """The end of the program: with the others, or, after an error, with a word to them."""
    error = getattr(sys, "last_value", None)
    if error is not None:
        leave(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}", error=error)
    try:
        # The heartbeat thread still runs here: if another process dies, this wait ends as well.
        _state().client.wait_at_barrier(f"{_STORE}/end", timeout_in_ms=24 * 3600 * 1000)
    except Exception:  # nothing is left to be done with the others
        pass
    _ends.set()
    thread.join(timeout=5)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(number: int) -> None:
    sentence = f"jaxcl: aborted by jax, as it does where process 0 is gone; see above. {WHAT_NOW}\n"
    os.write(2, sentence.encode())


def _explain_aborts() -> None:
    """A sentence at the end of what jax writes; when it is written, the abort goes on."""
    # Python's own handlers run between two lines of Python, and after an abort there is no next line.
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal(signal.SIGABRT, ctypes.cast(_aborted, ctypes.c_void_p))


def _nobody_came(timeout: float) -> None:
    state = _state()
    where, n, me = state.coordinator_address, state.num_processes, state.process_id
    sentence = f"Not all processes have come within {timeout:g} s."
    if where is not None:
        sentence = f"Not all of the {n} processes have come to {where} within {timeout:g} s."
        host, _, port = where.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            sentence += f" This is process {me}; start the others as well, each with its own number."
        except (OSError, ValueError):
            sentence += f" Nothing listens there: start process 0 on {host}, or mend the address."
    print(f"jaxcl: {sentence}", file=sys.stderr, flush=True)
    _exit(1)


def _exit(status: int) -> NoReturn:
    # Not sys.exit: at exit jax would wait for processes that are gone.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(status)


def _state() -> Any:
    # The store has no public name.
    from jax._src import distributed

    return distributed.global_state
