"""A first Run of many small files beside what copies files: into S3, into S3 far away, into a folder that must survive a power cut, into GCS."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from tests.bench import corpus, peers
from tests.bench.process import Cost, run
from tests.bench.syncs import config, config_into, heard, sync
from tests.bench.table import Row
from tests.fakes.gcs_server import GcsServer
from tests.fakes.s3_sink import sink

_FAR_MS = 30
_WORKERS = (32, 64, 128, 256)
_PEERS = ("rclone", "s5cmd")


def against_copies(folder: Path, count: int, pairs: int) -> list[Row]:
    source = corpus.write(folder / "files", count)
    return [
        *_near(folder, source, count, pairs),
        *_far(folder, source, count, pairs),
        *_local(folder, source, count, pairs),
        *_others(folder, source, count),
    ]


def _ours(folder: Path, source: Path, count: int, url: str, name: str) -> Cost:
    path = config(folder, {"type": "files", "path": str(source)}, url, name)
    cost, report = sync(path)
    assert report["written"] == count, report
    return cost


def _near(folder: Path, source: Path, count: int, pairs: int) -> list[Row]:
    """Turn by turn. And once more ours, when nothing changed."""
    with sink() as url:
        copies = {tool: copy for tool in _PEERS if (copy := peers.copier(tool, url))}
        turns = []
        for n in range(pairs):
            ours = _ours(folder, source, count, url, f"near-{n}")
            turns.append({"syncd": ours} | {tool: copy(source, f"{tool}-{n}", 32) for tool, copy in copies.items()})
        before = heard(url)
        again, _ = sync(folder / "near-0.yaml")
        asked = sum(heard(url).values()) - sum(before.values())
    what = f"Files → S3, {count:,} x 2 KB: CPU"
    detail = [{tool: _numbers(cost) for tool, cost in turn.items()} for turn in turns]
    rows = [
        Row(f"{what} / {tool}'s", median(turn["syncd"].cpu / turn[tool].cpu for turn in turns), "x", 0.4, f"{tool}, 32 at a time", {"turns": detail})
        if tool in copies
        else missing(f"{what} / {tool}'s", tool)
        for tool in _PEERS
    ]
    return [
        *rows,
        Row("the same, a task", 1000 * median(turn["syncd"].cpu for turn in turns) / count, "ms", None, "the whole process"),
        Row("the same again, nothing changed: requests to the Target", asked, "", 0, "", _numbers(again)),
    ]


def _far(folder: Path, source: Path, count: int, pairs: int) -> list[Row]:
    """The best wall of each: theirs of four settings, ours of so many tries, since it has no setting."""
    with sink(latency_ms=_FAR_MS) as url:
        ours = [_ours(folder, source, count, url, f"far-{n}").wall for n in range(pairs)]
        rows = []
        for tool in _PEERS:
            copy, name = peers.copier(tool, url), f"Files → S3, {_FAR_MS} ms away: wall / {tool}'s"
            if copy is None:
                rows.append(missing(name, tool))
                continue
            walls = {workers: copy(source, f"{tool}-{workers}", workers).wall for workers in _WORKERS}
            best = min(walls, key=lambda workers: walls[workers])
            rows.append(Row(name, min(ours) / walls[best], "x", 0.5, f"{tool}, {best} at a time, its best", {"syncd": ours, tool: walls}))
    return rows


def _local(folder: Path, source: Path, count: int, pairs: int) -> list[Row]:
    """Nothing is deleted meanwhile: on ext4 whoever makes files next searches behind all that was deleted just before, for seconds."""
    ratios, walls = [], []
    for n in range(pairs):
        run(["sync"])  # what others wrote is nobody's cost
        ours, report = sync(
            config_into(folder, {"type": "files", "path": str(source)}, {"type": "local", "path": str(folder / f"ours-{n}")}, f"local-{n}")
        )
        assert report["written"] == count, report
        run(["sync"])
        theirs = run(["sh", "-c", 'cp -r "$0" "$1" && sync -f "$1"', str(source), str(folder / f"theirs-{n}")])
        ratios.append(ours.wall / theirs.wall)
        walls.append((ours.wall, theirs.wall))
    return [
        Row(f"Files → folder, {count:,} x 2 KB, durable: wall", median(ratios), "x", 1.5, "cp -r, then sync of that file system", {"walls": walls})
    ]


def _others(folder: Path, source: Path, count: int) -> list[Row]:
    """For information: ours / theirs."""
    rows = []
    with sink() as url:
        ours = _ours(folder, source, count, url, "others")
        rows += [_other(tool, url, source, ours, "Files → S3") for tool in ("aws s3 cp", "aws s3 sync", "boto3")]
    with GcsServer() as server:
        server.create_bucket("b")
        target = {"type": "gcs", "bucket": "b", "prefix": "ours", "endpoint": server.url}
        ours, _ = sync(config_into(folder, {"type": "files", "path": str(source)}, target, "gcs"))
        rows.append(_other("google-cloud-storage", server.url, source, ours, "Files → GCS"))
    return rows


def _other(tool: str, url: str, source: Path, ours: Cost, what: str) -> Row:
    copy = peers.copier(tool, url)
    if copy is None:
        return missing(f"{what}: CPU / {tool}'s", tool)
    theirs = copy(source, tool.replace(" ", "-"), 32)
    how = "a loop in 32 threads" if tool in {"boto3", "google-cloud-storage"} else "as it comes"
    return Row(f"{what}: CPU / {tool}'s", ours.cpu / theirs.cpu, "x", None, f"{tool}, {how}", {"syncd": _numbers(ours), tool: _numbers(theirs)})


def large(folder: Path, size: int) -> list[Row]:
    """One export file of so many bytes, a JSON array; and one task of 50 MB."""
    rows = []
    with sink() as url:
        for name, count, data in (("export", size // 2_000, None), ("task", 1, "x" * 50_000_000)):
            source = corpus.export(folder / name, count, data)
            cost, report = sync(config(folder, {"type": "files", "path": str(source)}, url, name))
            assert report["written"] == count, report
            what = f"one task of {len(data) / 1e6:.0f} MB" if data else f"one export file of {count:,} tasks, {size / 1e9:g} GB"
            rows.append(Row(f"{what}: peak memory", cost.rss, "MB", None if data else 150, "", _numbers(cost)))
    return rows


def missing(name: str, tool: str) -> Row:
    return Row(name, None, against=f"{tool} could not be installed here")


def _numbers(cost: Cost) -> dict[str, object]:
    return {"cpu": round(cost.cpu, 2), "wall": round(cost.wall, 2), "mb": round(cost.rss)}
