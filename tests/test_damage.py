"""Whatever happens to the files of a run, reading them ends in a sentence or in what was there, and writes nothing."""

import hashlib
import json
import os
import shutil
import warnings
from functools import cache, partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxcl.cli import main
from jaxcl.config import load_config
from jaxcl.data import load
from jaxcl.identity import check_same, fingerprint, identity
from jaxcl.records import fits, read_json
from jaxcl.runs import create_or_resume, evaluations, open_run, trained_on
from jaxcl.train import checkpoint, finite, init_state
from jaxcl.train.checkpoint import _sealed
from jaxcl.train.log import read_metrics
from jaxcl.train.state import blank_batch
from jaxcl.typing import About

CONFIG = """
from dataclasses import dataclass
import jax
import jax.numpy as jnp
import optax
from jaxcl import About, CommonKnobs, Method, Recipe


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    batch_size: int = 8
    log_every: int = 2
    save_every: int = 2
    widths: tuple[int, ...] = (4, 2)


def recipe(knobs: Knobs, about: About) -> Recipe:
    def init(key, batch):
        return {"w": jax.random.normal(key, knobs.widths)}, {}

    def loss(params, state, key, batch):
        z = batch["image"].reshape(-1, 4) / 255 @ params["w"]
        return jnp.mean(z**2), (state, {})

    def embed(params, state, images):
        return images.reshape(len(images), -1) @ params["w"]

    return Recipe(Method(init, loss, embed), optax.sgd(0.1), lambda step: 0.1, None, 4, knobs.batch_size)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A finished run of two checkpoints with an evaluation, and its images; in `copy` it is damaged and mended."""
    folder = tmp_path_factory.mktemp("world")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 2, 2, 1), np.uint8)
    labels = np.arange(40) % 2
    np.savez(
        folder / "images.npz",
        train_images=pixels,
        train_labels=labels,
        test_images=pixels,
        test_labels=labels,
    )
    (folder / "config.py").write_text(CONFIG)
    words = ["--run-dir", str(folder / "run"), "--data", f"npz:{folder / 'images.npz'}"]
    assert main(["train", str(folder / "config.py"), *words]) == 0
    assert main(["evaluate", str(folder / "run"), "--protocol", "knn", "--no-baselines"]) == 0
    for events in (folder / "run").glob("events*"):
        events.unlink()
    return folder


def digest(folder):
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = "link" if path.is_symlink() else "folder" if path.is_dir() else "file"
        found[str(path.relative_to(folder))] = (
            hashlib.sha256(path.read_bytes()).hexdigest() if kind == "file" else kind
        )
    return found


def read_all(run_dir):
    """All that reads a run directory, as far as each comes; what it read, and the sentences."""
    said, got = [], {}

    def attempt(name, function):
        try:
            got[name] = function()
        except (ValueError, OSError) as error:
            said.append(str(error))

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        attempt("run", lambda: open_run(run_dir))
        attempt(
            "config", lambda: load_config(run_dir / "config.py")
        )  # one that is changed is a stranger's to a run
        attempt("metrics", lambda: read_metrics(run_dir))
        attempt("evaluations", lambda: evaluations(run_dir))
        attempt("nonfinite", lambda: finite.read(run_dir))
        attempt("steps", lambda: checkpoint.steps(run_dir / "checkpoints"))
        if "run" in got:
            run = got["run"]
            like = init_state_of(run)
            attempt("state", lambda: checkpoint.restore(run_dir / "checkpoints", like))

            def same():
                mine = identity(CONFIG, run.knobs, fingerprint(run.data().train))
                return check_same(run_dir, mine, run.knobs)

            attempt("same", same)
    return got, said + [str(warning.message) for warning in warned]


def init_state_of(run):
    import jax

    init = partial(
        init_state, method=run.recipe.method, tx=run.recipe.optimizer, batch=blank_batch(run.about)
    )
    # Its shapes alone are looked at, and are known without compiling.
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(init, jax.random.key(0)))


