"""A person at a real terminal: a program on a pseudo-terminal, what it says and what is typed."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE = 60.0  # seconds, for a loaded machine


class Terminal:
    """`seen` is all that stood on it."""

    def __init__(self, command: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
        self._master, slave = pty.openpty()
        self._child = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=env, start_new_session=True)
        os.close(slave)
        self.seen = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._child.kill()
        self._child.wait()
        os.close(self._master)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, wanted: str, last: str = "") -> None:
        """Read on until `wanted` stands there, and `last` at the very end."""
        said, deadline = "", time.monotonic() + PATIENCE
        while wanted not in said or not said.endswith(last):
            assert time.monotonic() < deadline, f"waited for {wanted!r} after: {self.seen}"
            part = self._read()
            assert part is not None, f"ended without {wanted!r}: {self.seen}"
            said += part

    def end(self) -> int:
        """Wait for the end; the exit code."""
        while self._read() is not None:
            pass
        return self._child.wait(PATIENCE)

    def _read(self) -> str | None:
        """What is said within a second; None at the end."""
        if not select.select([self._master], [], [], 1)[0]:
            return "" if self._child.poll() is None else None
        try:
            part = os.read(self._master, 65536).decode()
        except OSError:  # the other end was closed
            return None
        self.seen += part
        return part or None
