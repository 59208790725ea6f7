"""What a Run holds is let go when it is over, not when the garbage collector happens to come by: a daemon's seldom does."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd import encode
from syncd.clock import Clock, SystemClock
from syncd.config import Config, load, open_checkpoint
from syncd.errors import TaskError
from syncd.model import Status
from syncd.run import opening
from syncd.targets import local

CONFIG = """
sources: {drop: {type: files, path: exports}}
targets: {disk: {type: local, path: backup}}
syncs: {cats: {source: drop, target: disk}}
state: state
"""


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_collector")
def test_a_run_that_did_not_end_well_keeps_no_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors hold frames, and frames hold them: seen in the soak as connections to a bucket, one or more for each Run that failed."""

    def failing(_target: object, key: str, _data: bytes) -> bytes:
        raise TaskError(key)

    exports = tmp_path / "exports"
    exports.mkdir()
    (exports / "tasks.json").write_bytes(encode.dumps([{"id": number, "data": {}} for number in range(100)]))
    (tmp_path / "syncd.yaml").write_text(CONFIG)
    monkeypatch.setattr(local.LocalTarget, "put", failing)
    opened: list[weakref.ref[object]] = []

    def open_target(config: Config, name: str, clock: Clock) -> local.LocalTarget:
        target = local.open(local.Config(type="local", path=tmp_path / "backup"), clock)

        opened.append(weakref.ref(target))
        return target

    monkeypatch.setattr(opening, "open_target", open_target)
    config, clock = load(tmp_path / "syncd.yaml", {}), SystemClock()
    checkpoint = open_checkpoint(config)
    report = opening.attempt(config, "cats", checkpoint, clock, None)
    checkpoint.close()
    assert report.status is Status.PARTIAL
    assert [target() for target in opened] == [None]
