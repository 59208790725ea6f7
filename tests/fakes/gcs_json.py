"""The JSON API of the Google Cloud Storage stand-in: what google-cloud-storage speaks.

Buckets, objects, listing, rewrite, copy, compose, downloads, and the three kinds of uploads (media, multipart, resumable).
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from tests.fakes.gcs_store import Blob, Conditions, Store, StoreError
from tests.fakes.gcs_xml import content
from tests.fakes.web import Answer, Request

JSON = ("Content-Type", "application/json; charset=UTF-8")


@dataclass(slots=True)
class Session:
    """A resumable upload that has not received all its bytes."""

    bucket: str
    resource: Mapping[str, Any]
    query: Mapping[str, str]
    data: bytes = b""


class JsonApi:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._sessions: dict[str, Session] = {}
        self.settings: dict[str, dict[str, object]] = {}  # by bucket: what its resource says besides

    def answer(self, request: Request) -> Answer:
        try:
            return self._route(request)
        except StoreError as error:
            detail = {"message": error.message, "domain": "global", "reason": error.reason}
            return _json({"error": {"code": error.status, "message": error.message, "errors": [detail]}}, error.status)

    def _route(self, request: Request) -> Answer:  # noqa: PLR0911 - one line for each path of the API
        parts = [unquote(part) for part in re.sub(r"^(/upload|/download)?/storage/v1/", "", request.path).split("/")]
        if request.path.startswith("/upload/"):
            return self._upload(request, parts[1])
        match request.method, parts:
            case "GET", ["b"]:
                return _json({"kind": "storage#buckets", "items": [self._bucket(name) for name in sorted(self._store.buckets)]})
            case "POST", ["b"]:
                self._store.create_bucket(name := json.loads(request.body)["name"])
                return _json(self._bucket(name))
            case "GET" | "DELETE", ["b", bucket]:
                return self._one_bucket(request.method, bucket)
            case "GET", ["b", bucket, "iam", "testPermissions"]:
                self._store.bucket(bucket)
                asked = parse_qs(request.target.partition("?")[2]).get("permissions", [])
                return _json({"kind": "storage#testIamPermissionsResponse", "permissions": asked})
            case "GET", ["b", bucket, "o"]:
                return self._list(request, bucket)
            case method, ["b", bucket, "o", name]:
                return self._object(request, method, bucket, name)
            case "POST", ["b", bucket, "o", name, "rewriteTo" | "copyTo" as how, "b", to_bucket, "o", to_name]:
                return self._copy(request, how, (bucket, name), (to_bucket, to_name))
            case "POST", ["b", bucket, "o", name, "compose"]:
                return self._compose(request, bucket, name)
        raise _not_here(request)

    def _one_bucket(self, method: str, name: str) -> Answer:
        held = self._store.bucket(name)
        if method == "GET":
            return _json(self._bucket(name))
        if held:
            raise StoreError(409, "BucketNotEmpty", "conflict", "The bucket you tried to delete is not empty.")
        del self._store.buckets[name]
        return Answer(204)

    def _bucket(self, name: str) -> dict[str, object]:
        return _bucket(name) | self.settings.get(name, {})

    def _object(self, request: Request, method: str, bucket: str, name: str) -> Answer:
        conditions = _conditions(request.query)
        generation = int(request.query["generation"]) if "generation" in request.query else None
        if method == "DELETE":
            self._store.delete(bucket, name, conditions, generation)
            return Answer(204)
        if method in {"PATCH", "PUT"}:
            changes = json.loads(request.body)
            known = {field: changes[key] for key, field in (("metadata", "metadata"), ("contentType", "content_type")) if key in changes}
            return _json(_resource(request, bucket, name, self._store.patch(bucket, name, conditions, **known)))
        if method != "GET":
            raise _not_here(request)
        blob = self._store.get(bucket, name, conditions, generation)
        if request.query.get("alt") == "media":
            return content(request, blob, [("ETag", blob.json_etag)])
        return _json(_resource(request, bucket, name, blob))

    def _list(self, request: Request, bucket: str) -> Answer:
        query = request.query
        if query.get("versions", "").lower() == "true":
            found = self._store.all_versions(bucket, query.get("prefix", ""))
            return _json({"kind": "storage#objects", "items": [_resource(request, bucket, name, blob) for name, blob in found]})
        page = self._store.list(
            bucket,
            prefix=query.get("prefix", ""),
            delimiter=query.get("delimiter", ""),
            after=unquote(query.get("pageToken", "")),
            limit=int(query.get("maxResults", "1000")),
            start=query.get("startOffset", ""),
            end=query.get("endOffset", ""),
        )
        answer: dict[str, object] = {"kind": "storage#objects"}
        if page.blobs:
            answer["items"] = [_resource(request, bucket, name, blob) for name, blob in page.blobs.items()]
        if page.prefixes:
            answer["prefixes"] = page.prefixes
        if page.following is not None:
            answer["nextPageToken"] = quote(page.following, safe="")
        return _json(answer)

    def _copy(self, request: Request, how: str, source: tuple[str, str], destination: tuple[str, str]) -> Answer:
        found = self._store.get(*source, _conditions(request.query, "ifSource"))
        changes = json.loads(request.body or b"{}")
        blob = self._store.put(
            *destination,
            found.data,
            conditions=_conditions(request.query),
            content_type=changes.get("contentType", found.content_type),
            metadata=changes.get("metadata", found.metadata),
            parts=found.parts,
        )
        resource = _resource(request, *destination, blob)
        if how == "copyTo":
            return _json(resource)
        size = str(len(blob.data))
        return _json({"kind": "storage#rewriteResponse", "done": True, "totalBytesRewritten": size, "objectSize": size, "resource": resource})

    def _compose(self, request: Request, bucket: str, name: str) -> Answer:
        wanted = json.loads(request.body)
        sources = [self._store.get(bucket, source["name"]) for source in wanted["sourceObjects"]]
        blob = self._store.put(
            bucket,
            name,
            b"".join(source.data for source in sources),
            conditions=_conditions(request.query),
            content_type=wanted.get("destination", {}).get("contentType", ""),
            parts=len(sources),
        )
        return _json(_resource(request, bucket, name, blob))

    def _upload(self, request: Request, bucket: str) -> Answer:
        match request.method, request.query.get("uploadType"):
            case "POST", "media":
                return self._store_upload(request, bucket, {"contentType": request.headers.get("Content-Type", "")}, request.query, request.body)
            case "POST", "multipart":
                resource, data = _related(request)
                return self._store_upload(request, bucket, resource, request.query, data)
            case "POST", "resumable":
                self._store.bucket(bucket)
                resource = {"contentType": request.headers.get("X-Upload-Content-Type", "")} | json.loads(request.body or b"{}")
                self._sessions[key := uuid.uuid4().hex] = Session(bucket, resource, request.query)
                place = f"http://{request.headers['Host']}{request.path}?uploadType=resumable&upload_id={key}"
                return Answer(200, b"", [("Location", place), ("X-GUploader-UploadID", key)])
            case "PUT", "resumable":
                return self._resume(request)
        raise _not_here(request)

    def _resume(self, request: Request) -> Answer:
        """`Content-Range: bytes a-b/total`, `a-b/*` (more to come), `*/total` (nothing more) or `*/*` (how far are we?)."""
        key = request.query.get("upload_id", "")
        session = self._sessions.get(key)
        if session is None:
            raise StoreError(404, "NoSuchUpload", "notFound", "The upload session was not found.")
        piece, _, total = request.headers.get("Content-Range", f"bytes 0-0/{len(request.body)}").removeprefix("bytes ").partition("/")
        if piece != "*":
            start = int(piece.partition("-")[0])
            if start > len(session.data):
                raise StoreError(400, "InvalidRange", "invalid", "The range leaves a hole in the upload.")
            session.data = session.data[:start] + request.body
        if total == "*" or len(session.data) < int(total):
            return Answer(308, b"", [("Range", f"bytes=0-{len(session.data) - 1}")] if session.data else [])
        del self._sessions[key]
        return self._store_upload(request, session.bucket, session.resource, session.query, session.data)

    def _store_upload(self, request: Request, bucket: str, resource: Mapping[str, Any], query: Mapping[str, str], data: bytes) -> Answer:
        name = resource.get("name") or query.get("name", "")
        expected = {kind: resource[key] for key, kind in (("md5Hash", "md5"), ("crc32c", "crc32c")) if key in resource}
        blob = self._store.put(
            bucket,
            name,
            data,
            conditions=_conditions(query),
            content_type=resource.get("contentType", ""),
            metadata=resource.get("metadata"),
            expected=expected,
        )
        return _json(_resource(request, bucket, name, blob))


def _conditions(query: Mapping[str, str], prefix: str = "if") -> Conditions:
    def number(name: str) -> int | None:
        value = query.get(prefix + name)
        return None if value is None else int(value)

    return Conditions(number("GenerationMatch"), number("GenerationNotMatch"), number("MetagenerationMatch"), number("MetagenerationNotMatch"))


def _related(request: Request) -> tuple[dict[str, Any], bytes]:
    """The two parts of a multipart/related body: the resource and the bytes."""
    boundary = request.headers.get_param("boundary")
    assert isinstance(boundary, str)
    _, first, second, _ = request.body.split(b"--" + boundary.encode())
    resource = json.loads(first.partition(b"\r\n\r\n")[2])
    head, _, data = second.partition(b"\r\n\r\n")
    kind = re.search(rb"(?i)^content-type:\s*(\S+)", head, re.MULTILINE)
    return {"contentType": kind[1].decode() if kind else ""} | resource, data.removesuffix(b"\r\n")


def _bucket(name: str) -> dict[str, object]:
    return {
        "kind": "storage#bucket",
        "id": name,
        "name": name,
        "projectNumber": "1",
        "metageneration": "1",
        "location": "US",
        "storageClass": "STANDARD",
        "etag": "CAE=",
        "timeCreated": "2024-01-01T00:00:00.000Z",
        "updated": "2024-01-01T00:00:00.000Z",
    }


def _resource(request: Request, bucket: str, name: str, blob: Blob) -> dict[str, object]:
    host, quoted = request.headers["Host"], quote(name, safe="")
    resource: dict[str, object] = {
        "kind": "storage#object",
        "id": f"{bucket}/{name}/{blob.generation}",
        "selfLink": f"http://{host}/storage/v1/b/{bucket}/o/{quoted}",
        "mediaLink": f"http://{host}/download/storage/v1/b/{bucket}/o/{quoted}?generation={blob.generation}&alt=media",
        "name": name,
        "bucket": bucket,
        "generation": str(blob.generation),
        "metageneration": str(blob.metageneration),
        "contentType": blob.content_type,
        "storageClass": "STANDARD",
        "size": str(len(blob.data)),
        "crc32c": blob.crc32c,
        "etag": blob.json_etag,
        "timeCreated": blob.created.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "updated": blob.updated.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    if "md5" in blob.hashes:
        resource["md5Hash"] = blob.hashes["md5"]
    if blob.deleted:
        resource["timeDeleted"] = blob.deleted.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if blob.parts:
        resource["componentCount"] = blob.parts
    if blob.metadata:
        resource["metadata"] = dict(blob.metadata)
    return resource


def _json(value: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode(), [JSON])


def _not_here(request: Request) -> StoreError:
    return StoreError(501, "NotImplemented", "notImplemented", f"The stand-in does not know {request.method} {request.target}")
