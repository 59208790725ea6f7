"""A small machine that systemd boots: the Debian that .ci/tools made, in namespaces of its own, gone when it is left.

It shares the host's network.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import pytest

from tests.deploy.image import debian
from tests.deploy.tools import run, tool

BOOT = 60.0  # seconds


class Machine:
    """mounts: what of this machine it sees, by where; it may change `writable` only."""

    def __init__(self, log: Path, mounts: Mapping[str, Path], *, writable: str) -> None:
        self._log = log
        binds = [f"--bind{'' if at == writable else '-ro'}={path}:{at}" for at, path in mounts.items()]
        how = ["--quiet", "--register=no", "--keep-unit", "--machine=syncd-test", "--volatile=overlay", "--directory", str(debian())]
        self._command = [tool("systemd-nspawn"), *how, *binds, "--boot"]

    def __enter__(self) -> Self:
        self._out = self._log.open("ab")
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=self._out, stderr=subprocess.STDOUT)
        end = time.monotonic() + BOOT
        while not self._booted():
            if self._process.poll() is not None or time.monotonic() > end:
                self.__exit__()
                # a sandbox that allows no second systemd is no fault of the unit
                pytest.skip(f"systemd can't be booted here: {self._log.read_text(errors='replace')[-500:]}")
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()  # an orderly shutdown
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._out.close()

    def run(self, *words: str) -> str:
        """What a command in it prints; an AssertionError when it fails."""
        return run(self._inside(*words)).strip()

    def _inside(self, *words: str) -> list[str]:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return ["nsenter", "--target", children[0], "--all", *words] if children else ["false"]

    def _booted(self) -> bool:
        try:
            done = subprocess.run(self._inside("systemctl", "is-system-running"), capture_output=True, text=True, timeout=30, check=False)
        except OSError:
            return False
        return done.stdout.strip() in {"running", "degraded"}
