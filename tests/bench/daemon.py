"""What the daemon costs when nothing is due, and what a look at it costs: 2,000 Syncs of small folders, every hour.

CPU is that of the daemon's process alone; the one who asks for a scrape pays for itself.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

from tests.bench.cases import Row
from tests.bench.process import ROOT, run

SYNCS = 2000
_SETTLED = 10.0  # seconds after the first Runs
_WATCHED = 30.0
_SCRAPES = 20


def idle(folder: Path) -> list[Row]:
    """Share of a core and memory while idle, a scrape, and `--help`."""
    return [*_daemon(folder), Row("syncd --help: CPU", run([sys.executable, "-m", "syncd", "--help"]).cpu, "s", 0.35)]


def _daemon(folder: Path) -> list[Row]:
    (folder / "syncd.yaml").write_text(_config(folder))
    log = folder / "log"
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "syncd", "run", "-c", str(folder / "syncd.yaml")]
        daemon = subprocess.Popen(command, stderr=stream, stdin=subprocess.DEVNULL, cwd=ROOT)
        try:
            while log.read_bytes().count(b'"status": "ok"') < SYNCS:
                assert daemon.poll() is None, log.read_text()[-2000:]
                time.sleep(0.5)
            time.sleep(_SETTLED)
            before = _cpu(daemon.pid)
            time.sleep(_WATCHED)
            share = (_cpu(daemon.pid) - before) / _WATCHED
            memory = _memory(daemon.pid)
            found = re.search(r"http://[^\"/]+/", log.read_text())
            assert found is not None
            before = _cpu(daemon.pid)
            for _ in range(_SCRAPES):
                with urlopen(f"{found[0]}metrics") as answer:
                    answer.read()
            scrape = (_cpu(daemon.pid) - before) / _SCRAPES
        finally:
            daemon.terminate()
            daemon.wait()
    return [
        Row(f"{SYNCS} Syncs, nothing due: CPU", 100 * share, "%", 2.0),
        Row("the same: memory", memory, "MB", 120.0),
        Row("the same: CPU of a scrape", 1000 * scrape, "ms", 50.0),
    ]


def _config(folder: Path) -> str:
    for n in range(10):
        (folder / f"exports/{n}").mkdir(parents=True)
        (folder / f"exports/{n}/1.json").write_text('{"id": 1}')
    sources = ", ".join(f"s{n}: {{type: files, path: ./exports/{n}}}" for n in range(10))
    targets = ", ".join(f"t{n}: {{type: local, path: ./backup/{n}}}" for n in range(SYNCS))
    syncs = ", ".join(f"c{n}: {{source: s{n % 10}, target: t{n}, every: 1h}}" for n in range(SYNCS))
    return f"sources: {{{sources}}}\ntargets: {{{targets}}}\nsyncs: {{{syncs}}}\nhttp: 127.0.0.1:0\n"


def _cpu(pid: int) -> float:
    """Seconds, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    """Resident, MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