JUNK = [
    b"",
    b"\n",
    b"null\n",
    b"[]\n",
    b"{}\n",
    b"7\n",
    b'"text"\n',
    b"[" * 100_000,
    b'{"a":' * 60 + b"1" + b"}" * 60,
    b"\xff\xfe\x00",
    b'{"step": "seven", "loss": 1}\n',
    b'{"step": Infinity}\n',
    b'{"step": null}\n',
    b'{"batch_size": "8"}\n',
    b"def",
    b"raise SystemError('no')",
    b'{"about": {"count": 3}, "config": 1, "device": []}\n',
]
DAMAGES = st.one_of(
    st.tuples(st.just("junk"), st.sampled_from(JUNK)),
    st.tuples(st.just("cut"), st.floats(0, 1)),
    st.tuples(st.just("flip"), st.floats(0, 1)),
    st.tuples(st.sampled_from(["delete", "folder", "link", "append"]), st.just(0)),
)


def harm(path, kind, how):
    data = path.read_bytes()
    place = int(how * (len(data) - 1)) if isinstance(how, float) and data else 0
    if kind == "junk":
        path.write_bytes(how)
    elif kind == "cut":
        path.write_bytes(data[:place])
    elif kind == "flip" and data:
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x15]) + data[place + 1 :])
    elif kind == "append":
        path.write_bytes(data + b"\x00{")
    elif kind in ("delete", "folder", "link"):
        path.unlink()
        if kind == "folder":
            path.mkdir()
        elif kind == "link":
            path.symlink_to("/nowhere/at/all")


def fuzz_the_run(world, number, kind, how, tmp):
    shutil.rmtree(tmp, ignore_errors=True)
    shutil.copytree(world / "run", tmp)
    files = sorted(path for path in tmp.rglob("*") if path.is_file())
    # Half of the damages meet the few files that are read as text; checkpoints have many more.
    few = [path for path in files if "checkpoints" not in path.parts or path.name == "manifest.json"]
    path = (few if number % 2 else files)[number // 2 % len(few if number % 2 else files)]
    harm(path, kind, how)
    before = digest(tmp)
    got, said = read_all(tmp)
    assert all(len(sentence) > 10 for sentence in said)
    assert digest(tmp) == before, "reading wrote something"
    whole = unharmed(world / "run")
    if "state" in got:
        state, step = got["state"]
        assert step in (2, 4)
        if step == 2:
            assert said, "an older checkpoint without a word"
        want, _ = (
            whole["state"] if step == 4 else checkpoint.restore(world / "run" / "checkpoints", state, step=2)
        )
        assert all(np.array_equal(a, b) for a, b in zip(leaves(state), leaves(want), strict=True)), (
            "another state without a word"
        )
    if "run" in got and path.name in ("knobs.json", "run.json") and not said:
        for name in ("knobs", "about"):
            changed = getattr(got["run"], name) != getattr(whole["run"], name)
            # A digit that became another is as good a number, and no sentence can know.
            assert not changed or kind == "flip" or kind == "junk"


@cache
def unharmed(run_dir):
    return read_all(run_dir)[0]


def leaves(tree):
    import jax

    return jax.tree.leaves(tree)


quick = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@quick
@given(number=st.integers(0, 10_000), damage=DAMAGES)
def test_a_damaged_run_is_answered_by_a_sentence(world, number, damage):
    fuzz_the_run(world, number, *damage, world / "copy" / "run")


@pytest.mark.slow
@settings(quick, max_examples=500)
@given(number=st.integers(0, 10_000), damage=DAMAGES)
def test_a_run_damaged_in_five_hundred_ways_is_answered_by_a_sentence(world, number, damage):
    fuzz_the_run(world, number, *damage, world / "copy" / "run")


def fuzz_the_images(world, kind, how):
    file = world / "harmed.npz"
    if file.is_dir() and not file.is_symlink():
        file.rmdir()
    file.unlink(missing_ok=True)
    shutil.copy(world / "images.npz", file)
    harm(file, kind, how)
    want = load(f"npz:{world / 'images.npz'}", "train")
    try:
        got = load(f"npz:{file}", "train")
    except (ValueError, OSError) as error:
        said = str(error)
    else:
        said = ""
        assert np.array_equal(got.labels, want.labels)
        assert np.array_equal(got.images, want.images), "other pixels without a word"
    assert not said or len(said) > 10


@settings(quick, max_examples=60)
@given(damage=DAMAGES)
def test_damaged_arrays_are_answered_by_a_sentence(world, damage):
    fuzz_the_images(world, *damage)


@pytest.mark.slow
@settings(quick, max_examples=500)
@given(damage=DAMAGES)
def test_arrays_damaged_in_five_hundred_ways_are_answered_by_a_sentence(world, damage):
    fuzz_the_images(world, *damage)


def spoil_manifest(folder, change):
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["sha256"]
    change(manifest)
    file.write_text(_sealed(manifest))


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("arrays"),
        lambda manifest: manifest.pop("files"),
        lambda manifest: manifest.pop("step"),
        lambda manifest: manifest.update(arrays=[]),
        lambda manifest: manifest["files"].update(more=3),
        lambda manifest: manifest.update(arrays={"params/w": ["float32", "shape"]}),
    ],
)
def test_a_manifest_that_is_sealed_and_lacks_what_is_needed_is_damaged(world, tmp_path, change):
    shutil.copytree(world / "run" / "checkpoints", tmp_path / "checkpoints")
    spoil_manifest(tmp_path / "checkpoints" / "4", change)
    assert "manifest.json" in checkpoint.damage(tmp_path / "checkpoints", 4)


