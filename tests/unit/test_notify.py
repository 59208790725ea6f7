"""Telling others: what is said when, over real HTTP, and that nothing of it can hurt a Run or show a URL."""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.clock import SECOND, SystemClock
from syncd.config.shape import Notify
from syncd.daemon import notify
from syncd.daemon.notify import Notifier, news
from syncd.fields import Secret
from syncd.model import Failure, Kind, Report, Status
from tests.fakes.web import Answer, Drop, Request, WebServer

HOUR = 3600 * SECOND
OK, PARTIAL, FAILED, GUARDED = Status.OK, Status.PARTIAL, Status.FAILED, Status.GUARDED
TOKEN = "t0ken-in-the-url"


def report(status: Status = OK, sync: str = "cats", **fields: object) -> Report:
    usual: dict[Status, dict[str, object]] = {
        OK: {},
        PARTIAL: {"failed": [Failure("1", "7", "too large"), Failure("1", "8", "too large")], "exit_code": 3},
        FAILED: {"error": "studio: 401", "exit_code": 12},
        GUARDED: {"guard": "12 of 12 tasks of Cats", "plan_id": "abc123", "exit_code": 20},
    }
    return Report(sync, "run-1", Kind.INCREMENTAL, status, **(usual[status] | fields))  # type: ignore[arg-type]  # fields by name


def words(steps: list[tuple[Status, int]]) -> list[str]:
    """What is said over a history of (status, microseconds since the Run before)."""
    told, now, said = None, 0, []
    for status, step in steps:
        now += step
        message, told = news(told, report(status), now)
        said.append(str(message["status"]) if message else "")
    return said


def test_one_word_for_each_change_and_one_when_well_again() -> None:
    minute = 60 * SECOND
    history = [OK, OK, FAILED, FAILED, FAILED, GUARDED, GUARDED, PARTIAL, OK, OK, FAILED]
    assert words([(status, minute) for status in history]) == ["", "", "failed", "", "", "guarded", "", "partial", "ok", "", "failed"]


def test_a_sync_that_stays_unwell_is_told_of_once_a_day() -> None:
    assert [said for said in words([(FAILED, HOUR)] * 49) if said] == ["failed"] * 3


def test_a_clock_set_back_does_not_silence_for_years() -> None:
    assert words([(FAILED, 10**16), (FAILED, -(10**15))]) == ["failed", "failed"]


@given(st.lists(st.tuples(st.sampled_from(list(Status)), st.integers(0, 30 * HOUR)), max_size=60))
def test_whoever_listens_knows_how_it_stands(history: list[tuple[Status, int]]) -> None:
    """After each Run the last word said is the state it is in, and nobody hears the same word twice within a day."""
    said, last, at, now = words(history), "ok", 0, 0
    for (status, step), word in zip(history, said, strict=True):
        now += step
        if word:
            assert word != last or (word != "ok" and now - at >= notify.REMIND)
            last, at = word, now
        assert last == status


def test_the_message_has_what_a_person_and_a_program_need() -> None:
    for status, part in (
        (FAILED, "studio: 401"),
        (PARTIAL, "2 failed; each Run tries them again. The first: too large"),
        (GUARDED, "syncd sync cats --confirm-deletes abc123"),
        (OK, "well again"),
    ):
        message, _ = news((OK, 0), report(status), 1)
        assert message is not None
        assert message.keys() == {"sync", "status", "run_id", "error", "guard", "plan_id", "failed_count", "message", "text"}
        assert part in str(message["message"])
        assert message["text"] == message["message"]
        assert message["failed_count"] == (2 if status is PARTIAL else 0)
        json.dumps(message)


def test_a_message_stays_one_that_a_chat_takes() -> None:
    words = "; ".join(f"Collection {n} is gone with all of its 12 tasks" for n in range(300))
    for status in (FAILED, GUARDED):
        message, _ = news(None, report(status, error=words, guard=words), 1)
        assert message is not None
        assert len(str(message["text"])) < 1000
        assert ("--confirm-deletes abc123" in str(message["text"])) is (status is GUARDED)
        assert message["guard"] == words


class Listener:
    """A real server that keeps what it is told; `answers` are given first, then 200."""

    def __init__(self) -> None:
        self.calls: queue.Queue[Request] = queue.Queue()
        self.answers: list[Callable[[], Answer]] = []

    def __call__(self, request: Request) -> Answer:
        self.calls.put(request)
        return self.answers.pop(0)() if self.answers else Answer()

    def next(self) -> Request:
        return self.calls.get(timeout=20)


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def url(listener: Listener) -> Iterator[str]:
    with WebServer(listener) as server:
        yield server.url


@contextmanager
def notifying() -> Iterator[Notifier]:
    notifier = Notifier(SystemClock())
    try:
        yield notifier
    finally:
        notifier.close()


def to(url: str, *kinds: str) -> Notify:
    return Notify(**{kind: Secret(f"{url}/{kind}/{TOKEN}/{{sync}}") for kind in kinds})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "FIRST_PAUSE", 0.01)


def test_a_heartbeat_after_each_good_run_only(listener: Listener, url: str) -> None:
    with notifying() as notifier:
        for status in (OK, FAILED, OK):
            notifier.told("cats", to(url, "heartbeat"), report(status))
            if status is OK:
                call = listener.next()
                assert (call.method, call.path) == ("GET", f"/heartbeat/{TOKEN}/cats")
    assert listener.calls.empty()


