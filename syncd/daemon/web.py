"""The daemon's HTTP surface: which address answers what, to whom, with which headers.

| path | who may ask | answer |
|---|---|---|
| `/`, `/syncs/<name>`, `/static/*`, `/metrics` | the user, when `http.username` is set | the page, its parts, Prometheus' text |
| `/healthz` | everybody | 200 while Runs would begin, else 503 |
| `/readyz` | everybody; the reasons only for the user | 200 or 503 |
| `POST /hooks/<name>` | who proves the Sync's own secret | see `hooks` |

Rules: nothing here changes anything but a hook's wake-up; an answer holds no secret and no annotation; a fault is one calm page, its traceback goes
to the log; strangers can neither fill the log nor use up the process' files. On a loopback address without a password only requests that name no
foreign host are answered: else a web page that its owner lets resolve to 127.0.0.1 could read this one (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import ipaddress
import itertools
import json
import logging
import mimetypes
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from operator import attrgetter

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from syncd.config.shape import Http
from syncd.daemon.hooks import Hooks
from syncd.daemon.metrics import CONTENT_TYPE, metrics
from syncd.daemon.page import STATIC, Page
from syncd.daemon.service import Service
from syncd.errors import SyncdError

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
MOST = 100  # connections; the files of a process are few (1,024, often), and Runs need them too
_FOREVER = "private, max-age=31536000, immutable"  # the address of a static file changes with its content

log = logging.getLogger("syncd.web")


class _Connection(H11Protocol):
    """One of MOST at a time: one more ends the oldest, so that who sends nothing, or reads nothing, keeps nobody out."""

    _numbers = itertools.count()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        self.begun = next(self._numbers)
        super().connection_made(transport)
        if len(self.connections) > MOST:
            oldest = min(self.connections, key=attrgetter("begun"))
            self.connections.discard(oldest)
            oldest.transport.abort()


class Server:
    """The running server, in its own thread. address: host and port that it is really bound to."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        self.address: tuple[str, int] = listener.getsockname()[:2]
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # below it strangers could fill the log
        config = uvicorn.Config(
            app, http=_Connection, backlog=MOST, loop="asyncio", ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
            proxy_headers=False, timeout_graceful_shutdown=2,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._listener = listener
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="http", daemon=True)
        self._thread.start()  # calls that come before it serves wait in the listener's queue

    def stop(self) -> None:
        """Take no more calls, let those under way end, free the address."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # who is too slow is cut off, which it would tell as a fault
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()


def serve(service: Service, http: Http) -> Server:
    """Answer at `http.listen`. Raises SyncdError when the address can't be had."""
    host, _, port = http.listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = family is socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server((host.strip("[]"), int(port)), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise SyncdError(f"http: can't listen at {http.listen}: {error.strerror}; end what uses it, or give another address in the config") from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio does so for its own sockets only; without it an answer takes 40 ms
    loopback = ipaddress.ip_address(listener.getsockname()[0]).is_loopback
    if not loopback and not http.password:
        log.warning("http: %s is open to whoever reaches it: set http.username and http.password, or listen at 127.0.0.1", http.listen)
    return Server(_gated(_Site(service, http).app, http, check_host=loopback and not http.password), listener)


class _Site:
    """What each path answers."""

    def __init__(self, service: Service, http: Http) -> None:
        self._service, self._http, self._page = service, http, Page(service)
        routes = [
            Route("/healthz", self._healthz), Route("/readyz", self._readyz), Route("/metrics", self._scrape),
            Route("/", self._index), Route("/syncs/{name:path}", self._sync), Route("/static/{name}", self._static),
            Route("/hooks/{name:path}", Hooks(service).take, methods=["POST"]),
        ]  # fmt: skip
        self.app = Starlette(routes=routes, exception_handlers={HTTPException: self._fault, SyncdError: self._fault, Exception: self._fault})

    async def _healthz(self, _: Request) -> Response:
        return PlainTextResponse("ok\n") if self._service.alive() else PlainTextResponse("no Run begins any more\n", 503)

    def _readyz(self, request: Request) -> Response:
        reasons = list(self._service.unready())
        told = {"ready": not reasons} | ({"reasons": reasons} if known(self._http, request.headers) else {})
        return Response(json.dumps(told, indent=1) + "\n", 503 if reasons else 200, media_type="application/json")

    def _scrape(self, _: Request) -> Response:
        return Response(metrics(self._service), headers={"Content-Type": CONTENT_TYPE})

    def _index(self, request: Request) -> Response:
        return _html(self._page.index(request.query_params.get("state", "")))

    def _sync(self, request: Request) -> Response:
        html = self._page.sync(request.path_params["name"])
        return _html(html or self._page.fault(404), 200 if html else 404)

    def _static(self, request: Request) -> Response:
        if file := STATIC.get(name := request.path_params["name"]):
            return Response(file, media_type=mimetypes.guess_type(name)[0], headers={"Cache-Control": _FOREVER})
        raise HTTPException(404)

    def _fault(self, _: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            return _html(self._page.fault(error.status_code), error.status_code, error.headers)
        status, words = (503, str(error)) if isinstance(error, SyncdError) else (500, "")
        return _html(self._page.fault(status, words), status)


def _html(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Names of files and words of others need not be Unicode."""
    return HTMLResponse(text.encode(errors="backslashreplace"), status, headers)


def _gated(app: ASGIApp, http: Http, *, check_host: bool) -> ASGIApp:
    """Around everything, faults included: who may ask, and the headers that each answer has."""

    async def gated(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        everybody = scope["path"] in {"/healthz", "/readyz"} or scope["path"].startswith("/hooks/")
        refusal = None if everybody else _refusal(Headers(scope=scope), http, check_host=check_host)
        await (refusal or app)(scope, receive, send_on)

    return gated


def _refusal(headers: Mapping[str, str], http: Http, *, check_host: bool) -> Response | None:
    if check_host and not _own_host(headers.get("host", "")):
        words = "This page answers only at its own address. Behind a proxy, set http.username and http.password in the config.\n"
        return PlainTextResponse(words, 421)
    if not known(http, headers):
        return PlainTextResponse("syncd asks for a user name and a password.\n", 401, {"WWW-Authenticate": 'Basic realm="syncd", charset="UTF-8"'})
    return None


def known(http: Http, headers: Mapping[str, str]) -> bool:
    """Whether the user asks, or everybody may. Compared in constant time."""
    if http.username is None or http.password is None:  # they come together
        return True
    scheme, _, word = headers.get("authorization", "").partition(" ")
    right = base64.b64encode(f"{http.username}:{http.password.get_secret_value()}".encode())
    return hmac.compare_digest(word.strip().encode("latin-1"), right) and scheme.lower() == "basic"


def _own_host(host: str) -> bool:
    """Whether a Host header names an address or a name without dots: nobody outside can make such a name resolve to this machine."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    with suppress(ValueError):
        return bool(ipaddress.ip_address(name.strip("[]")))
    return bool(name) and "." not in name
