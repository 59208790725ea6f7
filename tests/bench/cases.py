"""What is measured, against which bar. Each case returns rows for the table and prints nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from urllib.request import urlopen

from tests.bench import corpus, rclone
from tests.bench.process import Cost, run
from tests.bench.syncs import config, sync
from tests.fakes.s3_sink import sink


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `most`: the bar, None when the number is for information only."""

    name: str
    value: float
    unit: str
    most: float | None = None
    detail: dict[str, object] = field(default_factory=dict)

    @property
    def held(self) -> bool:
        return self.most is None or self.value <= self.most


def against_rclone(folder: Path, tasks: int, pairs: int) -> list[Row]:
    """A first Run of so many files beside `rclone copy` on the same files, turn by turn; then the same at 30 ms latency."""
    source = corpus.write(folder / "files", tasks)
    with sink() as url:
        near = [_pair(folder, source, url, f"near-{n}", tasks) for n in range(pairs)]
    with sink(latency_ms=30) as url:
        far = [_pair(folder, source, url, "far", tasks)]
    shutil.rmtree(source)
    return [
        Row(f"first Run, {tasks} files: CPU / rclone's", median(a.cpu / b.cpu for a, b in near), "x", 0.6, _both(near)),
        Row("the same: wall / rclone's", median(a.wall / b.wall for a, b in near), "x"),
        Row("the same at 30 ms latency: wall / rclone's", median(a.wall / b.wall for a, b in far), "x", None, _both(far)),
    ]


def _pair(folder: Path, source: Path, url: str, name: str, tasks: int) -> tuple[Cost, Cost]:
    assert rclone.RCLONE, "rclone is missing: pip install '.[bench]'"
    ours, report = sync(config(folder, {"type": "files", "path": str(source)}, url, name))
    assert report["written"] == tasks, report
    theirs = run([rclone.RCLONE, "copy", "--transfers", "32", str(source), f"x:b/rclone-{name}"], rclone.environment(url))
    return ours, theirs


def _both(pairs: Sequence[tuple[Cost, Cost]]) -> dict[str, object]:
    return {
        "syncd": [{"cpu": round(ours.cpu, 2), "wall": round(ours.wall, 2), "rss": round(ours.rss)} for ours, _ in pairs],
        "rclone": [{"cpu": round(theirs.cpu, 2), "wall": round(theirs.wall, 2), "rss": round(theirs.rss)} for _, theirs in pairs],
    }


def nothing_changed(folder: Path, tasks: int) -> list[Row]:
    """A second Run right after the first: the Target must not hear of it."""
    source = corpus.write(folder / "files", tasks)
    with sink() as url:
        path = config(folder, {"type": "files", "path": str(source)}, url, "again")
        sync(path)
        before = _requests(url)
        cost, report = sync(path)
        heard = _requests(url) - before
    shutil.rmtree(source)
    counted = {"reported": report["target_requests"], "cpu": round(cost.cpu, 2), "wall": round(cost.wall, 2)}
    return [
        Row(f"second Run, {tasks} files, nothing changed: requests to the Target", heard + report["target_requests"], "", 0, counted),
        Row("the same: CPU", cost.cpu, "s"),
    ]


def memory(folder: Path, few: int, many: int) -> list[Row]:
    """Peak memory of first Runs of different size."""
    peaks = []
    with sink() as url:
        for count in (few, many):
            source = corpus.write(folder / f"files-{count}", count)
            peaks.append(sync(config(folder, {"type": "files", "path": str(source)}, url, f"memory-{count}")).cost.rss)
            shutil.rmtree(source)
    return [
        Row(f"peak memory, {many} tasks", peaks[1], "MB", 150),
        Row(f"peak memory, {many} tasks / {few} tasks", peaks[1] / peaks[0], "x", 1.2, {"mb": [round(peak, 1) for peak in peaks]}),
    ]


def _requests(url: str) -> int:
    with urlopen(f"{url}/-/stats") as answer:
        return sum(json.load(answer).values())
