"""The page: every Sync at a glance, and one page for each of them, as HTML that needs no JavaScript.

Rules: each value goes through the template's escaping, none is marked safe; what needs a person comes first; a state is a word, a shape and a
colour, never a colour alone. Refuses to start or change anything.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import resources
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from syncd import __version__
from syncd.clock import format_time
from syncd.daemon.ledger import State
from syncd.daemon.schedule import ago, describe, span
from syncd.daemon.service import Service
from syncd.keys import shown
from syncd.model import Failure, RunRecord, Status
from syncd.run.confirmed import command

HISTORY, FAILURES, BARS = 50, 100, 24  # Runs and failed tasks on the page of a Sync; Runs in a sparkline
_URGENT = {State.GUARDED: 0, State.FAILED: 1, State.PARTIAL: 2}
_WORDS = {
    State.GUARDED: "needs a person", State.FAILED: "failed", State.PARTIAL: "tasks failed", State.RUNNING: "running", State.OK: "ok",
    State.NEVER: "never run",
}  # fmt: skip
_FAULTS = {
    404: ("Nothing here", "There is no such page. A Sync that was renamed or removed from the config is gone from here too; its backup is not."),
    405: ("Not this way", "This address takes another method."),
    503: ("No answer right now", "syncd could not look this up."),
    500: ("That went wrong", "syncd made a mistake while answering. Backups go on; the log says more."),
}
_FOLDER = resources.files("syncd.daemon") / "templates"
STATIC = {name: (_FOLDER / name).read_bytes() for name in ("style.css", "page.js", "icon.svg")}


class Page:
    """Renders; from any thread."""

    def __init__(self, service: Service) -> None:
        self._service = service
        env = Environment(loader=PackageLoader("syncd.daemon"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        env.filters |= {"span": span, "ago": ago, "utc": utc, "iso": format_time, "path": partial(quote, safe=""), "spark": spark, "id": shown}
        build = hashlib.sha256(b"".join(STATIC.values())).hexdigest()[:12]
        env.globals |= {"words": _WORDS, "version": __version__, "build": build, "State": State, "command": command, "describe": describe}
        self._templates = {name: env.get_template(f"{name}.html") for name in ("index", "sync", "fault")}

    def index(self, state: str) -> str:
        """Every Sync, or those in that state."""
        everything = self._service.syncs()
        rows = [sync for sync in everything if state in {"", sync.state}]
        rows.sort(key=lambda sync: _URGENT.get(sync.left, len(_URGENT)))  # a Run that goes on does not hide how the last one ended
        counts = Counter(sync.state for sync in everything)
        return self._templates["index"].render(
            now=self._service.clock.now(), config=self._service.config_state, unready=self._service.unready(), queue=self._service.queue(),
            total=len(everything), tasks=sum(sync.standing.tasks for sync in everything), urgent=sum(sync.left in _URGENT for sync in everything),
            counts=[(state, counts[state]) for state in _WORDS if counts[state]], rows=rows, state=state,
            runs={sync.name: self._service.checkpoint.runs(sync.name, BARS) for sync in rows},
            guards=[sync for sync in rows if sync.left is State.GUARDED],
        )  # fmt: skip

    def sync(self, name: str) -> str | None:
        """One Sync; None when there is no such."""
        sync = self._service.sync(name)
        if sync is None:
            return None
        told: Any = sync.standing.ended.report.get("failed", ()) if sync.standing.ended else ()  # the Checkpoint keeps failures of tasks only
        parts = [Failure(**one) for one in told if one["task"] is None]
        return self._templates["sync"].render(
            now=self._service.clock.now(), config=self._service.config_state, sync=sync,
            runs=self._service.checkpoint.runs(name, HISTORY), failures=[*parts, *self._service.checkpoint.failures(name, FAILURES)][:FAILURES],
        )  # fmt: skip

    def fault(self, status: int, words: str = "") -> str:
        """What a person reads instead of an error's name."""
        title, text = _FAULTS.get(status, _FAULTS[500])
        return self._templates["fault"].render(title=title, text=words or text, status=status)


def utc(at: int) -> str:
    """`2026-11-20 12:00:05 UTC`."""
    return format_time(at)[:19].replace("T", " ") + " UTC"


def spark(runs: Sequence[RunRecord]) -> tuple[Mapping[str, str], str]:
    """The last Runs as a drawing of 120 by 28: one path for each status; and what it shows in words. A bar for each Run that ended, the newest at the
    right: up for what it changed (logarithmic), and below the line when it did not end well.
    """
    ended = [run for run in runs if run.status is not None][:BARS][::-1]
    changed = [_changed(run.report) for run in ended]
    most, paths = math.log1p(max(changed, default=0)) or 1.0, dict[str, str]()
    for at, (run, count) in enumerate(zip(ended, changed, strict=True), start=BARS - len(ended)):
        up = 1 + round(17 * math.log1p(count) / most)
        bad = "" if run.status is Status.OK else f"M{at * 5 + 2} 21v6"
        paths[str(run.status)] = paths.get(str(run.status), "") + f"M{at * 5 + 2} 19v-{up}" + bad
    ends = Counter(str(run.status) for run in ended)
    words = ", ".join(f"{count} {status}" for status, count in ends.most_common())
    return paths, f"Last {len(ended)} Runs: {words}. At most {max(changed):,} changed files in one." if ended else "No Run has ended yet."


def _changed(report: Mapping[str, object]) -> int:
    counts = (report.get(key) for key in ("written", "healed", "trashed", "deleted"))
    return sum(count for count in counts if isinstance(count, int))
