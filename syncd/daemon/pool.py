"""Which Sync may run now: `workers` Runs at a time, fairly. Pure bookkeeping; whoever uses it holds a lock.

Rules: first come, first served; one Run per Sync at a time; who is called during its own Run comes once more after it. A Run that takes longer than
LONG seconds moves to a lane of its own, as wide as the pool, and frees its place: huge first Runs starve nobody, and 2 x `workers` Runs is the most.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

LONG = 10.0  # seconds: the others wait as long for a place that a silent Target holds


@dataclass(slots=True)
class Pool:
    """waiting: in order; running: since when, by the monotonic clock; long: those of them in the other lane; again: called meanwhile."""

    workers: int
    waiting: deque[str] = field(default_factory=deque)
    running: dict[str, float] = field(default_factory=dict)
    long: set[str] = field(default_factory=set)
    again: set[str] = field(default_factory=set)

    def busy(self, name: str) -> bool:
        """Whether it runs, or waits to."""
        return name in self.running or name in self.waiting

    def call(self, name: str) -> bool:
        """Ask for a Run; False when it adds nothing to what is due or goes on already."""
        if name in self.running:
            self.again.add(name)
            return False
        if name in self.waiting:
            return False
        self.waiting.append(name)
        return True

    def take(self, now: float) -> list[str]:
        """Those that begin now."""
        for name, since in self.running.items():  # the oldest first
            if name not in self.long and now - since >= LONG and len(self.long) < self.workers:
                self.long.add(name)
        free = max(0, self.workers - (len(self.running) - len(self.long)))
        begun = [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]
        self.running.update(dict.fromkeys(begun, now))
        return begun

    def done(self, name: str) -> None:
        """Its Run has ended."""
        del self.running[name]
        self.long.discard(name)
        if name in self.again:
            self.again.remove(name)
            self.waiting.append(name)

    def forget(self, name: str) -> None:
        """Start no more Runs of it."""
        self.again.discard(name)
        if name in self.waiting:
            self.waiting.remove(name)
