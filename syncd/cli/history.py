"""What stands in a Target beside the newest files. `syncd changes`: the change feed, for a pipe; `syncd history`: the versions of a task;
`syncd prune`: what the trash and the history need not keep any more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict

import typer

from syncd.cli.jobs import for_each, moment, read
from syncd.cli.main import Call
from syncd.cli.output import clean, paint
from syncd.clock import SystemClock, format_date, format_time, parse_time
from syncd.config import open_target
from syncd.errors import SyncdError
from syncd.keys import Layout
from syncd.run.job import Job
from syncd.run.place import Listing, Place
from syncd.run.trash import outlived
from syncd.scratch import chunks
from syncd.upkeep.changes import changes
from syncd.upkeep.history import Change, Stood, holders, versions_of

_RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def run_changes(call: Call, sync: str, since: str, *, follow: bool) -> int:
    """Print line by line; with `follow` until somebody stops it."""
    config, _ = read(call, [sync])
    clock = SystemClock()
    run = since if _is_run(since) else ""
    at = moment("--since", since, clock, "nor the id of a Run") if since and not run else None
    with closing(open_target(config, sync, clock)) as target:
        for line in changes(target, clock, after=run, since=at, follow=follow):
            call.object(line)
    return 0


def _is_run(text: str) -> bool:
    with suppress(ValueError):
        return _RUN.fullmatch(text) is not None and parse_time(text[:8]) > 0
    return False


def run_history(call: Call, sync: str, task: str, project: str) -> int:
    """Version by version, newest first."""
    config, _ = read(call, [sync])
    rules = config.syncs[sync]
    layout, bucket = Layout(rules.key), rules.history is not None and rules.history.bucket
    with closing(open_target(config, sync, SystemClock())) as target:
        projects = [project] if project else holders(target, layout, task)
        if len(projects) > 1:
            raise typer.BadParameter(f"task {task} is in several Collections: choose one with --project: {', '.join(projects)}")
        versions = versions_of(target, layout, projects[0], task, bucket=bucket) if projects else iter(())
        first = next(versions, None)
        if first is None:
            where = f"Collection {project}" if project else f"any Collection of {target.place}"
            raise SyncdError(f"no version of task {task} is in {where}: check the ids" + ("" if project else ", or name its --project"))
        for version in (first, *versions):
            call.tell({"sync": sync, "project": projects[0], "task": task} | _fields(version), *_lines(version))
    return 0


def _fields(version: Stood) -> dict[str, object]:
    since, until = (at and format_time(at) for at in (version.since, version.until))
    times = {"since": since, "until": _day(version) if version.where == "trash" else until}
    return asdict(version) | times | {"digest": version.digest.hex()}


def _day(version: Stood) -> str:
    return format_date((version.until or 0) - 1)


def _lines(version: Stood) -> Iterator[str]:
    since = f"since {_moment(version.since)} " if version.since else ""
    until = "now" if version.until is None else f"{_day(version)}, then deleted" if version.where == "trash" else _moment(version.until)
    yield f"{paint(f'{since}until {until}', 'bold')}  {version.size:,} bytes  {version.digest.hex()[:12]}"
    for change in version.changes or ():
        yield f"  {paint(_SIGNS[change.op], _SIGNS[change.op])} {_said(change)}"
    if version.changes == []:
        yield "  = nothing changed but times and counts"


def _said(change: Change) -> str:
    who = " ".join(filter(None, (change.by and f"by {change.by}", change.at and f"at {change.at}")))
    if change.op == "removed" and who:  # nobody says by whom
        who = f"(it was {who})"
    fields = f": {', '.join(change.fields)}" if change.fields else ""
    return clean(f"{change.kind} {change.id} {who}".rstrip() + fields)


def _moment(at: int) -> str:
    return format_time(at)[:19].replace("T", " ") + "Z"


def run_prune(call: Call, syncs: Sequence[str] | None, *, dry_run: bool) -> int:
    """Sync by Sync; the trash and the history of one are listed once."""

    def pruned(job: Job) -> int:
        if not dry_run:
            Place(job, take_over=False).claim()
        counts: Counter[str] = Counter()
        with closing(Listing(job, "")) as listing:
            for some in chunks(outlived(job, listing.keys)):
                if not dry_run:
                    job.target.delete(some)
                for key in some:
                    counts["history" if "/_history/" in key else "trash"] += 1
                    call.tell({"sync": job.name, "key": key}, *[f"  {paint('-', '-')} {clean(key)}"] * dry_run)
        done = "would go" if dry_run else "gone"
        call.say(f"{job.name}: {counts['trash']:,} from the trash, {counts['history']:,} from the history {done}")
        return 0

    return for_each(call, syncs, pruned, write=not dry_run)
