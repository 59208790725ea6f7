"""What a config holds, as frozen data.

Knows no concrete Source or Target: those declare their own part in their own file. Rules that need more than one part are in `rules`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, WithJsonSchema

from syncd.fields import Duration, Fields
from syncd.keys import Layout

_CRON = re.compile(r"(\*|[\w,-]+)(/\d+)?")


def _id_or_pattern(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _not_empty(value: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if not value or "" in value:
        raise ValueError("names nothing: leave the key out to select everything")
    return value


def _key(value: str) -> str:
    Layout(value)  # raises ValueError for a template that is not one-to-one (I6)
    return value


def _cron(value: str) -> str:
    fields = value.split()
    if len(fields) != 5 or not all(_CRON.fullmatch(field) for field in fields):  # noqa: PLR2004 - minute hour day month weekday
        raise ValueError('not a cron line: five fields (minute hour day month weekday), like "*/5 * * * *"')
    return value


NAME = r"^\w[\w.-]{0,99}$"
Name = Annotated[str, Field(pattern=NAME)]
IdOrPattern = Annotated[str, BeforeValidator(_id_or_pattern), WithJsonSchema({"type": ["string", "integer"]})]
Selected = Annotated[tuple[IdOrPattern, ...] | None, AfterValidator(_not_empty), Field(json_schema_extra={"minItems": 1})]
SomeTime = Annotated[Duration, Field(gt=0)]


class MaxDelete(Fields):
    """The Guard: how much one Run may delete from one Collection without being asked. Never everything."""

    fraction: float = Field(default=0.05, ge=0, le=1)
    """Part of the Collection's tasks, 0 to 1."""
    at_least: int = Field(default=20, ge=0)
    """So many deletions are always allowed, however small the Collection."""


class SyncConfig(Fields):
    """One Sync: a Source, a Target, a schedule and rules."""

    source: str
    """Name of the Source under `sources`."""
    target: str
    """Name of the Target under `targets`. One place belongs to one Sync."""
    projects: Selected = None
    """Ids or title patterns (`*`, `?`, `[...]`); without it all, and new ones as they appear. For a files Source: its sub-folders."""
    key: Annotated[str, AfterValidator(_key)] = "{project}/{task}.json"
    """Where a task's file stands below the Target's prefix."""
    every: SomeTime | None = None
    """How often the daemon starts a Run. Or `cron`."""
    cron: Annotated[str, AfterValidator(_cron)] | None = None
    """When the daemon starts a Run: minute, hour, day, month, weekday. Or `every`."""
    full_every: SomeTime = 86400.0
    """How often a Run is full: it reads every body, the only catch for silent edits."""
    overlap: Duration = 600.0
    """How far behind its Cursor each Run reads again, so that late commits are seen."""
    drafts_every: Duration = 300.0
    """How often drafts are listed; each time costs all of them. 0s: each Run."""
    on_delete: Literal["trash", "delete", "keep"] = "trash"
    """What happens to the file of a task that is gone from the Source."""
    trash_retention: Duration = 2592000.0
    """How long the trash keeps a file."""
    max_delete: MaxDelete = MaxDelete()
    """The Guard: more deletions than this wait for a person."""

    def selection(self) -> dict[str, tuple[str, ...]]:
        """What it selects, by kind of Collection; empty: everything."""
        return {} if self.projects is None else {"projects": self.projects}


class Config(Fields):
    """syncd's config: which labeling data is backed up where."""

    sources: Annotated[dict[Name, SerializeAsAny[Fields]], Field(min_length=1)]
    """Where tasks are read, by a name of your choice."""
    targets: Annotated[dict[Name, SerializeAsAny[Fields]], Field(min_length=1)]
    """Where files are written, by a name of your choice."""
    syncs: Annotated[dict[Name, SyncConfig], Field(min_length=1)]
    """What is copied where, by a name of your choice: it stands in reports and commands."""
    state: Path
    """Folder of the Checkpoint. Default: $STATE_DIRECTORY, else .syncd beside the config file."""
    http: str | None = None
    """Address of the daemon's page, health and metrics, like `127.0.0.1:8642`; absent: none."""
