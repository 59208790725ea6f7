"""The HTTP surface over real sockets: who gets an answer, with which headers, and what no answer ever holds."""

from __future__ import annotations

import base64
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from syncd.config.shape import Http
from syncd.daemon import web
from syncd.daemon.ledger import State
from syncd.daemon.service import ConfigState
from syncd.errors import CheckpointError, SyncdError
from syncd.fields import Secret
from syncd.keys import SIDE
from syncd.model import Failure, Status
from tests.fakes.daemon import until
from tests.fakes.service import HOSTILE, NOW, SECRET, FakeService, ledger, run, sample

PASSWORD = "pässword: with colon"
PATHS = ["/", "/?state=ok", "/syncs/cats", "/metrics", "/static/style.css", "/static/page.js", "/nope", "/syncs/nope", "/healthz", "/readyz"]
Serving = Callable[..., AbstractContextManager[httpx.Client]]


@contextmanager
def serving(service: FakeService, *, username: str | None = None) -> Iterator[httpx.Client]:
    http = Http(listen="127.0.0.1:0", username=username, password=Secret(PASSWORD) if username else None)
    server = web.serve(service, http)
    try:
        with httpx.Client(base_url="http://{}:{}".format(*server.address), timeout=20) as client:
            yield client
    finally:
        server.stop()


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def test_every_answer_has_the_security_headers() -> None:
    service = sample()
    with serving(service) as client:
        answers = [client.get(path) for path in PATHS]
        answers += [client.post("/"), client.post("/hooks/cats"), client.get("/hooks/cats"), client.get("/", headers={"Host": "evil.example"})]
        service.syncs = None  # type: ignore[method-assign,assignment]  # a bug: calling it raises
        answers.append(client.get("/"))
    assert {200, 403, 404, 405, 421, 500} == {answer.status_code for answer in answers}
    for answer in answers:
        for name, value in web.HEADERS.items():
            expected = web._FOREVER if name == "Cache-Control" and answer.request.url.path.startswith("/static/") else value
            assert answer.headers[name] == expected, (answer.request.url, name)
        assert "server" not in answer.headers


@pytest.mark.parametrize("path", PATHS)
def test_a_password_covers_everything_but_health(path: str) -> None:
    service = sample()
    service.reasons = ["studio does not answer"]
    with serving(service, username="ada") as client:
        wrong = [{}, basic("ada:"), basic(f"eve:{PASSWORD}"), basic(f"ada:{PASSWORD}x"), basic(":"), {"Authorization": "Basic !!"}]
        wrong += [{"Authorization": f"Bearer {PASSWORD.encode().hex()}"}, {"Authorization": "Basic"}, basic("ada")]
        refused = [client.get(path, headers=headers) for headers in wrong]
        known = client.get(path, headers=basic(f"ada:{PASSWORD}"))
    if path in {"/healthz", "/readyz"}:
        assert {answer.status_code for answer in refused} == {known.status_code}
        assert all("studio" not in answer.text for answer in refused), "reasons are for the user"
        return
    assert {answer.status_code for answer in refused} == {401}
    assert all(answer.headers["WWW-Authenticate"].startswith('Basic realm="syncd"') for answer in refused)
    assert known.status_code == (404 if "nope" in path else 200)


def test_hooks_need_no_password_but_their_secret() -> None:
    with serving(sample(), username="ada") as client:
        assert client.post("/hooks/cats", headers={"X-Syncd-Secret": SECRET}).status_code == 202
        assert client.post("/hooks/cats", headers=basic(f"ada:{PASSWORD}")).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8642", "127.0.0.1.evil.example", "a.", ""])
def test_a_name_that_somebody_else_may_resolve_to_this_machine_gets_nothing(host: str) -> None:
    with serving(sample()) as client:
        for path in ("/", "/metrics", "/syncs/cats"):
            answer = client.get(path, headers={"Host": host})
            assert answer.status_code == 421
            assert "cats" not in answer.text
        assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "localhost:8642", "127.0.0.1:1", "[::1]:8642", "[::1]", "syncd:8642", "10.0.0.7"])
def test_addresses_and_names_of_this_network_are_answered(host: str) -> None:
    with serving(sample()) as client:
        assert client.get("/", headers={"Host": host}).status_code == 200


def test_behind_a_proxy_with_a_password_any_host_is_answered() -> None:
    with serving(sample(), username="ada") as client:
        assert client.get("/", headers={"Host": "syncd.example.com", **basic(f"ada:{PASSWORD}")}).status_code == 200


def test_a_taken_address_is_said_and_a_stopped_server_frees_its_own() -> None:
    server = web.serve(sample(), Http(listen="127.0.0.1:0"))
    address = "{}:{}".format(*server.address)
    try:
        with pytest.raises(SyncdError, match=rf"can't listen at {address}.*another address"):
            web.serve(sample(), Http(listen=address))
    finally:
        server.stop()
    web.serve(sample(), Http(listen=address)).stop()


def test_a_name_nobody_knows_is_no_traceback() -> None:
    with pytest.raises(SyncdError, match=r"can't listen at no-such-host.invalid"):
        web.serve(sample(), Http(listen="no-such-host.invalid:0"))


