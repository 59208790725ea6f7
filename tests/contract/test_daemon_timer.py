"""The real APScheduler keeps the promises that the Service relies on, in real time."""

from __future__ import annotations

import datetime as dt
import queue
import threading
from collections.abc import Iterator

import apscheduler.schedulers.base
import pytest

from syncd.clock import SECOND, SystemClock
from syncd.daemon.timer import Timer

WAIT = 20.0  # seconds until a call that does not come counts as lost
HOUR = 3600 * SECOND


class Shifted(SystemClock):
    """A wall clock that somebody sets; the monotonic one goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = 0

    def now(self) -> int:
        return super().now() + self.shift


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Shifted:
    clock = Shifted()

    class Datetime(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Datetime:
            return cls.fromtimestamp(clock.now() / SECOND, tz)

    monkeypatch.setattr(apscheduler.schedulers.base, "datetime", Datetime)
    return clock


@pytest.fixture
def called(timer: Timer) -> queue.SimpleQueue[str]:
    called: queue.SimpleQueue[str] = queue.SimpleQueue()
    timer.start(called.put)
    return called


@pytest.fixture
def timer(clock: Shifted) -> Iterator[Timer]:
    del clock  # it must be set before
    timer = Timer()
    yield timer
    timer.close()


def test_two_thousand_that_are_due_together_all_come(timer: Timer, clock: Shifted, called: queue.SimpleQueue[str]) -> None:
    """APScheduler drops what is a second late, unless told otherwise."""
    names = {f"sync-{n}" for n in range(2000)}
    for name in names:
        timer.at(name, clock.now() - HOUR)
    assert {called.get(timeout=WAIT) for _ in names} == names
    assert called.empty()


def test_an_alarm_set_again_while_it_is_being_called_is_not_lost(timer: Timer, clock: Shifted) -> None:
    """By the thread that is called, and by another one: a Run that ends at once."""
    rounds, over = iter(range(300)), threading.Event()

    def due(name: str) -> None:
        number = next(rounds, None)
        if number is None:
            over.set()
        elif number % 2:
            timer.at(name, clock.now())
        else:
            threading.Thread(target=timer.at, args=(name, clock.now() - SECOND)).start()

    timer.start(due)
    timer.at("cats", clock.now())
    assert over.wait(WAIT)


def test_an_alarm_is_replaced_and_taken_away(timer: Timer, clock: Shifted, called: queue.SimpleQueue[str]) -> None:
    timer.at("cats", clock.now() + SECOND // 5)
    timer.at("cats", clock.now() + HOUR)
    timer.at("dogs", clock.now() + SECOND // 5)
    timer.at("dogs", None)
    timer.at("last", clock.now() + SECOND // 2)
    assert called.get(timeout=WAIT) == "last"


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
def test_after_the_clock_was_set_alarms_set_anew_come(jump: int, timer: Timer, clock: Shifted, called: queue.SimpleQueue[str]) -> None:
    timer.at("sleeps", clock.now() + SECOND // 2)  # the thread sleeps towards this one
    clock.shift = jump
    timer.at("sleeps", None)
    timer.at("cats", clock.now() + SECOND // 5)
    assert called.get(timeout=WAIT) == "cats"


def test_it_may_be_closed_while_alarms_go_off(clock: Shifted) -> None:
    """A traceback in its thread would fail this test."""
    for _ in range(30):
        timer, first = Timer(), threading.Event()
        timer.start(lambda _, first=first: first.set())  # type: ignore[misc]  # the event of this round
        for number in range(50):
            timer.at(f"sync-{number}", clock.now())
        assert first.wait(WAIT)
        timer.close()
