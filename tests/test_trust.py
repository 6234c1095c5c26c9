"""A stranger's run directory executes nothing, reads nothing outside of itself and writes nothing."""

import importlib.util
import json
import marshal
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

from jaxcl import trust
from jaxcl.cli import main
from jaxcl.config import CommonKnobs as Knobs
from jaxcl.data import load
from jaxcl.encoder import load_encoder
from jaxcl.report import write_report
from jaxcl.runs import create_or_resume, open_run
from jaxcl.train import checkpoint
from jaxcl.typing import About

ROOT = Path(__file__).parents[1]

CONFIG = """
from dataclasses import dataclass
from pathlib import Path
import jax.numpy as jnp
import optax
from jaxcl import About, CommonKnobs, Method, Recipe

if Path("trap").exists():
    Path("sprung").touch()


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    batch_size: int = 8


def recipe(knobs: Knobs, about: About) -> Recipe:
    def init(key, batch):
        return {"w": jnp.ones((4, 2))}, {}

    def loss(params, state, key, batch):
        return jnp.mean((batch["image"].reshape(-1, 4) / 255 @ params["w"]) ** 2), (state, {})

    def embed(params, state, images):
        return images.reshape(len(images), -1) @ params["w"]

    return Recipe(Method(init, loss, embed), optax.sgd(0.1), lambda step: 0.1, None, 2, knobs.batch_size)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
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
    data = ["--data", f"npz:{folder / 'images.npz'}"]
    assert main(["train", str(folder / "config.py"), "--run-dir", str(folder / "run"), *data]) == 0
    return folder


@pytest.fixture
def hostile(world, tmp_path, monkeypatch):
    """A run that came from elsewhere; its config springs a trap where it is executed."""
    shutil.copytree(world / "run", tmp_path / "run")
    (tmp_path / "run" / "made_here").write_text("0" * 64 + "\n")
    (tmp_path / "trap").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate"],
        ["evaluate", "--protocol", "knn"],
        ["plot"],
        ["replay", "--step", "1"],
        ["embed", "--out", "features.npz"],
        ["export", "--to", "safetensors", "--out", "weights.safetensors"],
    ],
)
def test_no_command_executes_a_strangers_config_unasked(hostile, command, capfd):
    name, *words = command
    assert main([name, str(hostile), *words]) == 1
    said = capfd.readouterr().err
    assert "config.py is a program" in said
    assert "--trust" in said
    assert not Path("sprung").exists()
    with pytest.raises(ValueError, match="trust=True"):
        load_encoder(hostile)
    assert not Path("sprung").exists()


def test_trust_is_given_once_and_to_that_text_alone(hostile):
    assert main(["evaluate", str(hostile), "--protocol", "knn", "--no-baselines", "--trust"]) == 0
    assert Path("sprung").exists()
    assert load_encoder(hostile).step == 2
    config = hostile / "config.py"
    config.write_text(config.read_text() + "\n# one line more\n")
    with pytest.raises(ValueError, match="is a program"):
        open_run(hostile)


def test_ones_own_run_needs_no_word_wherever_it_is_moved(world, tmp_path):
    shutil.copytree(world / "run", tmp_path / "moved")
    assert open_run(tmp_path / "moved").knobs.batch_size == 8


def test_a_config_that_comes_with_jaxcl_needs_no_word(hostile):
    text = (ROOT / "configs" / "quickstart.py").read_text()
    assert trust.is_own(hostile, text)
    assert not trust.is_own(hostile, text + "import os\n")


def test_what_is_executed_is_the_text_that_was_looked_at_and_no_compiled_one_beside_it(hostile):
    shutil.copy(ROOT / "configs" / "quickstart.py", hostile / "config.py")
    knobs = {"batch_size": 8}
    (hostile / "knobs.json").write_text(json.dumps(knobs))
    # Python takes a compiled file in place of the text where the file says that it need not be compared.
    trap = compile("from pathlib import Path\nPath('sprung').touch()\n", "config.py", "exec")
    compiled = Path(importlib.util.cache_from_source(str(hostile / "config.py")))
    compiled.parent.mkdir(exist_ok=True)
    flags, source_hash = (1).to_bytes(4, "little"), bytes(8)
    compiled.write_bytes(importlib.util.MAGIC_NUMBER + flags + source_hash + marshal.dumps(trap))
    run = open_run(hostile)
    assert run.recipe.method is not None
    assert not Path("sprung").exists()


def test_the_secret_is_readable_by_its_user_alone_and_without_one_nothing_is_vouched_for(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert trust.vouch(tmp_path, "text")
    secret = tmp_path / "state" / "jaxcl" / "secret"
    assert stat.S_IMODE(os.stat(secret).st_mode) == 0o600
    assert [path.name for path in secret.parent.iterdir()] == ["secret"]
    assert trust.is_own(tmp_path, "text")
    assert not trust.is_own(tmp_path, "texts")
    secret.unlink()  # another user, another machine
    assert not trust.is_own(tmp_path, "text")
    (tmp_path / "state").rename(tmp_path / "gone")
    (tmp_path / "state").write_text("")  # a home that cannot be written
    assert not trust.vouch(tmp_path, "text")
    assert not trust.is_own(tmp_path, "text")
    with pytest.warns(UserWarning, match="run cannot be marked as trained by you"):
        create_or_resume(
            tmp_path / "run", ROOT / "configs" / "quickstart.py", Knobs(), About(9, (8, 8, 3), ())
        )


def test_arrays_of_python_objects_are_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    np.savez(tmp_path / "objects.npz", images=np.array([Trap()] * 8, object))
    with pytest.raises(ValueError, match="."):
        load(f"npz:{tmp_path / 'objects.npz'}", "train")
    assert not (tmp_path / "sprung").exists()


def test_a_checkpoint_reads_nothing_outside_of_itself(world, tmp_path):
    shutil.copytree(world / "run" / "checkpoints", tmp_path / "checkpoints")
    step = checkpoint.latest(tmp_path / "checkpoints")
    manifest = tmp_path / "checkpoints" / str(step) / "manifest.json"
    shutil.copy(manifest, tmp_path / "elsewhere.json")
    manifest.unlink()
    manifest.symlink_to(tmp_path / "elsewhere.json")
    assert "symbolic link" in checkpoint.damage(tmp_path / "checkpoints", step)


def test_a_report_escapes_what_it_prints(tmp_path):
    bad = "<script>alert(1)</script> & $x$"
    page = write_report(
        tmp_path, title=bad, summary=[(bad, bad)], tables=[(bad, (bad,), [(bad,)])], figures=[], notes=bad
    )
    assert "<script>alert" not in page.read_text()
