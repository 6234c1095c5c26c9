"""Several real processes, on this machine: what they compute together is what one process computes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxcl import processes as module
from jaxcl.evaluate import knn_accuracy
from jaxcl.processes import WHAT_NOW
from jaxcl.train.log import read_metrics

ROOT = Path(__file__).parents[1]
PIPES: dict = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

HEAD = """
import json, os, sys, time
from pathlib import Path
process, processes, address, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
import jax
from jaxcl.processes import join
if processes > 1:
    join(address=address, processes=processes, process=process, timeout=float(sys.argv[5]), lost_after=10.0)
import numpy as np
from jaxcl.typing import Images

def squares(n, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    images = rng.integers(0, 150, (n, 8, 8, 3)) + 50 * labels[:, None, None, None]
    return Images("squares", images.astype(np.uint8), labels)
"""

RECIPE = """
import optax
from jaxcl import augment, nets
from jaxcl.config import Recipe
from jaxcl.devices import axis_name
from jaxcl.evaluate import online_knn
from jaxcl.losses import keyless, nt_xent
from jaxcl.methods import simclr
from jaxcl.train import Callback, train

def recipe(placement, steps):
    axis = axis_name(placement)
    norm = nets.batch_norm(axis_name=axis)
    views = augment.two_views(augment.crop_and_flip(8))
    method = simclr(
        views=views,
        encoder=nets.conv_n(features=(4,), dense=8, norm=norm),
        head=nets.projection_head(layers=2, out=4, norm=norm),
        loss=keyless(nt_xent, temperature=1.0),
        axis_name=axis,
    )
    rate = optax.constant_schedule(0.002)
    return Recipe(method, optax.sgd(0.002), rate, views, batch_size=16, steps=steps)
"""


def start(program, folder, *, processes, devices, timeout=120):
    """The program in so many processes of so many devices, which wait `timeout` seconds for each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = f"--xla_force_host_platform_device_count={devices}"
    words = [str(processes), address, str(folder), str(timeout)]
    return [
        subprocess.Popen(
            [sys.executable, "-c", HEAD + program, str(i), *words],
            env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
            cwd=folder,
            **PIPES,
        )
        for i in range(processes)
    ]


def finish(started, *, timeout=300):
    """Their exit statuses, and what each said."""
    end, said = time.monotonic() + timeout, []
    try:
        for process in started:
            said.append("".join(process.communicate(timeout=max(1, end - time.monotonic()))))
    finally:
        for process in started:
            process.kill()
    return [process.returncode for process in started], said


def run(program, folder, *, processes, devices):
    statuses, said = finish(start(program, folder, processes=processes, devices=devices))
    assert statuses == [0] * processes, "\n\n".join(said)


# --- evaluation --------------------------------------------------------------------------------------------------

EMBED = """
from jaxcl.evaluate import embed, knn_accuracy
class Watched:
    \"\"\"Images that remember which of them were asked for.\"\"\"
    def __init__(self, images):
        self.images, self.shape, self.dtype, self.asked = images, images.shape, images.dtype, []
    def __len__(self):
        return len(self.images)
    def __getitem__(self, which):
        self.asked += np.arange(len(self))[which].tolist()
        return self.images[which]
train, test = (Watched(squares(n, i).images) for i, n in enumerate((50, 23)))
weights = np.random.default_rng(5).normal(size=(192, 7)).astype(np.float32)
bank, queries = (embed(lambda x: x.reshape(len(x), -1) @ weights, x, batch_size=8) for x in (train, test))
single = embed(lambda x: x.reshape(len(x), -1), train.images[:1])
accuracy = knn_accuracy(bank, squares(50, 0).labels, queries, squares(23, 1).labels, k=3)
asked = [train.asked, test.asked]
found = {"asked": asked, "bank": bank.tolist(), "queries": queries.tolist(), "knn": accuracy, "single": single.shape}
(folder / f"{processes}-{process}.json").write_text(json.dumps(found))
"""


def test_two_processes_embed_each_image_once_and_know_all_features(tmp_path):
    run(EMBED, tmp_path, processes=2, devices=2)
    both = [json.loads((tmp_path / f"2-{i}.json").read_text()) for i in range(2)]
    here: dict = {}
    exec(HEAD[HEAD.index("import numpy") :], here)
    sets = [here["squares"](n, i) for i, n in enumerate((50, 23))]
    weights = np.random.default_rng(5).normal(size=(192, 7)).astype(np.float32)
    bank, queries = (images.images.reshape(-1, 192) / 255 @ weights for images in sets)
    for i, n in enumerate((50, 23)):
        asked = [found["asked"][i] for found in both]
        assert sorted(sum(asked, [])) == list(range(n))
        assert abs(len(asked[0]) - len(asked[1])) <= 1
    for found in both:
        np.testing.assert_allclose(found["bank"], bank, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found["queries"], queries, rtol=1e-5, atol=1e-5)
        assert found["knn"] == knn_accuracy(bank, sets[0].labels, queries, sets[1].labels, k=3)
        assert found["single"] == [1, 192]


PROTOCOLS = """
from jax.tree_util import Partial
from jaxcl import augment
from jaxcl.evaluate import PROTOCOLS, Subject, probe
probe.SHARED = 0
def apply(params, state, images):
    return jax.numpy.tanh((images - state).reshape(len(images), -1) @ params)
weights = jax.random.normal(jax.random.key(1), (192, 6)) / 10
subject = Subject(Partial(apply, weights, jax.numpy.float32(0.5)), squares(60, 0), squares(40, 1))
crops = augment.n_views(augment.crop_and_flip(8), 1)
settings = {
    "knn": {},
    "linear": {"l2": (1e-3, 1e-1), "iterations": 50},
    "fewshot5": {"draws": 5, "steps": 20},
    "linear_sgd": {"epochs": 3, "views": crops},
    "finetune10": {"epochs": 3, "batch_size": 4},
    "corruption": {"images": 12, "names": ("contrast",)},
}
found = {name: PROTOCOLS[name](jax.random.key(3), subject, **more) for name, more in settings.items()}
(folder / f"{processes}-{process}.json").write_text(json.dumps(found))
"""


@pytest.mark.slow
def test_every_process_finds_what_one_finds_under_every_protocol(tmp_path):
    for processes, devices in ((1, 2), (2, 2), (4, 1)):
        run(PROTOCOLS, tmp_path, processes=processes, devices=devices)
    one = json.loads((tmp_path / "1-0.json").read_text())
    for name in [f"{n}-{i}" for n in (2, 4) for i in range(n)]:
        found = json.loads((tmp_path / f"{name}.json").read_text())
        for protocol, result in one.items():
            for key in ("settings", "train_images", "test_images", "features"):
                assert found[protocol][key] == result[key], (name, protocol, key)
            for key in ("accuracy", "standard_error"):
                assert found[protocol][key] == pytest.approx(result[key], abs=1e-5), (name, protocol, key)
            np.testing.assert_allclose(found[protocol].get("losses", 0), result.get("losses", 0), rtol=1e-5)


# --- training ----------------------------------------------------------------------------------------------------

TRAIN = """
from functools import partial
from jaxcl.plan import ahead
compiled = partial(ahead, batch_size=16, config="squares.py", say=lambda line: None)
for placement, steps, run_dir in {jobs}:
    plan = recipe(placement, steps)
    knn = Callback(1, online_knn(plan.method.embed, squares(48, 0), squares(30, 1)))
    settings = {{"log_every": 1, "run_dir": folder / run_dir, "callbacks": [knn], "quiet": True, "ahead": compiled}}
    lane = {{"jit": "device", "shard_map": "resident", "pmap": "host"}}[placement]
    state = train(plan, squares(48, 0), placement=placement, input=lane, **settings)
    if process == 0:
        whole = [np.asarray(x).ravel() for x in jax.tree.leaves((state.params, state.state, state.opt_state))]
        np.save(folder / f"{{run_dir}}-{{steps}}.npy", np.concatenate(whole))
"""


@pytest.mark.slow
def test_two_processes_train_what_one_trains_and_go_on_with_its_run(tmp_path):
    placements = ("jit", "shard_map", "pmap")
    for processes, devices in ((2, 4), (1, 8)):
        jobs = [(placement, 3, f"{placement}{processes}") for placement in placements]
        run(RECIPE + TRAIN.format(jobs=jobs), tmp_path, processes=processes, devices=devices)
    # Each goes on with the other's, the one on fewer devices.
    for processes, devices, other in ((1, 2, 2), (2, 4, 1)):
        jobs = [(placement, 5, f"{placement}{other}") for placement in placements]
        run(RECIPE + TRAIN.format(jobs=jobs), tmp_path, processes=processes, devices=devices)
    for placement in placements:
        for steps in (3, 5):
            assert_same_run(tmp_path, f"{placement}1", f"{placement}2", steps)


def assert_same_run(folder, run_dir, other, steps):
    """Parameters, state and what was logged agree, up to rounding."""
    one, two = (np.load(folder / f"{name}-{steps}.npy") for name in (run_dir, other))
    np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-5)
    one, two = (read_metrics(folder / name) for name in (run_dir, other))
    assert [record["step"] for record in two] == [record["step"] for record in one]
    # A gradient shows the rounding of the parameters magnified: its norm falls from 50 to 10 in these few steps.
    for name, tolerance in (("loss", 1e-5), ("knn_accuracy", 1e-5), ("grad_norm", 1e-4)):
        values = [[record[name] for record in records if name in record] for records in (one, two)]
        np.testing.assert_allclose(values[1], values[0], rtol=tolerance)


