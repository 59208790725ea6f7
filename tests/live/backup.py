"""syncd against the real server, as a user runs it, and what the result must equal: the server's own answer.

`Backup` writes a config and starts Runs, each with a newly opened Checkpoint, as each `syncd sync` does; `cli` really starts one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from decimal import Decimal
from operator import itemgetter
from pathlib import Path
from typing import Any

import yaml

from syncd.clock import SystemClock
from syncd.config import load, open_checkpoint
from syncd.model import Kind, Report, Status
from syncd.run import run_sync
from syncd.run.opening import opened
from tests.live.compare import differences
from tests.live.event_table import Event, seed
from tests.live.server import Client, LabelStudio, Project, box

CHANGES_BY_ITSELF = {
    "created_ago", "created_username", "annotations_ids", "annotations_results", "predictions_results", "annotators", "avg_lead_time", "completed_at",
    "draft_exists", "predictions_score", "predictions_model_versions", "updated_by",
}  # fmt: skip

ENOUGH_REQUESTS = 12  # "a handful" for a project in which nothing changed
HOSTILE = {
    "image": "https://images.example.com/1.jpg",
    "big": 2**70 + 1,
    "negative": -(2**63) - 5,
    "third": 1 / 3,
    "tiny": 5e-07,
    "subnormal": 1e-320,
    "long": 0.1234567890123456,
    "control": "bell \a tab \t unit \x1f",
    "astral": "\U0001d518 \U0001f600",
    "right to left": "\u05e9\u05dc\u200f",
    "combining": "\u0301a e\u0301",
    "separators": "\u2028\u2029",
    "empty": {"": [], "null": None, "nested": [[[{}]]]},
    'key with "quotes" and \\': True,
}


class Backup:
    """One Sync named `live` into a folder. `rules` are those of `syncs:`, `source` adds to the Source's fields."""

    def __init__(self, folder: Path, server: LabelStudio, *, token: str = "", source: Mapping[str, Any] | None = None, **rules: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder / "backup"
        self.config = folder / "syncd.yaml"
        secret = token or server.api.http.headers["Authorization"].removeprefix("Token ")
        studio = {"type": "label_studio", "url": server.url, "token": secret, "retry_for": "5s"} | dict(source or {})
        content = {
            "sources": {"studio": studio},
            "targets": {"disk": {"type": "local", "path": str(self.folder)}},
            "syncs": {"live": {"source": "studio", "target": "disk", "drafts_every": "0s"} | rules},
            "state": str(folder / "state"),
        }
        self.config.write_text(yaml.safe_dump(content))

    def run(self, *, full: bool = False, confirm: str = "") -> Report:
        config, clock = load(self.config, os.environ), SystemClock()
        checkpoint = open_checkpoint(config)
        try:
            with opened(config, "live", checkpoint, clock) as job:
                return run_sync(job, kind=Kind.FULL if full else None, confirm_deletes=confirm)
        finally:
            checkpoint.close()

    def cli(self, *words: str) -> tuple[int, dict[str, Any], str]:
        """`syncd sync --json` in a process of its own: exit code, Report and what stands on stderr."""
        command: list[str | Path] = [sys.executable, "-m", "syncd", "sync", "--json", "-c", self.config, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=Path(__file__).parents[2])
        return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr

    def tasks(self, project: int) -> dict[int, Any]:
        """What stands at each task's key."""
        files = [path for path in (self.folder / str(project)).glob("*.json") if not path.name.startswith("_")]
        return {int(path.stem): exactly(path.read_text()) for path in files}

    def settings(self, project: int) -> Any:
        return exactly((self.folder / str(project) / "_project.json").read_text())

    def trashed(self, project: int) -> set[int]:
        return {int(path.name.partition(".")[0]) for path in (self.folder / str(project) / "_trash").glob("*/[0-9]*.json")}

    def differences(self, api: Client, project: int) -> list[str]:
        """Where the backup of a project is not what the server says."""
        return list(differences(truth(api, project), self.tasks(project)))


def exactly(text: str) -> Any:
    """JSON with every digit of its numbers."""
    return json.loads(text, parse_float=Decimal)


def truth(api: Client, project: int) -> dict[int, Any]:
    """What each TaskFile of the project must hold, from the server's list, asked for in another way than syncd does: by page."""
    people = {user["id"]: {name: user[name] for name in ("id", "email", "first_name", "last_name")} for user in api.get("/api/users/")}
    found: dict[int, Any] = {}
    page = 1
    while True:
        answer = api.http.get("/api/tasks", params={"project": project, "fields": "all", "resolve_uri": "false", "page": page, "page_size": 200})
        if answer.status_code == 404 and page > 1:
            return found
        assert answer.status_code == 200, answer.text[:300]
        tasks = exactly(answer.text)["tasks"]
        if not tasks:
            return found
        found |= {task["id"]: _lasting(task, people) for task in tasks}
        page += 1


def _lasting(task: dict[str, Any], people: Mapping[int, Any]) -> dict[str, Any]:
    """The task less what changes by itself, in itself and in its parts, which stand in order of id; who completed an annotation is told in full."""
    parts = {
        kind: [
            {name: value for name, value in part.items() if name not in {"created_ago", "created_username"}}
            for part in sorted(task[kind], key=itemgetter("id"))
        ]
        for kind in ("annotations", "predictions", "drafts")
    }
    for annotation in parts["annotations"]:
        annotation["completed_by"] = people.get(annotation["completed_by"], annotation["completed_by"])
    return {name: value for name, value in task.items() if name not in CHANGES_BY_ITSELF} | parts


def same_project(backup: Backup, project: Project) -> None:
    """Asserts that every task, and the settings a person can change, are as the server says."""
    found = backup.differences(project.api, project.id)
    assert not found, found
    settings, now = backup.settings(project.id), project.api.get(f"/api/projects/{project.id}/")
    assert {name: settings[name] for name in ("title", "label_config", "maximum_annotations")} == {
        name: now[name] for name in ("title", "label_config", "maximum_annotations")
    }


def equal_after(event: Event, server: LabelStudio, project: Project, folder: Path) -> None:
    """Asserts that one Run after the event the backup is equal again, what is gone is in the trash, and a further Run finds nothing to do."""
    seed(project)
    if event.prepare:
        event.prepare(server, project)
    backup = Backup(folder, server, projects=[project.id])
    assert backup.run().status is Status.OK
    same_project(backup, project)
    before = _identities(backup.tasks(project.id))

    event.happen(server, project)
    report = backup.run(full=event.signal == "none")

    assert (report.status, report.failed) == (Status.OK, []), report
    same_project(backup, project)
    gone = {task for task, _ in before - _identities(backup.tasks(project.id))}
    assert (backup.trashed(project.id), report.trashed, bool(gone)) == (gone, len(gone), event.signal == "deletion")
    idle = backup.run()
    assert (idle.status, idle.written, idle.trashed, idle.target_requests) == (Status.OK, 0, 0, 0)
    assert idle.source_requests <= ENOUGH_REQUESTS


def _identities(tasks: Mapping[int, Any]) -> set[tuple[int, str]]:
    """Ids are used again: a task is its id and when it was created."""
    return {(task, body["created_at"]) for task, body in tasks.items()}


def same_values(server: LabelStudio, project: Project, folder: Path) -> None:
    """Asserts that values no two JSON libraries agree on arrive as they were sent (I7)."""
    project.add([{"data": HOSTILE, "meta": HOSTILE, "annotations": [{"result": [box() | {"meta": HOSTILE}]}]}])
    backup = Backup(folder, server, projects=[project.id])
    assert backup.run().status is Status.OK
    same_project(backup, project)
    (held,) = (json.loads(path.read_text()) for path in (backup.folder / str(project.id)).glob("[0-9]*.json"))
    assert (held["data"], held["meta"], held["annotations"][0]["result"][0]["meta"]) == (HOSTILE, HOSTILE, HOSTILE)
