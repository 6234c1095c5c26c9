"""A study is a file that says what is asked; its page says what its runs answer."""

import json
import os
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxcl import answer
from jaxcl.cli import knobs_of, main, words_of
from jaxcl.config import load_config, recipe_of
from jaxcl.runs import Unevaluated, evaluations
from jaxcl.shipped import studies
from jaxcl.study import (
    Compare,
    Published,
    Study,
    compared_table,
    comparisons,
    grids,
    load_study,
    question,
    settings,
    settings_table,
)
from jaxcl.sweep import combinations, plot_sweep
from jaxcl.tables import word
from jaxcl.train import init_state, make_step
from jaxcl.train.saved import DIVERGED
from jaxcl.train.state import blank_batch
from jaxcl.typing import About

CONFIG = """
from dataclasses import dataclass

import numpy as np
import optax

from jaxcl import About, CommonKnobs, Recipe, augment, basics, losses, methods, nets
from jaxcl.data import Data
from jaxcl.typing import Images


@dataclass(frozen=True)
class Knobs(CommonKnobs):
    batch_size: int = 8
    epochs: float = 1
    temperature: float = 0.2
    weight: float = 1.0
    loss: str = "nt_xent"


def data(knobs):
    def split(n, salt):
        pixels = np.random.default_rng(salt).integers(0, 255, (n, 8, 8, 3)).astype(np.uint8)
        return Images("noise", pixels, np.arange(n) % 2, ("a", "b"))

    about = About(16, (8, 8, 3), ("a", "b"))
    return Data("noise", train=lambda: split(16, 0), test=lambda: split(12, 1), about=lambda: about)


def recipe(knobs, about):
    size, steps, axis, dtype, lean = basics(knobs, about)
    views = augment.two_views(augment.flip())
    loss = losses.keyless(losses.nt_xent, temperature=knobs.temperature)
    if knobs.loss == "decoupled":
        loss = losses.keyless(losses.decoupled_nt_xent, weight=knobs.weight)
    encoder = nets.conv_n(features=(4,), dense=4, norm=nets.no_norm())
    head = nets.mlp_head(norm=nets.no_norm(), hidden=(), out=4)
    method = methods.simclr(views=views, encoder=encoder, head=head, loss=loss, axis_name=axis)
    rate = optax.constant_schedule(knobs.learning_rate)
    return Recipe(method, optax.sgd(knobs.learning_rate), rate, views, steps, knobs.batch_size)
"""

STUDY = '''
"""Noise: does the temperature matter where there is nothing to learn?

It should not.
"""

from jaxcl.study import Compare, Study

STUDY = Study(
    config="noise.py",
    grid=[{"loss": ["nt_xent"], "temperature": [0.1]}, {"loss": ["decoupled"]}],
    seeds=(0, 1),
    fixed={"learning_rate": 0.01},
    protocols=("knn",),
    compare=(Compare("loss"),),
    picture={"knob": "temperature", "lines": "loss"},
)
'''


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    (folder / "noise.py").write_text(CONFIG)
    (folder / "nothing.py").write_text(STUDY.strip() + "\n")
    return folder / "nothing.py"


FILES = [
    pytest.param(path, small, id=f"{name}{'-small' * small}")
    for name, path in studies().items()
    for small in (False, True)
    if not small or "SMALL =" in path.read_text()
]


