"""A first Run from Labelbox, by the stand-in: memory, how soon the first task is there, and reading beside the vendor's own SDK.

Both sides read the same export, as whole processes with their imports, turn by turn: the SDK as its users write it, syncd what a Run gets to put.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests.bench.process import ROOT, Cost, run
from tests.bench.syncs import Synced, config, config_into, sync
from tests.bench.table import Row
from tests.fakes.labelbox import Labelbox
from tests.fakes.s3_sink import sink

SYNCD = """
import gc, sys
from pathlib import Path
from syncd.checkpoint import sqlite
from syncd.clock import SystemClock
from syncd.sources import labelbox
gc.freeze()  # as the command line does
gc.set_threshold(100_000, 20, 100)
url, key, project, folder = sys.argv[1:]
config = labelbox.Config(type="labelbox", api_key=key, url=url, requests_per_minute=100_000)
source = labelbox.open(config, {"projects": [project]}, SystemClock())
(collection,) = source.collections()
known = sqlite.open(Path(folder)).known("bench", collection.id)
print(sum(len(batch.tasks) for batch in source.changes(collection, None, known)))
"""
SDK = """
import sys, labelbox
url, key, project, _ = sys.argv[1:]
parts = ("attachments", "metadata_fields", "data_row_details", "project_details", "label_details", "performance_details")
task = labelbox.Client(key, endpoint=url).get_project(project).export(params=dict.fromkeys(parts, True))
task.wait_till_done()
print(sum(1 for row in task.get_buffered_stream() if row.json))
"""


def first_run(folder: Path, few: int, many: int, pairs: int) -> list[Row]:
    """Of so many data rows of 3 KB each, in one export."""
    runs = [_whole(folder, count) for count in (few, many)]
    with _stand_in(many) as place:
        turns = [(_read(SYNCD, place, folder / f"read-{n}", many), _read(SDK, place, folder, many)) for n in range(pairs)]
    peaks = [found.cost.rss for found in runs]
    each = {name: [round(cost.cpu / many * 1e6, 1) for cost in costs] for name, costs in zip(("syncd", "sdk"), zip(*turns, strict=True), strict=True)}
    n = f"Labelbox, {many:,} rows"
    return [
        Row(f"{n}: peak memory", peaks[1], "MB", 100),
        Row(f"{n}: peak memory / that of {few:,}", peaks[1] / peaks[0], "x", 1.2, f"{peaks[0]:.0f} MB"),
        Row("Labelbox: from the first byte to the first task in the target", _first(folder, few), "s", 1),
        Row(f"{n}, read: CPU / SDK's", median(a.cpu / b.cpu for a, b in turns), "x", 0.5, "the vendor's SDK", {"microseconds a row": each}),
        Row(f"{n}, the whole Run: CPU a row", 1000 * runs[1].cost.cpu / many, "ms"),
    ]


@contextmanager
def _stand_in(rows: int) -> Iterator[list[str]]:
    """Address, key and project of a stand-in in a process of its own."""
    command = [sys.executable, "-m", "tests.fakes.labelbox", str(rows)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield server.stdout.readline().split()
        server.stdin.close()


def _source(url: str, key: str) -> dict[str, object]:
    return {"type": "labelbox", "url": url, "api_key": key, "requests_per_minute": 100_000}


def _whole(folder: Path, rows: int) -> Synced:
    with _stand_in(rows) as (url, key, _), sink() as s3:
        found = sync(config(folder, _source(url, key), s3, f"labelbox-{rows}"))
    assert found.report["written"] == rows, found.report
    return found


def _read(program: str, place: list[str], folder: Path, rows: int) -> Cost:
    cost = run([sys.executable, "-c", program, *place, str(folder)])
    assert int(cost.output) == rows, cost.output
    return cost


def _first(folder: Path, rows: int) -> float:
    """Seconds from when the first file of the export is asked for until the first task's file stands in a folder."""
    with Labelbox() as box:
        project = box.project("Cats")
        project.virtual = rows
        sync(config_into(folder, _source(box.url, box.key), {"type": "local", "path": str(folder / "backup")}, "labelbox-first"))
        asked = next(call.at for call in box.log if "file" in call.names)
    written = min(path.stat().st_mtime_ns for path in (folder / "backup" / project.id).iterdir() if not path.name.startswith("_"))
    return (written // 1000 - asked) / 1_000_000
