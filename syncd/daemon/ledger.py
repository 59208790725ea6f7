"""What the daemon remembers of one Sync between its Runs, and what the page, the metrics and the hooks show of it.

Asks nobody: the Checkpoint was asked once, after the last Run. Times are microseconds since 1970 UTC.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from syncd.clock import SECOND
from syncd.config import Config, SyncConfig
from syncd.daemon.schedule import next_slot
from syncd.fields import Fields
from syncd.model import Report, Status
from syncd.run.job import Progress
from syncd.run.standing import Standing

_LATE = 60 * SECOND  # a Run that is due longer than this, or goes on longer, leaves changes unsafe that the last one could not know

Wiring = tuple[SyncConfig, Fields, Fields]


class State(StrEnum):
    """What a Sync is doing, or how its last Run left it."""

    NEVER = "never"  # no Run has ended yet
    RUNNING = "running"
    OK = "ok"
    PARTIAL = "partial"
    FAILED = "failed"
    GUARDED = "guarded"


def wiring(config: Config, name: str) -> Wiring:
    """All that the config says of one Sync; equal when nothing changed, secrets included."""
    rules = config.syncs[name]
    return rules, config.sources[rules.source], config.targets[rules.target]


@dataclass(slots=True)
class Ledger:
    """wiring: its rules, Source and Target; slot: when the next Run is due, None while one goes on or when nothing is planned; running_since: when
    the one that goes on began; served: when the last Run began, or the slot it began for; mended: the config has changed since then; confirmed: the
    Plan whose deletions a person has allowed; given: the one that the last Run was told of; totals: since the process started, named as in `metrics`.
    """

    name: str
    wiring: Wiring
    standing: Standing
    slot: int | None = None
    running_since: int | None = None
    progress: Progress | None = None
    served: int | None = field(init=False)
    mended: bool = False
    confirmed: str = ""
    given: str = ""
    totals: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.served = self.standing.tried

    @property
    def rules(self) -> SyncConfig:
        return self.wiring[0]

    @property
    def left(self) -> State:
        """How the last Run left it."""
        return State(self.standing.ended.status.value) if self.standing.ended and self.standing.ended.status else State.NEVER

    @property
    def state(self) -> State:
        return self.left if self.running_since is None else State.RUNNING

    def rewire(self, wiring: Wiring) -> bool:
        """Whether that is another one; it counts from the next Run on."""
        changed, self.wiring = self.wiring != wiring, wiring
        self.mended |= changed
        return changed

    def next(self, now: int) -> int | None:
        """When it is due: at once when the last Run failed before the config was changed, which may have mended it."""
        failed = self.standing.failed_in_a_row
        return now if self.mended and failed else next_slot(self.name, self.rules, self.served, failed, now)

    def begin(self, now: int) -> str:
        """A Run begins; the Plan that is confirmed for it."""
        self.served = now if self.slot is None else max(now, self.slot)
        self.slot, self.running_since, self.progress, self.mended, self.given = None, now, None, False, self.confirmed
        return self.given

    def end(self, report: Report, standing: Standing) -> None:
        """It has ended. A word is kept until it was heard: a Run that failed may not have come so far."""
        self.running_since, self.progress, self.standing = None, None, standing
        if report.status is not Status.FAILED and self.confirmed == self.given:
            self.confirmed = ""
        self.totals.update({
            f"runs {report.status}": 1,
            "tasks_written": report.written + report.healed,
            "bytes_written": report.bytes_written,
            "deletions": report.trashed + report.deleted,
            "failures": len(report.failed),
            "source_requests ok": report.source_requests - report.source_requests_failed,
            "source_requests failed": report.source_requests_failed,
            "target_requests ok": report.target_requests - report.target_requests_failed,
            "target_requests failed": report.target_requests_failed,
        })  # fmt: skip

    def lag(self, now: int) -> float | None:
        """Seconds that the oldest change not yet safe waits already, at most; 0: the last Run ended ok and none is overdue; None: there was none."""
        if self.standing.unsafe is None:
            return None
        due = self.running_since or self.slot or now
        well = self.left is State.OK and now - due < _LATE
        return 0.0 if well else max(0, now - self.standing.unsafe) / SECOND
