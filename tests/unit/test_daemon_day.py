"""A day in fast motion: 500 Syncs, failures, reloads, a restart, a clock set both ways. Each slot is run once, nobody starves, nothing runs twice."""

from __future__ import annotations

import itertools
import random
from hashlib import blake2b

import pytest

from syncd.clock import SECOND
from syncd.daemon.ledger import State
from syncd.errors import ConfigError, Problem
from syncd.model import Status
from tests.fakes.motion import Motion, Run, config

HOUR = 3600.0
EVERY = (600.0, 1200.0, 1800.0, HOUR)
LATE = 120.0  # seconds a Run may wait for a worker: all are due at the start


def cell(run: Run, every: float) -> int:
    """The number of the slot that the start of this Run falls to; computed here on its own."""
    whole = round(every * SECOND)
    return (run.wall - int.from_bytes(blake2b(run.sync.encode(), digest_size=8).digest()) % whole) // whole


def test_a_day_with_500_syncs() -> None:
    random_ = random.Random(20261120)
    rules = {f"sync-{n}": {"every": EVERY[n % 4]} for n in range(500)}
    huge, failing = {"sync-3", "sync-7", "sync-11"}, {f"sync-{n}" for n in range(400, 420)}
    edited = {f"sync-{n}" for n in range(480, 500)}
    down = False
    seen: set[str] = set()

    def duration(name: str) -> float:
        first = name not in seen
        seen.add(name)
        return 5 * HOUR if first and name in huge else random_.uniform(0.2, 3)

    world = Motion(config(rules, workers=8), duration=duration, status=lambda name: Status.FAILED if down and name in failing else Status.OK)
    world.every(2.0, world.service.tick)
    worlds = itertools.cycle([
        config({name: rule | {"overlap": 0.0} if name in edited else rule for name, rule in rules.items()}, workers=8),
        config(rules | {f"guest-{n}": {"every": 300.0} for n in range(10)}, workers=8),
    ])  # fmt: skip
    world.every(0.4 * HOUR, lambda: world.service.take(next(worlds)))
    begun = world.clock.seconds
    world.go(3 * HOUR)
    jumps = []
    for step in (HOUR, -HOUR, 0.4, -0.4, 30.0, -30.0, 90.0, -7 * HOUR):  # small ones are corrections, not jumps
        jumps.append(world.clock.seconds)
        world.jump(step)
        world.go(0.5 * HOUR)
    down, outage = True, world.clock.seconds
    world.go(4 * HOUR)
    down, mended = False, world.clock.seconds
    world.go(3 * HOUR)
    world.stop()
    stopped = world.clock.seconds
    world.go(600)
    world.start()
    world.go(begun + 24 * HOUR - world.clock.seconds)

    assert len(world.runs) > 500 * 50
    assert len(world.of("guest-0")) > 100
    by_name = {name: list(runs) for name, runs in itertools.groupby(sorted(world.runs, key=lambda run: run.sync), lambda run: run.sync)}  # in order
    for name, rule in rules.items():
        every, runs = rule["every"], by_name[name]
        for before, after in itertools.pairwise(runs):
            gap, between = after.seconds - before.seconds, (before.seconds, after.seconds)
            jumped = any(between[0] <= jump <= between[1] for jump in jumps)
            restarted = between[0] <= stopped <= between[1]
            if name in failing and between[1] > outage and between[0] < mended + LATE:
                assert gap <= max(every, HOUR) + every + LATE, (name, between)
                continue
            if name in huge and gap >= 5 * HOUR:
                continue  # its own first Run
            assert gap <= every * (1 + jumped) + LATE + 600 * restarted, (name, between)  # the grid of slots moves with the clock
            if not jumped and not restarted:
                assert cell(after, every) - cell(before, every) == 1, (name, between)
        assert runs[0].seconds - begun < 10 * LATE
        assert begun + 24 * HOUR - runs[-1].seconds <= every + LATE
    tries = [run for run in world.runs if run.sync == "sync-400" and outage < run.seconds < mended]
    assert len(tries) <= 9  # of 24 slots: the pause grew


