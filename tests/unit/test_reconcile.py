"""Counting instead of listing: every difference that shows in a sum is found, and few questions are asked."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from math import ceil, log2

from hypothesis import given
from hypothesis import strategies as st

from syncd.model import Counts
from syncd.reconcile import Range, differing

World = dict[int, Counts]
IDS = st.integers(1, 5_000)
PARTS = st.builds(Counts, st.just(1), st.integers(0, 3), st.integers(0, 3))
WORLDS = st.dictionaries(IDS, PARTS, max_size=60)
EDITS = st.dictionaries(IDS, st.none() | PARTS, max_size=8)


def counter(world: World) -> Callable[[int, int], Counts]:
    def count(low: int, high: int) -> Counts:
        total = Counts(0, 0, 0)
        for task, counts in world.items():
            total = total.plus(counts) if low <= task <= high else total
        return total

    return count


def changed(world: World, edits: dict[int, Counts | None]) -> World:
    return {task: counts for task, counts in (world | edits).items() if counts is not None}


def find(theirs: World, ours: World, low: int = 1, high: int = 5_000, leaf: int = 4) -> tuple[list[Range], list[tuple[int, int]]]:
    asked: list[tuple[int, int]] = []

    def ask(first: int, last: int) -> Counts:
        asked.append((first, last))
        return counter(theirs)(first, last)

    return list(differing(Range(low, high, counter(theirs)(low, high)), ask, counter(ours), leaf=leaf)), asked


@given(WORLDS, EDITS)
def test_the_ranges_found_explain_the_whole_difference(ours: World, edits: dict[int, Counts | None]) -> None:
    """When what was found is put right, the totals agree."""
    theirs = changed(ours, edits)
    found, _ = find(theirs, ours)
    repaired = dict(ours)
    for part in found:
        inside = {task for task in ours | theirs if part.low <= task <= part.high}
        repaired = {task: counts for task, counts in repaired.items() if task not in inside} | {t: theirs[t] for t in inside & theirs.keys()}
    assert counter(theirs)(1, 5_000) == counter(repaired)(1, 5_000)


@given(WORLDS, st.sets(IDS, max_size=10))
def test_every_deletion_and_creation_that_nothing_cancels_is_found(ours: World, touched: set[int]) -> None:
    gone = dict.fromkeys(touched & ours.keys())
    theirs = changed(ours, gone)
    found, _ = find(theirs, ours)
    assert all(any(part.low <= task <= part.high for part in found) for task in gone)
    found, _ = find(ours, theirs)
    assert all(any(part.low <= task <= part.high for part in found) for task in gone)


@given(WORLDS, EDITS)
def test_ranges_are_ascending_disjoint_small_and_really_differ(ours: World, edits: dict[int, Counts | None]) -> None:
    theirs = changed(ours, edits)
    found, _ = find(theirs, ours)
    assert all(before.high < after.low for before, after in itertools.pairwise(found))
    for part in found:
        held = counter(ours)(part.low, part.high)
        assert part.counts == counter(theirs)(part.low, part.high) != held
        assert held.tasks == 0 or part.low == part.high or part.counts.tasks <= 4


@given(WORLDS, EDITS, st.integers(1, 5_000), st.integers(1, 5_000))
def test_nothing_outside_the_range_is_asked_for_and_few_questions_are_enough(
    ours: World, edits: dict[int, Counts | None], one: int, other: int
) -> None:
    low, high = min(one, other), max(one, other)
    theirs = changed(ours, edits)
    _, asked = find(theirs, ours, low, high)
    assert all(low <= first <= last <= high for first, last in asked)
    assert len(asked) <= len(edits) * ceil(log2(high - low + 2))


@given(WORLDS)
def test_equal_sums_cost_nothing(world: World) -> None:
    assert find(world, world) == ([], [])


def test_a_million_tasks_with_one_hole_cost_a_probe_per_halving() -> None:
    asked: list[tuple[int, int]] = []

    def ask(low: int, high: int) -> Counts:
        asked.append((low, high))
        return Counts(high - low + 1 - (low <= 777_777 <= high), 0, 0)

    whole = Range(1, 1_000_000, Counts(999_999, 0, 0))
    (part,) = differing(whole, ask, lambda low, high: Counts(high - low + 1, 0, 0), leaf=100)
    assert part.low <= 777_777 <= part.high
    assert len(asked) <= 14
