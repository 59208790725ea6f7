"""Verifying and mending with every Source and every Target; dying at every side effect of a repair; a Checkpoint rebuilt from every Target."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from syncd.keys import SIDE, Layout
from syncd.model import Kind, Status
from syncd.upkeep.verify import DIFFERS, EXTRA, MISSING
from tests.contract.test_sources import WORLDS
from tests.fakes.memory import MemorySource
from tests.fakes.mortal import Died, Life
from tests.fakes.rig import KINDS, TestClock, new_place, server
from tests.fakes.tamper import EVERYTHING, Desk, quick_folder, quietly
from tests.fakes.worlds import World


@pytest.fixture(params=KINDS, scope="module")
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def url(kind: str) -> Iterator[str]:
    with server(kind) as url:
        yield url


def _tampered(desk: Desk) -> dict[str, str]:
    """One file of each kind that the Target itself can make; their signs."""
    with closing(desk.open_target()) as target:
        target.delete(["1/3.json", "2/_project.json"])
        target.put("1/4.json", b"{}")
        target.put("1/5.json", (target.get("1/5.json") or b"").replace(b"task", b"fake"))
        target.put("1/999.json", b"nobody's")
        target.put("1/notes.txt", b"somebody's")
        target.flush()
    return {"1/3.json": MISSING, "2/_project.json": MISSING, "1/4.json": DIFFERS, "1/5.json": DIFFERS, "1/999.json": EXTRA, "1/notes.txt": EXTRA}


def _desk(kind: str, url: str, folder: Path, name: str = "state") -> Desk:
    source = MemorySource()
    source.add("1", 30)
    source.add("2", 3)
    desk = Desk(source, new_place(kind, url, folder).open, folder / name)
    desk.run()
    return desk


def test_every_target_is_verified_and_mended_and_costs_its_listing_alone(kind: str, url: str, tmp_path: Path) -> None:
    desk = _desk(kind, url, tmp_path)
    before = desk.backup()
    assert desk.verify() == []
    signs = _tampered(desk)
    assert signs == {line.key: line.sign for line in desk.verify()}
    assert signs == {line.key: line.sign for line in desk.verify(read=EVERYTHING)}
    done = desk.repair(desk.verify())
    assert (Status.OK, 3, 1, ["1/notes.txt"]) == (done.report.status, done.report.healed, done.trashed, [line.key for line in done.left])
    assert ["1/notes.txt"] == [line.key for line in desk.verify(read=EVERYTHING, source=True)]
    assert before == {key: data for key, data in desk.backup().items() if key != "1/notes.txt"}
    assert {b"{}", before["1/5.json"].replace(b"task", b"fake"), b"nobody's"} == set(desk.kept().values())


def test_a_lost_checkpoint_is_rebuilt_from_every_target_without_a_put(kind: str, url: str, tmp_path: Path) -> None:
    desk = _desk(kind, url, tmp_path)
    shutil.rmtree(desk.state)
    report = desk.run(Kind.FULL, take_over=True)
    assert (Status.OK, 33, 0, 0) == (report.status, report.adopted, report.written, report.bytes_written)
    assert desk.verify(read=EVERYTHING, source=True) == []


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_dying_at_every_side_effect_of_a_repair(after: bool) -> None:
    with quick_folder() as folder:
        _die_everywhere(folder, after=after)


def _die_everywhere(folder: Path, *, after: bool) -> None:
    def prepare(name: str) -> Desk:
        (folder / name).mkdir()
        desk = _desk("local", "", folder / name)
        _tampered(desk)
        return desk

    desk, life = prepare("whole"), Life()
    others = {b"{}", desk.backup()["1/5.json"], b"nobody's"}
    desk.repair(desk.verify(), life=life)
    whole = desk.backup()
    assert life.effects > 10
    for k in range(1, life.effects + 1):
        desk = prepare(str(k))
        with suppress(Died):
            desk.repair(desk.verify(), life=Life(k, after=after))
        assert others <= set(desk.backup().values()) | set(desk.kept().values()), k
        assert Status.OK is desk.run().status, k  # any Run goes on where the repair died
        assert not {"1/4.json", "1/5.json"} & {line.key for line in desk.verify() if line.sign == MISSING}, k
        desk.repair(desk.verify())
        assert ["1/notes.txt"] == [line.key for line in desk.verify(read=EVERYTHING, source=True)], k
        assert whole == desk.backup(), k
        assert others <= set(desk.kept().values()), k


@pytest.mark.parametrize("make", WORLDS.values(), ids=WORLDS)
def test_every_source_gives_again_exactly_what_is_missing_or_differs(make: Callable[[Path], World], tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    with closing(make(tmp_path / "world")) as world:
        world.add("Cats", *({"text": f"task {number}"} for number in range(60)))
        with closing(world.open({})) as source:
            desk = Desk(source, new_place("local", "", tmp_path).open, tmp_path / "state", TestClock())
            desk.run()
            world.wait(3600)  # the Source itself has nothing new to tell
            desk.run()
            before = desk.backup()
            gone, cut, other = sorted(key for key in before if not key.endswith("_project.json"))[10:13]
            with closing(desk.open_target()) as target:
                target.delete([gone])
                target.put(cut, before[cut][:9])
                target.flush()
                folder = Path(target.place)
            quietly(folder / other, before[other].replace(b"task", b"tusk"))
            lines = desk.verify(read=EVERYTHING)
            assert {gone: MISSING, cut: DIFFERS, other: DIFFERS} == {line.key: line.sign for line in lines}
            done = desk.repair(lines)
            assert (Status.OK, 3, []) == (done.report.status, done.report.healed, done.left)
            assert before == desk.backup()
            assert desk.verify(read=EVERYTHING, source=True) == []


@pytest.mark.parametrize("make", WORLDS.values(), ids=WORLDS)
def test_no_name_of_a_strangers_file_stops_a_repair(make: Callable[[Path], World], tmp_path: Path) -> None:
    """They look like TaskFiles, so that each Source is asked for ids that it never gave."""
    ids = ["abc", "9" * 30, "-1", "007", "é", "a/b", " ", "\n", "\udc80", "a" * 170, f"12{SIDE}m.png", f"{SIDE}m"]
    (tmp_path / "world").mkdir()
    with closing(make(tmp_path / "world")) as world:
        world.add("Cats", {"text": "a"})
        with closing(world.open({})) as source:
            desk = Desk(source, new_place("local", "", tmp_path).open, tmp_path / "state", TestClock())
            desk.run()
            (project,) = (collection.id for collection in source.collections())
            keys = {*(Layout().task(project, id_) for id_ in ids), Layout().task("no such", "1"), Layout().settings("no such")}
            with closing(desk.open_target()) as target:
                for key in keys:
                    target.put(key, key.encode())
                target.flush()
            lines = desk.verify()
            assert keys == {line.key for line in lines}
            done = desk.repair(lines)
            if done.guard:  # "no such" would lose all that it has
                done = desk.repair(lines, done.guard.plan_id)
            assert (Status.OK, "", len(keys)) == (done.report.status, done.report.error, done.trashed + len(done.left))
            assert {line.key for line in done.left} == {line.key for line in desk.verify()}
            assert len(desk.kept()) == done.trashed
