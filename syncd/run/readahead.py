"""Reading ahead: the next page is on its way while this one is encoded, put and recorded.

Refuses to be a queue for anything else. The reading runs in one thread, a bounded number of items ahead; what it raises is raised here.
"""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

from syncd.clock import Clock

T = TypeVar("T")
_POLL = 0.2  # seconds between looks at a stop request


def read_ahead(items: Iterator[T], clock: Clock, depth: int = 2) -> Iterator[T]:
    """The same items, read up to `depth` ahead in another thread. Raises Stopped soon after a stop request, whatever the reader is waiting for."""
    reader = _Reader(items, depth)
    # a daemon: a reader stuck in a slow answer must not keep a stopped process alive
    threading.Thread(target=contextvars.copy_context().run, args=(reader.fill,), name="syncd-read", daemon=True).start()
    try:
        while True:
            clock.wait(0)
            try:
                found = reader.box.get(timeout=_POLL)
            except queue.Empty:
                continue
            if isinstance(found, _End):
                if found.error is not None:
                    raise found.error
                return
            yield found
    finally:
        reader.abandoned.set()


class _End:
    """The reading is over; `error` says how, when badly."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Reader(Generic[T]):
    def __init__(self, items: Iterator[T], depth: int) -> None:
        self._items = items
        self.box: queue.Queue[T | _End] = queue.Queue(depth)
        self.abandoned = threading.Event()

    def fill(self) -> None:
        try:
            for item in self._items:
                self._offer(item)
                if self.abandoned.is_set():
                    return
            self._offer(_End())
        except BaseException as error:  # noqa: BLE001 - nothing is swallowed: it is raised in the thread that reads
            self._offer(_End(error))

    def _offer(self, item: T | _End) -> None:
        while not self.abandoned.is_set():
            with contextlib.suppress(queue.Full):
                self.box.put(item, timeout=_POLL)
                return
