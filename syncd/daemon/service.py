"""The heart of the daemon: which Run begins when, what is remembered of it, and what a new config changes. It is the Board of page and hooks.

Refuses to wait, to open anything, or to know threads, signals and files: `program` brings those, a test brings its own. Rules: every method may be
called from any thread; a Sync that fails costs the others nothing; a Run under way is never touched by a new config, its successor follows it.
"""

from __future__ import annotations

import logging
import shlex
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from syncd.checkpoint.base import Checkpoint
from syncd.clock import SECOND, Clock, format_time
from syncd.config import Config
from syncd.context import about
from syncd.daemon.board import ConfigState, SyncView, Totals, Woken
from syncd.daemon.ledger import Ledger, wiring
from syncd.daemon.pool import Pool
from syncd.daemon.schedule import JUMP, NO_SCHEDULE, describe
from syncd.errors import CheckpointError, ConfigError
from syncd.model import Failure, Report, RunRecord
from syncd.run import INTERRUPTED
from syncd.run.job import Progress
from syncd.run.standing import standing

log = logging.getLogger("syncd.daemon")
_GONE = 3  # Runs failed in a row after which a Source or Target counts as not answering
_AT_START = ("state", "http")  # read once
_BEAT = ""  # an alarm of our own: no Sync has this name
_BEAT_EVERY = 5 * SECOND
_DEAD = 30.0  # seconds without a beat
_COUNTS = ("written", "unchanged", "healed", "adopted", "trashed", "deleted", "kept")


Alarm = Callable[[str, int | None], None]
"""Call `Service.due(name)` at that time (microseconds; a past one: at once) instead of any time set before; None: not at all."""
Launch = Callable[[Config, str, str], None]
"""(config, Sync, confirmed Plan): begin a Run elsewhere, return at once, and call `Service.ended` when it is over."""


