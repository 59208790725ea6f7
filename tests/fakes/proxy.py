"""A reverse proxy that misbehaves on command, to stand before any HTTP server of a test.

    with FaultProxy(server.url) as proxy:
        proxy.plan(
            Fault(answer(503, retry_after=1), method="PUT", path="/7[.]json", times=2),
            Fault(lose_answer(), method="PUT", nth=10),
            Fault(reset_before(), probability=0.2, times=None),
        )
        ...                                          # use proxy.url instead of server.url
        proxy.assert_all_fired()                     # a planned fault that never fired means that the test tested nothing
        assert proxy.count("DELETE") == 0

Each request is compared with the planned faults in order; the first that fires acts, all others only count it. What no fault touches is passed on
unchanged, with the Host header that the client sent (so that URLs a server makes from it lead through the proxy), but for Accept-Encoding, which is
left out so that bodies can be edited. Every try is recorded with the status the client saw, None when it saw none.
"""

from __future__ import annotations

import dataclasses
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection
from random import Random
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

from tests.fakes.web import Answer, Drop, Request, WebServer

Act = Callable[[Request, Callable[[], Answer]], Answer]
"""What a fault does with a request and the way to forward it; raises Drop to reset the connection."""

LOGIN_PAGE = b"<!doctype html><html><head><title>Log in</title></head><body><form method='post'><input name='email'></form></body></html>"
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "expect", "content-length", "date"}


def answer(status: int, body: bytes = b"", *, content_type: str = "text/plain", retry_after: float | None = None) -> Act:
    """Answer without forwarding. `answer(200, LOGIN_PAGE, content_type="text/html")` is a session that ran out behind a gateway."""
    headers = [("Content-Type", content_type)] + ([] if retry_after is None else [("Retry-After", f"{retry_after:g}")])
    return lambda _request, _forward: Answer(status, body, headers)


def reset_before() -> Act:
    """Reset the connection; the server never hears of the request."""

    def act(_request: Request, _forward: Callable[[], Answer]) -> Answer:
        raise Drop

    return act


def reset_after() -> Act:
    """The server did it, the answer is lost in a reset."""

    def act(_request: Request, forward: Callable[[], Answer]) -> Answer:
        forward()
        raise Drop

    return act


def lose_answer(longest: float = 30.0) -> Act:
    """The server did it, but nothing more is heard until the client gives up (at most so many seconds)."""

    def act(request: Request, forward: Callable[[], Answer]) -> Answer:
        forward()
        request.wait_gone(longest)
        raise Drop

    return act


def truncate(size: int) -> Act:
    """Forward; send only the first bytes of the promised body, then reset."""
    return lambda _request, forward: dataclasses.replace(forward(), cut=size)


def delay(seconds: float) -> Act:
    """Forward after a pause."""

    def act(_request: Request, forward: Callable[[], Answer]) -> Answer:
        time.sleep(seconds)
        return forward()

    return act


def edit(change: Callable[[bytes], bytes]) -> Act:
    """Forward, and give the client another body: `edit(lambda body: b"[]")`."""

    def act(_request: Request, forward: Callable[[], Answer]) -> Answer:
        real = forward()
        return dataclasses.replace(real, body=change(real.body))

    return act


def slowly(seconds: float) -> Act:
    """Forward, and hand the answer over in drops that take so long in all."""
    return lambda _request, forward: dataclasses.replace(forward(), lasting=seconds)


class Stale:
    """`Fault(stale)`: what the same question was answered with before, as a replica that lags does. Asked for the first time, the truth."""

    def __init__(self) -> None:
        self._before: dict[str, Answer] = {}

    def __call__(self, request: Request, forward: Callable[[], Answer]) -> Answer:
        now = forward()
        return now if request.method != "GET" else self._before.setdefault(request.target, now)


