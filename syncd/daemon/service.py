"""The heart of the daemon: which Run begins when, what is remembered of it, and what a new config changes.

Refuses to wait, to open anything, or to know threads, signals and files: `program` brings those, a test brings its own. Rules: every method may be
called from any thread; a Sync that fails costs the others nothing; a Run under way is never touched by a new config, its successor follows it;
what page, metrics and hooks ask is answered in milliseconds.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from syncd.checkpoint.base import Checkpoint
from syncd.clock import SECOND, Clock, format_time
from syncd.config import Config
from syncd.context import about
from syncd.daemon.ledger import Ledger, wiring
from syncd.daemon.pool import Pool
from syncd.daemon.schedule import JUMP
from syncd.errors import CheckpointError, ConfigError
from syncd.model import Report
from syncd.run import INTERRUPTED
from syncd.run.confirmed import command
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


@dataclass(frozen=True, slots=True)
class ConfigState:
    """The config file: when it was last read well, and why the newest edit was not taken (empty: it was)."""

    path: Path
    loaded_at: int
    problems: Sequence[str] = ()


class Service:
    """told: called with each Report that ended."""

    def __init__(
        self, path: Path, config: Config, checkpoint: Checkpoint, clock: Clock, alarm: Alarm, launch: Launch, told: Callable[[Config, Report], None]
    ) -> None:
        self.checkpoint, self.clock, self._alarm, self._launch, self._told = checkpoint, clock, alarm, launch, told
        self._lock = threading.RLock()
        self._started_with = config
        self._config = config
        self._pool = Pool(config.workers)
        self._syncs: dict[str, Ledger] = {}
        self.config_state = ConfigState(path, clock.now())
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

    def wake(self, name: str) -> bool:
        """Start an incremental Run of this Sync as soon as a worker is free; False: one is due already, or follows the one that goes on."""
        with self._lock:
            added = name in self._syncs and self._pool.call(name)
            self._begin()
            return added

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
        stands = standing(self.checkpoint, report.sync, known.standing if known else None)
        with self._lock:
            self._pool.done(report.sync)
            config = self._config
            if sync := self._syncs.get(report.sync):
                sync.end(report, stands)
                self._plan(sync)
            self._begin()
        with about(report.sync, report.run_id):
            _log(report, sync, self.config_state.path)
        if sync:
            self._told(config, report)

    def tick(self) -> None:
        """Now and then, at least every few seconds: notices a clock that was set, and Runs that became long."""
        with self._lock:
            drift = self._offset()
            if abs(drift - self._drift) > JUMP:
                log.warning("the machine's clock was set by %+.0f s: every slot is planned anew", (drift - self._drift) / SECOND)
                self._alarm(_BEAT, self.clock.now())
                for sync in self._syncs.values():
                    self._plan(sync)
            self._drift = drift
            self._begin()

    def take(self, config: Config) -> None:
        """A config that is right: what is the same goes on as it is. Raises CheckpointError."""
        fresh = {name: standing(self.checkpoint, name) for name in config.syncs if name not in self._syncs}
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
            late = [key for key in _AT_START if getattr(config, key) != getattr(self._started_with, key)]
            problems = [f"`{key}` has changed: it is read at the start only, so restart syncd to use it" for key in late]
            self.config_state = replace(self.config_state, loaded_at=self.clock.now(), problems=problems)
            self._begin()
        if before:
            told = (("added", fresh), ("changed", changed), ("removed", gone))
            log.info("the config was read again: %s", "; ".join(f"{what} {', '.join(names)}" for what, names in told if names) or "no Sync changed")
        for problem in problems:
            log.warning("%s", problem)

    def refuse(self, error: ConfigError) -> None:
        """The newest config is not right: the one before it stays."""
        problems = [f"{p.file}:{p.line}:{p.column}: {p.message}" + (f" ({p.hint})" if p.hint else "") for p in error.problems]
        with self._lock:
            self.config_state = replace(self.config_state, problems=problems)
        for problem in problems:
            log.error("the config was not taken, the one before it stays: %s", problem)

    def _beat(self) -> None:
        """Alarms come, and prove it again soon."""
        self._beaten = self.clock.monotonic()
        self._alarm(_BEAT, self.clock.now() + _BEAT_EVERY)

    def _offset(self) -> int:
        return self.clock.now() - round(self.clock.monotonic() * SECOND)

    def _plan(self, sync: Ledger) -> None:
        if not self._pool.busy(sync.name):
            sync.slot = sync.next(self.clock.now())
            self._alarm(sync.name, sync.slot)
        elif sync.slot is None and sync.running_since is None:  # called during its Run, and waits for a worker again
            sync.slot = self.clock.now()

    def _begin(self) -> None:
        """Start the Runs that there is a place for."""
        if self._stopping:
            return
        for name in self._pool.take(self.clock.monotonic()):
            self._alarm(name, None)
            self._launch(self._config, name, self._syncs[name].begin(self.clock.now()))

    # what page, metrics and hooks ask

    def syncs(self) -> Sequence[Ledger]:
        """Every Sync of the config, in its order: copies, as they are now."""
        with self._lock:
            return [copy.copy(sync) for sync in self._syncs.values()]

    def sync(self, name: str) -> Ledger | None:
        """One of them."""
        with self._lock:
            return copy.copy(self._syncs.get(name))

    def queue(self) -> tuple[int, int]:
        """Runs that wait for a worker; Runs that go on."""
        with self._lock:
            return len(self._pool.waiting), len(self._pool.running)

    def alive(self) -> bool:
        """Whether Runs would begin when they are due; False: only a new process helps."""
        return self.clock.monotonic() - self._beaten < _DEAD

    def unready(self) -> Sequence[str]:
        """Why the daemon can't be relied on right now; empty: ready. The Checkpoint can't be read; or the last three Runs of a Sync failed, though it
        may only be its Source, Target or token that is amiss.
        """
        try:
            self.checkpoint.states("")
        except CheckpointError as error:
            return [str(error)]
        stuck = [(sync.name, sync.standing) for sync in self.syncs() if sync.standing.failed_in_a_row >= _GONE]
        return [f"{name}: its last {stands.failed_in_a_row} Runs failed: {stands.said('error')}" for name, stands in stuck]

    def count_hook(self, name: str, *, refused: bool) -> None:
        """Remember a hook call, for the metrics; of a Sync that there is not, nothing."""
        with self._lock:
            if found := self._syncs.get(name):
                found.totals["hooks_refused" if refused else "hooks"] += 1


def _log(report: Report, sync: Ledger | None, config: Path) -> None:
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
        log.warning("the Guard stopped the deletions: %s. If they are meant: %s", report.guard, command(config, report.sync, report.plan_id))
    if report.failed:
        first = report.failed[0]
        where = first.project if first.name is None else f"{first.project}/{first.name}"
        log.warning("%s failed, each Run tries them again; the first: %s: %s", f"{len(report.failed):,}", where, first.error)