@pytest.fixture
def world() -> Motion:
    world = Motion(config({"cats": {"every": 60.0}, "dogs": {"every": 60.0}, "idle": {}}))
    world.every(0.5, world.service.tick)
    return world


def lag(world: Motion, name: str) -> float | None:
    return world.view(name).lag(world.clock.now())


def names(world: Motion, since: float) -> set[str]:
    return {run.sync for run in world.runs if run.seconds >= since}


def test_a_sync_without_schedule_runs_only_when_called(world: Motion) -> None:
    world.go(600)
    assert world.of("idle") == []
    assert (world.service.wake("idle"), world.service.wake("idle"), world.service.wake("nobody")) == (True, False, False)
    world.go(600)
    assert len(world.of("idle")) == 2  # the second call came during the first Run


def test_calls_while_it_waits_are_one(world: Motion) -> None:
    world.duration = lambda _: 30.0
    for name in ("cats", "dogs"):
        world.service.wake(name)
    world.service.take(config({name: {} for name in ("cats", "dogs", "one", "two", "idle")}, workers=4))
    for name in ("one", "two", "idle", "idle", "idle"):
        world.service.wake(name)
    assert world.service.queue() == (1, 4)
    world.go(300)
    assert len(world.of("idle")) == 1


def test_a_call_during_the_pause_after_failures_runs_now_and_success_ends_the_pause(world: Motion) -> None:
    world.status = lambda name: Status.FAILED if name == "cats" else Status.OK
    world.go(4 * HOUR)
    assert world.view("cats").standing.failed_in_a_row > 5
    assert any("cats" in reason for reason in world.service.unready())
    world.status = lambda _: Status.OK
    world.service.wake("cats")
    world.go(2)
    view = world.view("cats")
    assert (view.state, view.standing.failed_in_a_row, (view.slot or 0) - world.clock.wall <= 60 * SECOND) == (State.OK, 0, True)
    assert world.service.unready() == []


def test_a_new_config_touches_only_what_it_changes(world: Motion) -> None:
    world.duration = lambda _: 5.0
    world.go(300)
    slot = world.view("dogs").slot
    now = world.clock.seconds
    world.service.take(config({"dogs": {"every": 60.0}, "cats": {"every": 10.0}, "new": {"every": HOUR}}))
    assert world.view("dogs").slot == slot
    assert world.service.sync("idle") is None
    world.go(30)
    assert len([run for run in world.of("cats") if run.seconds >= now]) >= 2
    assert len(world.of("new")) == 1
    now = world.clock.seconds
    world.service.take(config({"dogs": {"every": 60.0}}))
    world.go(120)
    assert names(world, now) == {"dogs"}


def test_a_sync_that_is_removed_and_comes_back_during_its_run_runs_once_at_a_time(world: Motion) -> None:
    world.duration = lambda _: 100.0
    world.go(10)
    world.service.take(config({"dogs": {"every": 60.0}}))
    world.go(10)
    world.service.take(config({"dogs": {"every": 60.0}, "cats": {"every": 10.0}}))
    world.go(400)
    gaps = [later.seconds - sooner.seconds for sooner, later in itertools.pairwise(world.of("cats"))]
    assert min(gaps) >= 100
    assert len(gaps) >= 3


def test_a_sync_that_was_called_during_its_run_and_waits_for_a_worker_is_late() -> None:
    """What it was called for is not safe, however long the others keep every worker."""
    world = Motion(config({"cats": {"every": HOUR}}, workers=1), duration=lambda name: 5.0 if name == "cats" else 5 * HOUR)
    world.every(2.0, world.service.tick)
    world.go(2)
    world.service.take(config({name: {"every": HOUR} for name in ("cats", "long", "longer")}, workers=1))
    world.go(1)
    world.service.wake("cats")
    world.go(600)
    cats = world.view("cats")
    assert (len(world.of("cats")), world.service.queue()) == (1, (1, 2))
    assert cats.slot is not None, "or the page says that it has no schedule"
    assert (cats.lag(world.clock.now()) or 0) > 500
    world.go(6 * HOUR)
    assert len(world.of("cats")) >= 2


