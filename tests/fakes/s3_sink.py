"""An S3 server that costs next to nothing, to measure clients against: it reads and forgets what it is given.

    python -m tests.fakes.s3_sink --port 0 --latency-ms 30        # prints its port
    with sink(latency_ms=30) as url: ...                          # the same, as a process of its own

It remembers only size and ETag of each object, and the bytes of names that begin with `_`, as syncd's own do; any bucket exists; path style
only; signatures and checksums are not checked. It knows put (also `If-None-Match: *`), copy, get, head, delete, bulk delete, both listings and
multipart uploads, in the words of https://docs.aws.amazon.com/AmazonS3/latest/API. One thread, HTTP parsed by hand: it shares the machine with
what is measured.
`GET /-/stats` answers a JSON object with the number of requests by method.
`GET /-/throttle?puts=300` answers puts beyond so many a second with 503 SlowDown from then on, `?puts=0` none.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import html
import itertools
import json
import re
import subprocess
import sys
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote
from xml.sax.saxutils import escape

_DATE = "2024-01-01T00:00:00.000Z"
_HTTP_DATE = "Mon, 01 Jan 2024 00:00:00 GMT"
_BEYOND = "\U0010ffff"


class Stored(NamedTuple):
    """What is remembered of an object; `body` only of what is `_kept`."""

    size: int
    etag: str
    body: bytes | None


@dataclass(slots=True)
class Upload:
    key: str
    parts: dict[int, Stored] = field(default_factory=dict)


class Call(NamedTuple):
    """One request; `place` is `bucket/key` decoded, `head` the lower-cased request head."""

    method: str
    place: str
    query: dict[str, str]
    head: bytes
    body: bytes

    def header(self, name: bytes) -> str:
        return _header(self.head, name).decode("latin-1")


class Sink:
    """The S3 side: answers are whole HTTP messages."""

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        self.requests: Counter[str] = Counter()
        self._uploads: dict[str, Upload] = {}
        self._numbers = itertools.count(1)
        self._sorted: list[str] | None = None
        self._rate, self._tokens, self._at = 0.0, 0.0, 0.0

    def answer(self, call: Call) -> bytes:
        if call.place.startswith("-/"):
            return self._control(call)
        self.requests[call.method] += 1
        bucket, _, key = call.place.partition("/")
        if not key:
            return self._bucket(call, bucket)
        if call.query.keys() & {"uploadId", "uploads"}:
            return self._multipart(call)
        if call.method == "PUT":
            return self._put(call)
        if call.method == "DELETE":
            self._remove(call.place)
            return _reply(204)
        return self._read(call)

    def _control(self, call: Call) -> bytes:
        if call.place == "-/throttle":
            self._rate, self._tokens, self._at = float(call.query["puts"]), 1.0, time.monotonic()
        return _reply(200, json.dumps(self.requests).encode(), "application/json")

    def _spare(self) -> bool:
        """Whether one more put is within the rate; a tenth of a second's worth may come at once."""
        now = time.monotonic()
        self._tokens, self._at = min(max(1.0, self._rate / 10), self._tokens + (now - self._at) * self._rate), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _bucket(self, call: Call, bucket: str) -> bytes:
        if call.method == "POST" and "delete" in call.query:
            keys = [html.unescape(key) for key in re.findall(r"<Key>(.*?)</Key>", call.body.decode(), re.DOTALL)]
            for key in keys:
                self._remove(f"{bucket}/{key}")
            return _xml("DeleteResult", "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys))
        if call.method == "GET":
            return self._list(bucket, call.query)
        return _reply(200 if call.method in {"HEAD", "PUT"} else 501)

    def _put(self, call: Call) -> bytes:
        if call.header(b"if-none-match") == "*" and call.place in self.objects:
            return _error(412, "PreconditionFailed")
        if self._rate and not self._spare():
            return _error(503, "SlowDown")
        if copied := call.header(b"x-amz-copy-source"):
            source = self.objects.get(unquote(copied).lstrip("/"))
            if source is None:
                return _error(404, "NoSuchKey")
            self._store(call.place, source)
            return _xml("CopyObjectResult", f"<ETag>&quot;{source.etag}&quot;</ETag><LastModified>{_DATE}</LastModified>")
        stored = _stored(call)
        self._store(call.place, stored)
        return _reply(200, etag=stored.etag)

    def _read(self, call: Call) -> bytes:
        stored = self.objects.get(call.place)
        if stored is None:
            return _error(404, "NoSuchKey") if call.method == "GET" else _reply(404)
        if call.method == "HEAD":
            return _reply(200, etag=stored.etag, length=stored.size)
        return _error(501, "Forgotten") if stored.body is None else _reply(200, stored.body, "application/octet-stream", etag=stored.etag)

    def _multipart(self, call: Call) -> bytes:
        bucket, _, key = call.place.partition("/")
        if "uploads" in call.query:
            number = str(next(self._numbers))
            self._uploads[number] = Upload(call.place)
            return _xml("InitiateMultipartUploadResult", f"<Bucket>{bucket}</Bucket><Key>{escape(key)}</Key><UploadId>{number}</UploadId>")
        upload = self._uploads.get(call.query["uploadId"])
        if upload is None or upload.key != call.place:
            return _error(404, "NoSuchUpload")
        if call.method == "PUT":
            part = upload.parts[int(call.query["partNumber"])] = _stored(call)
            return _reply(200, etag=part.etag)
        del self._uploads[call.query["uploadId"]]
        if call.method == "DELETE":
            return _reply(204)
        parts = [upload.parts[int(number)] for number in re.findall(r"<PartNumber>(\d+)</PartNumber>", call.body.decode())]
        etag = f"{hashlib.md5(b''.join(bytes.fromhex(part.etag) for part in parts)).hexdigest()}-{len(parts)}"
        body = b"".join(part.body or b"" for part in parts) if _kept(call.place) else None
        self._store(call.place, Stored(sum(part.size for part in parts), etag, body))
        return _xml("CompleteMultipartUploadResult", f"<Bucket>{bucket}</Bucket><Key>{escape(key)}</Key><ETag>&quot;{etag}&quot;</ETag>")

    def _store(self, place: str, stored: Stored) -> None:
        if place not in self.objects:
            self._sorted = None
        self.objects[place] = stored

    def _remove(self, place: str) -> None:
        if self.objects.pop(place, None) is not None:
            self._sorted = None

    def _list(self, bucket: str, query: dict[str, str]) -> bytes:
        """Version 2, or version 1 with `marker`. Sorted once per change, so that paging is cheap."""
        if self._sorted is None:
            self._sorted = sorted(self.objects)  # the order of code points is that of the UTF-8 bytes
        prefix, delimiter, limit = f"{bucket}/{query.get('prefix', '')}", query.get("delimiter", ""), int(query.get("max-keys", "1000"))
        after = query.get("continuation-token") or query.get("start-after") or query.get("marker") or ""
        at = max(bisect_left(self._sorted, prefix), bisect_right(self._sorted, f"{bucket}/{after}") if after else 0)
        encode = quote if query.get("encoding-type") == "url" else escape
        items: list[str] = []
        last = ""
        while at < len(self._sorted) and (place := self._sorted[at]).startswith(prefix) and len(items) < limit:
            cut = place.find(delimiter, len(prefix)) if delimiter else -1
            if cut < 0:
                stored, last, at = self.objects[place], place[len(bucket) + 1 :], at + 1
                items.append(
                    f"<Contents><Key>{encode(last)}</Key><LastModified>{_DATE}</LastModified><ETag>&quot;{stored.etag}&quot;</ETag>"
                    f"<Size>{stored.size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
                )
            else:
                common = place[len(bucket) + 1 : cut + len(delimiter)]
                items.append(f"<CommonPrefixes><Prefix>{encode(common)}</Prefix></CommonPrefixes>")
                last = common + _BEYOND
                at = bisect_left(self._sorted, f"{bucket}/{last}")
        encoding = "<EncodingType>url</EncodingType>" if encode is quote else ""
        more = at < len(self._sorted) and self._sorted[at].startswith(prefix)
        token = escape(last)
        return _xml(
            "ListBucketResult",
            f"{encoding}<Name>{bucket}</Name><KeyCount>{len(items)}</KeyCount><MaxKeys>{limit}</MaxKeys><IsTruncated>{str(more).lower()}</IsTruncated>"
            + (f"<NextContinuationToken>{token}</NextContinuationToken><NextMarker>{encode(last)}</NextMarker>" if more else "")
            + "".join(items),
        )


class Connection(asyncio.Protocol):
    """One keep-alive connection: cuts whole requests out of the stream."""

    def __init__(self, sink: Sink, latency: float) -> None:
        self._sink = sink
        self._latency = latency
        self._buffer = bytearray()
        self._head: tuple[str, bytes, int] | None = None  # request line, lower-cased head, length of the body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (self._head or self._read_head()) and (call := self._read_call()):
            answer = self._sink.answer(call)
            if self._latency:
                asyncio.get_running_loop().call_later(self._latency, self._transport.write, answer)
            else:
                self._transport.write(answer)

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        raw = bytes(self._buffer[: end + 2])
        del self._buffer[: end + 4]
        head = raw.lower()
        assert not _header(head, b"transfer-encoding"), "no S3 client known here sends a body of unknown length"
        self._head = raw[: raw.index(b"\r\n")].decode("latin-1"), head, int(_header(head, b"content-length") or 0)
        if b"\r\nexpect: 100-continue" in head:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _read_call(self) -> Call | None:
        assert self._head is not None
        line, head, length = self._head
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        if b"\r\nx-amz-decoded-content-length:" in head:
            body = _unchunk(body)
        self._head = None
        method, target, _ = line.split(" ")
        path, _, query = target.partition("?")
        return Call(
            method, unquote(path[1:]) if "%" in path else path[1:], dict(parse_qsl(query, keep_blank_values=True)) if query else {}, head, body
        )


def _header(head: bytes, name: bytes) -> bytes:
    start = head.find(b"\r\n" + name + b":")
    return b"" if start < 0 else head[start + len(name) + 3 : head.index(b"\r\n", start + 2)].strip()


def _unchunk(body: bytes) -> bytes:
    """The bytes inside AWS's chunks (`size[;signature]\\r\\n…\\r\\n`), trailers left out."""
    parts: list[bytes] = []
    at = 0
    while True:
        line = body.index(b"\r\n", at)
        size = int(body[at:line].partition(b";")[0], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(body[line + 2 : line + 2 + size])
        at = line + size + 4


def _kept(place: str) -> bool:
    return "/_" in place


def _stored(call: Call) -> Stored:
    return Stored(len(call.body), hashlib.md5(call.body).hexdigest(), call.body if _kept(call.place) else None)


def _reply(status: int, body: bytes = b"", kind: str = "application/xml", *, etag: str = "", length: int | None = None) -> bytes:
    tag = f'ETag: "{etag}"\r\n' if etag else ""
    size = "" if status == 204 else f"Content-Length: {len(body) if length is None else length}\r\n"
    return f"HTTP/1.1 {status} X\r\n{tag}{size}Content-Type: {kind}\r\nLast-Modified: {_HTTP_DATE}\r\n\r\n".encode() + body


def _xml(root: str, inner: str) -> bytes:
    return _reply(200, f'<?xml version="1.0" encoding="UTF-8"?><{root}>{inner}</{root}>'.encode())


def _error(status: int, code: str) -> bytes:
    return _reply(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())


async def serve(port: int, latency: float) -> None:
    """Until the process is ended, or whoever started it closes its standard input."""
    loop = asyncio.get_running_loop()
    state = Sink()
    server = await loop.create_server(lambda: Connection(state, latency), "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextlib.contextmanager
def sink(latency_ms: float = 0) -> Iterator[str]:
    """The URL of a sink in a process of its own, so that what a client costs can be told apart."""
    command = [sys.executable, "-m", "tests.fakes.s3_sink", "--latency-ms", str(latency_ms)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency-ms", type=float, default=0)
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.latency_ms / 1000))


if __name__ == "__main__":
    main()
