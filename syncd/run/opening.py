"""From a config to one Run: its Source and Target are opened for it alone, and closed after it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager

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


def attempt(config: Config, name: str, checkpoint: Checkpoint, clock: Clock, confirm_deletes: str, on_progress: OnProgress) -> Report:
    """One Run of a Sync that nobody watches: whatever goes wrong, a fault of syncd too, ends in a Report and in the history.

    Raises CheckpointError alone.
    """
    started = clock.now()
    try:
        with opened(config, name, checkpoint, clock) as job:
            return run_sync(job, confirm_deletes=confirm_deletes, on_progress=on_progress)
    except CheckpointError:
        raise
    except SyncdError as error:
        why, code = str(error), error.exit_code
    except Stopped:
        why, code = "interrupted", INTERRUPTED
    except Exception as error:  # one Sync must not stop the others
        log.exception("a fault of syncd itself, please report it")
        why, code = f"a fault of syncd itself: {type(error).__name__}: its log has more", 1
    report = Report(name, new_run_id(started), Kind.INCREMENTAL, Status.FAILED, started_at=started, error=why, exit_code=code)
    checkpoint.finish(checkpoint.begin(name, report.run_id, report.kind, started), report, clock.now())
    return report