@dataclass(frozen=True, slots=True)
class Fault:
    """When to do `act`: on requests of `method` (any when empty) in whose path and query (decoded) the regex `path` is found, from the `nth` such
    request on, with this probability, so many times (None: always).
    """

    act: Act
    method: str = ""
    path: str = ""
    nth: int = 1
    times: int | None = 1
    probability: float = 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as the proxy saw it, percent-decoded, since clients differ in what they encode (obstore sends `/` in a GCS key as `%2F`)."""

    method: str
    path: str
    query: str
    status: int | None
    target: str = field(default="", compare=False)  # path and query exactly as sent


@dataclass(slots=True)
class _Planned:
    fault: Fault
    matched: int = 0
    fired: int = 0


@dataclass(slots=True)
class _Plan:
    """Decides which fault a request meets; thread-safe, and its dice are seeded."""

    random: Random
    lock: threading.Lock = field(default_factory=threading.Lock)
    planned: list[_Planned] = field(default_factory=list)

    def pick(self, request: Request) -> Act | None:
        chosen: _Planned | None = None
        with self.lock:
            for planned in self.planned:
                fault = planned.fault
                if (fault.method and fault.method != request.method) or not re.search(fault.path, unquote(request.target)):
                    continue
                planned.matched += 1
                due = planned.matched >= fault.nth and (fault.times is None or planned.fired < fault.times)
                if chosen is None and due and self.random.random() < fault.probability:
                    chosen = planned
                    planned.fired += 1
        return chosen.fault.act if chosen else None


class FaultProxy:
    def __init__(self, upstream: str, *, seed: int = 0, keep_host: bool = True) -> None:
        self._upstream = urlsplit(upstream).netloc
        self._keep_host = keep_host
        self._plan = _Plan(Random(seed))
        self._lock = threading.Lock()
        self._seen: list[Seen] = []
        self._web = WebServer(self._handle)
        self.url = self._web.url

    def plan(self, *faults: Fault) -> None:
        """Add faults to the plan."""
        with self._plan.lock:
            self._plan.planned += [_Planned(fault) for fault in faults]

    def clear(self) -> None:
        """Behave from now on, and forget the requests seen."""
        with self._plan.lock, self._lock:
            self._plan.planned.clear()
            self._seen.clear()

    @property
    def requests(self) -> Sequence[Seen]:
        """Everything seen so far, in the order of the answers."""
        with self._lock:
            return tuple(self._seen)

    @property
    def fired(self) -> int:
        """How often any fault of the plan acted."""
        with self._plan.lock:
            return sum(planned.fired for planned in self._plan.planned)

    def count(self, method: str = "", path: str = "") -> int:
        """How many requests of this method have the regex in their decoded path and query."""
        return sum(method in {"", seen.method} and bool(re.search(path, f"{seen.path}?{seen.query}")) for seen in self.requests)

    def assert_all_fired(self) -> None:
        with self._plan.lock:
            silent = [planned for planned in self._plan.planned if planned.fired < (planned.fault.times or 1)]
        assert not silent, f"planned faults that did not fire as often as planned: {silent}"

    def _handle(self, request: Request) -> Answer:
        act = self._plan.pick(request)
        result: Answer | None = None
        try:
            result = act(request, lambda: self._forward(request)) if act else self._forward(request)
            return result
        finally:
            path, query = unquote(request.path), unquote(request.target.partition("?")[2])
            with self._lock:
                self._seen.append(Seen(request.method, path, query, result.status if result else None, request.target))

    def _forward(self, request: Request) -> Answer:
        """Over a connection of its own: a kept one could be stale, and trying again could do the thing twice."""
        connection = HTTPConnection(self._upstream, timeout=600)
        try:
            connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name.lower() not in _HOP_BY_HOP | {"host", "accept-encoding"}:
                    connection.putheader(name, value)
            connection.putheader("Host", request.headers["Host"] if self._keep_host else self._upstream)
            connection.putheader("Connection", "close")
            if request.body or request.method not in {"GET", "HEAD"}:
                connection.putheader("Content-Length", str(len(request.body)))
            connection.endheaders(request.body)
            response = connection.getresponse()
            body = response.read()
            headers = [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP]
            if request.method == "HEAD" and "Content-Length" in response.headers:
                headers.append(("Content-Length", response.headers["Content-Length"]))
            return Answer(response.status, body, headers)
        finally:
            connection.close()

    def __enter__(self) -> Self:
        self._web.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._web.__exit__(kind, error, trace)
