"""The systemd unit, by systemd's own words. What it does when it runs: tests/deploy/test_systemd_run.py."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.deploy.tools import DEPLOY, run, tool

UNIT = DEPLOY / "systemd/syncd.service"
EXPOSURE = 20  # ten times the exposure level that is allowed


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """As it is, but for a program that is there."""
    copy = tmp_path / "syncd.service"
    copy.write_text(UNIT.read_text().replace("/opt/syncd/bin/syncd", sys.executable))
    return copy


def test_systemd_has_nothing_to_say_about_it(unit: Path) -> None:
    assert "" == run([tool("systemd-analyze"), "verify", unit])


def test_systemd_would_have_said_something(unit: Path) -> None:
    """Its exit code says nothing about unknown keys: only what it prints does."""
    unit.write_text(unit.read_text().replace("StateDirectory=", "StateDirctory=", 1))
    assert "'StateDirctory'" in run([tool("systemd-analyze"), "verify", unit])


def test_it_is_hardened(unit: Path) -> None:
    run([tool("systemd-analyze"), "security", "--offline=true", f"--threshold={EXPOSURE}", unit])


def test_a_comment_in_it_that_is_taken_in_is_right_too(unit: Path) -> None:
    settings = re.sub(r"^#(\w+=)", r"\1", UNIT.read_text(), flags=re.MULTILINE)
    assert settings.count("\nLoadCredential=") == 3
    unit.write_text(settings.replace("/opt/syncd/bin/syncd", sys.executable))
    assert "" == run([tool("systemd-analyze"), "verify", unit])
