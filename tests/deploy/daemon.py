"""A real `syncd run` with one Sync of the sample exports: as a process here, and as a config for one that runs elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

import httpx
import yaml

from tests.deploy.tools import ROOT
from tests.live.server import Process, free_port

EXPORTS = ROOT / "config/sample/exports"
PATIENCE = 60.0  # seconds


class Daemon:
    """Its config and everything it writes stand in `folder`."""

    def __init__(self, folder: Path) -> None:
        listen = f"127.0.0.1:{free_port()}"
        self.url = f"http://{listen}"
        self._log, self._config = folder / "syncd.log", folder / "syncd.yaml"
        self._config.write_text(config(listen, exports=EXPORTS, target={"type": "local", "path": "backup"}, state="state"))

    def __enter__(self) -> Self:
        self._process = Process([sys.executable, "-m", "syncd", "run", "-c", self._config], self._log, env=os.environ)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    def wait_for_a_run(self) -> str:
        """What it tells Prometheus once its first Run has ended well."""
        return wait_for_a_run(self.url, self._process.tail)


def config(listen: str, *, exports: Path, target: Mapping[str, str], **more: str) -> str:
    """The text of a config with one Sync; more: other keys at the top, such as `state`."""
    content = {
        "sources": {"exports": {"type": "files", "path": str(exports)}},
        "targets": {"place": dict(target)},
        "syncs": {"sample": {"source": "exports", "target": "place", "every": "1h"}},
        "http": listen,
    }
    return yaml.safe_dump(content | more)


def wait_for_a_run(url: str, log: Callable[[], str]) -> str:
    """What the daemon at this address tells Prometheus once a Run has ended well."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(httpx.HTTPError):
            told = httpx.get(f"{url}/metrics").text
            if 'syncd_last_success_timestamp_seconds{sync="sample"}' in told:
                return told
        time.sleep(0.1)
    raise AssertionError(f"no Run ended well at {url}:\n{log()}")
