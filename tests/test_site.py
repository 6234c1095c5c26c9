"""The site's own parts: docstrings as they are shown, the API's pages, and the diff of docs/contributing.md."""

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxcl
from jaxcl import nets

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "docs" / "site"


def module_of(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown(docstring):
    return "\n".join(module_of(SITE / "docstrings.py", "docstrings").to_rst(docstring.split("\n"))).strip()


def test_prose_is_what_it_is_and_code_is_code():
    assert shown("|a_i| * b is `f(x)`, of *other* keys:\n[n, d] -> scalar") == (
        r"\|a\_i\| \* b is ``f(x)``, of *other* keys: [n, d] → scalar"
    )


def test_what_is_indented_after_a_blank_line_is_shown_as_it_stands():
    assert shown("The mean:\n\n    s_ij  =  *z_i*\n      more").splitlines() == [
        *("The mean:", "", "::", "", "    s_ij  =  *z_i*", "      more")
    ]


def test_a_term_and_what_is_said_of_it_are_a_definition():
    assert shown("views, keys\n    two *views* of it\nloss\n    one").splitlines() == [
        *("``views, keys``", "    two *views* of it", "", "``loss``", "    one")
    ]


def test_a_table_laid_out_by_spaces_keeps_its_columns():
    table = "images    uint8 [n, h, w, c]\nviews     one array a view\n          in a row"
    assert shown(table) == "::\n\n" + "\n".join(f"    {line}" for line in table.splitlines())


def documented():
    """The modules that have a page in docs/api."""
    pages = " ".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    return set(re.findall(r"automodule:: ([\w.]+)$", pages, re.MULTILINE))


def test_every_room_of_jaxcl_has_a_page():
    for name in documented():
        importlib.import_module(name)
    rooms = {name for name in jaxcl.__all__ if type(getattr(jaxcl, name)).__name__ == "module"}
    assert {f"jaxcl.{room}" for room in rooms - {"optim"}} <= documented()
    for name in set(jaxcl.__all__) - rooms:  # each stands on the page of the room that has it
        assert getattr(jaxcl, name).__module__.rpartition(".")[0] in documented() | {"jaxcl"}


def test_every_constant_of_a_room_has_an_entry_that_says_what_it_is():
    constants = module_of(SITE / "constants.py", "constants")
    assert constants.of("jaxcl.nets")["STATISTICS"][0].startswith("Mean and standard deviation")
    for name in sorted(documented()):
        room = importlib.import_module(name)
        listed = getattr(room, "__all__", None)
        own = re.findall(r"^([A-Z][A-Z_]+)\b.*? = ", Path(room.__file__).read_text(), re.MULTILINE)
        for one in own if listed is None else filter(str.isupper, listed):
            assert constants.of(name).get(one), f"a comment above {name}.{one}"


def test_contributing_is_one_screen():
    assert len((ROOT / "docs" / "contributing.md").read_text().splitlines()) <= 61


def the_diff():
    return re.search(
        r"^```diff\n(.*?)^```", (ROOT / "docs" / "contributing.md").read_text(), re.DOTALL | re.M
    )[1]


def applied(folder):
    """The diff of docs/contributing.md applied below a folder, which has what it changes."""
    if shutil.which("git") is None:
        pytest.skip("a diff is applied by git")
    done = subprocess.run(
        ["git", "apply", "-"], cwd=folder, input=the_diff(), text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_method_that_is_added_as_a_diff_is_a_method(tmp_path):
    for name in re.findall(r"^--- a/(.*)$", the_diff(), re.MULTILINE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    applied(tmp_path)
    (page,) = (tmp_path / "jaxcl" / "methods").glob("rotnet.py")
    norm = nets.batch_norm()
    method = module_of(page, "rotnet").rotnet(
        views=lambda key, batch: (batch["image"] / 255.0,),
        encoder=nets.small_convnet(features=(4, 4), norm=norm),
        head=nets.mlp_head(norm=norm, hidden=(), out=4),
    )
    batch = {"image": np.zeros((8, 16, 16, 3), np.uint8), "index": np.arange(8)}
    params, state = jax.eval_shape(method.init, jax.random.key(0), batch)
    loss, (_, metrics) = jax.eval_shape(method.loss, params, state, jax.random.key(1), batch)
    assert loss.shape == metrics["accuracy"].shape == ()
    names = (tmp_path / "jaxcl" / "methods" / "__init__.py").read_text()
    assert "import rotnet\n" in names
    assert '"rotnet",\n' in names


@pytest.mark.slow
def test_the_method_that_is_added_as_a_diff_passes_the_tests_that_all_methods_pass(tmp_path):
    ignored = shutil.ignore_patterns(".*", "__pycache__", "build", "runs", "*.egg-info")
    for name in ("jaxcl", "configs", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    applied(tmp_path)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-k",
        "rotnet or exported",
        "tests/methods",
        "tests/test_house.py",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def environment(root):
    return os.environ | {"PYTHONPATH": str(root)}


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_reading_it_fetches_nothing(tmp_path):
    pytest.importorskip("sphinx", reason="the site is built by sphinx: pip install 'jaxcl[docs]'")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-c", str(SITE), str(ROOT), str(tmp_path)]
    done = subprocess.run(command, env=environment(ROOT), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fetched = re.compile(r"<(?:script|img|link)[^>]+(?:src|href)=\"(?:https?:)?//")
    for page in tmp_path.rglob("*.html"):
        assert not fetched.search(page.read_text()), page
