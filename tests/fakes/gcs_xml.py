"""The XML API of the Google Cloud Storage stand-in: what obstore speaks.

Put, conditional put, copy, get, range, head, delete, listing (version 2) and multipart uploads.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.utils import format_datetime
from urllib.parse import quote, unquote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from tests.fakes.gcs_store import Blob, Conditions, Store, StoreError
from tests.fakes.web import Answer, Request

XML = ("Content-Type", "application/xml; charset=UTF-8")


@dataclass(slots=True)
class Upload:
    """A multipart upload that is neither completed nor aborted."""

    bucket: str
    name: str
    content_type: str
    metadata: Mapping[str, str]
    parts: dict[int, bytes] = field(default_factory=dict)


class XmlApi:
    def __init__(self, store: Store) -> None:
        self._store = store
        self.uploads: dict[str, Upload] = {}

    def answer(self, request: Request) -> Answer:
        bucket, _, name = unquote(request.path[1:]).partition("/")
        try:
            return self._object(request, bucket, name) if name else self._bucket(request, bucket)
        except StoreError as error:
            return Answer(error.status, _document("Error", Code=error.code, Message=error.message), [XML])

    def _bucket(self, request: Request, bucket: str) -> Answer:
        query = request.query
        if request.method == "HEAD":
            self._store.bucket(bucket)
            return Answer()
        if request.method == "GET" and query.get("list-type") == "2":
            return self._list(bucket, query)
        raise _not_here(request)

    def _object(self, request: Request, bucket: str, name: str) -> Answer:
        if "uploads" in request.query or "uploadId" in request.query:
            return self._multipart(request, bucket, name)
        if request.method == "PUT":
            blob = self._copy(request, bucket, name) if "x-goog-copy-source" in request.headers else self._put(request, bucket, name)
            if "x-goog-copy-source" in request.headers:
                body = _document("CopyObjectResult", LastModified=_iso(blob), ETag=blob.xml_etag)
                return Answer(200, body, [XML, *_versions(blob)])
            return Answer(200, b"", [("ETag", blob.xml_etag), *_versions(blob)])
        if request.method == "DELETE":
            self._store.delete(bucket, name, _conditions(request.headers))
            return Answer(204)
        if request.method in {"GET", "HEAD"}:
            return _read(request, self._store.get(bucket, name, _conditions(request.headers)))
        raise _not_here(request)

    def _put(self, request: Request, bucket: str, name: str) -> Blob:
        return self._store.put(
            bucket,
            name,
            request.body,
            conditions=_conditions(request.headers),
            content_type=request.headers.get("Content-Type", ""),
            metadata=_metadata(request.headers),
            expected=_expected(request.headers),
        )

    def _copy(self, request: Request, bucket: str, name: str) -> Blob:
        from_bucket, _, from_name = unquote(request.headers["x-goog-copy-source"]).lstrip("/").partition("/")
        source = self._store.get(from_bucket, from_name, _conditions(request.headers, "x-goog-copy-source-if-"))
        return self._store.put(
            bucket,
            name,
            source.data,
            conditions=_conditions(request.headers),
            content_type=source.content_type,
            metadata=source.metadata,
            parts=source.parts,
        )

    def _multipart(self, request: Request, bucket: str, name: str) -> Answer:
        self._store.bucket(bucket)
        if request.method == "POST" and "uploads" in request.query:
            upload_id = uuid.uuid4().hex
            self.uploads[upload_id] = Upload(bucket, name, request.headers.get("Content-Type", ""), _metadata(request.headers))
            return Answer(200, _document("InitiateMultipartUploadResult", Bucket=bucket, Key=name, UploadId=upload_id), [XML])
        upload_id = request.query.get("uploadId", "")
        upload = self.uploads.get(upload_id)
        if upload is None or (upload.bucket, upload.name) != (bucket, name):
            raise StoreError(404, "NoSuchUpload", "notFound", "The requested upload was not found.")
        if request.method == "PUT":
            upload.parts[int(request.query["partNumber"])] = request.body
            return Answer(200, b"", [("ETag", _etag(request.body)), *_hash_header({"md5": _md5(request.body)})])
        if request.method == "DELETE":
            del self.uploads[upload_id]
            return Answer(204)
        if request.method == "POST":
            return self._complete(request, upload_id, upload)
        raise _not_here(request)

    def _complete(self, request: Request, upload_id: str, upload: Upload) -> Answer:
        wanted = [(int(part.findtext("{*}PartNumber", "0")), part.findtext("{*}ETag", "")) for part in ET.fromstring(request.body)]
        numbers = [number for number, _ in wanted]
        if not wanted or any(number not in upload.parts or etag.strip('"') != _etag(upload.parts[number]).strip('"') for number, etag in wanted):
            raise StoreError(400, "InvalidPart", "invalid", "One or more of the specified parts could not be found or did not match its ETag.")
        if numbers != sorted(set(numbers)):
            raise StoreError(400, "InvalidPartOrder", "invalid", "The list of parts was not in ascending order.")
        if any(len(upload.parts[number]) < 5 << 20 for number in numbers[:-1]):
            raise StoreError(400, "EntityTooSmall", "invalid", "Your proposed upload is smaller than the minimum allowed object size.")
        blob = self._store.put(
            upload.bucket,
            upload.name,
            b"".join(upload.parts[number] for number in numbers),
            conditions=_conditions(request.headers),
            content_type=upload.content_type,
            metadata=upload.metadata,
            parts=len(numbers),
        )
        del self.uploads[upload_id]
        body = _document("CompleteMultipartUploadResult", Bucket=upload.bucket, Key=upload.name, ETag=blob.xml_etag)
        return Answer(200, body, [XML, *_versions(blob)])

    def _list(self, bucket: str, query: Mapping[str, str]) -> Answer:
        after = unquote(query["continuation-token"]) if "continuation-token" in query else query.get("start-after", "")
        page = self._store.list(
            bucket,
            prefix=query.get("prefix", ""),
            delimiter=query.get("delimiter", ""),
            after=after,
            limit=int(query.get("max-keys", "1000")),
        )
        encode = quote if query.get("encoding-type") == "url" else escape
        items = [_entry(encode(name), blob) for name, blob in page.blobs.items()]
        items += [f"<CommonPrefixes><Prefix>{encode(prefix)}</Prefix></CommonPrefixes>" for prefix in page.prefixes]
        extra = {"EncodingType": "url"} if encode is quote else {}
        more = {} if page.following is None else {"NextContinuationToken": quote(page.following, safe="")}
        found = len(page.blobs) + len(page.prefixes)
        body = _document("ListBucketResult", items, Name=bucket, KeyCount=str(found), IsTruncated=str(bool(more)).lower(), **more, **extra)
        return Answer(200, body, [XML])


def _entry(name: str, blob: Blob) -> str:
    return (
        f"<Contents><Key>{name}</Key><Generation>{blob.generation}</Generation><MetaGeneration>{blob.metageneration}</MetaGeneration>"
        f"<LastModified>{_iso(blob)}</LastModified><ETag>{escape(blob.xml_etag)}</ETag><Size>{len(blob.data)}</Size></Contents>"
    )


def _read(request: Request, blob: Blob) -> Answer:
    if blob.xml_etag in _etags(request.headers.get("If-None-Match", "")):
        return Answer(304, b"", [("ETag", blob.xml_etag)])
    if "If-Match" in request.headers and blob.xml_etag not in _etags(request.headers["If-Match"]):
        raise StoreError(412, "PreconditionFailed", "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")
    return content(request, blob, [("ETag", blob.xml_etag)])


def content(request: Request, blob: Blob, headers: Iterable[tuple[str, str]]) -> Answer:
    """The object's bytes, or the range asked for; both APIs answer reads like this."""
    status, body, extra = _range(request.headers.get("Range", ""), blob.data)
    common = [
        ("Content-Type", blob.content_type),
        ("Last-Modified", format_datetime(blob.updated, usegmt=True)),
        ("Accept-Ranges", "bytes"),
        ("x-goog-stored-content-length", str(len(blob.data))),
        *((f"x-goog-meta-{name}", value) for name, value in blob.metadata.items()),
    ]
    return Answer(status, body, [*headers, *common, *extra, *_versions(blob), *_hash_header(blob.hashes)])


