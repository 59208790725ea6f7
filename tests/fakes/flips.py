"""A Checkpoint with single bits flipped, and what is asked of syncd then."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from syncd.checkpoint import sqlite
from syncd.checkpoint.sqlite_file import UnusableError
from syncd.model import Kind, Status
from tests.fakes.rig import Rig

AT = 1_795_000_000_000_000  # 2026-11-18


def stamps(rig: Rig) -> dict[str, tuple[int, int]]:
    """Which file each task's is: a put makes another one."""
    root = rig.state.parent / "backup"
    found = {str(path.relative_to(root)): path.stat() for path in root.rglob("*.json") if "_syncd" not in path.parts}
    return {key: (stat.st_ino, stat.st_mtime_ns) for key, stat in found.items()}


def rebuild(rig: Rig) -> tuple[str, Path] | None:
    aside = sqlite.set_aside(rig.state, AT, force=False)
    report = rig.run(Kind.FULL, take_over=True)
    assert (Status.OK, 0, 0) == (report.status, report.written, report.healed)
    return aside


def check_flips(rig: Rig, count: int) -> None:
    """Wherever one bit of a closed Checkpoint is wrong, it is recognised or does no harm, and nothing that is right in the Target is put again."""
    seed = random.randrange(10**9)
    print("seed", seed)
    chance, path, owner = random.Random(seed), rig.state / "checkpoint.sqlite", rig.state.parent / "backup/_syncd/owner.json"
    sound, marker, before, outcomes = path.read_bytes(), owner.read_bytes(), stamps(rig), Counter[str]()
    contents = rig.tasks()
    for _ in range(count):
        at, bit = chance.randrange(len(sound)), chance.randrange(8)
        spoilt = bytearray(sound)
        spoilt[at] ^= 1 << bit
        for left in rig.state.iterdir():
            left.unlink()
        path.write_bytes(spoilt)
        owner.write_bytes(marker)
        kinds = (Kind.FULL, Kind.INCREMENTAL) if chance.random() < 0.5 else (Kind.INCREMENTAL, Kind.FULL)
        outcomes[_lived_through(rig, kinds, f"seed {seed}: byte {at}, bit {bit}")] += 1
        assert contents == rig.tasks(), f"seed {seed}: byte {at}, bit {bit}"
        if kinds[0] is Kind.FULL:  # another Run lists nothing, so it puts again what it knows nothing of
            assert before == stamps(rig), f"seed {seed}: byte {at}, bit {bit}: something right was put again"
        before = stamps(rig)
    print(outcomes)
    assert outcomes["recognised"]
    assert outcomes["harmless"]


def _lived_through(rig: Rig, kinds: Sequence[Kind], where: str) -> str:
    """What came of it; in the end a full Run ends well."""
    try:
        for kind in kinds:
            report = rig.run(kind)
            if report.exit_code == 11:  # its own name is another one
                assert Status.OK is rig.run(Kind.FULL, take_over=True).status, where
                return "recognised"
            assert Status.OK is report.status, f"{where}: {report}"
    except UnusableError:
        sqlite.set_aside(rig.state, AT, force=True)
        rebuild(rig)
        return "recognised"
    return "harmless"
