"""Webhook calls over real sockets: forged, replayed, oversized and flooding ones change nothing but a counter."""

from __future__ import annotations

import hashlib
import hmac
import socket
from collections.abc import Iterator, Mapping

import httpx
import pytest

from syncd.clock import SECOND
from syncd.config.shape import Http
from syncd.daemon import hooks, web
from tests.fakes.service import HOSTILE, SECRET, FakeService, ledger, sample

BODY = b'{"action": "ANNOTATION_UPDATED"}'


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    return {"X-Hub-Signature": "sha1=" + hmac.new(secret.encode(), body, hashlib.sha1).hexdigest()}


def secret(text: str = SECRET) -> dict[str, str]:
    return {"X-Syncd-Secret": text}


@pytest.fixture
def service() -> FakeService:
    return sample()


@pytest.fixture
def client(service: FakeService) -> Iterator[httpx.Client]:
    server = web.serve(service, Http(listen="127.0.0.1:0"))
    with httpx.Client(base_url="http://{}:{}".format(*server.address), timeout=20) as client:
        yield client
    server.stop()


@pytest.mark.parametrize("headers", [secret(), signed(BODY), secret() | signed(b"other")], ids=["Label Studio", "Labelbox", "one is enough"])
def test_a_call_that_proves_the_secret_wakes_its_sync(client: httpx.Client, service: FakeService, headers: dict[str, str]) -> None:
    answer = client.post("/hooks/cats", content=BODY, headers=headers)
    assert (answer.status_code, answer.json()) == (202, {"status": "started"})
    assert (service.woken, service.taken["cats"], service.refused.total()) == (["cats"], 1, 0)


def test_the_vendors_own_example_of_a_signature() -> None:
    """HMAC-SHA1 of RFC 2202, test case 2, spelled as Labelbox does."""
    assert hooks.proved("Jefe", {"X-Hub-Signature": "sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"}, b"what do ya want for nothing?")


FORGED = {
    "nothing": {},
    "an empty secret": secret(""),
    "a wrong secret": secret(SECRET + "x"),
    "another case": secret(SECRET.upper()),
    "bytes beyond ASCII": {"X-Syncd-Secret": "s\xe9cret"},
    "a wrong signature": signed(BODY, "guess"),
    "the signature of another body": signed(b"{}"),
    "no scheme": {"X-Hub-Signature": signed(BODY)["X-Hub-Signature"].removeprefix("sha1=")},
    "another scheme": {"X-Hub-Signature": "sha256=" + hmac.new(SECRET.encode(), BODY, hashlib.sha256).hexdigest()},
    "another door": {"Authorization": f"Bearer {SECRET}"},
}


@pytest.mark.parametrize("headers", FORGED.values(), ids=FORGED.keys())
def test_a_forged_call_changes_nothing_but_a_counter(client: httpx.Client, service: FakeService, headers: dict[str, str]) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    assert client.post("/hooks/cats", content=BODY, headers=raw).status_code == 403
    assert (service.woken, service.refused["cats"], service.taken.total()) == ([], 1, 0)


def test_who_proves_nothing_learns_nothing(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown Sync, one without hooks and a wrong secret: one answer, after the same comparisons."""
    compared, real = list[int](), hooks.proved

    def watched(key: str, headers: Mapping[str, str], body: bytes) -> bool:
        compared.append(len(body))
        return real(key, headers, body)

    monkeypatch.setattr(hooks, "proved", watched)
    answers = [client.post(f"/hooks/{name}", content=BODY, headers=secret("guess")) for name in ("nope", "street-scenes", "cats", "%3Cscript%3E/x")]
    assert len({(a.status_code, a.text, tuple((k, v) for k, v in a.headers.items() if k != "date")) for a in answers}) == 1
    assert compared == [len(BODY)] * 4


def test_no_secret_is_not_an_empty_secret(client: httpx.Client, service: FakeService) -> None:
    service.ledgers = [ledger("cats", secret="")]
    assert client.post("/hooks/cats", content=BODY, headers=secret("")).status_code == 403
    assert client.post("/hooks/cats", content=BODY, headers=signed(BODY, "")).status_code == 403
    assert service.woken == []


def test_a_replayed_call_is_one_more_wake_up_and_nothing_else(client: httpx.Client, service: FakeService) -> None:
    answers = [client.post("/hooks/cats", content=BODY, headers=signed(BODY)) for _ in range(3)]
    assert [answer.json()["status"] for answer in answers] == ["started", "coalesced", "coalesced"]
    assert (set(service.woken), service.taken["cats"]) == ({"cats"}, 3)


def test_a_hostile_name_is_only_a_name(client: httpx.Client, service: FakeService) -> None:
    path = "/hooks/" + HOSTILE.replace("<", "%3C").replace(">", "%3E").replace("/", "%2F")
    assert client.post(path, headers=secret()).status_code == 202
    assert service.woken == [HOSTILE]


def connection(client: httpx.Client, head: str) -> socket.socket:
    made = socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=20)
    made.sendall(f"POST /hooks/cats HTTP/1.1\r\nHost: x\r\nX-Syncd-Secret: {SECRET}\r\n{head}\r\n\r\n".encode())
    return made


@pytest.mark.parametrize("length", [hooks.BODY_LIMIT + 1, 10**19])
def test_a_body_said_to_be_too_large_is_not_even_read(client: httpx.Client, service: FakeService, length: int) -> None:
    with connection(client, f"Content-Length: {length}") as made:
        assert made.recv(12) == b"HTTP/1.1 413"
    assert (service.woken, service.refused["cats"]) == ([], 1)


def test_a_body_without_a_length_is_counted_as_it_comes(client: httpx.Client, service: FakeService) -> None:
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    with connection(client, "Transfer-Encoding: chunked") as made:
        for _ in range(hooks.BODY_LIMIT // 0x8000 + 1):
            made.sendall(chunk)
        assert made.recv(12) == b"HTTP/1.1 413"
    assert service.woken == []


def test_the_largest_body_is_taken(client: httpx.Client, service: FakeService) -> None:
    body = b"x" * hooks.BODY_LIMIT
    assert client.post("/hooks/cats", content=body, headers=signed(body)).status_code == 202
    assert client.post("/hooks/cats", content=iter([body[:70_000], body[70_000:]]), headers=signed(body)).status_code == 202


def test_a_body_that_never_ends_holds_nobody(client: httpx.Client, service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "PATIENCE", 0.05)
    with connection(client, "Content-Length: 10") as made:
        assert made.recv(12) == b"HTTP/1.1 408"
    assert service.woken == []


def test_a_flood_is_cut_and_the_forgers_flood_costs_nobody_else(client: httpx.Client, service: FakeService) -> None:
    for _ in range(2 * hooks.MOST):
        assert client.post("/hooks/cats", headers=secret("forged")).status_code == 403
    answers = [client.post("/hooks/cats", headers=secret()).status_code for _ in range(hooks.MOST + 2)]
    assert answers == [202] * hooks.MOST + [429, 429]
    assert client.post("/hooks/" + "%3Cscript%3Ealert(1)%3C%2Fscript%3E", headers=secret()).status_code == 202, "each Sync has its own limit"
    service.clock.micros += SECOND
    assert client.post("/hooks/cats", headers=secret()).status_code == 202
    assert (service.taken["cats"], service.refused["cats"]) == (hooks.MOST + 1, 2 * hooks.MOST + 2)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_only_post_wakes(client: httpx.Client, service: FakeService, method: str) -> None:
    answer = client.request(method, "/hooks/cats", headers=secret())
    assert (answer.status_code, answer.headers["Allow"], service.woken) == (405, "POST", [])
