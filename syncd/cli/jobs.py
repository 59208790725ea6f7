"""From a config file and names on the command line to Jobs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import typer

from syncd.checkpoint.base import Checkpoint
from syncd.cli.output import DEFAULT_PATH
from syncd.clock import Clock
from syncd.config import Config, load, open_source, open_target
from syncd.config.rules import suggest
from syncd.run.job import Job


def read(path: Path, wanted: Sequence[str]) -> tuple[Config, list[str]]:
    """The config and the Syncs that are meant: all when none is named. An unknown name is a mistake of usage (exit 2)."""
    config = load(path, os.environ)
    for name in wanted:
        if name not in config.syncs:
            raise typer.BadParameter(f"there is no Sync {name!r}: {suggest(name, config.syncs)}")
    return config, list(dict.fromkeys(wanted)) or list(config.syncs)


def open_job(config: Config, name: str, checkpoint: Checkpoint, clock: Clock) -> Job:
    """One Sync with its Source and Target open. Close it with `close_job`."""
    return Job(name, config.syncs[name], open_source(config, name, clock), open_target(config, name, clock), checkpoint, clock)


def close_job(job: Job) -> None:
    """Let go of connections."""
    job.source.close()
    job.target.close()


def confirmation(path: Path, sync: str, plan_id: str) -> str:
    """The command that lets the deletions of that Plan pass the Guard."""
    return shlex.join(["syncd", "sync", sync, "--confirm-deletes", plan_id, *(["-c", str(path)] if path != DEFAULT_PATH else [])])
