"""What every Source over HTTP shares: one client, retries, and the only place where httpx's errors and statuses become syncd's.

Refuses to follow redirects with a token (it must not reach another host), to keep cookies (a session must not outlive or outrank the token), and to
take anything but JSON for an answer: a login page with 200 is an error, never data (I4). All Sources of a process that ask one server stand in one
line, so that ten Syncs are no heavier for its users than one.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache, lru_cache
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import httpx

from syncd import __version__, encode
from syncd.clock import SECOND, Clock
from syncd.errors import AccessError, SourceError, SyncdError, TaskError, TransientError, discreet
from syncd.retry import Retry

CONNECT_TIMEOUT = 15.0  # seconds
MOST_REDIRECTS = 5
_BRITTLE = frozenset({HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT})
_DENIED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_BUSY = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
_SHOWN = 200  # characters of a server's own words in a message
_POLL = 0.2  # seconds between looks at a stop request


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON answer. `asked_at`: a moment of the server's own clock not after the request was sent (its `Date` less the time the request took),
    microseconds; None when it sent no date. `size`: bytes of the body.
    """

    status: int
    body: object
    size: int
    asked_at: int | None


Post = Callable[[str, Mapping[str, str]], Answer]


class Auth(Protocol):
    """How requests are authorized."""

    def header(self, post: Post) -> str:
        """The value of `Authorization`; `post` sends without one."""
        ...

    def renew(self) -> bool:
        """After a 401: True when trying once more makes sense."""
        ...


class Token:
    """An `Authorization` that stays the same."""

    def __init__(self, value: str) -> None:
        self._value = value

    def header(self, post: Post) -> str:  # noqa: ARG002 - others send something
        return self._value

    def renew(self) -> bool:
        return False


class _BrittleError(TransientError):
    """The server failed on this very request: perhaps a passing fault, perhaps too much was asked for, perhaps one task in the answer."""


@cache
def _trust() -> ssl.SSLContext:
    """One for all: each holds 0.8 MB, and httpx leaves a closed client to the garbage collector, which a daemon's Runs seldom wake."""
    return httpx.create_ssl_context()


class Limits(NamedTuple):
    """What one Source may ask of a server: so many requests at a time, so many a second (None: any), `burst` seconds' worth of them at once."""

    at_once: int
    per_second: float | None = None
    burst: float = 0.0


class Gate:
    """The line at one server: first come, first served; the smallest limits of all who stand there hold. May be used from several threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._limits: WeakKeyDictionary[object, Limits] = WeakKeyDictionary()
        self._line: deque[object] = deque()
        self._busy = 0
        self._next = 0.0

    def join(self, member: object, limits: Limits) -> None:
        with self._changed:
            self._limits[member] = limits

    def leave(self, member: object) -> None:
        with self._changed:
            self._limits.pop(member, None)

    @contextmanager
    def turn(self) -> Iterator[float]:
        """One request, from the moment when it may begin until its answer is read. Raises Stopped."""
        self._stand()
        try:
            if (wait := self._early()) > 0:
                self._clock.wait(wait)
            yield self._clock.monotonic()
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def _stand(self) -> None:
        ticket = object()
        with self._changed:
            self._line.append(ticket)
            try:
                while self._line[0] is not ticket or self._busy >= min((limits.at_once for limits in self._limits.values()), default=1):
                    self._clock.wait(0)
                    self._changed.wait(_POLL)
                self._busy += 1
            finally:
                self._line.remove(ticket)
                self._changed.notify_all()

    def _early(self) -> float:
        """Seconds until this request's place in the rate."""
        with self._changed:
            paces = [(1 / limits.per_second, limits.burst) for limits in self._limits.values() if limits.per_second]
            if not paces:
                return 0.0
            pause, burst = max(paces)
            now = self._clock.monotonic()
            start = max(self._next, now - burst)
            self._next = start + pause
            return start - now


@lru_cache(maxsize=1024)
def _gate(origin: tuple[str, str, int | None], account: str, clock: Clock) -> Gate:  # noqa: ARG001 - they tell gates apart
    return Gate(clock)


_GATES = threading.Lock()  # a cache may make one thing twice


