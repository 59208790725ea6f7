"""`syncd verify`: what stands in the Target against what the Checkpoint, and if asked the Source, says of it.

Refuses to change anything; `repair` mends. Rules:
- Without reading data it costs the listing alone: presence, size and ETag (and, when something differs, a look at the owner's marker). A file that is
  read is judged by its digest, whatever its ETag.
- It may run beside a daemon: what differs while a Run goes on is looked at again, as the Checkpoint tells then, before it is called a difference.
- Memory stays flat: the listing is on disk, and what an Entry tells of is taken out of it, so that what is left belongs to nobody.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple

from syncd import encode
from syncd.errors import TaskError
from syncd.model import Kind, Stat, Status, Why
from syncd.run.job import Job
from syncd.run.place import Listing, Place
from syncd.run.preview import plan_sync
from syncd.scratch import chunks

SAME, MISSING, EXTRA, DIFFERS, ERROR = "=", "-", "+", "*", "!"
_PLANNED = {  # what a Run would do, and what that says of the backup
    "+": (MISSING, "not backed up yet"),
    "~": (DIFFERS, "the Source has another version than the last Run saw"),
    "-": (EXTRA, "gone from the Source"),
    "!": (ERROR, ""),
}
_RUNS = 100  # looked through for one that ended well
_PAUSE = 1.0  # seconds until what a Run has in its hands is looked at again
_PATIENCE = 5.0  # seconds to wait in all: the Run that seems to go on may have been killed


class VerifyLine(NamedTuple):
    """What is found of one file. task None: a Collection's settings or a whole part of the Source; key empty: no file is meant; project empty too:
    nobody's file.

    found: the file as it was listed; read: its bytes were; source: it is the Source that says something else than the Checkpoint.
    """

    sign: str
    project: str
    task: str | None
    key: str
    why: str = ""
    found: Stat | None = None
    read: bool = False
    source: bool = False


class _Wanted(NamedTuple):
    """A file as the Checkpoint tells of it. size, etag: None when it doesn't say (settings)."""

    project: str
    task: str | None
    key: str
    digest: bytes
    size: int | None = None
    etag: bytes | None = None


def verify(job: Job, *, read: float = 0.0, source: bool = False) -> Iterator[VerifyLine]:
    """A line for each file, as it is found out. read: which part of the files is read, 0 to 1, others each time; source: the Source is read, too.

    Raises SourceError, TargetError and AccessError when either can't be used as a whole, CheckpointError when that is damaged.
    """
    job.checkpoint.examine()
    if not job.checkpoint.states(job.name) and all(run.status in {None, Status.FAILED} for run in job.checkpoint.runs(job.name, _RUNS)):
        advice = f"run `syncd sync {job.name}`, or `syncd rebuild` if it was lost"
        yield VerifyLine(ERROR, "", None, "", f"this Checkpoint knows of nothing that was backed up: {advice}")
        return
    wrong = False
    with ThreadPoolExecutor(job.target.concurrency, thread_name_prefix="syncd-verify") as pool:
        for line in _Target(job, read, pool).lines():
            wrong |= line.sign != SAME
            yield line
    if wrong and (refusal := Place(job, take_over=False, anew=True).refusal()):
        yield VerifyLine(ERROR, "", None, "", str(refusal))
    yield from (line._replace(source=True) for line in (_source(job) if source else _failing(job)))


