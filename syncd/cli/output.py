"""What a person or a program reads: results on stdout, logs and errors on stderr.

Rules: colour and moving things only on a terminal (NO_COLOR is honoured); `--json` prints one object per line; nothing that came from a Source
reaches a terminal unescaped.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TextIO

from syncd.clock import SECOND, format_time
from syncd.context import RUN
from syncd.errors import ConfigError, SyncdError, discreet

log = logging.getLogger("syncd")
_COLOURS = {
    "ok": "32", "partial": "33", "guarded": "35", "failed": "31", "+": "32", "~": "33", "-": "31", "!": "1;31",
    "error": "1;31", "critical": "1;31", "warning": "33", "dim": "2", "bold": "1",
}  # fmt: skip


def say(text: str, stream: TextIO | None = None) -> None:
    """One line, at once: a Run may be long, and somebody may be waiting at the other end."""
    try:
        print(text, file=stream or sys.stdout, flush=True)
    except BrokenPipeError:  # the reader has enough: the command ends quietly
        raise
    except OSError as error:
        raise SyncdError(f"can't write the answer: {error.strerror}") from error


def paint(text: str, word: str, stream: TextIO | None = None) -> str:
    """`text` in the colour of a status, sign or level, on a terminal that wants colours; plain for any other word."""
    stream = stream or sys.stdout
    wanted = word in _COLOURS and stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{_COLOURS[word]}m{text}\x1b[0m" if wanted else text


def fold(text: str, stream: TextIO | None = None, *, indent: str = "") -> str:
    """`text` broken between words for a terminal, further lines behind `indent`; anywhere else a line stays a line."""
    if not (stream or sys.stdout).isatty():
        return text
    width = shutil.get_terminal_size().columns
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int) -> None:
    """Aligned columns, the first `left` to the left, the others to the right; empty columns are left out."""
    lines = [header, *([clean(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) if any(column[1:]) else 0 for column in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        cells = [cell.ljust(width) if at < left else cell.rjust(width) for at, (cell, width) in enumerate(zip(line, widths, strict=True))]
        colours = [cell if number else "bold" for cell in line]
        say("  ".join(paint(cell, colour) for cell, colour, width in zip(cells, colours, widths, strict=True) if width).rstrip())


def clean(text: str) -> str:
    """`text` with all that could move a cursor, colour a terminal or break a line written as an escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def log_to_stderr(level: str, *, as_json: bool, times: bool = False) -> None:
    """From now on logs go to stderr. times: a line of text begins with its time (UTC), as one of JSON does."""
    logging.basicConfig(level=logging.WARNING, handlers=[_Json() if as_json else _Text(times=times)], force=True)
    log.setLevel(level.upper())


def show_error(error: SyncdError) -> None:
    """Say what is wrong: one line, or one for each problem of a config, with what to do next."""
    if not isinstance(error, ConfigError):
        log.error("%s", error)
        return
    for problem in error.problems:
        place = f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file
        log.error("%s", problem.message, extra={"place": place, "hint": problem.hint})


class _Text(logging.Handler):
    """`sys.stderr` is asked for at each line: a progress bar puts itself in its place, so that lines stand above it."""

    def __init__(self, *, times: bool) -> None:
        super().__init__()
        self._times = times

    def emit(self, record: logging.LogRecord) -> None:
        level, about = f"{record.levelname.lower()}: ", " ".join(filter(None, RUN.get()))
        place = f"{clean(record.place)}: " if hasattr(record, "place") else ""
        if self._times:
            place = f"{_at(record)[:19]}Z {place}"
        about += ": " if about else ""
        text = fold(place + level + about + clean(discreet(record.getMessage())), sys.stderr).replace(level, paint(level, level[:-2], sys.stderr), 1)
        if hint := getattr(record, "hint", ""):
            text += "\n" + paint(f"    hint: {clean(hint)}", "dim", sys.stderr)
        if record.exc_info:
            text += "\n" + discreet(logging.Formatter().formatException(record.exc_info))
        say(text, sys.stderr)


def _at(record: logging.LogRecord) -> str:
    return format_time(int(record.created * SECOND))


class _Json(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        said = {"at": _at(record), "level": record.levelname.lower(), "logger": record.name, "message": discreet(record.getMessage())}
        said |= {name: text for name, text in zip(("sync", "run"), RUN.get(), strict=True) if text}
        said |= getattr(record, "fields", {})
        said |= {name: text for name in ("place", "hint") if (text := getattr(record, name, ""))}
        if record.exc_info:
            said["traceback"] = discreet(logging.Formatter().formatException(record.exc_info))
        say(json.dumps(said), sys.stderr)
