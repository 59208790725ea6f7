"""Which rows of Labelbox a Collection holds and what of them is wanted: the config's words as exports to order.

Pure. A row is asked for by its id as well, since that is what proves an absence (I4); slices and model runs have no filters, so there everything is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from syncd.clock import format_time, parse_time
from syncd.fields import Fields
from syncd.sources import labelbox_queries as queries
from syncd.sources.labelbox_export import Order

_ROWS = {"includeAttachments": "attachments", "includeMetadata": "metadata_fields", "includeDataRowDetails": "data_row_details"}
_LABELS = {
    "includeProjectDetails": "project_details",
    "includeLabelDetails": "label_details",
    "includePerformanceDetails": "performance_details",
    "includeInterpolatedFrames": "interpolated_frames",
}
_RUNS = {"includePredictions": "predictions", "includeModelRunDetails": "model_run_details"}

MOST_IDS, MOST_PARENTS = 2000, 30  # ids in a filter, in a list of projects or model runs

Ids = Annotated[tuple[str, ...], Field(max_length=MOST_PARENTS)]


def second(micros: int) -> str:
    """`2026-11-20T12:00:00+0000`: the whole second before a moment."""
    return f"{format_time(micros)[:19]}+0000"


def _moment(value: object) -> str | None:
    return None if value is None else second(parse_time(str(value)))


def _some(value: tuple[str | None, str | None]) -> tuple[str | None, str | None]:
    if value == (None, None):
        raise ValueError("both ends are open: leave it out")
    return value


Moment = Annotated[str | None, BeforeValidator(_moment)]


class Export(Fields):
    """What an export shows of each data row. Labels and their annotations are always there."""

    attachments: bool = True
    metadata_fields: bool = True
    data_row_details: bool = True
    """Holds last_activity_at; without it changes are told by content alone."""
    project_details: bool = True
    label_details: bool = True
    performance_details: bool = True
    interpolated_frames: bool = False
    """Also the frames between key frames, of videos."""
    predictions: bool = True
    """Model runs, and datasets and slices with `model_run_ids`."""
    model_run_details: bool = True
    """Model runs: the split a data row is in."""
    project_ids: Ids = ()
    """Datasets and slices: the projects whose labels come along. Default: all."""
    model_run_ids: Ids = ()
    """Datasets and slices: the model runs that come along. Default: none."""


class Filters(Fields):
    """Only some data rows. Of projects; `label_created_at` of datasets, too. Those that stop to match leave the backup as removed ones do."""

    workflow_status: Literal["ToLabel", "InReview", "InRework", "Done"] | None = None
    label_created_at: Annotated[tuple[Moment, Moment], AfterValidator(_some)] | None = None
    """From, to; `null` for an open end. UTC unless an offset is given."""
    batch_ids: Annotated[tuple[str, ...], Field(max_length=MOST_IDS)] = ()


@dataclass(frozen=True, slots=True)
class Scope:
    """One Collection. kind: as in the config; id: Labelbox' own."""

    kind: str
    id: str
    export: Export
    filters: Filters

    @property
    def dated(self) -> bool:
        """Whether an export can be restricted to what somebody worked on lately, or to ids."""
        return self.kind in {"projects", "datasets"}

    @property
    def filtered(self) -> bool:
        """Whether some rows are left out on purpose, so that Labelbox' own count says nothing."""
        return bool(self._chosen())

    def everything(self, since: int | None = None) -> Order:
        """All rows; or those that somebody worked on since a moment, microseconds."""
        recent = [] if since is None else [queries.between("data_row_last_activity_at", second(since), None)]
        return self._order([*self._chosen(), *recent])

    def among(self, rows: Sequence[str]) -> Order:
        """Of these rows those that are there; everything where there is no filter."""
        return self._order([*self._chosen(), queries.among("data_row_id", rows)])

    def anywhere(self, rows: Sequence[str]) -> Order:
        """Of these rows those that Labelbox has at all, whether or not this Collection holds them; with their part in it, if it is a project."""
        params = self._shown(_LABELS) | self._parents([self.id] if self.kind == "projects" else [], [])
        return _searching("Catalog", {}, [queries.among("data_row_id", rows)], params)

    def _order(self, conditions: Sequence[queries.Condition]) -> Order:
        asked = self.export
        if self.kind == "projects":
            return _searching("Project", {"projectId": self.id}, conditions, self._shown(_LABELS))
        if self.kind == "model_runs":
            return Order("ModelRun", {"modelRunId": self.id}, self._shown(_RUNS))
        params = self._shown(_LABELS) | self._parents(asked.project_ids, asked.model_run_ids, all_projects=not asked.project_ids)
        if self.kind == "slices":
            return Order("Slice", {"sliceId": self.id}, params)
        return _searching("Catalog", {}, [*conditions, queries.among("dataset", [self.id])], params)

    def _chosen(self) -> list[queries.Condition]:
        filters, chosen = self.filters, list[queries.Condition]()
        if self.dated and filters.label_created_at:
            chosen.append(queries.between("labeled_at", *filters.label_created_at))
        if self.kind == "projects" and filters.workflow_status:
            chosen.append(queries.in_status(filters.workflow_status))
        if self.kind == "projects" and filters.batch_ids:
            chosen.append(queries.among("batch", filters.batch_ids))
        return chosen

    def _shown(self, *parts: Mapping[str, str]) -> dict[str, object]:
        asked = {param: getattr(self.export, name) for names in (_ROWS, *parts) for param, name in names.items()}
        return {"mediaTypeOverride": None, "includeEmbeddings": False, **asked}

    def _parents(self, projects: Sequence[str], runs: Sequence[str], *, all_projects: bool = False) -> dict[str, object]:
        return {
            "includePredictions": self.export.predictions and bool(runs),
            "projectIds": list(projects) or None,
            "modelRunIds": list(runs) or None,
            "allProjects": all_projects,
            "allModelRuns": False,
        }


def _searching(of: str, filters: dict[str, object], conditions: Sequence[queries.Condition], params: dict[str, object]) -> Order:
    return Order(of, filters | {"searchQuery": {"scope": None, "query": list(conditions)}}, params)
