"""What the pages say is so: links lead somewhere, tests that are named exist, commands have these options, the house
has these rooms, and the examples of docs/own.md run."""

import ast
import contextlib
import dataclasses
import io
import itertools
import re
from functools import cache
from pathlib import Path

import pytest

from jaxcl.cli import main
from jaxcl.config import executed, load_config
from jaxcl.evaluate.protocols import PROTOCOLS
from jaxcl.shipped import studies

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.name for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        assert (page.parent / path).exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", (page.parent / path).read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, (
                target
            )


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_tests_that_are_named_exist(page):
    for file, test in re.findall(r"`(?:tests/)?([\w/]*test_\w+\.py)(?:::(\w+))?`", page.read_text()):
        path = ROOT / "tests" / file
        assert path.exists(), file
        assert not test or re.search(rf"^def {test}\(", path.read_text(), re.MULTILINE), f"{file}::{test}"


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


COMMANDS = "train|evaluate|embed|export|plot|plan|sweep|study|views|parts|replay|status"


def commands():
    """(page, words) of every `jaxcl COMMAND ...` of the pages, in blocks and in lines, and of a config's name with
    options behind it; not of the changelog, where old names stand too. And of the docstrings of configs and of jaxcl,
    line by line."""
    for page in [ROOT / "jaxcl" / "cli.py", *sorted((ROOT / "configs").glob("*.py"))]:
        docstring = ast.get_docstring(ast.parse(page.read_text())) or ""
        for command, words in re.findall(rf"^ *jaxcl ({COMMANDS}) (.+)$", docstring, re.MULTILINE):
            yield page.name, (command, *re.split(r"   | \(", words)[0].split())
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        text = page.read_text()
        blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
        for line in [*lines, *(" ".join(span.split()) for span in spans)]:
            found = re.search(rf"\bjaxcl ({COMMANDS}) (.+)", line)
            page_of = re.match(r"(?:configs/)?(\w+\.py) (--.+)", line)
            if page_of and (ROOT / "configs" / page_of[1]).exists():
                yield page.name, ("train", f"configs/{page_of[1]}", *page_of[2].split())
            if found:
                words = re.split(r" #| && |\"|   ", found[2])[0].split()
                yield page.name, (found[1], *words)


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
    if configs or command in ("evaluate", "embed", "export", "plot", "replay", "status"):
        assert options <= known
    if command == "study" and rest:
        assert rest[0] in (*studies(), "NAME")
        assert "--small" not in rest or hasattr(executed(studies()[rest[0]], what="a study"), "SMALL")
    if command == "evaluate" and "--protocol" in rest:
        for name in itertools.takewhile(lambda word: word[:2] != "--", rest[rest.index("--protocol") + 1 :]):
            assert name in PROTOCOLS


def blocks():
    """The Python blocks of docs/own.md, each under its heading."""
    text = (ROOT / "docs" / "own.md").read_text()
    return [
        pytest.param(code, id=title.lower())
        for title, body in re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
        for code in re.findall(r"^```python\n(.*?)^```", body, re.DOTALL | re.MULTILINE)
    ]


@pytest.mark.parametrize("code", blocks())
def test_an_example_of_ones_own_runs_as_it_stands(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/own.md", "exec"), {"__name__": "own"})
