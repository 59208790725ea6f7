"""`syncd hooks`: what it makes, renews and removes at a server, and what it never touches or shows. The real server: tests/live."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import syncd.cli.commands  # noqa: F401 - enrols them
from syncd.cli import hooks as command
from syncd.cli.main import app
from syncd.clock import SystemClock
from syncd.errors import SourceError
from syncd.sources import label_studio
from syncd.sources.base import Hook
from tests.fakes.label_studio import Reply, StandIn, reply
from tests.fakes.memory import MemorySource

CONFIG = """\
sources: {s: {type: files, path: ./e}}
targets: {t: {type: local, path: ./b}}
syncs: {cats: {source: s, target: t, hook_secret: s3cret}}
"""
ADDRESS = "https://syncd.test/hooks/cats"
RIGHT = {"X-Syncd-Secret": "s3cret"}


class Board:
    """The webhooks of a server."""

    def __init__(self) -> None:
        self.kept: dict[str, Hook] = {}
        self.written = 0

    def all(self) -> list[Hook]:
        return list(self.kept.values())

    def put(self, project: str, url: str, headers: Mapping[str, str]) -> None:
        self.written += 1
        found = Hook(f"n{self.written}", project, url, headers, wakes=True)
        self.kept[found.id] = found

    def remove(self, hook: Hook) -> None:
        self.written += 1
        del self.kept[hook.id]


class Calling(MemorySource):
    def __init__(self) -> None:
        super().__init__()
        self.board = Board()

    def hooks(self) -> Board:
        return self.board


class Desk:
    def __init__(self, folder: Path) -> None:
        self.config = folder / "syncd.yaml"
        self.config.write_text(CONFIG)
        self.source = Calling()
        for project in ("12", "13"):
            self.source.add(project, 1)
        self.board = self.source.board

    def type(self, *words: str) -> Result:
        result = CliRunner().invoke(app, ["hooks", *words, "-c", str(self.config)], catch_exceptions=False)
        assert "s3cret" not in result.output
        assert "hunter2" not in result.output
        return result

    def results(self, *words: str) -> dict[str, str]:
        lines: list[dict[str, Any]] = [json.loads(line) for line in self.type(*words, "--json").stdout.splitlines()]
        return {line["project"]: line["result"] for line in lines}

    def keep(self, project: str, url: str = ADDRESS, headers: Mapping[str, str] = RIGHT, *, wakes: bool = True) -> str:
        name = f"h{len(self.board.kept)}"
        self.board.kept[name] = Hook(name, project, url, headers, wakes)
        return name


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk(tmp_path)
    monkeypatch.setattr(command, "open_source", lambda config, name, clock: desk.source)
    monkeypatch.setenv("COLUMNS", "120")
    return desk


def test_each_project_gets_one_and_no_second_one(desk: Desk) -> None:
    assert desk.results("install", "cats", "--url", "https://syncd.test/") == {"12": "installed", "13": "installed"}
    assert {(hook.project, hook.url, hook.headers["X-Syncd-Secret"]) for hook in desk.board.all()} == {
        ("12", ADDRESS, "s3cret"), ("13", ADDRESS, "s3cret"),
    }  # fmt: skip
    written = desk.board.written
    assert desk.results("install", "cats", "--url", "https://syncd.test") == {"12": "was there", "13": "was there"}
    assert desk.board.written == written


def test_one_that_is_wrong_is_replaced_and_doubles_go(desk: Desk) -> None:
    desk.keep("12", wakes=False)
    desk.keep("13", headers={"X-Syncd-Secret": "hunter2"})
    desk.keep("13", headers={"X-Syncd-Secret": "hunter2"})
    assert desk.results("list", "cats") == {"12": "ours, to be installed again", "13": "ours, to be installed again"}
    assert desk.results("install", "cats", "--url", "https://syncd.test") == {"12": "installed", "13": "installed"}
    assert [hook.project for hook in desk.board.all()] == ["12", "13"]
    assert all(hook.headers == RIGHT and hook.wakes for hook in desk.board.all())


def test_of_doubles_the_right_one_stays(desk: Desk) -> None:
    desk.keep("12", wakes=False)
    right = desk.keep("12")
    desk.results("install", "cats", "--url", "https://syncd.test")
    assert [hook.id for hook in desk.board.all() if hook.project == "12"] == [right]


def test_only_ours_are_removed(desk: Desk) -> None:
    theirs = {
        desk.keep("12", "https://chat.test/hunter2", {}),
        desk.keep("12", ADDRESS, {}),  # not our header
        desk.keep("12", "https://syncd.test/hooks/dogs"),
        desk.keep("12", "https://syncd.test/hooks/cats/more"),
    }
    desk.keep("12")
    staging = desk.keep("14", "https://staging.test/x/hooks/cats")  # of a project that is selected no longer
    listed = desk.type("list", "cats").stdout
    assert [line.split()[0] for line in listed.splitlines()[1:]] == ["12", "14"]
    assert desk.results("remove", "cats", "--url", "https://syncd.test") == {"12": "removed"}
    assert set(desk.board.kept) == {*theirs, staging}
    assert desk.results("remove", "cats") == {"14": "removed"}
    assert set(desk.board.kept) == theirs
    assert desk.type("remove", "cats").stdout == "no webhooks of ours\n"


def test_a_sync_without_a_secret_takes_no_calls(desk: Desk) -> None:
    desk.config.write_text(CONFIG.replace(", hook_secret: s3cret", ""))
    result = desk.type("install", "cats", "--url", "https://syncd.test")
    assert (result.exit_code, "hook_secret_file" in result.stderr) == (1, True)
    assert desk.board.written == 0


@pytest.mark.parametrize("url", ["syncd.test", "https://", "https://a:b@syncd.test", "https://syncd.test/?x", "ftp://syncd.test"])
def test_an_address_nobody_could_call_is_refused(desk: Desk, url: str) -> None:
    assert desk.type("install", "cats", "--url", url).exit_code == 2


def test_a_source_that_can_call_nobody_says_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "open_source", lambda config, name, clock: MemorySource())
    assert "can't install webhooks there" in desk.type("install", "cats", "--url", "https://syncd.test").stderr


@pytest.fixture
def studio() -> Iterator[StandIn]:
    with StandIn() as studio:
        yield studio


@pytest.fixture
def source(studio: StandIn) -> Iterator[label_studio.LabelStudio]:
    config = label_studio.Config.model_validate({"type": "label_studio", "url": studio.url, "token": studio.token})
    with closing(label_studio.open(config, {}, SystemClock())) as source:
        yield source


def test_what_changes_a_server_is_tried_once_since_a_lost_answer_may_have_been_obeyed(studio: StandIn, source: label_studio.LabelStudio) -> None:
    studio.instead = lambda request: Reply(502)
    with pytest.raises(SourceError, match="502"):
        source.hooks().put("12", ADDRESS, RIGHT)
    assert studio.paths() == ["POST /api/webhooks/"]


def test_an_answer_that_is_no_list_of_webhooks_is_refused(studio: StandIn, source: label_studio.LabelStudio) -> None:
    studio.instead = lambda request: reply({"webhooks": []})
    with pytest.raises(SourceError, match="not a list of webhooks"):
        source.hooks().all()
