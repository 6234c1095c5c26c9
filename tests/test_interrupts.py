"""Ctrl-C is heard wherever it comes, once, and ends a command with a sentence."""

import gc
import os
import signal
import subprocess
import sys
import time
from importlib import import_module

import pytest

from jaxcl.interrupts import heard, raises


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def ctrl_c_is_pythons_own():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def wait(act):
    """An interrupt comes while this is done, or soon after it."""
    act()
    for _ in range(200):
        time.sleep(0.01)
    pytest.fail("The interrupt was lost.")


def test_an_interrupt_is_raised_where_it_comes_and_afterwards_all_is_as_before():
    hook = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), heard():
        interrupt()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1
    assert sys.unraisablehook is hook


def test_an_interrupt_in_a_callback_of_the_garbage_collection_is_not_lost(capfd):
    def call(phase, _):
        gc.callbacks.remove(call)
        interrupt()

    gc.callbacks.append(call)
    with pytest.raises(KeyboardInterrupt), heard():
        wait(gc.collect)
    assert "Exception ignored" not in capfd.readouterr().err


def test_an_interrupt_amid_an_import_waits_until_all_is_there(tmp_path, monkeypatch):
    (tmp_path / "slow_module.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(0.12)\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(KeyboardInterrupt), heard():
        wait(lambda: import_module("slow_module"))
    assert sys.modules["slow_module"].whole


def test_a_second_interrupt_ends_a_program_that_does_not_mind_the_first():
    program = """
import os, signal, threading, time
from jaxcl.interrupts import heard
signal.signal(signal.SIGINT, signal.default_int_handler)

def twice():
    for _ in range(2):
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

with heard():
    threading.Thread(target=twice).start()
    while True:
        try:
            time.sleep(0.01)
        except KeyboardInterrupt:
            pass
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.returncode == 130, done.stderr
    assert done.stderr.strip() == "jaxcl: ended at once, unsaved."


def test_who_ignores_interrupts_or_has_a_handler_keeps_it():
    for other in (signal.SIG_IGN, lambda *_: None):
        signal.signal(signal.SIGINT, other)
        with heard():
            assert signal.getsignal(signal.SIGINT) is other
            assert not raises()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert raises()
    with heard():
        mine = signal.getsignal(signal.SIGINT)
        assert raises()
        with heard():
            assert signal.getsignal(signal.SIGINT) is mine


@pytest.mark.parametrize("name", ["jaxcl.cli", "jaxcl.shipped"])
def test_a_command_that_is_interrupted_while_it_loads_says_so_and_ends_with_130(name):
    # The interrupt comes when this module is looked for.
    program = f"""
import os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)

class Finder:
    def find_spec(self, name, *_):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
sys.argv = ["jaxcl", "configs"]
runpy.run_module("jaxcl", run_name="__main__", alter_sys=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.returncode == 130, done.stderr
    assert done.stderr.strip() in ("jaxcl: interrupted.", "jaxcl configs: interrupted.")


def test_the_command_line_listens_before_jax_is_loaded():
    program = (
        "import sys, jaxcl, jaxcl.cli; print([name for name in ('jax', 'numpy') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