@pytest.mark.parametrize(
    "placement", ["jit", *(pytest.param(name, marks=pytest.mark.slow) for name in ("shard_map", "pmap"))]
)
def test_four_processes_train_what_one_trains(tmp_path, placement):
    for processes, devices in ((4, 2), (1, 8)):
        jobs = [(placement, 3, f"{placement}{processes}")]
        run(RECIPE + TRAIN.format(jobs=jobs), tmp_path, processes=processes, devices=devices)
    assert_same_run(tmp_path, f"{placement}1", f"{placement}4", 3)


SAVE = """
import threading
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxcl import devices
from jaxcl.train import checkpoint
from jaxcl.train.saver import Saver

mesh = devices.make_mesh()
halves = jax.device_put(np.zeros((64, 100), np.float32), NamedSharding(mesh, PartitionSpec(mesh.axis_names[0])))
start = state = {"whole": devices.replicate(jnp.zeros((40, 100)), mesh), "halves": halves}
step = jax.jit(lambda state: (jax.tree.map(lambda x: x + 1, state), state["halves"].sum()), donate_argnums=0)
go, digest = threading.Event(), checkpoint._digest
checkpoint._digest = lambda path: go.wait(60) and digest(path)  # process 0's, before the step has its name
with Saver() as saver:
    for number in (0, 5):
        saver.save(folder / "saved", number, state)
        for _ in range(5):  # in which the processes meet
            state, total = step(state)
        jax.block_until_ready(total)
        assert process or not (folder / "saved" / str(number)).exists()
        go.set()
        saver.wait()
        assert (folder / "saved" / str(number)).exists()
        go.clear()
    go.set()
for number in (0, 5):
    found, _ = checkpoint.restore(folder / "saved", state, step=number)
    for x in found.values():
        for shard in x.addressable_shards:
            np.testing.assert_array_equal(shard.data, number)
"""


