"""Errors, sorted by what the caller must do.

Imports nothing of syncd. Each edge translates its vendor's errors into these in one place; nothing else catches vendor errors.
Messages say what, where and what to do next, and never carry a secret: a server may give back all that it was asked, headers too, so what is
secret is told to `hide`, and words of others go through `discreet` before they are cut.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

_SHORTEST = 5  # characters: hiding what is shorter would garble every message
_SIGNED = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*|(?<=bearer )[\w.~+/=-]{9,}|(?<=security-token: )\S+|(?<=security-token:)\S+", re.IGNORECASE)
_hidden: set[str] = set()


def hide(secret: str) -> None:
    """No message shows it from now on, percent-encoded neither."""
    if len(secret) >= _SHORTEST:
        _hidden.update({secret, quote(secret, safe=""), quote(secret)})


def discreet(text: str) -> str:
    """The text without what is hidden, and without the tokens that are had for it and expire."""
    for secret in sorted(_hidden, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _SIGNED.sub("***", text)


class SyncdError(Exception):
    """Anything a user can cause: printed as one line, never as a traceback."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(discreet(message))


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a config file; line and column count from 1, 0 when the fault has no place."""

    file: str
    line: int
    column: int
    message: str
    hint: str = ""


class ConfigError(SyncdError):
    """The config can't be used: print every problem, touch nothing."""

    exit_code = 78

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(p.message for p in problems))
        self.problems = tuple(problems)


class TransientError(SyncdError):
    """The only error that is retried. `retry_after` is in seconds, None when the other side named no time; `throttled`: it wants fewer requests."""

    def __init__(self, message: str, retry_after: float | None = None, *, throttled: bool = False) -> None:
        super().__init__(message)
        self.retry_after, self.throttled = retry_after, throttled


class TaskError(SyncdError):
    """One task can't be read, represented or written: skip it, report it, hold the cursor; the others go on."""


class SourceError(SyncdError):
    """The Source can't be trusted now: stop the Run, delete nothing."""


class TargetError(SyncdError):
    """The Target can't be trusted now: stop the Run, delete nothing."""


class AccessError(SourceError, TargetError):
    """Credentials are refused, by a Source or a Target."""

    exit_code = 12


class OwnedError(SyncdError):
    """Another syncd owns this state folder or this place in the Target."""

    exit_code = 11


class CheckpointError(SyncdError):
    """The Checkpoint can't be used or is no longer ours: stop the process before anything else is written."""


class GuardTripped(SyncdError):  # noqa: N818 - the word of the design; it reports a state, not a fault
    """A Run wants to delete more than its rules allow: puts go on, nothing is deleted until a person confirms `plan_id`."""

    exit_code = 20

    def __init__(self, message: str, plan_id: str) -> None:
        super().__init__(message)
        self.plan_id = plan_id


class Stopped(BaseException):
    """Somebody asked the process to stop: finish what is in flight, start nothing new."""
