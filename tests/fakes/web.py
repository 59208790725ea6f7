"""A small threaded HTTP/1.1 server that the fakes stand on: whole requests in, whole answers out, and the ways a connection can die.

It listens on the loopback address only, keeps connections alive, and knows nothing of what it serves. A request whose body does not arrive whole
(the client was killed) is never handed on. Leaving the `with` block closes the open connections too, so a stopped server is really gone.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl

_DROPS = 20  # that a slow body comes in


class Drop(Exception):  # noqa: N818 - an instruction to the server, not a fault
    """Raised by a handler: reset the connection and answer nothing."""


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request; `target` is the path and query exactly as sent, still percent-encoded."""

    method: str
    target: str
    headers: Message
    body: bytes
    connection: socket.socket

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    def wait_gone(self, seconds: float) -> None:
        """Return when the client has hung up, or after so many seconds."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(OSError):
            while (left := deadline - time.monotonic()) > 0:
                if select.select([self.connection], [], [], left)[0] and not self.connection.recv(1, socket.MSG_PEEK):
                    return
                time.sleep(0.005)  # a client that sends more before it has its answer must not make this spin


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer. `cut`: promise the whole body, send only so many bytes of it, then reset the connection; `lasting`: seconds it takes."""

    status: int = 200
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = ()
    cut: int | None = None
    lasting: float = 0.0


@dataclass(slots=True)
class _Connections:
    """The open client connections, so that stopping the server can end them."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    open: set[socket.socket] = field(default_factory=set)

    def close(self) -> None:
        with self.lock:
            for connection in self.open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, handle: Callable[[Request], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = handle
        self.connections = _Connections()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is ordinary; anything else is a bug of the fake and is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # typeshed narrows what the base only prints


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Every method is served alike; the standard library looks for `do_GET` and the like."""
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def setup(self) -> None:
        super().setup()
        with self.server.connections.lock:
            self.server.connections.open.add(self.connection)

    def finish(self) -> None:
        with self.server.connections.lock:
            self.server.connections.open.discard(self.connection)
        super().finish()

    def _serve(self) -> None:
        try:
            self._send(self.server.answer(Request(self.command, self.path, self.headers, self._body(), self.connection)))
        except Drop:
            self._reset()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self._chunks()
        return self._exactly(int(self.headers.get("Content-Length") or 0))

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0] or b"0", 16):
            parts.append(self._exactly(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers end with an empty line
        return b"".join(parts)

    def _exactly(self, size: int) -> bytes:
        data = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionResetError("the client left in the middle of its request")
        return data

    def _send(self, answer: Answer) -> None:
        headers, given = list(answer.headers), {name.lower() for name, _ in answer.headers}
        if "date" not in given:
            headers.append(("Date", self.date_time_string()))
        if answer.status not in {204, 304} and "content-length" not in given:
            headers.append(("Content-Length", str(len(answer.body))))
        reason = self.responses.get(answer.status, ("Unknown", ""))[0]
        head = f"HTTP/1.1 {answer.status} {reason}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n"
        body = b"" if self.command == "HEAD" else answer.body[: answer.cut]
        self.connection.sendall(head.encode("latin-1"))
        drop = max(1, len(body) // _DROPS) if answer.lasting else len(body) + 1
        for start in range(0, len(body), drop):
            time.sleep(answer.lasting / _DROPS)
            self.connection.sendall(body[start : start + drop])
        if answer.cut is not None:
            self._reset()

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())  # now, not when the last file object on it is closed

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name the standard library gives it
        """Tests print what matters themselves."""


class WebServer:
    """`with WebServer(handle) as server: server.url`. `handle` is called from many threads at a time."""

    def __init__(self, handle: Callable[[Request], Answer]) -> None:
        self._http = _Server(handle)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._http.connections.close()
        self._thread.join()
