"""`syncd verify`: what differs, line by line, how much there is of it, and what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import typer

from syncd import keys
from syncd.cli.jobs import WORST, for_each
from syncd.cli.main import Call
from syncd.cli.output import clean, fold, log, paint, say
from syncd.cli.sync import attention, progress, report_fields
from syncd.errors import GuardTripped
from syncd.run import PARTIAL
from syncd.run.confirmed import command
from syncd.run.job import Job, Progress
from syncd.upkeep.repair import Repair, repair
from syncd.upkeep.verify import DIFFERS, ERROR, EXTRA, MISSING, SAME, VerifyLine, verify

_WORDS = {SAME: "same", MISSING: "missing", EXTRA: "extra", DIFFERS: "different", ERROR: "error"}
_COLOURS = {MISSING: "-", DIFFERS: "~", EXTRA: "partial", ERROR: "!"}
_STEP = 50  # files between two moves of the bar


def run_verify(
    call: Call, wanted: Sequence[str] | None, *, read_data: str, source: bool, repair: bool, confirm_deletes: str, everything: bool
) -> int:
    """Verify each Sync, and mend it if asked; the worst exit code: 0 when all is right (by now), 3 when something differs."""
    if confirm_deletes and not (repair and wanted):
        raise typer.BadParameter("--confirm-deletes needs --repair and the name of the Sync")
    part = _part(read_data)

    def verified(job: Job) -> int:
        found = _verify(job, call, part, source=source, everything=everything)
        if found and repair:
            return _repair(job, call, found, confirm_deletes)
        return PARTIAL if found else 0

    return for_each(call, wanted, verified, write=repair)


def _part(text: str) -> float:
    """`5%` and `5` are a twentieth; nothing is none."""
    try:
        part = float(text.removesuffix("%") or 0) / 100
    except ValueError:
        part = -1.0
    if not 0 <= part <= 1 or (text and not part):
        raise typer.BadParameter(f"--read-data={text}: give a part like 5%, or nothing for all of it")
    return part


def _verify(job: Job, call: Call, part: float, *, source: bool, everything: bool) -> list[VerifyLine]:
    """Show what is found, and return what is not right."""
    counts, read, found, begun = Counter[str](), 0, list[VerifyLine](), job.target.requests
    call.say(paint(job.name, "bold"))
    for line in _followed(job, verify(job, read=part, source=source), call):
        counts[line.sign] += 1
        read += line.read
        if line.sign != SAME:
            found.append(line)
        if everything or line.sign != SAME:
            _show(job, line, call)
    totals = {word: counts[sign] for sign, word in _WORDS.items()}
    words = ", ".join(f"{count:,} {word}" for word, count in totals.items() if count or word == _WORDS[SAME])
    fields = {"sync": job.name, **totals, "read": read, "target_requests": job.target.requests - begun}
    call.tell(fields, f"  {words}; {read:,} of them read" if part else f"  {words}")
    return found


def _followed(job: Job, lines: Iterable[VerifyLine], call: Call) -> Iterator[VerifyLine]:
    """The same, below them a bar when somebody watches."""
    total = sum(job.checkpoint.size(job.name, project) for project in job.checkpoint.states(job.name))
    with progress(job.name, call) as on_progress:
        for number, line in enumerate(lines, 1):
            if on_progress is not None and number % _STEP == 0:
                on_progress(Progress("files", "files", total, number, 0, 0, 0))
            yield line


def _show(job: Job, line: VerifyLine, call: Call) -> None:
    task = line.task and keys.shown(line.task)
    name = f"{line.project}/{task}" if task else line.key or line.project or job.name
    fields = {
        "sync": job.name, "sign": line.sign, "project": line.project or None, "task": task, "key": line.key or None, "why": line.why,
        "against": "source" if line.source else "target",
    }  # fmt: skip
    call.tell(fields, f"  {paint(line.sign, _COLOURS.get(line.sign, ''))} {clean(name):<24}  {clean(line.why)}".rstrip())


def _repair(job: Job, call: Call, found: Sequence[VerifyLine], confirm_deletes: str) -> int:
    with progress(job.name, call) as on_progress:
        done = repair(job, found, confirm_deletes=confirm_deletes, on_progress=on_progress)
    report = done.report
    if call.json:
        left = [{"project": line.project or None, "key": line.key or None, "why": line.why} for line in done.left]
        mended = {"put_again": done.again, "recorded": done.recorded, "orphans_trashed": done.trashed, "left": left}
        plan_id = done.guard.plan_id if done.guard else ""
        call.object({"sync": job.name, "repair": {**mended, "plan_id": plan_id, "run": report_fields(report)}})
    else:
        _tell(job, call, done, found)
    return max(report.exit_code, PARTIAL if done.left else 0, GuardTripped.exit_code if done.guard else 0, key=WORST.index)


def _tell(job: Job, call: Call, done: Repair, found: Sequence[VerifyLine]) -> None:
    counts = {"put again": done.again, "only recorded anew": done.recorded, "orphaned, now in the trash": done.trashed, "left": len(done.left)}
    say("  mended: " + (", ".join(f"{count:,} {word}" for word, count in counts.items() if count) or "nothing"))
    for line in done.left:
        if line not in found:  # else it is told above already
            _show(job, line._replace(sign=ERROR), call)
    if done.report.error:
        log.error("%s: %s", job.name, done.report.error)
    if done.guard:
        say(fold(f"  {paint('the Guard stopped it', 'guarded')}: {clean(str(done.guard))}. If they may go to the trash:"))
        say(f"    {command(call.config, job.name, done.guard.plan_id, 'verify', '--repair')}")
    attention(call, done.report)
