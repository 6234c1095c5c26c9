"""The configs that come with jaxcl are there by their names, in any folder."""

import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from jaxcl import shipped
from jaxcl.cli import HELP, main

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_each_is_listed_with_what_it_is(capsys):
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {path.stem for path in (ROOT / "configs").glob("*.py")}
    assert all(len(line.split()) > 4 for line in lines)


def test_a_copy_is_the_config_to_the_letter(capsys):
    assert main(["configs", "quickstart"]) == 0
    assert capsys.readouterr().out == (ROOT / "configs/quickstart.py").read_text()
    assert main(["configs", "quickstrat"]) == 1
    assert "Did you mean quickstart?" in capsys.readouterr().err


def test_a_file_of_one_s_own_comes_before_one_of_the_same_name(tmp_path):
    there = shipped.folder()
    assert shipped.found("quickstart") == there / "quickstart.py"
    for word in ("quickstart.py", "configs/quickstart.py"):
        assert shipped.found(word) == there / "quickstart.py"
        Path(word).parent.mkdir(exist_ok=True)
        Path(word).touch()
        assert shipped.found(word) == Path(word)
    for word in ("mine/quickstart.py", "quickstart.txt", "nothing"):
        assert shipped.found(word) == Path(word)


@pytest.mark.parametrize("word", ["quickstart", "configs/quickstart.py"])
def test_the_examples_of_the_help_work_in_an_empty_folder(word, capsys):
    assert "jaxcl train configs/quickstart.py" in HELP
    assert main(["parts", word]) == 0
    assert "nt_xent(temperature=0.2)" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["train", word, "--help"])
    assert end.value.code == 0
    assert "--min-area" in capsys.readouterr().out
    assert main(["train", "quickstrat"]) == 1
    assert "`jaxcl configs` lists" in capsys.readouterr().err


def test_a_wheel_is_told_of_every_package_and_of_the_configs():
    """A package that setup.cfg does not list works in a checkout and is missing from a wheel."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    packages = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "jaxcl").rglob("__init__.py")
    }
    assert listed == packages | {"jaxcl.configs", "jaxcl.configs.studies"}
    assert setup["options"]["package_dir"].split() == ["jaxcl.configs", "=", "configs"]


@pytest.mark.slow
def test_an_installed_wheel_trains_by_name_and_trusts_what_it_trained(tmp_path):
    program = f"from setuptools.build_meta import build_wheel; print(build_wheel({str(tmp_path)!r}))"
    source = tmp_path / "source"
    source.mkdir()
    for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    for folder in ("jaxcl", "configs"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-c", program], cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "installed")
    (tmp_path / "empty").mkdir()

    def jaxcl(*words):
        command = [sys.executable, "-m", "jaxcl", *words]
        environment = {"PYTHONPATH": str(tmp_path / "installed"), "XDG_STATE_HOME": str(tmp_path / "state")}
        where = tmp_path / "empty"
        return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=True)

    assert "quickstart" in jaxcl("configs").stdout
    assert "temperature_and_loss" in jaxcl("study").stdout
    small = ("--epochs", "0.02", "--batch-size", "64", "--features", "4", "8")
    assert "Done." in jaxcl("train", "configs/quickstart.py", *small).stdout
    assert "digits" in jaxcl("embed", "runs/quickstart", "--out", "f.npz").stdout
    (tmp_path / "empty/runs/quickstart/made_here").unlink()
    assert "digits" in jaxcl("embed", "runs/quickstart", "--out", "f.npz").stdout
