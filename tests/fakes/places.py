"""Places for Targets in tests: one way to open the same place again and again, from this process or another.

    with S3Server() as server:
        place = s3_place(server.url, "bucket")
        place.open().put("1/2.json", b"{}")
        assert place.open().get("1/2.json") == b"{}"

`SYNCD_TEST_S3_URL` (`s3://bucket/prefix?endpoint=...&region=...`) and `SYNCD_TEST_GCS_URL` (`gs://bucket/prefix`) name real ones.
"""

from __future__ import annotations

import importlib
import logging
import secrets
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import parse_qsl, urlsplit

from syncd.clock import SystemClock
from syncd.errors import Stopped
from syncd.targets.base import Target

BUCKET = "bucket"


class QuickClock(SystemClock):
    """A clock whose waits take no time, and whose own time moves by them."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = 0.0
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        return super().monotonic() + self.waited

    def wait(self, seconds: float) -> None:
        if self.stop.is_set():
            raise Stopped
        with self._lock:
            self.waited += seconds


@dataclass(frozen=True)
class PlaceToTest:
    """A Target's module and config as plain data, so that a child process can open it too."""

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)

    def open(self, **changed: object) -> Target:
        edge = importlib.import_module(f"syncd.targets.{self.kind}")
        config = edge.Config.model_validate({"type": self.kind, **self.settings, **changed})
        return cast("Target", edge.open(config, QuickClock()))

    def command(self, script: str) -> list[str]:
        """Runs `script` in a child process that has `target` open."""
        head = f"from tests.fakes.places import PlaceToTest\ntarget = PlaceToTest({self.kind!r}, {self.settings!r}).open()\n"
        return [sys.executable, "-c", head + script]


class S3Server:
    """moto's S3 in this process, on a port of its own."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)

    def __enter__(self) -> Self:
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        self.client().create_bucket(Bucket=BUCKET)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.stop()

    def client(self) -> Any:
        """boto3's view of the same server."""
        import boto3  # slow, and `PlaceToTest` shows what a Target alone imports

        return boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")


def local_place(folder: Path) -> PlaceToTest:
    return PlaceToTest("local", {"path": str(folder)})


def s3_place(url: str, bucket: str = BUCKET) -> PlaceToTest:
    keys = {"access_key_id": "test", "secret_access_key": "do-not-show-this", "region": "us-east-1"}
    return PlaceToTest("s3", {"bucket": bucket, "endpoint": url, "prefix": f"p-{secrets.token_hex(6)}", **keys})


def gcs_place(url: str, bucket: str = BUCKET) -> PlaceToTest:
    return PlaceToTest("gcs", {"bucket": bucket, "endpoint": url, "prefix": f"p-{secrets.token_hex(6)}"})


def real_place(url: str) -> PlaceToTest:
    """A place of its own below the one that the URL names."""
    parts = urlsplit(url)
    prefix = f"{parts.path.strip('/')}/syncd-test-{secrets.token_hex(6)}".lstrip("/")
    return PlaceToTest({"s3": "s3", "gs": "gcs"}[parts.scheme], {"bucket": parts.netloc, "prefix": prefix, **dict(parse_qsl(parts.query))})


def empty(target: Target) -> None:
    """Remove everything in the place."""
    for page in target.list(""):
        target.delete([stat.key for stat in page])
