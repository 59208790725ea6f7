"""`syncd run` in a process of its own, with somebody who reads its log and a socket where systemd would listen."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
LONGEST = 60.0  # seconds until something that does not happen is said not to
HURRY = """\
from syncd.cli.main import main
from syncd.daemon import program, watch
program._TICK, program._CONFIG_QUIET, program._FOLDER_QUIET, watch._LOOK_EVERY = 0.05, 0.1, 0.1, 0.1
main()
"""


def until(what: Callable[[], T | None], *, seconds: float = LONGEST) -> T:
    """The first answer that is true."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)
    return found


class Daemon:
    """Use as a context; `lines` are the log lines so far, `heard` what systemd was told. It waits less for quiet than a real one."""

    def __init__(self, config: Path) -> None:
        """config: its file, which is there already."""
        self.config = config
        self.lines: list[dict[str, Any]] = []
        self.heard: list[str] = []
        address = f"@syncd-test-{os.getpid()}-{id(self)}"
        self._env = os.environ | {"PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": address}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0"))

    def __enter__(self) -> Self:
        threading.Thread(target=self._hear, daemon=True).start()
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if error is not None:
            print(*self.lines, sep="\n")

    def start(self) -> None:
        command = [sys.executable, "-c", HURRY, "run", "-c", str(self.config)]
        self.process = subprocess.Popen(command, env=self._env, stderr=subprocess.PIPE, text=True, cwd="/")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        stream = self.process.stderr
        assert stream is not None
        with stream:
            for line in stream:
                self.lines.append(json.loads(line))

    def _hear(self) -> None:
        while told := self._socket.recv(4096).decode():
            self.heard += told.splitlines()

    def wait(self, found: Callable[[dict[str, Any]], bool], *, since: int = 0) -> dict[str, Any]:
        """The first log line like this from number `since` on."""

        def look() -> dict[str, Any] | None:
            match = next((line for line in self.lines[since:] if found(line)), None)
            assert match or self.process.poll() is None, self.lines
            return match

        return until(look)

    def wait_run(self, status: str, sync: str = "cats", *, since: int = 0) -> dict[str, Any]:
        """The log line of a Run that ended so."""
        return self.wait(lambda line: (line.get("status"), line.get("sync")) == (status, sync), since=since)

    def end(self, number: int = signal.SIGTERM) -> int:
        """The exit code after this signal."""
        self.process.send_signal(number)
        code = self.process.wait(LONGEST)
        self._reader.join()
        return code

    def runs(self, sync: str = "cats") -> list[dict[str, Any]]:
        return [line for line in self.lines if "status" in line and line.get("sync") == sync]
