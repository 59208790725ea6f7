"""The daemon as a process: what a Service needs of the world. Threads for Runs, signals, files that change, systemd, page and notices.

SIGTERM or SIGINT: begin nothing more, let every Run commit what is in flight, exit 0 within 25 s; once more: exit at once (every Run may be
repeated, I5). SIGHUP: read the config again. A Checkpoint that fails stops the process (exit 1) before anything else is written.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from queue import Empty, SimpleQueue

from syncd import __version__
from syncd.clock import SECOND, SystemClock
from syncd.config import Config, load, open_checkpoint
from syncd.daemon.service import Service
from syncd.daemon.timer import Timer
from syncd.daemon.watch import Folder, Watch
from syncd.errors import ConfigError, SyncdError
from syncd.model import Report
from syncd.run import INTERRUPTED, confirmed
from syncd.run.opening import attempt

log = logging.getLogger("syncd.daemon")
_TICK = 0.5  # seconds
_GRACE = 16.0  # seconds that Runs get to end in; page and notices take a few more
_CONFIG_QUIET = 0.5  # seconds: an editor writes more than once
_FOLDER_QUIET = 2.5  # seconds: a files Source trusts no file that is younger than 2
_END = (signal.SIGTERM, signal.SIGINT)
_ARENAS = -8  # M_ARENA_MAX of malloc.h

Wait = Callable[[float], int]
"""Waits so many seconds for a signal: its number, 0 when none came."""


def run_daemon(path: Path, env: Mapping[str, str]) -> int:
    """Drive every Sync of the config until a signal ends it; the exit code. Raises what keeps it from starting, and CheckpointError."""
    with suppress(AttributeError, OSError):  # glibc keeps a heap for each of many threads: with two, 2,000 Syncs take 105 MB and not 132
        ctypes.CDLL(None).mallopt(_ARENAS, 2)
    with _signals() as wait, ExitStack() as cleanup:
        return _Daemon(path.absolute(), env, cleanup).run(wait)


@contextmanager
def _signals() -> Iterator[Wait]:
    """A handler takes a note and no more: a SimpleQueue is made for that. A SIGHUP behind another signal is no news, and must not delay one."""
    came = SimpleQueue[int]()

    def note(number: int, _: object) -> None:
        if number in _END or came.empty():
            came.put(number)

    def wait(seconds: float) -> int:
        with suppress(Empty):
            return came.get(timeout=seconds)
        return 0

    before = {number: signal.signal(number, note) for number in (*_END, signal.SIGHUP)}
    try:
        yield wait
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Daemon:
    """One process's worth of it; what it opens is closed by `cleanup`."""

    def __init__(self, path: Path, env: Mapping[str, str], cleanup: ExitStack) -> None:
        from syncd.daemon.notify import Notifier

        self._path, self._env, self._cleanup = path, env, cleanup
        self._clock, self._tell = SystemClock(), partial(tell, env.get("NOTIFY_SOCKET", ""))
        self._runs: set[threading.Thread] = set()
        self._broken: BaseException | None = None
        self._asked, self._reloaded = False, 0.0
        self._files = {path: b""}  # what the config was ever read from, with digests
        self._config = config = self._load()
        self._checkpoint = open_checkpoint(config)
        cleanup.callback(self._checkpoint.close)
        self._state = cleanup.enter_context(confirmed.listening(config.state))
        notifier = Notifier(self._clock)
        cleanup.callback(notifier.close)
        self._timer = Timer()
        cleanup.callback(self._timer.close)

        def told(config: Config, report: Report) -> None:
            notifier.told(report.sync, config.notify_for(report.sync), report)

        self._service = Service(path, config, self._checkpoint, self._clock, self._timer.at, self._launch, told)
        self._timer.start(self._service.due)
        where = self._serve(config)
        self._watch = Watch(self._clock)
        cleanup.callback(self._watch.close)
        log.info("syncd %s: Syncs: %s, workers: %s%s", __version__, len(config.syncs), config.workers, where)
        gc.freeze()  # each Run that fails looks for cycles (run.opening): with 2,000 Syncs 20 ms, were it among all this too
        self._service.start()
        self._follow()

    def run(self, wait: Wait) -> int:
        """Until a signal ends it; the exit code."""
        self._tell("READY=1")
        try:
            while self._broken is None and (number := wait(_TICK)) not in _END:
                self._asked |= number == signal.SIGHUP
                self._tick()
        except BaseException as error:  # noqa: BLE001 - raised again when no Run goes on any more
            self._broken = error
        self._stop(wait)
        if self._broken is not None:
            raise self._broken
        return 0

    def _tick(self) -> None:
        self._service.tick()
        for name, plan_id in confirmed.collect(self._state).items():
            self._service.confirm(name, plan_id)
        for folder in self._watch.tick():
            for name in folder.syncs:
                self._service.wake(name)
            if not folder.syncs:
                self._asked |= any(_digest(path) != digest for path, digest in self._files.items())
        if self._asked and self._clock.monotonic() - self._reloaded >= _CONFIG_QUIET:
            self._reload()
        waiting, running = self._service.queue()
        self._tell(f"STATUS={running} Runs go on, {waiting} wait", *["WATCHDOG=1"] * self._service.alive())

    def _stop(self, wait: Wait) -> None:
        """Returns when no Run goes on; ends the process itself when one can't end, or at a second signal."""
        self._tell("STOPPING=1")
        log.info("stopping: what is in flight is finished first; once more stops at once")
        self._service.stop()
        self._clock.stop.set()
        until = self._clock.monotonic() + _GRACE
        while self._runs and self._clock.monotonic() < until:
            self._tell("WATCHDOG=1")
            if wait(0.1) in _END:
                os._exit(INTERRUPTED)
        if self._runs:
            names = ", ".join(thread.name for thread in list(self._runs))
            log.warning("could not end in time: %s; the next start goes on from what they recorded", names)
            if self._broken:
                log.error("%s", self._broken)
            os._exit(1 if self._broken else 0)
        for number in _END:
            signal.signal(number, lambda *_: os._exit(INTERRUPTED))  # nobody waits for them any more

    def _launch(self, config: Config, name: str, confirm_deletes: str) -> None:
        thread = threading.Thread(target=self._work, args=(config, name, confirm_deletes), name=f"run {name}", daemon=True)
        self._runs.add(thread)
        try:
            thread.start()
        except RuntimeError as error:
            self._runs.discard(thread)
            self._broken = SyncdError(f"no thread can be started for a Run ({error}): raise the limit of tasks, or lower `workers`")

    def _work(self, config: Config, name: str, confirm_deletes: str) -> None:
        try:
            report = attempt(config, name, self._checkpoint, self._clock, partial(self._service.progressed, name), confirm_deletes=confirm_deletes)
            self._service.ended(report)
        except BaseException as error:  # noqa: BLE001 - nothing is swallowed: the main loop raises it
            self._broken = self._broken or error
        finally:
            self._runs.discard(threading.current_thread())

    def _serve(self, config: Config) -> str:
        if config.http is None:
            return ""
        from syncd.daemon.web import serve

        server = serve(self._service, config.http)
        self._cleanup.callback(server.stop)
        host, port = server.address
        return f", page at http://{f'[{host}]' if ':' in host else host}:{port}/"

    def _reload(self) -> None:
        self._tell("RELOADING=1", f"MONOTONIC_USEC={self._clock.monotonic() * SECOND:.0f}")
        try:
            self._config = self._load()
            self._service.take(self._config)
        except ConfigError as error:
            self._service.refuse(error)
        self._follow()
        self._asked, self._reloaded = False, self._clock.monotonic()
        self._tell("READY=1")

    def _load(self) -> Config:
        """The config as it is now. Raises ConfigError."""
        self._files = {path: _digest(path) for path in self._files}  # taken first: what changes from here on is seen as a change
        secrets = set[Path]()
        try:
            return load(self._path, self._env, secrets)
        finally:
            self._files |= {path: _digest(path) for path in secrets - self._files.keys()}

    def _follow(self) -> None:
        """Watch the folders of the config, of the secrets that its newest edit names, and of files Sources."""
        exports: dict[Path, list[str]] = {}
        for name, rules in self._config.syncs.items():
            if isinstance(path := getattr(self._config.sources[rules.source], "path", None), Path):
                exports.setdefault(path, []).append(name)
        folders = [Folder(path.parent, _CONFIG_QUIET, deep=False) for path in self._files]
        self._watch.follow([*folders, *(Folder(path, _FOLDER_QUIET, deep=True, syncs=tuple(names)) for path, names in exports.items())])


def tell(address: str, *lines: str) -> None:
    """Let systemd know, by sd_notify(3): such as `READY=1`, or `WATCHDOG=1`, without which for WatchdogSec it restarts the service. address: what
    $NOTIFY_SOCKET says, where `@` stands for the NUL of an abstract one; nobody has to listen.
    """
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.sendto("\n".join(lines).encode(), address)


def _digest(path: Path) -> bytes:
    try:
        return sha256(path.read_bytes()).digest()
    except OSError as error:
        return str(error.errno).encode()