def test_only_an_open_door_to_the_network_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "syncd.web"):
        web.serve(sample(), Http(listen="127.0.0.1:0")).stop()
        web.serve(sample(), Http(listen="0.0.0.0:0", username="ada", password=Secret(PASSWORD))).stop()
        assert caplog.messages == []
        web.serve(sample(), Http(listen="0.0.0.0:0")).stop()
    assert "http.password" in caplog.text


def test_health_answers_while_every_thread_is_busy() -> None:
    service, go_on = sample(), threading.Event()

    def hang() -> tuple[()]:
        go_on.wait(60)
        return ()

    service.syncs = hang  # type: ignore[method-assign]
    with serving(service) as client:
        waiting = [socket.create_connection((client.base_url.host, client.base_url.port or 0)) for _ in range(45)]
        try:
            for connection in waiting:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.get("/healthz").text == "ok\n"
        finally:
            go_on.set()
            for connection in waiting:
                assert connection.recv(12) == b"HTTP/1.1 200"
                connection.close()


def test_strangers_that_send_nothing_use_up_no_files_and_keep_nobody_out() -> None:
    """Runs need the process' files too. The oldest connection makes room, so that whoever comes now is answered."""
    with serving(sample()) as client, ExitStack() as held:
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(2 * web.MOST):
            connection = socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=20)
            held.callback(connection.close)
            connection.sendall(b"GET / HT")
            assert client.get("/healthz", headers={"Connection": "close"}).text == "ok\n"
        assert len(list(Path("/proc/self/fd").iterdir())) - before <= 3 * web.MOST + 2, "ours, and theirs"


def test_garbage_is_no_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(sample()) as client:
        for garbage in (b"\x16\x03\x01\x02\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"):
            with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=20) as connection:
                connection.sendall(garbage)
                assert connection.recv(8) == b"HTTP/1.1"
    assert not [record for record in caplog.records if record.name.startswith("uvicorn") and record.levelno >= logging.INFO]


def test_what_a_stop_cuts_off_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as held, serving(sample()) as client:
        connection = held.enter_context(socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=20))
        connection.sendall(b"POST /hooks/cats HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(25).startswith(b"HTTP/1.1 100"), "its body is awaited now"
    assert caplog.messages == []


def test_text_that_is_no_unicode_is_shown_all_the_same() -> None:
    """Names of files are bytes: what Python makes of foreign ones can't be written as UTF-8."""
    foreign = "\udcff.json"
    service = sample()
    failed = run("cats", Status.FAILED, error=f"{foreign} broke")
    service.ledgers, service.failing = [ledger("cats", State.FAILED, failed, failing=1)], {"cats": [Failure(foreign, f"7{SIDE}mask.png", foreign)]}
    service.reasons, service.config_state = [foreign], ConfigState(Path(f"/etc/{foreign}"), NOW)
    with serving(service) as client:
        assert "\\udcff.json broke" in client.get("/").text
        assert "7/mask.png" in client.get("/syncs/cats").text
        assert client.get("/readyz").json()["reasons"] == [foreign]


def test_ready_or_the_reasons_for_programs_and_people() -> None:
    service = sample()
    with serving(service) as client:
        assert (client.get("/readyz").status_code, client.get("/readyz").json()) == (200, {"ready": True, "reasons": []})
        service.reasons = ["the Checkpoint can't be read", "studio does not answer"]
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["reasons"]) == (503, service.reasons)
        assert client.get("/healthz").status_code == 200, "alive is not ready"
        service.living = False
        assert client.get("/healthz").status_code == 503, "only a new process helps"


@pytest.mark.parametrize("path", [path for path in PATHS if "nope" not in path])
def test_head_is_get_without_a_body(path: str) -> None:
    with serving(sample()) as client:
        head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["Content-Type"] == get.headers["Content-Type"]


def test_faults_are_calm_pages_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    service = sample()
    with serving(service) as client:
        missing = [client.get(path) for path in ("/nope", "/syncs/nope", "/syncs/", "/static/base.html", "/static/..%2fpage.py")]
        assert {answer.status_code for answer in missing} == {404}
        assert client.post("/").status_code == 405

        def locked() -> None:
            raise CheckpointError("the Checkpoint <b> is gone")

        service.syncs = locked  # type: ignore[method-assign,assignment]
        answer = client.get("/")
        assert (answer.status_code, "the Checkpoint &lt;b&gt; is gone" in answer.text) == (503, True)

        def broken() -> None:
            raise RuntimeError("the-inner-words")

        service.syncs = broken  # type: ignore[method-assign,assignment]
        answer = client.get("/")
        assert (answer.status_code, "mistake" in answer.text) == (500, True)
        assert "the-inner-words" not in answer.text
        assert "Traceback" not in answer.text
        until(lambda: "the-inner-words" in caplog.text)  # the log has it


def test_no_answer_holds_a_secret() -> None:
    with serving(sample(), username="ada") as client:
        for path in [*PATHS, f"/syncs/{HOSTILE.replace('/', '%2F')}", "/hooks/cats"]:
            for answer in (client.get(path), client.get(path, headers=basic(f"ada:{PASSWORD}"))):
                assert SECRET not in answer.text
                assert PASSWORD not in answer.text
