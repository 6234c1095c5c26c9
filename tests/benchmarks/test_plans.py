"""The kept plans: each of the papers' sizes fits a machine, and so does every preset with a paper's encoder."""

import dataclasses
import sys
from pathlib import Path

import pytest

from jaxcl import machines
from jaxcl.config import load_config

HOUSE = Path(__file__).parents[2]
FULL_SIZE = ["amdim", "byol", "cmc", "cpc", "yadim"]
# The papers' sizes: encoder and batch.
SIZES = {
    "SimCLR, ResNet-50, 4k",
    "SimCLR, ResNet-50, 8k",
    "SimCLR, ResNet-50, 32k",
    "SimCLR, ResNet-152 (2x), 4k",
    "SimCLR, ResNet-152 (2x), 8k",
    "SimCLR, ResNet-152 (2x), 32k",
    "MoCo v2, ResNet-50, 256",
    "LooC++, ResNet-50, 256",
    "BYOL, ResNet-50, 4k",
    "CPC of 53 blocks, 3,072",
    "AMDIM, 480",
    "AMDIM, 626 M parameters",
    "CMC, two ResNet-50 of half the width, 128",
    "YADIM, 200",
    "SimCLRv2, ResNet-152 (3x, SK)",
}
BATCHES = {
    "4k": 4096,
    "8k": 8192,
    "32k": 32768,
    "3,072": 3072,
    "480": 480,
    "256": 256,
    "200": 200,
    "128": 128,
}


@pytest.fixture(scope="module")
def plans():
    """The words behind `jaxcl plan` -> what was asked, and what was found; of the rows that were compiled."""
    sys.path.insert(0, str(HOUSE / "benchmarks"))
    from plans import ROWS, kept

    sys.path.remove(str(HOUSE / "benchmarks"))
    return {words: (asked, found) for asked, words in ROWS if (found := kept(words))}


@pytest.fixture(scope="module")
def fitting(plans):
    return {words: row for words, row in plans.items() if row[1].get("plan", {}).get("fits")}


def test_each_of_the_papers_sizes_fits_a_machine_by_knobs_alone(plans, fitting):
    """One of its rows fits; another may say what does not."""
    fit = {asked for asked, _ in fitting.values()}
    assert fit >= SIZES
    assert {asked for asked, _ in plans.values()} == fit
    assert len(fitting) >= 30


def test_a_row_has_the_batch_that_it_is_called_by(fitting):
    named = [(asked.rpartition(", ")[2], found["plan"]) for asked, found in fitting.values()]
    compared = [(BATCHES[batch], plan["batch_size"]) for batch, plan in named if batch in BATCHES]
    assert len(compared) >= 15
    assert [pair for pair in compared if pair[0] != pair[1]] == []


def test_what_fits_is_smaller_than_the_machine(fitting):
    for _, found in fitting.values():
        plan = found["plan"]
        chip = machines.CHIPS[machines.parse(plan["machine"])[0]]
        # Of a TPU less than what the kept rows give for it, as its compiler keeps some for itself.
        room = min(plan["capacity_bytes"], machines.GIB * (chip.usable or float("inf")))
        assert plan["peak_bytes"] + plan["input_bytes"] <= room


@pytest.mark.parametrize("name", FULL_SIZE)
def test_every_preset_has_a_plan_that_fits(name, fitting):
    """Its own, or that of one from which it differs in numbers alone, which change nothing about its program."""
    presets = load_config(HOUSE / "configs" / f"{name}.py").PRESETS
    named = {words.split()[2] for words in fitting if words.startswith(f"configs/{name}.py --preset ")}
    programs = [program_of(presets[preset]) for preset in named]
    assert [preset for preset, knobs in presets.items() if program_of(knobs) not in programs] == []


def program_of(knobs):
    return {
        name: value
        for name, value in dataclasses.asdict(knobs).items()
        if name != "epochs" and not isinstance(value, float)
    }


@pytest.mark.parametrize("name", FULL_SIZE)
def test_the_plan_that_a_config_tells_people_to_make_is_kept_and_fits(name, fitting):
    assert (HOUSE / "configs" / f"{name}.py").read_text().split("jaxcl plan ")[1].split("\n")[0] in fitting
