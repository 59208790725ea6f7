"""Where the stand-in for Labelbox keeps files: a store on a host of its own with signed addresses, and the masks and frames of the API's own host.

The store refuses whoever sends it the API key, which is none of its business, and remembers it in `leaks`. Addresses expire by the stand-in's clock.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Any

from tests.fakes.labelbox_exports import Export, Exports
from tests.fakes.labelbox_payloads import png
from tests.fakes.labelbox_rows import encode
from tests.fakes.labelbox_world import World
from tests.fakes.web import Answer, Request

_SECRET = b"the store's own"
_MASK = re.compile(r"/api/v1/tasks/(\w+)/masks/([\w-]+)/index/1")
_FRAMES = re.compile(r"/api/v1/frames/([\w-]+)")


def problem(status: int, code: str) -> Answer:
    """An error as the store tells it."""
    return Answer(status, f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>".encode(), [("Content-Type", "application/xml")])


class Files:
    """`chunk_size`: bytes in each file of an export; `url_seconds`: how long an address is good."""

    def __init__(self, world: World, exports: Exports) -> None:
        self._world = world
        self._exports = exports
        self.url = ""  # of the store; known when it runs
        self.chunk_size = 1 << 20
        self.url_seconds = 3600.0
        self.leaks: list[str] = []  # paths the API key was sent to

    def sign(self, task: Export, stream: str, number: int) -> str:
        """The address of one file of an export."""
        return self._signed(f"/exports/{task.id}/{stream}/{self.chunk_size}/{number}")

    def _signed(self, path: str) -> str:
        expires = self._world.clock() + int(self.url_seconds * 1e6)
        return f"{self.url}{path}?X-Goog-Expires={expires}&X-Goog-Signature={self._signature(path, str(expires))}"

    @staticmethod
    def _signature(path: str, expires: str) -> str:
        return hmac.new(_SECRET, f"{path} {expires}".encode(), hashlib.sha256).hexdigest()

    def store(self, request: Request) -> Answer:
        """A request to the store's host."""
        if "Authorization" in request.headers:
            self.leaks.append(request.path)
            return problem(401, "AuthenticationRequired")
        expires = request.query.get("X-Goog-Expires", "")
        if not hmac.compare_digest(request.query.get("X-Goog-Signature", ""), self._signature(request.path, expires)):
            return problem(403, "SignatureDoesNotMatch")
        if int(expires) <= self._world.clock():
            return problem(400, "ExpiredToken")
        parts = request.path.strip("/").split("/")
        if parts[0] == "frames":
            return self._ranged(request, self._frames(parts[1]))
        found = self._exports.tasks.get(parts[1])
        return self._ranged(request, self._piece(found, *parts[2:])) if found else problem(404, "NoSuchKey")

    @staticmethod
    def _piece(found: Export, stream: str, size: str, number: str) -> bytes:
        content = found.result if stream == "RESULT" else found.errors
        return content.read(int(number) * int(size), min((int(number) + 1) * int(size), content.size))

    @staticmethod
    def _ranged(request: Request, body: bytes) -> Answer:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        kind = ("Content-Type", "application/octet-stream")
        if asked is None:
            return Answer(200, body, [kind])
        start, end = int(asked[1]), min(int(asked[2] or len(body)), len(body) - 1)
        if start > end:
            return problem(416, "InvalidRange")
        return Answer(206, body[start : end + 1], [kind, ("Content-Range", f"bytes {start}-{end}/{len(body)}")])

    def api(self, path: str) -> Answer:
        """A file on the API's own host; the key was right."""
        if mask := _MASK.fullmatch(path):
            known = mask[1] in self._exports.tasks
            return Answer(200, png(mask[2]), [("Content-Type", "image/png")]) if known else Answer(404)
        frames = _FRAMES.fullmatch(path)
        label = self._label(frames[1]) if frames else None
        if label is None:
            return Answer(404)
        if label["performance_details"]["skipped"]:
            return Answer(204)
        return Answer(301, headers=[("Location", self._signed(f"/frames/{label['id']}"))])

    def _label(self, label: str) -> dict[str, Any] | None:
        members = (member for _, state in self._world.living() for member in state.members.values())
        return next((one for member in members for one in member.labels if one["id"] == label), None)

    def _frames(self, label: str) -> bytes:
        """One labelled frame a line."""
        found = self._label(label)
        frames = found["annotations"].get("frames", {}) if found else {}
        return b"".join(encode({"frameNumber": int(at), "objects": list(frame["objects"].values()), "classifications": frame["classifications"]})
                        for at, frame in frames.items())  # fmt: skip
