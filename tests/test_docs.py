"""What the pages say is so: links lead somewhere, tests that are named exist, commands have these options, the house
has these rooms, and the examples run."""

import argparse
import ast
import contextlib
import dataclasses
import io
import itertools
import json
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from jaxcl.cli import HELP, knobs_of, main
from jaxcl.config import executed, load_config
from jaxcl.evaluate.protocols import PROTOCOLS
from jaxcl.keys import init_key
from jaxcl.runs import create_or_resume
from jaxcl.shipped import studies
from jaxcl.train import checkpoint, init_state
from jaxcl.train.state import blank_batch
from jaxcl.typing import About

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
# What is drawn when the site is built (docs/site/figures.py).
DRAWN = re.search(r"for figure in \((.*?)\)", (ROOT / "docs/site/figures.py").read_text(), re.DOTALL)[1]
FIGURES = set(re.findall(r"\w+", DRAWN))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        if (page.parent / path).resolve().parent == ROOT / "docs" / "figures":
            assert Path(path).stem in FIGURES, target
            continue
        assert (page.parent / path).exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", (page.parent / path).read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, (
                target
            )


def test_every_picture_of_a_method_is_shown():
    text = " ".join(page.read_text() for page in DOCS)
    assert {name for name in FIGURES if f"figures/{name}.png)" in text} == FIGURES


def test_every_page_is_in_one_table_of_contents_and_these_name_pages():
    listed = []
    for page in DOCS:
        for body in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            entries = [line for line in body.splitlines() if line and line[0] != ":"]
            names = [re.sub(r".*<(.*)>", r"\1", entry) for entry in entries]
            listed += [(page.parent / name).resolve() for name in names if "*" not in name]
    notebooks = (ROOT / "notebooks").glob("*.ipynb")
    pages = {path.with_suffix("") for path in [*PAGES, *notebooks]} - {ROOT / "docs" / "index"}
    assert sorted(listed) == sorted(pages)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_tests_that_are_named_exist(page):
    for file, test in re.findall(r"`(?:tests/)?([\w/]*test_\w+\.py)(?:::(\w+))?`", page.read_text()):
        path = ROOT / "tests" / file
        assert path.exists(), file
        assert not test or re.search(rf"^def {test}\(", path.read_text(), re.MULTILINE), f"{file}::{test}"
    for test in re.findall(r"`(test_\w+)`", page.read_text()):
        named = (ROOT / "tests").rglob("test_*.py")
        assert any(path.stem == test or f"def {test}(" in path.read_text() for path in named), test


def test_every_row_of_fidelity_has_its_columns_and_a_test_or_says_so():
    rows = [line for line in (ROOT / "docs" / "fidelity.md").read_text().splitlines() if line.startswith("|")]
    rows = [row for row in rows if not row.startswith(("| setting", "|---"))]
    assert len(rows) > 80
    for row in rows:
        cells = row.strip("|").split(" | ")
        assert len(cells) == 5, row
        assert re.search(r"::test_|untested|see MoCo", cells[-1]), row


