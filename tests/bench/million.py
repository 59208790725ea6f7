"""A million tasks of one Label Studio, as its stand-in makes them: first, killed, resumed, idle, edited, thinned out and full, beside ten thousand.

What must grow with the change and not with what exists is measured at both sizes. And a thousand projects of a thousand.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.bench.process import run
from tests.bench.syncs import Synced, command, config, heard, state, sync
from tests.bench.table import Row
from tests.fakes.label_studio_scale import Server, scale
from tests.fakes.s3_sink import sink

_IDLE = 3  # Runs of which the median counts
_BODY_PAGES = "bodies"
# The CPU of a Run in a process that has already imported what it needs: a config that was validated just now.
_ALONE = """
import contextlib, sys, time
from syncd.cli.main import main
def call(*words):
    sys.argv = ["syncd", *words]
    with contextlib.suppress(SystemExit):
        main()
call("sync", "--json", "-c", sys.argv[1])
start = time.process_time()
call("sync", "--json", "-c", sys.argv[1])
print(time.process_time() - start)
"""


@dataclass(slots=True)
class Life:
    """What one project of `count` tasks cost through its life. edited, deleted: what so many changes cost."""

    count: int
    first: Synced
    full: Synced
    resumed_after: float  # seconds until the first new put
    pages: float  # of the killed and the resumed Run / of one that was not killed
    bytes_a_task: float
    idle: list[Synced]
    heard: int  # by the Target, of the idle Runs
    alone: float
    changed: set[str]
    edited: dict[int, Synced] = field(default_factory=dict)
    deleted: dict[int, Synced] = field(default_factory=dict)


def at_scale(folder: Path, few: int, many: int, edits: Sequence[int], deletions: Sequence[int]) -> list[Row]:
    small, big = (_live(folder, count, edits, deletions) for count in (few, many))
    return [*_first(small, big), *_idle(small, big), *_changed(small, big)]


def _live(folder: Path, count: int, edits: Sequence[int], deletions: Sequence[int]) -> Life:
    with scale(count) as studio, sink() as url:
        # no trash: what goes there is read before, and the sink has forgotten it
        path = config(folder, _source(studio), url, f"life-{count}", on_delete="delete")
        run(command(path), meanwhile=lambda pid: _kill_at(pid, url, count // 20), ending=-signal.SIGKILL)
        first, after = _resumed(path, url)
        pages = studio.do("reset")["requests"][_BODY_PAGES]
        folder_of_state = state(folder, f"life-{count}")
        size = sum(file.stat().st_size for file in folder_of_state.iterdir())
        sync(path)  # the first incremental Run looks once at what the first Run may have missed
        before, tables = sum(heard(url).values()), _tables(folder_of_state)
        idle = [sync(path) for _ in range(_IDLE)]
        changed = {name for name, digest in _tables(folder_of_state).items() if digest != tables[name]}
        asked = sum(heard(url).values()) - before
        alone = float(run([sys.executable, "-c", _ALONE, str(path)]).output.splitlines()[-1])
        edited = {k: _after(studio, path, "edit", k) for k in edits}
        deleted = {d: _after(studio, path, "delete", d) for d in deletions}
        studio.do("reset")
        full = sync(path, "--full")
        pages /= studio.do("stats")["requests"][_BODY_PAGES]
        return Life(count, first, full, after, pages, size / count, idle, asked, alone, changed, edited, deleted)


def _source(studio: Server) -> dict[str, object]:
    return {"type": "label_studio", "url": studio.url, "token": studio.token}


def _puts(url: str) -> int:
    return heard(url).get("PUT", 0)


def _kill_at(pid: int, url: str, puts: int) -> None:
    while _puts(url) < puts:
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)


def _resumed(path: Path, url: str) -> tuple[Synced, float]:
    """The Run that goes on, and seconds until its first put."""
    before, start, after = _puts(url), time.monotonic(), [0.0]

    def watch(_: int) -> None:
        while _puts(url) == before:
            time.sleep(0.005)
        after[0] = time.monotonic() - start

    return sync(path, meanwhile=watch), after[0]


def _after(studio: Server, path: Path, what: str, k: int) -> Synced:
    studio.do(what, k=k)
    found = sync(path)
    assert found.report["written" if what == "edit" else "deleted"] == k, found.report
    return found


def _tables(folder: Path) -> dict[str, int]:
    """A digest of each table of the Checkpoint."""
    with sqlite3.connect(f"file:{folder / 'checkpoint.sqlite'}?mode=ro", uri=True) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        digests = dict.fromkeys(names, 0)
        for name in names:
            for row in database.execute(f'SELECT * FROM "{name}"'):
                digests[name] = zlib.crc32(repr(row).encode(), digests[name])
    return digests


def _first(small: Life, big: Life) -> list[Row]:
    peaks = {
        "first": (big.first.cost.rss, small.first.cost.rss),
        "full": (big.full.cost.rss, small.full.cost.rss),
    }
    n, few = f"{big.count:,} tasks", f"{small.count:,}"
    rows = []
    for kind, (peak, least) in peaks.items():
        rows.append(Row(f"{n}, {kind} Run: peak memory", peak, "MB", 150))
        rows.append(Row(f"{n}, {kind} Run: peak memory / that of {few} tasks", peak / least, "x", 1.2, f"{least:.0f} MB"))
    return [
        Row(f"{n}, first Run: own CPU a task", 1000 * big.first.cost.cpu / big.first.report["written"], "ms", 0.25, "the whole process"),
        Row(f"{n}, full Run, nothing changed: own CPU a task", 1000 * big.full.cost.cpu / big.count, "ms"),
        *rows,
        Row(f"{n}: Checkpoint, bytes a task", big.bytes_a_task, "", 120),
        Row(f"{n}, first Run killed at 5 %: from start to the first new put", big.resumed_after, "s", 2),
        Row("the same: pages read in all", big.pages, "x", 1.05, "a Run that is not killed"),
    ]


def _idle(small: Life, big: Life) -> list[Row]:
    n = f"{big.count:,} tasks, nothing changed"
    cpu, at_small = (median(each.cost.cpu for each in life.idle) for life in (big, small))
    floor = run([sys.executable, "-m", "syncd", "--version"]).cpu
    others = sorted(big.changed - {"run", "sync"})
    return [
        Row(f"{n}: requests to the Source", max(each.report["source_requests"] for each in big.idle), "", 6),
        Row(f"{n}: requests to the Target", big.heard, "", 0),
        Row(f"{n}: CPU of the whole process", cpu, "s", 0.3, f"{at_small:.2f} s at {small.count:,} tasks; syncd --version {floor:.2f} s"),
        Row(f"{n}: CPU of the Run alone", big.alone, "s", 0.3, f"{small.alone:.3f} s at {small.count:,} tasks"),
        Row(f"{n}: tables written but the Run's row and its lease", len(others), "", 0, ", ".join(others)),
    ]


def _changed(small: Life, big: Life) -> list[Row]:
    rows = []
    for k, found in big.edited.items():
        least = small.edited[k]
        what, few = f"{big.count:,} tasks, {k:,} changed", f"at {small.count:,} tasks"
        asked, asked_small = found.report["source_requests"], least.report["source_requests"]
        rows.append(Row(f"{what}: requests to the Source", asked, "", asked_small + 1 + k // 100, f"{asked_small} {few}, and one per hundred"))
        rows.append(Row(f"{what}: CPU", found.cost.cpu, "s", 1.2 * least.cost.cpu, f"{least.cost.cpu:.2f} s {few}, and a fifth"))
    for d, found in big.deleted.items():
        what, cpu = f"{big.count:,} tasks, {d:,} deleted here and there", small.deleted[d].cost.cpu
        rows.append(Row(f"{what}: requests to the Source", found.report["source_requests"], "", 25 * d + 20, "25 x deletions + 20"))
        rows.append(Row(f"{what}: CPU", found.cost.cpu, "s", None, f"{cpu:.2f} s at {small.count:,} tasks"))
    return rows


def many_projects(folder: Path, projects: int, each: int) -> list[Row]:
    """Of so many tasks each, between two looks for what no number shows (drafts_every, 5 minutes by default; an hour here).

    A listing of the projects takes one request for every hundred: the server's own limit.
    """
    with scale(each, projects) as studio, sink() as url:
        path = config(folder, _source(studio), url, "projects", drafts_every="1h")
        sync(path)
        sync(path)
        before = sum(heard(url).values())
        idle = sync(path)
        asked = sum(heard(url).values()) - before
        studio.do("annotate", k=1, project=projects // 2)
        studio.do("reset")
        one = sync(path)
        kinds = studio.do("stats")["requests"]
    assert one.report["written"] == 1, one.report
    listing, n = -(-projects // 100), f"{projects:,} projects of {each:,}"
    return [
        Row(f"{n}, nothing changed: requests to the Source", idle.report["source_requests"], "", listing, "the list of projects alone"),
        Row(f"{n}, nothing changed: requests to the Target", asked, "", 0),
        Row(f"{n}, nothing changed: CPU", idle.cost.cpu, "s"),
        Row(
            f"{n}, one task annotated: requests to the Source",
            one.report["source_requests"],
            "",
            listing + 5,
            "the list, and what one project needs",
            kinds,
        ),
        Row(f"{n}, one task annotated: CPU", one.cost.cpu, "s"),
    ]
