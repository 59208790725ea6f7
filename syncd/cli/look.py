"""The commands that only look: validate, schema, plan, status, trash list. They take no lock and write nothing."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from syncd.checkpoint.base import Checkpoint
from syncd.cli.jobs import close_job, confirmation, open_job, read
from syncd.cli.output import Output, clean, log, style
from syncd.clock import SECOND, SystemClock, format_time, parse_time
from syncd.config import load, open_checkpoint
from syncd.errors import ConfigError
from syncd.model import Kind, RunRecord, Status
from syncd.run.preview import PlanLine, plan_sync
from syncd.run.trash import list_trash

_TOTALS = {"+": "new", "~": "changed", "-": "deleted", "!": "failed"}
_BACK = 100  # Runs looked through for the last that went well


def validate(path: Path, output: Output) -> int:
    """Say whether the config is right; with `--json` its problems are the result."""
    try:
        config = load(path, os.environ)
    except ConfigError as error:
        if not output.json:
            raise
        for problem in error.problems:
            output.object(asdict(problem))
        return error.exit_code
    if output.json:
        output.object({"file": str(path), "ok": True, "syncs": list(config.syncs)})
        return 0
    output.line((f"{clean(str(path))} is right", style("ok")))
    rows = [(name, f"{rules.source} → {rules.target}") for name, rules in config.syncs.items()]
    output.table(("SYNC", "FROM → TO"), rows, left=2)
    return 0


def schema(output: Output) -> None:
    """Print the JSON Schema."""
    from syncd.config.schema import json_schema

    sys.stdout.write(json.dumps(json_schema(), indent=None if output.json else 2) + "\n")


def plan(path: Path, wanted: Sequence[str], output: Output, *, full: bool) -> int:
    """Print the Plan of each Sync, line by line as it is found out."""
    config, names = read(path, wanted)
    checkpoint, clock, code = open_checkpoint(config, read_only=True), SystemClock(), 0
    for name in names:
        job = open_job(config, name, checkpoint, clock)
        counts: Counter[str] = Counter()
        if not output.json:
            output.line((name, "bold"))
        for line in plan_sync(job, Kind.FULL if full else None):
            counts[line.sign] += 1
            code = max(code, line.exit_code)
            _plan_line(name, line, output)
        if not output.json:
            output.line("  ", ", ".join(f"{counts[sign]:,} {word}" for sign, word in _TOTALS.items() if counts[sign]) or "nothing to do")
        close_job(job)
    return code


def _plan_line(name: str, line: PlanLine, output: Output) -> None:
    if output.json:
        output.object({"sync": name, **asdict(line)})
        return
    key = clean(line.project if line.task is None else f"{line.project}/{line.task}")
    why = "" if line.why == _TOTALS[line.sign] else clean(line.why)
    output.line("  ", (line.sign, style(line.sign)), f" {key:<24}  {why}".rstrip())


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """What the Checkpoint says of one Sync.

    last_run, kind, status: of the last Run; status `unfinished`: it goes on now, or was killed. lag: seconds since the start of the last Run that
    ended ok; all that had changed by then is in the Target. tasks: in the Target; failing: tasks that are not; plan_id, error: what stopped the Run.
    """

    sync: str
    last_run: str | None
    kind: str | None
    status: str | None
    lag: float | None
    collections: int
    tasks: int
    failing: int
    plan_id: str
    error: str


def status(path: Path, wanted: Sequence[str], output: Output) -> None:
    """A line for each Sync, from the Checkpoint alone."""
    config, names = read(path, wanted)
    checkpoint, now = open_checkpoint(config, read_only=True), SystemClock().now()
    states = [_status(checkpoint, name, now) for name in names]
    checkpoint.close()
    if output.json:
        for state in states:
            output.object(asdict(state))
        return
    output.table(("SYNC", "RESULT", "LAST RUN", "LAG", "TASKS", "FAILING"), [_status_row(state, now) for state in states], left=3)
    for state in states:
        if state.plan_id:
            output.line("\n", state.sync, ": ", ("the Guard holds deletions back", style("guarded")), "; if they are meant:")
            output.line("  ", confirmation(path, state.sync, state.plan_id))
        elif state.error:
            output.line("\n", state.sync, ": ", ("failed", style("failed")), f": {clean(state.error)}", prose=True)


def _status_row(state: SyncStatus, now: int) -> tuple[str, ...]:
    last = "never" if state.last_run is None else f"{_span((now - parse_time(state.last_run)) / SECOND)} ago, {state.kind}"
    lag = "" if state.lag is None else _span(state.lag)
    return (state.sync, state.status or "-", last, lag, f"{state.tasks:,}", f"{state.failing:,}" if state.failing else "")


def _status(checkpoint: Checkpoint, name: str, now: int) -> SyncStatus:
    last = next(iter(checkpoint.runs(name, 1)), None)
    good = next((run.started_at for run in checkpoint.runs(name, _BACK) if run.status is Status.OK), None)
    collections = list(checkpoint.states(name))
    return SyncStatus(
        sync=name,
        last_run=format_time(last.started_at) if last else None,
        kind=last.kind if last else None,
        status=(last.status or "unfinished") if last else None,
        lag=None if good is None else max(0, now - good) / SECOND,
        collections=len(collections),
        tasks=sum(checkpoint.size(name, collection) for collection in collections),
        failing=len(checkpoint.failures(name)),
        plan_id=_said(last, "plan_id"),
        error=_said(last, "error"),
    )


def _said(run: RunRecord | None, field: str) -> str:
    return str(run.report.get(field) or "") if run else ""


def _span(seconds: float) -> str:
    """`12s`, `3m`, `5h`, `2d`: one number, the largest unit that gives at least 2 (seconds excepted)."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def trash_list(path: Path, wanted: Sequence[str], output: Output) -> None:
    """Each TaskFile in the trash, as the Targets list them."""
    config, names = read(path, wanted)
    checkpoint, clock, any_found = open_checkpoint(config, read_only=True), SystemClock(), False
    width = max(map(len, names))
    for name in names:
        job = open_job(config, name, checkpoint, clock)
        for item in list_trash(job):
            if output.json:
                output.object({"sync": name, **asdict(item)})
                continue
            if not any_found:
                output.line((f"{'DELETED':<10}  {'KEPT UNTIL':<10}  {'SYNC':<{width}}  TASK", "bold"))
            any_found = True
            output.line(f"{item.deleted}  {item.expires}  {name:<{width}}  {clean(f'{item.project}/{item.task}')}")
        close_job(job)
    if not any_found and not output.json:
        log.info("the trash is empty")
