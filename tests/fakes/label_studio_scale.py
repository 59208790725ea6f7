"""The stand-in for Label Studio at scale: a million tasks of 2 KB in one project, or in a thousand, in a process of its own.

    with scale(1_000_000) as studio: ...                     # studio.url, studio.token
    python -m tests.fakes.label_studio_scale 1000 --projects 1000 --latency-ms 5         # prints its address and token

It holds nothing of a task but what was changed, and tells what it was asked. Beside the server's own requests it knows, as GET:
    /-/edit?k=10&project=1       PATCH the data of so many tasks, scattered; /-/annotate, /-/delete and /-/add alike; /-/predict: undated
    /-/stats                     {"requests": {kind: count}, "at_a_time": the most requests under way at once, "cpu": seconds}
    /-/reset                     the same, and counts from zero
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from urllib.request import urlopen

from tests.fakes.label_studio import Reply, Request, StandIn, reply
from tests.fakes.label_studio_project import Project


class Scale(StandIn):
    latency = 0.0

    def __init__(self) -> None:
        super().__init__()
        self._random = Random(20)
        self._counting = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._seen: Counter[str] = Counter()
        self._under_way = self._most = 0
        self._cpu = time.process_time()

    def answer(self, request: Request) -> Reply:
        if request.path.startswith("/-/"):
            return reply(self._told(request.path[3:], request.params))
        with self._counting:
            self._seen[kind(request)] += 1
            self._under_way += 1
            self._most = max(self._most, self._under_way)
        time.sleep(self.latency)
        found = super().answer(request)
        self.requests.clear()
        with self._counting:
            self._under_way -= 1
        return found

    def _told(self, what: str, params: dict[str, str]) -> dict[str, Any]:
        if what in {"stats", "reset"}:
            stats = {"requests": dict(self._seen), "at_a_time": self._most, "cpu": time.process_time() - self._cpu}
            if what == "reset":
                self._reset()
            return stats
        with self.lock:
            return {"tasks": self._change(self.projects[int(params.get("project", "1"))], what, int(params["k"]))}

    def _change(self, project: Project, what: str, k: int) -> list[int]:
        """The tasks it was done to. None is taken twice."""
        if what == "add":
            return project.add([{"data": {"text": "added"}}] * k)
        numbers = range(project.untouched.first, project.untouched.last + 1)
        some = [number for number in self._random.sample(numbers, k + len(project.untouched.taken)) if number not in project.untouched.taken][:k]
        match what:
            case "edit":
                for number in some:
                    project.edit(number, data={**project.row(number).data, "edited": True})
            case "annotate":
                for number in some:
                    project.annotate(number)
            case "delete":
                project.delete(*some)
            case "predict":
                project.predict_in_bulk(*some)
        return some


def kind(request: Request) -> str:
    """Which question it is: numbers of a path as #; the task list as whole bodies, flat rows or only totals."""
    path = "/".join("#" if part.isdigit() else part for part in request.path.split("/"))
    if path != "/api/tasks":
        return f"{request.method} {path}"
    if request.params.get("fields") == "all":
        return "bodies"
    return "totals" if request.params.get("page_size") == "1" else "rows"


class Server(NamedTuple):
    """A `Scale` in a process of its own."""

    url: str
    token: str

    def do(self, what: str, **params: int) -> dict[str, Any]:
        with urlopen(f"{self.url}/-/{what}?" + "&".join(f"{name}={value}" for name, value in params.items())) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@contextmanager
def scale(tasks: int, projects: int = 1, latency_ms: float = 0) -> Iterator[Server]:
    command = [sys.executable, "-m", "tests.fakes.label_studio_scale", str(tasks), "--projects", str(projects), "--latency-ms", str(latency_ms)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield Server(*process.stdout.readline().split())
        finally:
            process.stdin.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=int, help="in each project")
    parser.add_argument("--projects", type=int, default=1)
    parser.add_argument("--latency-ms", type=float, default=0)
    options = parser.parse_args()
    with Scale.million(options.tasks, options.projects) as studio:
        studio.latency = options.latency_ms / 1000
        print(studio.url, studio.token, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
