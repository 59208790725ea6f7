"""A shell completes commands and the names of Syncs: real bash, zsh and fish, as far as they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.terminal import Terminal

BIN = Path(sys.executable).parent
START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}
LEARN = {
    "bash": 'bind "set bell-style none"; eval "$(_SYNCD_COMPLETE=source_bash syncd)"; echo rea""dy\n',
    "zsh": 'autoload -U compinit; compinit -u -D; eval "$(_SYNCD_COMPLETE=source_zsh syncd)"; echo rea""dy\n',
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "syncd.yaml").write_text("syncs:\n  cats: {key: '${UNSET}'}\n  dogs: {unknown: 1}\n  dodos: {}\n")
    (tmp_path / "other.yaml").write_text("syncs: {doves: {}}\n")
    return tmp_path


def env(folder: Path) -> dict[str, str]:
    quiet = {"PYTHONDONTWRITEBYTECODE": "1", "PYDANTIC_DISABLE_PLUGINS": "__all__"}
    return {"PATH": f"{BIN}:{os.environ['PATH']}", "TERM": "dumb", "HOME": str(folder), "PS1": "$ ", **quiet}


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_tab_completes_the_name_of_a_sync(shell: str, folder: Path) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    with Terminal(START[shell], folder, env(folder)) as person:
        person.type(LEARN[shell])
        person.wait_for("ready")
        person.type("syncd sync dog\t")
        person.wait_for("dogs ")
        person.type("-c other.yaml --full d\t")
        person.wait_for("doves")


def test_fish_completes_the_name_of_a_sync(folder: Path) -> None:
    if not shutil.which("fish"):
        pytest.skip("fish is not installed")
    script = '_SYNCD_COMPLETE=source_fish syncd | source; complete -C "syncd sync do"'
    found = subprocess.run(["fish", "--no-config", "-c", script], cwd=folder, env=env(folder), capture_output=True, text=True, check=True, timeout=60)
    assert sorted(found.stdout.split()) == ["dodos", "dogs"]


def completed(folder: Path, line: str) -> list[str]:
    asked = {"_SYNCD_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    command = [sys.executable, "-c", "from syncd.cli.main import main; main()"]
    found = subprocess.run(command, cwd=folder, env=env(folder) | asked, capture_output=True, text=True, check=True, timeout=60)
    assert found.stderr == ""
    return found.stdout.split()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("syncd va", ["validate"]),
        ("syncd status ", ["cats", "dogs", "dodos"]),
        ("syncd status dogs d", ["dodos"]),
        ("syncd trash list c", ["cats"]),
        ("syncd sync -c other.yaml d", ["doves"]),
        ("syncd sync -c none.yaml d", []),
    ],
)
def test_only_what_fits_is_offered(folder: Path, line: str, names: list[str]) -> None:
    assert completed(folder, line) == names


@pytest.mark.parametrize("text", ["syncs: [", "syncs: 5", "- a", "", "a: !x 1", "\xff"])
def test_a_config_that_can_not_be_read_offers_nothing(folder: Path, text: str) -> None:
    (folder / "syncd.yaml").write_bytes(text.encode("latin-1"))
    assert completed(folder, "syncd sync ") == []