@pytest.mark.parametrize("during", [False, True], ids=["after its Run", "during its Run"])
def test_a_changed_sync_whose_run_failed_is_tried_at_once(during: bool) -> None:
    """Whoever mends a token does not wait a day."""
    world = Motion(config({"cats": {"every": 24 * HOUR}, "dogs": {"every": 24 * HOUR}}), duration=lambda _: 60.0, status=lambda _: Status.FAILED)
    world.go(30 if during else 90)
    world.service.take(config({"cats": {"every": 24 * HOUR, "overlap": 0.0}, "dogs": {"every": 24 * HOUR}}))
    world.go(60)
    assert [len(world.of(name)) for name in ("cats", "dogs")] == [2, 1]
    world.go(HOUR)
    assert len(world.of("cats")) == 2  # once


def test_a_changed_sync_that_is_well_keeps_its_times(world: Motion) -> None:
    world.go(100)
    slot = world.view("cats").slot
    world.service.take(config({"cats": {"every": 60.0, "overlap": 0.0}, "dogs": {"every": 60.0}}))
    assert world.view("cats").slot == slot


def test_a_word_is_kept_until_a_run_could_heed_it(world: Motion) -> None:
    """The Source is away just when somebody confirms deletions."""
    world.go(10)
    world.duration, world.status = lambda _: 5.0, lambda _: Status.FAILED
    world.service.confirm("cats", "plan-1")
    world.go(2)
    world.service.confirm("cats", "plan-2")  # the Run that goes on was not told of this one
    world.go(9)
    world.status = lambda _: Status.OK
    world.go(300)
    assert [run.confirmed for run in world.of("cats")][:4] == ["", "plan-1", "plan-2", "plan-2"]
    assert {run.confirmed for run in world.of("cats")[4:]} == {""}


def test_a_broken_config_changes_nothing_and_says_so(world: Motion) -> None:
    world.service.refuse(ConfigError([Problem("syncd.yaml", 3, 7, "unknown key", "did you mean that?")]))
    assert world.service.config_state.problems == ["syncd.yaml:3:7: unknown key (did you mean that?)"]
    now = world.clock.seconds
    world.go(62)
    assert names(world, now) == {"cats", "dogs"}
    world.service.take(world.config)
    assert world.service.config_state.problems == []


def test_what_is_read_at_the_start_only_says_so(world: Motion) -> None:
    moved = world.config.model_copy(update={"state": world.config.state / "elsewhere", "workers": 1})
    world.service.take(moved)
    assert world.service.config_state.problems == ["`state` has changed: it is read at the start only, so restart syncd to use it"]


def test_huge_first_runs_leave_room_for_the_others() -> None:
    """As many as there are workers; twice as many would fill both lanes."""
    rules = {f"huge-{n}": {"every": HOUR} for n in range(4)} | {f"small-{n}": {"every": 60.0} for n in range(20)}
    world = Motion(config(rules), duration=lambda name: 10 * HOUR if name.startswith("huge") else 1.0)
    world.every(0.5, world.service.tick)
    world.go(HOUR)
    assert all(len(world.of(f"small-{n}")) >= 57 for n in range(20))
    assert world.service.queue()[1] >= 4


