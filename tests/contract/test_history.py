"""History on object stores: what it costs a Run, and the versions that a bucket keeps itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from syncd.errors import TargetError
from syncd.keys import Layout
from syncd.model import Kind, Status
from syncd.targets import gcs, s3
from syncd.targets.base import Versioned
from syncd.upkeep.asof import Question, find
from syncd.upkeep.history import Stood, versions_of
from tests.fakes.gcs_server import GcsServer
from tests.fakes.memory import SECOND, MemorySource
from tests.fakes.places import BUCKET, PlaceToTest, S3Server, gcs_place, s3_place
from tests.fakes.rig import Rig, TestClock


@pytest.fixture(scope="module", params=["s3", "gcs"])
def bucket(request: pytest.FixtureRequest) -> Iterator[PlaceToTest]:
    """One that keeps versions."""
    if request.param == "s3":
        with S3Server() as store:
            store.client().create_bucket(Bucket="forgetful")
            store.client().put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
            yield s3_place(store.url)
    else:
        with GcsServer() as stand_in:
            stand_in.create_bucket(BUCKET)
            stand_in.create_bucket("forgetful")
            stand_in.set_up(BUCKET, versioning={"enabled": True})
            yield gcs_place(stand_in.url)


_NUMBERS = itertools.count()


@pytest.fixture
def rig(bucket: PlaceToTest, tmp_path: Path) -> Rig:
    """In a place of its own."""
    prefix = f"{bucket.settings['prefix']}-{next(_NUMBERS)}"
    return Rig(MemorySource(), lambda: bucket.open(prefix=prefix), tmp_path / "state")


def edit(rig: Rig, version: int, *tasks: int) -> None:
    source: Any = rig.source
    source.now += SECOND
    for task in tasks:
        source.put("1", str(task), {"id": task, "data": {"version": version}, "annotations": []})


def versions(rig: Rig, task: str = "1", *, bucket: bool) -> list[Stood]:
    with closing(rig.open_target()) as target:
        return list(versions_of(target, Layout(), "1", task, bucket=bucket))


def test_a_changed_task_costs_one_request_more(rig: Rig) -> None:
    costs = {}
    kept: list[dict[str, Any]] = [{}, {}, {"history": {"keep_last": 2}}, {"history": {"bucket": True}}]
    for version, rig.rules in enumerate(kept):
        edit(rig, version, *range(1, 31))
        report = rig.run()
        assert (Status.OK, 30) == (report.status, report.written)
        costs[version] = report.target_requests
    assert (costs[1] + 30, costs[1]) == (costs[2], costs[3])
    assert 30 == sum("/_history/" in key for key in rig.files())


def test_what_is_kept_is_shown_and_pruned(rig: Rig) -> None:
    rig.rules = {"history": {"keep_last": 2}}
    for version in range(5):
        edit(rig, version, 1, 2)
        rig.run(Kind.FULL)
    rig.run(Kind.FULL)
    found = versions(rig, bucket=False)
    assert ["now", "history", "history"] == [each.where for each in found]
    assert [("version",), ("version",), None] == [each.changes and each.changes[0].fields for each in found]
    assert found[2].changes is None
    assert [found[1].until, found[2].until] == [found[0].since, found[1].since]


def test_the_buckets_own_versions_are_shown(rig: Rig) -> None:
    rig.rules = {"history": {"bucket": True}}
    for version in range(3):
        edit(rig, version, 1, 2)
        edit(rig, version, 12)
        rig.run()
    source: Any = rig.source
    del source.world["1"].tasks["1"]
    rig.run()
    stands, gone = versions(rig, "2", bucket=True), versions(rig, "1", bucket=True)
    assert [3, 3] == [len(stands), len(gone)]
    assert [None, True, True] == [each.until and each.until >= (each.since or 0) > 0 for each in stands]
    assert [True] * 3 == [bool(each.until) for each in gone]
    assert [1, 1, None] == [each.changes and len(each.changes) for each in gone]
    assert {each.digest for each in gone}.isdisjoint(each.digest for each in stands)
    assert not any("/_history/" in key for key in rig.files())


def test_what_stood_at_a_time_is_found_among_the_buckets_own_versions(rig: Rig) -> None:
    rig.rules = {"history": {"bucket": True}, "trash_retention": "0s"}
    source: Any = rig.source
    moments: list[tuple[int, dict[str, bytes]]] = []
    for version in range(4):
        edit(rig, version, 1, 2, 3 + version)
        source.world["1"].settings["label_config"] = f"<View{version}/>"
        del source.world["1"].tasks[str(3 if version == 1 else 4 if version == 2 else 1)]
        rig.run(Kind.FULL)
        moments.append((rig.clock.now(), {key: data for key, data in rig.files().items() if key.startswith("1/") and "/_trash/" not in key}))
    assert not any("/_history/" in key for key in rig.files())
    with closing(rig.open_target()) as target:
        for at, stood in moments:
            found = list(find(target, Layout(), rig.clock, Question(at=at, bucket=True)))
            assert {one.key: (one.data, one.why) for one in found} == {key: (data, "") for key, data in stood.items()}
        assert [one.why for one in find(target, Layout(), rig.clock, Question(at=moments[0][0])) if one.why]


@pytest.mark.parametrize("vendor", [s3, gcs])
def test_one_client_asks_for_versions_whoever_wants_them(vendor: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The danger: a restore as of a time asks for hundreds of tasks at a time, and each client of S3 takes 8 MB and 0.2 s, of GCS a token."""
    make, made, clock = vendor._client, list[object](), TestClock()

    def counted(*args: Any) -> object:
        made.append(make(*args))
        return made[-1]

    monkeypatch.setattr(vendor, "_client", counted)
    with S3Server() if vendor is s3 else GcsServer() as server, ThreadPoolExecutor(15) as pool:
        if isinstance(server, GcsServer):
            server.create_bucket(BUCKET)
        place = s3_place(server.url) if vendor is s3 else gcs_place(server.url)
        target = vendor.open(vendor.Config.model_validate({"type": place.kind, **place.settings}), clock)
        target.put("1/1.json", b"{}")
        for minutes in (0, 60):  # the keys of S3 end
            clock.micros += minutes * 60 * SECOND
            assert [1] * 30 == list(pool.map(lambda _: len(list(target.versions("1/1.json"))), range(30)))
    assert len(made) == (2 if vendor is s3 else 1)
    assert "pool is full" not in caplog.text


def test_versions_that_can_not_be_read_are_a_target_error(bucket: PlaceToTest) -> None:
    with closing(bucket.open(bucket="nosuch")) as target:
        assert isinstance(target, Versioned)
        with pytest.raises(TargetError, match=r"nosuch/.*1\.json: its versions can't be read"):
            list(target.versions("1/1.json"))


def test_a_bucket_that_keeps_no_versions_is_no_history_and_each_full_run_says_so(
    bucket: PlaceToTest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(MemorySource(), lambda: bucket.open(bucket="forgetful"), tmp_path / "state", rules={"history": {"bucket": True}})
    edit(rig, 0, 1)
    rig.run(Kind.FULL)
    assert "the bucket keeps no versions: what a put replaces is lost" in caplog.text
    caplog.clear()
    rig.run(Kind.INCREMENTAL)
    rig.open_target = bucket.open
    rig.run(Kind.FULL)
    assert "versions" not in caplog.text
