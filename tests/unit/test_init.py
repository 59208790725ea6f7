"""`syncd init`, on a real terminal and without one: what it asks, writes and refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it ships no types

from syncd.config import load
from tests.fakes.label_studio import StandIn
from tests.fakes.labelbox import Labelbox
from tests.fakes.terminal import Terminal


class Person(Terminal):
    """Answers the questions of `syncd init`."""

    def __init__(self, folder: Path, *words: str, env: dict[str, str] | None = None) -> None:
        clean = {"PATH": os.environ["PATH"], "TERM": "xterm", "COLUMNS": "200", "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
        super().__init__([sys.executable, "-m", "syncd", "init", *words], folder, clean)

    def answer(self, question: str, text: str) -> None:
        """Wait for a question and its last space (what is typed before a hidden one is ready would be thrown away), then type."""
        self.wait_for(question, ": ")
        self.type(text + "\n")


@pytest.fixture(scope="module")
def studio() -> Iterator[StandIn]:
    with StandIn() as studio:
        studio.project("Cats")
        studio.project("Dogs")
        yield studio


def quietly(folder: Path, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`syncd init` where nobody can answer."""
    clean = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
    command = [sys.executable, "-m", "syncd", "init", *words]
    return subprocess.run(command, cwd=folder, env=clean, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


def right(folder: Path, env: dict[str, str] | None = None) -> str:
    """The config is what the loader and an editor accept; its text."""
    text = (folder / "syncd.yaml").read_text()
    assert load(folder / "syncd.yaml", env or {}).syncs
    assert text.startswith("# yaml-language-server: $schema=./syncd.schema.json\n")
    schema = json.loads((folder / "syncd.schema.json").read_text())
    assert list(Draft202012Validator(schema).iter_errors(yaml.safe_load(text))) == []
    return text


def test_a_person_is_asked_shown_what_there_is_and_asked_again(tmp_path: Path, studio: StandIn) -> None:
    with Person(tmp_path) as person:
        person.answer("Source type (label_studio, ", "all")
        person.answer("there is no 'all'", "label_studoi")
        person.answer("there is no 'label_studoi'", "label_studio")
        person.answer("url (Address of the server", studio.url + "/?no")
        person.answer("token (typed unseen", "0" * 40)
        person.answer("Target type (local, s3, gcs)", "")
        person.answer("path (The folder", "./my backup")
        person.answer("prefix", "../x")
        person.answer("How often", "5")
        person.answer("Once more", "")
        person.answer("url (", studio.url)
        for question, text in (("token", ""), ("Target", ""), ("path", ""), ("prefix", "x"), ("How often", "60s")):
            person.answer(question, text)
        person.answer("the token is refused", "")
        person.answer("url (", "")
        person.answer("token", studio.token)
        for question in ("Target", "path", "prefix", "How often"):
            person.answer(question, "")
        person.answer("2  Dogs", "Cats, Mice")
        person.answer("there is no 'Mice'", "Do*, 1")
        assert person.end() == 0
    text = right(tmp_path)
    assert 'projects: ["Do*", "1"]' in text
    assert studio.token not in text + person.seen
    assert (tmp_path / "label_studio.token").read_text().strip() == studio.token
    assert (tmp_path / "label_studio.token").stat().st_mode & 0o777 == 0o600
    assert "sync label_studio selects 2 Collections: Cats (1), Dogs (2)" in person.seen
    assert "writes, reads back, lists, copies and deletes" in person.seen
    for problem in ("sources.label_studio.url: not the address", "targets.local.prefix: ", "syncs.label_studio.every: not a duration"):
        assert problem in person.seen
    assert {path.name for path in tmp_path.iterdir()} == {"syncd.yaml", "syncd.schema.json", "label_studio.token", "my backup"}


def test_a_person_may_name_where_the_secret_is(tmp_path: Path, studio: StandIn) -> None:
    words = ["--source", "label_studio", "--url", studio.url, "--token-env", "MY_TOKEN", "--target", "local"]
    with Person(tmp_path, *words, env={"MY_TOKEN": studio.token}) as person:
        person.answer("path", "b")
        person.answer("prefix", "a/b")
        person.answer("How often", "5m")
        person.answer("Which", "")
        assert person.end() == 0
    text = right(tmp_path, {"MY_TOKEN": studio.token})
    assert "token: ${MY_TOKEN}" in text
    assert "every: 5m" in text
    assert 'prefix: "a/b"' in text
    assert "# projects:" in text


def test_a_person_who_leaves_leaves_nothing_behind(tmp_path: Path, studio: StandIn) -> None:
    with Person(tmp_path, "--source", "label_studio", "--url", studio.url, "--target", "local", "--target-path", "b", "--prefix", "p") as person:
        person.answer("token", studio.token)
        person.answer("How often", "")
        person.answer("Which", "\x04")
        assert person.end() == 130
    assert list(tmp_path.iterdir()) == []
    assert "Traceback" not in person.seen


def test_without_a_terminal_what_is_missing_is_named(tmp_path: Path) -> None:
    words: list[str] = []
    for needed, given in (("--source", "files"), ("--source-path", "e"), ("--target", "s3"), ("--bucket", "")):
        result = quietly(tmp_path, *words)
        assert (result.returncode, result.stderr.splitlines()[-1]) == (2, f"Error: Invalid value: {needed} is needed: there is no terminal to ask on")
        words += [needed, given]
    assert "--token-file or --token-env is needed" in quietly(tmp_path, "--source", "label_studio", "--url", "http://127.0.0.1:9").stderr
    assert "known: label_studio" in quietly(tmp_path, "--source", "label_studoi").stderr
    assert list(tmp_path.iterdir()) == []


def test_options_are_enough_and_the_doctor_has_the_last_word(tmp_path: Path, studio: StandIn) -> None:
    (tmp_path / "token").write_text(studio.token)
    words = ["--source", "label_studio", "--url", studio.url, "--token-file", "token", "--project", "Cats", "--project", "2"]
    result = quietly(tmp_path, *words, "--target", "local", "--target-path", "./b $x")
    assert (result.returncode, result.stderr) == (0, "")
    text = right(tmp_path)
    assert 'token_file: "token"' in text
    assert 'projects: ["Cats", "2"]' in text
    assert (tmp_path / "b $x" / "_syncd").is_dir()
    (tmp_path / "token").write_text("0" * 40)
    assert quietly(tmp_path, *words, "--target", "local", "--target-path", "b", "--force").returncode == 12


def test_labelbox_is_asked_too(tmp_path: Path) -> None:
    with Labelbox() as box:
        words = ["--source", "labelbox", "--url", box.url, "--token-env", "KEY", "--target", "local", "--target-path", "b"]
        assert quietly(tmp_path, *words, env={"KEY": box.key}).returncode == 0
    assert "api_key: ${KEY}" in right(tmp_path, {"KEY": "k"})


def test_an_option_that_is_of_no_use_is_refused(tmp_path: Path) -> None:
    words = ["--source", "files", "--source-path", "e", "--target", "local", "--target-path", "b", "--bucket", "x", "--token-env", "T"]
    assert quietly(tmp_path, *words).stderr.endswith("--token-env, --bucket: of no use with files and local\n")


def test_paths_are_those_of_the_person_wherever_the_config_is(tmp_path: Path) -> None:
    (tmp_path / "exports" / "cats").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    words = ["--source", "files", "--source-path", "exports", "--target", "local", "--target-path", "backup", "-c", "etc/syncd.yaml"]
    assert quietly(tmp_path, *words).returncode == 0
    assert f'path: "{tmp_path}/exports"' in right(tmp_path / "etc")


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    (tmp_path / "syncd.yaml").write_text("mine")
    (tmp_path / "exports").mkdir()
    words = ["--source", "files", "--source-path", "exports", "--target", "local", "--target-path", "backup"]
    result = quietly(tmp_path, *words)
    assert (result.returncode, "--force" in result.stderr) == (2, True)
    assert (tmp_path / "syncd.yaml").read_text() == "mine"
    assert quietly(tmp_path, *words, "--force").returncode == 0
    right(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target-path", "exports/backup"], "syncs.files.source: its folder and that of target 'local' lie inside each other"),
        (["--target-path", "b", "--every", "5"], "syncs.files.every: not a duration"),
        (["--target-path", "b", "--prefix", "../x"], "targets.local.prefix: "),
    ],
)
def test_a_config_that_would_be_refused_is_not_written(tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "exports").mkdir()
    result = quietly(tmp_path, "--source", "files", "--source-path", "exports", "--target", "local", *words)
    assert result.returncode == 78
    assert said in result.stderr
    assert result.stderr.startswith("init: error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["exports"]


def test_a_secret_is_not_left_behind_when_the_config_is_not_written(tmp_path: Path, studio: StandIn) -> None:
    with Person(tmp_path, "--source", "label_studio", "--url", studio.url, "--target", "local", "--every", "5", "--prefix", "p") as person:
        person.answer("token", studio.token)
        person.answer("path", "~/backup")
        person.answer("every: not a duration", "\x04")
        assert person.end() == 130
    assert list(tmp_path.iterdir()) == []


def test_a_secret_is_not_left_behind_when_another_source_is_chosen(tmp_path: Path, studio: StandIn) -> None:
    (tmp_path / "exports").mkdir()
    with Person(tmp_path, "--source", "label_studio", "--url", studio.url, "--target", "local", "--target-path", "b", "--prefix", "p") as person:
        person.answer("token", "0" * 40)
        person.answer("How often", "")
        person.answer("Once more", "files")
        person.answer("path (The folder. Each", "exports")
        for question in ("Target", "path", "prefix", "How often", "Which"):
            person.answer(question, "")
        assert person.end() == 0
    assert not (tmp_path / "label_studio.token").exists()
    right(tmp_path)


def test_a_secret_of_somebody_is_not_replaced(tmp_path: Path, studio: StandIn) -> None:
    (tmp_path / "label_studio.token").write_text("theirs")
    with Person(tmp_path, "--source", "label_studio", "--url", studio.url) as person:
        assert person.end() == 2
    assert (tmp_path / "label_studio.token").read_text() == "theirs"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = quietly(tmp_path, "-c", "nowhere/syncd.yaml", "--source", "files")
    assert (result.returncode, "nowhere" in result.stderr) == (2, True)
