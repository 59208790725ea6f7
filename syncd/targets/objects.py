"""The engine that every object store Target shares: obstore carries the bytes, syncd's Retry decides what is tried again and counts every try.

One object per file. Each call is durable when it returns, so `flush` has nothing to do.
Refuses to know a vendor's credentials (see s3.py, gcs.py), to let obstore retry by itself (its own retries give up under a rate limit), and to look
for what a kill left of an upload in parts: no key shows it, and a lifecycle rule of the bucket (AbortIncompleteMultipartUpload) removes it.
obstore tells a failed request in prose only ("... status code: 503 ...: <Error><Code>SlowDown</Code>..."), and no Retry-After; `translate` reads it.
"""

from __future__ import annotations

import itertools
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, InvalidPathError
from obstore.store import GCSStore, S3Store
from pydantic import field_validator

from syncd.clock import Clock
from syncd.errors import AccessError, SyncdError, TargetError, TaskError, TransientError, discreet
from syncd.fields import Concurrency, Duration, Fields
from syncd.model import Stat
from syncd.pace import Pace, Ramp
from syncd.retry import Retry
from syncd.targets.base import Finding, Sign, Version, checked, checked_prefix

if TYPE_CHECKING:  # types alone: obstore has them in its stubs only
    from obstore.store import ClientConfig, RetryConfig

T = TypeVar("T")

_NO_RETRY: RetryConfig = {"max_retries": 0, "retry_timeout": timedelta(0)}
_CLIENT: ClientConfig = {"connect_timeout": timedelta(seconds=10), "timeout": timedelta(seconds=60), "default_content_type": "application/json"}

_PAGE = 1000  # what stores give at most in one answer, to a listing and to a bulk deletion
_TMP = "_syncd/tmp/"  # where `conditional` probes, for `sweep` to find
_PART = 5 << 20  # bytes; the least that S3 takes as a part
_ETAG_MAX = 64
_FOREIGN = (BaseError, FileNotFoundError, ValueError)  # what obstore raises; ValueError: a path it can't represent

_BUCKET = re.compile(r"[\w.:-]+", re.ASCII)
_REFUSED = re.compile(r"DeleteObjects request failed for key (.*?): (.*)\(code: (\w+)\)", re.DOTALL)
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([^<]{1,100})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})")
_HEX_MD5 = re.compile(r"[0-9a-f]{32}")

# Told with another status than theirs: as 400, or inside the answer to a bulk deletion.
_TRANSIENT_CODES = {"InternalError", "RequestTimeout", "BadDigest"}
_THROTTLED_CODES = {"SlowDown", "ServiceUnavailable"}
_ACCESS_CODES = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AccessDenied"}
_TRANSIENT_STATUS = {408, 409, 500, 502, 504}
_THROTTLED_STATUS = {429, 503}
_WHOLE_CODES = {
    "NoSuchBucket": "the bucket does not exist: check its name, region and endpoint, or create it",
    "PermanentRedirect": "the bucket is in another region: set `region`",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set `region`",
    "InvalidBucketName": "no bucket can have this name: check `bucket`",
    "InvalidStorageClass": "the store knows no such storage class: check `storage_class`",
    "InvalidObjectState": "an object was archived and can't be read: use a storage class, and lifecycle rules, that keep it readable",
    "RequestTimeTooSkewed": "the clocks differ too much: set this machine's clock",
}
# What went wrong below HTTP; most of it stands in the debug part of the text alone.
_NETWORK = {
    "redirect without LOCATION": _WHOLE_CODES["PermanentRedirect"],
    "InvalidCertificate(": "its TLS certificate is not trusted; if a private authority signed it, set `ca_file`",
    "dns error": "its name can't be resolved",
    "Connection refused": "the connection was refused",
    "kind: Timeout": "it did not answer in time",
}
_HOPELESS = ("redirect without LOCATION", "InvalidCertificate(")


