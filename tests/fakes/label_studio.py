"""A stand-in for Label Studio: the wire behaviour of 1.23.2 for what a Source reads, in memory, for tests that need trouble on demand.

`tests/live/test_stand_in.py` asks the real server and this one the same questions and compares the answers; where they differ, this one is wrong.
A test's manual:

    with StandIn() as studio:
        cats = studio.project("Cats")
        ids = cats.add([{"data": {"text": "a"}, "annotations": [{"result": []}]}])
        ...                             read studio.url with studio.token (legacy) or studio.pat (personal access token)
        studio.requests                 every request: method, path, params
        studio.instead = lambda request: html_login() if request.path == "/api/tasks" else None      trouble; None answers as usual
        studio.clock = lambda: 1_700_000_000_000_000       microseconds; stamps rows and the Date header

`StandIn.million(n)` holds a project of n tasks that are made from their id when asked for: no memory, any n; all may be edited and deleted.
`label_studio_scale` serves one in a process of its own. Writing is by methods, never by HTTP.
"""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import orjson

from tests.fakes.label_studio_project import EMAIL, Project
from tests.fakes.label_studio_rows import Rejected, Row
from tests.fakes.label_studio_template import Template

VERSION = "1.23.2"
LONGEST_TARGET = 16383
_ACCESS_SECONDS = 300
_PROJECTS, _MOST_PROJECTS = 30, 100  # a page of projects
_HTML = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    params: dict[str, str]
    authorization: str = ""
    body: bytes = b""


@dataclass(slots=True)
class Reply:
    """`reset`: close the connection without an answer; `cut`: promise the whole body and send half of it."""

    status: int
    body: bytes = b""
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    reset: bool = False
    cut: bool = False


def reply(value: object, status: int = 200) -> Reply:
    return Reply(status, orjson.dumps(value))


def error(status: int, detail: str, **more: object) -> Reply:
    """An error in the server's own shape. Its `id` looks like an object's id and is none."""
    shape = {"id": str(uuid.uuid4()), "status_code": status, "version": VERSION, "detail": detail, "exc_info": None, **more}
    found = reply(shape, status)
    if status == 401:
        found.headers["WWW-Authenticate"] = "Token"
    return found


def html(status: int) -> Reply:
    return Reply(status, b'<!doctype html>\n<html lang="en"><head><title>Label Studio</title></head><body></body></html>', _HTML)


def html_login() -> Reply:
    """What a proxy's single sign-on page looks like: 200 and HTML."""
    return html(200)


def _jwt(kind: str, expires: int) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(orjson.dumps(value)).rstrip(b"=").decode()

    payload = {"token_type": kind, "exp": expires, "jti": uuid.uuid4().hex, "user_id": "1"}
    return f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(payload)}.{'x' * 43}"


