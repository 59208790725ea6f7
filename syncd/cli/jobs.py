"""From a config file and names on the command line to Jobs. Slow to import, as all that Runs need is."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import closing

import typer

from syncd.cli.main import DEFAULT_PATH, Call
from syncd.clock import SystemClock
from syncd.config import Config, load, open_checkpoint
from syncd.config.rules import suggest
from syncd.run.job import Job
from syncd.run.opening import opened


def read(call: Call, wanted: Sequence[str] | None) -> tuple[Config, list[str]]:
    """The config and the Syncs that are meant: all when none is named. An unknown name is a mistake of usage (exit 2)."""
    config = load(call.config, os.environ)
    for name in wanted or ():
        if name not in config.syncs:
            raise typer.BadParameter(f"there is no Sync {name!r}: {suggest(name, config.syncs)}")
    return config, list(dict.fromkeys(wanted or config.syncs))


def each(call: Call, wanted: Sequence[str] | None, *, write: bool = False) -> Iterator[Job]:
    """Each Sync that is meant, open while it is looked at; the Checkpoint is only read, unless it is to be written."""
    config, names = read(call, wanted)
    with closing(open_checkpoint(config, read_only=not write)) as checkpoint:
        for name in names:
            with opened(config, name, checkpoint, SystemClock()) as job:
                yield job


def confirmation(call: Call, sync: str, plan_id: str, *command: str) -> str:
    """The command (default: `sync`) that lets the deletions of that Plan pass the Guard."""
    config = ["-c", str(call.config)] if call.config != DEFAULT_PATH else []
    return shlex.join(["syncd", *(command or ["sync"]), sync, "--confirm-deletes", plan_id, *config])
