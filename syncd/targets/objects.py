"""The engine that every object store Target shares: obstore carries the bytes, syncd's Retry decides what is tried again and counts every try.

One object per file. Each call is durable when it returns, so `flush` has nothing to do.
Refuses to know a vendor's credentials or config (see s3.py, gcs.py) and to let obstore retry by itself: its own retries give up under a rate limit.
obstore tells a failed request in prose only ("... status code: 503 ...: <Error><Code>SlowDown</Code>..."), and no Retry-After; `translate` reads it.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, InvalidPathError
from obstore.store import GCSStore, S3Store

from syncd.errors import AccessError, SyncdError, TargetError, TaskError, TransientError
from syncd.model import Stat
from syncd.retry import Retry
from syncd.targets.base import checked

if TYPE_CHECKING:  # types alone: obstore has them in its stubs only
    from obstore.store import ClientConfig, RetryConfig

T = TypeVar("T")

NO_RETRY: Final[RetryConfig] = {"max_retries": 0, "retry_timeout": timedelta(0)}
CLIENT: Final[ClientConfig] = {"connect_timeout": timedelta(seconds=10), "timeout": timedelta(seconds=60), "default_content_type": "application/json"}

_PAGE = 1000  # what stores give at most in one answer, to a listing and to a bulk deletion
_UPLOADS = "_syncd/uploads/"  # names each key that is being uploaded in parts, for `sweep` to find
_PART = 5 << 20  # bytes; the least that S3 takes as a part
_ETAG_MAX = 64
_FOREIGN = (BaseError, FileNotFoundError, ValueError)  # what obstore raises; ValueError: a path it can't represent

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([^<]{1,100})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})")
_HEX_MD5 = re.compile(r"[0-9a-f]{32}")

_TRANSIENT_CODES = {
    "SlowDown",
    "ServiceUnavailable",
    "InternalError",
    "RequestTimeout",
    "OperationAborted",
    "ConditionalRequestConflict",
    "BadDigest",
}
_TRANSIENT_STATUS = {408, 409, 429, 500, 502, 503, 504}
_ACCESS_CODES = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"}
_WHOLE_CODES = {
    "NoSuchBucket": "the bucket does not exist: check its name, region and endpoint, or create it",
    "PermanentRedirect": "the bucket is in another region: set `region`",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set `region`",
    "IllegalLocationConstraintException": "the bucket is in another region: set `region`",
    "InvalidBucketName": "no bucket can have this name: check `bucket`",
    "InvalidStorageClass": "the store knows no such storage class: check `storage_class`",
    "RequestTimeTooSkewed": "the clocks differ too much: set this machine's clock",
}
# What went wrong below HTTP stands only in the debug part of the text.
_NETWORK = {
    "InvalidCertificate(": "its TLS certificate is not trusted; if a private authority signed it, set `ca_file`",
    "dns error": "its name can't be resolved",
    "Connection refused": "the connection was refused",
    "kind: Timeout": "it did not answer in time",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where objects go and what they get: `name` as in `Target.place`, `prefix` empty or ending in a slash.

    abort: removes the unfinished uploads of one path, which obstore can't list; raises our own errors only.
    """

    name: str
    prefix: str
    attributes: dict[str, str]
    bulk_delete: bool
    credentials_hint: str
    abort: Callable[[str], None]


