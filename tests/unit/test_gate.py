"""The line at one server: how many requests it sees at a time and a second, whoever asks."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from weakref import ref

import pytest

from syncd.clock import SystemClock
from syncd.errors import SourceError, Stopped
from syncd.retry import Retry
from syncd.sources import label_studio
from syncd.sources.http import Gate, Http, Limits, Token, _gate
from syncd.sources.label_studio_api import explain
from tests.fakes.follower import Follower
from tests.fakes.label_studio import Reply, Request, StandIn
from tests.fakes.rig import TestClock


class Door:
    """Counts who is inside a stand-in at a time; each stays for a moment."""

    def __init__(self, studio: StandIn, stay: float = 0.01) -> None:
        self._lock, self._stay, self._answer = threading.Lock(), stay, studio.answer
        self.inside = self.most = self.seen = 0
        studio.answer = self.passing  # type: ignore[method-assign]  # before it takes its own lock

    def passing(self, request: Request) -> Reply:
        with self._lock:
            self.inside += 1
            self.seen += 1
            self.most = max(self.most, self.inside)
        time.sleep(self._stay)
        with self._lock:
            self.inside -= 1
        return self._answer(request)


@pytest.fixture
def studio() -> Iterator[StandIn]:
    with StandIn() as studio:
        yield studio


def config(studio: StandIn, **fields: object) -> label_studio.Config:
    return label_studio.Config.model_validate({"type": "label_studio", "url": studio.url, "token": studio.token} | fields)


@pytest.mark.parametrize(("concurrencies", "most"), [((1,), 1), ((3,), 3), ((4, 2), 2)])
def test_ten_syncs_of_one_server_ask_no_more_at_a_time_than_the_smallest_of_them_allows(
    concurrencies: tuple[int, ...], most: int, studio: StandIn, tmp_path: Path
) -> None:
    projects = [studio.project(f"Project {n}") for n in range(10)]
    for project in projects:
        project.add([{"data": {"text": str(n)}} for n in range(25)])
    door, clock = Door(studio), SystemClock()
    with ExitStack() as stack:
        sources = [label_studio.open(config(studio, concurrency=concurrencies[n % len(concurrencies)]), {}, clock) for n in range(10)]
        followers = []
        for project, source in zip(projects, sources, strict=True):
            stack.callback(source.close)
            (collection,) = [found for found in source.collections() if found.id == str(project.id)]
            followers.append(Follower(source, tmp_path / str(project.id), collection))
            stack.callback(followers[-1].close)
        with ThreadPoolExecutor(10) as pool:
            assert [len(seen.tasks) for seen in pool.map(lambda follower: follower.run(), followers)] == [25] * 10
    assert door.most == most


def test_a_source_that_was_closed_limits_nobody(studio: StandIn) -> None:
    clock = SystemClock()
    label_studio.open(config(studio, concurrency=1), {}, clock).close()
    door = Door(studio, stay=0.05)
    source = label_studio.open(config(studio, concurrency=3), {}, clock)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: source.collections(), range(3)))
    source.close()
    assert door.most > 1


def test_requests_a_second_are_those_of_all_together(studio: StandIn) -> None:
    clock = TestClock()
    sources = [label_studio.open(config(studio, max_requests_per_second=rate), {}, clock) for rate in (5.0, 2.0)]
    begun = clock.micros
    for n in range(21):
        sources[n % 2].whoami()
    for source in sources:
        source.close()
    assert 9.5e6 < clock.micros - begun < 10.5e6


def test_a_burst_goes_at_once_and_the_rest_is_spread() -> None:
    clock = TestClock()
    gate = Gate(clock)
    member = object.__new__(Http)
    gate.join(member, Limits(4, 10.0, burst=6.0))
    taken = []
    for _ in range(660):
        with gate.turn():
            taken.append(clock.monotonic())
    assert taken[59] - taken[0] < 1
    assert 59 < taken[-1] - taken[0] < 62


def test_whoever_came_first_goes_first() -> None:
    gate, order = Gate(SystemClock()), list[int]()
    done = threading.Event()

    def come(number: int) -> None:
        with gate.turn():
            order.append(number)

    threads = [threading.Thread(target=come, args=(n,)) for n in range(8)]
    with gate.turn():
        for number, thread in enumerate(threads):
            thread.start()
            while len(gate._line) <= number:
                done.wait(0.001)
    for thread in threads:
        thread.join(10)
    assert order == list(range(8))


def test_a_stop_interrupts_the_wait_and_leaves_the_line() -> None:
    clock = SystemClock()
    gate = Gate(clock)
    with gate.turn(), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: gate.turn().__enter__())
        while not gate._line:
            time.sleep(0.001)
        clock.stop.set()
        with pytest.raises(Stopped):
            waiting.result(10)
    assert (gate._busy, len(gate._line)) == (0, 0)


def test_a_request_that_fails_gives_its_turn_back(studio: StandIn) -> None:
    clock = TestClock()
    studio.instead = lambda _: Reply(404, b"nothing")
    source = label_studio.open(config(studio), {}, clock)
    for _ in range(3):
        with pytest.raises(SourceError):
            source.whoami()
    source.close()


def test_a_token_that_would_expire_in_line_is_bought_at_its_end(studio: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, turn = TestClock(), Gate.turn
    studio.clock = clock.now

    def long(gate: Gate) -> AbstractContextManager[float]:
        clock.wait(301)  # as long as an access token lives
        return turn(gate)

    monkeypatch.setattr(Gate, "turn", long)
    source = label_studio.open(config(studio, token=studio.pat), {}, clock)
    with closing(source):
        assert [source.whoami().name for _ in range(3)] == ["ann@example.com"] * 3
    assert studio.paths() == ["POST /api/token/refresh/", "GET /api/current-user/whoami"] * 3


def test_who_waited_in_line_for_longer_than_retry_for_may_try_again(studio: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, turn, answers = TestClock(), Gate.turn, iter([Reply(503), None])

    def long(gate: Gate) -> AbstractContextManager[float]:
        clock.wait(100)
        return turn(gate)

    monkeypatch.setattr(Gate, "turn", long)
    studio.instead = lambda _: next(answers)
    with closing(label_studio.open(config(studio, retry_for=60.0), {}, clock)) as source:
        assert source.whoami().name == "ann@example.com"


def test_time_to_try_again_counts_from_ones_own_request(studio: StandIn) -> None:
    """The danger: while others ask, a page that times out for its weight is asked for thrice before it is halved."""
    clock, answer, late = TestClock(), studio.answer, iter([True])

    def slow(request: Request) -> Reply:
        if "whoami" not in request.path or not next(late, False):
            return answer(request)
        clock.wait(100)
        pool.submit(source.collections).result()
        return Reply(503)

    studio.answer = slow  # type: ignore[method-assign]  # before it takes its own lock
    with ThreadPoolExecutor(1) as pool, closing(label_studio.open(config(studio, concurrency=2), {}, clock)) as source, pytest.raises(SourceError):
        source.whoami()


def test_nobody_stands_in_the_way_while_waiting_to_ask_for_a_token_again(studio: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, busy, answers = TestClock(), list[int](), iter([Reply(503), Reply(502), Reply(0, reset=True)])
    studio.clock, wait = clock.now, clock.wait
    studio.instead = lambda request: next(answers, None) if request.path == "/api/token/refresh/" else None
    with closing(label_studio.open(config(studio, token=studio.pat), {}, clock)) as source:

        def noting(seconds: float) -> None:
            busy.append(source._http._gate._busy)
            wait(seconds)

        monkeypatch.setattr(clock, "wait", noting)
        assert source.whoami().name == "ann@example.com"
    assert (busy, source.failed.tries) == ([0, 0, 0], 3)


def test_a_download_that_is_given_up_gives_its_turn_back(studio: StandIn) -> None:
    clock = TestClock()
    studio.instead = lambda request: Reply(200, b"x" * 1_000_000) if request.path == "/big" else None
    retry = Retry(clock, retry_for=5, exhausted=SourceError)
    http = Http(studio.url, retry, Token(f"Token {studio.token}"), explain, clock, Limits(1), timeout=5)
    with closing(http):
        with closing(http.download(f"{studio.url}/big", authorized=True)) as parts:
            assert next(parts)
        never_begun = http.download(f"{studio.url}/big", authorized=True)
        never_closed = http.download(f"{studio.url}/big", authorized=True)
        assert next(never_closed)
        del never_closed
        assert http.get("/api/current-user/whoami").status == 200
        never_begun.close()
        assert http._gate._busy == 0


def test_a_stop_while_the_rate_makes_it_wait_gives_the_turn_back() -> None:
    clock = TestClock()
    gate, member = Gate(clock), object.__new__(Http)
    gate.join(member, Limits(1, 1.0))
    with gate.turn():
        pass
    clock.stop.set()
    with pytest.raises(Stopped), gate.turn():
        raise AssertionError
    assert (gate._busy, len(gate._line)) == (0, 0)


def test_the_line_moves_on_when_the_one_that_held_it_up_is_closed() -> None:
    gate = Gate(SystemClock())
    strict, other = object.__new__(Http), object.__new__(Http)
    gate.join(strict, Limits(1))
    gate.join(other, Limits(2))

    def second() -> int:
        with gate.turn():
            return gate._busy

    with gate.turn(), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(second)
        while not gate._line:
            time.sleep(0.001)
        gate.leave(strict)
        assert waiting.result(10) == 2


def test_months_of_reloads_leave_no_source_and_one_line(studio: StandIn) -> None:
    clock, made = TestClock(), list[ref[Http]]()
    before = _gate.cache_info().currsize
    for _ in range(50):
        source = label_studio.open(config(studio), {}, clock)
        made.append(ref(source._http))
        gate = source._http._gate
        source.close()
        del source
    gc.collect()
    assert _gate.cache_info().currsize == before + 1
    assert (len(gate._limits), [one for one in made if one() is not None]) == (0, [])


def test_the_wait_in_line_is_no_time_of_the_server(studio: StandIn) -> None:
    clock = SystemClock()
    retry = Retry(clock, retry_for=5, exhausted=SourceError)
    http = Http(studio.url, retry, Token(f"Token {studio.token}"), explain, clock, Limits(1), timeout=0.2)
    door = Door(studio, stay=0.1)  # a third in line waits longer than the server may be silent
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: http.get("/api/current-user/whoami"), range(4)))
    http.close()
    assert (door.seen, {answer.status for answer in answers}) == (4, {200})
