"""`syncd restore` as it is typed: what is printed where, exit codes, and what is left alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import syncd.cli.commands  # noqa: F401 - enrols them
import syncd.cli.restore as command
from syncd.cli.main import app
from syncd.config import load, open_checkpoint
from syncd.run import opening
from syncd.upkeep.asof import Question, find
from tests.fakes.label_studio import StandIn
from tests.fakes.memory import MemorySource
from tests.unit.test_restore_label_studio import Server

CONFIG = """\
sources: {studio: {type: label_studio, url: "http://studio.test", token: "s3cret"}}
targets: {disk: {type: local, path: ./backup}}
syncs: {cats: {source: studio, target: disk}}
"""
TOKEN = "c4nary-t0ken"


class Desk:
    """A folder with a config, and a backup of five tasks in one project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "syncd.yaml"
        self.config.write_text(CONFIG)
        (folder / "token").write_text(TOKEN + "\n")
        self.source = MemorySource()
        self.source.add("12", 5)

    def type(self, *words: str | Path) -> Result:
        return CliRunner().invoke(app, [*map(str, words), "-c", str(self.config)], catch_exceptions=False)

    def objects(self, *words: str | Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.type(*words, "--json").stdout.splitlines()]

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk(tmp_path)
    monkeypatch.setattr(opening, "open_source", lambda *_: desk.source)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    assert desk.type("sync").exit_code == 0
    return desk


def test_to_a_folder(desk: Desk) -> None:
    before = desk.files()
    result = desk.type("restore", "cats", "--to-folder", "out")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split() == ["12", "Project", "12", "5", "6", "343"]
    assert {name for name in desk.files() if name not in before} == {f"out/12/{n}.json" for n in range(1, 6)} | {
        "out/12/_project.json",
        "out/12/tasks.json",
    }
    assert all(desk.files()[name] == data for name, data in before.items() if not name.startswith(".syncd")), "the Target is only read"
    assert not (desk.folder / "out" / "_syncd").exists()


def test_a_missing_token_is_named_as_what_is_missing(desk: Desk) -> None:
    result = desk.type("restore", "cats", "--to-label-studio", "http://studio.test", "--at", "2d")
    assert (result.exit_code, "needs --token-file FILE" in result.stderr) == (2, True)


def test_it_needs_neither_source_nor_checkpoint(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "open_source", None)
    state = desk.folder / ".syncd"
    (state / "checkpoint.sqlite").write_bytes(b"broken" * 1000)
    result = desk.type("restore", "cats", "--to-folder", "out")
    assert (result.exit_code, "restoring without its Checkpoint" in result.stderr) == (0, True)
    for path in state.iterdir():
        path.unlink()
    state.rmdir()
    assert desk.type("restore", "cats", "--to-folder", "other").exit_code == 0
    assert not state.exists()


def test_while_another_syncd_is_at_work_it_says_so_and_goes_on(desk: Desk) -> None:
    with closing(open_checkpoint(load(desk.config, {}))):
        result = desk.type("restore", "cats", "--to-folder", "out")
    assert (result.exit_code, "another syncd is at work" in result.stderr) == (0, True)


