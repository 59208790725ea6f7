"""What the daemon remembers of one Sync between its Runs, and how it shows it. Asks nobody: the Checkpoint was asked once, after the last Run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from syncd.clock import SECOND
from syncd.config import Config, SyncConfig
from syncd.daemon.board import State, SyncView, Totals
from syncd.daemon.schedule import describe, next_slot
from syncd.fields import Fields
from syncd.model import Report, RunRecord, Status
from syncd.run.job import Progress
from syncd.run.standing import Standing

_LATE = 60 * SECOND  # a Run that is due longer than this, or goes on longer, leaves changes unsafe that the last one could not know
_ALIKE = ("bytes_written", "source_requests", "target_requests", "source_requests_failed", "target_requests_failed")  # in Report and Totals

Wiring = tuple[SyncConfig, Fields, Fields]


def wiring(config: Config, name: str) -> Wiring:
    """All that the config says of one Sync; equal when nothing changed, secrets included."""
    rules = config.syncs[name]
    return rules, config.sources[rules.source], config.targets[rules.target]


@dataclass(slots=True)
class Ledger:
    """wiring: its rules, Source and Target; slot: when the next Run is due, None while one goes on or when nothing is planned; since: when the one
    that goes on began; served: when the last Run began, or the slot it began for; mended: the config has changed since then; confirmed: the Plan
    whose deletions a person has allowed; given: the one that the last Run was told of.
    """

    name: str
    wiring: Wiring
    standing: Standing
    slot: int | None = None
    since: int | None = None
    progress: Progress | None = None
    served: int | None = field(init=False)
    mended: bool = False
    confirmed: str = ""
    given: str = ""
    totals: Totals = field(default_factory=lambda: Totals({status.value: 0 for status in Status}))

    def __post_init__(self) -> None:
        self.served = self.standing.tried

    @property
    def rules(self) -> SyncConfig:
        return self.wiring[0]

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
        self.slot, self.since, self.progress, self.mended, self.given = None, now, None, False, self.confirmed
        return self.given

    def end(self, report: Report, standing: Standing) -> None:
        """It has ended. A word is kept until it was heard: a Run that failed may not have come so far."""
        self.since, self.progress, self.standing = None, None, standing
        if report.status is not Status.FAILED and self.confirmed == self.given:
            self.confirmed = ""
        t, status = self.totals, report.status.value
        self.totals = replace(
            t,
            runs=t.runs | {status: t.runs[status] + 1},
            written=t.written + report.written + report.healed,
            deletions=t.deletions + report.trashed + report.deleted,
            failures=t.failures + len(report.failed),
            **{name: getattr(t, name) + getattr(report, name) for name in _ALIKE},
        )

    def count_hook(self, *, refused: bool) -> None:
        """A hook call came."""
        self.totals = replace(self.totals, hooks=self.totals.hooks + (not refused), hooks_refused=self.totals.hooks_refused + refused)

    def view(self, now: int) -> SyncView:
        """As the page shows it."""
        stands, last = self.standing, self.standing.ended
        return SyncView(
            name=self.name,
            source=self.rules.source,
            target=self.rules.target,
            schedule=describe(self.rules),
            state=State.RUNNING if self.since is not None else _state(last),
            last=last,
            next_at=None if self.slot is None or self.since is not None else max(self.slot, now),
            running_since=self.since,
            progress=self.progress,
            since=stands.since,
            lag=self._lag(now),
            collections=stands.collections,
            tasks=stands.tasks,
            failing=stands.failing,
            failed_in_a_row=stands.failed_in_a_row,
        )

    def _lag(self, now: int) -> float | None:
        if self.standing.unsafe is None:
            return None
        due, last = self.since or self.slot or now, self.standing.ended
        well = last is not None and last.status is Status.OK and now - due < _LATE
        return 0.0 if well else max(0, now - self.standing.unsafe) / SECOND

    def plan_id(self) -> str:
        """Of the Plan that the Guard holds back; empty: none."""
        return str(self.standing.ended.report.get("plan_id", "")) if self.standing.ended else ""


def _state(last: RunRecord | None) -> State:
    return State.NEVER if last is None or last.status is None else State(last.status.value)
