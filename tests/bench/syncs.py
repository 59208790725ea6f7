"""`syncd sync` as a user runs it: a config file, a process, a Report."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

from tests.bench.process import Cost, run


class Synced(NamedTuple):
    cost: Cost
    report: Mapping[str, Any]


def config(folder: Path, source: Mapping[str, object], s3_url: str, prefix: str, **rules: object) -> Path:
    """A config of one Sync from that Source into the S3 server, its Checkpoint below the folder (JSON is YAML too)."""
    return config_into(folder, source, s3(s3_url, prefix), prefix, **rules)


def s3(url: str, prefix: str) -> dict[str, object]:
    keys = {"region": "us-east-1", "access_key_id": "a", "secret_access_key": "s"}
    return {"type": "s3", "bucket": "b", "prefix": prefix, "endpoint": url, **keys}


def config_into(folder: Path, source: Mapping[str, object], target: Mapping[str, object], name: str, **rules: object) -> Path:
    """The same, into any Target."""
    content = {
        "sources": {"source": source},
        "targets": {"sink": target},
        "syncs": {"bench": {"source": "source", "target": "sink", **rules}},
        "state": str(state(folder, name)),
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(content))
    return path


def state(folder: Path, name: str) -> Path:
    """Where the Checkpoint of such a config is."""
    return folder / f"state-{name}"


def command(path: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "syncd", "sync", "--json", "-c", str(path), *flags]


def sync(path: Path, *flags: str, meanwhile: Callable[[int], None] | None = None) -> Synced:
    """One Run. Raises RuntimeError unless it is ok."""
    cost = run(command(path, *flags), meanwhile=meanwhile)
    return Synced(cost, json.loads(cost.output.splitlines()[-1]))


def heard(s3_url: str) -> dict[str, int]:
    """What a sink was asked so far: requests by method."""
    with urlopen(f"{s3_url}/-/stats") as answer:
        found: dict[str, int] = json.load(answer)
    return found
