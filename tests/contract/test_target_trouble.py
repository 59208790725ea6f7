"""A Target in trouble: nothing is torn, the Cursor is held, N failures are reported as N, and the next Run is complete."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from syncd.model import Kind, Status
from syncd.targets import local
from tests.fakes.memory import SECOND, MemorySource
from tests.fakes.proxy import Fault, FaultProxy, answer, lose_answer, reset_after, reset_before
from tests.fakes.rig import Rig, TestClock, new_place


@pytest.fixture(scope="module", params=["s3", "gcs"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def complete(rig: Rig, source: MemorySource) -> bool:
    return rig.tasks() == rig.expected(source.expected().items())


def test_a_fifth_of_all_calls_fail_and_everything_arrives(kind: str, url: str, tmp_path: Path) -> None:
    source = MemorySource()
    source.add("1", 300)
    with FaultProxy(url) as proxy:
        proxy.plan(
            Fault(answer(503), probability=0.05, times=None),
            Fault(answer(429, retry_after=1), probability=0.05, times=None),
            Fault(reset_before(), probability=0.05, times=None),
            Fault(reset_after(), probability=0.05, times=None),
        )
        place = new_place(kind, url, tmp_path)
        rig = Rig(source, lambda: place.open(endpoint=proxy.url, retry_for="10m"), tmp_path / "state")
        report = rig.run()
        assert (Status.OK, "", 300, []) == (report.status, report.error, report.written, report.failed)
        assert report.target_requests > 300
        source.now += SECOND
        for number in range(1, 11):
            del source.world["1"].tasks[str(number)]
        report = rig.run()
        assert (Status.OK, 10) == (report.status, report.trashed)
        proxy.assert_all_fired()
        assert complete(rig, source)


def test_a_store_that_stays_away_fails_the_run_exactly_and_holds_the_cursor(kind: str, url: str, tmp_path: Path) -> None:
    source = MemorySource()
    source.add("1", 40)
    place = new_place(kind, url, tmp_path)
    rig = Rig(source, place.open, tmp_path / "state")
    rig.run()
    source.now += 3600 * SECOND
    for number in range(1, 31):
        source.put("1", str(number), {"id": number, "edited": True})
    del source.world["1"].tasks["40"]
    with FaultProxy(url) as proxy:
        proxy.plan(Fault(answer(503), method="PUT", times=None))
        rig.open_target = lambda: place.open(endpoint=proxy.url, retry_for="2s")
        report = rig.run()
        tried = {failure.task for failure in report.failed}
        assert (Status.FAILED, 1, 0, 0) == (report.status, report.exit_code, report.written, report.trashed)
        assert "503" in report.error
        assert 1 <= len(tried) == len(report.failed) <= 30
        assert {} == report.cursors
    rig.open_target = place.open
    report = rig.run()
    assert (Status.OK, 30, 1) == (report.status, report.written, report.trashed)
    assert complete(rig, source)


def test_one_refused_object_is_one_failed_task(kind: str, url: str, tmp_path: Path) -> None:
    source = MemorySource()
    source.add("1", 40)
    place = new_place(kind, url, tmp_path)
    with FaultProxy(url) as proxy:
        proxy.plan(Fault(answer(400), method="PUT", path=r"/(7|8|9)\.json", times=None))
        rig = Rig(source, lambda: place.open(endpoint=proxy.url), tmp_path / "state")
        report = rig.run()
        assert (Status.PARTIAL, 3, 37, {"7", "8", "9"}) == (report.status, report.exit_code, report.written, {f.task for f in report.failed})
        proxy.assert_all_fired()
    rig.open_target = place.open
    report = rig.run()
    assert (Status.OK, 3) == (report.status, report.written)
    assert complete(rig, source)


def test_refused_credentials_stop_the_run(kind: str, url: str, tmp_path: Path) -> None:
    source = MemorySource()
    source.add("1", 5)
    with FaultProxy(url) as proxy:
        proxy.plan(Fault(answer(403), times=None))
        report = Rig(source, new_place(kind, proxy.url, tmp_path).open, tmp_path / "state").run()
    assert (Status.FAILED, 12, 0) == (report.status, report.exit_code, report.written)


def test_an_incomplete_listing_is_no_listing(kind: str, url: str, tmp_path: Path) -> None:
    source = MemorySource()
    source.add("1", 20)
    place = new_place(kind, url, tmp_path)
    rig = Rig(source, place.open, tmp_path / "state")
    rig.run()
    with FaultProxy(url) as proxy:
        proxy.plan(Fault(answer(500), method="GET", path="list-type=2|prefix=", times=None))
        rig.open_target = lambda: place.open(endpoint=proxy.url, retry_for="1s")
        report = rig.run(Kind.FULL)
        assert (Status.FAILED, 0) == (report.status, report.healed)
        proxy.assert_all_fired()


def test_two_states_on_one_place_are_refused_clearly(kind: str, url: str, tmp_path: Path) -> None:
    source = MemorySource()
    source.add("1", 5)
    rig = Rig(source, new_place(kind, url, tmp_path).open, tmp_path / "state")
    rig.run()
    other = Rig(source, rig.open_target, tmp_path / "other state")
    report = other.run()
    assert (Status.FAILED, 11) == (report.status, report.exit_code)
    assert "belongs to sync cats of another Checkpoint" in report.error
    neighbour = Rig(source, rig.open_target, tmp_path / "state", name="dogs")
    assert 11 == neighbour.run().exit_code


def test_a_full_disk_fails_exactly_what_did_not_fit(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        source = MemorySource()
        source.add("1", 20)
        for number in range(1, 21):
            source.put("1", str(number), {"id": number, "data": {"text": "x" * 30_000}})
        rig = Rig(source, lambda: local.open(local.Config(type="local", path=disk / "backup"), TestClock()), tmp_path / "state")
        report = rig.run()
        assert Status.FAILED is report.status
        assert "full" in report.error
        whole = rig.tasks()
        assert 0 < len(whole) < 20
        assert all(body == source.world["1"].tasks[key[2:-5]].body for key, body in whole.items())
        subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
        report = rig.run()
        assert (Status.OK, "") == (report.status, report.error)
        assert complete(rig, source)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_timeout_after_the_store_did_it_is_no_second_task(kind: str, url: str, tmp_path: Path) -> None:
    """The store did it and the answer never came: put again, the same bytes, and told once."""
    source = MemorySource()
    source.add("1", 10)
    with FaultProxy(url) as proxy:
        proxy.plan(Fault(lose_answer(1), method="PUT", path=r"/3\.json"), Fault(lose_answer(1), method="PUT", path="owner"))
        rig = Rig(source, new_place(kind, proxy.url, tmp_path).open, tmp_path / "state")
        report = rig.run()
        assert (Status.OK, 10) == (report.status, report.written)
        proxy.assert_all_fired()
        assert complete(rig, source)
        assert 10 == len([line for line in rig.feeds() if line["task"]])