def test_checkpoints_that_are_a_file_and_metrics_that_are_a_folder_are_said_to_be(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(ValueError, match="checkpoints is a file"):
        checkpoint.steps(tmp_path / "checkpoints")
    (tmp_path / "saved").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="saved is a link that leads to no folder"):
        checkpoint.steps(tmp_path / "saved")
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(ValueError, match=r"metrics.jsonl is a directory"):
        read_metrics(tmp_path)


@pytest.mark.parametrize(
    "line", ['{"step": "7"}', '{"step": 1e999}', '{"step": null}', "[1]", '{"step": 1, "loss": "x"}']
)
def test_a_line_that_is_no_record_is_left_out_with_a_warning(line, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1, "loss": 2.0}}\n{line}\n')
    with pytest.warns(UserWarning, match="Line 2 of .* is not a record"):
        assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("[1]", "should hold a dict, not list"),
        ("[" * 10**5, "nested too deep"),
        ("\0", "not JSON"),
    ],
)
def test_a_file_of_the_wrong_kind_is_named(text, says, tmp_path):
    (tmp_path / "knobs.json").write_text(text)
    with pytest.raises(ValueError, match=f"knobs.json is damaged: .*{says}"):
        read_json(tmp_path / "knobs.json")


@pytest.mark.parametrize(
    ("value", "hint", "wanted"),
    [
        (True, int, False),
        (1, bool, False),
        (None, int | None, True),
        ("a", int | None, False),
        ([1, 2], tuple[int, int], True),
        ([1], tuple[int, int], False),
        (float("nan"), float, False),
        (3, str, False),
    ],
)
def test_what_fits_a_type(value, hint, wanted):
    assert fits(value, hint) is wanted


def test_a_config_that_is_no_program_is_answered_with_its_line(tmp_path, world):
    shutil.copytree(world / "run", tmp_path / "run")
    for text, says in (
        ("x = (", "line 1: SyntaxError"),
        ("\nimport os\nos.nothing()\n", "line 3: AttributeError"),
    ):
        (tmp_path / "run" / "config.py").write_text(text)
        with pytest.raises(ValueError, match=f"cannot be run as a config: {says}"):
            load_config(tmp_path / "run" / "config.py")
    os.unlink(tmp_path / "run" / "config.py")
    with pytest.raises(FileNotFoundError):
        open_run(tmp_path / "run")


def test_the_files_of_a_run_are_read_as_they_are_called_or_said_to_be_damaged(world, tmp_path):
    files, about = ("a/b.png", "two\nlines.png", "ä .png"), About(40, (2, 2, 1), ("0", "1"))
    knobs = load_config(world / "config.py").Knobs()
    create_or_resume(tmp_path / "run", world / "config.py", knobs, about, files=files)
    assert trained_on(tmp_path / "run") == files
    (tmp_path / "run" / "trained_on.txt").write_bytes(b"a\xff\n")
    with pytest.raises(ValueError, match="trained_on.txt is damaged"):
        trained_on(tmp_path / "run")
