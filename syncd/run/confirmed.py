"""What a person types to confirm a Plan, and how that word reaches a daemon that holds the Checkpoint: one small file per Sync in
`<state>/confirmed`, which names the Plan.

A word for a Plan that has changed meanwhile does nothing, so one that comes late, or twice, is harmless.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from syncd.errors import SyncdError

_USUAL = Path("syncd.yaml")  # needs no mention


def command(config: Path, sync: str, plan_id: str, *words: str) -> str:
    """What lets the deletions of that Plan pass the Guard. words: the command, if it is not `sync`."""
    return shlex.join(["syncd", *(words or ["sync"]), sync, "--confirm-deletes", plan_id, *([] if config == _USUAL else ["-c", str(config)])])


def folder(state: Path) -> Path:
    """Where the words wait; there only while a daemon would take them, or when one was killed."""
    return state / "confirmed"


@contextmanager
def listening(state: Path) -> Iterator[Path]:
    """Words may be left in `state`, for as long as a daemon lives."""
    folder(state).mkdir(mode=0o700, exist_ok=True)
    try:
        yield state
    finally:
        with suppress(OSError):  # somebody left a word at the last moment: the next start takes it
            folder(state).rmdir()


def leave(state: Path, sync: str, plan_id: str) -> bool:
    """Let the daemon know; False when there is none on this state. Raises SyncdError."""
    if not folder(state).is_dir():
        return False
    draft = folder(state) / f".{sync}"
    try:
        draft.write_text(plan_id, "utf-8")
        draft.replace(folder(state) / sync)
    except OSError as error:
        raise SyncdError(f"can't leave word for the running syncd in {folder(state)}: {error.strerror}") from error
    return True


def collect(state: Path) -> dict[str, str]:
    """Every word left since the last time: Plan ids by Sync."""
    found = {}
    for path in sorted(folder(state).glob("[!.]*")):
        with suppress(OSError):
            found[path.name] = path.read_text("utf-8", "replace").strip()
            path.unlink()
    return found
