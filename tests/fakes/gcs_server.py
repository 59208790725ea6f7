"""A stand-in for Google Cloud Storage that google-cloud-storage (JSON API) and obstore's GCSStore (XML API) accept unchanged.

    with GcsServer() as server:
        server.create_bucket("b")
        GCSStore("b", base_url=server.url, client_options={"allow_http": True}, credential_provider=lambda: {"token": "any", "expires_at": None})
        storage.Client("p", credentials=AnonymousCredentials(), client_options={"api_endpoint": server.url})
        assert server.objects("b") == {"key": b"bytes"}

Everything is in memory and each request is one step under one lock, so conditions hold as on the real store. Both APIs see the same objects.
It follows https://cloud.google.com/storage/docs/xml-api and .../json_api in what they say of generations, conditions, checksums, paging and errors.
It does not check credentials; versions, encryption, retention and lifecycle are only told (`set_up`), never done.
A bucket can't be named `storage`, `upload` or `download`.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from tests.fakes.gcs_json import JsonApi
from tests.fakes.gcs_store import Store
from tests.fakes.gcs_xml import XmlApi
from tests.fakes.web import Answer, Request, WebServer


class GcsServer:
    """`page_size` caps every listing page, to see paging with few objects."""

    def __init__(self, page_size: int = 1000) -> None:
        self._store = Store(page_size)
        self._lock = threading.Lock()
        self._json = JsonApi(self._store)
        self._xml = XmlApi(self._store)
        self._web = WebServer(self._handle)
        self.url = self._web.url

    def create_bucket(self, name: str) -> None:
        with self._lock:
            self._store.create_bucket(name)

    def set_up(self, bucket: str, **fields: object) -> None:
        """What the bucket's resource of the JSON API says from now on, besides the usual, like `versioning={"enabled": True}`."""
        with self._lock:
            self._json.settings[bucket] = fields
            if fields.get("versioning") == {"enabled": True}:
                self._store.versioned.add(bucket)

    def objects(self, bucket: str) -> dict[str, bytes]:
        """What the bucket holds now, by key."""
        with self._lock:
            return {name: blob.data for name, blob in self._store.bucket(bucket).items()}

    def unfinished_uploads(self, bucket: str) -> int:
        """How many multipart uploads of the XML API were begun and neither completed nor aborted."""
        with self._lock:
            return sum(upload.bucket == bucket for upload in self._xml.uploads.values())

    def _handle(self, request: Request) -> Answer:
        api = self._json if request.path.startswith(("/storage/", "/upload/", "/download/")) else self._xml
        with self._lock:
            return api.answer(request)

    def __enter__(self) -> Self:
        self._web.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._web.__exit__(kind, error, trace)
