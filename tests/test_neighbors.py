"""A config of one's own may import files beside it: they are kept with the run, which works without them, and trusted
with it."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxcl
from jaxcl import neighbors, trust
from jaxcl.cli import main
from jaxcl.config import load_config
from jaxcl.runs import create_or_resume
from jaxcl.shipped import shipped
from jaxcl.typing import About

CONFIG = """
from dataclasses import dataclass

import optax
import own_parts
from own_package.heads import head
from jaxcl import Recipe, augment, losses, methods


@dataclass(frozen=True)
class Knobs(own_parts.Common):
    pass


def recipe(knobs, about):
    from own_late import OUT

    views = augment.two_views(augment.compose(augment.flip(), augment.clip()))
    method = methods.simclr(
        views=views,
        encoder=own_parts.encoder(),
        head=head(OUT),
        loss=losses.keyless(losses.nt_xent, temperature=knobs.temperature),
    )
    return Recipe(method, optax.sgd(0.1), optax.constant_schedule(0.1), views, round(knobs.epochs), 16)
"""
PARTS = """
from __future__ import annotations

from dataclasses import dataclass

from jaxcl import CommonKnobs, nets


@dataclass(frozen=True)
class Common(CommonKnobs):
    data: str = "npz:images.npz"
    epochs: float = 1
    batch_size: int = 16
    temperature: float = 0.5


def encoder():
    return nets.conv_n(features=(2,), dense=WIDTH, norm=nets.no_norm())


WIDTH = 4
"""
HEADS = """
from jaxcl import nets


def head(out):
    return nets.mlp_head(norm=nets.no_norm(), hidden=(), out=out)
"""
FILES = {
    "mine.py": CONFIG,
    "own_parts.py": PARTS,
    "own_package/__init__.py": "",
    "own_package/heads.py": HEADS,
    "own_late.py": "OUT = 4\n",
    "own_unused.py": "raise AssertionError\n",
}


def write(folder, files=FILES):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a config and what it imports, and a run of it."""
    folder = tmp_path_factory.mktemp("world")
    write(folder)
    pixels, labels = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 3), np.uint8), np.arange(48) % 2
    np.savez(
        folder / "images.npz",
        train_images=pixels,
        train_labels=labels,
        test_images=pixels,
        test_labels=labels,
    )
    assert main(train(folder)) == 0
    return folder


def train(folder, *words):
    return [
        "train",
        str(folder / "mine.py"),
        "--run-dir",
        str(folder / "run"),
        "--data",
        f"npz:{folder}/images.npz",
        *words,
    ]


def test_what_is_imported_is_kept_and_nothing_else(world):
    there = {
        file.relative_to(world / "run/beside").as_posix() for file in (world / "run/beside").rglob("*.*")
    }
    assert there == FILES.keys() - {"mine.py", "own_unused.py"}


def test_the_run_opens_evaluates_and_embeds_where_the_folder_is_gone(world, tmp_path, monkeypatch, capsys):
    shutil.copytree(world / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    away = world.rename(world.with_name("away"))
    try:
        data = ["--data", f"npz:{away}/images.npz"]
        assert jaxcl.load_encoder("run")(np.zeros((2, 8, 8, 3), np.uint8)).shape == (2, 4)
        assert main(["evaluate", "run", "--protocol", "transfer", "--baselines", "none", *data]) == 0
        assert main(["embed", "run", *data, "--out", "features.npz"]) == 0
        assert np.load("features.npz")["features"].shape[1] == 4
    finally:
        away.rename(world)


def test_two_runs_whose_neighbors_share_a_name_each_have_their_own(world, tmp_path):
    write(tmp_path, FILES | {"own_parts.py": PARTS.replace("WIDTH = 4", "WIDTH = 7")})
    config, about = load_config(tmp_path / "mine.py"), About(48, (8, 8, 3), ())
    config.recipe(config.Knobs(), about)
    beside = neighbors.of(config)
    create_or_resume(tmp_path / "run", tmp_path / "mine.py", config.Knobs(), about, beside=beside)
    images = np.zeros((2, 8, 8, 3), np.uint8)
    for folder, width in ((world, 4), (tmp_path, 7), (world, 4)):
        assert jaxcl.load_encoder(folder / "run", untrained=True)(images).shape == (2, width)


@pytest.mark.slow
def test_its_pictures_are_drawn_too(world, tmp_path):
    shutil.copytree(world / "run", tmp_path / "run")
    assert main(["plot", str(tmp_path / "run"), "--data", f"npz:{world}/images.npz"]) == 0
    assert (tmp_path / "run/plots/report.html").exists()


def test_it_is_gone_on_with_only_with_the_same_neighbors(world, capsys):
    assert main(train(world, "--epochs", "2")) == 0
    write(world, {"own_parts.py": PARTS + "# a comment\n"})
    assert main(train(world, "--epochs", "2")) == 0
    write(world, {"own_parts.py": PARTS.replace("WIDTH = 4", "WIDTH = 5")})
    assert main(train(world, "--epochs", "3")) == 1
    assert "another version of" in capsys.readouterr().err
    write(world)
    # The run's own copy of the config finds the run's own copies of its neighbors.
    command = train(world, "--epochs", "3")
    command[1] = str(world / "run/config.py")
    (world / "own_parts.py").rename(world / "hidden")
    assert main(command) == 0
    write(world)


@pytest.mark.parametrize("where", ["beside/own_parts.py", "beside/optax.py", "own_parts.py"])
def test_a_stranger_s_neighbors_are_not_executed_unasked(world, tmp_path, where, monkeypatch):
    """Neither one that was changed, nor one that was added, nor one outside of the folder that is kept for them."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(world / "run", tmp_path / "run")
    (tmp_path / "run" / where).write_text(PARTS + "\nfrom pathlib import Path\nPath('sprung').touch()\n")
    if where.startswith("beside"):
        with pytest.raises(ValueError, match="is a program"):
            jaxcl.load_encoder("run")
    else:
        jaxcl.load_encoder("run")
    assert not Path("sprung").exists()


def test_a_shipped_config_with_a_stranger_s_neighbor_is_no_shipped_one(tmp_path):
    (tmp_path / "run/beside").mkdir(parents=True)
    text = next(iter(shipped().values())).read_text()
    (tmp_path / "run/beside/optax.py").write_text("raise AssertionError\n")
    assert trust.is_own(tmp_path / "run", neighbors.program(text, {}))
    assert not trust.is_own(tmp_path / "run", neighbors.program(text, neighbors.kept(tmp_path / "run")))


def test_a_compiled_file_is_never_executed_in_place_of_the_text(world):
    load_config(world / "run/config.py")
    assert not list((world / "run").rglob("__pycache__"))
    assert sys.modules["own_parts"].WIDTH == 4


def test_jaxcl_itself_is_no_neighbor_of_a_config_that_lies_beside_it(tmp_path):
    write(tmp_path, {"jaxcl/__init__.py": "raise AssertionError", "json.py": "raise AssertionError"})
    (tmp_path / "mine.py").write_text(
        "import json\nfrom jaxcl import CommonKnobs as Knobs\nrecipe = json.dumps\n"
    )
    assert neighbors.of(load_config(tmp_path / "mine.py")) == {}
    assert sys.modules["jaxcl"] is jaxcl