def test_no_run_begins_meanwhile(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = list[int]()

    def meanwhile(*words: Any) -> Any:
        codes.append(desk.type("sync").exit_code)
        return find(*words)

    monkeypatch.setattr(command, "find", meanwhile)
    assert desk.type("restore", "cats", "--to-folder", "out").exit_code == 0
    assert codes == [11]


def test_what_is_not_restored_is_named_with_exit_code_3(desk: Desk) -> None:
    (desk.folder / "backup" / "12" / "3.json").write_bytes(b"{")
    result = desk.type("restore", "cats", "--to-folder", "out")
    assert (result.exit_code, "12/3  not JSON" in result.stdout) == (3, True)
    (told,) = desk.objects("restore", "cats", "--to-folder", "again")
    assert (told["tasks"], [line["task"] for line in told["failed"]]) == (4, ["3"])
    assert not (desk.folder / "out" / "12" / "3.json").exists()


def test_a_moment_back_from_now_stays_that_one_when_it_goes_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[int]()

    def cut(target: Any, layout: Any, clock: Any, question: Question) -> Any:
        asked.append(question.at or 0)
        yield from list(find(target, layout, clock, question))[: 2 * len(asked)]
        if len(asked) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(command, "find", cut)
    words = ["restore", "cats", "--to-folder", "out", "--at", "0s"]
    assert desk.type(*words).exit_code == 130
    assert desk.type(*words, "--task", "3").exit_code == 1
    assert (desk.type(*words).exit_code, len(asked), len(set(asked))) == (0, 2, 1)
    assert not (desk.folder / "out" / "_syncd").exists()


def test_a_folder_that_can_not_be_written_keeps_nothing_of_syncd(desk: Desk) -> None:
    (desk.folder / "out" / "12").mkdir(parents=True)
    (desk.folder / "out" / "12" / "3.json").mkdir()
    result = desk.type("restore", "cats", "--to-folder", "out")
    assert (result.exit_code, "something that is not a file stands where a file is needed" in result.stderr) == (1, True)
    assert not (desk.folder / "out" / "_syncd" / "tmp").exists()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--to-folder", "out", "--work", "x"],
        ["--to-folder", "out", "--map", "token"],
        ["--to-folder", "out", "--token-file", "token"],
        ["--to-label-studio", "http://x", "--token-file", "token", "--force"],
        ["--to-folder", "out", "--to-label-studio", "http://x"],
        ["--to-label-studio", "http://x"],
        ["--to-label-studio", "x", "--token-file", "token"],
        ["--to-label-studio", "http://user@x", "--token-file", "token"],
        ["--to-label-studio", "http://x", "--token-file", "missing"],
        ["--to-label-studio", "http://x", "--token-file", "empty"],
        ["--to-label-studio", "http://x", "--token-file", "accent"],
        ["--to-label-studio", "http://x", "--token-file", "syncd.yaml"],
        ["--to-label-studio", "http://x", "--token-file", "token", "--map", "token"],
        ["--to-label-studio", "http://x", "--token-file", "token", "--map", "missing"],
        ["--to-folder", "out", "--at", "yesterday"],
        ["--to-folder", "out", "--at", "99999999d"],
        ["--to-folder", "out", "--at", "9999-12-31T23:59:59-23:00"],
        ["--to-folder", "out", "--at", "2h", "--trashed"],
    ],
    ids=" ".join,
)
def test_mistakes_of_usage_touch_nothing(desk: Desk, words: Sequence[str]) -> None:
    (desk.folder / "empty").touch()
    (desk.folder / "accent").write_text("t\u00f6ken")
    before = desk.files()
    result = desk.type("restore", "cats", *words)
    assert (result.exit_code, TOKEN in result.output) == (2, False)
    assert {name for name in desk.files() if not name.startswith(".syncd")} == {name for name in before if not name.startswith(".syncd")}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to-folder", "backup/x"], "lies in the Target"),
        (["--to-folder", "."], "lies in the Target, or the Target in it"),
        (["--to-folder", "token"], "a folder is needed"),
        (["--to-folder", "mine"], "neither empty nor an unfinished restore"),
        (["--to-folder", "theirs"], "is a Target, which only its own Sync writes to"),
        (["--to-folder", "out", "--project", "Dogs"], "no project Dogs there; there are: 12 (Project 12)"),
        (["--to-folder", "out", "--trashed"], "no task in the trash"),
        (["--to-folder", "out", "--at", "2020-01-01"], "no task there at 2020-01-01T00:00:00.000000Z"),
        (["--to-folder", "out", "--at", "0001-01-01T00:00:00+23:00"], "no task there at 1970-01-01T00:00:00.000000Z"),
    ],
)
def test_what_can_not_be_done_is_said_in_one_line(desk: Desk, words: Sequence[str], said: str) -> None:
    (desk.folder / "mine" / "_syncd").mkdir(parents=True)
    (desk.folder / "mine" / "_syncd" / "restore.json").write_text('{"torn')
    (desk.folder / "theirs" / "_syncd" / "tmp").mkdir(parents=True)
    (desk.folder / "theirs" / "_syncd" / "owner.json").touch()
    result = desk.type("restore", "cats", *words)
    assert (result.exit_code, said in result.stderr, result.stderr.count("\n")) == (1, True, 1)
    assert not (desk.folder / "out").exists()
    assert (desk.folder / "theirs" / "_syncd" / "tmp").exists()


