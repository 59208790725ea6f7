"""A stand-in for Labelbox: the wire protocol that the vendor's SDK 7.17 speaks, in memory, for tests that need trouble on demand.

`tests/contract/test_labelbox_sdk.py` shows that the SDK takes it for the real one. What neither SDK nor documents tell of the server is a guess here,
on the side that is harder for a client. A test's manual:

    with Labelbox() as box:
        box.clock = lambda: 1_700_000_000_000_000          microseconds; dates everything, the Date header too
        cats = box.project("Cats")
        one, two = cats.add({"labels": [image("a cat")]}, {})
        cats.edit_label(one, image("a dog"))               label, delete_label, review, touch, set_status, remove, join, ...
        box.delete(two)                                    edit_metadata; silent(row, attachments=[...]) is what no filter tells
        ...                                                read box.url with box.key
        box.count("exportDataRowsInProject")               every request is in box.log
        box.plan("exportFileFromOffset", drop)             labelbox_faults has more; one that never happens fails the test
        box.plan_export(ends("FAILED"))
        box.exports.polls = 2                              exports answer IN_PROGRESS twice; box.exports.seconds: by the clock
        box.index_lag = 30                                 seconds until exports and filters see a change
        box.files.chunk_size = 1000                        files end anywhere, in a character too
        cats.virtual = 200_000                             more data rows, made from their number when asked for: no memory, any number

`python -m tests.fakes.labelbox N` serves a project of N such rows until stdin closes, in a process of its own, and prints address, key and id.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import formatdate
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.fakes import labelbox_faults as faults
from tests.fakes.labelbox_exports import MUTATIONS, Export, Exports
from tests.fakes.labelbox_files import Files
from tests.fakes.labelbox_graphql import Refused, parse, run
from tests.fakes.labelbox_schema import Box, root
from tests.fakes.labelbox_world import World
from tests.fakes.web import Answer, Request, WebServer

_MINUTE = 60_000_000


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `names`: what plans and counts may call it: the fields asked for, two levels deep, or what kind of file it was."""

    names: tuple[str, ...]
    variables: Mapping[str, Any]
    at: int
    status: int | None  # None: no answer


class Labelbox(World):
    """The server. `url` is where its GraphQL lives, `key` opens it; `per_minute` limits requests."""

    def __init__(self) -> None:
        super().__init__()
        self.key = "eyJhbGciOiJIUzI1NiJ9.stand-in"
        self.per_minute: int | None = None
        self.log: list[Call] = []
        self.exports = Exports(self)
        self.files = Files(self, self.exports)
        self._plans = faults.Plans()
        self._api = WebServer(self._answer)
        self._store = WebServer(self._stored)
        self.files.url = self._store.url.replace("127.0.0.1", "localhost")  # another host than the API's
        self.url = f"{self._api.url}/graphql"

    def __enter__(self) -> Self:
        self._api.__enter__()
        self._store.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._store.__exit__(kind, error, trace)
        self._api.__exit__(kind, error, trace)
        if kind is None:
            assert not self._plans.unkept(), f"planned faults that did not happen: {self._plans.unkept()}"
            assert not self.files.leaks, f"the API key was sent to another host: {self.files.leaks}"

    def plan(self, on: str, fault: faults.Fault, *, times: int | None = 1, after: int = 0) -> faults.Plan:
        """Let requests of this name go wrong. `any` is every request, `graphql` each query; `file`, `mask`, `frames` are downloads."""
        return self._plans.add(faults.Plan(on, fault, times, after))

    def plan_export(self, change: Callable[[Export], None], *, times: int | None = 1, after: int = 0) -> faults.Plan:
        """Let exports that are started from now on go wrong."""
        return self._plans.add(faults.Plan("export", change, times, after))

    def count(self, name: str) -> int:
        """How many requests of this name came in."""
        return sum(name in call.names for call in self.log)

    def _answer(self, request: Request) -> Answer:
        path = urlsplit(request.target).path
        if path not in {"/graphql", "/_gql"}:
            name = "mask" if "/masks/" in path else "frames"
            return self._through((name, "any"), {}, lambda: self._refusal(request) or self.files.api(path))
        try:
            asked = json.loads(request.body)
            operation = parse(asked["query"])
        except (ValueError, KeyError, TypeError, Refused) as error:
            code, status = (error.code, error.status) if isinstance(error, Refused) else ("MALFORMED_REQUEST", 400)
            answer = faults.errors(code, str(error), status)
            return self._through(("graphql", "any"), {}, lambda: answer)
        names = [each.name for top in operation.fields for each in (top, *top.fields)]
        variables = asked.get("variables") or {}
        return self._through((*names, "graphql", "any"), variables, lambda: self._refusal(request) or self._graphql(operation, variables))

    def _stored(self, request: Request) -> Answer:
        name = "file" if request.path.startswith("/exports/") else "frames_file"
        return self._through((name, "any"), {}, lambda: self.files.store(request))

    def _through(self, names: Sequence[str], variables: Mapping[str, Any], make: Callable[[], Answer]) -> Answer:
        """The answer, unless a planned fault or the budget comes between; logged and dated."""
        with self.lock:
            plan = self._plans.strike(names)
            at, place = self.clock(), len(self.log)
            self.log.append(Call(tuple(names), variables, at, None))
            answer = plan.what(make) if plan else make()
            self.log[place] = replace(self.log[place], status=answer.status)
            return replace(answer, headers=[*answer.headers, ("Date", formatdate(at // 1_000_000, usegmt=True))])

    def _refusal(self, request: Request) -> Answer | None:
        if request.headers.get("Authorization") != f"Bearer {self.key}":
            return faults.errors("AUTHENTICATION_ERROR", "Invalid API key", 401)
        if self.per_minute is None:
            return None
        minute, passed = divmod(self.clock(), _MINUTE)
        asked = sum(call.at // _MINUTE == minute and call.names[0] not in {"file", "frames_file"} for call in self.log)
        return faults.rate_limited(str(-((passed - _MINUTE) // 1_000_000)))(Answer) if asked > self.per_minute else None

    def _graphql(self, operation: Any, variables: Mapping[str, Any]) -> Answer:
        box = Box(self, self.exports, self.files, self._api.url)
        known = set(self.exports.tasks)
        try:
            data = run(operation, root(box), variables)
        except Refused as refused:
            return faults.errors(refused.code, str(refused), refused.status)
        if operation.fields[0].name in MUTATIONS:
            for task in self.exports.tasks.keys() - known:
                plan = self._plans.strike(["export"])
                if plan:
                    plan.what(self.exports.tasks[task])
        return Answer(200, json.dumps({"data": data}).encode(), [("Content-Type", "application/json")])


def main(count: int) -> None:
    with Labelbox() as box:
        million = box.project("Million")
        million.virtual = count
        print(box.url, box.key, million.id, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]))
