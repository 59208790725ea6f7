"""What is too long for each change: a thousand tampered files of each kind among 20,000, and a Checkpoint with bits flipped at 200 places."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from syncd.targets import local
from tests.fakes.flips import check_flips
from tests.fakes.memory import MemorySource
from tests.fakes.rig import TestClock
from tests.fakes.tamper import Desk, check_tampering

pytestmark = [pytest.mark.live, pytest.mark.skipif(not os.environ.get("SYNCD_LIVE"), reason="takes minutes: make test-live")]


def backed_up(folder: Path, tasks: int) -> Desk:
    source, clock = MemorySource(page=500), TestClock()
    source.add("1", tasks)
    desk = Desk(source, lambda: local.open(local.Config(type="local", path=folder / "backup"), clock), folder / "state", clock)
    desk.run()
    return desk


def test_a_thousand_of_each_kind_among_twenty_thousand_are_found_and_mended(tmp_path: Path) -> None:
    check_tampering(backed_up(tmp_path, 20_000), 1_000)


def test_bits_flipped_at_two_hundred_places_are_recognised_or_harmless(tmp_path: Path) -> None:
    check_flips(backed_up(tmp_path, 1_000), 200)
