"""What both APIs of the Google Cloud Storage stand-in share: buckets of objects with generations, conditions, checksums and listings.

Not thread-safe: the server calls it under its lock.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import google_crc32c


class StoreError(Exception):
    """A refusal; each API prints it in its own shape. `code` is the XML API's word, `reason` the JSON API's."""

    def __init__(self, status: int, code: str, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.reason, self.message = status, code, reason, message


@dataclass(frozen=True, slots=True)
class Blob:
    """One object. `parts`: of a multipart upload; then there is no MD5 of the whole, as on the real store."""

    data: bytes
    generation: int
    created: datetime
    updated: datetime
    metageneration: int = 1
    content_type: str = "application/octet-stream"
    metadata: Mapping[str, str] = field(default_factory=dict)
    parts: int = 0
    deleted: datetime | None = None

    @property
    def md5(self) -> bytes:
        return hashlib.md5(self.data).digest()

    @property
    def crc32c(self) -> str:
        return base64.b64encode(google_crc32c.value(self.data).to_bytes(4, "big")).decode()

    @property
    def hashes(self) -> dict[str, str]:
        """Base64, by the names of the x-goog-hash header."""
        return {"crc32c": self.crc32c} | ({} if self.parts else {"md5": base64.b64encode(self.md5).decode()})

    @property
    def xml_etag(self) -> str:
        return f'"{self.md5.hex()}-{self.parts}"' if self.parts else f'"{self.md5.hex()}"'

    @property
    def json_etag(self) -> str:
        """Moves with generation and metageneration; never equal to the XML API's, as on the real store."""
        return base64.b64encode(f"{self.generation}/{self.metageneration}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Conditions:
    """What must hold of the present object; None: not asked. Generation 0 stands for "there is none"."""

    generation: int | None = None
    generation_not: int | None = None
    metageneration: int | None = None
    metageneration_not: int | None = None

    def check(self, blob: Blob | None) -> None:
        generation, metageneration = (blob.generation, blob.metageneration) if blob else (0, 0)
        if (
            self.generation not in {None, generation}
            or self.metageneration not in {None, metageneration}
            or generation == self.generation_not
            or (blob and metageneration == self.metageneration_not)
        ):
            raise StoreError(412, "PreconditionFailed", "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing; `following` is what the next page starts after, None at the end."""

    blobs: Mapping[str, Blob]
    prefixes: tuple[str, ...]
    following: str | None


class Store:
    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.buckets: dict[str, dict[str, Blob]] = {}
        self.versioned: set[str] = set()  # buckets that keep what is overwritten or deleted
        self.earlier: dict[tuple[str, str], list[Blob]] = {}
        self._generation = 0

    def create_bucket(self, name: str) -> None:
        if name in self.buckets:
            raise StoreError(409, "BucketAlreadyOwnedByYou", "conflict", "You already own a bucket of this name.")
        self.buckets[name] = {}

    def bucket(self, name: str) -> dict[str, Blob]:
        if name not in self.buckets:
            raise StoreError(404, "NoSuchBucket", "notFound", "The specified bucket does not exist.")
        return self.buckets[name]

    def get(self, bucket: str, name: str, conditions: Conditions = Conditions(), generation: int | None = None) -> Blob:
        earlier = {each.generation: each for each in self.earlier.get((bucket, name), ())}
        blob = earlier.get(generation or 0) or self.bucket(bucket).get(name)
        if blob is None or generation not in {None, blob.generation}:
            raise StoreError(404, "NoSuchKey", "notFound", f"No such object: {bucket}/{name}")
        conditions.check(blob)
        return blob

    def put(
        self,
        bucket: str,
        name: str,
        data: bytes,
        *,
        conditions: Conditions,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
        expected: Mapping[str, str] | None = None,
        parts: int = 0,
    ) -> Blob:
        """Replace the whole object. `expected` are base64 checksums by the names of x-goog-hash; a wrong one is a 400."""
        blobs = self.bucket(bucket)
        _check_name(name)
        conditions.check(blobs.get(name))
        self._generation = max(self._generation + 1, time.time_ns() // 1000)
        now = datetime.now(UTC)
        blob = Blob(data, self._generation, now, now, 1, content_type or "application/octet-stream", dict(metadata or {}), parts)
        for kind, value in (expected or {}).items():
            if blob.hashes.get(kind, value) != value:
                raise StoreError(400, "BadDigest", "invalid", f"The {kind} you specified did not match what we received.")
        self._keep(bucket, name, now)
        blobs[name] = blob
        return blob

    def _keep(self, bucket: str, name: str, now: datetime) -> None:
        if bucket in self.versioned and (old := self.buckets[bucket].get(name)):
            self.earlier.setdefault((bucket, name), []).append(replace(old, deleted=now))

    def patch(self, bucket: str, name: str, conditions: Conditions, **changes: object) -> Blob:
        blob = self.get(bucket, name, conditions)
        changed = replace(blob, metageneration=blob.metageneration + 1, updated=datetime.now(UTC), **changes)  # type: ignore[arg-type]  # by field name
        self.bucket(bucket)[name] = changed
        return changed

    def delete(self, bucket: str, name: str, conditions: Conditions, generation: int | None = None) -> None:
        self.get(bucket, name, conditions, generation)
        self._keep(bucket, name, datetime.now(UTC))
        del self.bucket(bucket)[name]

    def all_versions(self, bucket: str, prefix: str) -> list[tuple[str, Blob]]:
        """Names and what is and was there, oldest first."""
        earlier = [(name, blob) for (where, name), blobs in self.earlier.items() if where == bucket for blob in blobs]
        return [(name, blob) for name, blob in [*earlier, *self.bucket(bucket).items()] if name.startswith(prefix)]

    def list(self, bucket: str, *, prefix: str, delimiter: str, after: str, limit: int, start: str = "", end: str = "") -> Page:
        """A page in the order of the names' UTF-8 bytes (which is that of their code points): names > after, >= start, < end; a common prefix
        counts as one.
        """
        blobs: dict[str, Blob] = {}
        prefixes: dict[str, None] = {}
        held = self.bucket(bucket)
        following = after
        limit = max(1, min(limit, self.page_size))
        names = sorted(held)
        for name in itertools.islice(names, bisect_left(names, max(prefix, after, start)), None):
            if not name.startswith(prefix) or (end and name >= end):
                break
            cut = name.find(delimiter, len(prefix)) if delimiter else -1
            entry = name if cut < 0 else name[: cut + len(delimiter)]
            if entry <= after:
                continue
            if len(blobs) + len(prefixes) == limit and entry not in prefixes:
                return Page(blobs, tuple(prefixes), following)
            following = entry
            if cut < 0:
                blobs[name] = held[name]
            else:
                prefixes[entry] = None
        return Page(blobs, tuple(prefixes), None)


def _check_name(name: str) -> None:
    """https://cloud.google.com/storage/docs/objects#naming"""
    if not 1 <= len(name.encode()) <= 1024 or name in {".", ".."} or "\r" in name or "\n" in name:
        raise StoreError(400, "InvalidObjectName", "invalid", "The specified object name is not valid.")
