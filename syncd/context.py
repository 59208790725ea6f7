"""Which Run a thread works for, so that each of its log lines can say it. Imports nothing of syncd."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

RUN: ContextVar[tuple[str, str]] = ContextVar("run", default=("", ""))
"""Name of the Sync and id of the Run; empty outside of a Run. A new thread knows it only when it runs in a copy of the context."""


@contextmanager
def about(sync: str, run_id: str) -> Iterator[None]:
    """What this thread logs meanwhile is about that Run."""
    token = RUN.set((sync, run_id))
    try:
        yield
    finally:
        RUN.reset(token)