class ObjectTarget:
    """The promises are those of `Target`."""

    def __init__(self, store: S3Store | GCSStore, place: Place, retry: Retry, concurrency: int) -> None:
        self.place = place.name
        self.concurrency = concurrency
        self._at = place
        self._store = store
        self._retry = retry
        self._lock = threading.Lock()
        self._conditional: bool | None = None

    @property
    def requests(self) -> int:
        return self._retry.requests

    def put(self, key: str, data: bytes) -> bytes:
        path = self._path(key)
        result = self._call(key, lambda: obstore.put(self._store, path, data, attributes=self._at.attributes, use_multipart=False))
        return _etag(result["e_tag"])

    def flush(self) -> None:
        """Nothing to do: each call is durable by itself."""

    def create(self, key: str, data: bytes) -> bool:
        if not self.conditional():
            if self.get(key) is not None:
                return False
            self.put(key, data)
            return True
        return self._create(key, data)

    def conditional(self) -> bool:
        with self._lock:
            if self._conditional is None:
                self._conditional = self._probe()
            return self._conditional

    def put_stream(self, key: str, chunks: Callable[[], Iterable[bytes]]) -> None:
        path = self._path(key)

        def attempt() -> None:
            rest = iter(chunks())
            first = _first_part(rest)
            if len(first) < _PART:  # one request instead of three
                obstore.put(self._store, path, first, attributes=self._at.attributes, use_multipart=False)
                return
            marker = _UPLOADS + sha256(key.encode()).hexdigest()
            self.put(marker, key.encode())
            whole = itertools.chain((first,), rest)
            try:  # an error aborts the upload, of the store or of `chunks` alike; only a kill leaves it
                obstore.put(self._store, path, whole, attributes=self._at.attributes, use_multipart=True, chunk_size=_PART, max_concurrency=1)
            finally:
                with contextlib.suppress(SyncdError):  # what stays is for `sweep`
                    self.delete([marker])

        self._call(key, attempt)

    def get(self, key: str) -> bytes | None:
        path = self._path(key)
        return self._call_existing(key, lambda: bytes(obstore.get(self._store, path).bytes()))

    def list(self, prefix: str) -> Iterator[Sequence[Stat]]:
        pages = _Pages(self._store, self._at.prefix + prefix.rpartition("/")[0])
        start = len(self._at.prefix)
        while (page := self._call(None, pages.next)) is not None:
            found = [Stat(item["path"][start:], item["size"], _etag(item["e_tag"])) for item in page]
            yield [stat for stat in found if stat.key.startswith(prefix)]

    def copy(self, source: str, destination: str) -> bool:
        paths = self._path(source), self._path(destination)

        def attempt() -> bool:
            obstore.copy(self._store, *paths)
            return True

        return self._call_existing(source, attempt) or False

    def delete(self, keys: Sequence[str]) -> None:
        paths = {key: self._path(key) for key in keys}
        if self._at.bulk_delete:
            for start in range(0, len(keys), _PAGE):
                part = keys[start : start + _PAGE]
                self._delete(f"{part[0]} and {len(part) - 1} more" if len(part) > 1 else part[0], [paths[key] for key in part])
        elif len(keys) == 1:
            self._delete(keys[0], paths[keys[0]])
        else:
            with ThreadPoolExecutor(max_workers=min(16, self.concurrency)) as pool:
                for _ in pool.map(lambda item: self._delete(*item), paths.items()):
                    pass

    def sweep(self) -> None:
        for page in self.list(_UPLOADS):
            for stat in page:
                self._at.abort(self._path((self.get(stat.key) or b"").decode()))
                self.delete([stat.key])

    def close(self) -> None:
        """Nothing to do: connections close with the process."""

    def _path(self, key: str) -> str:
        return self._at.prefix + checked(key)

    def _call(self, key: str | None, attempt: Callable[[], T]) -> T:
        def guarded() -> T:
            try:
                return attempt()
            except _FOREIGN as error:
                raise translate(error, self._at, key) from None  # its text holds whole answers and pages of debugging

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

    def _delete(self, named: str, paths: str | Sequence[str]) -> None:
        try:
            self._call_existing(named, lambda: obstore.delete(self._store, paths))
        except TaskError as error:
            raise TargetError(str(error)) from error

    def _create(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        unsure = False  # an earlier try failed, perhaps after the store had done it

        def attempt() -> bool | None:
            nonlocal unsure
            try:
                obstore.put(self._store, path, data, attributes=self._at.attributes, mode="create")
            except AlreadyExistsError:
                return None if unsure else False
            except BaseError:
                unsure = True
                raise
            return True

        created = self._call(key, attempt)
        return self.get(key) == data if created is None else created

    def _probe(self) -> bool:
        """Create one key twice: a store may refuse the condition, or ignore it and answer 200 to both."""
        key = f"_syncd/probe-{secrets.token_hex(8)}"
        try:
            return self._create(key, b"1") and not self._create(key, b"2")
        except TaskError:
            return False
        finally:
            self.delete([key])


class _Pages:
    """A listing, page by page. After a failed page it goes on behind the last path seen if the store lists in order; else it fails for good."""

    def __init__(self, store: S3Store | GCSStore, folder: str) -> None:
        self._store = store
        self._folder = folder
        self._last = ""
        self._ordered = True
        self._stream: Iterator[Sequence[obstore.ObjectMeta]] | None = None

    def next(self) -> Sequence[obstore.ObjectMeta] | None:
        if self._stream is None:
            if not self._ordered:
                raise TargetError("the listing broke off, and this store lists in no order, so it can't be continued; run again")
            self._stream = iter(obstore.list(self._store, self._folder or None, offset=self._last or None, chunk_size=_PAGE))
        try:
            page = next(self._stream, None)
        except BaseError:
            self._stream = None
            raise
        for item in page or ():
            self._ordered = self._ordered and self._last < item["path"]
            self._last = item["path"]
        return page


def translate(error: Exception, place: Place, key: str | None) -> SyncdError:
    """The one place where obstore's errors become ours. `key` None: the call was about the whole place."""
    text, _, debug = str(error).partition("\n\nDebug source:")
    if isinstance(error, InvalidPathError):
        return TargetError(f"{place.name}: {_line(text)}; syncd never writes such a name: remove that object")
    if isinstance(error, ValueError):
        return TaskError(f"{place.name}: {key!r} can't be the name of an object: {_line(text)}")
    if "credential provider" in text:
        return AccessError(
            f"{place.name}: no credentials could be had: {_line(text.partition('credential provider: ')[2])}. {place.credentials_hint}"
        )
    if status := _STATUS.search(text):
        return _answered(int(status[1]), text, place, key)
    if "redirect without LOCATION" in text:
        return TargetError(f"{place.name}: {_WHOLE_CODES['PermanentRedirect']}")
    return _network(place, text, debug)


def _answered(status: int, text: str, place: Place, key: str | None) -> SyncdError:
    code = found[1] if (found := _CODE.search(text)) else ""
    message = found[1].strip() if (found := _MESSAGE.search(text)) else ""
    said = " ".join(part for part in (str(status), code, message) if part)
    where = f"{place.name}: {key}" if key else place.name
    if code in _WHOLE_CODES:
        return TargetError(f"{place.name}: {_WHOLE_CODES[code]} ({said})")
    if status in {401, 403} or code in _ACCESS_CODES:
        return AccessError(f"{where}: the store refuses the credentials or what they ask for ({said}). {place.credentials_hint}")
    if status in _TRANSIENT_STATUS or code in _TRANSIENT_CODES or code.startswith("Throttling"):
        return TransientError(f"{where}: the store is busy or ill ({said})")
    if key is None or code.startswith("KMS.") or status == HTTPStatus.NOT_FOUND:
        return TargetError(f"{where}: the store refuses this ({said})")
    return TaskError(f"{where}: the store can't take this ({said})")


def _network(place: Place, text: str, debug: str) -> SyncdError:
    sign = next((sign for sign in _NETWORK if sign in debug), "")
    reason = _NETWORK.get(sign) or _line(text.rpartition(" - ")[2])
    message = f"{place.name}: the store can't be reached: {reason}"
    return TargetError(message) if sign == "InvalidCertificate(" else TransientError(message)


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