class _Target:
    """One pass over the Target."""

    def __init__(self, job: Job, read: float, pool: ThreadPoolExecutor) -> None:
        self._job, self._layout, self._pool, self._read = job, job.layout, pool, read
        self._chance = random.Random()  # noqa: S311 - a sample, no secret
        self._begun = job.checkpoint.runs(job.name, 1)
        self._patience = _PATIENCE

    def lines(self) -> Iterator[VerifyLine]:
        with closing(Listing(self._job, "")) as listing:
            for chunk in chunks(self._wanted()):
                found = listing.take([wanted.key for wanted in chunk])
                stats = [found.get(wanted.key) for wanted in chunk]
                yield from self._certain(list((self._pool.map if self._read else map)(self._judge, chunk, stats)))
            for some in chunks(self._others(listing.keys())):
                yield from self._certain(some)

    def _wanted(self) -> Iterator[_Wanted]:
        for project, state in self._job.checkpoint.states(self._job.name).items():
            if state.settings:
                yield _Wanted(project, None, self._layout.settings(project), state.settings)
        for project, entry in self._job.checkpoint.entries(self._job.name):
            yield _Wanted(project, entry.task, self._layout.task(project, entry.task), entry.digest, entry.size, entry.etag)

    def _judge(self, wanted: _Wanted, found: Stat | None) -> VerifyLine:
        line = VerifyLine(SAME, wanted.project, wanted.task, wanted.key, "", found)
        if found is None:
            return line._replace(sign=MISSING, why="missing")
        if wanted.size not in {None, found.size}:
            return line._replace(sign=DIFFERS, why=f"{found.size:,} bytes instead of {wanted.size:,}")
        if self._chance.random() < self._read:
            return self._content(line, wanted.digest)
        if wanted.etag not in {None, found.etag}:
            return line._replace(sign=DIFFERS, why="written by somebody else, or moved (--read-data tells)")
        return line

    def _content(self, line: VerifyLine, digest: bytes) -> VerifyLine:
        """The line again, after the file was read."""
        try:
            data = self._job.target.get(line.key)
        except TaskError as error:
            return line._replace(sign=ERROR, why=str(error))
        if data is None:
            return line._replace(sign=MISSING, why="missing")
        right = encode.digest(data) == digest
        return line._replace(sign=SAME if right else DIFFERS, why="" if right else "other content", read=True)

    def _others(self, keys: Iterable[str]) -> Iterator[VerifyLine]:
        """Files that no Entry tells of: orphans, whose key syncd could have written, and foreign ones; less what syncd keeps beside the TaskFiles."""
        for key in keys:
            named = self._layout.named(key)
            if named is not None and not named.where and "~~" not in key:
                yield VerifyLine(EXTRA, named.project, named.task, key, "orphaned: no Entry tells of it")
            elif (named is None or not named.where) and not key.startswith("_syncd/"):
                yield VerifyLine(EXTRA, "", None, key, "not syncd's, which never touches it")

    def _certain(self, lines: Sequence[VerifyLine]) -> Iterable[VerifyLine]:
        """These lines, but for differences that a Run made while it was being verified."""
        if not any(map(_suspect, lines)) or not self._disturbed():
            return lines
        return filter(None, self._pool.map(self._again, lines))

    def _disturbed(self) -> bool:
        """Whether a Run put files meanwhile; one that goes on is given a little time to record them."""
        while (last := self._job.checkpoint.runs(self._job.name, 1))[0].status is None and self._patience > 0:
            self._patience -= _PAUSE
            self._job.clock.wait(_PAUSE)
        return last[0].status is None or last != self._begun

    def _again(self, line: VerifyLine) -> VerifyLine | None:
        """A difference as Checkpoint and Target tell it by now; None when neither knows of that file any more."""
        if not _suspect(line):
            return line
        checkpoint, name = self._job.checkpoint, self._job.name
        if line.task is None:
            state = checkpoint.states(name).get(line.project)
            digest = b"" if state is None else state.settings
        else:
            entry = checkpoint.known(name, line.project).entries([line.task]).get(line.task)
            digest = b"" if entry is None else entry.digest
        if digest:
            return self._content(line, digest)
        return line if line.sign == EXTRA and self._job.target.get(line.key) is not None else None


def _suspect(line: VerifyLine) -> bool:
    """Whether a Run that goes on may be the reason of it."""
    return line.sign != SAME and line.project != ""


def _failing(job: Job) -> Iterator[VerifyLine]:
    """What the last Run could not back up, without asking the Source again."""
    for failure in job.checkpoint.failures(job.name):
        if failure.task is not None:
            key = job.layout.task(failure.project, failure.task)
            yield VerifyLine(ERROR, failure.project, failure.task, key, f"not as the Source has it: {failure.error}")


def _source(job: Job) -> Iterator[VerifyLine]:
    """What a full Run would do now, but for what it would heal: that is told already."""
    for line in plan_sync(job, Kind.FULL):
        if line.why != Why.HEALED:
            sign, why = _PLANNED[line.sign]
            key = "" if line.task is None else job.layout.task(line.project, line.task)
            yield VerifyLine(sign, line.project, line.task, key, why or line.why)
