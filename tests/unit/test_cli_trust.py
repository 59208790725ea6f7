"""What people see of `verify`, `rebuild` and `changes`: lines, JSON, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import syncd.cli.commands  # noqa: F401 - enrols them
from syncd.cli.main import app
from syncd.config import load, open_checkpoint

CONFIG = """\
sources: {drop: {type: files, path: ./exports}}
targets: {disk: {type: local, path: ./backup}, other: {type: local, path: ./other}}
syncs:
  cats: {source: drop, target: disk, projects: [cats]}
  dogs: {source: drop, target: other, projects: [dogs]}
"""


class Desk:
    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, folder / "syncd.yaml"
        self.config.write_text(CONFIG)
        for project in ("cats", "dogs"):
            (folder / "exports" / project).mkdir(parents=True)
            for task in range(1, 31):
                (folder / "exports" / project / f"{task}.json").write_text(json.dumps({"id": task, "data": {"text": "meow"}}))

    def type(self, *words: str) -> Result:
        return CliRunner().invoke(app, [*words, "-c", str(self.config)], catch_exceptions=False)

    def objects(self, *words: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.type(*words, "--json").stdout.splitlines()]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("COLUMNS", "200")
    desk = Desk(tmp_path)
    assert desk.type("sync").exit_code == 0
    return desk


def test_all_right_is_one_line_a_sync_and_exit_code_0(desk: Desk) -> None:
    result = desk.type("verify")
    assert (0, "cats\n  31 same\ndogs\n  31 same\n", "") == (result.exit_code, result.stdout, result.stderr)
    assert "  = cats/7" in desk.type("verify", "cats", "--all").stdout
    assert "31 same; 31 of them read" in desk.type("verify", "--read-data", "cats").stdout
    assert desk.type("verify", "--read-data=50%", "--source").exit_code == 0


def test_each_difference_is_a_line_and_the_exit_code_is_3_until_it_is_mended(desk: Desk) -> None:
    (desk.folder / "backup/cats/3.json").unlink()
    (desk.folder / "backup/cats/4.json").write_text("cut")
    (desk.folder / "backup/cats/99.json").write_text("{}")
    result = desk.type("verify")
    assert result.exit_code == 3
    assert result.stdout.splitlines()[1:5] == [
        "  - cats/3                    missing",
        f"  * cats/4                    3 bytes instead of {len(json.dumps({'id': 4, 'data': {'text': 'meow'}}, separators=(',', ':'))) + 1}",
        "  + cats/99                   orphaned: no Entry tells of it",
        "  29 same, 1 missing, 1 extra, 1 different",
    ]
    assert result.stdout.splitlines()[5:] == ["dogs", "  31 same"]
    result = desk.type("verify", "--repair")
    assert result.exit_code == 0
    assert "  mended: 2 put again, 1 orphaned, now in the trash" in result.stdout
    assert desk.type("verify", "--read-data", "--source").exit_code == 0


def test_json_has_a_line_for_each_difference_and_one_that_counts(desk: Desk) -> None:
    (desk.folder / "backup/cats/3.json").unlink()
    line, totals = desk.objects("verify", "cats")
    assert line == {"sync": "cats", "sign": "-", "project": "cats", "task": "3", "key": "cats/3.json", "why": "missing", "against": "target"}
    assert totals == {"sync": "cats", "same": 30, "missing": 1, "extra": 0, "different": 0, "error": 0, "read": 0, "target_requests": 2}
    mended = desk.objects("verify", "cats", "--repair")[-1]["repair"]
    assert ([], "", 1, "ok") == (mended["left"], mended["plan_id"], mended["run"]["healed"], mended["run"]["status"])


def test_too_many_orphans_ask_for_the_very_command_that_lets_them_go(desk: Desk) -> None:
    for number in range(100, 130):
        (desk.folder / f"backup/cats/{number}.json").write_text("{}")
    result = desk.type("verify", "--repair")
    assert result.exit_code == 20
    command = next(line for line in result.stdout.splitlines() if "--confirm-deletes" in line).split()
    assert command[:4] == ["syncd", "verify", "--repair", "cats"]
    assert desk.type(*command[1:-2]).exit_code == 0
    assert desk.type("verify").exit_code == 0


def test_verify_reads_beside_a_daemon_and_repairs_only_without_one(desk: Desk) -> None:
    (desk.folder / "backup/cats/3.json").unlink()
    held = open_checkpoint(load(desk.config, {}))
    try:
        assert desk.type("verify").exit_code == 3
        refused = desk.type("verify", "--repair")
        assert refused.exit_code == 11
        assert "another syncd" in refused.stderr
    finally:
        held.close()


@pytest.mark.parametrize("words", [("--read-data=x",), ("--read-data=0",), ("--read-data=101%",), ("--confirm-deletes", "1"), ("nobody",)])
def test_what_makes_no_sense_is_a_mistake_of_usage(desk: Desk, words: tuple[str, ...]) -> None:
    assert desk.type("verify", *words).exit_code == 2


def test_a_source_that_is_away_fails_its_sync_alone(desk: Desk) -> None:
    (desk.folder / "exports").rename(desk.folder / "elsewhere")
    result = desk.type("verify", "--source")
    assert result.exit_code == 1
    assert [line for line in result.stderr.splitlines() if line.startswith(("error: cats:", "error: dogs:"))] == result.stderr.splitlines()
    assert len(result.stderr.splitlines()) == 2


def test_a_spoilt_checkpoint_is_told_by_every_command_and_rebuilt_without_a_put(desk: Desk) -> None:
    path = desk.folder / ".syncd/checkpoint.sqlite"
    path.write_bytes(b"no database, but as long as one" * 1_000)
    for command in (["status"], ["plan"], ["sync"], ["verify"], ["trash", "list"]):
        result = desk.type(*command)
        assert (result.exit_code, "`syncd rebuild`" in result.stderr) == (1, True), command
    result = desk.type("rebuild")
    assert result.exit_code == 0
    assert "the old Checkpoint is kept as" in result.stderr
    assert [report["adopted"] for report in desk.objects("rebuild", "--force")] == [30, 30]
    assert desk.type("verify", "--read-data", "--source").exit_code == 0
    kept = {name.name.partition("-")[0] for name in path.parent.iterdir()}
    assert kept == {"checkpoint.sqlite", "checkpoint.sqlite.damaged", "checkpoint.sqlite.old", "lock"}


def test_a_sound_checkpoint_is_not_rebuilt_and_an_unfinished_one_goes_on(desk: Desk) -> None:
    refused = desk.type("rebuild")
    assert (refused.exit_code, "nothing to rebuild" in refused.stderr) == (1, True)
    (desk.folder / ".syncd/checkpoint.sqlite").unlink()
    assert desk.type("sync", "cats", "--full", "--take-over").exit_code == 0
    assert [report["sync"] for report in desk.objects("rebuild")] == ["dogs"]


def test_a_rebuild_leaves_other_peoples_places_alone(desk: Desk) -> None:
    marker = desk.folder / "other/_syncd/owner.json"
    marker.write_text(json.dumps({"checkpoint": "x", "sync": "birds", "host": "h"}))
    result = desk.type("rebuild", "--force")
    assert result.exit_code == 11
    assert "belongs to sync birds" in result.stderr
    assert "birds" in marker.read_text()
    assert "cats  ok" in result.stdout


def test_changes_prints_the_feed_and_goes_on_from_a_run(desk: Desk) -> None:
    lines = [json.loads(line) for line in desk.type("changes", "cats").stdout.splitlines()]
    assert len(lines) == 31
    assert set(lines[-1]) == {"op", "why", "project", "task", "key", "digest", "last_activity", "run_id", "at"}
    (desk.folder / "exports/cats/31.json").write_text('{"id": 31}')
    desk.type("sync", "cats")
    assert ["31"] == [line["task"] for line in desk.objects("changes", "cats", "--since", lines[-1]["run_id"])]
    assert [32, 32] == [len(desk.objects("changes", "cats", "--since", since)) for since in ("1h30m", "0001-01-01")]
    for wrong in ("yesterday", "20269999-120000-abcdef"):
        assert desk.type("changes", "cats", "--since", wrong).exit_code == 2
    assert desk.type("changes", "birds").exit_code == 2