@pytest.mark.slow
def test_what_two_processes_save_beside_their_steps_is_the_state_before_these(tmp_path):
    run(SAVE, tmp_path, processes=2, devices=2)


# --- the end -----------------------------------------------------------------------------------------------------

ENDLESS = """
import signal
from unittest import mock
from jaxcl.cli import command
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have told its children to ignore it

def go(words):
    images = squares(48, 0)
    def beat(step, params, state):
        if step == 3:
            (folder / f"three{process}").touch()
        if step > 3 and (folder / f"fail{process}").exists():
            raise ValueError("Image 7 is damaged.")
        time.sleep(0.1)
        return {}
    callbacks = [Callback(1, beat)]
    train(recipe("jit", 10000), images, save_every=10000, run_dir=folder / "run", callbacks=callbacks, quiet=True)

with mock.patch.object(command, "train", go):
    sys.exit(command.main(["train"]))
"""


def in_training(folder, processes):
    """Processes that are in the middle of a run."""
    started = start(RECIPE + ENDLESS, folder, processes=processes, devices=1)
    end = time.monotonic() + 150
    while not all((folder / f"three{i}").exists() for i in range(processes)):
        if time.monotonic() > end or any(process.poll() is not None for process in started):
            raise AssertionError("\n\n".join(finish(started, timeout=1)[1]))
        time.sleep(0.1)
    return started


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "number", "statuses"),
    [(2, signal.SIGTERM, [75, 75]), (2, signal.SIGINT, [75, 130]), (1, signal.SIGINT, [130])],
)
def test_a_signal_to_one_process_saves_once_and_ends_all(tmp_path, processes, number, statuses):
    started = in_training(tmp_path, processes)
    started[-1].send_signal(number)
    ended, said = finish(started, timeout=60)
    assert ended == statuses, said
    assert len(list((tmp_path / "run/checkpoints").iterdir())) == 1
    assert all("and saved. The same command resumes the run." in words for words in said)
    assert "Traceback" not in "".join(said)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("who", "status", "sentence"),
    [
        (1, 1, "Process 1 of 2 has been silent for 10 s"),
        (0, -signal.SIGABRT, "as it does where process 0 is gone"),
    ],
)
def test_where_one_process_is_killed_the_other_ends_with_a_sentence(tmp_path, who, status, sentence):
    started = in_training(tmp_path, 2)
    started[who].kill()
    ended, said = finish(started, timeout=60)
    assert ended[1 - who] == status, said
    assert sentence in said[1 - who]
    assert said[1 - who].rstrip().endswith(WHAT_NOW)


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (
            ValueError("UNKNOWN: Gloo AllGather failed: Read error [127.0.0.1]:3: Connection reset by peer"),
            True,
        ),
        (
            jax.errors.JaxRuntimeError(
                "FAILED_PRECONDITION: Buffer Definition Event: Gloo all-reduce failed"
            ),
            True,
        ),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), False),
        (ValueError("Image 7 is damaged."), False),
        (None, False),
    ],
)
def test_only_an_error_that_may_be_the_end_of_another_waits_for_news_of_it(error, waits, monkeypatch):
    waited = []
    monkeypatch.setattr(module.time, "sleep", waited.append)
    monkeypatch.setattr(module, "_lost_after", 8.0)
    module.wait_for_news(error)
    # It is known after 8 s and two periods of one; process 0 then leaves two periods and a second for last words.
    assert waited == ([10.0 + 3.0 + 2.0] if waits else [])


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 1])
def test_an_error_of_one_process_is_told_to_the_other(tmp_path, who):
    started = in_training(tmp_path, 2)
    (tmp_path / f"fail{who}").touch()
    ended, said = finish(started, timeout=60)
    assert ended == [1, 1], said
    assert "jaxcl train: Image 7 is damaged." in said[who]
    assert f"Process {who} of 2 ended (Image 7 is damaged.)." in said[1 - who]