def _range(asked: str, data: bytes) -> tuple[int, bytes, list[tuple[str, str]]]:
    """A single byte range (RFC 9110): `bytes=a-b`, `bytes=a-`, `bytes=-n`."""
    if not asked.startswith("bytes="):
        return 200, data, []
    first, _, last = asked.removeprefix("bytes=").partition("-")
    start = int(first) if first else max(0, len(data) - int(last))
    stop = min(len(data), int(last) + 1) if first and last else len(data)
    if start >= stop:
        raise StoreError(416, "InvalidRange", "requestedRangeNotSatisfiable", "The requested range cannot be satisfied.")
    return 206, data[start:stop], [("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")]


def _conditions(headers: Message, prefix: str = "x-goog-if-") -> Conditions:
    def number(name: str) -> int | None:
        value = headers.get(prefix + name)
        return None if value is None else int(value)

    return Conditions(number("generation-match"), None, number("metageneration-match"))


def _metadata(headers: Message) -> dict[str, str]:
    return {name.lower().removeprefix("x-goog-meta-"): value for name, value in headers.items() if name.lower().startswith("x-goog-meta-")}


def _expected(headers: Message) -> dict[str, str]:
    """The checksums that came with the bytes: Content-MD5 and x-goog-hash (`crc32c=…,md5=…`, in one or several headers)."""
    pairs = [pair.strip().partition("=") for value in headers.get_all("x-goog-hash", []) for pair in value.split(",")]
    digest = headers.get("Content-MD5")
    return {kind: value for kind, _, value in pairs} | ({"md5": digest} if digest else {})


def _versions(blob: Blob) -> list[tuple[str, str]]:
    return [("x-goog-generation", str(blob.generation)), ("x-goog-metageneration", str(blob.metageneration))]


def _hash_header(hashes: Mapping[str, str]) -> list[tuple[str, str]]:
    return [("x-goog-hash", ",".join(f"{kind}={value}" for kind, value in hashes.items()))]


def _etags(header: str) -> set[str]:
    return {etag.strip() for etag in header.split(",")}


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data).digest()).decode()


def _iso(blob: Blob) -> str:
    return blob.updated.strftime("%Y-%m-%dT%H:%M:%S.") + f"{blob.updated.microsecond // 1000:03}Z"


def _document(root: str, items: Iterable[str] = (), **fields: str) -> bytes:
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())
    return f"<?xml version='1.0' encoding='UTF-8'?><{root}>{inner}{''.join(items)}</{root}>".encode()


def _not_here(request: Request) -> StoreError:
    return StoreError(501, "NotImplemented", "notImplemented", f"The stand-in does not know {request.method} {request.target}")
