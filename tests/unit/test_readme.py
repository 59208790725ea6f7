"""What the README shows is run: its configs load, its commands exist, its exit codes and feed fields are the real ones."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from syncd import errors
from syncd.config import load
from syncd.model import Op, Why

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_its_configs_load(text: str, tmp_path: Path) -> None:
    (tmp_path / "syncd.yaml").write_text(text)
    assert load(tmp_path / "syncd.yaml", {"LABEL_STUDIO_TOKEN": "0123456789abcdef", "LABELBOX_API_KEY": "eyJ.a.b"}).syncs


def test_the_smallest_config_is_the_shipped_one_and_has_six_lines() -> None:
    smallest = blocks("yaml")[0]
    assert smallest == (ROOT / "config/minimal.yaml").read_text()
    assert 6 == len(smallest.splitlines())


def test_its_commands_exist_with_the_options_it_shows() -> None:
    lines = re.findall(r"^\$ syncd ([^#\n]+)", "".join(blocks("console")), flags=re.MULTILINE)
    shown = {line.split()[0]: "" for line in lines}
    assert len(shown) >= 14
    for command in shown:
        done = subprocess.run([sys.executable, "-m", "syncd", command, "--help"], capture_output=True, text=True, check=False, cwd=ROOT)
        assert 0 == done.returncode, command
        shown[command] = done.stdout
    for line in lines:
        for option in re.findall(r"--[a-z-]+", line):
            assert option in shown[line.split()[0]], line


def test_its_example_of_training_on_what_changed_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "config/sample/exports", "exports")
    Path("syncd.yaml").write_text(blocks("yaml")[0])

    def syncd(*words: str) -> str:
        return subprocess.run([sys.executable, "-m", "syncd", *words], capture_output=True, text=True, check=True).stdout

    syncd("sync")
    Path("changes.ndjson").write_text(syncd("changes", "everything"))
    before = train()
    run = syncd("changes", "everything").splitlines()[-1]
    edited = Path("exports/cats/101.json")
    edited.write_text(edited.read_text().replace("cat", "dog"))
    syncd("sync")
    Path("changes.ndjson").write_text(syncd("changes", "everything", "--since", json.loads(run)["run_id"]))
    after = train()
    assert 13 == len(before)
    assert [101] == after


def train() -> list[object]:
    """The ids that the example reads."""
    names: dict[str, Any] = {}
    exec(blocks("python")[0], names)
    return [id_ for (id_,) in names["tasks"].select("id").fetchall()]


def test_its_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets


def test_its_exit_codes_are_those_of_the_errors() -> None:
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", README, flags=re.MULTILINE)}
    raised = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.SyncdError)}
    assert raised | {0, 2, 3, 130} == told


def test_its_change_feed_is_the_real_one() -> None:
    for words in (Op, Why):
        assert "|".join(words) in README


def test_every_file_it_links_to_exists() -> None:
    for name in re.findall(r"\]\(([^):]+)\)", README):
        assert (ROOT / name).exists(), name