def test_the_webhook_is_json_and_the_name_goes_into_the_url_escaped(listener: Listener, url: str) -> None:
    with notifying() as notifier:
        notifier.told("a/b?c", to(url, "webhook", "heartbeat"), report(FAILED, "a/b?c"))
        call = listener.next()
    assert (call.method, call.target, call.headers["Content-Type"]) == ("POST", f"/webhook/{TOKEN}/a%2Fb%3Fc", "application/json")
    assert json.loads(call.body)["error"] == "studio: 401"


def test_words_that_are_no_unicode_are_told_all_the_same(listener: Listener, url: str) -> None:
    with notifying() as notifier:
        notifier.told("cats", to(url, "webhook"), report(FAILED, error="exports/\udcff.json"))
        assert json.loads(listener.next().body)["error"] == "exports/\udcff.json"


def test_nobody_to_tell_and_a_run_that_was_interrupted(listener: Listener, url: str) -> None:
    with notifying() as notifier:
        notifier.told("cats", Notify(), report(FAILED))
        notifier.told("cats", to(url, "webhook", "heartbeat"), report(FAILED, error="interrupted", exit_code=130))
        notifier.told("dogs", to(url, "heartbeat"), report(OK, "dogs"))
        assert listener.next().path.endswith("/dogs")
    assert listener.calls.empty()


def drop() -> Answer:
    raise Drop


def test_it_is_said_again_until_it_is_taken(listener: Listener, url: str, quick: None) -> None:
    listener.answers = [lambda: Answer(500), drop, lambda: Answer(429), lambda: Answer(200)]
    with notifying() as notifier:
        notifier.told("cats", to(url, "webhook"), report(FAILED))
        bodies = {listener.next().body for _ in range(4)}
        notifier.told("cats", to(url, "webhook"), report(OK))
        assert json.loads(listener.next().body)["status"] == "ok"
    assert len(bodies) == 1
    assert listener.calls.empty()


@pytest.mark.parametrize(("status", "said"), [(404, "it answered 404"), (302, "it answered 302")])
def test_what_cannot_help_is_not_said_again(
    listener: Listener, url: str, quick: None, caplog: pytest.LogCaptureFixture, status: int, said: str
) -> None:
    """A redirect is not followed either: it could lead the message anywhere."""
    listener.answers = [lambda: Answer(status, headers=[("Location", f"{url}/elsewhere")])]
    with notifying() as notifier:
        notifier.told("cats", to(url, "webhook"), report(FAILED))
        listener.next()
        notifier.told("dogs", to(url, "webhook"), report(FAILED, "dogs"))
        assert listener.next().path.endswith("/dogs")
    assert listener.calls.empty()
    assert f"cats: its webhook was not taken: {said}" in caplog.text


def test_no_log_line_shows_a_url(listener: Listener, url: str, quick: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpx").setLevel(logging.NOTSET)
    listener.answers = [lambda: Answer(503), drop, lambda: Answer(404)]
    with notifying() as notifier:
        notifier.told("cats", to(url, "webhook"), report(FAILED))
        for _ in range(3):
            listener.next()
        notifier.told("cats", to("http://127.0.0.1:1", "heartbeat"), report())
        notifier.told("dogs", to(url, "heartbeat"), report(OK, "dogs"))
        listener.next()
    assert "was not taken" in caplog.text
    assert TOKEN not in caplog.text


def test_a_receiver_that_hangs_blocks_nobody(listener: Listener, url: str) -> None:
    go_on = threading.Event()
    listener.answers = [lambda: (go_on.wait(60), Answer())[1]]
    with notifying() as notifier:
        notifier.told("cats", to(url, "webhook"), report(FAILED))
        listener.next()
        for n in range(1000):  # returns at once, or this test never ends
            notifier.told(f"sync-{n}", to(url, "webhook"), report(FAILED, f"sync-{n}"))
        notifier.told("dogs", to(url, "heartbeat"), report(OK, "dogs"))
        assert listener.next().path == f"/heartbeat/{TOKEN}/dogs", "heartbeats don't wait for webhooks"
        go_on.set()


def test_what_waits_is_one_word_for_each_sync_the_newest(listener: Listener, url: str) -> None:
    go_on = threading.Event()
    listener.answers = [lambda: (go_on.wait(60), Answer())[1]]
    with notifying() as notifier:
        notifier.told("first", to(url, "webhook"), report(FAILED, "first"))
        listener.next()
        for name, status in (("a", FAILED), ("b", FAILED), ("a", GUARDED), ("a", OK)):
            notifier.told(name, to(url, "webhook"), report(status, name))
        go_on.set()
        said = [json.loads(listener.next().body) for _ in range(2)]
    assert sorted((one["sync"], one["status"]) for one in said) == [("a", "ok"), ("b", "failed")]
    assert listener.calls.empty()


def test_closing_is_quick_and_final(listener: Listener, url: str) -> None:
    notifier = Notifier(SystemClock())
    notifier.close()
    notifier.told("cats", to(url, "webhook"), report(FAILED))
    notifier.close()
    assert listener.calls.empty()