class TestLabelStudio:
    @pytest.fixture
    def server(self, monkeypatch: pytest.MonkeyPatch) -> Server:
        server = Server()
        monkeypatch.setattr(Server, "close", lambda _: None, raising=False)
        monkeypatch.setattr(command, "open_importer", lambda *_: server)
        return server

    def test_everything_is_told(self, desk: Desk, server: Server) -> None:
        desk.source.put("12", "1", {"id": 1, "data": {"text": "a"}, "annotations": [{"id": 7, "result": [], "completed_by": {"email": "x@y.z"}}]})
        desk.source.now += 1_000_000
        desk.type("sync", "--full")
        result = desk.type("restore", "cats", "--to-label-studio", "http://x", "--token-file", "token")
        assert (result.exit_code, TOKEN in result.output) == (0, False)
        project = next(iter(server.tasks))
        assert result.stdout.splitlines()[1].split()[:4] == ["12", "Project", "12", project]
        for said in ("1 annotations of x@y.z are by me@example.com now", "ids: restore-cats/ids.ndjson", "annotations: id, task, project, unique_id"):
            assert said in result.stdout
        assert len((desk.folder / "restore-cats" / "ids.ndjson").read_text().splitlines()) == 5
        (told,) = desk.objects("restore", "cats", "--to-label-studio", "http://x", "--token-file", "token")
        assert (told["new_project"], told["failed"], len(server.tasks[project])) == (project, [], 5)

    def test_a_map_of_people_who_are_not_there_is_a_mistake(self, desk: Desk, server: Server) -> None:
        (desk.folder / "people.yaml").write_text("a@x: nobody@x\n")
        result = desk.type("restore", "cats", "--to-label-studio", "http://x", "--token-file", "token", "--map", "people.yaml")
        assert (result.exit_code, "nobody@x" in result.stderr, server.projects) == (2, True, {})

    def test_other_options_need_another_work_folder(self, desk: Desk, server: Server) -> None:
        words = ["restore", "cats", "--to-label-studio", "http://x", "--token-file", "token"]
        assert desk.type(*words).exit_code == 0
        result = desk.type(*words, "--task", "3")
        assert (result.exit_code, "holds another restore" in result.stderr) == (1, True)
        assert desk.type(*words, "--task", "3", "--work", "second").exit_code == 0
        assert [len(tasks) for tasks in server.tasks.values()] == [5, 1]
        (desk.folder / "people.yaml").write_text("x@y.z: me@example.com\n")
        result = desk.type(*words, "--map", "people.yaml")  # what is there was made by another one
        assert (result.exit_code, "holds another restore" in result.stderr) == (1, True)
        result = desk.type(*words, "--work", "token")
        assert (result.exit_code, "give another folder with --work" in result.stderr) == (1, True)

    def test_a_refused_token_is_not_shown(self, desk: Desk) -> None:
        with StandIn() as studio:
            result = desk.type("restore", "cats", "--to-label-studio", studio.url, "--token-file", "token")
        assert (result.exit_code, TOKEN in result.output) == (12, False)
        assert not (desk.folder / "restore-cats").exists()