class Http:
    """Requests to one server. `requests` counts every try. May be used from several threads."""

    def __init__(
        self, url: str, retry: Retry, auth: Auth, explain: Callable[[str], str], clock: Clock, limits: Limits, *, timeout: float, account: str = ""
    ) -> None:
        """explain: what a person should do about a refusal, given the server's own words. account: whose limits these are; else the server's."""
        self._retry = retry
        self._auth = auth
        self._explain = explain
        self._lock = threading.Lock()
        with _translated(url):
            self._base, self._origin = httpx.URL(url.rstrip("/")), _origin(url)
        with _GATES:
            self._gate = _gate(self._origin, account, clock)  # type: ignore[arg-type]  # a Clock is told apart by identity
        self._gate.join(self, limits)
        self._client = httpx.Client(
            base_url=self._base,
            verify=_trust(),
            timeout=httpx.Timeout(timeout, connect=CONNECT_TIMEOUT),
            limits=httpx.Limits(max_keepalive_connections=limits.at_once),
            headers={"User-Agent": f"syncd/{__version__}", "Accept": "application/json", "Accept-Encoding": "gzip", "Cache-Control": "no-cache"},
        )
        self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.requests, self.failed = 0, retry.failed

    def get(
        self, path: str, params: Mapping[str, str | int] | None = None, *, absent: bool = False, brittle: int = 0, limit: int | None = None
    ) -> Answer:
        """The answer to a GET. Raises SourceError or AccessError.

        absent: a JSON 404 is an Answer, too. brittle: a request that the server fails on so many times, or until time is out (500, 502, 504,
        silence, resets, unreadable JSON) is a TaskError, since a single task or too many of them can cause it; so is one of more than `limit` bytes.
        """
        failures = 0

        def attempt() -> Answer:
            nonlocal failures
            try:
                return self._judge(*self._authorized("GET", path, limit, params=params), absent=absent)
            except _BrittleError as error:
                failures += 1
                if failures == brittle:
                    raise TaskError(str(error)) from None
                raise

        try:
            return self._retry.call(attempt)
        except SourceError as error:
            if brittle and isinstance(error.__cause__, _BrittleError):
                raise TaskError(str(error)) from None
            raise

    def _post(self, path: str, body: Mapping[str, str]) -> Answer:
        """One try of a POST without authorization, in the turn of the request that it is for; they are tried again together."""
        try:
            return self._judge(*self._receive("POST", path, json=body), absent=False)
        except _BrittleError as error:
            raise TransientError(str(error), error.retry_after) from None  # that request is not to blame

    def change(self, method: str, path: str, body: object = None) -> object:
        """One try of an authorized request that changes something, and the body of its answer. Raises SourceError or AccessError; whether a request
        that failed was obeyed is the caller's to look up.
        """

        def attempt() -> object:
            response, content = self._authorized(method, path, json=body)
            return None if response.status_code == HTTPStatus.NO_CONTENT else self._judge(response, content, absent=False).body

        return self._retry.call(attempt, tries=1)

    def ask(self, path: str, body: object, headers: Mapping[str, str], fault: Callable[[object, float | None], Exception | None]) -> Answer:
        """One try of an authorized POST of JSON, written exactly; TransientError is the caller's to retry.

        fault: what a JSON answer stands for by its content and its Retry-After; None: its status tells, as it always does for 401, 403 and 5xx.
        """
        response, content = self._send("POST", path, content=encode.dumps(body), headers={"Content-Type": "application/json", **headers})
        told = response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR and response.status_code not in _DENIED
        if told and _kind(response).endswith("json"):
            with suppress(TaskError):  # not JSON after all: judged below
                if (error := fault(encode.parse(content), _retry_after(response))) is not None:
                    raise error
        return self._judge(response, content, absent=False)

    def download(self, url: str, *, authorized: bool = False) -> Generator[bytes]:
        """One try of a GET of any address, in pieces; nothing for 204. Redirects are followed; the key goes to this server's own origin alone, and
        never behind a redirect. With the key it takes a turn in the server's line until it is read, so ask nothing else meanwhile; any other address
        has no line. Raises TransientError for what may pass, TaskError for what this address will not give.
        """
        for _ in range(MOST_REDIRECTS):
            with self._lock:
                self.requests += 1
            where = f"GET {url.partition('?')[0]}"  # what follows may be a secret
            with _translated(where, bad_url=TaskError):
                headers, known = {"Accept": "*/*", "Accept-Encoding": "identity"}, authorized and _origin(url) == self._origin
                with self._gate.turn() if known else nullcontext():
                    headers |= {"Authorization": self._auth.header(self._post)} if known else {}
                    with self._exchange("GET", url, headers=headers) as response:
                        if not response.has_redirect_location:
                            yield from _pieces(response, where)
                            return
                        url, authorized = str(httpx.URL(url).join(response.headers["location"])), False
        raise TaskError(f"{where}: redirected more than {MOST_REDIRECTS} times")

    def close(self) -> None:
        self._gate.leave(self)
        self._client.close()

    def _authorized(self, method: str, path: str, limit: int | None = None, **options: Any) -> tuple[httpx.Response, bytes]:
        found = self._send(method, path, limit, **options)
        if found[0].status_code == HTTPStatus.UNAUTHORIZED and self._auth.renew():
            found = self._send(method, path, limit, **options)
        return found

    def _send(
        self, method: str, path: str, limit: int | None = None, headers: Mapping[str, str] | None = None, **options: Any
    ) -> tuple[httpx.Response, bytes]:
        with self._gate.turn() as self._retry.own.began:  # a token may expire in line
            headers = {"Authorization": self._auth.header(self._post), **(headers or {})}
            return self._receive(method, path, limit, headers=headers, **options)

    def _receive(self, method: str, path: str, limit: int | None = None, **options: Any) -> tuple[httpx.Response, bytes]:
        with self._lock:
            self.requests += 1
        where, content = f"{method} {self._base}{path}", bytearray()
        with _translated(where), self._exchange(method, path, **options) as response:
            for part in response.iter_bytes():
                content += part
                if limit is not None and len(content) > limit:
                    raise TaskError(f"{where}: an answer of more than {limit} bytes")
        return response, bytes(content)

    @contextmanager
    def _exchange(self, method: str, url: str, **options: Any) -> Iterator[httpx.Response]:
        with self._client.stream(method, url, **options) as response:
            yield response
        del response.stream  # it holds the response: left alone, each waits with 10 KB for Python to look for cycles, which is rare

    def _judge(self, response: httpx.Response, content: bytes, *, absent: bool) -> Answer:
        """What a response is: an Answer, or the error its status and content stand for."""
        status = response.status_code
        detail = _detail(content) if status >= HTTPStatus.BAD_REQUEST else ""
        where = f"{response.request.method} {self._base}{response.request.url.path.removeprefix(self._base.path.rstrip('/'))}"
        if status >= HTTPStatus.BAD_REQUEST and not (absent and status == HTTPStatus.NOT_FOUND and detail):
            raise self._fault(response, where, detail)
        if status >= HTTPStatus.MULTIPLE_CHOICES and status < HTTPStatus.BAD_REQUEST:
            target = discreet(response.headers.get("location", "").partition("?")[0])  # what follows may be a secret
            raise SourceError(f"{where}: redirected to {target[:_SHOWN]}; redirects are not followed, give the right address as url")
        kind = _kind(response)
        if not kind.endswith("json"):
            raise SourceError(
                f"{where}: answered {status} with {kind or 'no content type'} instead of JSON: a login page or another server? check url"
            )
        try:
            body = encode.parse(content)
        except TaskError as error:
            raise _BrittleError(f"{where}: {error}") from None
        return Answer(status, body, len(content), _asked_at(response))

    def _fault(self, response: httpx.Response, where: str, detail: str) -> Exception:
        status = response.status_code
        said = f"{where}: {status} {response.reason_phrase}" + (f" ({detail})" if detail else "")
        if status in _DENIED:
            return AccessError(f"{said}; {self._explain(detail)}")
        if status in _BRITTLE:
            return _BrittleError(said, _retry_after(response))
        if status in _BUSY or status > HTTPStatus.INTERNAL_SERVER_ERROR:
            return TransientError(said, _retry_after(response))
        return SourceError(f"{said}; check url, and that the server is one syncd knows")


