"""Run one process to its end and tell what it cost. Refuses to measure one that failed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Cost(NamedTuple):
    """cpu: user + system seconds of the whole process and its children; wall: seconds; rss: peak resident memory in MB; output: standard output.

    On Linux a child's peak starts at its parent's: whoever measures memory must itself stay small.
    """

    cpu: float
    wall: float
    rss: float
    output: str


def run(command: Sequence[str], env: Mapping[str, str] | None = None, *, meanwhile: Callable[[int], None] | None = None, ending: int = 0) -> Cost:
    """Raises RuntimeError with the end of its output when it ends otherwise than `ending`. Bytecode is kept between runs, as on a user's machine.

    meanwhile: called with the process id, while it runs.
    """
    env = {name: value for name, value in (os.environ if env is None else env).items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.monotonic()
        child = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=env, cwd=ROOT)
        if meanwhile:
            meanwhile(child.pid)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - start
        child.returncode = os.waitstatus_to_exitcode(status)  # Popen has no way to wait that also tells the cost
        for file in (out, err):
            file.seek(0)
        output, errors = out.read().decode(), err.read().decode()
    if child.returncode != ending:
        raise RuntimeError(f"{' '.join(command[:6])} ended with {child.returncode}:\n{output[-2000:]}\n{errors[-2000:]}")
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024, output)


def group_cpu(group: int) -> float:
    """Seconds, user and system, of the living processes of a process group and the children they have seen end."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            fields = stat.read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15])) if int(fields[2]) == group else 0
    return total / os.sysconf("SC_CLK_TCK")
