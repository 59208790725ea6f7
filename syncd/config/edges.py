"""The concrete Sources, Targets and Checkpoints: the only place that knows them, and only by name.

An edge is imported when a config uses it, never before: their libraries are slow to load. Adding one is adding its name here.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from syncd.checkpoint.base import Checkpoint
from syncd.clock import Clock
from syncd.config.shape import Config
from syncd.fields import Fields
from syncd.sources.base import Selection, Source
from syncd.targets.base import Target

if TYPE_CHECKING:
    from syncd.sources.label_studio_import import Importer

NAMES = {"sources": ("label_studio", "labelbox", "files"), "targets": ("local", "s3", "gcs")}
"""Each section of the config and the types it knows: modules of the package of that name."""


def config_class(section: str, edge: str) -> type[Fields]:
    """The `Config` of an edge: section is `sources` or `targets`, edge one of its NAMES."""
    config: type[Fields] = importlib.import_module(f"syncd.{section}.{edge}").Config
    return config


def source_of(chosen: Fields, select: Selection, clock: Clock) -> Source:
    """A Source of its part of the config, restricted to what is selected."""
    source: Source = importlib.import_module(type(chosen).__module__).open(chosen, select, clock)
    return source


def target_of(chosen: Fields, clock: Clock) -> Target:
    """A Target of its part of the config."""
    target: Target = importlib.import_module(type(chosen).__module__).open(chosen, clock)
    return target


def open_source(config: Config, sync: str, clock: Clock) -> Source:
    """The Source of that Sync, restricted to what the Sync selects."""
    rules = config.syncs[sync]
    return source_of(config.sources[rules.source], rules.selection(), clock)


def open_target(config: Config, sync: str, clock: Clock) -> Target:
    """The Target of that Sync."""
    return target_of(config.targets[config.syncs[sync].target], clock)


def open_folder(folder: Path, clock: Clock) -> Target:
    """Any folder, as a Target."""
    return target_of(config_class("targets", "local")(type="local", path=folder), clock)  # type: ignore[call-arg]  # its own fields


def open_importer(url: str, token: str, clock: Clock) -> Importer:
    """A Label Studio to restore to. Raises ValueError for what is no address of a server."""
    importer: Importer = importlib.import_module("syncd.sources.label_studio_import").open(url, token, clock)
    return importer


def open_checkpoint(config: Config, *, read_only: bool = False) -> Checkpoint:
    """The Checkpoint of all Syncs. Raises OwnedError when another process holds it (never when read_only)."""
    from syncd.checkpoint import sqlite

    return sqlite.open(config.state, read_only=read_only)


def set_aside_checkpoint(config: Config, at: int, *, force: bool) -> tuple[str, Path] | None:
    """Move a Checkpoint that can't be used, or with `force` any, out of the way: why, and where it is now. None: it is sound, or there is none."""
    from syncd.checkpoint import sqlite

    return sqlite.set_aside(config.state, at, force=force)
