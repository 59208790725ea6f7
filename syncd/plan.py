"""What a Run will do, decided from facts alone: pure, printable, and before anything is touched.

Refuses to ask anyone anything: Source, Target and Checkpoint were read before. Rules:
- a TaskFile equal to what the Target durably holds is not put again;
- another created_at under the same id is another task: the old file goes to the trash before the new one takes its key;
- a deletion is planned only for an id that a complete listing lacks, and executed only when the Guard lets it pass (I4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from syncd.keys import is_side
from syncd.model import Entry, Stat, Task, TaskFile, Why

PLAN_ID_LENGTH = 12  # hex digits: 48 bits, enough to tell two Plans apart, short enough to type


class Action(StrEnum):
    """What to do about one task that was read."""

    NOTHING = "nothing"
    RECORD = "record"  # the file is right; what the Checkpoint says about it is not
    PUT = "put"
    REPLACE = "replace"  # another task had this id: its file goes to the trash, then PUT
    COMPARE = "compare"  # a file stands there that the Checkpoint cannot vouch for: read it, RECORD if equal, PUT if not


class Decision(NamedTuple):
    """An action, and the reason of the put it leads to."""

    action: Action
    why: Why


def decide(task: Task, file: TaskFile, entry: Entry | None, *, looked: bool = False, found: Stat | None = None, unsure: bool = False) -> Decision:
    """What to do about `task`. looked: the Target was listed in this Run; found: what it lists at the task's key.

    unsure: a put that no Entry tells of may have happened at this key.
    """
    if entry is None:
        # never backed up, or the Checkpoint was lost and the file may be right already
        return Decision(Action.PUT, Why.NEW) if found is None else Decision(Action.COMPARE, Why.CHANGED)
    if entry.revision.created_at != task.revision.created_at and entry.digest != file.digest:
        return Decision(Action.REPLACE, Why.NEW)
    same = entry.digest == file.digest or (task.volatile and entry.revision == task.revision)
    if looked and not (same and found is not None and (found.size, found.etag) == (entry.size, entry.etag)):
        # of the right length: written by somebody else, or moved and it only looks new, or it is the Entry that is wrong
        right = found is not None and found.size == len(file.data)
        return Decision(Action.COMPARE if right else Action.PUT, Why.HEALED if same else Why.CHANGED)
    if not same:
        return Decision(Action.PUT, Why.CHANGED)
    if (entry.revision, entry.counts, entry.drafts, entry.kept) != (task.revision, task.counts, task.drafts, False):
        # the task may have been edited, put, not recorded, and edited back
        return Decision(Action.PUT, Why.HEALED) if unsure and not looked else Decision(Action.RECORD, Why.CHANGED)
    return Decision(Action.NOTHING, Why.CHANGED)


@dataclass(frozen=True, slots=True)
class Missing:
    """What a complete listing of one Collection lacks.

    before: live Entries the Collection had before this Run; whole: the Collection itself is gone, proved, so its tasks need no proof of their own;
    then this is `digest_of` all that the Checkpoint holds of it, and `tasks` stays empty, since they may be a million.
    """

    project: str
    tasks: tuple[str, ...]
    before: int
    whole: str = ""


def digest_of(tasks: Iterable[str]) -> str:
    """Of so many ids in this order, at flat memory."""
    total = hashlib.sha256()
    for task in tasks:
        total.update(f"{task}\n".encode("utf-8", "surrogatepass"))
    return total.hexdigest()


def tripped(missing: Missing, fraction: float, at_least: int) -> str:
    """Why the Guard stops these deletions, in words; empty when it lets them pass: a Collection may lose max(at_least, fraction of its tasks) in one
    Run, and never all of them.
    """
    count = missing.before if missing.whole else sum(not is_side(task) for task in missing.tasks)
    allowed = max(at_least, int(fraction * missing.before))
    if count == 0:
        return ""
    if missing.whole:
        return f"Collection {missing.project} is gone with all of its {missing.before} tasks"
    if count >= missing.before:
        return f"all {missing.before} tasks of Collection {missing.project} are gone"
    if count > allowed:
        return f"{count} of {missing.before} tasks of Collection {missing.project} are gone, more than the {allowed} that max_delete allows"
    return ""


def plan_id(sync: str, missing: Sequence[Missing]) -> str:
    """A digest of the deletions: the same deletions, in whatever order they were found, have the same id."""
    lines = sorted(f"{part.project}\0{task}" for part in missing for task in ([f"\0{part.whole}"] if part.whole else part.tasks))
    return hashlib.sha256("\n".join([sync, *lines]).encode("utf-8", "surrogatepass")).hexdigest()[:PLAN_ID_LENGTH]


def next_cursor(before: int | None, earned: int | None, failed: Sequence[int | None]) -> int | None:
    """Where the Cursor may stand after a reading (I2).

    earned: what the Source says the reading is worth; failed: last activity of each task that failed, None when unknown. It never passes a failed
    task, never goes back, and stands at 0 (before everything) when a first reading can't say where its failures lie.
    """
    if earned is None:
        return before
    floor = before or 0
    if any(moment is None for moment in failed):
        return floor
    return max(floor, min([earned, *(moment for moment in failed if moment is not None)]))
