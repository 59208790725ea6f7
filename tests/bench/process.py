"""Run one process to its end and tell what it cost. Refuses to measure one that failed."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Cost(NamedTuple):
    """cpu: user + system seconds of the whole process; wall: seconds; rss: peak resident memory in MB; output: its standard output.

    On Linux a child's peak starts at its parent's: whoever measures memory must itself stay small.
    """

    cpu: float
    wall: float
    rss: float
    output: str


def run(command: Sequence[str], env: Mapping[str, str] | None = None) -> Cost:
    """Raises RuntimeError with the end of its output when it fails. Bytecode is kept between runs, as on a user's machine."""
    env = {name: value for name, value in (os.environ if env is None else env).items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.monotonic()
        child = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=env, cwd=ROOT)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - start
        child.returncode = os.waitstatus_to_exitcode(status)  # Popen has no way to wait that also tells the cost
        for file in (out, err):
            file.seek(0)
        output, errors = out.read().decode(), err.read().decode()
    if child.returncode:
        raise RuntimeError(f"{' '.join(command[:6])} ended with {child.returncode}:\n{output[-2000:]}\n{errors[-2000:]}")
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024, output)
