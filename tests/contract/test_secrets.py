"""A canary in every secret, header, URL and variable is heard nowhere: in no output, log at debug, page, metric, Checkpoint or Target, whatever goes
wrong. The worst server gives back in its error all that it was asked.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from typer.testing import CliRunner

import syncd.cli.commands  # noqa: F401 - enrols them
from syncd.cli.main import app
from tests.fakes.daemon import ROOT, until
from tests.fakes.label_studio import StandIn
from tests.fakes.places import BUCKET, S3Server
from tests.fakes.web import Answer, Drop, Request, WebServer

WORD = "canary"
ASKING = (["plan"], ["sync"], ["doctor"], ["verify", "--read-data", "--source"])
COMMANDS = (["validate"], *ASKING, ["sync", "--full"], ["status"], ["changes", "a"], ["history", "a", "1"], ["rebuild"])
JWT = f"eyJhbGciOiJIUzI1NiJ9.{WORD}-claims.{WORD}-signature"
CONFIG = """\
sources:
  studio: {{type: label_studio, url: "{studio}", token: "${{STUDIO_TOKEN}}", retry_for: 0s}}
  personal: {{type: label_studio, url: "{studio}", token_file: ./jwt, retry_for: 0s}}
  box: {{type: labelbox, url: "{box}/graphql", api_key: canary-api-key, retry_for: 0s}}
  drop: {{type: files, path: ./exports}}
targets:
  keys: &keys {{type: s3, bucket: bucket, endpoint: "{store}", region: us-east-1, access_key_id: canary-key-id, secret_access_key: canary-secret,
                session_token_file: ./session, retry_for: 0s, prefix: keys}}
  more: {{<<: *keys, prefix: more}}
  google: {{type: gcs, bucket: bucket, endpoint: "{store}", service_account_file: ./account.json, retry_for: 0s}}
  disk: {{type: local, path: ./disk}}
  other: {{type: local, path: ./other}}
syncs:
  a: {{source: studio, target: keys, hook_secret: canary-hook, notify: {{webhook: "{told}/canary-webhook?canary=1"}}, every: 1s}}
  b: {{source: personal, target: disk, hook_secret_file: ./hook, every: 1s}}
  c: {{source: drop, target: google, every: 1s}}
  d: {{source: drop, target: more, every: 1s, notify: {{heartbeat: "{told}/canary-beat/{{sync}}"}}}}
  e: {{source: box, target: other, every: 1s}}