class StandIn:
    """The server. Its projects share one id sequence for tasks, as on the real one."""

    def __init__(self) -> None:
        self.clock: Callable[[], int] = lambda: time.time_ns() // 1000
        self.token = "0123456789abcdef0123456789abcdef01234567"
        self.pat = _jwt("refresh", 10_000_000_000)
        self.legacy_allowed = True
        self.pat_revoked = False
        self.users: list[dict[str, Any]] = [{"id": 1, "first_name": "Ann", "last_name": "Lee", "email": EMAIL}]
        self.projects: dict[int, Project] = {}
        self.requests: list[Request] = []
        self.instead: Callable[[Request], Reply | None] = lambda _: None
        self.next_task = 1
        self.lock = threading.RLock()
        self._access: dict[str, int] = {}
        self._templates: dict[tuple[object, ...], Template] = {}
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.studio = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @classmethod
    def million(cls, n: int, projects: int = 1) -> Self:
        """Projects titled Million, each with n tasks of 2 KB with one or two annotations and none or one prediction; ids from 1 on."""
        studio = cls()
        for _ in range(projects):
            studio.project("Million", virtual=n)
        return studio

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def project(self, title: str, *, project_id: int | None = None, virtual: int = 0, **fields: Any) -> Project:
        """A new project; `project_id` makes one with the id of a removed one."""
        with self.lock:
            made = Project(self, project_id or max(self.projects, default=0) + 1, title, virtual=virtual, **fields)
            self.projects[made.id] = made
            return made

    def expire_access_tokens(self) -> None:
        self._access.clear()

    def user(self, user_id: int) -> dict[str, Any]:
        return next(user for user in self.users if user["id"] == user_id)

    def paths(self) -> list[str]:
        """The requests as `GET /api/tasks`, in order."""
        return [f"{request.method} {request.path}" for request in self.requests]

    def answer(self, request: Request) -> Reply:
        with self.lock:
            self.requests.append(request)
            found = self.instead(request)
            if found is not None:
                return found
            if request.path == "/api/token/refresh/" and request.method == "POST":
                return self._refresh(request)
            refused = self._refused(request.authorization)
            if refused:
                return error(401, refused)
            with suppress(_NoSuchPageError):
                return self._read(request)
            return html(404)

    def _refresh(self, request: Request) -> Reply:
        refresh = orjson.loads(request.body or b"{}").get("refresh")
        if refresh is None:
            return error(400, "Validation error", validation_errors={"refresh": ["This field is required."]})
        if refresh != self.pat or self.pat_revoked:
            refused = error(401, "Token is blacklisted" if refresh == self.pat else "Token is invalid")
            refused.headers["WWW-Authenticate"] = 'Bearer realm="api"'
            return refused
        expires = self.clock() // 1_000_000 + _ACCESS_SECONDS
        access = _jwt("access", expires)
        self._access[access] = expires
        return reply({"access": access})

    def _refused(self, authorization: str) -> str:
        scheme, _, secret = authorization.partition(" ")
        if scheme == "Token" and secret != self.token:
            return "Invalid token."
        if scheme == "Token":
            disabled = "Authentication token no longer valid: legacy token authentication has been disabled for this organization"
            return "" if self.legacy_allowed else disabled
        if scheme == "Bearer" and self._access.get(secret, 0) > self.clock() // 1_000_000:
            return ""
        return "Authentication credentials were not provided."

    def _read(self, request: Request) -> Reply:
        parts = [part for part in request.path.split("/") if part]
        if request.method != "GET" or parts[:1] != ["api"]:
            raise _NoSuchPageError
        match parts[1:]:
            case ["users"]:
                return reply([self._user_shape(user) for user in self.users])
            case ["current-user", "whoami"]:
                return reply(self._user_shape(self.users[0]))
            case ["projects"]:
                return self._list_projects(request)
            case ["projects", number] if number.isdigit():
                project = self.projects.get(int(number))
                return reply(project.shape()) if project else error(404, "No Project matches the given query.")
            case ["tasks"]:
                return self._list_tasks(request.params)
            case ["tasks", number, *more] if number.isdigit() and more in ([], ["drafts"]):
                return self._one_task(int(number), request.params, drafts=bool(more))
        raise _NoSuchPageError

    @staticmethod
    def _user_shape(user: dict[str, Any]) -> dict[str, Any]:
        initials = (user["first_name"][:1] + user["last_name"][:1]) or user["email"][:2]
        return {"username": user["email"].partition("@")[0], "avatar": None, "initials": initials, "active_organization": 1} | user

    def _list_projects(self, request: Request) -> Reply:
        order = request.params.get("ordering", "-id")
        found = sorted(self.projects.values(), key=lambda project: getattr(project, order.lstrip("-")), reverse=order.startswith("-"))
        chosen = _page(len(found), request.params, default=_PROJECTS, most=_MOST_PROJECTS)
        if chosen is None:
            return error(404, "Invalid page.")
        start, end = chosen
        size = min(_MOST_PROJECTS, _positive(request.params.get("page_size"), _PROJECTS))

        def link(page: int) -> str:
            rest = {name: value for name, value in request.params.items() if name != "page"} | ({"page": str(page)} if page > 1 else {})
            return f"{self.url}{request.path}?" + "&".join(f"{name}={value.replace(',', '%2C')}" for name, value in sorted(rest.items()))

        number = start // size + 1
        after, before = link(number + 1) if end < len(found) else None, link(number - 1) if number > 1 else None
        results = [_trim(project.shape(), request.params) for project in found[start:end]]
        return reply({"count": len(found), "next": after, "previous": before, "results": results})

    def _list_tasks(self, params: dict[str, str]) -> Reply:
        if "project" not in params:
            return reply({"detail": "Neither project nor view id specified"}, 404)
        project = self.projects.get(int(params["project"]))
        if project is None:
            return error(404, "No Project matches the given query.")
        try:
            found = project.select(_query(params.get("query") or "{}"))
        except Rejected as rejected:
            wrong = {"validation_errors": {"non_field_errors": [str(rejected)]}} if rejected.status == 400 else {}
            return error(rejected.status, "Validation error" if wrong else str(rejected), **wrong)
        chosen = _page(found.total, params, default=100)
        if chosen is None:
            return error(404, "Invalid page.")
        expanded = params.get("expand") == "annotations.completed_by"

        def render(row: Row) -> bytes:
            shape = project.render(row, everything=params.get("fields") == "all", asked=found.columns)
            if expanded:
                self._expand(shape)
            shape = _trim(shape, params, nested=not expanded)
            if row.poison and "data" in shape:
                raise _PoisonedError
            return orjson.dumps(shape)

        view = project.id, *(params.get(name) for name in ("fields", "expand", "include", "omit")), found.columns
        try:
            tasks = b",".join([self._fill(project, row, view, render) for row in found.rows(*chosen)])
        except _PoisonedError:
            return html(500)
        counts = found.annotations, found.predictions, found.total
        return Reply(200, b'{"total_annotations":%d,"total_predictions":%d,"total":%d,"tasks":[%b]}' % (*counts, tasks))

    def _fill(self, project: Project, row: Row, view: tuple[object, ...], render: Callable[[Row], bytes]) -> bytes:
        """A virtual task is not rendered again and again: all of a view look alike."""
        if row.id in project.stored:
            return render(row)
        key = (*view, row.id % 2)
        if key not in self._templates:
            self._templates[key] = Template(project.untouched, row.id % 2, render)
        return self._templates[key].fill(row)

    def _one_task(self, number: int, params: dict[str, str], *, drafts: bool) -> Reply:
        for project in self.projects.values():
            row = project.find(number)
            if row is not None and drafts:
                return reply(project.drafts(row))
            if row is not None:
                shape = _trim(self._single(project, row), params, nested=False)
                return html(500) if row.poison and "data" in shape else reply(shape)
        return reply([]) if drafts else error(404, "No Task matches the given query.")

    def _single(self, project: Project, row: Row) -> dict[str, Any]:
        shape = project.render(row, everything=True) | {"annotations_results": "", "predictions_results": ""}
        self._expand(shape)
        return shape

    def _expand(self, shape: dict[str, Any]) -> None:
        """People in full, as `expand=annotations.completed_by` shows them in a list and a single task always does."""
        for annotation in shape.get("annotations", ()):
            user = self._user_shape(self.user(annotation["completed_by"]))
            annotation["completed_by"] = {name: user[name] for name in ("id", "first_name", "last_name", "avatar", "email", "initials")}


