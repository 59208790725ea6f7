"""Dying on command: wrappers around a real Target and a real Checkpoint that count side effects and end the process's life at the k-th one.

After death every further call dies too, from any thread: nothing a dead process could not do is done. What was in flight in other threads may still
have happened, as with a real SIGKILL.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Died(BaseException):
    """The process is dead. BaseException, so that nothing survives it by `except Exception`."""


class Life:
    """Counts effects; dies before or after the k-th. k None: lives for ever (to learn how many effects there are)."""

    def __init__(self, k: int | None = None, *, after: bool = False) -> None:
        self.effects = 0
        self._k, self._after, self._dead = k, after, False
        self._lock = threading.Lock()

    def effect(self, act: Callable[[], Any]) -> Any:
        with self._lock:
            if self._dead:
                raise Died
            self.effects += 1
            last = self.effects == self._k
            if last:
                self._dead = True
                if not self._after:
                    raise Died
        result = act()
        if last:
            raise Died
        return result


class Mortal:
    """Any object whose named methods are effects; everything else passes through."""

    def __init__(self, inner: object, life: Life, effects: frozenset[str]) -> None:
        self._inner, self._life, self._effects = inner, life, effects

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name not in self._effects:
            return value
        return lambda *args, **kwargs: self._life.effect(lambda: value(*args, **kwargs))


TARGET_EFFECTS = frozenset({"put", "flush", "create", "put_stream", "copy", "delete", "sweep"})
CHECKPOINT_EFFECTS = frozenset({"begin", "commit", "drop", "finish", "clear_events"})
