"""`syncd changes`: the change feed, for a pipe."""

from __future__ import annotations

import re
from contextlib import closing, suppress

from syncd.cli.jobs import moment, read
from syncd.cli.main import Call
from syncd.clock import SystemClock, parse_time
from syncd.config import open_target
from syncd.upkeep.changes import changes

_RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")


def run_changes(call: Call, sync: str, since: str, *, follow: bool) -> int:
    """Print line by line; with `follow` until somebody stops it."""
    config, _ = read(call, [sync])
    clock = SystemClock()
    run = since if _is_run(since) else ""
    at = moment("--since", since, clock, "nor the id of a Run") if since and not run else None
    with closing(open_target(config, sync, clock)) as target:
        for line in changes(target, clock, after=run, since=at, follow=follow):
            call.object(line)
    return 0


def _is_run(text: str) -> bool:
    with suppress(ValueError):
        return _RUN.fullmatch(text) is not None and parse_time(text[:8]) > 0
    return False
