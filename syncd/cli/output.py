"""What a person or a program reads: results on stdout, logs and errors on stderr.

Rules: colour and moving things only on a terminal (NO_COLOR is honoured); `--json` prints one object per line; nothing that came from a Source
reaches a terminal unescaped.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from syncd.clock import format_time
from syncd.errors import ConfigError, Problem, SyncdError

DEFAULT_PATH = Path("syncd.yaml")
log = logging.getLogger("syncd")
_WIDE = 1000  # columns of what is no terminal: there nothing is wrapped
_COLOURS = {
    "ok": "green", "partial": "yellow", "guarded": "magenta", "failed": "red", "+": "green", "~": "yellow", "-": "red", "!": "bold red",
    "error": "bold red", "critical": "bold red", "warning": "yellow", "hint": "dim",
}  # fmt: skip


class LogFormat(StrEnum):
    """How logs and errors are written."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Output:
    """Where one command writes."""

    json: bool
    out: Console
    err: Console

    def object(self, fields: object) -> None:
        """One line of `--json`; ASCII, so that any id gets through any pipe."""
        sys.stdout.write(json.dumps(fields) + "\n")
        sys.stdout.flush()  # a Run may be long, and somebody may be waiting at the other end

    def line(self, *parts: str | tuple[str, str], prose: bool = False) -> None:
        """One line for a person; a part may be (text, style). A terminal gets prose broken between words, all else whole, to be copied."""
        self.out.print(Text.assemble(*parts), soft_wrap=not prose)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> None:
        """Aligned columns, the first `left` to the left, the others to the right; empty columns are left out."""
        rows = [[clean(cell) for cell in row] for row in rows]
        shown = [index for index in range(len(header)) if index < left or any(row[index] for row in rows)]
        table = Table(box=None, pad_edge=False, header_style="bold")
        for index in shown:
            table.add_column(header[index], justify="left" if index < left else "right", overflow="fold", no_wrap=index > 0)
        for row in rows:
            table.add_row(*(Text(row[index], _COLOURS.get(row[index], "")) for index in shown))
        self.out.print(table)


def start(*, as_json: bool, level: LogLevel, form: LogFormat) -> Output:
    """The Output of this command; from now on logs go to stderr."""
    out, err = Console(highlight=False), Console(stderr=True, highlight=False)
    for console in (out, err):
        if not console.is_terminal:
            console.width = _WIDE
    handler = _Handler(err, form)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    log.setLevel(level.upper())
    return Output(as_json, out, err)


def style(word: str) -> str:
    """The colour of a status, a sign or a level; "" for any other word."""
    return _COLOURS.get(word, "")


def clean(text: str) -> str:
    """`text` with all that could move a cursor, colour a terminal or break a line written as an escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def show_error(error: SyncdError) -> None:
    """Say what is wrong: one line, or one for each problem of a config, with what to do next."""
    if isinstance(error, ConfigError):
        for problem in error.problems:
            log.error("%s", problem.message, extra={"place": place(problem), "hint": problem.hint})
    else:
        log.error("%s", error)


def place(problem: Problem) -> str:
    """`file:line:column`, without what is not known."""
    return f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file


class _Handler(logging.Handler):
    """Writes through the console that may hold a progress bar, so that lines stand above it."""

    def __init__(self, console: Console, form: LogFormat) -> None:
        super().__init__()
        self._console = console
        self._json = form is LogFormat.JSON

    def emit(self, record: logging.LogRecord) -> None:
        at, hint, level = getattr(record, "place", ""), getattr(record, "hint", ""), record.levelname.lower()
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
        if self._json:
            said = {"at": format_time(int(record.created * 1_000_000)), "level": level, "logger": record.name, "message": record.getMessage()}
            extra = {"place": at, "hint": hint, "traceback": trace}
            self._console.out(json.dumps(said | {name: value for name, value in extra.items() if value}), highlight=False)
            return
        start = f"{at}: " if at else ""
        text = Text.assemble(clean(start), (f"{level}: ", style(level)), clean(record.getMessage()))
        text.append(f"\n    hint: {clean(hint)}" if hint else "", style("hint"))
        text.append(f"\n{trace}" if trace else "")
        self._console.print(text, soft_wrap=not self._console.is_terminal)  # in a file a line stays a line
