"""A Service whose answers a test writes down, and a sample of every state that the page can show.

It runs nothing: `wake` and `count_hook` only remember.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

from syncd.checkpoint.base import Checkpoint
from syncd.clock import SECOND, SystemClock, parse_time
from syncd.config import SyncConfig
from syncd.daemon.ledger import Ledger, State
from syncd.daemon.service import ConfigState, Service
from syncd.fields import Fields, Secret
from syncd.model import Failure, Kind, RunRecord, Status
from syncd.run.job import Progress
from syncd.run.standing import Standing

NOW = parse_time("2026-11-20T12:00:00Z")
MINUTE = 60 * SECOND
HOSTILE = "<script>alert(1)</script>"
SECRET = "s3cret-of-the-hook"


class Still(SystemClock):
    """Stands at NOW until it is moved."""

    def __init__(self) -> None:
        super().__init__()
        self.micros = NOW

    def now(self) -> int:
        return self.micros


@dataclass
class FakeService(Service):
    """Ledgers are looked up by name; the rest may be changed at will."""

    ledgers: Sequence[Ledger] = ()
    histories: Mapping[str, Sequence[RunRecord]] = field(default_factory=dict)
    failing: Mapping[str, Sequence[Failure]] = field(default_factory=dict)
    config_state: ConfigState = field(default_factory=lambda: ConfigState(Path("/etc/syncd/syncd.yaml"), NOW - 60 * MINUTE))
    waiting: tuple[int, int] = (0, 1)
    reasons: Sequence[str] = ()
    living: bool = True
    clock: Still = field(default_factory=Still)
    woken: list[str] = field(default_factory=list)
    taken: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.checkpoint = cast("Checkpoint", self)

    def syncs(self) -> Sequence[Ledger]:
        return self.ledgers

    def sync(self, name: str) -> Ledger | None:
        return next((one for one in self.ledgers if one.name == name), None)

    def runs(self, name: str, limit: int) -> Sequence[RunRecord]:
        return self.histories.get(name, ())[:limit]

    def failures(self, name: str, limit: int) -> Sequence[Failure]:
        return self.failing.get(name, ())[:limit]

    def queue(self) -> tuple[int, int]:
        return self.waiting

    def alive(self) -> bool:
        return self.living

    def unready(self) -> Sequence[str]:
        return self.reasons

    def wake(self, name: str) -> bool:
        self.woken.append(name)
        return self.woken.count(name) == 1

    def count_hook(self, name: str, *, refused: bool) -> None:
        (self.refused if refused else self.taken)[name] += 1


def run(name: str, status: Status | None = Status.OK, *, ago: int = 1, took: float = 1.4, **report: object) -> RunRecord:
    """A Run that started `ago` minutes before NOW, as the Checkpoint tells of it."""
    started = NOW - ago * MINUTE
    counts = dict.fromkeys(("written", "healed", "trashed", "deleted", "bytes_written", "failed_count"), 0)
    told = {"unchanged": 12, "seconds": took, "error": "", "guard": "", **counts, **report}
    ended = None if status is None else started + int(took * SECOND)
    return RunRecord(name, f"{started}-1", Kind.INCREMENTAL, started, ended, status, {} if status is None else told)


def ledger(
    name: str, state: State = State.OK, last: RunRecord | None = None, *, lag: float = 0.0, secret: str | None = None, **changes: object
) -> Ledger:
    """A Sync whose fields are as that state leaves them, but for `changes`: its next and its present Run, or fields of its Standing."""
    never = state is State.NEVER
    if last is None and not never:
        last = run(name, Status.OK if state is State.RUNNING else Status(state.value))
    slot = cast("int | None", changes.pop("slot", None if state is State.RUNNING else NOW + MINUTE // 2))
    since = cast("int | None", changes.pop("running_since", NOW if state is State.RUNNING else None))
    progress = cast("Progress | None", changes.pop("progress", None))
    usual = {"since": NOW - MINUTE, "unsafe": NOW - round(lag * SECOND), "collections": 3, "tasks": 12_480}
    standing = Standing(last, last, **({} if never else usual) | changes)  # type: ignore[arg-type]  # fields by name
    every, proof = None if slot is None and never else 60.0, None if secret is None else Secret(secret)
    rules = SyncConfig(source="studio", target="bucket", every=every, hook_secret=proof)
    return Ledger(name, (rules, Fields(), Fields()), standing, slot, since, progress)


def history(name: str, length: int = 24, bad: Sequence[int] = (), status: Status = Status.FAILED) -> list[RunRecord]:
    """So many Runs, newest first, of which those numbered `bad` did not end ok."""
    sizes = (0, 3, 0, 40, 7, 0, 950, 2, 12, 0, 1)
    made = []
    for n in range(length):
        ended = status if n in bad else Status.OK
        written = sizes[(n + len(name)) % len(sizes)]
        made.append(run(name, ended, ago=1 + n * 5, written=written, bytes_written=written * 2300, took=0.4 + written / 30))
    return made


def sample(extra: int = 0) -> FakeService:
    """One Sync of each state, one with a hostile name, and `extra` good ones."""
    guard = "1204 of 1250 tasks of Collection 12 are gone, more than the 62 that max_delete allows"
    guarded = run("street-scenes", Status.GUARDED, guard=guard, plan_id="9f3c1a7be02d", exit_code=20)
    token = "studio: 401 for https://studio.example.com: the token is refused; make a new one and put it into the config"
    refused = run("xray-chest", Status.FAILED, ago=3, error=token)
    some = run("invoices", Status.PARTIAL, failed_count=3, written=40)
    part = Failure("1", None, "page 3 broke off: <i>")
    hostile = run(HOSTILE, Status.FAILED, error=f"project {HOSTILE} can't be read: <img src=x onerror=alert(2)>", failed=[asdict(part)])
    progress = Progress("31", "Satellite tiles 2026", 1_000_000, 412_300, 411_950, 0, 1_900_000_000)
    ledgers = [
        ledger("cats", secret=SECRET),
        ledger("street-scenes", State.GUARDED, guarded, lag=60.0),
        ledger(
            "satellite",
            State.RUNNING,
            run("satellite", ago=70),
            running_since=NOW - 9 * MINUTE,
            progress=progress,
            lag=4_200.0,
            since=NOW - 70 * MINUTE,
        ),
        ledger("xray-chest", State.FAILED, refused, failed_in_a_row=7, lag=2_520.0, since=NOW - 42 * MINUTE),
        ledger("invoices", State.PARTIAL, some, failing=3, lag=900.0, since=NOW - 15 * MINUTE),
        ledger("new-project", State.NEVER),
        ledger("on-call", State.NEVER, slot=None),
        ledger(HOSTILE, State.FAILED, hostile, secret=SECRET, failing=2, lag=180.0, since=NOW - 3 * MINUTE, failed_in_a_row=1),
        *(ledger(f"team-{n:03}.images", tasks=n * 37) for n in range(extra)),
    ]
    bad = {"street-scenes": (0, 1), "xray-chest": tuple(range(7)), "invoices": (0,), HOSTILE: (0, 3)}
    ends = {"street-scenes": Status.GUARDED, "invoices": Status.PARTIAL}
    histories = {
        v.name: [v.standing.ended, *history(v.name, bad=bad.get(v.name, ()), status=ends.get(v.name, Status.FAILED))[1:]]
        for v in ledgers
        if v.standing.ended
    }
    failing = {
        "invoices": [Failure("7", str(n), "the Target answered 403 for this key: AccessDenied", about=None) for n in (1041, 1042, 2207)],
        HOSTILE: [Failure("1", HOSTILE, "<b>not text</b>")],
    }
    return FakeService(ledgers, histories, failing)
