"""Whose place in the Target it is (I6), and what stands there.

Rules: the owner marker is read before anything in the Target is written or believed in a Run, and never overwritten without `take_over`;
where there was one and is none, nothing is put but by a full Run that a person asked for; a Run that writes nothing asks the Target nothing.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator, Mapping
from itertools import takewhile

import orjson

from syncd import encode, keys
from syncd.clock import format_time
from syncd.errors import OwnedError, SyncdError, TargetError
from syncd.model import Stat, TaskFile
from syncd.run.job import Job
from syncd.run.outlook import outlook
from syncd.scratch import Scratch
from syncd.targets.base import Target

log = logging.getLogger(__name__)
_ETAG_AT = 8  # a listing's value: size in 8 bytes, then the etag


class Place:
    """The Target of one Run, claimed when it is first needed. anew: somebody says that it may be empty, and all is looked at.

    inherited: it is claimed, and was somebody else's before, whose files may stand under any id.
    """

    def __init__(self, job: Job, *, take_over: bool, anew: bool = False) -> None:
        self._job = job
        self._take_over, self._anew = take_over, anew
        self._lock = threading.Lock()
        self._claimed = self.inherited = False

    def claim(self) -> None:
        """Make sure that the place is this Sync's own, once a Run. Raises OwnedError naming the owner, TargetError when all of it is gone."""
        with self._lock:
            if self._claimed:
                return
            target = self._job.target
            found = target.get(keys.OWNER)
            refused = self._refused(found)
            if refused is not None and not (found is not None and self._take_over):
                raise refused
            if found is None:
                self._create(self._marker())
            elif refused is not None:
                log.warning("taking over %s from %s", target.place, _describe(found, self._job.checkpoint.id))
                found = self._marker(inherited=True)
                target.put(keys.OWNER, found)
                target.flush()
            target.sweep()
            self._claimed, self.inherited = True, bool(_parse(found or b"").get("inherited"))

    def refusal(self) -> SyncdError | None:
        """Why a Run would not get the place; None when it would. Only asks."""
        return self._refused(self._job.target.get(keys.OWNER))

    def _refused(self, found: bytes | None) -> SyncdError | None:
        if found is not None:
            return None if self._ours(found) else OwnedError(self._refusal(found))
        checkpoint, name = self._job.checkpoint, self._job.name
        held = sum(checkpoint.size(name, collection) for collection in checkpoint.states(name))
        if self._anew or not held or outlook(self._job).moved:
            return None
        return TargetError(  # Entries tell of files, and nothing says whose they are: a disk is not mounted, say
            f"{self._job.target.place} has no owner marker any more, though {held:,} tasks were put there. If it is a disk, mount it; if it was "
            f"emptied, stop syncd and run `syncd sync {name} --full`, which puts everything again"
        )

    def _create(self, marker: bytes) -> None:
        target = self._job.target
        if not target.conditional():
            log.warning("%s ignores conditional puts: two syncd claiming it at the same moment would not notice each other", target.place)
        target.create(keys.OWNER, marker)
        found = target.get(keys.OWNER)  # whoever won, the marker says so
        if found is None or not self._ours(found):
            raise OwnedError(self._refusal(found or b""))

    def _marker(self, **more: bool) -> bytes:
        job = self._job
        return encode.dumps({
            "checkpoint": job.checkpoint.id, "sync": job.name, "host": socket.gethostname(), "since": format_time(job.clock.now()), **more,
        })  # fmt: skip

    def _ours(self, marker: bytes) -> bool:
        owner = _parse(marker)
        return (owner.get("checkpoint"), owner.get("sync")) == (self._job.checkpoint.id, self._job.name)

    def _refusal(self, marker: bytes) -> str:
        name, whose = self._job.name, _describe(marker, self._job.checkpoint.id)
        return (
            f"{self._job.target.place} belongs to {whose}. Two Syncs must not share a place: give sync {name} another prefix, or stop syncd and run "
            f"`syncd sync {name} --take-over` if the other one is gone for good, was renamed, or its Checkpoint was lost"
        )

    def listing(self, prefix: str) -> Listing:
        """What stands under `prefix`, complete."""
        self.claim()
        return Listing(self._job, prefix)


class Listing:
    """What the Target listed, by key, held on disk: memory stays flat at any number of files."""

    def __init__(self, job: Job, prefix: str) -> None:
        self.prefix = prefix
        self._scratch = Scratch()
        for page in job.target.list(prefix):
            self._scratch.put((stat.key, stat.size.to_bytes(_ETAG_AT, "big") + stat.etag) for stat in page)

    def find(self, wanted: list[str]) -> dict[str, Stat]:
        """Those of the keys that are listed."""
        return _stats(self._scratch.get(wanted))

    def take(self, wanted: list[str]) -> dict[str, Stat]:
        """Those of the keys that are listed; from now on they are not."""
        return _stats(self._scratch.take(wanted))

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Every key that begins with `prefix`, in order; streamed."""
        return takewhile(lambda key: key.startswith(prefix), (key for key, _ in self._scratch.items(prefix)))

    def close(self) -> None:
        self._scratch.close()


def _stats(found: Mapping[str, bytes]) -> dict[str, Stat]:
    return {key: Stat(key, int.from_bytes(value[:_ETAG_AT], "big"), value[_ETAG_AT:]) for key, value in found.items()}


def owner(target: Target) -> str:
    """The Sync that the marker says has this place; empty: nobody."""
    return str(_parse(target.get(keys.OWNER) or b"").get("sync", ""))


def stands(job: Job, file: TaskFile, found: Stat | None) -> bool:
    """Whether these very bytes stand where `found` was listed; they are read only when their size is right."""
    return found is not None and found.size == len(file.data) and job.target.get(file.key) == file.data


def rescue(job: Job, key: str, digest: bytes, trash: str) -> bool:
    """Keep the file with this digest in the trash, durably, before another one takes its key; whether it is there.

    Not by server-side copy: after a crash the new file may stand there already, and must not enter the trash under the old one's name.
    """
    data = job.target.get(key)
    if data is None or encode.digest(data) != digest:
        return job.target.get(trash) is not None
    job.target.put(trash, data)
    job.target.flush()
    return True


def _parse(marker: bytes) -> dict[str, object]:
    try:
        owner = orjson.loads(marker)
    except orjson.JSONDecodeError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _describe(marker: bytes, ours: str) -> str:
    owner = _parse(marker)
    if not owner:
        return "an owner whose marker can't be read"
    whose = "this" if owner.get("checkpoint") == ours else "another"
    return f"sync {owner.get('sync')} of {whose} Checkpoint (host {owner.get('host')}, since {owner.get('since')})"