@pytest.mark.parametrize(("path", "small"), FILES)
def test_every_study_asks_what_its_config_can_be_asked(path, small):
    study = load_study(path, small=small)
    title, asked = question(path)
    assert title.endswith("?")
    assert "arXiv" in asked
    assert len(study.seeds) >= 3
    there, compared = settings(study), comparisons(study)
    assert len(dict(compared)) == len(compared) > 0
    fixed = {knob: word(value) for knob, value in study.fixed.items()}
    for setting in there[:: max(1, len(there) // 6)]:
        named = {knob: value for knob, value in setting.items() if value}
        knobs = knobs_of("study", study.config, words_of(study.config, {**fixed, **named}))
        for knob, value in {**fixed, **named}.items():
            assert word(getattr(knobs, knob)) in (value, word(float(value) if value.isdigit() else value))
    if study.published is not None:
        published = [row[-1] for row in settings_table(study, [])[1]]
        assert any(published)
        for where, _ in study.published.figures:
            assert where.keys() <= there[0].keys()
    drawn = study.picture
    assert {drawn["knob"]} <= there[0].keys()


@pytest.mark.parametrize("name", ["leave_one_out", "randbits"])
def test_the_small_form_of_a_study_makes_a_training_step(name):
    study = load_study(studies()[name], small=True)
    config, fixed = load_config(study.config), {knob: word(value) for knob, value in study.fixed.items()}
    setting = {knob: value for knob, value in settings(study)[-1].items() if value}
    knobs = knobs_of("study", study.config, words_of(study.config, {**fixed, **setting}))
    channels = 1 + knobs.bits if name == "randbits" else 3
    about = About(60_000, (knobs.size, knobs.size, channels), tuple("0123456789"))
    recipe = recipe_of(config, knobs, about)

    def step(key):
        batch = blank_batch(about, knobs.batch_size)
        if recipe.classify is not None:
            batch["label"] = np.zeros(knobs.batch_size, np.int32)
        state = init_state(key, recipe.method, recipe.optimizer, batch)
        return make_step(recipe.method, recipe.optimizer)(state, key, batch)[1]["loss"]

    assert jax.eval_shape(step, jax.random.key(0)).shape == ()


def of(accuracies):
    """Results: (loss, layers) -> accuracies by seed."""
    return [
        {
            "protocol": "knn",
            "encoder": "trained",
            "accuracy": value,
            "knobs": {"seed": str(seed), "loss": loss, "layers": layers},
        }
        for (loss, layers), values in accuracies.items()
        for seed, value in enumerate(values)
    ]


ASKED = Study("config", {"loss": ["a", "b"], "layers": [2, 3]}, seeds=range(3), protocols=("knn",))
FOUND = of(
    {
        ("a", "2"): [50.0, 52.0, 54.0],
        ("a", "3"): [51.0, 52.0, 56.0],
        ("b", "2"): [47.0, 49.0, 51.0],
        ("b", "3"): [50.0, 51.0, 55.0],
    }
)


def test_a_difference_is_taken_at_each_value_of_the_other_knob():
    study = ASKED._replace(compare=(Compare("loss"),))
    header, rows = compared_table(study, FOUND)
    assert header == ("difference", "knn")
    assert rows[0] == ("loss b - a at layers 2", "-3.0 ± 0.0 (n=3)")
    assert [row[0] for row in rows] == ["loss b - a at layers 2", "loss b - a at layers 3"]


def test_a_difference_of_differences_is_that_of_each_seed():
    study = ASKED._replace(compare=(Compare("loss", across="layers"),))
    rows = compared_table(study, FOUND)[1]
    # (b3 - a3) - (b2 - a2) is 2 for every seed: it changes with certainty, however much the runs scatter.
    assert rows == [("loss b - a: layers 3 - 2", "+2.0 ± 0.0 (n=3)")]


def test_a_missing_run_takes_its_seed_from_the_comparison_alone():
    study = ASKED._replace(compare=(Compare("loss"),))
    rows = compared_table(study, FOUND[1:])[1]
    assert rows[0][1].endswith("(n=2)")
    assert rows[1][1].endswith("(n=3)")
    empty = compared_table(study, FOUND[:3])[1]
    assert [row[1] for row in empty] == ["", ""]


def test_a_setting_without_the_knob_is_compared_with_each_of_its_values():
    study = ASKED._replace(
        grid=[{"loss": ["a"], "temperature": [0.1, 0.2]}, {"loss": ["swd"]}],
        compare=(Compare("loss"), Compare("temperature")),
    )
    assert [words for words, _ in comparisons(study)] == [
        "loss swd - a at temperature 0.1",
        "loss swd - a at temperature 0.2",
        "temperature 0.2 - 0.1 at loss a",
    ]
    assert [setting["temperature"] for setting in settings(study)] == ["0.1", "0.2", ""]


def test_what_a_study_cannot_compare_is_said():
    for asked, what in (
        (Compare("width"), "'width', which its grid does not name"),
        (Compare("loss", minus="c"), "compares loss c, and its grid has a, b"),
        (Compare("loss", across="width"), "across 'width'"),
    ):
        with pytest.raises(ValueError, match=what):
            comparisons(ASKED._replace(compare=(asked,)))


def test_published_figures_stand_beside_the_settings_they_are_of():
    study = ASKED._replace(
        published=Published("paper", [({"loss": "a", "layers": 3}, 70.8), ({"loss": "b"}, "64")])
    )
    header, rows = settings_table(study, FOUND)
    assert header == ("loss", "layers", "knn", "paper")
    assert [row[-1] for row in rows] == ["", "70.8", "64", "64"]


def test_columns_stand_in_the_order_of_the_study():
    rows = [row | {"protocol": name} for name in ("joint", "knn", "linear") for row in FOUND]
    study = ASKED._replace(protocols=("linear", "knn"))
    assert settings_table(study, rows)[0] == ("loss", "layers", "linear", "knn", "joint")


def test_one_seed_comes_after_the_other():
    runs = combinations(grids(ASKED))
    assert [run["seed"] for run in runs] == ["0"] * 4 + ["1"] * 4 + ["2"] * 4


def test_a_study_that_was_stopped_goes_on_and_leaves_its_page(study, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    where = tmp_path / "runs" / "nothing-study"
    assert main(["study", str(study), "--seed", "0"]) == 0
    capsys.readouterr()
    first = {path.name: evaluations(path) for path in where.glob("seed=0*")}
    assert len(first) == 2
    assert "Fewer than three seeds" in (where / "nothing.md").read_text()
    assert main(["study", str(study)]) == 0
    out = capsys.readouterr().out
    assert out.count("==") == 2  # those of the other seed alone
    page = (where / "nothing.md").read_text()
    for words in (
        "# Noise: does",
        "jaxcl study",
        "It should not.",
        "loss decoupled - nt_xent at temperature 0.1",
        "(n=2)",
    ):
        assert words in page
    assert "so far" not in page
    assert (where / "nothing.png").stat().st_size > 1000
    record = json.loads((where / "study.json").read_text())
    assert [session["seconds"] > 0 for session in record["sessions"]] == [True, True]
    assert record["knobs"]["learning_rate"] == 0.01
    rows = json.loads((where / "sweep.json").read_text())
    assert {row["knobs"]["temperature"] for row in rows} == {"0.1", ""}
    # Nothing is done again, and no time is counted.
    assert main(["study", str(study)]) == 0
    assert "==" not in capsys.readouterr().out
    assert len(json.loads((where / "study.json").read_text())["sessions"]) == 2
    # A part of the seeds: nothing is left to do, and the page is that of all that lie there.
    assert main(["study", str(study), "--seed", "1"]) == 0
    assert "(n=2)" in (where / "nothing.md").read_text()
    # Other knobs are another study.
    assert main(["study", str(study), "--learning-rate", "0.5"]) == 1
    assert "--learning-rate 0.01, not 0.5" in capsys.readouterr().err
    for words in (["--temperature", "0.5"], ["--temperature=0.5"], ["--no-temperature"]):
        assert main(["study", str(study), *words]) == 1
        assert "so it cannot be set for all runs" in capsys.readouterr().err


def test_two_processes_at_one_study_keep_each_others_sessions(study, tmp_path, monkeypatch):
    """The other one writes its session while this one's runs are made."""
    other = {"began": "2026-01-01 00:00:00", "device": "1 x cpu", "process": 1, "seconds": 60.0}

    def made(config, knobs, grid, folder, *, after, **settings):
        after([])
        record = json.loads((folder / "study.json").read_text())
        record["sessions"].append(other)
        (folder / "study.json").write_text(json.dumps(record))
        after([])
        return [{}]

    monkeypatch.setattr(answer, "sweep", made)
    monkeypatch.setattr(answer, "write_page", lambda *_, **__: tmp_path / "page.md")

    def knobs(config, combination):
        return knobs_of("study", config, words_of(config, combination))

    answer.run_study(study, knobs, tmp_path / "runs")
    sessions = json.loads((tmp_path / "runs/study.json").read_text())["sessions"]
    assert [one["process"] for one in sessions] == [1, os.getpid()]


def test_a_run_that_cannot_be_evaluated_is_said_once_the_page_of_the_others_is_written(
    study, tmp_path, monkeypatch
):
    def made(config, knobs, grid, folder, **settings):
        raise Unevaluated("seed=0 has no labels.", [{"of": "the others"}])

    written = []
    monkeypatch.setattr(answer, "sweep", made)
    monkeypatch.setattr(answer, "write_results", lambda *_, **__: ["the others"])
    monkeypatch.setattr(answer, "write_page", lambda path, shown, results, *_, **__: written.append(results))

    def knobs(config, combination):
        return knobs_of("study", config, words_of(config, combination))

    with pytest.raises(Unevaluated, match="seed=0 has no labels"):
        answer.run_study(study, knobs, tmp_path / "runs")
    assert written == [["the others"]]


def test_a_page_names_the_runs_that_diverged_and_waits_for_none_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(answer, "plot_sweep", lambda *_, **__: None)
    path, runs = studies()["randbits"], len(settings(ASKED)) * len(ASKED.seeds)
    for name in ("seed=0,loss=a", "seed=1,loss=a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / DIVERGED).write_text("{}")
    left = [row for row in FOUND if dict(row["knobs"])["loss"] != "a"]
    page = answer.write_page(path, ASKED, left, tmp_path).read_text()
    there = len({tuple(row["knobs"].items()) for row in left})
    assert f"{there} of {runs} runs so far. Without a result, as they diverged: seed=0,loss=a; seed=1" in page
    study = ASKED._replace(grid={"loss": ["a", "b"]}, seeds=(0,), compare=())
    for folder in tmp_path.glob("seed=1*"):
        (folder / DIVERGED).unlink()
    row = {"knobs": {"seed": "0", "loss": "b"}, "protocol": "knn", "encoder": "trained", "accuracy": 50.0}
    page = answer.write_page(path, study, [row], tmp_path).read_text()
    assert "1 of 2 runs. Without a result, as they diverged: seed=0,loss=a." in page


def test_without_results_there_is_nothing_to_draw(tmp_path):
    (tmp_path / "sweep.json").write_text("[]")
    with pytest.raises(ValueError, match="has no results yet"):
        plot_sweep(tmp_path)


def test_studies_are_listed_and_one_without_a_small_form_says_so(capsys):
    assert main(["study"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(studies())
    assert main(["study", "temperature_and_loss", "--small"]) == 1
    assert "has no SMALL" in capsys.readouterr().err
    assert main(["study", "nothing_of_the_kind"]) == 1
    assert "`jaxcl study` lists" in capsys.readouterr().err


def test_knobs_that_are_not_those_of_a_combination_are_refused_before_anything_is_trained(study, tmp_path):
    def knobs(config, combination):
        return SimpleNamespace(**(combination | {"temperature": 0.9}))

    with pytest.raises(ValueError, match=r"temperature=0.1 would have 0.9"):
        answer.run_study(study, knobs, tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("seed=*"))


def test_the_command_of_a_page_names_the_seeds_it_is_of():
    for words in (["--seed", "0"], ["--seed=1"], []):
        assert answer._command(["jaxcl", "study", "s", *words], (0, 1), (0, 1)) == ["jaxcl", "study", "s"]
    assert answer._command(["jaxcl", "study", "s", "--seed", "0"], (0, 1), (0, 1, 2))[3:] == [
        "--seed",
        "0",
        "1",
        "2",
    ]


@pytest.mark.parametrize(("path", "small"), FILES)
def test_the_picture_of_a_study_can_be_drawn_of_all_its_runs(path, small, tmp_path):
    study = load_study(path, small=small)
    where = study.picture.get("where", {})  # of which "joint" may be, which no run is asked for
    results = [
        {"encoder": "trained", "protocol": protocol, "accuracy": 50.0, "knobs": {"seed": "0", **setting}}
        for setting in settings(study)
        for protocol in {*study.protocols, where.get("protocol", study.protocols[0])}
    ]
    (tmp_path / "sweep.json").write_text(json.dumps(results))
    assert plot_sweep(tmp_path, **study.picture).stat().st_size > 1000


@pytest.mark.parametrize("begun", [1, None], ids=["one run", "a seed and two runs"])
@pytest.mark.parametrize(("path", "small"), FILES)
def test_of_a_study_under_way_each_comparison_is_of_the_runs_it_names(
    path, small, begun, tmp_path, monkeypatch
):
    study = load_study(path, small=small)
    runs = combinations(grids(study))[: begun or len(settings(study)) + 2]
    reached = [10 + (37 * i % 64) + i % 7 / 8 for i in range(len(runs))]  # exact in binary
    knobs = ["seed", *settings(study)[0]]
    results = [
        {
            "encoder": "trained",
            "protocol": protocol,
            "accuracy": value,
            "knobs": {knob: run.get(knob, "") for knob in knobs},
        }
        for run, value in zip(runs, reached, strict=True)
        for protocol in study.protocols
    ]

    def accuracy(seed, wanted):
        alike = [
            value
            for run, value in zip(runs, reached, strict=True)
            if run["seed"] == seed and all(wanted.get(k) == v for k, v in run.items() if k != "seed")
        ]
        assert len(alike) < 2
        return alike[0] if alike else None

    header, rows = compared_table(study, results)
    assert header == ("difference", *study.protocols)
    assert [row[0] for row in rows] == [words for words, _ in comparisons(study)]
    for words, *cells in rows:
        told, _, at = words.partition(" at ")
        rest = dict(one.split(" ", 1) for one in at.split(", ")) if at else {}
        signs = [(1, rest)]
        for pair in told.split(": "):
            knob, value, _, minus = pair.split(" ")
            signs = [
                (sign * one, known | {knob: to})
                for sign, known in signs
                for one, to in ((1, value), (-1, minus))
            ]
        by_seed = [[(sign, accuracy(seed, wanted)) for sign, wanted in signs] for seed in ("0", "1")]
        sums = [sum(sign * a for sign, a in one) for one in by_seed if all(a is not None for _, a in one)]
        for cell in cells:
            if not sums:
                assert cell == ""
            else:
                assert cell.startswith(f"{sum(sums) / len(sums):+.1f} ")
                assert cell.endswith(f"(n={len(sums)})")
    header, rows = settings_table(study, results)
    for setting, row in zip(settings(study), rows, strict=True):
        has = accuracy("0", {knob: value for knob, value in setting.items() if value})
        assert bool(row[len(setting)]) == (has is not None)
        if study.published is not None:
            figures = [
                word(figure)
                for where, figure in study.published.figures
                if all(setting[knob] == word(value) for knob, value in where.items())
            ]
            assert row[-1] == (figures[0] if figures else "")
    monkeypatch.setattr(answer, "plot_sweep", lambda *_, **__: None)
    page = answer.write_page(path, study, results, tmp_path).read_text()
    n = len({run["seed"] for run in runs})
    assert f"{len(runs)} of {len(settings(study)) * len(study.seeds)} runs so far." in page
    assert f"over {n} seed{'s' * (n > 1)}. Fewer than three" in page
