"""The command line: what is printed where, and exit codes.

Runs go through the real pipeline, Checkpoint and local Target; only the Source is in memory.
"""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import syncd.cli.commands  # noqa: F401 - enrols them
from syncd.cli.main import _allow_files, app
from syncd.config import load, open_checkpoint
from syncd.errors import AccessError, OwnedError, SourceError
from syncd.run import opening
from tests.fakes.memory import MemorySource

ROOT = Path(__file__).parents[2]
CONFIG = """\
sources:
  studio: {type: label_studio, url: "http://studio.test", token: "s3cret"}
targets:
  disk: {type: local, path: ./backup}
  other: {type: local, path: ./other}
syncs:
  cats: {source: studio, target: disk}
  dogs: {source: studio, target: other, projects: ["13"]}
"""


class Desk:
    """A folder with a config, a Source in memory and a person typing commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "syncd.yaml"
        self.config.write_text(CONFIG)
        self.source = MemorySource()
        self.source.add("12", 30)
        self.source.add("13", 30)

    def type(self, *words: str) -> Result:
        command = [*words, "-c", str(self.config)]
        return CliRunner().invoke(app, command, catch_exceptions=False)

    def objects(self, *words: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.type(*words, "--json").stdout.splitlines()]

    def files(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk(tmp_path)
    monkeypatch.setattr(opening, "open_source", lambda config, name, clock: desk.source)
    monkeypatch.setenv("COLUMNS", "80")
    return desk


# sync


def test_sync_runs_every_sync_and_prints_one_aligned_line_for_each(desk: Desk) -> None:
    result = desk.type("sync")
    lines = result.stdout.splitlines()
    assert (result.exit_code, result.stderr) == (0, "")
    assert lines[0].split() == ["SYNC", "RESULT", "RUN", "WRITTEN", "UNCHANGED", "TIME"]
    assert lines[1].split()[:5] == ["cats", "ok", "full", "60", "0"]
    assert len({line.rstrip().rfind(" ") for line in lines[:2]}) <= 2
    assert len(lines) == 3
    assert (desk.folder / "backup" / "12" / "1.json").is_file()
    assert "incremental" in desk.type("sync").stdout


def test_sync_json_is_one_report_per_sync_with_the_promised_fields(desk: Desk) -> None:
    reports = desk.objects("sync")
    promised = (
        "sync run_id kind status written unchanged healed adopted trashed deleted kept failed source_requests target_requests bytes_written seconds"
    )
    assert [report["sync"] for report in reports] == ["cats", "dogs"]
    assert set(promised.split()) <= set(reports[0])
    assert "plan_id" not in reports[0]
    assert (reports[0]["status"], reports[0]["written"], reports[0]["failed"]) == ("ok", 60, [])


def test_only_the_syncs_named_run(desk: Desk) -> None:
    assert [report["sync"] for report in desk.objects("sync", "dogs", "dogs")] == ["dogs"]


@pytest.mark.parametrize("words", [["plan"], ["verify"], ["prune"], ["trash", "list"]])
def test_a_sync_that_can_not_be_looked_at_hides_no_other(desk: Desk, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    desk.type("sync")
    for task in range(1, 5):
        del desk.source.world["12"].tasks[str(task)]
    desk.type("sync")

    def open_source(config: object, name: str, clock: object) -> MemorySource:
        if name == "cats":
            raise AccessError("the token is refused")
        return desk.source

    monkeypatch.setattr(opening, "open_source", open_source)
    result = desk.type(*words)
    assert (result.exit_code, "error: cats: the token is refused" in result.stderr, "dogs" in result.stdout) == (12, True, True)


def test_a_failed_task_is_named_and_the_exit_code_is_3(desk: Desk) -> None:
    for task in range(1, 16):
        desk.source.world["12"].tasks[str(task)].poison = "data.text: \x1b[31mbroken"
    result = desk.type("sync", "cats")
    assert result.exit_code == 3
    assert "cats: 15 failed" in result.stdout
    assert r"  12/1   data.text" in result.stdout
    assert r"\x1b[31mbroken" in result.stdout
    assert "\x1b" not in result.stdout
    assert "... and 5 more" in result.stdout
    assert len(desk.objects("sync", "cats")[0]["failed"]) == 15


def test_the_guard_is_explained_with_the_command_that_confirms_it(desk: Desk) -> None:
    desk.type("sync", "cats")
    for task in range(1, 26):
        del desk.source.world["12"].tasks[str(task)]
    result = desk.type("sync", "cats", "--full")
    assert result.exit_code == 20
    (command,) = [line.strip() for line in result.stdout.splitlines() if "--confirm-deletes" in line]
    assert command.startswith("syncd sync cats --confirm-deletes ")
    status = desk.type("status")
    assert command in status.stdout
    (report,) = desk.objects("sync", "cats", "--full")
    assert command.split()[4] == report["plan_id"]
    assert desk.type(*command.split()[1:5]).exit_code == 0
    assert not (desk.folder / "backup" / "12" / "1.json").exists()
    assert {(item["project"], item["task"]) for item in desk.objects("trash", "list")} == {("12", str(task)) for task in range(1, 26)}
    listed = desk.type("trash", "list").stdout.splitlines()
    assert listed[0].split() == ["DELETED", "KEPT", "UNTIL", "SYNC", "TASK"]
    assert len(listed) == 26
    assert listed[1:] == sorted(listed[1:])


def test_a_sync_that_fails_does_not_stop_the_next_one_and_the_worst_code_wins(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.source.fail("collections", 1, SourceError("the server answers 500"))
    result = desk.type("sync")
    assert result.exit_code == 1
    assert result.stderr == "error: cats: the server answers 500\n"
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [["cats", "failed"], ["dogs", "ok"]]

    def refuse(config: object, name: str, clock: object) -> MemorySource:
        if name == "dogs":
            raise AccessError("the token is refused")
        return desk.source

    monkeypatch.setattr(opening, "open_source", refuse)
    result = desk.type("sync", "--json")
    assert result.exit_code == 12
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(report["status"], report["error"]) for report in reports] == [("ok", ""), ("failed", "the token is refused")]


def test_another_syncd_on_the_same_state_is_exit_11(desk: Desk) -> None:
    other = open_checkpoint(load(desk.config, {}))
    try:
        result = desk.type("sync")
        assert result.exit_code == OwnedError.exit_code == 11
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert desk.type("status").exit_code == 0, "looking needs no lock"
        assert desk.type("plan").exit_code == 0
    finally:
        other.close()


def test_orders_that_could_do_harm_to_every_sync_need_a_name(desk: Desk) -> None:
    assert desk.type("sync", "--take-over").exit_code == 2
    assert desk.type("sync", "--confirm-deletes", "abc").exit_code == 2


def test_a_place_of_another_checkpoint_is_refused_until_it_is_taken_over(desk: Desk) -> None:
    desk.type("sync", "cats")
    desk.config.write_text(CONFIG + "state: ./second\n")
    refused = desk.type("sync", "cats")
    assert refused.exit_code == 11
    assert "--take-over" in refused.stderr
    assert desk.type("sync", "cats", "--take-over").exit_code == 0


# plan, status, trash, validate, schema


def test_plan_prints_a_line_per_task_and_touches_nothing(desk: Desk) -> None:
    before = desk.files()
    result = desk.type("plan", "cats")
    assert (result.exit_code, desk.files()) == (0, before)
    assert result.stdout.splitlines()[:2] == ["cats", "  + 12/1"]
    assert result.stdout.splitlines()[-1] == "  60 new"
    desk.type("sync", "cats")
    desk.source.now += 3_600_000_000
    desk.source.put("12", "7", {"id": 7, "changed": True})
    del desk.source.world["13"].tasks["3"]
    desk.source.put("13", "bad", {})
    desk.source.world["13"].tasks["bad"].poison = "no JSON"
    result = desk.type("plan", "cats")
    assert result.exit_code == 3
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "~ 12/7" in lines
    assert "- 13/3" in lines
    assert any(line.startswith("! 13/bad") for line in lines)
    assert lines[-1] == "1 changed, 1 deleted, 1 failed"
    assert {"sync": "cats", "sign": "~", "project": "12", "task": "7", "why": "changed"}.items() <= desk.objects("plan", "cats")[0].items()


def test_status_works_before_the_first_run_and_writes_nothing(desk: Desk) -> None:
    before = desk.files()
    result = desk.type("status")
    assert (result.exit_code, desk.files()) == (0, before)
    assert result.stdout.splitlines()[1].split() == ["cats", "-", "never", "0"]


def test_status_tells_the_last_run_the_lag_and_what_fails(desk: Desk) -> None:
    desk.type("sync")
    desk.source.put("12", "bad", {})
    desk.source.world["12"].tasks["bad"].poison = "no JSON"
    desk.type("sync", "cats")
    cats, dogs = desk.objects("status")
    assert (cats["status"], cats["kind"], cats["tasks"], cats["failing"]) == ("partial", "incremental", 60, 1)
    assert cats["lag"] > dogs["lag"] == 0  # as the page says: nothing, while all is well
    header, first, *_ = desk.type("status", "cats").stdout.splitlines()
    assert header.split() == ["SYNC", "RESULT", "LAST", "RUN", "LAG", "TASKS", "FAILING"]
    assert first.split()[-2:] == ["60", "1"]


def test_an_empty_trash_lists_nothing(desk: Desk) -> None:
    result = desk.type("trash", "list")
    assert (result.exit_code, result.stdout) == (0, "the trash is empty\n")
    assert desk.objects("trash", "list") == []


def test_validate_says_what_is_wrong_where_and_what_to_do(desk: Desk) -> None:
    good = desk.type("validate")
    assert good.exit_code == 0
    assert "studio → disk" in good.stdout
    desk.config.write_text(CONFIG.replace("target: disk", "targt: disk"))
    bad = desk.type("validate")
    assert (bad.exit_code, bad.stdout) == (78, "")
    assert bad.stderr.splitlines()[:2] == [f"{desk.config}:7:3: error: syncs.cats.target: is missing", "    hint: add target"]
    assert bad.stderr.splitlines()[2] == f"{desk.config}:7:26: error: syncs.cats.targt: unknown key"
    problems = desk.objects("validate")
    assert [(problem["line"], problem["column"]) for problem in problems] == [(7, 3), (7, 26)]
    assert desk.type("sync").exit_code == 78
    assert not (desk.folder / "backup").exists()


def test_errors_can_be_read_by_programs_too(desk: Desk) -> None:
    desk.config.write_text("sources: 5\n")
    lines = [json.loads(line) for line in desk.type("sync", "--log-format", "json").stderr.splitlines()]
    assert {"level": "error", "place": f"{desk.config}:1:10"}.items() <= lines[0].items() or len(lines) > 1
    assert all(line["level"] == "error" and line["message"] for line in lines)


def test_schema_prints_json(desk: Desk) -> None:
    assert json.loads(desk.type("schema").stdout)["$schema"].startswith("https://json-schema.org/")


def test_an_unknown_sync_is_a_mistake_of_usage(desk: Desk) -> None:
    result = desk.type("sync", "cat")
    assert result.exit_code == 2
    assert 'did you mean "cats"?' in result.stderr


def test_no_output_shows_a_secret(desk: Desk) -> None:
    for command in ("validate", "plan", "sync", "status"):
        result = desk.type(command, "--log-level", "debug")
        assert "s3cret" not in result.stdout + result.stderr


CANARIES = """\
sources:
  a: {type: label_studio, url: "ftp://canary@s.test?canary=1", token: canary, concurrency: none, token_fiel: canary}
  b: {type: label_studio, url: "http://s.test", token: [canary], timeout: canary}
  c: {type: label_studio, url: "http://s.test", token_file: canary}
  d: {type: label_studio, url: "http://s.test", token: canary, token_file: ./syncd.yaml}
