"""Which id ranges a Source and the Checkpoint disagree about, found by counting instead of listing (section 4, part 2).

Pure: it asks through the callables it is given and decides nothing about tasks. Rules:
- The left half of a range is asked for, on both sides, and the right half is what remains: d differences among N tasks cost about
  d·log2(N / leaf) requests, and the Checkpoint sums N entries for one of them.
- A range whose sums agree is not looked into: two changes that cancel out in all three numbers stay for the full Run.
- Nothing outside the given range is ever asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from syncd.model import Counts

Count = Callable[[int, int], Counts]
"""The sums over low <= id <= high."""


class Range(NamedTuple):
    """A range worth listing; `counts` is what the Source counts in it."""

    low: int
    high: int
    counts: Counts


def differing(whole: Range, ask: Count, held: Count, *, leaf: int) -> Iterator[Range]:
    """The ranges of `whole` whose sums differ, ascending and disjoint: each of at most `leaf` tasks in the Source, or one where nothing is held yet.

    How many tasks of a range are held and gone does not matter: listing what is there tells them all. `ask` is a request to the Source; `held` is
    what the Checkpoint will hold. Both are called lazily, as ranges are consumed.
    """
    stack = [(whole, held(whole.low, whole.high))]
    while stack:
        part, ours = stack.pop()
        if part.counts == ours:
            continue
        if part.low == part.high or ours.tasks == 0 or part.counts.tasks <= leaf:
            yield part
            continue
        middle = (part.low + part.high) // 2
        left, left_ours = ask(part.low, middle), held(part.low, middle)
        stack.append((Range(middle + 1, part.high, part.counts.minus(left)), ours.minus(left_ours)))
        stack.append((Range(part.low, middle, left), left_ours))
