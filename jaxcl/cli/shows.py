"""What the commands show: progress, tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple


def aside(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


class Shown(NamedTuple):
    progress: Callable[[str, str, float], None]
    say: Callable[[str], None]


# Where standard output is no terminal: so long may nothing be said.
SECONDS_BETWEEN_LINES = 20.0


@contextmanager
def progress_bar(*, clock: Callable[[], float] = time.monotonic) -> Iterator[Shown]:
    """A bar that moves as an evaluation does, and lines above it. Where standard output is no terminal: a line for each
    encoder and protocol, and one now and then with how far it is and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeftColumn

    # A pipe gets lines even where FORCE_COLOR makes rich take it for a terminal. Names of people's files and classes
    # are no markup, and folder:new: is no picture of a button.
    interactive = None if sys.stdout.isatty() else False
    console = Console(force_interactive=interactive, markup=False, emoji=False)
    name, doing_what = (
        TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[what]}")
    )
    columns = (name, BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    left = (TextColumn("left:"), TimeLeftColumn(), doing_what)
    bar = Progress(*columns, *left, console=console, transient=True)
    tasks: dict[str, Any] = {}
    said, began, doing = clock(), clock(), ""

    def say(line: str) -> None:
        nonlocal said
        console.print(line, highlight=False, soft_wrap=True)
        said = clock()

    def progress(name: str, what: str, fraction: float) -> None:
        nonlocal began, doing
        if name not in tasks:
            for task in tasks.values():
                bar.update(task, visible=False)
            tasks[name] = bar.add_task(name, total=1.0, what=what)
            if not console.is_interactive:
                say(name)
        if f"{name} {what}" != doing:
            began, doing = clock(), f"{name} {what}"
            bar.reset(tasks[name])
        bar.update(tasks[name], completed=fraction, what=what)
        if not console.is_interactive and clock() - said > SECONDS_BETWEEN_LINES:
            rest = f", {(clock() - began) * (1 - fraction) / fraction:.0f} s left of it" if fraction else ""
            say(f"{name}: {what}, {fraction:.0%}{rest}")

    if not console.is_interactive:
        yield Shown(progress, say)
        return
    with bar:
        yield Shown(progress, say)


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(markup=False, emoji=False).print(table)
