"""Label Studio's webhooks of projects, for `syncd hooks`. Observed on Label Studio 1.23.2.

Rules: a webhook belongs to one project and goes with it. Payloads are switched off: a call only wakes.
"""

from __future__ import annotations

from collections.abc import Mapping

from syncd.errors import SourceError
from syncd.sources.base import Hook
from syncd.sources.http import Http

_PATH = "/api/webhooks/"
_ACTIONS = [
    "ANNOTATIONS_CREATED", "ANNOTATIONS_DELETED", "ANNOTATION_CREATED", "ANNOTATION_UPDATED", "PROJECT_UPDATED", "TASKS_CREATED", "TASKS_DELETED",
]  # fmt: skip


class LabelStudioHooks:
    """See `base.Hooks`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def all(self) -> list[Hook]:
        rows = self._http.get(_PATH).body
        if not isinstance(rows, list) or not all(isinstance(row, dict) and "id" in row for row in rows):
            raise SourceError(f"GET {_PATH}: not a list of webhooks: check url")
        return [_hook(row) for row in rows if row.get("project") is not None]

    def put(self, project: str, url: str, headers: Mapping[str, str]) -> None:
        body = {"url": url, "headers": dict(headers), "is_active": True, "send_payload": False, "send_for_all_actions": False, "actions": _ACTIONS}
        self._http.change("POST", _PATH, body | {"project": int(project)})

    def remove(self, hook: Hook) -> None:
        self._http.change("DELETE", f"{_PATH}{hook.id}/")


def _hook(row: Mapping[str, object]) -> Hook:
    headers, actions = row.get("headers"), row.get("actions")
    every = row.get("send_for_all_actions") is True or (isinstance(actions, list) and set(actions) >= set(_ACTIONS))
    held = {str(name): str(value) for name, value in headers.items()} if isinstance(headers, dict) else {}
    return Hook(str(row["id"]), str(row.get("project")), str(row.get("url")), held, row.get("is_active") is True and every)
