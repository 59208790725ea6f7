"""From a config to one Run: its Source and Target are opened for it alone, and closed after it."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from syncd.checkpoint.base import Checkpoint
from syncd.clock import Clock
from syncd.config import Config, open_source, open_target
from syncd.errors import CheckpointError, Stopped, SyncdError
from syncd.model import Kind, Report, Status
from syncd.run import INTERRUPTED, new_run_id, run_sync
from syncd.run.job import Job, OnProgress

log = logging.getLogger(__name__)


@contextmanager
def opened(config: Config, name: str, checkpoint: Checkpoint, clock: Clock) -> Iterator[Job]:
    """One Sync with its Source and Target open for as long."""
    with closing(open_source(config, name, clock)) as source, closing(open_target(config, name, clock)) as target:
        yield Job(name, config.syncs[name], source, target, checkpoint, clock)


def attempt(
    config: Config, name: str, checkpoint: Checkpoint, clock: Clock, on_progress: OnProgress | None,
    *, kind: Kind | None = None, confirm_deletes: str = "", take_over: bool = False,
) -> Report:  # fmt: skip
    """One Run of a Sync: whatever goes wrong, a fault of syncd too, ends in a Report and in the history. Raises CheckpointError alone."""
    report = _attempted(config, name, checkpoint, clock, on_progress, kind=kind, confirm_deletes=confirm_deletes, take_over=take_over)
    if report.status is not Status.OK:
        # An error holds frames that hold it, connections and files among what else they hold: a daemon's collector seldom comes by itself.
        gc.collect()
    return report


def _attempted(config: Config, name: str, checkpoint: Checkpoint, clock: Clock, on_progress: OnProgress | None, **options: Any) -> Report:
    started = clock.now()
    try:
        with opened(config, name, checkpoint, clock) as job:
            return run_sync(job, on_progress=on_progress, **options)
    except CheckpointError:
        raise
    except SyncdError as error:
        why, code = str(error), error.exit_code
    except Stopped:
        why, code = "interrupted", INTERRUPTED
    except Exception as error:  # one Sync must not stop the others
        log.exception("a fault of syncd itself, please report it")
        why, code = f"a fault of syncd itself: {type(error).__name__}: its log has more", 1
    report = Report(name, new_run_id(started), options["kind"] or Kind.INCREMENTAL, Status.FAILED, started_at=started, error=why, exit_code=code)
    checkpoint.finish(checkpoint.begin(name, report.run_id, report.kind, started), report, clock.now())
    return report
