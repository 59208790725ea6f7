"""Where the files stand, looked at and tampered with from outside: a folder, or a prefix of a bucket."""

from __future__ import annotations

import contextlib
from pathlib import Path
from random import Random
from typing import Any, Protocol

from tests.fakes.places import BUCKET


class Place(Protocol):
    """Files by key."""

    def files(self) -> dict[str, bytes]: ...

    def put(self, key: str, data: bytes) -> None: ...

    def delete(self, key: str) -> None: ...


class Folder:
    """On this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def files(self) -> dict[str, bytes]:
        found = {}
        for path in self._path.rglob("*"):
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # syncd is at work meanwhile
                found[str(path.relative_to(self._path))] = path.read_bytes()
        return found

    def put(self, key: str, data: bytes) -> None:
        path = self._path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def delete(self, key: str) -> None:
        (self._path / key).unlink(missing_ok=True)


class Bucket:
    """A prefix; asked past the proxy."""

    def __init__(self, client: Any, prefix: str) -> None:
        self._client, self._prefix = client, prefix

    def files(self) -> dict[str, bytes]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=self._prefix)
        keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
        found = {}
        for key in keys:
            with contextlib.suppress(self._client.exceptions.NoSuchKey):
                found[key.removeprefix(self._prefix)] = self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return found

    def put(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=BUCKET, Key=self._prefix + key, Body=data)

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=BUCKET, Key=self._prefix + key)


def tasks(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files of tasks alone."""
    return {key: data for key, data in files.items() if key.endswith(".json") and "/_" not in f"/{key}" and "/" in key}


def tamper(place: Place, chance: Random) -> tuple[str, ...]:
    """One file is removed, cut, has one bit flipped, is taken for another one, or is nobody's; what was done, and to which."""
    files = tasks(place.files())
    if len(files) < 2:
        return ()
    key, other = chance.sample(sorted(files), 2)
    data = files[key]
    kind = chance.choice(["removed", "cut", "flipped", "swapped", "orphan"])
    if kind == "removed":
        place.delete(key)
    elif kind == "cut":
        place.put(key, data[: chance.randrange(len(data) + 1)])
    elif kind == "flipped":
        data = data or b"{"
        at = chance.randrange(len(data))
        place.put(key, data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :])
    elif kind == "swapped":
        place.put(key, files[other])
        place.put(other, data)
    else:
        place.put(f"{key.partition('/')[0]}/9{chance.randrange(10**6):06}.json", data)
    return kind, key, other


def flip(path: Path, chance: Random) -> None:
    """One bit of a file is another one."""
    spoilt = bytearray(path.read_bytes())
    if spoilt:
        spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
        path.write_bytes(spoilt)
