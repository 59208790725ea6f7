"""The pure parts of the daemon: when a Run is due, and who may run."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from syncd.clock import SECOND, format_time, parse_time
from syncd.config import SyncConfig
from syncd.daemon.pool import LONG, Pool
from syncd.daemon.schedule import describe, next_slot

NOW = parse_time("2026-11-20T15:00:00Z")
EVERY = st.floats(0.5, 7 * 86400.0)
NAMES = st.text("abc-", min_size=1, max_size=5)
MOMENTS = st.integers(NOW - 10**13, NOW + 10**13)


def rules(**given: Any) -> SyncConfig:
    return SyncConfig.model_validate({"source": "s", "target": "t", **given})


def slot(name: str, every: float, last: int | None, now: int, failed: int = 0) -> int:
    found = next_slot(name, rules(every=every), last, failed, now)
    assert found is not None
    return found


def test_without_a_schedule_nothing_is_due() -> None:
    assert next_slot("cats", rules(), None, 0, NOW) is None
    assert describe(rules()) == "no schedule"


def test_a_sync_that_never_ran_is_due_now_but_cron_keeps_its_times() -> None:
    assert slot("cats", 3600.0, None, NOW) == NOW
    nightly = rules(cron="0 3 * * *")
    first = next_slot("cats", nightly, None, 0, NOW)
    assert first is not None
    assert first > NOW
    assert (describe(nightly), describe(rules(every=90.0))) == ("cron 0 3 * * *", "every 90s")


def test_what_cron_missed_while_the_daemon_was_down_is_due_now() -> None:
    missed = next_slot("cats", rules(cron="0 * * * *"), NOW - 3 * 3600 * SECOND, 0, NOW)
    assert missed is not None
    assert missed < NOW


@given(NAMES, EVERY, MOMENTS, st.integers(0, 10**12))
def test_the_next_slot_is_at_most_one_period_after_the_last_start(name: str, every: float, last: int, passed: int) -> None:
    assert 0 < slot(name, every, last, last + passed) - last <= round(every * SECOND)


@given(NAMES, EVERY, MOMENTS, st.integers(0, 10**6))
def test_slots_lie_on_one_grid_however_late_runs_begin(name: str, every: float, last: int, late: int) -> None:
    whole = round(every * SECOND)
    first = slot(name, every, last, last)
    after = slot(name, every, first + late % whole, first + late % whole)
    assert after - first == whole


@given(NAMES, EVERY, MOMENTS, st.integers(3 * SECOND, 10**14))
def test_a_clock_that_was_set_back_delays_nothing_by_more_than_a_period(name: str, every: float, now: int, ahead: int) -> None:
    assert slot(name, every, now + ahead, now) - now <= round(every * SECOND)


@given(NAMES, EVERY, MOMENTS, st.integers(1, 200))
def test_the_pause_grows_and_never_beyond_an_hour_or_the_period(name: str, every: float, last: int, failed: int) -> None:
    pauses = [slot(name, every, last, last, n) - last for n in (failed, failed + 1)]
    assert pauses[0] <= pauses[1] <= (max(every, 3600.0) + every) * SECOND
    assert slot(name, every, last, last, 1) == slot(name, every, last, last, 0)


def test_the_pause_doubles() -> None:
    pauses = [round((slot("cats", 60.0, NOW, NOW, failed) - NOW) / (60 * SECOND)) for failed in range(9)]
    assert [later - sooner for sooner, later in itertools.pairwise(pauses)] == [0, 1, 2, 4, 8, 16, 28, 0]


def test_five_hundred_syncs_are_spread_over_the_period() -> None:
    slots = sorted((slot(f"sync-{n}", 600.0, NOW, NOW) - NOW) // (60 * SECOND) for n in range(500))
    counts = [slots.count(minute) for minute in range(10)]
    assert (sum(counts), min(counts) > 25, max(counts) < 80) == (500, True, True)


@pytest.mark.parametrize("failed", [0, 5])
def test_cron_after_failures(failed: int) -> None:
    found = next_slot("cats", rules(cron="* * * * *"), NOW, failed, NOW)
    assert found is not None
    assert format_time(found)[11:16] == ("15:01" if failed == 0 else "15:16")


class PoolMachine(RuleBasedStateMachine):
    """Any order of calls, ends and time: the promises of the Pool hold."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(2)
        self.now = 0.0
        self.asked: list[str] = []
        self.begun: list[str] = []

    @rule(name=st.sampled_from("abcdefg"))
    def call(self, name: str) -> None:
        busy = self.pool.busy(name)
        assert self.pool.call(name) is not busy
        if not busy:
            self.asked.append(name)

    @rule()
    def take(self) -> None:
        free = len(self.pool.running) - len(self.pool.long) < self.pool.workers
        waiting = list(self.pool.waiting)
        taken = self.pool.take(self.now)
        assert taken == waiting[: len(taken)]
        assert taken or not (free and waiting)

    @rule(seconds=st.floats(0, 100))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(workers=st.integers(1, 4))
    def resize(self, workers: int) -> None:
        self.pool.workers = workers

    @precondition(lambda self: self.pool.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.pool.running)))
        again = name in self.pool.again
        self.pool.done(name)
        assert self.pool.busy(name) is again

    @rule(name=st.sampled_from("abcdefg"))
    def forget(self, name: str) -> None:
        self.pool.forget(name)
        assert name not in self.pool.waiting

    @invariant()
    def one_run_each_and_no_more_than_twice_the_workers(self) -> None:
        assert not set(self.pool.waiting) & set(self.pool.running)
        assert len(set(self.pool.waiting)) == len(self.pool.waiting)
        assert self.pool.long <= set(self.pool.running)
        assert len(self.pool.running) <= 2 * 4


TestPool = PoolMachine.TestCase


def test_a_long_run_frees_its_place_but_only_as_many_as_there_are_workers() -> None:
    pool = Pool(1)
    for name in "abc":
        pool.call(name)
    assert (pool.take(0), pool.take(LONG - 1), pool.take(LONG)) == (["a"], [], ["b"])
    assert pool.take(3 * LONG) == []  # both lanes are full
    pool.done("a")
    assert pool.take(3 * LONG) == ["c"]