targets:
  e: {type: s3, bucket: b, access_key_id: canary, concurrency: -}
  f: {type: s3, bucket: b, access_key_id: canary, secret_access_key: {key: canary}, session_token: !x canary}
  g: {type: s3, bucket: b, access_key_id: "${TOKEN}", secret_access_key: "canary${", session_token_file: canary}
  h: {type: s3, bucket: b, session_token: canary}
syncs:
  x: {source: a, target: e}
state: postgresql://canary@db/x
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_output_shows_a_secret_that_has_wrong_values_beside_it(desk: Desk, form: str) -> None:
    desk.config.write_text(CANARIES)
    result = desk.type("sync", "--log-level", "debug", "--log-format", form)
    assert result.exit_code == 78
    assert len(result.stderr.splitlines()) > 10
    assert "canary" not in (result.stdout + result.stderr).lower()


def test_a_bug_shows_its_traceback(desk: Desk) -> None:
    """And is no reason not to run the others."""
    desk.source.fail("collections", 1, ZeroDivisionError("a bug"))
    result = desk.type("sync")
    assert (result.exit_code, [line.split()[:2] for line in result.stdout.splitlines()[1:3]]) == (1, [["cats", "failed"], ["dogs", "ok"]])
    assert "Traceback" in result.stderr
    assert "ZeroDivisionError: a bug" in result.stderr
    assert "cats: a fault of syncd itself" in result.stderr