class ObjectConfig(Fields):
    """What the config of every object store says."""

    versions: ClassVar[bool] = True
    """Its store can keep earlier versions (`history: bucket`)."""

    type: str
    bucket: str
    prefix: str = ""
    """Stands before every key; a slash is added."""
    endpoint: str | None = None
    """The store's URL, when it is not the vendor's own."""
    concurrency: Concurrency = 256
    """Requests at a time, at most: it begins with fewer, finds out how many help, and halves them when the store says to slow down."""
    retry_for: Duration = 60.0
    """How long a request is tried again."""

    _prefix = field_validator("prefix")(checked_prefix)

    @field_validator("bucket")
    @classmethod
    def _bucket(cls, name: str) -> str:
        if not _BUCKET.fullmatch(name):
            raise ValueError("write the name of the bucket alone; a folder in it is the `prefix`")
        return name

    @field_validator("endpoint")
    @classmethod
    def _endpoint(cls, url: str | None) -> str | None:
        return url and checked_endpoint(url)


def checked_endpoint(url: str) -> str:
    """The URL of a store without a last slash. Raises ValueError, as obstore does worse."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0 or re.search(r"[@\s]", url):
        raise ValueError("`endpoint` is a URL like https://storage.example.com, without user or password")
    return url.rstrip("/")


@dataclass(frozen=True, slots=True)
class Vendor:
    """What differs between stores.

    make: an obstore store, given bucket, `client_options` and `retry_config`; attributes: what each object gets; inspect: see `base.Inspected`;
    versions: see `base.Versioned`, given a path in the bucket; ramp: see `pace.Ramp`.
    """

    scheme: str
    credentials_hint: str
    bulk_delete: bool
    make: Callable[..., S3Store | GCSStore]
    inspect: Callable[[], Iterable[Finding]]
    versions: Callable[[str], Iterator[Version]]
    attributes: dict[str, str] = field(default_factory=dict)
    ramp: tuple[float, float] | None = None
    ca_file: Path | None = None


def shared(make: Callable[[], T], clock: Clock, lifetime: float) -> Callable[[], T]:
    """What gives one thing to all threads, and makes another one after so many seconds."""
    lock, made = threading.Lock(), lru_cache(maxsize=1)(lambda _period: make())

    def give() -> T:
        with lock:
            return made(clock.monotonic() // lifetime)

    return give


class ObjectTarget:
    """The promises are those of `Target`. Raises TargetError when no store can be made of this config."""

    def __init__(self, vendor: Vendor, config: ObjectConfig, clock: Clock) -> None:
        endpoint = f"?endpoint={config.endpoint}" if config.endpoint else ""
        self.place = f"{vendor.scheme}://{config.bucket}/{config.prefix}".rstrip("/") + endpoint
        self.concurrency = config.concurrency
        self._prefix = config.prefix
        self._vendor = vendor
        self._retry = Retry(clock, retry_for=config.retry_for, exhausted=TargetError, pace=Pace(clock, config.concurrency))
        self._ramp = Ramp(clock, *vendor.ramp) if vendor.ramp else None
        self.failed = self._retry.failed
        self._conditional: bool | None = None
        options: ClientConfig = {**_CLIENT, "allow_http": (config.endpoint or "").startswith("http://")}
        try:
            if vendor.ca_file:
                options["root_certificate"] = vendor.ca_file.read_bytes()
            self._store = vendor.make(config.bucket, client_options=options, retry_config=_NO_RETRY)
        except (OSError, ValueError, BaseError) as error:
            raise TargetError(f"{self.place} can't be opened: {_line(str(error))}") from None

    @property
    def requests(self) -> int:
        return self._retry.requests

    def put(self, key: str, data: bytes) -> bytes:
        path = self._path(key)
        self._ramp_up()
        result = self._call(key, lambda: obstore.put(self._store, path, data, attributes=self._vendor.attributes, use_multipart=False))
        return _etag(result["e_tag"])

    def flush(self) -> None:
        """Nothing to do: each call is durable by itself."""

    def create(self, key: str, data: bytes) -> bool:
        if self.conditional():
            return self._create(key, data)
        if self.get(key) is not None:
            return False
        self.put(key, data)
        return True

    def conditional(self) -> bool:
        """Whether a second creation of one key is refused: a store may not know the condition, or ignore it and answer 200."""
        if self._conditional is None:
            key = _TMP + secrets.token_hex(8)
            try:
                self._create(key, key.encode())
                self._conditional = not self._create(key, key.encode())
            except TaskError:  # it refuses the condition
                self._conditional = False
            self.delete([key])
        return self._conditional

    def put_stream(self, key: str, chunks: Callable[[], Iterable[bytes]]) -> None:
        path = self._path(key)

        def attempt() -> None:
            rest = iter(chunks())
            first = _first_part(rest)
            data = first if len(first) < _PART else itertools.chain((first,), rest)  # obstore puts bytes in one request, an iterator in parts
            obstore.put(self._store, path, data, attributes=self._vendor.attributes, chunk_size=_PART, max_concurrency=1)

        self._call(key, attempt)

    def get(self, key: str) -> bytes | None:
        path = self._path(key)
        return self._call_existing(key, lambda: bytes(obstore.get(self._store, path).bytes()))

    def list(self, prefix: str) -> Iterator[Sequence[Stat]]:
        begin, last, more = self._prefix + prefix, "", True

        def page() -> Sequence[obstore.ObjectMeta]:
            """What comes behind the last path seen: a stream of its own, so that one that failed is simply begun again."""
            return next(iter(obstore.list(self._store, begin.rpartition("/")[0] or None, offset=last or None, chunk_size=_PAGE)), ())

        while more:
            items = self._call(None, page)
            for item in items:
                if item["path"] <= last:
                    raise TargetError(f"{self.place}: this store lists in no order, so a listing can't be continued: use another one")
                last = item["path"]
            more = len(items) == _PAGE
            found = [item for item in items if item["path"].startswith(begin)]
            yield [Stat(item["path"].removeprefix(self._prefix), item["size"], _etag(item["e_tag"])) for item in found]

    def copy(self, source: str, destination: str) -> bool:
        paths = self._path(source), self._path(destination)
        self._ramp_up()

        def attempt() -> bool:
            obstore.copy(self._store, *paths)
            return True

        return self._call_existing(source, attempt) or False

    def delete(self, keys: Sequence[str]) -> None:
        paths = [self._path(key) for key in keys]
        if self._vendor.bulk_delete:
            for start in range(0, len(keys), _PAGE):
                self._delete(keys[start], paths[start : start + _PAGE])
        else:
            with ThreadPoolExecutor(self.concurrency) as pool:
                list(pool.map(self._delete, keys, paths))  # the first failure cancels what has not begun

    def sweep(self) -> None:
        for page in self.list(_TMP):
            self.delete([stat.key for stat in page])

    def inspect(self) -> Iterable[Finding]:
        return self._vendor.inspect()

    def versions(self, key: str) -> Iterator[Version]:
        return self._vendor.versions(self._path(key))

    def close(self) -> None:
        """Nothing to do: connections close with the process."""

    def _ramp_up(self) -> None:
        if self._ramp:
            self._ramp.wait()

    def _path(self, key: str) -> str:
        return self._prefix + checked(key)

    def _call(self, key: str | None, attempt: Callable[[], T]) -> T:
        def guarded() -> T:
            try:
                return attempt()
            except _FOREIGN as error:
                raise _translate(
                    error, self.place, key, self._vendor.credentials_hint
                ) from None  # its text holds whole answers and pages of debugging

        return self._retry.call(guarded)

    def _call_existing(self, key: str, attempt: Callable[[], T]) -> T | None:
        """The same, None when there is no such object."""

        def existing() -> T | None:
            try:
                return attempt()
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None

        return self._call(key, existing)

    def _delete(self, first: str, paths: str | Sequence[str]) -> None:
        self._ramp_up()
        try:
            self._call_existing(first, lambda: obstore.delete(self._store, paths))
        except TaskError as error:
            raise TargetError(str(error)) from error

    def _create(self, key: str, data: bytes) -> bool:
        path = self._path(key)

        def attempt() -> bool:
            try:
                obstore.put(self._store, path, data, attributes=self._vendor.attributes, mode="create")
            except AlreadyExistsError:
                return False
            return True

        return self._call(key, attempt)


def eaten(rule: str, prefixes: Sequence[str], own: str) -> Iterator[Finding]:
    """What to think of a lifecycle rule for these prefixes ("": all objects) that takes files away, when a backup is under the prefix `own`."""
    if any(own.startswith(prefix) or prefix.startswith(own) for prefix in prefixes):
        hint = "take this prefix out of the rule, or back up into a prefix or bucket of its own"
        yield Finding(Sign.WRONG, f"lifecycle rule {rule}, and would eat the backup", hint)


def _translate(error: Exception, place: str, key: str | None, hint: str) -> SyncdError:
    """The one place where obstore's errors become ours. `key` None: the call was about the whole place."""
    where = f"{place}: {key}" if key else place
    text, _, debug = discreet(str(error)).partition("\n\nDebug source:")
    if isinstance(error, InvalidPathError):
        return TargetError(f"{place}: {_line(text)}; syncd never writes such a name: remove that object")
    if isinstance(error, ValueError):
        return TaskError(f"{place}: {key!r} can't be the name of an object: {_line(text)}")
    if "credential provider" in text:
        words = _line(text.partition("credential provider: ")[2].partition(": ")[2]).rstrip(".")  # obstore puts the exception's name first
        return AccessError(f"{place}: no credentials could be had: {words}. {hint}")
    if refused := _REFUSED.search(text):
        return _answered(f"{place}: {refused[1]}", 200, refused[3], refused[2], hint)
    if status := _STATUS.search(text):
        code, message = _CODE.search(text), _MESSAGE.search(text)
        told = _answered(where, int(status[1]), code[1] if code else "", message[1] if message else "", hint)
        return TargetError(str(told)) if key is None and isinstance(told, TaskError) else told
    return _network(place, text, debug)


