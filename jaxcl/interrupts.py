"""Ctrl-C that is heard: it ends a command from its first moment on, with a sentence and not with a traceback.

    with heard():
        ...          # a KeyboardInterrupt, at the first moment at which one can be caught; the second ends all

Python raises KeyboardInterrupt in whatever code is running, and some code cannot pass it on. In a callback (jax has one
at each garbage collection, and importing jax collects often) the error is printed and the program continues: four of
twelve interrupts of a starting `jaxcl train` were lost like this. During an import, the C++ code of numpy or jax prints
it and raises an ImportError instead. While XLA compiles, Python handles no signal at all.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_AFTER = 0.05  # seconds; an import takes many times that, a callback less
_AGAIN = 0  # to be sent again; no signal has this number


@contextmanager
def heard() -> Iterator[None]:
    """Within the block Ctrl-C raises KeyboardInterrupt, as soon as a running import is complete. A second Ctrl-C ends
    the program at once, with status 130. Nothing changes if Ctrl-C is ignored (nohup), if another handler or this one
    is installed already, or in a thread that is not the main one."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    listening, told = os.pipe()
    os.set_blocking(told, False)
    ended = threading.Event()
    waits = False  # an interrupt, until it can be caught

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal waits
        waits = _importing(frame)
        if not waits:
            raise KeyboardInterrupt
        os.write(told, bytes([_AGAIN]))

    def dropped(said: sys.UnraisableHookArgs) -> None:
        nonlocal waits
        if issubclass(said.exc_type, KeyboardInterrupt):
            waits = True
            os.write(told, bytes([_AGAIN]))  # and no more: the program may hold any lock here
        else:
            unraisable(said)

    def listen() -> None:
        interrupts = 0
        while numbers := os.read(listening, 64):
            interrupts += numbers.count(signal.SIGINT) - numbers.count(_AGAIN)
            if interrupts > 1:
                os.write(2, b"\njaxcl: ended at once, unsaved.\n")
                os._exit(130)
            if _AGAIN in numbers and not ended.wait(AGAIN_AFTER):
                os.kill(os.getpid(), signal.SIGINT)
        os.close(listening)

    threading.Thread(target=listen, name="jaxcl-interrupts", daemon=True).start()
    unraisable, sys.unraisablehook = sys.unraisablehook, dropped
    woken = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, interrupt)
    interrupt.is_heard = True  # type: ignore[attr-defined]
    try:
        yield
        if waits:  # the block was done before the interrupt was sent again
            raise KeyboardInterrupt
    finally:
        ended.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.set_wakeup_fd(woken)
        sys.unraisablehook = unraisable
        os.close(told)


def raises() -> bool:
    """Whether Ctrl-C is a KeyboardInterrupt: Python's own, or that of `heard`."""
    handler = signal.getsignal(signal.SIGINT)
    return handler is signal.default_int_handler or getattr(handler, "is_heard", False)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "_find_and_load" and "importlib" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False