class _NoSuchPageError(Exception):
    pass


class _PoisonedError(Exception):
    pass


def _query(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise Rejected(500, "Expected object or value") from None


def _positive(text: str | None, default: int) -> int:
    return int(text) if text and text.isdigit() and int(text) > 0 else default


def _page(total: int, params: dict[str, str], default: int, most: int = sys.maxsize) -> tuple[int, int] | None:
    """Start and end of the page asked for; None: there is no such page. An empty listing has a first page."""
    size = min(most, _positive(params.get("page_size"), default))
    last = max(1, -(-total // size))
    text = params.get("page", "1")
    number = last if text == "last" else int(text) if text.isdigit() else 0
    return ((number - 1) * size, min(number * size, total)) if 1 <= number <= last else None


def _trim(shape: dict[str, Any], params: dict[str, str], *, nested: bool = True) -> dict[str, Any]:
    """`include` and `omit`, as the server applies them: to annotations inside a listing too, never to predictions and drafts."""
    if "include" not in params and "omit" not in params:
        return shape
    include = params["include"].split(",") if "include" in params else None
    omit = params.get("omit", "").split(",")

    def keep(value: dict[str, Any]) -> dict[str, Any]:
        return {name: part for name, part in value.items() if name not in omit and (include is None or name in include)}

    trimmed = keep(shape)
    if nested and "annotations" in trimmed:
        trimmed["annotations"] = [keep(annotation) for annotation in trimmed["annotations"]]
    return trimmed


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    studio: StandIn

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no fault of the stand-in; anything else is one of ours."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # header and body leave together: two writes would wait for a delayed acknowledgement
    server: _Server

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        params = dict(parse_qsl(url.query, keep_blank_values=True))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        key = self.headers.get("X-Api-Key")
        authorization = f"Token {key}" if key else self.headers.get("Authorization", "")
        too_long = len(self.path) > LONGEST_TARGET
        request = Request(self.command, url.path, params, authorization, body)
        self._send(html(400) if too_long else self.server.studio.answer(request), close=too_long)

    do_POST = do_DELETE = do_GET  # noqa: N815 - the names the base class looks for

    def _send(self, found: Reply, *, close: bool) -> None:
        if found.reset:
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(found.status)
        self.send_header("Content-Type", found.kind)
        self.send_header("Content-Length", str(len(found.body)))
        for name, value in found.headers.items():
            self.send_header(name, value)
        if close or found.cut:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(found.body[: len(found.body) // 2] if found.cut else found.body)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(self.server.studio.clock() / 1_000_000 if timestamp is None else timestamp, usegmt=True)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Quiet: `studio.requests` is the log."""
