"""The programs that check what stands under deploy/. `make test` does without those that are not installed; `make test-live` does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
LIVE = os.environ.get("SYNCD_LIVE") == "1"
live = pytest.mark.skipif(not LIVE, reason="set SYNCD_LIVE=1 to start it for real (make test-live)")


def absent(reason: str) -> NoReturn:
    """Skip this test, but never where everything has to be checked."""
    if LIVE:
        pytest.fail(reason)
    pytest.skip(reason)


def tool(name: str) -> str:
    """The path of a program: from PyPI, beside this Python, or from the system."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin")
    return found or absent(f"{name} is not installed: run .ci/tools")


def run(command: Sequence[str | Path], *, text: str | None = None, timeout: float = 60) -> str:
    """What it printed, stderr included; an AssertionError when it fails."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr
