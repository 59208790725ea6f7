"""What the daemon costs: 2,000 Syncs of small folders with nothing due, and ten Syncs that share one server.

CPU is that of the daemon's process alone; the one who asks for a scrape pays for itself.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from tests.bench.process import ROOT, group_cpu, run
from tests.bench.syncs import s3
from tests.bench.table import Row
from tests.fakes.label_studio_scale import scale
from tests.fakes.s3_sink import sink

_SETTLED = 10.0  # seconds after the first Runs
_WATCHED = 30.0
_SCRAPES = 20
_SHARING = 10
_AT_A_TIME = 2
_LATENCY_MS = 20


def idle(folder: Path, syncs: int) -> list[Row]:
    """Share of a core and memory while idle, a scrape, and `--help`."""
    with _daemon(folder, _idle_config(folder, syncs), syncs) as (pid, log):
        time.sleep(_SETTLED)
        before = group_cpu(pid)
        time.sleep(_WATCHED)
        share = (group_cpu(pid) - before) / _WATCHED
        memory = _memory(pid)
        found = re.search(r"http://[^\"/]+/", log.read_text())
        assert found is not None
        before = group_cpu(pid)
        for _ in range(_SCRAPES):
            with urlopen(f"{found[0]}metrics") as answer:
                answer.read()
        scrape = (group_cpu(pid) - before) / _SCRAPES
    return [
        Row(f"{syncs:,} Syncs, nothing due: CPU", 100 * share, "%", 2.0, "one core"),
        Row("the same: memory", memory, "MB", 120.0),
        Row("the same: CPU of a scrape", 1000 * scrape, "ms", 50.0),
        Row("syncd --help: CPU", run([sys.executable, "-m", "syncd", "--help"]).cpu, "s", 0.35),
    ]


def ten_syncs(folder: Path, tasks: int) -> list[Row]:
    """First Runs of ten projects of one server, all due at once, by two Sources that name it."""
    name = f"{_SHARING} Syncs to one server, concurrency {_AT_A_TIME}: requests at a time"
    with scale(tasks, _SHARING, _LATENCY_MS) as studio, sink() as url:
        source = {"type": "label_studio", "url": studio.url, "token": studio.token, "concurrency": _AT_A_TIME}
        with _daemon(folder, _sharing_config(folder / "gate", source, url), _SHARING):
            most = studio.do("reset")["at_a_time"]
        start = time.monotonic()
        with _daemon(folder, _sharing_config(folder / "slow", source | {"max_requests_per_second": 10}, url), _SHARING):
            asked, seconds = sum(studio.do("stats")["requests"].values()), time.monotonic() - start
    return [
        Row(name, most, "", _AT_A_TIME),
        Row("the same, max_requests_per_second 10: requests a second", asked / seconds, "", 11, "10, and a tenth"),
    ]


@contextmanager
def _daemon(folder: Path, config: Mapping[str, object], runs: int) -> Iterator[tuple[int, Path]]:
    """Its process and log, once so many Runs went well; stopped at the end."""
    path, log = folder / "syncd.yaml", folder / "log"
    path.write_text(json.dumps(config))
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "syncd", "run", "-c", str(path)]
        daemon = subprocess.Popen(command, stderr=stream, stdin=subprocess.DEVNULL, cwd=ROOT, process_group=0)
        try:
            while log.read_bytes().count(b'"status": "ok"') < runs:
                assert daemon.poll() is None, log.read_text()[-2000:]
                time.sleep(0.2)
            yield daemon.pid, log
        finally:
            daemon.terminate()
            daemon.wait()


def _idle_config(folder: Path, syncs: int) -> dict[str, object]:
    for n in range(10):
        (folder / f"exports/{n}").mkdir(parents=True)
        (folder / f"exports/{n}/1.json").write_text('{"id": 1}')
    return {
        "sources": {f"s{n}": {"type": "files", "path": f"./exports/{n}"} for n in range(10)},
        "targets": {f"t{n}": {"type": "local", "path": f"./backup/{n}"} for n in range(syncs)},
        "syncs": {f"c{n}": {"source": f"s{n % 10}", "target": f"t{n}", "every": "1h"} for n in range(syncs)},
        "http": "127.0.0.1:0",
    }


def _sharing_config(state: Path, source: Mapping[str, object], s3_url: str) -> dict[str, object]:
    numbers = range(1, _SHARING + 1)
    return {
        "sources": {"one": source, "other": source},
        "targets": {f"t{n}": s3(s3_url, f"{state.name}-{n}") for n in numbers},
        "syncs": {f"c{n}": {"source": ("one", "other")[n % 2], "projects": [n], "target": f"t{n}", "every": "1h"} for n in numbers},
        "state": str(state),
    }


def _memory(pid: int) -> float:
    """Resident, MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