def test_a_target_that_never_answers_delays_the_others_by_seconds() -> None:
    """Each of its Runs takes a minute to fail; with one worker the other Sync would wait as long."""
    rules = {"silent": {"every": 1.0}, "cats": {"every": 10.0}}
    silent = {"duration": lambda name: 60.0 if name == "silent" else 0.5, "status": lambda name: Status.FAILED if name == "silent" else Status.OK}
    world = Motion(config(rules, workers=1), **silent)  # type: ignore[arg-type]  # as named
    world.every(0.5, world.service.tick)
    world.go(600)
    runs = world.of("cats")
    assert max(later.seconds - sooner.seconds for sooner, later in itertools.pairwise(runs)) <= 22
    assert len(runs) >= 50


def test_a_restart_goes_on_where_the_schedule_was(world: Motion) -> None:
    world.go(290)
    slots = {name: world.view(name).slot for name in ("cats", "dogs")}
    world.stop()
    world.start()
    assert {name: world.view(name).slot for name in ("cats", "dogs")} == slots


def test_an_interrupted_run_goes_on_at_once_and_is_no_failure() -> None:
    world = Motion(config({"cats": {"every": 24 * HOUR}}), duration=lambda _: 3 * HOUR)
    world.go(HOUR)
    world.stop()
    world.start()
    world.go(1)
    assert len(world.of("cats")) == 2
    assert world.view("cats").standing.failed_in_a_row == 0


def test_lag_is_nothing_while_all_is_well_and_grows_when_not(world: Motion) -> None:
    assert lag(world, "cats") is None
    world.go(100)
    assert lag(world, "cats") == 0
    world.status = lambda _: Status.FAILED
    world.go(600)
    assert (lag(world, "cats") or 0) > 500
    view = world.view("cats")
    assert (view.state, (view.standing.since or 0) < world.clock.wall - 500 * SECOND) == (State.FAILED, True)


def test_lag_does_not_shrink_however_many_runs_went_wrong(world: Motion) -> None:
    """Else an alarm ends by itself while nothing is safe: the history looked at is shorter than the trouble. A restart forgets a part at most."""
    world.go(100)
    world.status = lambda name: Status.PARTIAL if name == "cats" else Status.FAILED
    world.go(5 * HOUR)
    assert all((lag(world, name) or 0) > 5 * HOUR - 100 for name in ("cats", "dogs"))
    assert world.view("cats").standing.since is not None
    world.stop()
    world.start()
    assert (lag(world, "cats") or 0) > 1.5 * HOUR


def test_a_sync_that_never_went_well_lags_since_its_first_run() -> None:
    world = Motion(config({"cats": {"every": 60.0}}), status=lambda _: Status.FAILED)
    world.go(2 * HOUR)
    assert (lag(world, "cats") or 0) > 2 * HOUR - 100
    assert world.view("cats").standing.since is None


def test_totals_count_what_happened_since_the_start(world: Motion) -> None:
    world.go(3)
    world.service.count_hook("cats", refused=True)
    world.service.count_hook("cats", refused=False)
    totals = world.view("cats").totals
    assert (totals["runs ok"], totals["runs failed"], totals["hooks"], totals["hooks_refused"]) == (1, 0, 1, 1)


def test_an_alarm_that_comes_when_its_run_began_already_starts_no_other(world: Motion) -> None:
    """A hook was quicker by a moment."""
    world.duration = lambda _: 5.0
    world.go(2)
    world.service.due("cats")
    world.go(10)
    slot = world.view("cats").slot
    assert slot is not None  # nothing was called for after it
    assert [run.seconds for run in world.of("cats")] == [1000]


def test_a_sync_that_is_removed_while_it_waits_does_not_run(world: Motion) -> None:
    world.duration = lambda _: 20.0
    world.service.take(config({"cats": {"every": 60.0}, "dogs": {"every": 60.0}, "idle": {}}, workers=1))
    for name in ("cats", "dogs", "idle"):
        world.service.wake(name)
    assert world.service.queue() == (2, 1)
    world.service.take(config({"cats": {"every": 60.0}, "dogs": {"every": 60.0}}, workers=1))
    world.go(300)
    assert world.of("idle") == []
