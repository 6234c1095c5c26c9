"""Configs are programs: loading them, their knobs, and what may change when a run goes on."""

import dataclasses

import numpy as np
import pytest

from jaxcl.experiment import (
    changed_knobs,
    knobs_from_json,
    knobs_to_json,
    load_config,
    same_program,
    steps_of,
)
from jaxcl.typing import Images

CONFIG = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Knobs:
    temperature: float = 0.5
    widths: tuple[int, ...] = (1, 2)

def experiment(knobs):
    return knobs
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "some.py"
    path.write_text(CONFIG)
    return path


def test_knobs_survive_json(config):
    module = load_config(config)
    knobs = module.Knobs(temperature=0.1, widths=(3,))
    assert knobs_from_json(module, knobs_to_json(knobs)) == knobs


def test_a_changed_knob_is_named_with_both_values(config):
    module = load_config(config)
    saved = dataclasses.asdict(module.Knobs()) | {"widths": [1, 2]}
    assert changed_knobs(saved, module.Knobs()) == []
    (line,) = changed_knobs(saved, module.Knobs(temperature=0.1))
    assert line.startswith("--temperature: the run has 0.5")
    assert "0.1" in line


def test_a_knob_that_is_gone_is_named(config):
    with pytest.raises(ValueError, match="no knob momentum; it has temperature, widths"):
        knobs_from_json(load_config(config), '{"momentum": 1}')


@pytest.mark.parametrize(
    "text", ["", "Knobs = 3\ndef experiment(k): pass", CONFIG.replace("def experiment", "def other")]
)
def test_a_file_that_is_no_config_is_told_what_it_lacks(tmp_path, text):
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(ValueError, match="must define a frozen dataclass `Knobs` and a function `experiment"):
        load_config(tmp_path / "bad.py")


def test_a_missing_config_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config .*nothing\.py"):
        load_config(tmp_path / "nothing.py")


def test_comments_do_not_make_another_program():
    assert same_program("x = 1  # one", "x   =   1\n")
    assert not same_program("x = 1", "x = 2")


def test_steps_leave_out_the_incomplete_batch():
    images = Images("ten", np.zeros((10, 4, 4, 3), np.uint8))
    assert steps_of(3, images, 4) == 6
    assert steps_of(0.5, images, 5) == 1
    with pytest.raises(ValueError, match="batch of 11 does not fit into ten's 10 images"):
        steps_of(1, images, 11)
