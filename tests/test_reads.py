"""What a function may read of the knobs; where its text leaves a doubt, all of them."""

import textwrap
from pathlib import Path

import pytest

from jaxcl.config import load_config
from jaxcl.reads import knobs_read_by
from jaxcl.sweep import groups

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
FIELDS = {"seed", "size", "width", "temperature"}

HEAD = """
from dataclasses import dataclass, replace
from functools import cache, partial, wraps
import optax
from jaxcl import About, CommonKnobs, Recipe, losses
from jaxcl.data import Data
from jaxcl.typing import Method
import beside

@dataclass(frozen=True)
class Knobs(CommonKnobs):
    width: int = 4
    temperature: float = 0.2

def made(knobs, more=0): return knobs.seed + more
def sized(knobs): return sized(knobs) if knobs.size else 0
def recipe(knobs, about): return Recipe(Method(None, None, None), optax.sgd(0.1), None, None, 4, 8)
def through(function): return lambda *given: function(*given)
def kept(function):
    @wraps(function)
    def call(knobs): return function(knobs)
    return call
"""


def loaded(folder, text):
    (folder / "beside.py").write_text("def made(about, knobs): return lambda: knobs.seed\n")
    path = folder / "mine.py"
    path.write_text(HEAD + textwrap.dedent(text))
    return load_config(path)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("def data(knobs): return lambda: knobs.size + knobs.width", {"size", "width"}),
        ("def data(knobs): return made(knobs)", {"seed"}),
        ("def data(knobs): return made(more=1, knobs=knobs)", {"seed"}),
        ("def data(knobs): return beside.made(0, knobs)", {"seed"}),
        ("def data(knobs): return sized(knobs)", {"size"}),
        ("def data(knobs): return {n: getattr(knobs, n) for n in ('size', 'width')}", {"size", "width"}),
        ("def data(knobs, other): return other.seed", set()),
        # Of these the text alone does not say what is read.
        ("def data(knobs): return {n: getattr(knobs, n) for n in other()}", FIELDS),
        ("def data(knobs): return [lambda n: getattr(knobs, n) for n in ('size',)]", FIELDS),
        ("def data(knobs): return partial(made, knobs)", FIELDS),
        ("def data(knobs): return [x.seed for x in (knobs,)]", FIELDS),
        ("def data(knobs):\n    sized = made\n    return sized(knobs)", FIELDS),
        ("def data(knobs): return made(*[0], knobs)", FIELDS),
        ("def data(knobs): return made(**{'knobs': knobs})", FIELDS),
        ("def data(knobs): return replace(knobs, size=8)", FIELDS),
        ("def data(knobs): return knobs.method()", FIELDS),
        ("def data(knobs): return eval('knobs.seed')", FIELDS),
        ("data = lambda knobs: knobs.size", FIELDS),
        ("data = partial(made, more=1)", FIELDS),
        ("@cache\ndef data(knobs): return knobs.size", FIELDS),
        ("@through\ndef data(knobs): return knobs.size", FIELDS),
        ("@kept\ndef data(knobs): return knobs.size", FIELDS),
    ],
)
def test_what_is_read_behind_a_helper_counts_and_so_does_every_doubt(text, read, tmp_path):
    assert knobs_read_by(loaded(tmp_path, text).data, FIELDS) == read


@pytest.mark.parametrize("of", ["data", "recipe"])
def test_seeds_that_a_helper_reads_are_not_trained_together(of, tmp_path):
    about = "about = About(16, (8, 8, 3), ())"
    opened = "Data('n', train=lambda: None, test=lambda: None, about=lambda: about)"
    text = {
        "data": f"def data(knobs):\n    {about}\n    beside.made(0, knobs)\n    return {opened}",
        "recipe": f"{about}\nplain = recipe\ndef data(knobs): return {opened}\n"
        "def recipe(knobs, about):\n    made(knobs)\n    return plain(None, about)",
    }
    module = loaded(tmp_path, text[of])
    found = groups(module, [module.Knobs(seed=0), module.Knobs(seed=1)])
    assert [group.members for group in found] == [(0,), (1,)]


def test_seeds_of_all_configs_are_trained_together_but_of_one_whose_canvases_are_drawn_by_them():
    apart = set()
    for path in CONFIGS:
        module = load_config(path)
        fields = set(module.Knobs.__dataclass_fields__)
        functions = [module.recipe, *([module.data] if callable(getattr(module, "data", None)) else [])]
        if any("seed" in knobs_read_by(function, fields) for function in functions):
            apart.add(path.stem)
    assert apart == {"multidigits"}
