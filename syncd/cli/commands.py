"""The commands: all but `sync` only look, take no lock and write nothing.

What is slow to import is imported by the command that needs it, so that `--help` is quick.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from syncd import keys
from syncd.cli.main import Call, LogFormat, LogLevel, OneSync, Syncs, app, command, hooks, trash
from syncd.cli.output import clean, fold, log_to_stderr, paint, say, table
from syncd.clock import SECOND, SystemClock, format_time
from syncd.errors import ConfigError

if TYPE_CHECKING:
    from syncd.checkpoint.base import Checkpoint
    from syncd.config import Config
    from syncd.run.job import Job
    from syncd.run.preview import PlanLine

_TOTALS = {"+": "new", "~": "changed", "-": "deleted", "!": "failed"}


@command(app, "init")
def init(
    call: Call,
    *,
    source: Annotated[str, typer.Option(metavar="TYPE", help="Where tasks are read: label_studio, files, ...")] = "",
    url: Annotated[str, typer.Option(help="Address of the server to read from.")] = "",
    token_file: Annotated[str, typer.Option(metavar="FILE", help="A file that holds the token or API key.")] = "",
    token_env: Annotated[str, typer.Option(metavar="NAME", help="An environment variable that holds it.")] = "",
    source_path: Annotated[str, typer.Option(metavar="FOLDER", help="The folder of exports to read.")] = "",
    project: Annotated[list[str] | None, typer.Option(metavar="ID_OR_PATTERN", help="What to back up; may be repeated. Default: all.")] = None,
    target: Annotated[str, typer.Option(metavar="TYPE", help="Where files are written: local, s3, gcs.")] = "",
    target_path: Annotated[str, typer.Option(metavar="FOLDER", help="The folder to write to.")] = "",
    bucket: Annotated[str, typer.Option(help="The bucket to write to.")] = "",
    prefix: Annotated[str, typer.Option(help="A folder in the bucket.")] = "",
    region: Annotated[str, typer.Option(help="The bucket's region.")] = "",
    endpoint: Annotated[str, typer.Option(help="URL of the store, if it is not Amazon's or Google's.")] = "",
    every: Annotated[str, typer.Option(help="How often to look for changes; default 60s.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the config file.")] = False,
) -> int:
    """Start a config file: asks on a terminal, or takes options.

    Then tries it, as doctor does. No secret is written into the config.
    """
    from syncd.cli.init import run_init

    given = {"source": source, "url": url, "token_file": token_file, "token_env": token_env, "source_path": source_path, "target": target}
    given |= {"target_path": target_path, "bucket": bucket, "prefix": prefix, "region": region, "endpoint": endpoint, "every": every}
    return run_init(call, given, project or [], force=force)


@command(app, "validate")
def validate(call: Call) -> int:
    """Check the config file, offline: all problems at once."""
    from syncd.config import load

    try:
        config = load(call.config, os.environ)
    except ConfigError as error:
        if not call.json:
            raise
        for problem in error.problems:
            call.object(asdict(problem))
        return error.exit_code
    call.tell({"file": str(call.config), "ok": True, "syncs": list(config.syncs)}, paint(f"{clean(str(call.config))} is right", "ok"))
    call.table(("SYNC", "FROM → TO"), [(name, f"{rules.source} → {rules.target}") for name, rules in config.syncs.items()], left=2)
    return 0


@command(app, "schema")
def schema(call: Call) -> int:
    """Print the JSON Schema of the config file."""
    from syncd.config.schema import json_schema

    say(json.dumps(json_schema(), indent=None if call.json else 2))
    return 0


@command(app, "doctor")
def doctor(call: Call, syncs: Syncs = None) -> int:
    """Try every Source and Target for real, and say what to do.

    Writes, reads and removes a probe file in each Target. ✓ as it should be  ! advice  ✗ wrong
    """
    from syncd.cli.doctor import run_doctor

    return run_doctor(call, syncs)


@command(app, "plan")
def plan(call: Call, syncs: Syncs = None, *, full: Annotated[bool, typer.Option("--full", help="As a full Run would: every body.")] = False) -> int:
    """Show what a Run would do; touches nothing.

    One line for each task: + new  ~ changed  - deleted  ! error
    """
    from syncd.cli.jobs import WORST, for_each
    from syncd.model import Kind
    from syncd.run.preview import plan_sync

    def planned(job: Job) -> int:
        counts, code = Counter[str](), 0
        call.say(paint(job.name, "bold"))
        for line in plan_sync(job, Kind.FULL if full else None):
            counts[line.sign] += 1
            code = max(code, line.exit_code, key=WORST.index)
            _plan_line(job.name, line, call)
        call.say("  " + (", ".join(f"{counts[sign]:,} {word}" for sign, word in _TOTALS.items() if counts[sign]) or "nothing to do"))
        return code

    return for_each(call, syncs, planned)


def _plan_line(name: str, line: PlanLine, call: Call) -> None:
    task = None if line.task is None else keys.shown(line.task)
    key = clean(line.project if task is None else f"{line.project}/{task}")
    why = "" if line.why == _TOTALS[line.sign] else clean(line.why)
    call.tell({"sync": name, **asdict(line), "task": task}, f"  {paint(line.sign, line.sign)} {key:<24}  {why}".rstrip())


@command(app, "sync")
def sync(
    call: Call,
    syncs: Syncs = None,
    *,
    full: Annotated[bool, typer.Option("--full", help="Read every body and check every file.")] = False,
    confirm_deletes: Annotated[str, typer.Option(metavar="PLAN_ID", help="Let the deletions of exactly this Plan pass the Guard.")] = "",
    take_over: Annotated[bool, typer.Option("--take-over", help="Inherit a place in the Target from another Checkpoint; by a full Run.")] = False,
) -> int:
    """Run Syncs now, one after the other.

    Ctrl-C ends the Run cleanly, a second one at once.
    """
    if (confirm_deletes or take_over) and not syncs:
        raise typer.BadParameter("--confirm-deletes and --take-over need the name of the Sync")
    from syncd.cli.sync import run_syncs

    return run_syncs(call, syncs, full=full, confirm_deletes=confirm_deletes, take_over=take_over)


@command(app, "verify")
def verify(
    call: Call,
    syncs: Syncs = None,
    *,
    read_data: Annotated[str, typer.Option(metavar="[=PERCENT]", help="Read every file, or a random part (=5%), and compare digests.")] = "",
    source: Annotated[bool, typer.Option("--source", help="Also read the whole Source and compare.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Put again what is missing or differs; orphans go to the trash.")] = False,
    confirm_deletes: Annotated[str, typer.Option(metavar="PLAN_ID", help="With --repair: let exactly these orphans pass the Guard.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Show the files that are right, too.")] = False,
) -> int:
    """Prove the backup right; exit code 0 only if all of it is.

    One line for each file: = same  - missing  + not ours or orphaned  * differs  ! error. Without --read-data it costs the listing alone.
    """
    from syncd.cli.verify import run_verify

    return run_verify(call, syncs, read_data=read_data, source=source, repair=repair, confirm_deletes=confirm_deletes, everything=everything)


@command(app, "rebuild")
def rebuild(call: Call, *, force: Annotated[bool, typer.Option("--force", help="Also when the present one is sound.")] = False) -> int:
    """Make a new Checkpoint when it is lost or broken; the old one is kept aside.

    Every Sync reads its whole Source and adopts each file that is right in its Target; nothing right is put again.
    """
    from syncd.cli.sync import run_rebuild

    return run_rebuild(call, force=force)


@command(app, "restore")
def restore(
    call: Call,
    sync: OneSync,
    *,
    project: Annotated[list[str] | None, typer.Option(metavar="ID_OR_PATTERN", help="What to restore; may be repeated. Default: all.")] = None,
    task: Annotated[list[str] | None, typer.Option(metavar="ID", help="Only this task; may be repeated.")] = None,
    at: Annotated[str, typer.Option(metavar="TIME", help="As it was then: 2026-11-20T12:00:00Z, or back from now: 2h, 30d.")] = "",
    trashed: Annotated[bool, typer.Option("--trashed", help="What is in the trash instead.")] = False,
    to_folder: Annotated[str, typer.Option(metavar="FOLDER", help="Restore to files here.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Also into a folder with other files, which may be replaced.")] = False,
    to_label_studio: Annotated[str, typer.Option(metavar="URL", help="Restore into new projects of this Label Studio.")] = "",
    token_file: Annotated[str, typer.Option(metavar="FILE", help="A file that holds the token for it.")] = "",
    map_: Annotated[str, typer.Option("--map", metavar="FILE", help="YAML: e-mail of an annotator as it was, and as it is there.")] = "",
    work: Annotated[str, typer.Option(metavar="FOLDER", help="What a second try needs, and the id map; default: restore-SYNC.")] = "",
) -> int:
    """Get tasks back: as files, or into a Label Studio.

    Needs the Target alone, and only reads it. An interrupted restore goes on when it is started again.
    """
    from syncd.cli.restore import run_restore

    return run_restore(
        call, sync, projects=project or (), tasks=task or (), at=at, trashed=trashed,
        path=to_folder, force=force, url=to_label_studio, token_file=token_file, map_=map_, work=work,
    )  # fmt: skip


@command(app, "changes")
def changes(
    call: Call,
    sync: OneSync,
    *,
    since: Annotated[str, typer.Option(metavar="TIME|RUN", help="Only what came since then (a time, or back from now: 2h), or after this Run.")] = "",
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes, until stopped.")] = False,
) -> int:
    """Print the change feed: what each Run put or deleted.

    One JSON object a line, in order, from the Target alone: op, why, project, task, key, digest, last_activity, run_id, at.
    """
    from syncd.cli.history import run_changes

    return run_changes(call, sync, since, follow=follow)


@command(app, "history")
def history(
    call: Call,
    sync: OneSync,
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task's id.")],
    *,
    project: Annotated[str, typer.Option(metavar="ID", help="Its Collection; default: it is looked for in all.")] = "",
) -> int:
    """Show the versions of a task, newest first, and what changed.

    Annotations, predictions, drafts, labels and data: + added  ~ changed  - removed, by whom and when. From the Target alone.
    """
    from syncd.cli.history import run_history

    return run_history(call, sync, task, project)


@command(app, "prune")
def prune(call: Call, syncs: Syncs = None, *, dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False) -> int:
    """Remove now what trash and history need not keep any more.

    As each full Run does: by trash_retention and history, never more.
    """
    from syncd.cli.history import run_prune

    return run_prune(call, syncs, dry_run=dry_run)


@command(app, "run")
def run(call: Call) -> int:
    """Run every Sync by its schedule, until it is stopped.

    A change of the config is taken at once (or: kill -HUP). Ctrl-C ends the Runs cleanly, a second one at once.
    """
    from syncd.daemon.program import run_daemon

    as_json = call.log_format is LogFormat.JSON if call.log_format else not sys.stderr.isatty()
    log_to_stderr(call.log_level or LogLevel.INFO, as_json=as_json, times=True)
    return run_daemon(call.config, os.environ)


@command(app, "status")
def status(call: Call, syncs: Syncs = None) -> int:
    """Show each Sync: last Run, lag, what fails.

    Also what the Guard stopped, and the command that lets it pass. Works while syncd runs.
    """
    from syncd.cli.jobs import read
    from syncd.config import open_checkpoint
    from syncd.run import confirmed

    config, names = read(call, syncs)
    checkpoint, now = open_checkpoint(config, read_only=True), SystemClock().now()
    states = [_status(config, checkpoint, name, now) for name in names]
    checkpoint.close()
    call.table(("SYNC", "RESULT", "LAST RUN", "LAG", "TASKS", "FAILING"), map(_status_row, states), left=3)
    for state in states:
        lines = list[str]()
        if state["plan_id"]:
            lines.append(f"\n{state['sync']}: {paint('the Guard holds deletions back', 'guarded')}; if they are meant:")
            lines.append(f"  {confirmed.command(call.config, state['sync'], state['plan_id'])}")
        elif state["error"]:
            lines.append("\n" + fold(f"{state['sync']}: {paint('failed', 'failed')}: {clean(state['error'])}"))
        call.tell(state, *lines)
    return 0


def _status(config: Config, checkpoint: Checkpoint, name: str, now: int) -> dict[str, Any]:
    """What the Checkpoint says of one Sync.

    last_run, kind, status: of the last Run, `age` seconds ago; status `unfinished`: it goes on now, or was killed. lag: as on the daemon's page,
    seconds that the oldest change not yet safe waits at most; 0 while all is well. tasks: in the Target; failing: tasks that are not.
    """
    from syncd.daemon.ledger import Ledger, wiring
    from syncd.run.standing import standing

    stands = standing(checkpoint, name)
    ledger, last = Ledger(name, wiring(config, name), stands), stands.newest
    if last and last.status is None:
        ledger.running_since = last.started_at
    else:
        ledger.slot = ledger.next(now)
    return {
        "sync": name,
        "last_run": last and format_time(last.started_at),
        "age": last and max(0, now - last.started_at) / SECOND,
        "kind": last and last.kind,
        "status": last and (last.status or "unfinished"),
        "lag": ledger.lag(now),
        "collections": stands.collections,
        "tasks": stands.tasks,
        "failing": stands.failing,
        "plan_id": stands.said("plan_id"),
        "error": stands.said("error"),
    }


def _status_row(state: dict[str, Any]) -> tuple[str, ...]:
    from syncd.daemon.schedule import span

    last = "never" if state["age"] is None else f"{span(state['age'])} ago, {state['kind']}"
    lag = "" if state["lag"] is None else span(state["lag"])
    return (state["sync"], state["status"] or "-", last, lag, f"{state['tasks']:,}", f"{state['failing']:,}" if state["failing"] else "")


@command(trash, "list")
def trash_list(call: Call, syncs: Syncs = None) -> int:
    """List the deleted tasks that can still be taken back."""
    from syncd.cli.jobs import for_each
    from syncd.run.trash import list_trash

    rows = list[tuple[str, ...]]()

    def listed(job: Job) -> int:
        for item in list_trash(job):
            if call.json:
                call.object({"sync": job.name, **asdict(item)})
            else:
                rows.append((item.deleted, item.expires, job.name, f"{item.project}/{item.task}"))
        return 0

    code = for_each(call, syncs, listed)
    if rows:
        table(("DELETED", "KEPT UNTIL", "SYNC", "TASK"), sorted(rows), left=4)
    elif not (call.json or code):
        say("the trash is empty")
    return code


@command(hooks, "install")
def hooks_install(call: Call, sync: OneSync, *, url: Annotated[str, typer.Option(help="Where the labeling tool reaches the daemon.")]) -> int:
    """Have a Sync's projects call the daemon on changes.

    May be repeated: each project gets one webhook.
    """
    from syncd.cli.hooks import install

    return install(call, sync, url)


@command(hooks, "list")
def hooks_list(call: Call, sync: OneSync) -> int:
    """List what install made, and what it should make anew."""
    from syncd.cli.hooks import listed

    return listed(call, sync)


@command(hooks, "remove")
def hooks_remove(call: Call, sync: OneSync, *, url: Annotated[str, typer.Option(help="Only those that call this daemon.")] = "") -> int:
    """Remove what install made, and nothing else."""
    from syncd.cli.hooks import remove

    return remove(call, sync, url)
