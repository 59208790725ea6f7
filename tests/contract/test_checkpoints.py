"""Every sentence of `checkpoint/base.py`, and of `Known`, executed against every Checkpoint. A new one is enrolled by one line."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from syncd.checkpoint import sqlite
from syncd.checkpoint.base import Checkpoint, Commit, Lease
from syncd.errors import CheckpointError, OwnedError
from syncd.model import Collection, CollectionState, Counts, Entry, Event, Failure, Kind, Op, Report, Revision, Status, Why

Opener = Callable[[Path], Checkpoint]

CHECKPOINTS: dict[str, Opener] = {
    "sqlite": sqlite.open,
}

HOSTILE = [
    "",
    "007",
    "-1",
    "+1",
    "1.0",
    " 1",
    "1\n",
    "٣",
    "a/b",
    "../x",
    "a\0b",
    "A",
    "a",
    "é",
    "e\u0301",
    "\ud83d",
    "\ue000",
    "\U0001f600",
    "\ud83d\ude00",
]
HOSTILE += ["9" * 18, "9" * 19, "0", "1" + "0" * 17, "00", "x" * 300, "%2e", "_trash", "18446744073709551616"]


@pytest.fixture(params=list(CHECKPOINTS.values()), ids=list(CHECKPOINTS))
def opener(request: pytest.FixtureRequest) -> Opener:
    return request.param  # type: ignore[no-any-return] # pytest types a parameter as Any


@pytest.fixture
def checkpoint(opener: Opener, tmp_path: Path) -> Iterator[Checkpoint]:
    checkpoint = opener(tmp_path / "state")
    yield checkpoint
    checkpoint.close()


@pytest.fixture
def lease(checkpoint: Checkpoint) -> Lease:
    return checkpoint.begin("cats", "run-1", Kind.INCREMENTAL, 1)


def entry(task: str, *, counts: tuple[int, int, int] = (1, 2, 3), drafts: bool = False, kept: bool = False, activity: int = 7) -> Entry:
    return Entry(task, Revision(1_700_000_000_000_000, activity, (1, 0, 300, -2)), Counts(*counts), bytes(range(32)), 2_100, b'"etag"', drafts, kept)


def event(task: str | None, at: int = 5) -> Event:
    return Event(Op.PUT, Why.NEW if task else Why.SETTINGS, "12", task, bytes(32), 6, at)


def put(checkpoint: Checkpoint, lease: Lease, *entries: Entry) -> None:
    checkpoint.commit(lease, "12", Commit(entries=entries))


class TestEntries:
    def test_an_entry_comes_back_as_it_was_given(self, checkpoint: Checkpoint, lease: Lease) -> None:
        etags = [b"", b"=", b"h", b'"', bytes(range(64)), b"0123456789abcdef" * 2, b'"0123456789abcdef0123456789abcdef"', b"0123456789ABCDEF" * 2]
        given = [entry(str(n))._replace(etag=etag) for n, etag in enumerate(etags)]
        given += [
            entry("a")._replace(revision=Revision(0, 0)),
            entry("b")._replace(revision=Revision(-5, 2**62, (0,)), size=2**40),
            entry("c", drafts=True),
            entry("d", kept=True),
            entry("e", drafts=True, kept=True, counts=(0, 0, 0)),
        ]
        put(checkpoint, lease, *given)
        assert checkpoint.known("cats", "12").entries([e.task for e in given]) == {e.task: e for e in given}

    def test_only_those_that_exist_are_returned_however_many_are_asked(self, checkpoint: Checkpoint, lease: Lease) -> None:
        put(checkpoint, lease, *(entry(str(n)) for n in range(1_200)))
        known = checkpoint.known("cats", "12")
        assert len(known.entries([str(n) for n in range(3_000)])) == 1_200
        assert known.entries([]) == {}
        assert known.entries(["1", "1"]) == {"1": entry("1")}

    def test_an_entry_is_replaced_whole(self, checkpoint: Checkpoint, lease: Lease) -> None:
        put(checkpoint, lease, entry("1", drafts=True))
        other = Entry("1", Revision(8, 9), Counts(1, 0, 0), b"\1" * 32, 3, b"x")
        put(checkpoint, lease, other)
        known = checkpoint.known("cats", "12")
        assert known.entries(["1"]) == {"1": other}
        assert known.counts(0, 9) == other.counts
        assert known.with_drafts() == []
        assert checkpoint.size("cats", "12") == 1

    def test_a_forgotten_entry_is_gone_and_forgetting_may_be_repeated(self, checkpoint: Checkpoint, lease: Lease) -> None:
        put(checkpoint, lease, entry("1"), entry("x"))
        for _ in range(2):
            checkpoint.commit(lease, "12", Commit(forgotten=["1", "never was"]))
        assert list(checkpoint.known("cats", "12").all_ids()) == ["x"]
        assert checkpoint.size("cats", "12") == 1

    def test_a_reused_id_may_be_forgotten_and_recorded_in_one_commit(self, checkpoint: Checkpoint, lease: Lease) -> None:
        put(checkpoint, lease, entry("1"))
        checkpoint.commit(lease, "12", Commit(entries=[entry("1", activity=99)], forgotten=["1"]))
        assert checkpoint.known("cats", "12").entries(["1"])["1"].revision.last_activity == 99
        assert checkpoint.size("cats", "12") == 1

    def test_hostile_ids_stay_distinct_and_unchanged(self, checkpoint: Checkpoint, lease: Lease) -> None:
        put(checkpoint, lease, *(entry(task) for task in HOSTILE))
        known = checkpoint.known("cats", "12")
        assert known.entries(HOSTILE) == {task: entry(task) for task in HOSTILE}
        assert sorted(known.all_ids()) == sorted(HOSTILE)
        checkpoint.commit(lease, "12", Commit(forgotten=["0"]))
        assert "00" in known.entries(["0", "00"])

    def test_every_entry_of_a_sync_comes_with_its_collection_kept_ones_too(self, checkpoint: Checkpoint, lease: Lease) -> None:
        kept = entry("7")._replace(kept=True)
        put(checkpoint, lease, entry("x"), entry("10"), kept)
        checkpoint.commit(lease, "13", Commit(entries=[entry("2")]))
        checkpoint.commit(checkpoint.begin("dogs", "run-1", Kind.FULL, 1), "12", Commit(entries=[entry("3")]))
        assert list(checkpoint.entries("cats")) == [("12", kept), ("12", entry("10")), ("12", entry("x")), ("13", entry("2"))]
        assert list(checkpoint.entries("none")) == []

    def test_collections_and_syncs_do_not_share_anything(self, checkpoint: Checkpoint, lease: Lease) -> None:
        dogs = checkpoint.begin("dogs", "run-1", Kind.FULL, 1)
        put(checkpoint, lease, entry("1"))
        checkpoint.commit(lease, "13", Commit(entries=[entry("2")]))
        checkpoint.commit(dogs, "12", Commit(entries=[entry("3")]))
        names = [("cats", "12"), ("cats", "13"), ("dogs", "12"), ("dogs", "13")]
        assert [list(checkpoint.known(*name).all_ids()) for name in names] == [["1"], ["2"], ["3"], []]

    def test_an_unknown_collection_is_empty_until_it_is_known(self, checkpoint: Checkpoint, lease: Lease) -> None:
        known = checkpoint.known("cats", "12")
        assert (known.entries(["1"]), known.counts(0, 9), known.ids(0, 9), list(known.all_ids()), known.last_id()) == ({}, Counts(), [], [], 0)
        assert (known.with_drafts(), known.failing(), known.notes(["n"]), list(known.all_notes()), known.note_count()) == ([], [], {}, [], 0)
        assert (checkpoint.size("cats", "12"), checkpoint.kept("cats", "12")) == (0, 0)
        put(checkpoint, lease, entry("1"))
        assert known.last_id() == 1


class TestRangesAndOrder:
    def test_counts_are_sums_over_live_integer_ids_in_the_range(self, checkpoint: Checkpoint, lease: Lease) -> None:
        put(checkpoint, lease, entry("5", counts=(1, 1, 10)), entry("10", counts=(1, 2, 20)), entry("30", counts=(1, 4, 40)))
        put(checkpoint, lease, entry("20", counts=(1, 100, 100), kept=True), entry("x", counts=(1, 1_000, 1_000)), entry("007"))
        known = checkpoint.known("cats", "12")
        assert known.counts(5, 30) == known.counts(0, 10**30) == known.counts(-(10**30), 31) == Counts(3, 7, 70)
        assert known.counts(6, 30) == Counts(2, 6, 60)
        assert known.counts(5, 29) == Counts(2, 3, 30)
        assert known.counts(10, 10) == Counts(1, 2, 20)
        assert known.counts(20, 20) == known.counts(30, 5) == Counts()

    def test_ids_are_the_live_integers_of_the_range_ascending(self, checkpoint: Checkpoint, lease: Lease) -> None:
        put(checkpoint, lease, *(entry(task) for task in ("100", "9", "10", "0", "x", "09")), entry("50", kept=True))
        known = checkpoint.known("cats", "12")
        assert known.ids(0, 100) == ["0", "9", "10", "100"]
        assert known.ids(9, 99) == ["9", "10"]
        assert known.ids(-5, 10**40) == ["0", "9", "10", "100"]

    def test_all_ids_gives_integers_ascending_then_texts_by_code_point(self, checkpoint: Checkpoint, lease: Lease) -> None:
        put(checkpoint, lease, *(entry(task) for task in HOSTILE), *(entry(str(n)) for n in range(5_000)), entry("12345", kept=True))
        integers = [*(str(n) for n in range(5_000)), "1" + "0" * 17, "9" * 18]
        texts = sorted(set(HOSTILE) - set(integers))
        assert list(checkpoint.known("cats", "12").all_ids()) == integers + texts

    def test_the_last_id_is_the_greatest_live_integer(self, checkpoint: Checkpoint, lease: Lease) -> None:
        known = checkpoint.known("cats", "12")
        put(checkpoint, lease, entry("x"), entry("007"))
        assert known.last_id() == 0
        put(checkpoint, lease, entry("9"), entry("10"), entry("11", kept=True))
        assert known.last_id() == 10

    def test_all_ids_and_events_may_be_read_while_commits_go_on(self, checkpoint: Checkpoint, lease: Lease) -> None:
        put(checkpoint, lease, *(entry(str(n)) for n in range(6_000)))
        seen = []
        for task in checkpoint.known("cats", "12").all_ids():
            seen.append(task)
            if len(seen) % 1_000 == 0:
                put(checkpoint, lease, entry(task, activity=99))
        assert seen == [str(n) for n in range(6_000)]


class TestKeptDraftsAndFailures:
    def test_kept_entries_are_returned_by_entries_and_counted_apart(self, checkpoint: Checkpoint, lease: Lease) -> None:
        put(checkpoint, lease, entry("1", drafts=True), entry("2"), entry("x", drafts=True))
        put(checkpoint, lease, entry("1", drafts=True, kept=True), entry("x", kept=True))
        known = checkpoint.known("cats", "12")
        assert known.entries(["1", "x"]).keys() == {"1", "x"}
        assert (checkpoint.size("cats", "12"), checkpoint.kept("cats", "12")) == (1, 2)
        assert (list(known.all_ids()), known.ids(0, 9), known.last_id(), known.with_drafts()) == (["2"], ["2"], 2, [])
        assert known.counts(0, 9) == Counts(1, 2, 3)
        put(checkpoint, lease, entry("1"))
        checkpoint.commit(lease, "12", Commit(forgotten=["x"]))
        assert (checkpoint.size("cats", "12"), checkpoint.kept("cats", "12")) == (2, 0)

    def test_drafts_are_listed(self, checkpoint: Checkpoint, lease: Lease) -> None:
        put(checkpoint, lease, entry("10", drafts=True), entry("9", drafts=True), entry("8"), entry("x", drafts=True))
        assert checkpoint.known("cats", "12").with_drafts() == ["9", "10", "x"]

    def test_a_failure_lasts_until_the_task_succeeds_is_cleared_or_forgotten(self, checkpoint: Checkpoint, lease: Lease) -> None:
        failures = [Failure("12", task, f"can't read {task}: \ud800", 5) for task in ("1", "2", "3", "4", "x")]
        checkpoint.commit(lease, "12", Commit(failed=[*failures, Failure("12", None, "a whole file")]))
        known = checkpoint.known("cats", "12")
        assert known.failing() == ["1", "2", "3", "4", "x"]
        assert checkpoint.failures("cats") == failures
        checkpoint.commit(lease, "12", Commit(entries=[entry("1")], forgotten=["2"], cleared=["3"]))
        again = Failure("12", "4", "still", None)
        checkpoint.commit(lease, "12", Commit(failed=[again]))
        assert checkpoint.failures("cats") == [again, failures[-1]]
        assert checkpoint.size("cats", "12") == 1

    def test_a_failing_task_keeps_its_entry(self, checkpoint: Checkpoint, lease: Lease) -> None:
        put(checkpoint, lease, entry("1"))
        checkpoint.commit(lease, "12", Commit(failed=[Failure("12", "1", "no")]))
        assert checkpoint.known("cats", "12").entries(["1"]) == {"1": entry("1")}

    def test_failures_come_by_collection_and_id(self, checkpoint: Checkpoint, lease: Lease) -> None:
        for collection, task in [("b", "1"), ("a", "x"), ("a", "10"), ("a", "9")]:
            checkpoint.commit(lease, collection, Commit(failed=[Failure(collection, task, "no")]))
        assert [(f.project, f.task) for f in checkpoint.failures("cats")] == [("a", "9"), ("a", "10"), ("a", "x"), ("b", "1")]
        assert [f.task for f in checkpoint.failures("cats", 2, "a")] == ["9", "10"]
        assert [f.project for f in checkpoint.failures("cats", collection="b")] == ["b"]
        assert checkpoint.failures("cats", 2) == checkpoint.failures("cats")[:2]
        assert checkpoint.failures("dogs") == []


class TestNotesAndState:
    def test_notes_are_remembered_replaced_and_forgotten(self, checkpoint: Checkpoint, lease: Lease) -> None:
        names = ["b", "a\0", "é", "\udcff", "12", "3"]
        checkpoint.commit(lease, "12", Commit(notes={name: name.encode("utf-8", "surrogatepass") for name in names}))
        checkpoint.commit(lease, "12", Commit(notes={"b": b"", "12": None, "never was": None}))
        known = checkpoint.known("cats", "12")
        left = sorted(set(names) - {"12"})
        assert [name for name, _ in known.all_notes()] == left
        assert known.notes([*names, "never was"]) == dict(known.all_notes())
        assert known.notes(["b"]) == {"b": b""}
        assert known.note_count() == len(left)

    def test_all_notes_are_streamed_by_name(self, checkpoint: Checkpoint, lease: Lease) -> None:
        notes = {f"{n:05}": bytes([n % 256]) for n in range(5_000)}
        checkpoint.commit(lease, "12", Commit(notes=notes))
        assert dict(checkpoint.known("cats", "12").all_notes()) == notes

    def test_a_state_comes_back_as_it_was_given_and_is_replaced_whole(self, checkpoint: Checkpoint, lease: Lease) -> None:
        full = CollectionState(Collection("12", "Cats \udcff \U0001f600", 5, 10), 3, "é/\udcff\0", 4, b"\1" * 32, 9, (7, 0, -1, 2**60), fresh=True)
        bare = CollectionState(Collection("a/b", ""))
        checkpoint.commit(lease, "12", Commit(state=full))
        checkpoint.commit(lease, "a/b", Commit(state=bare))
        checkpoint.commit(lease, "stateless", Commit(entries=[entry("1")]))
        assert checkpoint.states("cats") == {"12": full, "a/b": bare}
        assert checkpoint.states("dogs") == {}
        put(checkpoint, lease, entry("1"))
        assert checkpoint.states("cats")["12"] == full
        checkpoint.commit(lease, "12", Commit(state=CollectionState(Collection("12", "Dogs"))))
        assert checkpoint.states("cats")["12"] == CollectionState(Collection("12", "Dogs"))

    def test_a_dropped_collection_leaves_nothing(self, checkpoint: Checkpoint, lease: Lease) -> None:
        checkpoint.commit(lease, "12", Commit(entries=[entry("1")], failed=[Failure("12", "2", "no")], notes={"n": b"1"}, events=[event("1")]))
        checkpoint.commit(lease, "12", Commit(state=CollectionState(Collection("12", "Cats")), forgotten=["1"]))
        for _ in range(2):
            checkpoint.drop(lease, "12")
        assert (checkpoint.states("cats"), checkpoint.failures("cats")) == ({}, [])
        put(checkpoint, lease, entry("9"))
        known = checkpoint.known("cats", "12")
        assert (known.failing(), known.note_count(), list(known.all_ids()), known.counts(0, 99)) == ([], 0, ["9"], Counts(1, 2, 3))
        assert list(checkpoint.events("cats", "run-1")) == [event("1")], "what happened to files stays to be told"

    @pytest.mark.parametrize("kept", [False, True])
    def test_a_collection_with_entries_is_not_dropped(self, checkpoint: Checkpoint, lease: Lease, kept: bool) -> None:
        put(checkpoint, lease, entry("1", kept=kept))
        with pytest.raises(CheckpointError, match="Entries"):
            checkpoint.drop(lease, "12")
        assert checkpoint.known("cats", "12").entries(["1"])


class TestRunsAndEvents:
    def test_a_run_stands_in_the_history_from_its_begin(self, checkpoint: Checkpoint) -> None:
        lease = checkpoint.begin("cats", "r1", Kind.FULL, 10)
        (run,) = checkpoint.runs("cats", 5)
        assert (run.sync, run.run_id, run.kind, run.started_at, run.finished_at, run.status) == ("cats", "r1", Kind.FULL, 10, None, None)
        failed = [Failure("12", str(n), "no \udcff") for n in range(5_000)]
        report = Report("cats", "r1", Kind.FULL, Status.PARTIAL, written=3, failed=failed, cursors={"12": (None, 7)})
        checkpoint.finish(lease, report, 20)
        (run,) = checkpoint.runs("cats", 5)
        assert (run.finished_at, run.status, run.report["written"], run.report["failed_count"]) == (20, Status.PARTIAL, 3, 5_000)
        assert run.report["failed"][0]["error"] == "no \udcff"  # type: ignore[index] # JSON
        assert run.report["cursors"] == {"12": [None, 7]}

    def test_a_killed_run_stays_without_an_end(self, checkpoint: Checkpoint) -> None:
        checkpoint.begin("cats", "r1", Kind.FULL, 10)
        second = checkpoint.begin("cats", "r2", Kind.INCREMENTAL, 11)
        checkpoint.finish(second, Report("cats", "r2", Kind.INCREMENTAL), 12)
        assert [(r.run_id, r.status) for r in checkpoint.runs("cats", 5)] == [("r2", Status.OK), ("r1", None)]
        assert [r.run_id for r in checkpoint.runs("cats", 1)] == ["r2"]
        assert checkpoint.runs("dogs", 5) == []

    def test_the_last_full_is_the_begin_of_the_last_one_that_was_not_lost(self, checkpoint: Checkpoint) -> None:
        assert checkpoint.last_full("cats") is None
        ends = [Status.OK, Status.PARTIAL, Status.GUARDED, Status.FAILED]
        for at, status in enumerate(ends, 10):
            lease = checkpoint.begin("cats", f"r{at}", Kind.FULL, at)
            checkpoint.finish(lease, Report("cats", f"r{at}", Kind.FULL, status), 99)
            assert checkpoint.last_full("cats") == min(at, 12)
        lease = checkpoint.begin("cats", "inc", Kind.INCREMENTAL, 50)
        checkpoint.finish(lease, Report("cats", "inc", Kind.INCREMENTAL), 99)
        checkpoint.begin("cats", "killed", Kind.FULL, 60)
        assert checkpoint.last_full("cats") == 12

    def test_the_last_thousand_runs_are_kept_and_the_last_full_outlives_them(self, checkpoint: Checkpoint) -> None:
        told = checkpoint.begin("cats", "full", Kind.FULL, 1)
        checkpoint.finish(told, Report("cats", "full", Kind.FULL), 2)
        waiting = checkpoint.begin("cats", "waiting", Kind.INCREMENTAL, 3)
        checkpoint.commit(waiting, "12", Commit(events=[event("1")]))
        for n in range(1_001):
            lease = checkpoint.begin("cats", str(n), Kind.INCREMENTAL, 4)
        checkpoint.finish(lease, Report("cats", "1000", Kind.INCREMENTAL), 5)
        runs = [run.run_id for run in checkpoint.runs("cats", 5_000)]
        assert runs[:1_000] == [str(n) for n in range(1_000, 0, -1)]
        assert "full" not in runs
        assert checkpoint.last_full("cats") == 1
        assert list(checkpoint.events("cats", "waiting")) == [event("1")], "a Run whose feed is not written is never pruned"

    def test_events_are_streamed_in_order_again_and_again(self, checkpoint: Checkpoint, lease: Lease) -> None:
        given = [event(None if n == 7 else f"{n % 3}", at=n) for n in range(5_000)]
        for start in range(0, 5_000, 500):
            checkpoint.commit(lease, "12", Commit(events=given[start : start + 500]))
        for _ in range(2):
            assert list(checkpoint.events("cats", "run-1")) == given
        assert list(checkpoint.events("cats", "other")) == []
        assert list(checkpoint.events("dogs", "run-1")) == []

    def test_events_wait_for_their_feed_oldest_run_first(self, checkpoint: Checkpoint) -> None:
        for run_id in ("z", "a", "silent"):
            lease = checkpoint.begin("cats", run_id, Kind.INCREMENTAL, 1)
            if run_id != "silent":
                checkpoint.commit(lease, "12", Commit(events=[event("1"), event("\ud800")]))
        assert checkpoint.pending_feeds("cats") == ["z", "a"]
        checkpoint.clear_events(lease, "z")
        assert checkpoint.pending_feeds("cats") == ["a"]
        assert list(checkpoint.events("cats", "z")) == []
        assert list(checkpoint.events("cats", "a")) == [event("1"), event("\ud800")]
        assert checkpoint.pending_feeds("dogs") == []

    def test_events_after_a_clearing_wait_anew(self, checkpoint: Checkpoint, lease: Lease) -> None:
        checkpoint.commit(lease, "12", Commit(events=[event("1")]))
        checkpoint.clear_events(lease, "run-1")
        checkpoint.commit(lease, "12", Commit(events=[event("2")]))
        assert checkpoint.pending_feeds("cats") == ["run-1"]
        assert list(checkpoint.events("cats", "run-1")) == [event("2")]


class TestPromises:
    def test_what_was_recorded_is_there_after_reopening(self, opener: Opener, tmp_path: Path) -> None:
        first = opener(tmp_path)
        lease = first.begin("cats", "r1", Kind.FULL, 1)
        state = CollectionState(Collection("12", "Cats"), cursor=4)
        first.commit(lease, "12", Commit(entries=[entry("1")], events=[event("1")], notes={"n": b"v"}, state=state))
        first.close()
        second = opener(tmp_path)
        assert second.id == first.id
        assert second.known("cats", "12").entries(["1"]) == {"1": entry("1")}
        assert (second.states("cats"), second.pending_feeds("cats")) == ({"12": state}, ["r1"])
        assert second.begin("cats", "r2", Kind.FULL, 1).epoch > lease.epoch
        second.close()

    def test_each_checkpoint_has_its_own_name(self, opener: Opener, tmp_path: Path) -> None:
        a, b = opener(tmp_path / "a"), opener(tmp_path / "b")
        assert a.id
        assert a.id != b.id
        a.close()
        b.close()

    def test_one_at_a_time(self, opener: Opener, tmp_path: Path) -> None:
        first = opener(tmp_path)
        with pytest.raises(OwnedError):
            opener(tmp_path)
        first.close()
        opener(tmp_path).close()

    def test_an_older_lease_is_fenced_and_records_nothing(self, checkpoint: Checkpoint) -> None:
        old = checkpoint.begin("cats", "r1", Kind.FULL, 1)
        put(checkpoint, old, entry("1"))
        checkpoint.commit(old, "12", Commit(events=[event("1")]))
        dogs = checkpoint.begin("dogs", "r1", Kind.FULL, 1)
        new = checkpoint.begin("cats", "r2", Kind.FULL, 2)
        fenced: list[Callable[[], None]] = [
            lambda: checkpoint.commit(old, "12", Commit(entries=[entry("2")])),
            lambda: checkpoint.drop(old, "12"),
            lambda: checkpoint.clear_events(old, "r1"),
            lambda: checkpoint.finish(old, Report("cats", "r1", Kind.FULL), 3),
            lambda: checkpoint.commit(Lease("unheard", "r1", 1), "12", Commit(entries=[entry("2")])),
        ]
        for attempt in fenced:
            with pytest.raises(CheckpointError, match="fenced"):
                attempt()
        assert list(checkpoint.known("cats", "12").all_ids()) == ["1"]
        assert checkpoint.pending_feeds("cats") == ["r1"]
        assert checkpoint.last_full("cats") is None
        put(checkpoint, new, entry("2"))
        put(checkpoint, dogs, entry("3"))

    def test_a_commit_is_recorded_whole_or_not_at_all(self, checkpoint: Checkpoint, lease: Lease) -> None:
        broken = CollectionState(Collection("12", "Cats", created_at=2**70))
        with pytest.raises(CheckpointError):
            checkpoint.commit(lease, "12", Commit(entries=[entry("1")], failed=[Failure("12", "2", "no")], events=[event("1")], state=broken))
        assert checkpoint.known("cats", "12").entries(["1"]) == {}
        assert (checkpoint.size("cats", "12"), checkpoint.failures("cats"), checkpoint.pending_feeds("cats")) == (0, [], [])
        put(checkpoint, lease, entry("1"))
        assert checkpoint.size("cats", "12") == 1

    def test_readers_in_other_threads_see_whole_commits_while_they_happen(self, checkpoint: Checkpoint, lease: Lease) -> None:
        known, wrong, done = checkpoint.known("cats", "12"), [], threading.Event()

        def read() -> None:
            while not done.is_set():
                counts, several = known.counts(0, 10**6), known.counts(1, 50_000)
                entries = known.entries(["0", "50"])
                size = checkpoint.size("cats", "12")
                if (
                    counts.tasks % 100
                    or several.tasks % 100 not in {0, 99}
                    or size % 100
                    or len({e.revision.last_activity for e in entries.values()}) > 1
                ):
                    wrong.append((counts, several, size, entries))

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for n in range(60):
            more = [entry(str(100 * n + k)) for k in range(100)]
            put(checkpoint, lease, *more, entry("0", activity=n), entry("50", activity=n))
        done.set()
        for thread in threads:
            thread.join()
        assert not wrong
        assert known.counts(0, 10**6).tasks == 6_000
