"""What must not happen to others when one Sync, the Checkpoint or a watch goes wrong; and what the log says."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from syncd.checkpoint import sqlite
from syncd.checkpoint.base import Checkpoint
from syncd.cli import commands
from syncd.cli.output import log_to_stderr
from syncd.clock import SystemClock
from syncd.config import Config, load, open_source
from syncd.context import about
from syncd.daemon import program
from syncd.daemon import watch as watch_module
from syncd.daemon.program import run_daemon, tell
from syncd.daemon.service import Service
from syncd.daemon.watch import Folder, Watch
from syncd.errors import AccessError, CheckpointError, Stopped, SyncdError
from syncd.model import Kind, Report, Status
from syncd.run import opening
from syncd.run.confirmed import collect, leave, listening
from syncd.run.opening import attempt
from syncd.run.standing import standing
from tests.fakes.daemon import until

CONFIG = """\
sources: {drop: {type: files, path: ./exports}}
targets: {disk: {type: local, path: ./backup}, other: {type: local, path: ./other}}
syncs: {cats: {source: drop, target: disk, every: 1s}, dogs: {source: drop, target: other, every: 1s}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports/1.json").write_text('{"id": 1}')
    (tmp_path / "syncd.yaml").write_text(CONFIG)
    return tmp_path / "syncd.yaml"


@pytest.fixture
def config(path: Path) -> Config:
    return load(path, {})


@pytest.fixture
def checkpoint(config: Config) -> Iterator[Checkpoint]:
    opened = sqlite.open(config.state)
    yield opened
    opened.close()


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (AccessError("the token is refused"), "the token is refused", 12),
        (ZeroDivisionError("secret things"), "a fault of syncd itself: ZeroDivisionError: its log has more", 1),
        (Stopped(), "interrupted", 130),
    ],
)
def test_what_can_not_be_opened_is_a_run_that_failed(
    error: BaseException,
    said: str,
    code: int,
    config: Config,
    checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(opening, "open_source", failing(error))
    report = attempt(config, "cats", checkpoint, SystemClock(), None)
    assert (report.status, report.error, report.exit_code) == (Status.FAILED, said, code)
    ended = standing(checkpoint, "cats").ended
    assert ended is not None
    assert (ended.run_id, ended.report["error"]) == (report.run_id, said)
    assert standing(checkpoint, "cats").failed_in_a_row == (0 if code == 130 else 1)
    assert bool(caplog.records) is isinstance(error, ZeroDivisionError)


def test_a_checkpoint_that_fails_stops_the_process(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "attempt", failing(CheckpointError("the disk is full")))
    with pytest.raises(CheckpointError, match="the disk is full"):
        run_daemon(path, {})
    sqlite.open(load(path, {}).state).close()  # nothing holds it any more


def test_a_run_that_gets_no_thread_stops_the_process(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new process has threads again; this one would forget that Sync."""
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("run "):
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(SyncdError, match="no thread can be started"):
        run_daemon(path, {})


def test_a_sync_that_fails_stops_no_other(path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "syncd")
    monkeypatch.setattr(opening, "open_source", lambda config, name, clock: 1 / 0 if name == "cats" else open_source(config, name, clock))
    ours = os.getpid()

    def end() -> None:
        try:
            until(lambda: sum("failed" in record.message for record in caplog.records) and (path.parent / "other/default/1.json").exists())
        finally:
            os.kill(ours, signal.SIGTERM)

    ending = threading.Thread(target=end)
    ending.start()
    assert run_daemon(path, {}) == 0
    ending.join()
    assert not (path.parent / "backup").exists()


def test_runs_that_do_not_end_are_left_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time they get, the process ends all the same: what they recorded is safe, the rest is done by the next Run."""
    asked, stuck = threading.Event(), threading.Event()

    def end(code: int) -> None:
        stuck.set()
        raise SystemExit(code)

    def attempt(*_: object, **__: object) -> None:
        if not asked.is_set():
            asked.set()
            os.kill(os.getpid(), signal.SIGTERM)
        stuck.wait(60)
        raise Stopped

    monkeypatch.setattr(program, "_GRACE", 0.3)
    monkeypatch.setattr(program, "attempt", attempt)
    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(SystemExit) as ended:
        run_daemon(path, {})
    assert ended.value.code == 0


def test_however_often_it_is_told_to_read_its_config_it_hears_to_stop(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "syncd.daemon")
    stopped = threading.Event()

    def storm() -> None:
        until(lambda: any("workers" in record.message for record in caplog.records))
        for _ in range(3000):
            os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(300):
            os.kill(os.getpid(), signal.SIGHUP)
        stopped.wait(30)

    storming = threading.Thread(target=storm)
    storming.start()
    assert run_daemon(path, {}) == 0
    stopped.set()
    storming.join()
    assert sum("read again" in record.message for record in caplog.records) < 20


def test_what_it_is_told_a_thousand_times_delays_nothing_else() -> None:
    with program._signals() as wait:
        for number in (*[signal.SIGHUP] * 1000, signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
            signal.raise_signal(number)
        assert [wait(0) for _ in range(4)] == [signal.SIGHUP, signal.SIGTERM, signal.SIGTERM, 0]


def test_a_checkpoint_that_fails_at_a_reload_is_not_closed_under_a_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = threading.Event(), threading.Event()

    def attempt(config: Config, name: str, checkpoint: Checkpoint, clock: SystemClock, *_: object, **__: object) -> None:
        begun.set()
        with suppress(Stopped):
            clock.wait(60)
        checkpoint.states(name)  # raises when it is closed
        ended.set()
        raise Stopped

    def fail(*_: object) -> None:
        raise CheckpointError("the disk is full")

    def hang_up() -> None:
        begun.wait(60)
        monkeypatch.setattr(Service, "take", fail)
        os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr(program, "attempt", attempt)
    hanging = threading.Thread(target=hang_up)
    hanging.start()
    with pytest.raises(CheckpointError, match="the disk is full"):
        run_daemon(path, {})
    hanging.join()
    assert ended.is_set()


# what is left for the daemon


def test_a_run_that_goes_on_hides_no_guard(config: Config, checkpoint: Checkpoint) -> None:
    now = SystemClock().now()
    held = Report("cats", "1", Kind.FULL, Status.GUARDED, started_at=now, plan_id="abc")
    checkpoint.finish(checkpoint.begin("cats", "1", Kind.FULL, now), held, now)
    checkpoint.begin("cats", "2", Kind.INCREMENTAL, now)
    told = commands._status(config, checkpoint, "cats", now)
    assert (told["status"], told["plan_id"]) == ("unfinished", "abc")


def test_a_word_is_left_only_where_a_daemon_is_and_taken_once(tmp_path: Path) -> None:
    assert not leave(tmp_path, "cats", "abc")
    with listening(tmp_path):
        assert leave(tmp_path, "cats", "old")
        assert leave(tmp_path, "cats", "abc")
        assert (collect(tmp_path), collect(tmp_path)) == ({"cats": "abc"}, {})
        with pytest.raises(SyncdError, match="can't leave word"):
            leave(tmp_path, "a name too long for a file" * 20, "abc")
    assert not leave(tmp_path, "cats", "abc")
    with listening(tmp_path):
        leave(tmp_path, "cats", "late")
    with listening(tmp_path):
        assert collect(tmp_path) == {"cats": "late"}


# watching


def test_a_folder_that_is_never_quiet_is_told_of_all_the_same(tmp_path: Path) -> None:
    clock = SystemClock()
    now = [100.0]
    clock.monotonic = lambda: now[0]  # type: ignore[method-assign]
    watch = Watch(clock)
    watch.follow([Folder(tmp_path, 2.5, deep=True)])
    (one,) = watch._followed.values()
    told = 0
    for _ in range(100):
        now[0] += 1
        one.on_any_event()
        told += len(watch.tick())
    assert told == 3  # each 30 s; a config in a folder where others write, too, each 6 s
    now[0] += 3
    assert (len(watch.tick()), len(watch.tick())) == (1, 0)
    watch.close()


def test_a_folder_that_is_removed_and_made_again_is_still_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_LOOK_EVERY", 0.0)
    exports = tmp_path / "exports"
    watch = Watch(SystemClock())
    watch.follow([Folder(exports, 0.0, deep=True)])
    assert watch.tick() == []
    for _ in range(2):
        (exports / "p").mkdir(parents=True)
        until(watch.tick)  # it is there: nobody knows since when
        until(lambda: not watch.tick())
        (exports / "p/1.json").touch()
        until(watch.tick)
        exports.rename(tmp_path / "old")
        shutil.rmtree(tmp_path / "old")
        until(lambda: not watch.tick())
    watch.close()


def test_reading_is_no_change(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text("{}")
    watch = Watch(SystemClock())
    watch.follow([Folder(tmp_path, 0.0, deep=True)])
    until(watch.tick)
    (tmp_path / "1.json").read_text()
    list(tmp_path.iterdir())
    (tmp_path / "2.json").touch()
    until(watch.tick)
    until(lambda: not watch.tick())
    watch.close()


def test_what_can_not_be_watched_is_said_and_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watch = Watch(SystemClock())
    monkeypatch.setattr(watch._observer, "schedule", lambda *_, **__: failing(OSError(28, "inotify watch limit reached"))())
    monkeypatch.setattr(watch_module, "_LOOK_EVERY", 0.0)
    (tmp_path / "p").mkdir()
    watch.follow([Folder(tmp_path, 0.0, deep=True), Folder(tmp_path / "absent", 0.0, deep=True)])
    (said,) = [record.message for record in caplog.records]
    assert said == f"{tmp_path} can't be watched, so it is looked at now and then: [Errno 28] inotify watch limit reached"
    until(lambda: not watch.tick())
    for new in ("p/1.json", "2.json", "absent"):  # all the same
        (tmp_path / new).mkdir()
        until(watch.tick)
        until(lambda: not watch.tick())
    watch.close()


def test_hundreds_of_folders_cost_few_threads_and_none_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_LOOK_EVERY", 0.0)
    folders = [tmp_path / str(number) for number in range(300)]
    for folder in folders:
        (folder / "p").mkdir(parents=True)
    threads = threading.active_count()
    watch = Watch(SystemClock())
    watch.follow(Folder(folder, 0.0, deep=True) for folder in folders)
    assert threading.active_count() - threads < watch_module.MOST + 5
    until(lambda: not watch.tick())
    for folder in folders[::60]:
        (folder / "p/1.json").touch()
        while folder not in {one.path for one in until(watch.tick)}:
            continue  # late news of the one before
    watch.close()


def test_a_folder_made_again_is_watched_though_it_looks_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems give the number of a removed folder to the next one."""
    monkeypatch.setattr(watch_module, "_LOOK_EVERY", 0.0)
    real = Path.stat
    exports = tmp_path / "exports"

    def stat(path: Path, **options: bool) -> os.stat_result:
        found = real(path, **options)
        return os.stat_result((found[0], 7, 7, *found[3:])) if path == exports else found

    monkeypatch.setattr(Path, "stat", stat)
    exports.mkdir()
    watch = Watch(SystemClock())
    watch.follow([Folder(exports, 0.0, deep=True)])
    until(watch.tick)
    exports.rmdir()
    exports.mkdir()
    until(watch.tick)
    until(lambda: not watch.tick())
    (exports / "1.json").touch()
    until(watch.tick)
    watch.close()


# systemd and the log


def test_without_systemd_nothing_is_told(tmp_path: Path) -> None:
    tell("", "READY=1")
    tell(str(tmp_path / "nobody"), "READY=1")


def logged(capfd: pytest.CaptureFixture[str], *, as_json: bool) -> str:
    before = logging.root.handlers[:], logging.getLogger("syncd").level
    log_to_stderr("INFO", as_json=as_json, times=True)
    try:
        with about("cats", "20261120-120000-a1b2c3"):
            logging.getLogger("syncd.x").info("ok: %s\x1b[31m", 3, extra={"fields": {"status": "ok"}})
        logging.getLogger("other").info("noise")
    finally:
        logging.root.handlers[:] = before[0]
        logging.getLogger("syncd").setLevel(before[1])
    return capfd.readouterr().err


def test_each_line_of_a_run_names_it(capfd: pytest.CaptureFixture[str]) -> None:
    (line,) = logged(capfd, as_json=False).splitlines()
    assert line[10] == "T"
    assert line[20:] == r" info: cats 20261120-120000-a1b2c3: ok: 3\x1b[31m"
    said = json.loads(logged(capfd, as_json=True))
    assert (said["sync"], said["run"], said["status"], said["level"]) == ("cats", "20261120-120000-a1b2c3", "ok", "info")
