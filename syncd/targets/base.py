"""What a Target must promise. The contract suite executes these sentences against every Target.

Knows no concrete Target. A Target moves bytes and never looks into them; keys are relative to the Target's own prefix, with `/` between parts,
and were made by `keys`: a Target refuses any other (absolute, `..`, empty part, NUL) with ValueError, since seeing one is a bug (I6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from syncd.model import Stat
from syncd.retry import Failed

_NO_PART = frozenset(("", ".", ".."))


def checked(key: str) -> str:
    """The key itself; ValueError for one that `keys` never makes (I6)."""
    if "\0" in key or not _NO_PART.isdisjoint(key.split("/")):
        raise ValueError(f"{key!r} is not a key: parts between slashes may not be empty, '.' or '..', nor hold NUL")
    return key


def checked_prefix(prefix: str) -> str:
    """A config's `prefix` as it stands before every key: empty, or parts that end in a slash. Raises ValueError."""
    parts = prefix.strip("/")
    return checked(parts) + "/" if parts else ""


class Target(Protocol):
    """Where files are written.

    - Durability: what `put`, `copy`, `create`, `put_stream` or `delete` did survives a power loss once `flush` has returned.
    - Atomicity: a reader sees the whole old file or the whole new one (I5); a failed put leaves the old one and no litter that outlives `sweep`.
    - Read after write: `get` and `list` show what was put and flushed.
    - Repeatable: each call may be repeated; deleting what is not there is not an error.
    - Raises TargetError or AccessError when the Target as a whole can't be used (unreachable after `retry_for`, full, read-only, refused),
      TaskError when only this key or these bytes can't be written; nothing else, and iteration is guarded like calls.
    - Every method may be called from many threads at a time.
    """

    requests: int
    """Every try of a request (local: of a file operation) since it was opened."""
    failed: Failed
    """Grows with each of them that fails."""
    concurrency: int
    """How many calls at a time it is made for."""
    place: str
    """Names the place, the same for the same place in every config: `s3://bucket/prefix`, `/absolute/folder`; no secret in it."""

    def put(self, key: str, data: bytes) -> bytes:
        """Write the whole file; its etag: opaque, at most 64 bytes, equal to what `list` says of it as long as nobody else writes."""
        ...

    def flush(self) -> None:
        """Return when everything put so far is durable. A no-op where each call is durable by itself."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Write only if the key is free, durably; False when it was taken, be it by one's own try whose answer got lost: `get` tells.
        Two callers at once: at most one gets True (unless `conditional()` is False).
        """
        ...

    def conditional(self) -> bool:
        """Whether the store honours conditional creation. Found out by trying, once; may write, and remove, a probe under `_syncd/`."""
        ...

    def put_stream(self, key: str, chunks: Callable[[], Iterable[bytes]]) -> None:
        """Write one file of any size at flat memory, whole or not at all. `chunks` may be called again for another try."""
        ...

    def get(self, key: str) -> bytes | None:
        """The bytes, or None when there is no such file."""
        ...

    def list(self, prefix: str) -> Iterator[Sequence[Stat]]:
        """Every file whose key starts with `prefix`, in some order, in pages; complete or raises. A folder that does not exist is an empty listing;
        a Target root that does not exist too.
        """
        ...

    def copy(self, source: str, destination: str) -> bool:
        """Copy inside the Target; where it can, without moving the bytes here. False when there is no such source."""
        ...

    def delete(self, keys: Sequence[str]) -> None:
        """Remove files, in bulk where the store can, after what was put or copied before is durable; missing ones are no error. Raises TargetError
        naming the first key that could not be removed; others may stay too.
        """
        ...

    def sweep(self) -> None:
        """Remove the files that a killed writer left behind under `_syncd/tmp`. Called by the owner alone, before its first write
        of a Run.
        """
        ...

    def close(self) -> None:
        """Polite only: not closing loses nothing."""
        ...


class Sign(StrEnum):
    """How good a Finding is."""

    OK = "ok"
    ADVICE = "advice"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `syncd doctor`. hint: what to do; refused: WRONG because credentials are refused; forgets: the store keeps no earlier versions."""

    sign: Sign
    message: str
    hint: str = ""
    refused: bool = False
    forgets: bool = False


@runtime_checkable
class Inspected(Protocol):
    """A Target that can tell how its place is set up, beyond what its calls show."""

    def inspect(self) -> Iterable[Finding]:
        """What would help or harm a backup there. Asks only; what it may not ask is ADVICE. Raises nothing of a vendor's."""
        ...


@dataclass(frozen=True, slots=True)
class Version:
    """A file as it stood from `since` to `until` (microseconds, as exact as the store tells); until None: it stands there now."""

    since: int
    until: int | None
    data: bytes


@runtime_checkable
class Versioned(Protocol):
    """A Target whose store can keep what is overwritten or deleted."""

    def versions(self, key: str) -> Iterator[Version]:
        """What it has of this key, newest first, each read as it is asked for; without versioning: what stands there. Raises TargetError."""
        ...
