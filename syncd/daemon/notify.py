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


Told = tuple[Status, int]
"""What was last said of a Sync that is not well, and when."""


def news(before: Told | None, report: Report, now: int) -> tuple[Mapping[str, object] | None, Told | None]:
    """What to say after this Run (None: nothing new), and what has been told then."""
    if report.status is Status.OK:
        return (_message(report, "is well again: everything is safe in the Target") if before else None), None
    if before and before[0] is report.status and 0 <= now - before[1] < REMIND:
        return None, before
    return _message(report, _trouble(report)), (report.status, now)


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

    def told(self, sync: str, to: Notify, report: Report) -> None:
        """A Run has ended. Returns at once; a Run that was interrupted says nothing about its Sync."""
        if report.exit_code == INTERRUPTED:
            return
        if to.heartbeat and report.status is Status.OK:
            self._heartbeats.put(_Letter(0, sync, _url(to.heartbeat, sync), None))
        if to.webhook:
            with self._lock:
                message, told = news(self._told.pop(sync, None), report, self._clock.now())
                if told:
                    self._told[sync] = told
            if message:
                self._webhooks.put(_Letter(0, sync, _url(to.webhook, sync), json.dumps(message).encode()))

    def close(self) -> None:
        """What is being sent may end; what still waits is forgotten."""
        for outbox in (self._heartbeats, self._webhooks):
            outbox.close()
        for outbox in (self._heartbeats, self._webhooks):
            outbox.thread.join(2.0)  # one that still waits for an answer ends with the process


def _url(secret: SecretStr, sync: str) -> str:
    return secret.get_secret_value().replace("{sync}", quote(sync, safe=""))


class _Letter(NamedTuple):
    """due: the clock's monotonic seconds; body None: a GET."""

    due: float
    sync: str
    url: str
    body: bytes | None
    tries: int = 1


class _Outbox:
    """What waits to be sent, one letter for each Sync, and the thread that sends it."""

    def __init__(self, kind: str, clock: Clock) -> None:
        self._kind, self._clock = kind, clock
        self._letters: dict[str, _Letter] = {}
        self._changed = threading.Condition()
        self._closed = False
        self.thread = threading.Thread(target=self._work, name=f"notify-{kind}", daemon=True)
        self.thread.start()

    def put(self, letter: _Letter) -> None:
        with self._changed:
            self._letters[letter.sync] = letter
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _work(self) -> None:
        with httpx.Client(timeout=TIMEOUT, headers={"User-Agent": f"syncd/{__version__}"}) as client:
            while letter := self._next():
                fault, again = _send(client, letter)
                if again and letter.tries < TRIES[self._kind]:
                    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (letter.tries - 1))
                    with self._changed:  # unless there is a newer word
                        self._letters.setdefault(letter.sync, letter._replace(due=self._clock.monotonic() + pause, tries=letter.tries + 1))
                elif fault:
                    log.error("%s: its %s was not taken: %s; look at notify.%s in the config", letter.sync, self._kind, fault, self._kind)

    def _next(self) -> _Letter | None:
        """The letter that is due first, once it is due; None when closed."""
        with self._changed:
            while not self._closed:
                letter = min(self._letters.values(), default=None)
                if letter and (left := letter.due - self._clock.monotonic()) <= 0:
                    return self._letters.pop(letter.sync)
                self._changed.wait(left if letter else None)
            return None


def _send(client: httpx.Client, letter: _Letter) -> tuple[str, bool]:
    """Why it was not taken (empty: it was), and whether to try again. httpx's own words may hold the URL, so only the kind of fault is told."""
    method = "GET" if letter.body is None else "POST"
    try:
        with client.stream(method, letter.url, content=letter.body, headers=_JSON) as answer:  # its body may be of any size
            status = answer.status_code
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return f"no answer ({type(error).__name__})", isinstance(error, httpx.TransportError)
    return "" if httpx.codes.is_success(status) else f"it answered {status}", status in _BUSY or httpx.codes.is_server_error(status)