@pytest.mark.slow
@pytest.mark.parametrize(("who", "sentence"), [(0, "This is process 0"), (1, "Nothing listens there")])
def test_who_waits_in_vain_for_the_others_says_so(tmp_path, who, sentence):
    started = start("", tmp_path, processes=2, devices=1, timeout=8)
    started[1 - who].kill()
    ended, said = finish(started, timeout=60)
    assert ended[who] == 1
    assert "Not all of the 2 processes have come to 127.0.0.1" in said[who]
    assert sentence in said[who]


DEAF = """
import hashlib, signal, sys, threading
from unittest import mock
from jaxcl.cli import command
signal.signal(signal.SIGINT, signal.default_int_handler)

def deaf(words):  # inside a library for minutes, as while XLA compiles
    threading.Timer(1.0, print, ("here",), {"flush": True}).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)

with mock.patch.object(command, "train", deaf):
    sys.exit(command.main(["train"]))
"""


def test_two_interrupts_end_a_program_that_cannot_listen():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", DEAF], env=environment, **PIPES) as process:
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert process.stderr.read() == "\njaxcl: ended at once, unsaved.\n"


# --- started alike -----------------------------------------------------------------------------------------------

ALIKE = """
from jaxcl.identity import check_processes
mine = {"config": "text", "data": "digest", "knobs": {"seed": 0, "rate": 0.1}}
wrong = {
    "knobs": mine | {"knobs": {"seed": 0, "rate": 0.2}},
    "names": mine | {"knobs": {"seed": 0}},
    "images": mine | {"data": "another"},
    "nothing": mine,
}
said = {}
for name, other in wrong.items():
    try:
        check_processes(folder / "run", mine if process == 0 else other)
        said[name] = ""
    except ValueError as error:
        said[name] = str(error)
try:
    check_processes(folder / f"run{process}", mine)
except ValueError as error:
    said["disk"] = str(error)
(folder / f"{process}.json").write_text(json.dumps(said))
"""


