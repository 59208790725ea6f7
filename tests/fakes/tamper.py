"""A Sync on a folder, somebody who tampers with its files behind its back, and a person who verifies and repairs."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from syncd.checkpoint import sqlite
from syncd.checkpoint.base import Checkpoint
from syncd.model import Status
from syncd.targets.base import Target
from syncd.upkeep.repair import Repair, repair
from syncd.upkeep.verify import SAME, VerifyLine, verify
from tests.fakes.mortal import CHECKPOINT_EFFECTS, TARGET_EFFECTS, Life, Mortal
from tests.fakes.rig import Rig

EVERYTHING = 1.0


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder in memory, where there is one: for tests that open hundreds of Checkpoints and need no disk."""
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield Path(folder)


class Desk(Rig):
    """A Rig with a person who verifies and repairs."""

    def path(self, key: str) -> Path:
        """Of a file, when the Target is the folder `backup` beside the state."""
        return self.state.parent / "backup" / key

    def verify(self, *, read: float = 0.0, source: bool = False) -> list[VerifyLine]:
        """Everything but what is right."""
        return [line for line in self.lines(read=read, source=source) if line.sign != SAME]

    def lines(self, *, read: float = 0.0, source: bool = False) -> list[VerifyLine]:
        with closing(sqlite.open(self.state, read_only=True)) as checkpoint, closing(self.open_target()) as target:
            return list(verify(self.job(checkpoint, target), read=read, source=source))

    def repair(self, lines: Iterable[VerifyLine], confirm: str = "", life: Life | None = None) -> Repair:
        self.clock.wait(1)
        life = life or Life()
        with closing(sqlite.open(self.state)) as checkpoint, closing(self.open_target()) as target:
            mortal_target = cast("Target", Mortal(target, life, TARGET_EFFECTS))
            job = self.job(cast("Checkpoint", Mortal(checkpoint, life, CHECKPOINT_EFFECTS)), mortal_target)
            return repair(job, lines, confirm_deletes=confirm)

    def kept(self) -> dict[str, bytes]:
        """What stands in the trash."""
        return {key: data for key, data in self.files().items() if "/_trash/" in key}

    def backup(self) -> dict[str, bytes]:
        """The files of tasks and settings."""
        return {key: data for key, data in self.files().items() if not key.startswith("_syncd/") and "/_trash/" not in key}


def quietly(path: Path, data: bytes) -> None:
    """Other bytes, and the same time as before: only reading tells, if they are as many."""
    before = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def tamper(desk: Desk, keys: Iterable[str], count: int) -> dict[str, set[str]]:
    """So many files of each kind; their keys."""
    chosen = iter(random.sample(sorted(keys), 5 * count))
    kinds = {kind: {next(chosen) for _ in range(count)} for kind in ("removed", "truncated", "changed", "swapped", "other")}
    for key in kinds["removed"]:
        desk.path(key).unlink()
    for key in kinds["truncated"]:
        os.truncate(desk.path(key), desk.path(key).stat().st_size // 2)
    for key in kinds["changed"]:
        quietly(desk.path(key), desk.path(key).read_bytes().replace(b"task", b"tusk"))
    for key, other in zip(sorted(kinds["swapped"]), sorted(kinds["other"]), strict=True):
        one, two = desk.path(key).read_bytes(), desk.path(other).read_bytes()
        quietly(desk.path(key), two)
        quietly(desk.path(other), one)
    kinds["added"] = {f"1/9000{number}.json" for number in range(count)}
    for key in kinds["added"]:
        desk.path(key).write_bytes(b'{"id":0}\n')
    return kinds


def check_tampering(desk: Desk, count: int) -> None:
    """So many of each kind are all found in the modes that read them, mended and verified, and none of the bytes that stood there are lost."""
    before = desk.backup()
    kinds = tamper(desk, (key for key in before if key.endswith(".json") and not key.endswith("_project.json")), count)
    tampered = set(desk.backup().values())
    assert kinds["removed"] | kinds["truncated"] | kinds["added"] <= {line.key for line in desk.verify()}
    lines = desk.verify(read=EVERYTHING)
    assert sorted(line.key for line in lines) == sorted(set().union(*kinds.values()))
    assert len(lines) == 6 * count
    done = desk.repair(lines)
    assert (Status.OK, 5 * count, []) == (done.report.status, done.report.healed, done.left)
    if done.guard:
        assert (count, 0) == (len(desk.verify()), done.trashed)
        done = desk.repair(desk.verify(), done.guard.plan_id)
    assert (count, None) == (done.trashed, done.guard)
    assert desk.verify(read=EVERYTHING, source=True) == []
    assert before == desk.backup()
    assert tampered <= set(before.values()) | set(desk.kept().values())
