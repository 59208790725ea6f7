"""Late commits: two server processes on one PostgreSQL. updated_at is stamped before the transaction ends, so rows become visible behind a date
that everybody has already seen. One process, or SQLite, does not show it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from syncd.model import Status
from tests.live.backup import Backup
from tests.live.server import Client, LabelStudio, Postgres, Project, background, sample

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]

EARLIER, IMPORTED = 20, 4000


@pytest.fixture(scope="module")
def pair(postgres: Postgres) -> Iterator[tuple[LabelStudio, LabelStudio]]:
    with LabelStudio(database=postgres) as first, LabelStudio(database=postgres) as second:
        yield first, second


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
    polls, seen_at = 0, 0.0
    with background(imported.add, [sample(n, annotations=2) for n in range(EARLIER, EARLIER + IMPORTED)], IMPORTED) as importing:
        while importing.is_alive():
            other.api.patch(f"/api/tasks/{earlier[polls % EARLIER]}/", {"meta": {"edit": polls}})
            if not seen_at and len(project.ids()) > EARLIER:
                seen_at = time.time()
            naive.poll()
            for backup in backups:
                assert backup.run().status in {Status.OK, Status.FAILED}  # FAILED: tasks came while it looked; it says so and deletes nothing
            polls += 1
    naive.poll()

    ids = project.ids()
    late = [task["updated_at"] for task in project.tasks(fields="task_only", include="id,updated_at")[EARLIER:]]
    assert (len(ids), len(late)) == (EARLIER + IMPORTED, IMPORTED)
    lateness = (seen_at or time.time()) - datetime.strptime(_with_fraction(late[0]), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()
    missed = len(set(ids) - naive.seen)
    print(f"{polls} polls, visible {lateness:.1f} s late, a naive cursor missed {missed}")
    assert polls >= 2, "nothing happened meanwhile: the test shows nothing"
    assert missed >= IMPORTED // 2, "the trap did not snap: a naive cursor would have done"
    for backup in backups:
        report = backup.run()
        assert (report.status, report.trashed) == (Status.OK, 0)
        assert backup.differences(other.api, project.id) == []
