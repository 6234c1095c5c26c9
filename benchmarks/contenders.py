"""Contenders of a benchmark: each a process of its own, on one core and one thread, that waits between its turns.

The benchmark's own process calls `race`. Each contender's calls `pin`, makes itself ready, and then `serve`.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

ONE_THREAD = {
    "JAX_PLATFORMS": "cpu",
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


def race(commands, rounds, **environment):
    """name -> what the contender says of itself, and "cpu" and "wall", the seconds of each round; or why it has none.

    `commands` start the contenders, by name. Rounds go through all of them in order, so that a busy machine is busy
    for all.
    """
    environment = {**os.environ, **ONE_THREAD, **environment}
    results, running = {}, {}
    for name, command in commands.items():
        process = subprocess.Popen(
            command,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        about = process.stdout.readline()
        if about:
            running[name], results[name] = process, {**json.loads(about), "cpu": [], "wall": []}
        else:
            lines = process.stderr.read().strip().splitlines() or ["ended without a word"]
            results[name] = lines[-1][:110]
            process.wait()
    for _ in range(rounds):
        for name, process in list(running.items()):
            process.stdin.write("\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if answer:
                cpu, wall = json.loads(answer)
                results[name]["cpu"].append(cpu)
                results[name]["wall"].append(wall)
            else:
                results[name] = "ended while computing (out of memory?)"
                running.pop(name).wait()
    for process in running.values():
        process.stdin.close()
        process.wait()
    return results


def pin(core):
    """Keeps this process on one core, where the system can; not if it is negative."""
    if core >= 0 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def serve(about, once, warm=lambda: None):
    """Says that it is ready, then computes once for every line on its input; `warm` comes before and is not counted."""
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        warm()
        cpu, wall = time.process_time(), time.perf_counter()
        once()
        print(json.dumps([time.process_time() - cpu, time.perf_counter() - wall]), flush=True)


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
