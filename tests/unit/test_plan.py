"""What a Run decides, case by case."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.model import Counts, Entry, Revision, Stat, Task, TaskFile, Why
from syncd.plan import Action, Decision, Missing, decide, digest_of, next_cursor, plan_id, tripped

TASK = Task("7", Revision(1, 10, (1, 0, 0)), {}, Counts(1, 1, 0))
FILE = TaskFile("p/7.json", b"{}\n", b"d" * 32)
ENTRY = Entry("7", TASK.revision, TASK.counts, FILE.digest, 3, b"etag")
RIGHT = Stat(FILE.key, 3, b"etag")


def entry(**changes: object) -> Entry:
    return Entry(**{**ENTRY._asdict(), **changes})


@pytest.mark.parametrize(
    ("held", "looked", "found", "expected"),
    [
        (None, False, None, Decision(Action.PUT, Why.NEW)),
        (None, True, None, Decision(Action.PUT, Why.NEW)),
        (None, True, RIGHT, Decision(Action.COMPARE, Why.CHANGED)),
        (ENTRY, False, None, Decision(Action.NOTHING, Why.CHANGED)),
        (ENTRY, True, RIGHT, Decision(Action.NOTHING, Why.CHANGED)),
        (ENTRY, True, None, Decision(Action.PUT, Why.HEALED)),
        (ENTRY, True, Stat(FILE.key, 2, b"etag"), Decision(Action.PUT, Why.HEALED)),
        (ENTRY, True, Stat(FILE.key, 3, b"other"), Decision(Action.COMPARE, Why.HEALED)),
        (entry(digest=b"x" * 32), True, None, Decision(Action.PUT, Why.CHANGED)),
        (entry(digest=b"x" * 32), True, Stat(FILE.key, 3, b"etag"), Decision(Action.COMPARE, Why.CHANGED)),
        (entry(digest=b"x" * 32), True, Stat(FILE.key, 9, b"etag"), Decision(Action.PUT, Why.CHANGED)),
        (entry(size=9), True, RIGHT, Decision(Action.COMPARE, Why.HEALED)),
        (entry(revision=Revision(2, 10, (1, 0, 0))), False, None, Decision(Action.RECORD, Why.CHANGED)),
        (entry(revision=Revision(2, 10, (1, 0, 0)), digest=b"x" * 32), True, RIGHT, Decision(Action.REPLACE, Why.NEW)),
        (entry(revision=Revision(1, 9, (1, 0, 0))), False, None, Decision(Action.RECORD, Why.CHANGED)),
        (entry(revision=Revision(1, 11, (1, 0, 0))), False, None, Decision(Action.RECORD, Why.CHANGED)),
        (entry(counts=Counts(1, 0, 0)), False, None, Decision(Action.RECORD, Why.CHANGED)),
        (entry(drafts=True), False, None, Decision(Action.RECORD, Why.CHANGED)),
        (entry(kept=True), False, None, Decision(Action.RECORD, Why.CHANGED)),
    ],
)
def test_decision(held: Entry | None, looked: bool, found: Stat | None, expected: Decision) -> None:
    assert expected == decide(TASK, FILE, held, looked=looked, found=found)


LIMITS = (0.05, 20)


@pytest.mark.parametrize(
    ("gone", "before", "stops"),
    [
        (0, 100, False),
        (0, 0, False),
        (1, 1, True),
        (9, 10, False),
        (10, 10, True),
        (20, 100, False),
        (21, 100, True),
        (50, 1000, False),
        (51, 1000, True),
    ],
)
def test_guard_lets_a_twentieth_or_twenty_pass_and_never_everything(gone: int, before: int, stops: bool) -> None:
    assert stops == bool(tripped(Missing("p", tuple(map(str, range(gone))), before), *LIMITS))


def test_guard_always_asks_before_a_whole_collection_goes() -> None:
    assert "Collection p is gone" in tripped(Missing("p", (), 1000, whole=digest_of("1")), *LIMITS)


@given(st.lists(st.tuples(st.sampled_from("pq"), st.text(max_size=3)), unique=True, min_size=1), st.randoms())
def test_plan_id_depends_on_the_deletions_alone_and_on_each_of_them(pairs: list[tuple[str, str]], random: object) -> None:
    def plan(chosen: list[tuple[str, str]]) -> str:
        return plan_id("s", [Missing(project, tuple(t for p, t in chosen if p == project), 99) for project in ("p", "q")])

    shuffled = sorted(pairs, key=lambda pair: hash((pair, id(random))))
    assert plan(pairs) == plan(shuffled)
    assert plan(pairs) != plan(pairs[1:])
    assert plan_id("other", []) != plan_id("s", [])
    whole = [plan_id("s", [Missing("p", (), 9, whole=digest_of(task for _, task in some))]) for some in (pairs, pairs[1:], pairs)]
    assert whole[0] == whole[2] != whole[1]


moments = st.integers(0, 10**16)


@given(st.none() | moments, st.none() | moments, st.lists(st.none() | moments))
def test_cursor_never_goes_back_and_never_passes_a_failed_task_it_has_not_passed_before(
    before: int | None, earned: int | None, failed: list[int | None]
) -> None:
    after = next_cursor(before, earned, failed)
    if earned is None:
        assert after == before
        return
    assert after is not None
    assert after >= (before or 0)
    for moment in failed:
        assert after <= max(before or 0, moment or 0)
    if not failed:
        assert after == max(before or 0, earned)
