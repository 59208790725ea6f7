"""`syncd hooks`, `syncd doctor` and `syncd init` against the real Label Studio: the commands as a person types them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any, Self

import pytest
from typer.testing import CliRunner, Result

import syncd.cli.commands  # noqa: F401 - enrols them
from syncd.cli.main import app
from tests.live.server import TOKEN, LabelStudio, Project, sample

pytestmark = pytest.mark.live

SECRET = "s3cret-of-cats"
Type = Callable[..., Result]


@pytest.fixture
def type_(server: LabelStudio, project: Project, tmp_path: Path) -> Type:
    """Types a command in a folder whose config has a Sync `cats` of the one project."""
    config = tmp_path / "syncd.yaml"

    def type_(*words: str, secret: str | None = SECRET, select: str = str(project.id), url: str = server.url) -> Result:
        sync = {"source": "studio", "target": "disk", "projects": [select]} | ({"hook_secret": secret} if secret else {})
        sources = {"studio": {"type": "label_studio", "url": url, "token": TOKEN}}
        targets = {"disk": {"type": "local", "path": "./backup"}}
        config.write_text(json.dumps({"sources": sources, "targets": targets, "syncs": {"cats": sync}}))
        result = CliRunner().invoke(app, [*words, "-c", str(config)], catch_exceptions=False)
        assert SECRET not in result.output
        assert TOKEN not in result.output
        return result

    return type_


class Ear:
    """A daemon's place: hears calls."""

    def __init__(self) -> None:
        self.calls: Queue[tuple[str, str | None, bytes]] = Queue()
        calls = self.calls

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                calls.put((self.path, self.headers["X-Syncd-Secret"], body))
                self.send_response(202)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def ear() -> Iterator[Ear]:
    with Ear() as ear:
        yield ear


def at_the_server(project: Project) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = project.api.http.get("/api/webhooks/", params={"project": project.id}).json()
    return sorted(found, key=lambda hook: hook["id"])


def results(result: Result) -> list[str]:
    return [json.loads(line)["result"] for line in result.stdout.splitlines()]


def test_an_installed_hook_calls_when_something_changes(type_: Type, project: Project, ear: Ear) -> None:
    assert results(type_("hooks", "install", "cats", "--url", ear.url, "--json")) == ["installed"]
    ids = project.add([sample(1, annotations=0)])
    assert ear.calls.get(timeout=10) == ("/hooks/cats", SECRET, b'{"action": "TASKS_CREATED"}')
    project.annotate(ids[0])
    assert ear.calls.get(timeout=10)[2] == b'{"action": "ANNOTATION_CREATED"}'
    project.api.delete(f"/api/tasks/{ids[0]}/")
    assert ear.calls.get(timeout=10)[2] == b'{"action": "TASKS_DELETED"}'


def test_installing_twice_is_one_and_what_was_changed_is_replaced(type_: Type, project: Project, ear: Ear) -> None:
    install = ("hooks", "install", "cats", "--url", ear.url + "/", "--json")
    assert results(type_(*install)) == ["installed"]
    assert results(type_(*install)) == ["was there"]
    (first,) = at_the_server(project)
    assert first["headers"] == {"X-Syncd-Secret": SECRET}
    assert (first["send_payload"], first["send_for_all_actions"], first["is_active"]) == (False, False, True)

    edits: list[dict[str, Any]] = [{"is_active": False}, {"actions": ["TASKS_CREATED"]}, {"headers": {"X-Syncd-Secret": "old"}}]
    for edit in edits:
        project.api.http.patch(f"/api/webhooks/{first['id']}/", json=first | edit).raise_for_status()
        assert results(type_("hooks", "list", "cats", "--json")) == ["ours, to be installed again"]
        assert results(type_(*install)) == ["installed"]
        (again,) = at_the_server(project)
        own = {"id": 0, "created_at": "", "updated_at": ""}
        assert again | own == first | own
        first = again

    made = {name: first[name] for name in ("url", "project", "headers", "send_payload", "send_for_all_actions", "actions")}
    project.api.http.post("/api/webhooks/", json=made).raise_for_status()  # as after an answer that got lost
    assert results(type_(*install)) == ["was there"]
    assert [hook["id"] for hook in at_the_server(project)] == [first["id"]]


def test_only_ours_are_removed_and_others_keep_their_secrets(type_: Type, project: Project, ear: Ear) -> None:
    others = [
        {"url": "http://127.0.0.1:9/services/hunter2", "headers": {}},
        {"url": "http://127.0.0.1:9/hooks/cats", "headers": {}},  # not our header
        {"url": "http://127.0.0.1:9/hooks/dogs", "headers": {"X-Syncd-Secret": "of dogs"}},  # another Sync's
    ]
    for other in others:
        project.api.http.post("/api/webhooks/", json=other | {"project": project.id}).raise_for_status()
    type_("hooks", "install", "cats", "--url", ear.url)
    type_("hooks", "install", "cats", "--url", "http://127.0.0.1:9/staging")
    listed = type_("hooks", "list", "cats")
    assert "hunter2" not in listed.output
    ours = [["ours", f"{ear.url}/hooks/cats"], ["ours", "http://127.0.0.1:9/staging/hooks/cats"]]
    assert [line.split()[2:4] for line in listed.stdout.splitlines()[1:]] == ours
    assert results(type_("hooks", "remove", "cats", "--url", "http://127.0.0.1:9/staging", "--json")) == ["removed"]
    assert results(type_("hooks", "remove", "cats", "--json")) == ["removed"]
    assert "no webhooks of ours" in type_("hooks", "remove", "cats").stdout
    assert [hook["url"] for hook in at_the_server(project)] == [other["url"] for other in others]


def test_what_can_not_work_is_told(type_: Type, project: Project, ear: Ear) -> None:
    result = type_("hooks", "install", "cats", "--url", ear.url, secret=None)
    assert (result.exit_code, "hook_secret_file" in result.stderr) == (1, True)
    assert type_("hooks", "install", "cats", "--url", "syncd.example.com").exit_code == 2
    assert type_("hooks", "install", "dogs", "--url", ear.url).exit_code == 2
    result = type_("hooks", "install", "cats", "--url", "http://syncd:8642")  # Django takes no host without a dot
    assert (result.exit_code, "Enter a valid URL" in result.stderr) == (1, True)
    assert at_the_server(project) == []


def test_a_server_that_calls_no_private_address_says_so(type_: Type) -> None:
    with LabelStudio(env={"LABEL_STUDIO_SSRF_PROTECTION_ENABLED": "true"}) as careful:
        made = careful.api.project("test")
        result = type_("hooks", "install", "cats", "--url", "http://127.0.0.1:8642", url=careful.url, select=str(made.id))
    assert result.exit_code == 12
    assert "LABEL_STUDIO_SSRF_PROTECTION_ENABLED=false" in result.stderr


def test_the_doctor_says_who_we_are_and_what_we_see(type_: Type, project: Project, server: LabelStudio) -> None:
    result = type_("doctor")
    assert result.exit_code == 0, result.output
    assert "✓ answers, and takes us for ann@example.com" in result.stdout
    assert "✓ its clock and ours agree" in result.stdout
    assert f"✓ sync cats selects 1 Collection: test ({project.id})" in result.stdout
    server.allow_legacy_tokens(allowed=False)
    try:
        result = type_("doctor")
    finally:
        server.allow_legacy_tokens(allowed=True)
    assert result.exit_code == 12
    assert "create a personal access token" in result.stdout