@pytest.mark.slow
def test_processes_that_were_not_started_alike_are_told_so_before_the_first_step(tmp_path):
    run(ALIKE, tmp_path, processes=2, devices=1)
    first, second = (json.loads((tmp_path / f"{i}.json").read_text()) for i in range(2))
    for said in (first, second):
        assert "process 1 differs from process 0 in --rate" in said["knobs"]
        assert "process 1 differs from process 0 in knobs" in said["names"]
        assert "process 1 differs from process 0 in images" in said["images"]
        assert said["nothing"] == ""
        assert "Process 1 does not see the run directory of process 0" in said["disk"]
    assert not list((tmp_path / "run").iterdir())


SPOILT = (
    RECIPE
    + """
images = squares(64, 0)
pixels = images.images.astype(np.float32) / 255
pixels[7, 2, 2, 0] = np.nan
said = {}
for nonfinite in ("stop", "skip"):
    try:
        state = train(
            recipe("jit", 8), images._replace(images=pixels), nonfinite=nonfinite, log_every=4, save_every=4,
            run_dir=folder / "run", quiet=True,
        )
        said[nonfinite] = int(state.step)
    except FloatingPointError as error:
        said[nonfinite] = str(error)
(folder / f"{process}.json").write_text(json.dumps(said))
"""
)


@pytest.mark.slow
def test_a_spoilt_image_of_either_process_is_named_in_both_and_the_state_before_it_is_kept(tmp_path):
    run(SPOILT, tmp_path, processes=2, devices=2)
    first, second = (json.loads((tmp_path / f"{i}.json").read_text()) for i in range(2))
    assert first == second
    assert "by their number in the data set: 7." in first["stop"]
    assert first["skip"] == 8
    lines = (tmp_path / "run" / "nonfinite" / "steps.jsonl").read_text().splitlines()
    assert [json.loads(line)["images_not_finite"] for line in lines] == [[7], [7]]  # one in each epoch
    assert all(len(json.loads(line)["images"]) == 16 for line in lines)
