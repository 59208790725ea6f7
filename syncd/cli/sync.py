"""`syncd sync`: one Run of each Sync in the foreground, and what it did.

Rules: a Sync that fails does not stop the next one; an interrupt does. The exit code is the worst of all Syncs.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.progress import Task as BarTask
from rich.text import Text

from syncd.checkpoint.base import Checkpoint
from syncd.cli.jobs import close_job, confirmation, open_job, read
from syncd.cli.output import Output, clean, log, style
from syncd.clock import Clock, SystemClock
from syncd.config import Config, open_checkpoint
from syncd.errors import CheckpointError, SyncdError
from syncd.model import Failure, Kind, Report, Status
from syncd.run import due, run_sync
from syncd.run.job import OnProgress, Progress

_INTERRUPTED = 130
_WORST = (0, 3, 20, 1, 12, 11, 78, _INTERRUPTED)
"""Exit codes from good to bad: some tasks failed, a person must confirm, a Run failed, and then why nothing could be done at all."""
_NAMED = 10  # failures shown by name, so that all stays on one screen; `--json` has all
_COUNTS = ("written", "unchanged", "healed", "adopted", "trashed", "deleted", "kept")
_ALWAYS = ("written", "unchanged")  # counts shown also when they are 0


@dataclass(frozen=True, slots=True)
class Orders:
    """What the person asks of these Runs."""

    full: bool = False
    confirm_deletes: str = ""
    take_over: bool = False


def sync(path: Path, wanted: Sequence[str], orders: Orders, output: Output) -> int:
    """Run the Syncs one after the other; the exit code."""
    config, names = read(path, wanted)
    reports: list[Report] = []
    with _stoppable(output) as clock:
        checkpoint = open_checkpoint(config)
        try:
            for name in names:
                reports.append(_run(config, name, checkpoint, clock, orders, output))
                if reports[-1].error:
                    log.error("%s: %s", name, reports[-1].error)
                if output.json:
                    output.object(report_fields(reports[-1]))
                if clock.stop.is_set():
                    break
        finally:
            checkpoint.close()
    if not output.json:
        _summary(path, reports, output)
    unrun = [_INTERRUPTED] if len(reports) < len(names) else []
    return max([report.exit_code for report in reports] + unrun, key=_WORST.index)


def _run(config: Config, name: str, checkpoint: Checkpoint, clock: Clock, orders: Orders, output: Output) -> Report:
    """One Run; what went wrong is in its Report, but for what is wrong with the Checkpoint itself."""
    kind = Kind.FULL if orders.full else Kind.INCREMENTAL
    try:
        job = open_job(config, name, checkpoint, clock)
    except CheckpointError:
        raise
    except SyncdError as error:
        return Report(name, "", kind, Status.FAILED, error=str(error), exit_code=error.exit_code)
    try:
        kind = Kind.FULL if orders.full else due(job)
        with _progress(name, kind, output) as on_progress:
            return run_sync(job, kind=kind, confirm_deletes=orders.confirm_deletes, take_over=orders.take_over, on_progress=on_progress)
    finally:
        close_job(job)


def report_fields(report: Report) -> dict[str, object]:
    """A Report as `sync --json` prints it: see section 7 of the design."""
    fields = asdict(report)
    fields["failed"] = [{"project": f.project, "task": f.task, "error": f.error} for f in report.failed]
    if not report.plan_id:
        del fields["plan_id"], fields["guard"]
    return fields


@contextmanager
def _stoppable(output: Output) -> Iterator[SystemClock]:
    """A clock that the first SIGINT or SIGTERM stops; the second one ends the process at once (every Run may be repeated, I5)."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        if stop.is_set():
            output.err.show_cursor()
            output.err.out("")  # the shell's prompt begins a new line
            os._exit(_INTERRUPTED)
        stop.set()
        log.warning("stopping: what is in flight is finished first; once more stops at once")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield SystemClock(stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Rate(TextColumn):
    """Tasks read per second."""

    def render(self, task: BarTask) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="dim")


@contextmanager
def _progress(name: str, kind: Kind, output: Output) -> Iterator[OnProgress | None]:
    """A bar on a terminal: of the Collection being read how much, how fast, and how long still. Nothing elsewhere."""
    if output.json or not output.err.is_terminal:
        yield None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=16), TextColumn("{task.fields[counts]}"), _Rate(""))
    with Bar(*columns, TimeRemainingColumn(compact=True), console=output.err, transient=True) as bar:
        yield _follower(bar, name, kind)


def _follower(bar: Bar, name: str, kind: Kind) -> OnProgress:
    shown = bar.add_task(_short(name), total=None, counts="asking the Source")
    current = ""

    def follow(progress: Progress) -> None:
        nonlocal current
        # only a full Run reads all that the Source counts
        total = progress.total if kind is Kind.FULL else None
        if progress.project != current:
            current = progress.project
            bar.reset(shown, total=total, description=_short(f"{name} · {progress.title or progress.project}"))
        of = f"/{total:,}" if total else ""
        failed = f" [red]{progress.failed:,} failed[/]" if progress.failed else ""
        bar.update(shown, completed=progress.read, total=max(total, progress.read) if total else None, counts=f"{progress.read:,}{of}{failed}")

    return follow


def _short(text: str) -> str:
    text = clean(text).replace("[", r"\[")
    return text if len(text) <= 26 else text[:25] + "…"  # noqa: PLR2004 - what leaves room for the rest on 80 columns


def _summary(path: Path, reports: Sequence[Report], output: Output) -> None:
    """One aligned line for each Sync, then what needs attention."""
    header = ("SYNC", "RESULT", "RUN", *(count.upper() for count in _COUNTS), "FAILED", "TIME")
    output.table(header, [_row(report) for report in reports], left=3)
    shown = max(1, _NAMED // max(1, sum(bool(report.failed) for report in reports)))
    for report in reports:
        if report.guard:
            output.line("\n", report.sync, ": ", ("the Guard stopped the deletions", style("guarded")), f": {clean(report.guard)}.", prose=True)
            output.line("Nothing was deleted. If the deletions are meant:\n  ", confirmation(path, report.sync, report.plan_id))
        if report.failed:
            output.line("\n", report.sync, ": ", (f"{len(report.failed):,} failed", style("failed")), ", tried again in the next Run:")
            _failures(report.failed, shown, output)


def _failures(failed: Sequence[Failure], shown: int, output: Output) -> None:
    names = [clean(failure.project if failure.task is None else f"{failure.project}/{failure.task}") for failure in failed[:shown]]
    width = max(map(len, names))
    for name, failure in zip(names, failed, strict=False):
        output.line(f"  {name:<{width}}  {clean(failure.error)}")
    if len(failed) > shown:
        output.line(f"  ... and {len(failed) - shown:,} more (--json names all)")


def _row(report: Report) -> tuple[str, ...]:
    counts = [f"{value:,}" if (value := getattr(report, count)) or count in _ALWAYS else "" for count in _COUNTS]
    failed = f"{len(report.failed):,}" if report.failed else ""
    return (report.sync, report.status.value, report.kind.value, *counts, failed, f"{report.seconds:.1f}s")
