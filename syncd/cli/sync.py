"""`syncd sync`: one Run of each Sync in the foreground, and what it did. `syncd rebuild`: the same in full, for a new Checkpoint.

Rules: a Sync that fails does not stop the next one; an interrupt does. The exit code is the worst of all Syncs. `rebuild` refuses to touch a
Checkpoint that is sound, unless told to, and a place that the marker says is another Sync's.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from types import FrameType

from syncd import keys
from syncd.cli.jobs import WORST, read
from syncd.cli.main import INTERRUPTED, Call
from syncd.cli.output import clean, fold, log, paint, say
from syncd.clock import SystemClock
from syncd.config import open_checkpoint, open_target, set_aside_checkpoint
from syncd.errors import OwnedError, SyncdError
from syncd.model import Failure, Kind, Report
from syncd.run.confirmed import command, leave
from syncd.run.job import OnProgress
from syncd.run.opening import attempt
from syncd.run.place import owner

_NAMED = 10  # failures shown by name, so that all stays on one screen; `--json` has all
_COUNTS = ("written", "unchanged", "healed", "adopted", "trashed", "deleted", "kept")
_ALWAYS = ("written", "unchanged")  # counts shown also when they are 0


def run_syncs(call: Call, wanted: Sequence[str] | None, *, full: bool, confirm_deletes: str, take_over: bool) -> int:
    """Run the Syncs one after the other; the exit code."""
    config, names = read(call, wanted)
    start = partial(attempt, config, kind=Kind.FULL if full else None, confirm_deletes=confirm_deletes, take_over=take_over)
    reports: list[Report] = []
    with _stoppable() as clock:
        try:
            checkpoint = open_checkpoint(config)
        except OwnedError:
            if confirm_deletes and all(leave(config.state, name, confirm_deletes) for name in names):
                say(f"the running syncd was told: its Run of {', '.join(names)} begins now; `syncd status` shows what became of it", sys.stderr)
                return 0
            raise
        try:
            for name in names:
                with progress(name, call) as on_progress:
                    reports.append(start(name, checkpoint, clock, on_progress))
                if reports[-1].error:
                    log.error("%s: %s", name, reports[-1].error)
                call.tell(report_fields(reports[-1]))
                if clock.stop.is_set():
                    break
        finally:
            checkpoint.close()
    _summary(call, reports)
    unrun = [INTERRUPTED] if len(reports) < len(names) else []
    return max([report.exit_code for report in reports] + unrun, key=WORST.index)


def run_rebuild(call: Call, *, force: bool) -> int:
    """Keep the old Checkpoint aside if need be, and run each Sync in full that has not had its full Run; the worst exit code."""
    config, names = read(call, None)
    clock = SystemClock()
    if aside := set_aside_checkpoint(config, clock.now(), force=force):
        log.warning("the old Checkpoint is kept as %s: %s", aside[1], aside[0])
    with closing(open_checkpoint(config, read_only=True)) as checkpoint:
        names = [name for name in names if checkpoint.last_full(name) is None]
    if not names:
        raise SyncdError(f"the Checkpoint in {config.state} is sound: there is nothing to rebuild (--force makes a new one all the same)")
    ours = []
    for name in names:
        with closing(open_target(config, name, clock)) as target:
            if (other := owner(target)) in {"", name}:
                ours.append(name)
            else:
                advice = f"`syncd sync {name} --full --take-over` inherits the place if that one is gone for good"
                log.error("%s: %s belongs to sync %s, by its marker: %s", name, target.place, other, advice)
    code = run_syncs(call, ours, full=True, confirm_deletes="", take_over=True) if ours else 0
    return max(code, 0 if ours == names else OwnedError.exit_code, key=WORST.index)


def report_fields(report: Report) -> dict[str, object]:
    """A Report as `sync --json` prints it: see section 7 of the design."""
    fields = asdict(report)
    fields["failed"] = [{"project": f.project, "task": f.name and keys.shown(f.name), "error": f.error} for f in report.failed]
    if not report.plan_id:
        del fields["plan_id"], fields["guard"]
    return fields


@contextmanager
def _stoppable() -> Iterator[SystemClock]:
    """A clock that the first SIGINT or SIGTERM stops; the second one ends the process at once (every Run may be repeated, I5)."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        if stop.is_set():
            if os.isatty(2):
                os.write(2, b"\x1b[?25h\n")  # the bar hid the cursor; the shell's prompt begins a new line
            os._exit(INTERRUPTED)
        stop.set()
        log.warning("stopping: what is in flight is finished first; once more stops at once")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield SystemClock(stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def progress(name: str, call: Call) -> AbstractContextManager[OnProgress | None]:
    """A bar on a terminal, nothing elsewhere."""
    if call.json or not sys.stderr.isatty():
        return nullcontext()
    from syncd.cli.progress import follow  # slow to import

    return follow(name)


def _summary(call: Call, reports: Sequence[Report]) -> None:
    """One aligned line for each Sync, then what needs attention."""
    header = ("SYNC", "RESULT", "RUN", *(count.upper() for count in _COUNTS), "FAILED", "TIME")
    call.table(header, [_row(report) for report in reports], left=3)
    for report in reports:
        attention(call, report, max(1, _NAMED // max(1, sum(bool(report.failed) for report in reports))))


def attention(call: Call, report: Report, shown: int = _NAMED) -> None:
    """What the Guard stopped, and the first that failed."""
    if report.guard:
        call.say("\n" + fold(f"{report.sync}: {paint('the Guard stopped the deletions', 'guarded')}: {clean(report.guard)}."))
        call.say(f"Nothing was deleted. If the deletions are meant:\n  {command(call.config, report.sync, report.plan_id)}")
    if report.failed:
        call.say(f"\n{report.sync}: " + paint(f"{len(report.failed):,} failed", "failed") + ", tried again in the next Run:")
        failures(call, report.failed, shown)


def failures(call: Call, failed: Sequence[Failure], shown: int) -> None:
    """The first of them, by name."""
    names = [clean(failure.project if failure.name is None else f"{failure.project}/{keys.shown(failure.name)}") for failure in failed[:shown]]
    width = max(map(len, names))
    for name, failure in zip(names, failed, strict=False):
        call.say(f"  {name:<{width}}  {clean(failure.error)}")
    if len(failed) > shown:
        call.say(f"  ... and {len(failed) - shown:,} more (--json names all)")


def _row(report: Report) -> tuple[str, ...]:
    counts = [f"{value:,}" if (value := getattr(report, count)) or count in _ALWAYS else "" for count in _COUNTS]
    failed = f"{len(report.failed):,}" if report.failed else ""
    return (report.sync, report.status.value, report.kind.value, *counts, failed, f"{report.seconds:.1f}s")