def test_the_house_of_the_readme_is_the_package():
    text = (ROOT / "README.md").read_text().split("## The house")[1]
    text = text.replace("`jaxcl/`", "")
    named = set(re.findall(r"`(\w+(?:/|\.py))`", text))
    package = ROOT / "jaxcl"
    there = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    there |= {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert named == there


@cache
def help_of(command):
    """The options that `jaxcl COMMAND --help` shows."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main([command, "--help"])
    return set(re.findall(r"--[a-z][\w-]*", shown.getvalue()))


COMMANDS = "train|evaluate|embed|export|plot|report|plan|sweep|study|views|parts|replay|status"


def joined(text):
    """Commands that go on in the next line in one line."""
    return re.sub(r" *\\\n *", " ", text)


def commands():
    """(page, words) of every `jaxcl COMMAND ...` of the pages, in blocks and in lines, and of a config's name with
    options behind it; not of the changelog, where old names stand too. And of the docstrings of configs and of
    `jaxcl --help`, line by line."""
    configs = sorted((ROOT / "configs").glob("*.py"))
    docstrings = {page.name: ast.get_docstring(ast.parse(page.read_text())) or "" for page in configs}
    for name, docstring in {"jaxcl --help": HELP, **docstrings}.items():
        for command, words in re.findall(rf"^ *jaxcl ({COMMANDS}) (.+)$", docstring, re.MULTILINE):
            yield name, (command, *re.split(r"   | \(", words)[0].split())
    results = sorted((ROOT / "benchmarks" / "results").glob("*.md"))
    for page in [*PAGES, *results, *sorted((ROOT / "notebooks").glob("*.ipynb"))]:
        if page.name == "CHANGELOG.md":
            continue
        text = page.read_text()
        if page.suffix == ".ipynb":
            cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
            text = "\n".join("".join(cell["source"]) for cell in cells)
            text = re.sub(r"^    (jaxcl .*)$", r"`\1`", text, flags=re.MULTILINE)
        blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        lines = [line for block in blocks for line in joined(block).splitlines()]
        lines = [line for line in lines if line[:1] != "+"]  # of a diff
        spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
        for line in [*lines, *(" ".join(span.split()) for span in spans)]:
            found = re.search(rf"\bjaxcl ({COMMANDS}) (.+)", line)
            page_of = re.match(r"(?:configs/)?(\w+\.py) (--.+)", line)
            if page_of and (ROOT / "configs" / page_of[1]).exists():
                yield (
                    page.name,
                    (
                        "plan" if "--machine" in line else "train",
                        f"configs/{page_of[1]}",
                        *page_of[2].split(),
                    ),
                )
            if found:
                words = re.split(r" #| && |\"|   ", found[2])[0].split()
                yield page.name, (found[1], *words)


# Of `jaxcl plan` alone: with so many words behind each; and of `train` alone, those of many machines and of the run.
PLANNED = {"--machine": 1, "--json": 1, "--no-advise": 0, "--images": 1, "--shape": 3, "--classes": 1}


def sections():
    """(page and heading, its commands in their order) of pages, and of the docstrings of configs."""
    found = {}
    for page in PAGES:
        if page.name != "CHANGELOG.md":
            for title, body in re.findall(
                r"^#+ ([^\n]+)\n(.*?)(?=^#+ |\Z)", page.read_text(), re.DOTALL | re.MULTILINE
            ):
                found[f"{page.name}: {title.lower()}"] = body
    for config in sorted((ROOT / "configs").glob("*.py")):
        found[config.name] = ast.get_docstring(ast.parse(config.read_text())) or ""
    for name, text in found.items():
        lines = re.findall(r"\bjaxcl (plan|train) (configs/\w+\.py)([^`\n]*)", joined(text))
        yield (
            name,
            [
                (command, config, re.split(r" #|   |\"| > ", rest)[0].split())
                for command, config, rest in lines
            ],
        )


def knobs_in(words):
    """--option and the words behind it, without what is the plan's alone."""
    found, rest = {}, list(words)
    while rest:
        option = rest.pop(0)
        values = list(itertools.takewhile(lambda word: word[:2] != "--", rest))
        del rest[: len(values)]
        if option not in PLANNED:
            found[option] = values
    return found


def test_what_is_planned_is_what_is_trained():
    """A plan of 4,096 images a step says nothing of a run of 512."""
    pairs = 0
    for name, found in sections():
        for at, (command, config, words) in enumerate(found):
            for other, same, trained in found[at + 1 :]:
                if (command, other, same) == ("plan", "train", config):
                    pairs += 1
                    assert knobs_in(words).items() <= knobs_in(trained).items(), (
                        f"{name}: jaxcl train {config}"
                    )
    assert pairs >= 3


def test_a_script_for_slurm_hands_its_cpus_on_and_asks_for_the_next_turn():
    text = joined((ROOT / "docs" / "scaling.md").read_text())
    script = next(
        block for block in re.findall(r"```\n(#!/bin/bash.*?)```", text, re.DOTALL) if "srun" in block
    )
    options = " ".join(re.findall(r"^#SBATCH (.*)$", script, re.MULTILINE))
    assert {"--time", "--signal", "--requeue"} <= {word.split("=")[0] for word in options.split()}
    assert all("--cpus-per-task=" in line for line in script.splitlines() if line.startswith("srun "))
    begun, (srun, *after) = script.split("srun ")[0], script.split("srun ")[1].splitlines()
    # As a shell runs it: with status 75 it is put into the queue again, and with others not; the status stays.
    for status in (0, 1, 75):
        stand_ins = f"scontrol() {{ echo scontrol $*; }}\nsrun() {{ return {status}; }}\nSLURM_JOB_ID=7\n"
        done = subprocess.run(
            ["bash", "-c", stand_ins + "\n".join([begun, f"srun {srun}", *after])],
            capture_output=True,
            text=True,
        )
        assert done.returncode == status
        assert done.stdout == ("scontrol requeue 7\n" if status == 75 else "")


def test_a_run_in_a_pod_gets_its_signal_and_time_to_save():
    text = (ROOT / "docs" / "scaling.md").read_text()
    (pod,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert int(re.search(r"terminationGracePeriodSeconds: (\d+)", pod)[1]) > 120
    assert all("exec jaxcl" in line for line in pod.splitlines() if "jaxcl train" in line)


def test_a_run_over_ssh_outlives_the_connection():
    text = joined((ROOT / "docs" / "scaling.md").read_text())
    started = [line for line in text.splitlines() if " ssh " in line and "jaxcl train" in line]
    assert started
    for line in started:
        assert re.search(r"nohup .*jaxcl train .* > \S+ 2>&1 < /dev/null &", line)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.py")), ids=lambda path: path.stem)
def test_what_the_text_of_a_config_refers_to_is_there(path):
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    for named in re.findall(r"\b(?:benchmarks|docs|configs)/[\w/.-]+\.(?:md|py)", text):
        assert (ROOT / named).exists(), named


def in_words(value):
    return value if isinstance(value, str) else " ".join(value)


@pytest.mark.parametrize(("page", "words"), sorted(set(commands())), ids=in_words)
def test_a_command_has_these_options(page, words):
    command, *rest = words
    options = {re.sub(r"=.*", "", word) for word in rest if word.startswith("--")} - {"--debug"}
    configs = [word for word in rest if re.fullmatch(r"configs/\w+\.py", word)]
    known = help_of(command)
    for config in configs:
        module = load_config(ROOT / config)
        knobs = {field.name.replace("_", "-") for field in dataclasses.fields(module.Knobs)}
        known = known | {f"--{knob}" for knob in knobs} | {f"--no-{knob}" for knob in knobs}
        if "--preset" in rest:
            known = known | {"--preset"}
            assert rest[rest.index("--preset") + 1] in module.PRESETS
    if configs or command in ("evaluate", "embed", "export", "plot", "report", "replay", "status"):
        assert options <= known
    if command == "study" and rest:
        assert rest[0] in (*studies(), "NAME")
        assert "--small" not in rest or hasattr(executed(studies()[rest[0]], what="a study"), "SMALL")
    if command == "evaluate" and "--protocol" in rest:
        for name in itertools.takewhile(lambda word: word[:2] != "--", rest[rest.index("--protocol") + 1 :]):
            assert name in PROTOCOLS


GUIDES = [page for page in DOCS if page.parent.name in ("guides", "methods") or page.name == "index.md"]


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_the_values_of_knobs_in_commands_are_of_their_kinds(page):
    """By the command line's own parser; of a sweep, which lists several, the options alone are known (above)."""
    text = joined(page.read_text())
    for command, words in re.findall(r"^jaxcl (train|plan|views) (configs/.*)$", text, re.MULTILINE):
        config, *rest = re.split(r" #|   ", words)[0].split()
        own = [i for i, word in enumerate(rest) if word in ("--run-dir", "--machine")]
        rest = [word for i, word in enumerate(rest) if i not in own and i - 1 not in own]
        knobs_of(command, ROOT / config, rest)


def blocks():
    """The Python blocks of docs/, each under its heading."""
    return [
        pytest.param(code, id=f"{page.stem}: {title.lower()}")
        for page in DOCS
        for title, body in re.findall(
            r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", page.read_text(), re.DOTALL | re.MULTILINE
        )
        for code in re.findall(r"^```python\n(.*?)^```", body, re.DOTALL | re.MULTILINE)
    ]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder in which runs/photos is a run, saved before its first step."""
    folder, config = tmp_path_factory.mktemp("photos"), ROOT / "configs" / "simclr_cifar10_cpu.py"
    module, where = load_config(config), folder / "runs" / "photos"
    knobs, about = module.Knobs(features=(4,), batch_size=16), About(64, (32, 32, 3), ("cat", "dog"))
    create_or_resume(where, config, knobs, about)
    recipe = module.recipe(knobs, about)
    state = init_state(init_key(0), recipe.method, recipe.optimizer, blank_batch(about))
    checkpoint.save(where / "checkpoints", 1, state)
    return folder


def test_each_part_of_one_s_own_has_a_complete_example():
    parts = ("network", "augmentation", "loss", "method", "data set", "config", "logger")
    assert {f"own: {part}" for part in parts} <= {one.id for one in blocks()}


@pytest.mark.parametrize("code", blocks())
def test_an_example_runs_as_it_stands(code, tmp_path, monkeypatch, request):
    monkeypatch.chdir(request.getfixturevalue("photos") if "runs/photos" in code else tmp_path)
    for package in (
        "equimo",
        "equinox",
        "haiku",
    ):  # no dependency: where it is missing, its example is not run
        if re.search(rf"^(?:import|from) {package}\b", code, re.MULTILINE):
            pytest.importorskip(package)
    exec(compile(code, "docs", "exec"), {"__name__": "own"})


def test_figures_of_methods_are_those_of_the_readme_or_of_a_measurement():
    measured = [ROOT / "README.md", *(ROOT / "benchmarks" / "results").glob("*.md")]
    known = " ".join(" ".join(page.read_text().split()) for page in measured)
    for page in DOCS:
        if page.parent.name == "methods":
            for figure in re.findall(r"\d+\.\d ± \d+\.\d", " ".join(page.read_text().split())):
                assert figure in known, f"{page.name}: {figure}"


def test_a_page_says_which_spread_it_means():
    for page in [ROOT / "README.md", *(page for page in DOCS if page.parent.name == "methods")]:
        for section in page.read_text().split("\n## "):
            assert "±" not in section or re.search(r"standard deviation|95\s%", section), (page, section[:60])


def parsers(command, monkeypatch):
    """The parsers with which a command reads its words, asked for by no words at all."""
    made = []

    def stop(parser, *_, **__):
        made.append(parser)
        raise SystemExit

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main([command])
    return made


@pytest.mark.parametrize("command", [*COMMANDS.split("|"), "configs"])
def test_every_argument_of_a_command_is_explained_by_its_help(command, monkeypatch):
    with monkeypatch.context() as patch:
        found = parsers(command, patch)
    shown = help_of(command)
    for parser in found:
        for action in parser._actions:
            if parser.add_help:
                assert action.help, f"jaxcl {command}: {action.dest} has no help"
            elif action.option_strings and "--help" not in action.option_strings:
                # Its help is a text of its own (jaxcl.cli.texts).
                assert shown & set(action.option_strings), (
                    f"jaxcl {command}: {action.dest} is not in its text"
                )
    assert found or command == "parts"
