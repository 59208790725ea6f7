"""The work folder of a restore into a server: what is to be restored, fixed before the first request, and a journal of what came of it.

Refuses two restores at a time, and another one than it was made for. A line of the journal is durable when `note` returns; one that a kill tore is
none.
"""

from __future__ import annotations

import fcntl
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from syncd import encode, keys
from syncd.errors import OwnedError, SyncdError
from syncd.upkeep.asof import Found
from syncd.upkeep.restore import Restored
from syncd.upkeep.restore_compare import PARTS

_PLAN = "plan.json"


@contextmanager
def locked(work: Path) -> Iterator[None]:
    """Have the folder alone; it is made if needed. Raises OwnedError when another restore has it."""
    try:
        work.mkdir(parents=True, exist_ok=True)
        with (work / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError:
        raise OwnedError(f"{work}: another restore is at work there") from None
    except OSError as error:
        raise SyncdError(f"{error.filename or work}: {error.strerror}: give another folder with --work") from error


def stage(files: Iterable[Found], work: Path, same: Mapping[str, object]) -> None:
    """Fix what is to be restored, unless that was done. same: what makes it the same restore. Raises SyncdError for another."""
    if (work / _PLAN).exists():
        if _load(work / _PLAN)["same"] != same:
            raise SyncdError(f"{work} holds another restore (other options): remove it when that is over, or give another folder with --work")
        return
    projects = []
    for number, (project, group) in enumerate(groupby(files, lambda found: found.project)):
        with _tasks(work, number).open("wb") as out:
            done, settings = Restored(project), dict[str, object]()
            for found in group:
                if not done.take(found) or keys.is_side(found.task or ""):
                    continue
                body = found.body
                if found.task is None:
                    settings = body
                elif not isinstance(body.get("data"), dict) or not all(isinstance(body.get(kind) or [], list) for kind in (*PARTS, "drafts")):
                    done.fail(found.task, "no task of Label Studio: it has no data, or other things for annotations than a list")
                else:
                    out.write(encode.dumps(body))  # one line, whoever wrote it
            _durable(out)
        projects.append({"done": asdict(done), "settings": settings})
    half = work / "plan.half"
    with half.open("wb") as out:
        out.write(encode.dumps({"same": dict(same), "projects": projects}))
        _durable(out)
    half.replace(work / _PLAN)


class Staged:
    """One project as it was staged. Lines are numbered from 0. `done`: what became of it so far."""

    def __init__(self, work: Path, number: int, plan: Mapping[str, Any]) -> None:
        failed = [(task, why) for task, why in plan["done"]["failed"]]
        self.done = Restored(**{**plan["done"], "failed": failed})
        self.settings = cast("dict[str, object]", plan["settings"])
        self.journal = Journal(work / f"{number}.journal.ndjson")
        self._file = _tasks(work, number).open("rb")
        self._starts = array("Q", [0])
        for line in self._file:
            self._starts.append(self._starts[-1] + len(line))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def line(self, number: int) -> bytes:
        """The bytes of one task."""
        self._file.seek(self._starts[number])
        return self._file.readline()

    def body(self, number: int) -> dict[str, Any]:
        """One task as a value."""
        return cast("dict[str, Any]", encode.parse(self.line(number)))

    def size(self, first: int, end: int) -> int:
        """Bytes of these lines."""
        return self._starts[end] - self._starts[first]

    def close(self) -> None:
        self.journal.close()
        self._file.close()


def staged(work: Path) -> Iterator[Staged]:
    """Each project; to be closed."""
    for number, plan in enumerate(_load(work / _PLAN)["projects"]):
        yield Staged(work, number, plan)


class Journal:
    """Entries in order."""

    def __init__(self, path: Path) -> None:
        self.entries: list[dict[str, Any]] = []
        with suppress(FileNotFoundError):
            raw = path.read_bytes()
            whole = raw[: raw.rfind(b"\n") + 1]
            self.entries = [json.loads(line) for line in whole.splitlines()]
            os.truncate(path, len(whole))
        self._file = path.open("ab")

    def note(self, **entry: object) -> None:
        """Add one, durably."""
        self._file.write(json.dumps(entry).encode() + b"\n")
        _durable(self._file)
        self.entries.append(entry)

    def last(self, name: str) -> Any:
        """What was noted last under that name; None if nothing was."""
        return next((entry[name] for entry in reversed(self.entries) if name in entry), None)

    def close(self) -> None:
        self._file.close()


def _tasks(work: Path, number: int) -> Path:
    return work / f"{number}.tasks.ndjson"


def _load(path: Path) -> dict[str, Any]:
    return cast("dict[str, Any]", encode.parse(path.read_bytes()))


def _durable(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
