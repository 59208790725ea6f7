"""What a config holds, as frozen data.

Knows no concrete Source or Target: those declare their own part in their own file. Rules that need more than one part are in `rules`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, WithJsonSchema, model_validator

from syncd.cron import next_time
from syncd.fields import Concurrency, Duration, Fields, Secret
from syncd.keys import Layout

KINDS = ("projects", "datasets", "slices", "model_runs")
"""The kinds of Collections that a Sync can select; a Source's `Config` says in `kinds` which of them it has."""

_LISTEN = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/@\s]+):(\d{1,5})", re.ASCII)
_PORTS = 65535
_URL = re.compile(r"https?://[^\s/]\S*")


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
    try:
        next_time(value, 0)
    except ValueError:
        raise ValueError('not a cron line: five fields (minute hour day month weekday), like "*/5 * * * *"') from None
    return value


def _listen(value: str) -> str:
    found = _LISTEN.fullmatch(value)
    if not found or int(found[2]) > _PORTS:
        raise ValueError("not an address to listen at: write host:port, like 127.0.0.1:8642, 0.0.0.0:8642 (every address) or [::1]:8642")
    return value


def _address_alone(value: object) -> object:
    return {"listen": value} if isinstance(value, (str, int)) else value


def _bucket_alone(value: object) -> object:
    if isinstance(value, str) and value != "bucket":
        raise ValueError("write rules like {keep_last: 10, keep_within: 90d}, or the one word bucket")
    return {"bucket": True} if value == "bucket" else value


def _or_text(schema: dict[str, Any]) -> None:
    schema["anyOf"].insert(0, {"type": "string"})


def _url(value: Secret | None) -> Secret | None:
    if value and not _URL.fullmatch(value.get_secret_value()):
        raise ValueError("not a URL: it begins with https:// or http:// and holds no spaces")
    return value


def _header(value: Secret | None) -> Secret | None:
    if value and not (value.get_secret_value().isascii() and value.get_secret_value().isprintable()):
        raise ValueError("must be one line of plain letters, digits and signs: it travels in a header")
    return value


NAME = r"^\w[\w.-]*$"  # its length is told apart: {0,99} takes 40 ms to compile
Name = Annotated[str, Field(pattern=NAME, max_length=100)]
IdOrPattern = Annotated[str, BeforeValidator(_id_or_pattern), WithJsonSchema({"type": ["string", "integer"]})]
Selected = Annotated[tuple[IdOrPattern, ...] | None, AfterValidator(_not_empty), Field(json_schema_extra={"minItems": 1})]
SomeTime = Annotated[Duration, Field(gt=0)]


class MaxDelete(Fields):
    """The Guard: how much one Run may delete from one Collection without being asked. Never everything."""

    fraction: float = Field(default=0.05, ge=0, le=1)
    """Part of the Collection's tasks, 0 to 1."""
    at_least: int = Field(default=20, ge=0)
    """So many deletions are always allowed, however small the Collection."""


class History(Fields):
    """Which earlier TaskFiles are kept when a task changes: those that any of these rules names."""

    keep_last: Annotated[int, Field(ge=1)] | None = None
    """So many of each task, the newest; of a deleted task too."""
    keep_within: SomeTime | None = None
    """All that stood at any time since then; what a deleted task had last stays for `trash_retention`."""
    bucket: bool = False
    """Instead of these rules: nothing is kept beside what the bucket's own versioning keeps. Or `history: bucket`."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.bucket == (self.keep_last is not None or self.keep_within is not None):
            raise ValueError("give `keep_last`, `keep_within` or both, or write `history: bucket`; leave history out to keep none")
        return self


class Http(Fields):
    """Where the daemon answers: page, health, metrics, webhooks. `/healthz`, `/readyz` and webhooks ask for no password."""

    listen: Annotated[str, AfterValidator(_listen)]
    """`host:port` or `[v6]:port`; port 0: any that is free."""
    username: str | None = None
    """Asked for by the page and the metrics, with `password`."""
    password: Secret | None = None

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("`username` and `password` come together")
        return self


class Notify(Fields):
    """Whom to tell, by URLs; `{sync}` in one stands for the name of the Sync."""

    heartbeat: Annotated[Secret | None, AfterValidator(_url)] = None
    """Asked for after each Run that went well: whoever watches it notices when syncd is silent."""
    webhook: Annotated[Secret | None, AfterValidator(_url)] = None
    """Told in JSON of each Run that failed or that the Guard stopped."""


class SyncConfig(Fields):
    """One Sync: a Source, a Target, a schedule and rules."""

    source: str
    """Name of the Source under `sources`."""
    target: str
    """Name of the Target under `targets`. One place belongs to one Sync."""
    projects: Selected = None
    """Ids or title patterns (`*`, `?`, `[...]`); without it all, and new ones as they appear. For a files Source: its sub-folders."""
    datasets: Selected = None
    """Labelbox: ids or title patterns. Where any kind is named, only what is named is backed up."""
    slices: Selected = None
    """Labelbox: ids or title patterns."""
    model_runs: Selected = None
    """Labelbox: ids or title patterns."""
    key: Annotated[str, AfterValidator(_key)] = "{project}/{task}.json"
    """Where a task's file stands below the Target's prefix."""
    every: SomeTime | None = None
    """How often the daemon starts a Run. Or `cron`."""
    cron: Annotated[str, AfterValidator(_cron)] | None = None
    """When the daemon starts a Run: minute, hour, day, month, weekday, in the machine's time zone. Or `every`."""
    full_every: SomeTime = 86400.0
    """How often a Run is full: it reads every body, the only catch for silent edits."""
    overlap: Duration = 600.0
    """How far behind its Cursor each Run reads again, so that late commits are seen."""
    drafts_every: Duration = 300.0
    """How often drafts are listed; each time costs all of them. 0s: each Run. Beyond 100 projects also how often an unmoved one is asked."""
    on_delete: Literal["trash", "delete", "keep"] = "trash"
    """What happens to the file of a task that is gone from the Source."""
    trash_retention: Duration = 2592000.0
    """How long the trash keeps a file."""
    history: Annotated[History | None, BeforeValidator(_bucket_alone), Field(json_schema_extra=_or_text)] = None
    """Keep the earlier TaskFiles of each task; absent: none. `bucket`: the bucket's own versions are all there is."""
    max_delete: MaxDelete = MaxDelete()
    """The Guard: more deletions than this wait for a person."""
    hook_secret: Annotated[Secret | None, AfterValidator(_header)] = None
    """What a webhook call must prove to start a Run (`syncd hooks install`); absent: none is taken."""
    notify: Notify = Notify()
    """As at the top level, for this Sync: each URL given here takes the place of the one there."""

    def selection(self) -> dict[str, tuple[str, ...]]:
        """What it selects, by the kinds of Collections that are given; empty: everything."""
        return {kind: selected for kind in KINDS if (selected := getattr(self, kind)) is not None}


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
    workers: Concurrency = 4
    """How many Runs the daemon does at a time."""
    http: Annotated[Http | None, BeforeValidator(_address_alone), Field(json_schema_extra=_or_text)] = None
    """The daemon's page, health, metrics and webhooks: `host:port`, or a mapping with a password; absent: none."""
    notify: Notify = Notify()
    """Whom to tell of each Sync's Runs."""

    def notify_for(self, sync: str) -> Notify:
        """Whom to tell of this Sync: its own URLs, else those of the top level."""
        own = self.syncs[sync].notify
        return Notify(heartbeat=own.heartbeat or self.notify.heartbeat, webhook=own.webhook or self.notify.webhook)
