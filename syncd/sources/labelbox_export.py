"""One export of Labelbox from its start to its last line.

Knows nothing of Checkpoints and of what the lines mean. Rules:
- No second export for one name: after a lost answer to the mutation, the one that was perhaps started is looked for by its name first.
- Where Labelbox lets no more run at a time (10 in a project, 20 in all, whoever started them), wait; a task that takes too long is cancelled.
- A file's address is asked for just before its use; whatever goes wrong with it, a new one is asked for from the byte that was reached. So the bytes
  are exact, or it raises; memory depends on the longest line alone.
- Lines end at the newline byte and nowhere else: strings may hold U+2028.
- A Page is as much as one Batch holds; the first ones are small, so that writing begins at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import NamedTuple

from syncd.clock import Clock
from syncd.errors import SourceError, TaskError, TransientError
from syncd.sources import labelbox_queries as queries
from syncd.sources.labelbox_api import LOG, Api, LimitError, Object, integer, part, text

FIRST_POLL, LONGEST_POLL = 0.2, 5.0  # seconds
FIRST_TURN, LONGEST_TURN = 5.0, 60.0  # seconds between tries to start where no more may run
HEADER_TRIES = 3
RECORD_LOOKS, RECORD_PAUSE = 400, 0.005  # seconds
FIRST_PAGE, LARGEST_PAGE = 1 << 16, 1 << 18  # bytes
_ENDED = frozenset({"FAILED", "CANCELED"})


class Order(NamedTuple):
    """What an export is to hold. of: `Project`, `Catalog`, `Slice` or `ModelRun`."""

    of: str
    filters: Object
    params: Object


class Page(NamedTuple):
    """Some whole lines without their ends, none of them blank, and the offset behind them."""

    lines: list[bytes]
    end: int


class Stream(NamedTuple):
    """What an export holds, or which rows it could not: how many lines are promised, and those that come."""

    promised: int
    pages: Iterator[Page]


class Exports:
    """Starts, waits for and reads exports. timeout: seconds that one may wait for its turn, and then run."""

    def __init__(self, api: Api, clock: Clock, timeout: float) -> None:
        self._api, self._clock, self._timeout = api, clock, timeout

    def start(self, order: Order, name: str) -> str:
        """The id of the one export of that name, started when there is a place for it. Raises SourceError."""
        sent = False

        def attempt() -> str | LimitError:
            nonlocal sent
            if sent and (found := self._api.named(name)):
                return found
            sent = True
            given = {"taskName": name, "isStreamableReady": True, "streamable": True, "filters": order.filters, "params": order.params}
            try:
                data, _ = self._api.once(queries.export(order.of), input=given)
            except LimitError as error:
                return error
            return text(part(data, f"exportDataRowsIn{order.of}"), "taskId")

        pause, end = FIRST_TURN, self._clock.monotonic() + self._timeout
        while isinstance(found := self._api.retried(attempt), LimitError):
            if self._clock.monotonic() > end:
                raise SourceError(f"an export could not be started within {self._timeout:.0f} s: {found}")
            LOG.info("waiting for other exports to end: %s", found)
            self._clock.wait(pause)
            pause = min(pause * 2, LONGEST_TURN)
        return found

    def wait_until(self, recorded: Callable[[], bool]) -> None:
        """Return when it is so; or soon, since a Plan records nothing."""
        for _ in range(RECORD_LOOKS):
            if recorded():
                return
            self._clock.wait(RECORD_PAUSE)

    def usable(self, task: str) -> bool:
        """Whether it can be read, perhaps after waiting."""
        found = self._api.task(task)
        return found is not None and found.get("status") not in {*_ENDED, "CANCELLING"}

    def wait(self, task: str) -> Object:
        """The task, once it is complete. Raises SourceError when it ends in any other way, or not in time."""
        pause, end = FIRST_POLL, self._clock.monotonic() + self._timeout
        while True:
            found = self._api.task(task)
            status = found.get("status") if found is not None else "gone"
            if found is not None and status == "COMPLETE":
                return found
            if found is None or status in _ENDED:
                said = str((found or {}).get("errors") or (found or {}).get("result") or "it names no reason").partition("?")[0]
                raise SourceError(f"export {task} is {status}: {said}")
            if self._clock.monotonic() > end:
                self._api.ask(queries.CANCEL, id=task)
                raise SourceError(f"export {task} was still {status} after {self._timeout:.0f} s and is cancelled; see export_timeout")
            self._clock.wait(pause)
            pause = min(pause * 1.5, LONGEST_POLL)

    def stream(self, task: str, kind: str, offset: int = 0, *, expected: bool = False) -> Stream:
        """kind: RESULT or ERRORS. Its lines that begin at or after `offset`, where one begins. A header that is null, or zero, is an empty stream;
        where rows are expected it is asked for again first.
        """
        for left in range(HEADER_TRIES if expected else 1, 0, -1):
            header = part(self._api.ask(queries.HEADER, where={"id": task}, streamType=kind), "task").get("exportMetadataHeader")
            if isinstance(header, dict) and any(header.values()):
                pieces = self._bytes(task, kind, integer(header, "totalSize"), offset)
                return Stream(integer(header, "totalLines"), _pages(pieces, offset))
            if left > 1:
                self._clock.wait(FIRST_POLL)
        return Stream(0, iter(()))

    def _bytes(self, task: str, kind: str, size: int, at: int) -> Iterator[bytes]:
        """Exactly the bytes from `at` on."""
        while at < size:
            rest = self._api.retried(partial(self._from, task, kind, size, at))
            try:
                for piece in rest:
                    at += len(piece)
                    yield piece
            except (TransientError, TaskError) as error:
                LOG.info("export %s broke off at byte %d and is asked for again: %s", task, at, error)

    def _from(self, task: str, kind: str, size: int, at: int) -> Iterator[bytes]:
        """One try: the bytes of the file that holds `at`, from there on; at least the first piece of them is there when this returns."""
        data, _ = self._api.once(queries.CHUNK, where={"id": task}, streamType=kind, offset=str(at))
        chunk = part(part(data, "task"), "exportFileFromOffset")
        start, end = (integer(part(chunk, "offsets"), name) for name in ("start", "end"))
        if not start <= at <= end < size:
            raise SourceError(f"export {task}: the file for byte {at} of {size} is said to hold bytes {start} to {end}")
        try:
            pieces = _cut(self._api.signed(text(chunk, "file")), at - start, end + 1 - at)
            first = next(pieces, None)
        except TaskError as error:  # expired, perhaps
            raise TransientError(str(error)) from None
        if first is None:
            raise TransientError(f"export {task}: the file for byte {at} ends before it")
        return chain([first], pieces)


def name_for(collection: str) -> str:
    """A name that no other export has."""
    return f"syncd {collection} {secrets.token_hex(8)}"


def _cut(pieces: Iterator[bytes], skip: int, count: int) -> Iterator[bytes]:
    """`count` bytes after `skip` of them; SourceError when there are more."""
    for piece in pieces:
        found = piece[skip:]
        skip = max(0, skip - len(piece))
        if len(found) > count:
            raise SourceError("a file of an export is longer than its offsets say; nothing can be concluded from it")
        count -= len(found)
        if found:
            yield found


def _pages(pieces: Iterable[bytes], at: int) -> Iterator[Page]:
    """Pages of bytes that begin at an offset, at a cost that does not depend on the length of a line."""
    lines, held, size, limit = list[bytes](), list[bytes](), 0, FIRST_PAGE
    for piece in pieces:
        head, *rest = piece.split(b"\n")
        held.append(head)
        at += len(piece)
        size += len(piece)
        if rest:
            rest.insert(0, b"".join(held))
            held = [rest.pop()]
            lines += filter(bytes.strip, rest)
        if rest and size >= limit:
            yield Page(lines, at - len(held[0]))
            lines, size, limit = [], 0, min(limit * 2, LARGEST_PAGE)
    last = b"".join(held)
    if last.strip():
        lines.append(last)
    if lines:
        yield Page(lines, at)
