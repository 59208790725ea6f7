"""Telling others how Runs went: a heartbeat after each good one, a webhook when a Sync stops being well, and once when it is well again.

Never blocks or fails a Run: `told` only notes what to say; one thread for heartbeats and one for webhooks say it, so that neither waits for the
other. What waits is bounded by the number of Syncs: a newer word about one takes the place of the older. URLs hold tokens: no log line has one.
What was told is remembered in memory only, so a restarted daemon tells of a Sync that is still failing once more.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import NamedTuple
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from syncd import __version__
from syncd.clock import SECOND, Clock
from syncd.config.shape import Notify
from syncd.model import Report, Status
from syncd.run import INTERRUPTED

REMIND = 24 * 3600 * SECOND  # a Sync that stays unwell is told of once a day
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 600.0  # seconds before the second try, doubled up to the longest
TRIES = {"heartbeat": 4, "webhook": 20}  # a late heartbeat is worth nothing, a late webhook is: about two hours
TIMEOUT = httpx.Timeout(10.0, connect=5.0)
_SHOWN = 500  # characters of a reason in the words of a message; its own field holds all of it
_JSON = {"Content-Type": "application/json"}
_BUSY = {httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS}

log = logging.getLogger("syncd.notify")


class Told(NamedTuple):
    """What was last said of a Sync that is not well, and when."""

    status: Status
    at: int


def news(before: Told | None, report: Report, now: int) -> tuple[Mapping[str, object] | None, Told | None]:
    """What to say after this Run (None: nothing new), and what has been told then."""
    if report.status is Status.OK:
        return (_message(report, "is well again: everything is safe in the Target") if before else None), None
    due = before is None or before.status is not report.status or not 0 <= now - before.at < REMIND
    return (_message(report, _trouble(report)), Told(report.status, now)) if due else (None, before)


def _trouble(report: Report) -> str:
    reason = shorten(report.guard or report.error or "".join(failure.error for failure in report.failed[:1]), _SHOWN)
    if report.status is Status.GUARDED:
        return f"the Guard stopped the deletions: {reason}. If they are meant: syncd sync {report.sync} --confirm-deletes {report.plan_id}"
    if report.status is Status.PARTIAL:
        return f"{len(report.failed):,} failed; each Run tries them again. The first: {reason}"
    return f"the Run failed, and is tried again: {reason}"


def _message(report: Report, words: str) -> Mapping[str, object]:
    """The body of a webhook. `text` says the same as `message`: chat programs look for it."""
    text = f"syncd: {report.sync}: {words}"
    about = {"sync": report.sync, "status": report.status.value, "run_id": report.run_id, "error": report.error, "guard": report.guard}
    return about | {"plan_id": report.plan_id, "failed_count": len(report.failed), "message": text, "text": text}


class Notifier:
    """Tells; from any thread."""

    def __init__(self, clock: Clock) -> None:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # at info it logs every URL
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[str, Told] = {}
        self._heartbeats, self._webhooks = _Outbox("heartbeat", clock), _Outbox("webhook", clock)

    def told(self, sync: str, to: Notify | None, report: Report) -> None:
        """A Run has ended. Returns at once; a Run that was interrupted says nothing about its Sync."""
        if to is None or report.exit_code == INTERRUPTED:
            return
        if to.heartbeat and report.status is Status.OK:
            self._heartbeats.put(sync, _Letter(_url(to.heartbeat, sync), None))
        if to.webhook:
            with self._lock:
                message, told = news(self._told.pop(sync, None), report, self._clock.now())
                if told:
                    self._told[sync] = told
            if message:
                self._webhooks.put(sync, _Letter(_url(to.webhook, sync), json.dumps(message).encode()))

    def close(self) -> None:
        """What is being sent may end; what still waits is forgotten."""
        for outbox in (self._heartbeats, self._webhooks):
            outbox.close()
        for outbox in (self._heartbeats, self._webhooks):
            outbox.thread.join(2.0)  # one that still waits for an answer ends with the process


def _url(secret: SecretStr, sync: str) -> str:
    return secret.get_secret_value().replace("{sync}", quote(sync, safe=""))


@dataclass(frozen=True, slots=True)
class _Letter:
    """body None: a GET. due: the clock's monotonic seconds."""

    url: str
    body: bytes | None
    due: float = 0.0
    tries: int = 0


class _Outbox:
    """What waits to be sent, one letter for each Sync, and the thread that sends it."""

    def __init__(self, kind: str, clock: Clock) -> None:
        self._kind, self._clock = kind, clock
        self._letters: dict[str, _Letter] = {}
        self._changed = threading.Condition()
        self._closed = False
        self.thread = threading.Thread(target=self._work, name=f"notify-{kind}", daemon=True)
        self.thread.start()

    def put(self, sync: str, letter: _Letter) -> None:
        with self._changed:
            self._letters[sync] = letter
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _work(self) -> None:
        with httpx.Client(timeout=TIMEOUT, headers={"User-Agent": f"syncd/{__version__}"}) as client:
            while due := self._next():
                fault, again = _send(client, due[1])
                if fault:
                    self._failed(*due, fault, again=again)

    def _next(self) -> tuple[str, _Letter] | None:
        """The letter that is due first, once it is due; None when closed."""
        with self._changed:
            while not self._closed:
                sync, letter = min(self._letters.items(), key=lambda item: item[1].due, default=("", None))
                if letter and (left := letter.due - self._clock.monotonic()) <= 0:
                    return sync, self._letters.pop(sync)
                self._changed.wait(left if letter else None)
            return None

    def _failed(self, sync: str, letter: _Letter, fault: str, *, again: bool) -> None:
        if not again or letter.tries + 1 >= TRIES[self._kind]:
            log.error("%s: its %s was not taken: %s; look at notify.%s in the config", sync, self._kind, fault, self._kind)
            return
        log.debug("%s: its %s is sent again: %s", sync, self._kind, fault)
        due = self._clock.monotonic() + min(LONGEST_PAUSE, FIRST_PAUSE * 2**letter.tries)
        with self._changed:
            self._letters.setdefault(sync, replace(letter, due=due, tries=letter.tries + 1))  # unless there is a newer word


def _send(client: httpx.Client, letter: _Letter) -> tuple[str, bool]:
    """Why it was not taken (empty: it was), and whether to try again. httpx's own words may hold the URL, so only the kind of fault is told."""
    try:
        with client.stream(
            "GET" if letter.body is None else "POST", letter.url, content=letter.body, headers=_JSON
        ) as answer:  # its body may be of any size
            status = answer.status_code
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return f"no answer ({type(error).__name__})", isinstance(error, httpx.TransportError)
    taken, busy = httpx.codes.is_success(status), status in _BUSY or httpx.codes.is_server_error(status)
    return "" if taken else f"it answered {status}", busy
