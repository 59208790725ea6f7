"""Webhook calls: somebody says that something changed, so a Run starts now instead of at its next slot.

A call is a wake-up and nothing else: its body is read for its signature only, so a forged or replayed call can cause at most a Run that finds
nothing. Answered in milliseconds, since Label Studio waits one second while its annotator waits too. Whoever does not prove the secret learns
nothing: an unknown Sync, one without hooks and a wrong secret get one answer after the same work.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from syncd.clock import SECOND
from syncd.daemon.service import Service

SECRET_HEADER = "X-Syncd-Secret"  # noqa: S105 - the name of a header; Label Studio sends any header it is told
SIGNATURE_HEADER = "X-Hub-Signature"  # Labelbox: `sha1=` and the HMAC-SHA1 of the body in hex (docs.labelbox.com/reference/webhook)
BODY_LIMIT = 1_000_000  # bytes
PATIENCE = 5.0  # seconds for a body to arrive
MOST = 50  # calls of one Sync in a second


class Hooks:
    """`POST /hooks/<sync>`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._nobody = secrets.token_hex(32)  # stands in where there is no secret, so that the same work is done
        self._second, self._calls = 0, Counter[str]()  # calls of each Sync in that second

    async def take(self, request: Request) -> Response:
        """202 woken · 403 not proved · 408 too slow · 413 too large · 429 too many."""
        name = request.path_params["name"]
        answer = await self._judged(name, request)
        self._service.count_hook(name, refused=answer.status_code != HTTPStatus.ACCEPTED)
        return answer

    async def _judged(self, name: str, request: Request) -> Response:
        body = await _body(request)
        if isinstance(body, Response):
            return body
        sync = self._service.sync(name)
        secret = sync.rules.hook_secret.get_secret_value() if sync and sync.rules.hook_secret else ""
        if not proved(secret or self._nobody, request.headers, body) or not secret:
            return _answer(403, "this call proves no secret of this Sync")
        if (second := self._service.clock.now() // SECOND) != self._second:
            self._second, self._calls = second, Counter()
        self._calls[name] += 1  # only proved calls are counted: a forger must not use it up
        if self._calls[name] > MOST:
            return _answer(429, "too many calls: the Run they ask for is due anyway", {"Retry-After": "1"})
        return _answer(202, "started" if self._service.wake(name) else "coalesced")


def proved(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether the call knows the secret, by header or by signature; both are always compared, in constant time. HTTP's headers are latin-1."""
    signature = "sha1=" + hmac.new(secret.encode(), body, hashlib.sha1).hexdigest()
    by_header = hmac.compare_digest(headers.get(SECRET_HEADER, "").encode("latin-1"), secret.encode())
    by_signature = hmac.compare_digest(headers.get(SIGNATURE_HEADER, "").encode("latin-1"), signature.encode())
    return by_header | by_signature


async def _body(request: Request) -> bytes | Response:
    """The body, or why it was not read to its end. A length is only a promise: what arrives is counted."""
    too_large = _answer(413, f"larger than {BODY_LIMIT:,} bytes: let the hook send no payload")
    if int(request.headers.get("Content-Length", "0")) > BODY_LIMIT:  # digits, or the server would not have let it in
        return too_large
    body = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            async for part in request.stream():
                body += part
                if len(body) > BODY_LIMIT:
                    return too_large
    except TimeoutError:
        return _answer(408, "the body did not arrive in time")
    except ClientDisconnect:
        return _answer(400, "the body broke off")
    return bytes(body)


def _answer(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"status" if status == HTTPStatus.ACCEPTED else "error": text}, status, headers)