@contextmanager
def _translated(where: str, bad_url: type[SyncdError] = SourceError) -> Iterator[None]:
    """What httpx raises, as syncd's errors."""
    try:
        yield
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError, UnicodeError):  # their words show the token
        raise bad_url(f"{where}: this address or the token holds what neither may hold: check both") from None
    except httpx.ReadTimeout:
        raise _BrittleError(f"{where}: no answer in time") from None
    except (httpx.ReadError, httpx.RemoteProtocolError, httpx.DecodingError) as error:  # resets, truncated bodies, undecodable gzip
        raise _BrittleError(f"{where}: {str(error) or type(error).__name__}") from None
    except httpx.HTTPError as error:  # nobody listens, no name, TLS
        raise TransientError(f"{where}: {str(error) or type(error).__name__}") from None


def _pieces(response: httpx.Response, where: str) -> Iterator[bytes]:
    status = response.status_code
    if status in _BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise TransientError(f"{where}: {status} {response.reason_phrase}", _retry_after(response))
    if status not in {HTTPStatus.OK, HTTPStatus.NO_CONTENT} or _kind(response) == "text/html":
        raise TaskError(f"{where}: {status} {response.reason_phrase}, {_kind(response) or 'no content type'}")
    yield from response.iter_bytes()


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = httpx.URL(url)
    return parts.scheme, parts.host, parts.port


def _kind(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip()


def _detail(content: bytes) -> str:
    """The server's own words of a JSON error; empty when it is none (an HTML page, say)."""
    try:
        body = json.loads(content)
    except ValueError:
        return ""
    if not isinstance(body, dict):
        return ""
    wrong = json.dumps(body["validation_errors"]) if body.get("validation_errors") else ""
    return discreet(" ".join(part for part in (str(body.get("detail") or ""), wrong) if part))[:_SHOWN]


def _asked_at(response: httpx.Response) -> int | None:
    date = _date(response)
    return None if date is None else date - int(response.elapsed.total_seconds() * SECOND)


def _date(response: httpx.Response, name: str = "date") -> int | None:
    """A header's HTTP date, microseconds."""
    try:
        return int(parsedate_to_datetime(response.headers.get(name, "")).timestamp()) * SECOND
    except ValueError:
        return None


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds, from either form of Retry-After; a date counts from the server's own clock."""
    text = response.headers.get("retry-after", "")
    if text.strip().isdigit():
        return float(text)
    until, now = _date(response, "retry-after"), _date(response)
    return None if until is None or now is None else max(0.0, (until - now) / SECOND)
