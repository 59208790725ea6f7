"""From a config file and names on the command line to Jobs. Slow to import, as all that Runs need is."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing, suppress

import typer

from syncd.cli.main import INTERRUPTED, Call
from syncd.cli.output import log
from syncd.clock import SECOND, Clock, SystemClock, format_time, parse_time
from syncd.config import Config, load, open_checkpoint
from syncd.config.rules import suggest
from syncd.errors import CheckpointError, SyncdError
from syncd.fields import parse_duration
from syncd.run.job import Job
from syncd.run.opening import opened

WORST = (0, 3, 20, 1, 12, 11, 78, INTERRUPTED)
"""Exit codes from good to bad: some tasks failed, a person must confirm, a Run failed, and then why nothing could be done at all."""


def read(call: Call, wanted: Sequence[str] | None) -> tuple[Config, list[str]]:
    """The config and the Syncs that are meant: all when none is named. An unknown name is a mistake of usage (exit 2)."""
    config = load(call.config, os.environ)
    for name in wanted or ():
        if name not in config.syncs:
            raise typer.BadParameter(f"there is no Sync {name!r}: {suggest(name, config.syncs)}")
    return config, list(dict.fromkeys(wanted or config.syncs))


def for_each(call: Call, wanted: Sequence[str] | None, act: Callable[[Job], int], *, write: bool = False) -> int:
    """Do it for each Sync that is meant, whatever becomes of the others; the worst exit code. The Checkpoint is only read, unless told otherwise."""
    config, names = read(call, wanted)
    codes = [0]
    with closing(open_checkpoint(config, read_only=not write)) as checkpoint:
        for name in names:
            try:
                with opened(config, name, checkpoint, SystemClock()) as job:
                    codes.append(act(job))
            except CheckpointError:
                raise
            except SyncdError as error:
                log.error("%s: %s", name, error)
                codes.append(error.exit_code)
    return max(codes, key=WORST.index)


def moment(option: str, text: str, clock: Clock, *others: str) -> int:
    """Microseconds of a time, or of a duration back from now. others: what else the option could have been."""
    with suppress(ValueError, OverflowError):
        return max(0, clock.now() - int(parse_duration(text) * SECOND))
    with suppress(ValueError, OverflowError):
        return parse_time(format_time(max(0, parse_time(text))))  # of the year 10000 an offset makes what no text can say
    means = ", ".join(["neither a time like 2026-11-20T12:00:00Z", "nor a duration back like 2h or 30d", *others])
    raise typer.BadParameter(f"{option}={text}: {means}")