class Service:
    """See `board.Board` for what it answers. told: called with each Report that ended."""

    def __init__(
        self, path: Path, config: Config, checkpoint: Checkpoint, clock: Clock, alarm: Alarm, launch: Launch, told: Callable[[Config, Report], None]
    ) -> None:
        self._path, self._checkpoint, self._clock, self._alarm, self._launch, self._told = path, checkpoint, clock, alarm, launch, told
        self._lock = threading.RLock()
        self._started_with = config
        self._config = config
        self._pool = Pool(config.workers)
        self._syncs: dict[str, Ledger] = {}
        self._state = ConfigState(str(path), clock.now())
        self._drift, self._beaten = self._offset(), clock.monotonic()
        self._stopping = False

    # what happens

    def start(self) -> None:
        """Plan every Sync from what the Checkpoint remembers."""
        self._beat()
        self.take(self._config)

    def stop(self) -> None:
        """Begin no more Runs."""
        with self._lock:
            self._stopping = True

    def due(self, name: str) -> None:
        """The slot of a Sync has come."""
        with self._lock:
            sync = self._syncs.get(name)
            if name == _BEAT:
                self._beat()
            elif sync is not None and sync.slot is not None:  # else a Run began meanwhile, for another reason
                self._pool.call(name)
                self._begin()

    def wake(self, name: str) -> Woken:
        """See `board.Board`."""
        with self._lock:
            if name not in self._syncs:
                return Woken.UNKNOWN
            added = self._pool.call(name)
            self._begin()
            return Woken.STARTED if added else Woken.COALESCED

    def confirm(self, name: str, plan_id: str) -> None:
        """The deletions of that Plan may pass the Guard in the next Run, which is due now."""
        with self._lock:
            if name in self._syncs:
                self._syncs[name].confirmed = plan_id
            self.wake(name)

    def progressed(self, name: str, progress: Progress) -> None:
        """A Run came so far."""
        if sync := self._syncs.get(name):
            sync.progress = progress

    def ended(self, report: Report) -> None:
        """A Run is over. Raises CheckpointError."""
        known = self._syncs.get(report.sync)
        stands = standing(self._checkpoint, report.sync, known.standing if known else None)
        with self._lock:
            self._pool.done(report.sync)
            config = self._config
            if sync := self._syncs.get(report.sync):
                sync.end(report, stands)
                self._plan(sync)
            self._begin()
        with about(report.sync, report.run_id):
            _log(report, sync, self.confirm_command(report.sync))
        if sync:
            self._told(config, report)

    def tick(self) -> None:
        """Now and then, at least every few seconds: notices a clock that was set, and Runs that became long."""
        with self._lock:
            drift = self._offset()
            if abs(drift - self._drift) > JUMP:
                log.warning("the machine's clock was set by %+.0f s: every slot is planned anew", (drift - self._drift) / SECOND)
                self._alarm(_BEAT, self._clock.now())
                for sync in self._syncs.values():
                    self._plan(sync)
            self._drift = drift
            self._begin()

    def take(self, config: Config) -> None:
        """A config that is right: what is the same goes on as it is. Raises CheckpointError."""
        fresh = {name: standing(self._checkpoint, name) for name in config.syncs if name not in self._syncs}
        with self._lock:
            before, self._config, self._pool.workers = self._syncs, config, config.workers
            self._syncs = {name: before.get(name) or Ledger(name, wiring(config, name), fresh[name]) for name in config.syncs}
            changed = [name for name, sync in self._syncs.items() if sync.rewire(wiring(config, name))]
            gone = before.keys() - self._syncs.keys()
            for name in gone:
                self._pool.forget(name)
                self._alarm(name, None)
            for name in (*fresh, *changed):
                self._plan(self._syncs[name])
            self._state = ConfigState(str(self._path), self._clock.now(), self._needs_restart())
            self._begin()
        if before:
            told = (("added", fresh), ("changed", changed), ("removed", gone))
            log.info("the config was read again: %s", "; ".join(f"{what} {', '.join(names)}" for what, names in told if names) or "no Sync changed")
        for problem in self._state.problems:
            log.warning("%s", problem)
        for name in (*fresh, *changed):
            if describe(config.syncs[name]) == NO_SCHEDULE:
                log.info("%s has no schedule: only hooks, and changes in the folder of a files Source, start its Runs", name)

    def refuse(self, error: ConfigError) -> None:
        """The newest config is not right: the one before it stays."""
        problems = [f"{p.file}:{p.line}:{p.column}: {p.message}" + (f" ({p.hint})" if p.hint else "") for p in error.problems]
        with self._lock:
            self._state = ConfigState(self._state.path, self._state.loaded_at, problems)
        for problem in problems:
            log.error("the config was not taken, the one before it stays: %s", problem)

    def _beat(self) -> None:
        """Alarms come, and prove it again soon."""
        self._beaten = self._clock.monotonic()
        self._alarm(_BEAT, self._clock.now() + _BEAT_EVERY)

    def _offset(self) -> int:
        return self._clock.now() - round(self._clock.monotonic() * SECOND)

    def _needs_restart(self) -> list[str]:
        changed = [key for key in _AT_START if getattr(self._config, key) != getattr(self._started_with, key)]
        return [f"`{key}` has changed: it is read at the start only, so restart syncd to use it" for key in changed]

    def _plan(self, sync: Ledger) -> None:
        if not self._pool.busy(sync.name):
            sync.slot = sync.next(self._clock.now())
            self._alarm(sync.name, sync.slot)

    def _begin(self) -> None:
        """Start the Runs that there is a place for."""
        if self._stopping:
            return
        for name in self._pool.take(self._clock.monotonic()):
            self._alarm(name, None)
            self._launch(self._config, name, self._syncs[name].begin(self._clock.now()))

    # what the Board answers

    def now(self) -> int:
        return self._clock.now()

    def syncs(self) -> Sequence[SyncView]:
        with self._lock:
            now = self._clock.now()
            return [sync.view(now) for sync in self._syncs.values()]

    def sync(self, name: str) -> SyncView | None:
        with self._lock:
            found = self._syncs.get(name)
            return found.view(self._clock.now()) if found else None

    def runs(self, name: str, limit: int) -> Sequence[RunRecord]:
        return self._checkpoint.runs(name, limit)

    def failures(self, name: str, limit: int) -> Sequence[Failure]:
        return self._checkpoint.failures(name, limit)

    def totals(self, name: str) -> Totals:
        found = self._syncs.get(name)
        return found.totals if found else Totals({})

    def config(self) -> ConfigState:
        return self._state

    def queue(self) -> tuple[int, int]:
        with self._lock:
            return len(self._pool.waiting), len(self._pool.running)

    def alive(self) -> bool:
        return self._clock.monotonic() - self._beaten < _DEAD

    def unready(self) -> Sequence[str]:
        """The Checkpoint can't be read; or the last three Runs of a Sync failed, though it may only be its Source, Target or token that is amiss."""
        try:
            self._checkpoint.states("")
        except CheckpointError as error:
            return [str(error)]
        with self._lock:
            stuck = [sync for sync in self._syncs.values() if sync.standing.failed_in_a_row >= _GONE]
            return [f"{sync.name}: its last {sync.standing.failed_in_a_row} Runs failed: {_error(sync)}" for sync in stuck]

    def hook_secret(self, name: str) -> str | None:
        found = self._syncs.get(name)
        return found.rules.hook_secret.get_secret_value() if found and found.rules.hook_secret else None

    def count_hook(self, name: str, *, refused: bool) -> None:
        with self._lock:
            if found := self._syncs.get(name):
                found.count_hook(refused=refused)

    def confirm_command(self, name: str) -> str:
        found = self._syncs.get(name)
        plan_id = found.plan_id() if found else ""
        return shlex.join(["syncd", "sync", name, "--confirm-deletes", plan_id, "-c", str(self._path)]) if plan_id else ""


def _error(sync: Ledger) -> str:
    return str(sync.standing.ended.report.get("error", "")) if sync.standing.ended else ""


def _log(report: Report, sync: Ledger | None, confirm: str) -> None:
    """One line of information for each Run, and one more for what needs attention."""
    if report.exit_code == INTERRUPTED:
        log.info("interrupted after %.1f s; the next Run goes on from there", report.seconds)
        return
    counts = {name: count for name in _COUNTS if (count := getattr(report, name))} | ({"failed": len(report.failed)} if report.failed else {})
    did = ", ".join(f"{count:,} {name}" for name, count in counts.items()) or ("nothing done" if report.error else "nothing to do")
    fields = {"status": report.status.value, "kind": report.kind.value, "seconds": round(report.seconds, 3), **counts}
    log.info("%s: %s in %.1f s", report.status.value, did, report.seconds, extra={"fields": fields})
    if report.error:
        again = f" (next try {format_time(sync.slot)[:19]}Z; Runs failed in a row: {sync.standing.failed_in_a_row})" if sync and sync.slot else ""
        log.error("%s%s", report.error, again)
    if report.guard:
        log.warning("the Guard stopped the deletions: %s. If they are meant: %s", report.guard, confirm)
    if report.failed:
        first = report.failed[0]
        where = first.project if first.name is None else f"{first.project}/{first.name}"
        log.warning("%s failed, each Run tries them again; the first: %s: %s", f"{len(report.failed):,}", where, first.error)
