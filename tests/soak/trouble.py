"""What goes wrong around syncd, at random: the network to Source and Target, the disk, the token."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from random import Random
from typing import Self

import httpx

from tests.fakes.proxy import (
    LOGIN_PAGE,
    Act,
    Fault,
    FaultProxy,
    Stale,
    answer,
    delay,
    edit,
    lose_answer,
    reset_after,
    reset_before,
    slowly,
    truncate,
)
from tests.live.server import LabelStudio

DISK = 24 << 20  # bytes of the small disk


def _both(chance: Random) -> dict[str, Act]:
    return {
        "500": answer(500, b"oops"),
        "503": answer(503, retry_after=1),
        "429": answer(429, retry_after=chance.choice([None, 1])),
        "reset before": reset_before(),
        "reset after": reset_after(),
        "timeout after commit": lose_answer(chance.choice([1, 7])),
        "cut": truncate(chance.choice([0, 1, 100, 3000])),
        "late": delay(chance.choice([0.1, 1])),
        "slow": slowly(chance.choice([0.5, 3])),
        "stale": Stale(),
        "403": answer(403),
    }


def _lies() -> dict[str, Act]:
    """What a Source may answer although nothing is gone."""
    return {
        "login page": answer(200, LOGIN_PAGE, content_type="text/html"),
        "404": answer(404),
        "nothing": edit(lambda _: b""),
        "empty list": edit(lambda _: b"[]"),
        "empty object": edit(lambda _: b"{}"),
        "half": edit(lambda body: body[: len(body) // 2]),
    }


class Network:
    """The way to both, through proxies."""

    def __init__(self, source: FaultProxy, target: FaultProxy, chance: Random) -> None:
        self._source, self._target, self._chance = source, target, chance
        self.planned = self.fired = 0

    def spoil(self) -> str:
        """One more fault, for one request or for all of its kind until it heals."""
        chance = self._chance
        proxy = chance.choice([self._source, self._target])
        acts = _both(chance) | (_lies() if proxy is self._source else {})
        name = chance.choice(sorted(acts))
        method = chance.choice(["", "", "GET", "PUT"]) if proxy is self._target else ""
        times = chance.choice([1, 1, 3, 20, None])
        probability = 1.0 if times == 1 else chance.choice([0.02, 0.2, 0.2, 1.0])
        proxy.plan(Fault(acts[name], method=method, nth=chance.randint(1, 15), times=times, probability=probability))
        self.planned += 1
        return f"{'source' if proxy is self._source else 'target'} {name} {method} x{times} p{probability}"

    def heal(self) -> None:
        """Everything is passed on again."""
        for proxy in (self._source, self._target):
            self.fired += proxy.fired
            proxy.clear()


class Disk:
    """A small one of its own, where the system lets us; use as a context. Without it, `limit` is None."""

    def __init__(self, path: Path) -> None:
        self._path, self._ballast = path, path / "ballast"
        path.mkdir()
        mount: list[str | Path] = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", path]
        self.small = os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0

    def fill(self, left: int) -> None:
        """Leave so many bytes."""
        free = os.statvfs(self._path).f_bavail * os.statvfs(self._path).f_frsize
        with contextlib.suppress(OSError), self._ballast.open("ab") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, self._ballast.stat().st_size + max(1, free - left))

    def free(self) -> None:
        """Make room."""
        self._ballast.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.small:
            subprocess.run(["umount", "-l", self._path], check=True)


class Token:
    """The one that syncd has: taken away, and given back."""

    def __init__(self, server: LabelStudio) -> None:
        self._server = server
        self.valid = True

    def take(self) -> None:
        self._set(valid=False)

    def give_back(self) -> None:
        self._set(valid=True)

    def _set(self, *, valid: bool) -> None:
        if valid == self.valid:
            return
        with contextlib.suppress(AssertionError, httpx.HTTPError):
            self._server.allow_legacy_tokens(allowed=valid)
            self.valid = valid