http: {{listen: "127.0.0.1:0", username: ada, password: canary-password}}
state: ./state
"""


def heard(text: str | bytes) -> bool:
    """Whether any of the secrets is in it: as it is, percent-encoded, as hex, in base64 at any offset, or inside Basic credentials."""
    data = (text.encode() if isinstance(text, str) else text).lower()
    forms = {WORD, quote(WORD), WORD.encode().hex()}
    whole = text.encode() if isinstance(text, str) else text
    encoded = {base64.b64encode(b"x" * shift + WORD.encode())[(0, 2, 3)[shift] :].rstrip(b"=")[:-1] for shift in range(3)}
    return any(form.encode() in data for form in forms) or any(len(form) > 5 and form in whole for form in encoded)


def echoed(request: Request) -> str:
    """All that the server was told."""
    headers = "\n".join(f"{name}: {value}" for name, value in request.headers.items())
    return f"{request.method} {request.target}\n{headers}\n\n{request.body.decode(errors='replace')}"


def as_json(status: int) -> Callable[[Request], Answer]:
    def act(request: Request) -> Answer:
        words = echoed(request)
        told = {"detail": words, "message": words, "error": words, "errors": [{"message": words, "extensions": {"code": words}}]}
        return Answer(status, json.dumps(told | {"status_code": status}).encode(), [("Content-Type", "application/json")])

    return act


def as_xml(status: int) -> Callable[[Request], Answer]:
    def act(request: Request) -> Answer:
        words = echoed(request).replace("<", "&lt;")
        body = f'<?xml version="1.0"?><Error><Code>Bad{request.headers.get("X-Amz-Security-Token", "")}</Code><Message>{words}</Message></Error>'
        return Answer(status, body.encode(), [("Content-Type", "application/xml")])

    return act


def as_text(request: Request) -> Answer:
    return Answer(200, echoed(request).encode(), [("Content-Type", "text/html")])


def elsewhere(request: Request) -> Answer:
    return Answer(302, b"", [("Location", f"https://{request.headers.get('Authorization', '').split()[-1]}.example.com/{quote(echoed(request))}")])


def cut(request: Request) -> Answer:
    return Answer(200, echoed(request).encode(), [("Content-Type", "application/json")], cut=10)


def reset(request: Request) -> Answer:
    raise Drop


TROUBLES: dict[str, Callable[[Request], Answer]] = {
    **{f"json {status}": as_json(status) for status in (200, 400, 401, 403, 404, 500)},
    **{f"xml {status}": as_xml(status) for status in (200, 403, 404, 500)},
    "text": as_text, "elsewhere": elsewhere, "cut": cut, "reset": reset,
}  # fmt: skip


class Desk:
    """A folder with a config full of secrets, and whatever came out of it."""

    def __init__(self, folder: Path, **where: str) -> None:
        self.folder, self.config = folder, folder / "syncd.yaml"
        self.config.write_text(CONFIG.format(**where))
        (folder / "exports/p").mkdir(parents=True)
        (folder / "exports/p/1.json").write_text('{"id": 1}')
        os.utime(folder / "exports/p/1.json", (1, 1))
        for name, secret in {"jwt": JWT, "session": "canary-session", "hook": "canary-hook-2"}.items():
            (folder / name).write_text(f"{secret}\n")
        key = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        account = {"type": "service_account", "project_id": "p", "private_key_id": "id", "private_key": key.decode()}
        account |= {"client_email": "client@example.com", "client_id": "1", "token_uri": f"{where['token']}/token"}
        (folder / "account.json").write_text(json.dumps(account))
        self.pem = key.splitlines()[1].decode()
        self.env = {"STUDIO_TOKEN": "canary-studio", "UNRELATED": "canary-environment", "AWS_SESSION_TOKEN": "canary-aws"}

    def type(self, *words: str, form: str = "text") -> str:
        """All that a command shows."""
        command = [*words, "-c", str(self.config), "--log-level", "debug", "--log-format", form, *(["--json"] if form == "json" else [])]
        result = CliRunner().invoke(app, command, catch_exceptions=False, env=self.env)
        return str(result.stdout + result.stderr)

    def check(self, shown: str, what: object) -> None:
        """Neither in what was shown nor in a file that syncd wrote."""
        assert self.pem not in shown
        lines = [line for line in shown.splitlines() if heard(line)]
        assert not lines, (what, lines[:3])
        for path in self.folder.rglob("*"):
            if path.is_file() and path.name not in {"syncd.yaml", "jwt", "session", "hook", "account.json"}:
                assert not heard(path.read_bytes()), (what, path)


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS", "GOOGLE", "SYNCD"))]:
        monkeypatch.delenv(name)


def granted(request: Request) -> Answer:
    """What Google's token server says."""
    told = {"access_token": "canary-access", "expires_in": 3600, "token_type": "Bearer"}
    return Answer(200, json.dumps(told).encode(), [("Content-Type", "application/json")])


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("trouble", TROUBLES)
def test_whatever_a_server_gives_back_no_command_shows_a_secret(trouble: str, tmp_path: Path) -> None:
    with WebServer(TROUBLES[trouble]) as bad, WebServer(granted) as good:
        token = bad.url if trouble in {"json 400", "text", "reset"} else good.url
        desk = Desk(tmp_path, studio=bad.url, box=bad.url, store=bad.url, told=bad.url, token=token)
        for number, words in enumerate(ASKING):
            shown = desk.type(*words, form="json" if number % 2 else "text")
            assert "error" in shown or "✗" in shown or '"wrong"' in shown, shown
            desk.check(shown, (trouble, words))


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("trouble", ["json 400", "json 401", "text", "elsewhere"])  # what is not tried again for a minute
def test_nor_does_a_restore_or_a_webhook_that_is_refused(trouble: str, tmp_path: Path) -> None:
    with WebServer(TROUBLES[trouble]) as bad:
        desk = Desk(tmp_path, studio=bad.url, box=bad.url, store=bad.url, told=bad.url, token=bad.url)
        (tmp_path / "session").write_text("canary-restore")
        (tmp_path / "disk/1").mkdir(parents=True)
        (tmp_path / "disk/1/1.json").write_text('{"id": 1, "data": {}}')
        where = ["--to-label-studio", bad.url, "--token-file", str(tmp_path / "session"), "--work", str(tmp_path / "work")]
        for words in (["restore", "b", *where], ["hooks", "install", "a", "--url", bad.url], ["hooks", "list", "b"]):
            shown = desk.type(*words)
            assert "error" in shown.lower(), (words, shown)
            desk.check(shown, words)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    "account", ["canary", '{"private_key": "canary"}', '{"type": "service_account", "private_key": "canary", "client_email": "c"}']
)
def test_nor_does_an_account_that_cannot_be_read(account: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path, **dict.fromkeys(("studio", "box", "store", "told", "token"), "http://127.0.0.1:1"))
    (tmp_path / "account.json").write_text(account)
    for words in (["sync", "c"], ["doctor", "c"]):
        desk.check(desk.type(*words), (account, words))


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("where", ["http://127.0.0.1:1", "http://no-such-host.invalid"])
def test_nor_when_nobody_is_there(where: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path, studio=where, box=where, store=where, told=where, token=where)
    for words in COMMANDS:
        desk.check(desk.type(*words), (where, words))


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("wrong", "by"),
    [
        ("{studio}", "http://ann:canary@studio.example.com"),
        ("{studio}", "http://studio.example.com/?token=canary"),
        ("{studio}", "canary"),
        ("{store}", "http://ann:canary@store.example.com"),
        ("{store}", "ftp://canary"),
        ("{told}", "ftp://canary"),
        ("${{STUDIO_TOKEN}}", "${{STUDIO_TOKEN"),
        ("${{STUDIO_TOKEN}}", "${{STUDIO_TOKEN}}${{MISSING}}"),
        ("retry_for: 0s", "retry_for: ${{STUDIO_TOKEN}}"),
        ("canary-hook,", "[canary],"),
        ("canary-password", "{{a: canary}}"),
        ("canary-api-key", "!x canary"),
        ("canary-secret", "null"),
        ("username: ada, ", ""),
        ("type: local", "${{STUDIO_TOKEN}}: local"),
        ("state: ./state", "state: postgresql://ann:canary@db/x"),
        ("state: ./state", "state: ./state\n  canary: : x"),
    ],
)
def test_nor_does_a_config_that_is_wrong(wrong: str, by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "http://127.0.0.1:1"
    text = CONFIG.replace(wrong, by, 1)
    assert text != CONFIG
    monkeypatch.setitem(globals(), "CONFIG", text)
    desk = Desk(tmp_path, studio=nowhere, box=nowhere, store=nowhere, told=nowhere, token=nowhere)
    for words in (["validate"], ["sync"], ["doctor"]):
        for form in ("text", "json"):
            desk.check(desk.type(*words, form=form), (by, words))


BUG = """
import sys
from syncd.cli.main import main
from syncd.targets import objects
def bug(*_):
    raise ZeroDivisionError
objects._answered = bug  # while obstore's error, which holds the echo, is being handled
main()
"""


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("command", ["sync", "run"])
def test_nor_does_the_traceback_of_a_bug(command: str, tmp_path: Path) -> None:
    with WebServer(as_xml(400)) as bad:
        desk = Desk(tmp_path, studio=bad.url, box=bad.url, store=bad.url, told=bad.url, token=bad.url)
        log = tmp_path / "log"
        words = [sys.executable, "-c", BUG, command, *(["d"] if command == "sync" else []), "-c", str(desk.config)]
        with log.open("wb") as stream:
            child = subprocess.Popen(words, cwd=tmp_path, env=os.environ | desk.env | {"PYTHONPATH": str(ROOT)}, stdout=stream, stderr=stream)
        until(lambda: "ZeroDivisionError" in log.read_text())
        child.send_signal(signal.SIGTERM)
        child.wait(60)
        shown = log.read_text()
        assert "Traceback" in shown
        assert "***" in shown
        desk.check(shown, command)


@pytest.fixture
def studio() -> Iterator[StandIn]:
    with StandIn() as studio:
        studio.token, studio.pat = "canary-studio", JWT
        studio.project("Cats").add([{"data": {"text": "a"}, "annotations": [{"result": []}]}] * 3)
        yield studio


@pytest.mark.usefixtures("clean")
def test_nor_do_checkpoint_target_page_metrics_and_the_daemons_log(studio: StandIn, tmp_path: Path) -> None:
    """A daemon of its own whose Syncs go well, or fail as above; and what stands in the bucket afterwards."""
    with S3Server() as store, WebServer(as_json(500)) as bad, WebServer(granted) as good:
        desk = Desk(tmp_path, studio=studio.url, box=bad.url, store=store.url, told=bad.url, token=good.url)
        env = os.environ | desk.env | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "syncd", "run", "-c", str(desk.config), "--log-level", "debug"]
        log = tmp_path / "daemon.log"
        with log.open("wb") as stream:
            daemon = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=stream, stderr=stream)
        try:
            until(lambda: all(f'"{name}"' in log.read_text() for name in "abcde") and '"ok"' in log.read_text())
            page = until(lambda: next((line for line in log.read_text().splitlines() if "page at" in line), None))
            address = json.loads(page)["message"].rpartition(" ")[2]
            paths = ["", "metrics", "healthz", "readyz", "nope", *(f"syncs/{name}" for name in "abcde"), "?q=canar"]
            with httpx.Client(base_url=address, auth=("ada", "canary-password"), timeout=30) as client:
                client.post("hooks/a", headers={"X-Syncd-Secret": "canary-wrong"})
                client.post("hooks/a", headers={"X-Syncd-Secret": "canary-hook"})
                for path in paths:
                    answer = client.get(path)
                    desk.check(f"{answer.headers}\n{answer.text}".replace("canar&#34;", ""), path)
            httpx.get(address, auth=("ada", "canary-other"))
            time.sleep(1.5)  # the Runs of the hook
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(60)
        desk.check(log.read_text(), "the daemon's log")
        client = store.client()
        objects = [client.get_object(Bucket=BUCKET, Key=found["Key"]) for found in client.list_objects_v2(Bucket=BUCKET)["Contents"]]
        assert len(objects) > 5
        for found in objects:
            desk.check(f"{found['Metadata']} {found['Body'].read().decode()}", "the bucket")


def test_a_canary_would_be_heard() -> None:
    words = f"password={WORD}-1"
    for text in (words, words.upper(), words.encode().hex(), *(base64.b64encode(b"x" * n + words.encode()).decode() for n in range(3))):
        assert heard(text), text
    assert not heard("a can of tuna and an aria")
