"""`syncd sync` as a user runs it: a config file, a process, a Report."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.process import Cost, run


class Synced(NamedTuple):
    cost: Cost
    report: Mapping[str, Any]


def config(folder: Path, source: Mapping[str, object], s3_url: str, prefix: str) -> Path:
    """A config of one Sync from that Source into the S3 server, its Checkpoint below the folder (JSON is YAML too)."""
    target = {
        "type": "s3",
        "bucket": "b",
        "prefix": prefix,
        "endpoint": s3_url,
        "region": "us-east-1",
        "access_key_id": "a",
        "secret_access_key": "s",
    }
    return config_into(folder, source, target, prefix)


def config_into(folder: Path, source: Mapping[str, object], target: Mapping[str, object], name: str) -> Path:
    """The same, into any Target."""
    content = {
        "sources": {"source": source},
        "targets": {"sink": target},
        "syncs": {"bench": {"source": "source", "target": "sink"}},
        "state": str(folder / f"state-{name}"),
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(content))
    return path


def sync(path: Path) -> Synced:
    """One Run. Raises RuntimeError unless it is ok."""
    cost = run([sys.executable, "-m", "syncd", "sync", "--json", "-c", str(path)])
    return Synced(cost, json.loads(cost.output.splitlines()[-1]))
