"""Rows of the Checkpoint that a flipped bit has made into something else."""

from __future__ import annotations

import pytest

from syncd.checkpoint.sqlite import _state
from syncd.checkpoint.sqlite_known import entry_of, row_of
from syncd.model import Collection, CollectionState, Counts, Entry, Revision

ENTRY = Entry("7", Revision(1, 2, (3, 4)), Counts(1, 2, 3), b"d" * 32, 9, b"etag", drafts=True, kept=False)
ROW = tuple(int(value) if isinstance(value, bool) else value for value in row_of(1, ENTRY)[1:])  # as SQLite gives them back


def test_a_sound_row_is_the_entry_whether_its_id_is_a_number_or_a_text() -> None:
    assert entry_of(ROW) == ENTRY
    assert entry_of((b"seven", *ROW[1:], "another column")).task == "seven"


@pytest.mark.parametrize("column", range(12))
@pytest.mark.parametrize("wrong", [None, 1.5, 7, "7", b"7"], ids=repr)
def test_a_value_of_another_type_is_never_taken_for_an_entry(column: int, wrong: object) -> None:
    if type(wrong) is type(ROW[column]) or (column == 0 and isinstance(wrong, bytes)):
        pytest.skip("that is its type")
    with pytest.raises(ValueError, match="holds"):
        entry_of((*ROW[:column], wrong, *ROW[column + 1 :]))


STATE = (b"12", b"Cats", 5, 10, 3, b"page", 4, b"d" * 32, 9, "7,0", 1)


def test_a_sound_row_is_the_state() -> None:
    assert _state(STATE) == CollectionState(Collection("12", "Cats", 5, 10), 3, "page", 4, b"d" * 32, 9, (7, 0), fresh=True)
    assert _state((*STATE[:3], None, None, None, None, *STATE[7:])).cursor is None


@pytest.mark.parametrize("column", range(11))
@pytest.mark.parametrize("wrong", [None, 1.5, 7, "7", b"7"], ids=repr)
def test_a_value_of_another_type_is_never_taken_for_a_state(column: int, wrong: object) -> None:
    if type(wrong) is type(STATE[column]) or (wrong is None and column in range(3, 7)):
        pytest.skip("that is its type")
    with pytest.raises(ValueError, match="holds"):
        _state((*STATE[:column], wrong, *STATE[column + 1 :]))
