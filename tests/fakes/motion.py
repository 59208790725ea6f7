"""A daemon in fast motion: the real Service with a clock, alarms, Runs and a history that are moved by hand.

The alarms have APScheduler's two weaknesses (tests/contract/test_daemon_timer.py shows them on the real one): they sleep by the monotonic clock
towards a time of the wall clock, computed when they are set, and notice only when they wake that the wall clock is not there yet.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from syncd.checkpoint.base import Checkpoint
from syncd.clock import SECOND
from syncd.config import Config, SyncConfig
from syncd.daemon.ledger import Ledger
from syncd.daemon.service import Service
from syncd.fields import Fields
from syncd.model import CollectionState, Failure, Kind, Report, RunRecord, Status

START = 1_790_000_000 * SECOND


class Clock:
    """Wall and monotonic time, apart from each other."""

    def __init__(self) -> None:
        self.wall = START
        self.seconds = 1000.0

    def now(self) -> int:
        return self.wall

    def monotonic(self) -> float:
        return self.seconds

    def wait(self, seconds: float) -> None:
        raise AssertionError("nothing in the Service waits")


class History:
    """The few things that the daemon asks a Checkpoint, in memory."""

    def __init__(self) -> None:
        self.past: dict[str, list[RunRecord]] = defaultdict(list)

    def runs(self, sync: str, limit: int) -> list[RunRecord]:
        return self.past[sync][: -limit - 1 : -1]

    def states(self, sync: str) -> Mapping[str, CollectionState]:
        return {}

    def failures(self, sync: str, limit: int = -1) -> list[Failure]:
        return []

    def add(self, report: Report, at: int) -> None:
        said = {"error": report.error, "exit_code": report.exit_code, "plan_id": report.plan_id}
        record = RunRecord(report.sync, report.run_id, report.kind, report.started_at, at, report.status, said)
        self.past[report.sync].append(record)


@dataclass(frozen=True)
class Run:
    """One Run as it happened."""

    sync: str
    wall: int
    seconds: float
    confirmed: str = ""


@dataclass
class Motion:
    """The world around one Service."""

    config: Config
    duration: Callable[[str], float] = lambda _: 1.0
    status: Callable[[str], Status] = lambda _: Status.OK
    clock: Clock = field(default_factory=Clock)
    history: History = field(default_factory=History)
    runs: list[Run] = field(default_factory=list)
    told: list[Report] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._numbers = itertools.count()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._armed: dict[str, tuple[int, int]] = {}
        self._going: dict[str, int] = {}
        self.start()

    def start(self) -> None:
        """A new process on the same Checkpoint."""
        checkpoint = cast("Checkpoint", self.history)
        self.service = Service(
            Path("syncd.yaml"), self.config, checkpoint, self.clock, self.at, self._launch, lambda _, report: self.told.append(report)
        )
        self.service.start()

    def stop(self) -> None:
        """Every Run that goes on is interrupted and recorded."""
        self._armed.clear()
        for name, number in self._going.items():
            run = self.runs[number]
            self.history.add(
                Report(name, str(number), Kind.FULL, Status.FAILED, started_at=run.wall, error="interrupted", exit_code=130), self.clock.now()
            )
        self._going.clear()

    # Alarms

    def at(self, name: str, slot: int | None) -> None:
        self._armed.pop(name, None)
        if slot is not None:
            number = next(self._numbers)
            self._armed[name] = (slot, number)
            self._sleep(name, slot, number)

    def _sleep(self, name: str, slot: int, number: int) -> None:
        self.later(max(0.0, (slot - self.clock.wall) / SECOND), lambda: self._wake(name, slot, number))

    def _wake(self, name: str, slot: int, number: int) -> None:
        if self._armed.get(name) != (slot, number):
            return
        if self.clock.wall < slot:
            self._sleep(name, slot, number)
            return
        del self._armed[name]
        self.service.due(name)

    # Runs

    def _launch(self, config: Config, name: str, confirm_deletes: str) -> None:
        assert name not in self._going, f"{name} runs twice at a time"
        number = len(self.runs)
        self._going[name] = number
        self.runs.append(Run(name, self.clock.wall, self.clock.seconds, confirm_deletes))
        self.later(self.duration(name), lambda: self._end(name, number))

    def _end(self, name: str, number: int) -> None:
        if self._going.get(name) != number:  # its process is gone
            return
        del self._going[name]
        run = self.runs[number]
        status = self.status(name)
        error = "down" if status is Status.FAILED else ""
        report = Report(name, str(number), Kind.INCREMENTAL, status, started_at=run.wall, error=error, exit_code=int(bool(error)))
        self.history.add(report, self.clock.now())
        self.service.ended(report)

    # time

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.clock.seconds + seconds, next(self._numbers), act))

    def every(self, seconds: float, act: Callable[[], None]) -> None:
        def again() -> None:
            act()
            self.later(seconds, again)

        self.later(seconds, again)

    def go(self, seconds: float) -> None:
        """Let time pass."""
        until = self.clock.seconds + seconds
        while self._queue and self._queue[0][0] <= until:
            moment, _, act = heapq.heappop(self._queue)
            self._pass(moment)
            act()
        self._pass(until)

    def _pass(self, moment: float) -> None:
        passed = max(0.0, moment - self.clock.seconds)
        self.clock.wall += round(passed * SECOND)
        self.clock.seconds += passed

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self.clock.wall += round(seconds * SECOND)

    def view(self, name: str) -> Ledger:
        found = self.service.sync(name)
        assert found is not None
        return found

    def of(self, name: str) -> list[Run]:
        return [run for run in self.runs if run.sync == name]


def config(syncs: Mapping[str, Mapping[str, Any]], workers: int = 4) -> Config:
    """A config of Syncs with these rules; Sources and Targets are blank."""
    rules = {name: SyncConfig.model_validate({"source": "s", "target": "t", **given}) for name, given in syncs.items()}
    return Config.model_construct(sources={"s": Fields()}, targets={"t": Fields()}, syncs=rules, state=Path("state"), workers=workers, http=None)
