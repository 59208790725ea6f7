"""Late commits: two server processes on one PostgreSQL. updated_at is stamped before the transaction ends, so rows become visible behind a date
that everybody has already seen. One process, or SQLite, does not show it.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from syncd.model import Status
from tests.live.backup import Backup, truth
from tests.live.compare import differences
from tests.live.server import Client, LabelStudio, Project, background, sample

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]

EARLIER, IMPORTED = 20, 4000


class NaiveCursor:
    """What a sync does that asks for `updated_at > the greatest one seen`; also notes how late each task became visible."""

    def __init__(self, api: Client, project: int) -> None:
        self._api = api
        self._project = project
        self._cursor = "2020-01-01T00:00:00.000000Z"
        self.seen: set[int] = set()

    def poll(self) -> None:
        item = {"filter": "filter:tasks:updated_at", "operator": "greater", "type": "Datetime", "value": self._cursor}
        query = json.dumps({"filters": {"conjunction": "and", "items": [item]}, "ordering": ["tasks:id"]})
        params = {"project": self._project, "query": query, "page_size": 10_000, "include": "id,updated_at"}
        for task in self._api.get("/api/tasks", **params)["tasks"]:
            self.seen.add(task["id"])
            self._cursor = max(self._cursor, _with_fraction(task["updated_at"]))


def _with_fraction(date: str) -> str:
    return date if "." in date else date.replace("Z", ".000000Z")


def _edit_until_visible(project: Project, tasks: list[int], naive: NaiveCursor, importing: threading.Thread) -> float:
    """Edits, and naive polls, until the imported tasks are seen; when that was."""
    for number in itertools.count():
        project.api.patch(f"/api/tasks/{tasks[number % EARLIER]}/", {"meta": {"edit": number}})
        naive.poll()
        if len(project.ids()) > EARLIER or not importing.is_alive():
            break
    return time.time()


def test_none_of_4000_tasks_imported_in_one_transaction_is_missed(pair: tuple[LabelStudio, LabelStudio], tmp_path: Path) -> None:
    """With the overlap as it ships; and without any, when counting alone must find them."""
    busy, other = pair
    imported = busy.api.project("Late")
    project = Project(other.api, imported.id)
    earlier = project.add([sample(n) for n in range(EARLIER)])
    backups = [Backup(tmp_path / name, other, projects=[project.id], overlap=overlap) for name, overlap in (("shipped", "10m"), ("none", "0s"))]
    for backup in backups:
        assert backup.run().status is Status.OK
    naive = NaiveCursor(other.api, project.id)
    naive.poll()
    runs: list[Status] = []

    def keep_running() -> None:
        while importing.is_alive():
            runs.extend(backup.run().status for backup in backups)

    tasks = [sample(n, annotations=2) for n in range(EARLIER, EARLIER + IMPORTED)]
    with background(imported.add, tasks, IMPORTED) as importing, background(keep_running):
        first_seen = _edit_until_visible(project, earlier, naive, importing)
    naive.poll()

    ids = project.ids()
    late = [task["updated_at"] for task in project.tasks(fields="task_only", include="id,updated_at")[EARLIER:]]
    assert (len(ids), len(late)) == (EARLIER + IMPORTED, IMPORTED)
    lateness = first_seen - datetime.strptime(_with_fraction(late[0]), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()
    missed = len(set(ids) - naive.seen)
    print(f"{len(runs)} Runs meanwhile, visible {lateness:.1f} s late, a naive cursor missed {missed}")
    assert set(runs) <= {Status.OK, Status.FAILED}  # FAILED: tasks came while it looked; it says so and deletes nothing
    assert missed >= IMPORTED // 2, "the trap did not snap: a naive cursor would have done"
    expected = truth(other.api, project.id)
    for backup in backups:
        report = backup.run()
        assert (report.status, report.trashed) == (Status.OK, 0)
        assert list(differences(expected, backup.tasks(project.id))) == []
