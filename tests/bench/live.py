"""A first Run from the real Label Studio beside a bare download of the very pages that it reads.

Which pages those are is seen by a proxy in a Run that is not measured. Both sides are whole processes, take turns, and do not go through the proxy.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

from tests.bench.cases import Row
from tests.bench.process import run
from tests.bench.syncs import config, sync
from tests.fakes.proxy import FaultProxy
from tests.fakes.s3_sink import sink
from tests.live.server import TOKEN, LabelStudio, sample

DOWNLOAD = """
import sys, httpx
url, token, pages = sys.argv[1:]
with httpx.Client(base_url=url, headers={"Authorization": f"Token {token}"}, timeout=600) as client:
    for target in open(pages):
        client.get(target.strip()).raise_for_status()
"""


def against_download(folder: Path, tasks: int, pairs: int) -> list[Row]:
    with LabelStudio() as server, sink() as url:
        server.api.project().add([sample(n, annotations=n % 3, predictions=n % 2) for n in range(tasks)])
        pages = _pages(folder, server.url, url)
        download = [sys.executable, "-c", DOWNLOAD, server.url, TOKEN, str(pages)]
        walls = []
        for n in range(pairs):
            ours, report = sync(config(folder, _source(server.url), url, f"live-{n}"))
            assert report["written"] == tasks, report
            walls.append((ours.wall, run(download).wall))
    detail: dict[str, object] = {"syncd": [round(ours, 2) for ours, _ in walls], "download": [round(bare, 2) for _, bare in walls]}
    return [Row(f"first Run from Label Studio, {tasks} tasks: wall / bare download", median(a / b for a, b in walls), "x", 1.15, detail)]


def _source(url: str) -> dict[str, object]:
    return {"type": "label_studio", "url": url, "token": TOKEN}


def _pages(folder: Path, server: str, s3: str) -> Path:
    """A file of the request targets, one per line, by which a first Run reads its bodies."""
    with FaultProxy(server) as proxy:
        sync(config(folder, _source(proxy.url), s3, "watched"))
        targets = [seen.target for seen in proxy.requests if seen.path == "/api/tasks" and "fields=all" in seen.query]
    path = folder / "pages"
    path.write_text("\n".join(targets))
    return path
