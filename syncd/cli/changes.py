"""`syncd changes`: the change feed, for a pipe."""

from __future__ import annotations

from contextlib import closing

import typer

from syncd.cli.jobs import read
from syncd.cli.main import Call
from syncd.clock import SystemClock
from syncd.config import open_target
from syncd.upkeep.changes import changes


def run_changes(call: Call, sync: str, since: str, *, follow: bool) -> int:
    """Print line by line; with `follow` until somebody stops it."""
    config, _ = read(call, [sync])
    clock = SystemClock()
    with closing(open_target(config, sync, clock)) as target:
        try:
            for line in changes(target, clock, since, follow=follow):
                call.object(line)
        except ValueError as error:
            raise typer.BadParameter(f"--since={since}: neither the id of a Run nor a time like 2026-11-20T12:00:00Z") from error
    return 0
