"""The real Label Studio: a first Run beside a bare download of the very pages it reads, through snapshots, and beside the server's own storage.

Which pages those are is seen by a proxy in a Run that is not measured. Both sides are whole processes, take turns, and do not go through the proxy.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

from tests.bench.process import Cost, group_cpu, run
from tests.bench.syncs import config, sync
from tests.bench.table import Row
from tests.fakes.proxy import FaultProxy
from tests.fakes.s3_sink import sink
from tests.live.server import TOKEN, LabelStudio, Project, missing, sample

DOWNLOAD = """
import sys, httpx
url, token, pages = sys.argv[1:]
with httpx.Client(base_url=url, headers={"Authorization": f"Token {token}"}, timeout=600) as client:
    for target in open(pages):
        client.get(target.strip()).raise_for_status()
"""


def real(folder: Path, tasks: int, pairs: int) -> list[Row]:
    if missing():
        return [Row("the real Label Studio", None, against=missing())]
    with LabelStudio() as server, sink() as url:
        project = server.api.project("Cats")
        project.add([sample(n, annotations=n % 3, predictions=n % 2, text="Two cats on a wall, late in the day. " * 25) for n in range(tasks)])
        return [
            *_first_run(folder, server, url, tasks, pairs),
            *_snapshots(folder, server, url, tasks),
            *_own_storage(folder, server, project, url, tasks),
        ]


def _source(server: str, **more: object) -> dict[str, object]:
    return {"type": "label_studio", "url": server, "token": TOKEN, **more}


def _first(folder: Path, server: LabelStudio, url: str, name: str, tasks: int, **more: object) -> Cost:
    ours, report = sync(config(folder, _source(server.url, **more), url, name))
    assert report["written"] == tasks, report
    return ours


def _first_run(folder: Path, server: LabelStudio, url: str, tasks: int, pairs: int) -> list[Row]:
    pages = folder / "pages"
    with FaultProxy(server.url) as proxy:
        sync(config(folder, _source(proxy.url), url, "watched"))
        pages.write_text("\n".join(seen.target for seen in proxy.requests if seen.path == "/api/tasks" and "fields=all" in seen.query))
    download = [sys.executable, "-c", DOWNLOAD, server.url, TOKEN, str(pages)]
    turns = [(_first(folder, server, url, f"live-{n}", tasks), run(download)) for n in range(pairs)]
    walls: dict[str, object] = {"walls": [(round(ours.wall, 2), round(bare.wall, 2)) for ours, bare in turns]}
    what = f"real Label Studio → S3, {tasks:,} tasks, first Run"
    return [
        Row(f"{what}: wall", median(ours.wall / bare.wall for ours, bare in turns), "x", 1.1, "a bare download of the same pages", walls),
        Row(f"{what}: own CPU a task", 1000 * median(ours.cpu for ours, _ in turns) / tasks, "ms", 0.25, "the whole process"),
    ]


def _snapshots(folder: Path, server: LabelStudio, url: str, tasks: int) -> list[Row]:
    """`bulk: auto` beside `bulk: list`."""
    served = {}
    for how in ("list", "auto"):
        before = _cpu(server)
        _first(folder, server, url, how, tasks, bulk=how)
        served[how] = (_cpu(server) - before) / tasks * 1000
    what = f"{served['auto']:.2f} and {served['list']:.2f} ms"
    return [Row("the same through snapshots: the server's CPU a task", served["auto"] / served["list"], "x", 0.6, f"the task list's: {what}")]


def _cpu(server: LabelStudio) -> float:
    """CPU seconds of the server so far."""
    assert server._process
    return group_cpu(server._process.pid)


def _own_storage(folder: Path, server: LabelStudio, project: Project, url: str, tasks: int) -> list[Row]:
    """Its target storage, which writes annotations: the CPU of both processes a first time and once more, when nothing changed."""
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    place = {"project": project.id, "bucket": "b", "prefix": "own", "s3_endpoint": url, **keys}
    storage = server.api.post("/api/storages/export/s3", place)["id"]
    rows = []
    for when in ("first", "again, nothing changed"):
        start = _cpu(server)
        server.api.post(f"/api/storages/export/s3/{storage}/sync")
        between = _cpu(server)
        cost, _ = sync(config(folder, _source(server.url), url, "beside"))
        theirs, ours = between - start, _cpu(server) - between + cost.cpu
        detail = f"{1000 * theirs / tasks:.2f} ms a task by Label Studio's own sync, {1000 * ours / tasks:.2f} by syncd, the server's included"
        rows.append(Row(f"real Label Studio → S3, {when}: CPU / its target storage's", ours / theirs, "x", None, detail))
    return rows
