"""The bar on a terminal: of the Collection being read how much, how fast, and how long still."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from syncd.cli.output import clean
from syncd.run.job import OnProgress, Progress

_TITLE = 26  # columns: what leaves room for the rest on 80


@contextmanager
def follow(name: str) -> Iterator[OnProgress]:
    """What to call as the Run goes on."""
    title, counts = TextColumn("{task.description}"), TextColumn("{task.fields[counts]}")
    columns = (SpinnerColumn(), title, BarColumn(bar_width=16), counts, TimeRemainingColumn(compact=True))
    # what is printed meanwhile stands above the bar, unless it goes elsewhere
    with Bar(*columns, console=Console(stderr=True, highlight=False), transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        shown = bar.add_task(_short(name), total=None, counts="looking")
        current = ""

        def on_progress(progress: Progress) -> None:
            nonlocal current
            total = progress.total
            if progress.project != current:
                current = progress.project
                bar.reset(shown, total=total, description=_short(f"{name} · {progress.title or progress.project}"))
            said = f"{progress.read:,}/{total:,}" if total else f"{progress.read:,}"
            said += f" [red]{progress.failed:,} failed[/]" if progress.failed else ""
            said += f" [dim]{bar.tasks[0].speed:,.0f}/s[/]" if bar.tasks[0].speed else ""
            bar.update(shown, completed=progress.read, total=max(total, progress.read) if total else None, counts=said)

        yield on_progress


def _short(text: str) -> str:
    text = clean(text).replace("[", r"\[")
    return text if len(text) <= _TITLE else text[: _TITLE - 1] + "…"
