"""`syncd doctor`: what was found, line by line, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from syncd.cli.jobs import read
from syncd.cli.main import Call
from syncd.cli.output import clean, fold, paint
from syncd.clock import SystemClock
from syncd.errors import AccessError
from syncd.targets.base import Finding, Sign
from syncd.upkeep.doctor import examine

_SIGNS = {Sign.OK: ("✓", "ok"), Sign.ADVICE: ("!", "partial"), Sign.WRONG: ("✗", "failed")}


def run_doctor(call: Call, wanted: Sequence[str] | None) -> int:
    """Show every finding; 0 when nothing is wrong, 12 when credentials are refused, else 1."""
    return _show(call, examine(*read(call, wanted), SystemClock()))


def _show(call: Call, findings: Iterable[tuple[str, Finding]]) -> int:
    last, code = "", 0
    for part, finding in findings:
        if finding.sign is Sign.WRONG:
            code = max(code, AccessError.exit_code if finding.refused else 1)
        sign, colour = _SIGNS[finding.sign]
        lines = [paint(part, "bold")] if part != last else []
        lines.append(fold(f"  {paint(sign, colour)} {clean(finding.message)}", indent="    "))
        if finding.hint:
            lines.append(paint(fold(f"    → {clean(finding.hint)}", indent="      "), "dim"))
        call.tell({"part": part, "result": finding.sign, "message": finding.message, "hint": finding.hint}, *lines)
        last = part
    return code
