"""Trouble on demand for the stand-in for Labelbox. A planned fault that never came to pass fails the test that planned it.

A fault is given a function that makes the true answer and returns what is sent instead; whether it calls it decides if the request takes effect.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.fakes.labelbox_exports import Export
from tests.fakes.labelbox_files import problem
from tests.fakes.web import Answer, Drop

Fault = Callable[[Callable[[], Answer]], Answer]
_JSON = ("Content-Type", "application/json")


@dataclass(slots=True)
class Plan:
    """`times` None: until `stop`. `after`: so many that match pass unharmed first."""

    on: str
    what: Callable[[Any], Any]
    times: int | None
    after: int
    fired: int = 0
    stopped: bool = False

    def takes(self) -> bool:
        """Whether it strikes now; counts."""
        if self.stopped or self.fired == self.times:
            return False
        if self.after:
            self.after -= 1
            return False
        self.fired += 1
        return True

    def stop(self) -> None:
        self.stopped = True

    @property
    def kept(self) -> bool:
        """Whether it happened as often as planned."""
        return self.fired == self.times or (self.times is None and self.fired > 0)


class Plans:
    """What will go wrong."""

    def __init__(self) -> None:
        self._all: list[Plan] = []

    def add(self, plan: Plan) -> Plan:
        self._all.append(plan)
        return plan

    def strike(self, names: Sequence[str]) -> Plan | None:
        """The first plan about one of these names that strikes now."""
        return next((plan for plan in self._all if plan.on in names and plan.takes()), None)

    def unkept(self) -> list[str]:
        return [f"{plan.on}: happened {plan.fired} of {plan.times or 'at least 1'} times" for plan in self._all if not plan.kept]


def errors(code: str, message: str, status: int = 200, *, headers: Sequence[tuple[str, str]] = (), exception: int | None = None) -> Answer:
    """GraphQL's own error shape."""
    extensions = {"code": code} | ({"exception": {"status": exception}} if exception else {})
    body = {"errors": [{"message": message, "extensions": extensions}], "data": None}
    return Answer(status, json.dumps(body).encode(), [_JSON, *headers])


def refused(code: str, message: str = "no", status: int = 200) -> Fault:
    return lambda _: errors(code, message, status)


def status(number: int, body: bytes = b"") -> Fault:
    """A bare HTTP status, as a proxy or load balancer in between sends it."""
    return lambda _: Answer(number, body or f"{number} from somewhere in between".encode(), [("Content-Type", "text/plain")])


def invalid_key(_: Callable[[], Answer]) -> Answer:
    return errors("AUTHENTICATION_ERROR", "Invalid API key", 401)


def rate_limited(retry_after: str | None = None) -> Fault:
    headers = [_JSON] + ([("Retry-After", retry_after)] if retry_after is not None else [])
    return lambda _: Answer(429, b'{"message": "You have exceeded the number of requests allowed in a minute."}', headers)


def html(_: Callable[[], Answer]) -> Answer:
    """A login page with 200."""
    return Answer(200, b"<!doctype html><title>Sign in</title>", [("Content-Type", "text/html")])


def drop(_: Callable[[], Answer]) -> Answer:
    raise Drop


def lost(number: int | None = 500) -> Fault:
    """The request takes effect, the answer is an error all the same; None: no answer at all."""

    def fault(run: Callable[[], Answer]) -> Answer:
        run()
        if number is None:
            raise Drop
        return errors("INTERNAL_SERVER_ERROR", "Something went wrong", number)

    return fault


def cut(size: int) -> Fault:
    """The connection is reset after so many bytes of the body."""
    return lambda run: replace(run(), cut=size)


def short(size: int) -> Fault:
    """The body ends after so many bytes, and its Content-Length says so."""
    return lambda run: replace(answer := run(), body=answer.body[:size])


def edited(change: Callable[[Any], Any]) -> Fault:
    """The true `data`, changed in place or replaced by what is returned."""

    def fault(run: Callable[[], Answer]) -> Answer:
        answer = run()
        body = json.loads(answer.body)
        changed = change(body["data"])
        return replace(answer, body=json.dumps(body if changed is None else {"data": changed}).encode())

    return fault


def expired(_: Callable[[], Answer]) -> Answer:
    """The store finds the address of a file too old."""
    return problem(400, "ExpiredToken")


def null_header(run: Callable[[], Answer]) -> Answer:
    return edited(lambda _: {"task": {"exportMetadataHeader": None}})(run)


def zero_header(run: Callable[[], Answer]) -> Answer:
    return edited(lambda _: {"task": {"exportMetadataHeader": {"totalSize": 0, "totalLines": 0}}})(run)


def numbers_as_strings(run: Callable[[], Answer]) -> Answer:
    def spelled(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: spelled(part) for name, part in value.items()}
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    return edited(spelled)(run)


# Faults of exports: `Labelbox.plan_export` hands them each new export of the key's owner.


def ends(status: str) -> Callable[[Export], None]:
    """FAILED, CANCELED, or any other end."""
    return lambda export: setattr(export, "ending", status)


def stuck(export: Export) -> None:
    """IN_PROGRESS for ever."""
    export.polls = 1 << 30


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Export], None]:
    """The lines of the result, each with its newline, changed: some left out, repeated, spoiled."""

    def fault(export: Export) -> None:
        found = export.result.tail.split(b"\n")
        export.result.tail = b"".join(change([line + b"\n" for line in found[:-1]]))

    return fault


def error_lines(*found: bytes) -> Callable[[Export], None]:
    """More lines on the other stream."""

    def fault(export: Export) -> None:
        export.errors.tail += b"".join(found)

    return fault
