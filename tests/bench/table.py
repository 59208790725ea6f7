"""The lines of the table, printed for a terminal or as Markdown for the README, and kept as JSON in bench/."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.bench.process import ROOT


@dataclass(frozen=True, slots=True)
class Row:
    """One line. value: None when it could not be measured, and `against` says why; most: the bar, None when it is for information only."""

    name: str
    value: float | None
    unit: str = ""
    most: float | None = None
    against: str = ""
    detail: dict[str, object] = field(default_factory=dict)

    @property
    def held(self) -> bool:
        """A line without a value or a bar breaks nothing."""
        return self.value is None or self.most is None or self.value <= self.most

    def cells(self) -> tuple[str, str, str, str, str]:
        bar = "" if self.most is None else f"≤ {self.most:,.4g}"
        holds = "" if self.value is None or self.most is None else "yes" if self.held else "NO"
        return self.name, _number(self.value, self.unit), bar, holds, self.against


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "not measured"
    digits = 0 if value == int(value) or value >= 100 else 3 if value < 0.1 else 2
    return f"{value:,.{digits}f} {unit}".rstrip()


def plain(row: Row) -> str:
    name, value, bar, holds, against = row.cells()
    return f"{name:<76} {value:>14}  {bar:>9} {holds:<3} {against}".rstrip()


def markdown(rows: Iterable[Row]) -> str:
    head = ["| what | measured | bar | holds | compared with |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(f"| {' | '.join(row.cells())} |".replace("|  |", "| |").replace("|  |", "| |") for row in rows)])


def machine() -> str:
    """Cores, processor, memory, kernel."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = model[1] if model else platform.machine()
    return f"{os.cpu_count()} cores ({name}), {memory:.0f} GB, Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}"


def keep(rows: Sequence[Row]) -> None:
    folder = ROOT / "bench"
    folder.mkdir(exist_ok=True)
    content = {"machine": machine(), "rows": [asdict(row) | {"held": row.held} for row in rows]}
    (folder / time.strftime("%Y%m%dT%H%M%S.json")).write_text(json.dumps(content, indent=1) + "\n")
