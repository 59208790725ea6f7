"""What a restore asks of a Label Studio server: a new project, tasks in chunks, drafts, and what of it is there. Observed on 1.23.2.

Each request that makes something is tried once: a TransientError means that nobody knows whether it was obeyed, and the caller looks it up. The
server commits the tasks of one import together; but it may answer 500 to one that it committed, or 201 to one whose annotations it dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from syncd import encode
from syncd.clock import Clock
from syncd.errors import SourceError, TaskError, TransientError, discreet
from syncd.fields import Secret
from syncd.model import Counts
from syncd.sources import label_studio, label_studio_api
from syncd.sources.http import Http

_PAGE = 200  # bodies
_SHOWN = 300  # characters of a refusal


def open(url: str, token: str, clock: Clock) -> Importer:  # noqa: A001 - as every edge is opened
    """Raises ValueError for what is no address of a server."""
    config = label_studio.Config(type="label_studio", url=url, token=Secret(token))
    return Importer(label_studio.http_of(config, clock), config.url)


class Importer:
    """One server. Raises SourceError for what it refuses, AccessError for its credentials."""

    settable = (
        "label_config", "description", "expert_instruction", "show_instruction", "show_skip_button", "enable_empty_annotation",
        "show_annotation_history", "color", "maximum_annotations", "is_published", "show_collab_predictions", "sampling", "show_ground_truth_first",
        "show_overlap_first", "overlap_cohort_percentage", "control_weights", "evaluate_predictions_automatically", "skip_queue",
        "reveal_preannotations_interactively", "min_annotations_to_start_training", "annotator_evaluation_enabled",
    )  # fmt: skip
    """What of a project's settings may be set on another server, beside its title."""

    def __init__(self, http: Http, url: str) -> None:
        self._http = http
        self._api = label_studio_api.Api(http, labeled_only=False)
        self.url = url

    def whoami(self) -> str:
        """The e-mail of the token's user."""
        return self._api.whoami().name

    def people(self) -> frozenset[str]:
        """The e-mails of everybody whom annotations can be by."""
        rows = self._http.get("/api/users/").body
        return frozenset(str(row["email"]) for row in rows if isinstance(row, dict) and row.get("email")) if isinstance(rows, list) else frozenset()

    def titled(self, start: str) -> list[str]:
        """The projects whose title begins so."""
        return [project.id for project in self._api.projects() if project.title.startswith(start)]

    def project(self, project: str) -> Mapping[str, object] | None:
        """Its settings; None when there is no such project."""
        return self._api.project(project)

    def create(self, title: str, settings: Mapping[str, object]) -> None:
        """Make an empty project; its id is to be looked up."""
        fields = {name: settings[name] for name in self.settable if settings.get(name) is not None} | {"title": title}
        self._ask("/api/projects/", fields, "; is this Label Studio older than the one of the backup? --to-folder needs none")

    def change(self, project: str, fields: Mapping[str, object]) -> None:
        """Set these settings of a project."""
        self._http.change("PATCH", f"/api/projects/{project}/", dict(fields))

    def send(self, project: str, tasks: Sequence[Mapping[str, object]]) -> tuple[list[int], Counts]:
        """Import some tasks: their new ids in order, and what the server says it took."""
        body = self._ask(f"/api/projects/{project}/import?return_task_ids=true", list(tasks))
        ids, told = body.get("task_ids"), [body.get(f"{kind}_count") for kind in ("task", "annotation", "prediction")]
        counts = [count for count in told if isinstance(count, int)]
        if not isinstance(ids, list) or len(counts) != len(told) or len(ids) != counts[0]:
            lacking = "no counts and ids of the new tasks in the answer"  # yet it may have made them
            raise TransientError(f"POST /api/projects/{project}/import: {lacking}: is this a version that syncd knows?")
        return ids, Counts(*counts)

    def bodies(self, project: str, after: int = 0, among: Sequence[int] = ()) -> Iterator[list[dict[str, Any]]]:
        """Every task with a greater id, or those `among` some ids that are there, by id, in pages, as the backup of that project would hold it."""
        filters, size = [label_studio_api.among(among)] if among else [], _PAGE
        while True:
            try:
                page = self._api.bodies(project, filters, size, after)
            except TaskError as error:  # too heavy together
                if size == 1:
                    raise SourceError(f"{error}; it is the first task after {after}: delete it there and run this again") from error
                size //= 2
                continue
            if page.tasks:
                after = label_studio_api.integer(page.tasks[-1], "id")
                yield [dict(label_studio_api.task_of(task).body) for task in page.tasks]  # type: ignore[arg-type]  # of a task, never of a side file
            if page.complete:
                return

    def draft(self, task: object, annotation: object, draft: Mapping[str, object]) -> None:
        """Make a draft of the token's user."""
        of = "drafts" if annotation is None else f"annotations/{annotation}/drafts"
        self._ask(f"/api/tasks/{task}/{of}", dict(draft))

    def remove_draft(self, draft: object) -> None:
        """Remove one."""
        self._http.change("DELETE", f"/api/drafts/{draft}/")

    def remove_tasks(self, ids: Sequence[int]) -> None:
        """Remove these tasks."""
        for task in ids:
            self._http.change("DELETE", f"/api/tasks/{task}/")

    def remove(self, project: str) -> None:
        """Remove a project."""
        self._http.change("DELETE", f"/api/projects/{project}/")

    def close(self) -> None:
        self._http.close()

    def _ask(self, path: str, body: object, advice: str = "") -> Mapping[str, Any]:
        def fault(answer: object, _: float | None) -> SourceError | None:
            if not isinstance(answer, dict) or answer.get("status_code") != HTTPStatus.BAD_REQUEST:
                return None
            why = encode.dumps(answer.get("validation_errors") or answer.get("detail")).decode().strip()
            return SourceError(f"the server refuses it: {discreet(why)[:_SHOWN]}{advice}")

        return label_studio_api.mapping(self._http.ask(path, body, {}, fault).body, path)
