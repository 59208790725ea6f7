"""A wired Sync for tests: a Source, a Target, a real SQLite Checkpoint and a clock that moves only when told."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import orjson

from syncd.checkpoint import sqlite
from syncd.checkpoint.base import Checkpoint
from syncd.config import SyncConfig
from syncd.errors import Stopped
from syncd.keys import Layout
from syncd.model import Kind, Report
from syncd.run import Job, run_sync
from syncd.sources.base import Source
from syncd.targets.base import Target
from tests.fakes.gcs_server import GcsServer
from tests.fakes.mortal import CHECKPOINT_EFFECTS, TARGET_EFFECTS, Life, Mortal
from tests.fakes.places import BUCKET, PlaceToTest, S3Server, gcs_place, local_place, s3_place

DAY = 86_400_000_000


class TestClock:
    """Wall and monotonic time that move by waiting, or by hand. `stop` makes every wait raise Stopped."""

    __test__ = False

    def __init__(self, now: int = 1_790_000_000_000_000) -> None:
        self.micros = now
        self.stop = threading.Event()
        self._asked = 0
        self._lock = threading.Lock()

    def now(self) -> int:
        return self.micros

    def monotonic(self) -> float:
        self._asked += 1  # each look costs 5 ms: to a Run every Target is slow, so that pages overlap
        return self.micros / 1e6 + self._asked * 0.005

    def wait(self, seconds: float) -> None:
        if self.stop.is_set():
            raise Stopped
        with self._lock:
            self.micros += int(seconds * 1e6)


@dataclass
class Rig:
    """One Sync on a state folder; each Run opens everything anew, like a new process."""

    source: Source
    open_target: Callable[[], Target]
    state: Path
    clock: TestClock = field(default_factory=TestClock)
    rules: dict[str, Any] = field(default_factory=dict)
    name: str = "cats"

    def run(self, kind: Kind | None = None, life: Life | None = None, **options: Any) -> Report:
        checkpoint, target = sqlite.open(self.state), self.open_target()
        self.clock.wait(1)  # two Runs never begin at the same moment
        try:
            if life is None:
                return run_sync(self.job(checkpoint, target), kind=kind, **options)
            mortal_target = cast("Target", Mortal(target, life, TARGET_EFFECTS))
            mortal_checkpoint = cast("Checkpoint", Mortal(checkpoint, life, CHECKPOINT_EFFECTS))
            return run_sync(self.job(mortal_checkpoint, mortal_target), kind=kind, **options)
        finally:
            target.close()
            checkpoint.close()

    def job(self, checkpoint: Checkpoint, target: Target) -> Job:
        rules = SyncConfig.model_validate({"source": "s", "target": "t", **self.rules})
        return Job(self.name, rules, self.source, target, checkpoint, self.clock)

    def files(self) -> dict[str, bytes]:
        """Everything in the Target, by key."""
        target = self.open_target()
        try:
            return {stat.key: cast("bytes", target.get(stat.key)) for page in target.list("") for stat in page}
        finally:
            target.close()

    def tasks(self) -> dict[str, Any]:
        """The task files as values, by key; syncd's own, the trash and side files left out."""
        return {key: orjson.loads(data) for key, data in self.files().items() if key.endswith(".json") and "/_" not in f"/{key}"}

    def expected(self, world: Iterable[tuple[tuple[str, str], dict[str, object]]]) -> dict[str, Any]:
        return {Layout().task(project, task): body for (project, task), body in world}

    def feeds(self) -> list[dict[str, Any]]:
        """Every line of every change feed, Run by Run."""
        return [orjson.loads(line) for key, data in sorted(self.files().items()) if key.startswith("_syncd/changes/") for line in data.splitlines()]


KINDS = ("local", "s3", "gcs")


@contextmanager
def server(kind: str) -> Iterator[str]:
    """The URL of the server behind this kind of Target, with an empty bucket; empty for a folder."""
    if kind == "local":
        yield ""
    elif kind == "s3":
        with S3Server() as store:
            yield store.url
    else:
        with GcsServer() as stand_in:
            stand_in.create_bucket(BUCKET)
            yield stand_in.url


def new_place(kind: str, url: str, folder: Path) -> PlaceToTest:
    """A place nobody has used yet."""
    if kind == "local":
        return local_place(folder / f"place-{next(_NUMBERS)}")
    return s3_place(url) if kind == "s3" else gcs_place(url)


_NUMBERS = itertools.count()