def _answered(where: str, status: int, code: str, message: str, hint: str) -> SyncdError:
    said = " ".join(part for part in (str(status), code, message.strip()) if part)
    if code in _WHOLE_CODES:
        return TargetError(f"{where}: {_WHOLE_CODES[code]} ({said})")
    if status in {401, 403} or code in _ACCESS_CODES:
        return AccessError(f"{where}: the store refuses the credentials or what they ask for ({said}). {hint}")
    throttled = status in _THROTTLED_STATUS or code in _THROTTLED_CODES or code.startswith("Throttling")
    if throttled or status in _TRANSIENT_STATUS or code in _TRANSIENT_CODES:
        return TransientError(f"{where}: the store is busy or ill ({said})", throttled=throttled)
    if code.startswith("KMS.") or status == HTTPStatus.NOT_FOUND:
        return TargetError(f"{where}: the store refuses this ({said})")
    return TaskError(f"{where}: the store can't take this ({said})")


def _network(place: str, text: str, debug: str) -> SyncdError:
    sign = next((sign for sign in _NETWORK if sign in text + debug), "")
    message = f"{place}: the store can't be reached: {_NETWORK.get(sign) or _line(text.rpartition(' - ')[2])}"
    return TargetError(message) if sign in _HOPELESS else TransientError(message)


def _line(text: str) -> str:
    return text.strip().partition("\n")[0][:300]


def _first_part(chunks: Iterator[bytes]) -> bytes:
    """The beginning: at least `_PART` bytes, less only when there is no more."""
    held = bytearray()
    while len(held) < _PART and (chunk := next(chunks, None)) is not None:
        held += chunk
    return bytes(held)


def _etag(text: str | None) -> bytes:
    """The 16 bytes of an MD5, else the text itself; of a very long text its digest."""
    bare = (text or "").removeprefix("W/").strip('"')
    if _HEX_MD5.fullmatch(bare):
        return bytes.fromhex(bare)
    raw = bare.encode()
    return raw if len(raw) <= _ETAG_MAX else sha256(raw).digest()
