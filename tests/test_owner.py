"""Nobody trains where another does, and nobody who is gone is in the way."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxcl.owner import FILE, owned, owner

HOLD = """
import sys, time
from jaxcl.owner import owned
with owned(sys.argv[1]):
    print("mine", flush=True)
    time.sleep(60)
"""


def start(run_dir):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run_dir)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "mine\n"
    return process


def test_a_second_process_is_told_who_the_first_is_and_a_kill_sets_the_directory_free(tmp_path):
    first = start(tmp_path)
    try:
        with pytest.raises(ValueError, match=f"process {first.pid} on .*, since 20"), owned(tmp_path):
            pass
        assert owner(tmp_path)["process"] == first.pid
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        first.stdout.close()
    assert owner(tmp_path) is None
    with owned(tmp_path):  # at once
        assert owner(tmp_path)["process"] == os.getpid()


def test_the_end_of_a_run_leaves_no_owner(tmp_path):
    for _ in range(2):
        with owned(tmp_path / "new" / "run"):
            pass
    assert owner(tmp_path / "new" / "run") is None
    with pytest.raises(RuntimeError), owned(tmp_path):
        raise RuntimeError
    assert owner(tmp_path) is None


def leave_behind(run_dir):
    """As a host leaves it that went down."""
    (run_dir / FILE).write_text(
        json.dumps({"host": "far away", "process": 7, "since": "2026-01-01 00:00:00"})
    )


def test_one_on_another_host_that_gives_no_sign_is_gone(tmp_path):
    leave_behind(tmp_path)
    said = []
    with owned(tmp_path, gone_after=0.3, say=said.append):
        pass
    assert "process 7 on far away" in said[0]


def test_one_on_another_host_that_gives_signs_is_not(tmp_path):
    leave_behind(tmp_path)
    ended = threading.Event()

    def touch():
        while not ended.wait(0.05):
            os.utime(tmp_path / FILE, ns=(time.time_ns(), time.time_ns()))

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        with pytest.raises(ValueError, match="process 7 on far away, since 2026-01-01"):
            with owned(tmp_path, gone_after=5, say=lambda line: None):
                pass
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "\udcff"])
def test_a_file_that_is_not_ours_is_in_nobodys_way(text, tmp_path):
    (tmp_path / FILE).write_bytes(text.encode(errors="surrogateescape"))
    with owned(tmp_path):
        assert owner(tmp_path)["process"] == os.getpid()
