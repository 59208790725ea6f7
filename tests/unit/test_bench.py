"""The table that the claims stand in: a bar that is not held is said so, and what could not be measured is no failure."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.bench import __main__ as bench
from tests.bench import table
from tests.bench.table import Row

GOOD = Row("good", 0.25, "x", 0.4, "a peer")
BAD = Row("bad", 1_234.0, "", 6)
ABSENT = Row("absent", None, against="a peer could not be installed here")
KNOWN = Row("known", 3.14159, "s")


@pytest.mark.parametrize(("rows", "code"), [([GOOD, ABSENT, KNOWN], 0), ([GOOD, BAD], 1)])
def test_the_exit_code_says_whether_every_bar_is_held(
    rows: list[Row], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (bench, table):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(bench, "CASES", dict.fromkeys(bench.CASES, lambda _folder, _sizes: rows))
    monkeypatch.setattr(sys, "argv", ["bench", "--only", "files"])
    assert bench.main() == code
    assert capsys.readouterr().out.count(" NO") == code
    (kept,) = (tmp_path / "bench").glob("*.json")
    assert [row["held"] for row in json.loads(kept.read_text())["rows"]] == [row.held for row in rows]


def test_markdown_has_a_line_for_each() -> None:
    assert table.markdown([GOOD, BAD, ABSENT, KNOWN]).splitlines()[2:] == [
        "| good | 0.25 x | ≤ 0.4 | yes | a peer |",
        "| bad | 1,234 | ≤ 6 | NO | |",
        "| absent | not measured | | | a peer could not be installed here |",
        "| known | 3.14 s | | | |",
    ]