def test_what_can_not_be_opened_is_in_the_status_too(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AccessError("the token is refused")

    monkeypatch.setattr(opening, "open_source", refuse)
    assert desk.type("sync", "cats").exit_code == 12
    (told,) = desk.objects("status", "cats")
    assert (told["status"], told["error"]) == ("failed", "the token is refused")


# real processes


def shell(*words: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SYNCD")}
    command = [sys.executable, "-m", "syncd", *words]
    return subprocess.run(command, cwd=folder, env=clean | {"PYTHONPATH": str(ROOT)} | env, capture_output=True, text=True, timeout=60, check=False)


def test_the_config_is_found_here_or_where_the_environment_says(tmp_path: Path) -> None:
    missing = shell("validate", folder=tmp_path)
    assert (missing.returncode, missing.stderr.splitlines()[0]) == (78, "syncd.yaml: error: can't be read: No such file or directory")
    (tmp_path / "elsewhere.yaml").write_text(CONFIG)
    assert shell("validate", folder=tmp_path, SYNCD_CONFIG="elsewhere.yaml").returncode == 0
    assert "Traceback" not in missing.stderr


def test_help_is_quick_and_loads_no_vendor(tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['syncd', '--help']\nfrom syncd.cli.main import main\ntry: main()\nexcept SystemExit: pass\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    slow = {"obstore", "boto3", "botocore", "google", "httpx", "pydantic", "yaml", "sqlite3"}
    assert not slow & {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    before = os.times()
    assert shell("--help", folder=tmp_path).returncode == 0
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 0.35


def test_a_reader_that_leaves_or_a_full_disk_is_no_traceback(tmp_path: Path) -> None:
    for rest, code in (("> /dev/full", 1), ("| true; exit ${PIPESTATUS[0]}", 1)):
        command = ["bash", "-c", f"{sys.executable} -m syncd schema {rest}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr


def test_version_and_mistakes_of_usage(tmp_path: Path) -> None:
    assert shell("--version", folder=tmp_path).stdout.startswith("syncd 0.")
    assert shell("sink", folder=tmp_path).returncode == 2
    assert shell("sync", "--log-level", "loud", folder=tmp_path).returncode == 2


SLOW = """
import sys, time
from syncd.cli.main import main
from syncd.run import opening
from tests.fakes.memory import MemorySource
pause = float(sys.argv.pop())
class Slow(MemorySource):
    def _enter(self, call):
        super()._enter(call)
        if call == "page":
            print("reading", file=sys.stderr, flush=True)
            time.sleep(pause)
source = Slow(page=10)
source.add("12", 5000)
opening.open_source = lambda config, name, clock: source
sys.argv = ["syncd", "sync", "cats", "--json"]
main()
"""


def on_terminal(command: list[str], folder: Path, **env: str) -> tuple[str, str]:
    """What a command writes to a pipe as stdout and to a terminal of 80 columns as stderr."""
    ours, theirs = pty.openpty()
    env = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80"} | env
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 65536):
            shown += block
    except OSError:  # Linux says so when the other side is closed
        pass
    os.close(ours)
    stdout, _ = process.communicate(timeout=30)
    return stdout.decode(), shown.decode()


def test_a_terminal_shows_a_bar_and_a_pipe_gets_plain_text(tmp_path: Path) -> None:
    (tmp_path / "syncd.yaml").write_text(CONFIG)
    stdout, shown = on_terminal([sys.executable, "-c", SLOW.replace(', "--json"', "").replace("5000", "500"), "0.02"], tmp_path)
    assert "cats · Project 12" in shown
    assert "/500" in shown
    assert stdout.splitlines()[1].split()[:4] == ["cats", "ok", "full", "500"]
    assert "\x1b" not in stdout


def test_a_bar_leaves_the_answer_to_the_file_it_is_for(tmp_path: Path) -> None:
    """The bar is on a terminal, the answer is not: what is below the bar must not take its way."""
    (tmp_path / "e").mkdir()
    (tmp_path / "e/1.json").write_text('{"id": 1}')
    (tmp_path / "syncd.yaml").write_text(
        "sources: {s: {type: files, path: ./e}}\ntargets: {t: {type: local, path: ./b}}\nsyncs: {cats: {source: s, target: t}}\n"
    )
    assert shell("sync", folder=tmp_path).returncode == 0
    stdout, shown = on_terminal([sys.executable, "-m", "syncd", "verify", "--all"], tmp_path)
    assert "= default/1" in stdout
    assert "default/1" not in shown


def test_colour_is_for_terminals_that_want_it(tmp_path: Path) -> None:
    (tmp_path / "syncd.yaml").write_text("sources: 5\n")
    command = [sys.executable, "-m", "syncd", "validate"]
    assert "\x1b[1;31merror" in on_terminal(command, tmp_path)[1]
    assert "\x1b[31m" not in on_terminal(command, tmp_path, NO_COLOR="1")[1]
    assert "\x1b" not in shell("validate", folder=tmp_path).stderr


def begin(folder: Path, pause: str) -> subprocess.Popen[str]:
    (folder / "syncd.yaml").write_text(CONFIG)
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, pause],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "SYNCD_CONFIG": "syncd.yaml"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "reading\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_the_run_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    process = begin(tmp_path, "0.02")
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    report = json.loads(stdout)
    assert (process.returncode, report["status"], report["error"]) == (130, "failed", "interrupted")
    assert "stopping" in stderr
    assert "Traceback" not in stderr


def test_the_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    process = begin(tmp_path, "20")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "stopping" not in process.stderr.readline():
        pass
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=15)
    assert process.returncode == 130
    assert time.monotonic() - asked < 10


def test_it_takes_as_many_open_files_as_it_is_allowed() -> None:
    shown = (
        "import resource, syncd.cli.commands; from syncd.cli import main; "
        "main.app = lambda **_: print(*resource.getrlimit(resource.RLIMIT_NOFILE)); main.main()"
    )
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = 10_240 if hard == resource.RLIM_INFINITY else min(hard, 10_240)
    for limits, after in (("-Sn 256", f"{most} {hard}"), ("-Sn 256 && ulimit -Hn 900", "900 900"), ("-n 900", "900 900")):
        command = ["sh", "-c", f'ulimit {limits} && exec "$0" -c "$1"', sys.executable, shown]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == after, done.stderr


def test_it_starts_where_it_may_not_ask_for_more_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_limit: int) -> tuple[int, int]:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(resource, "getrlimit", refuse)
    _allow_files()
