"""Hostile ids and names through the whole pipeline: one file each, nothing outside the place, nothing mixed up, on every kind of Target (I6)."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from syncd import encode
from syncd.keys import Layout
from syncd.model import Kind, Status
from tests.fakes.memory import SECOND, MemoryCollection, MemorySource
from tests.fakes.rig import KINDS, Rig, new_place

NAMES = [
    "../x", "..", ".", "", "/", "/etc/passwd", "a/b", "a\\b", "a//b", "\0", "a\0b", "x" * 300, "x" * 301, "ä" * 150, "é" * 300,
    unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é"), "A", "a", "AB", "aB", "Ab", "ab", "A~1", "a~1", "~", "~~",
    "ß", "SS", "\u0131", "I", "_trash", "_TRASH", "_project", "_project.json", "_syncd", "_syncd/owner", "CON", "con", "nul.txt", "COM1",
    "%2e", "%2E", "%252e", "%2e%2e%2f", "a.json", "a.JSON", "a.", "a ", " a", "a b", "a+b", "a?b=c", "a#b", "a&b", "*", '<>:|"',
    "\n", "\r\n", "\t", "\x7f", "\u202e", "\ufeff", "😀", "\udcff", "\ud800x", "{project}", "{task}", "$HOME", "`id`", "'; DROP TABLE entry; --",
    "-rf", "--", "0", "00", "-1", "+1", "1e3", "9" * 18, "9" * 19, "\u0661",
]  # fmt: skip
IDS = sorted(set(NAMES), key=ascii)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def world() -> MemorySource:
    """Every name as a task's id in one Collection, and as a Collection's id."""
    source = MemorySource(page=40)
    source.settings = lambda collection: {}  # type: ignore[method-assign]  # a title that is no text can't be kept
    for number, name in enumerate(IDS):
        source.put("all", name, {"number": number})
        source.put(name, "all", {"number": number, "of": "its own"})
        source.put(name, name, {"number": number, "of": "both"})
    return source


def same(rig: Rig, source: MemorySource) -> None:
    assert rig.tasks() == rig.expected(source.expected().items())


def test_every_name_has_a_file_of_its_own_from_first_put_to_last_deletion(kind: str, url: str, tmp_path: Path) -> None:
    source = world()
    rig = Rig(source, new_place(kind, url, tmp_path).open, tmp_path / "state", rules={"max_delete": {"at_least": 10_000}})
    first = rig.run()
    assert (Status.OK, "", 3 * len(IDS)) == (first.status, first.error, first.written), first.failed[:3]
    same(rig, source)
    listed = rig.files()
    assert len({key.casefold() for key in listed}) == len(listed)
    assert len({unicodedata.normalize("NFC", key) for key in listed}) == len(listed)
    assert (0, 0) == ((again := rig.run()).written, again.target_requests)
    assert (0, 3 * len(IDS)) == ((full := rig.run(Kind.FULL)).written + full.healed + full.adopted, full.unchanged)
    source.now += SECOND
    for number, name in enumerate(IDS):
        source.put("all", name, {"number": number, "edited": True})
        del source.world[name].tasks[name]
    later = rig.run()
    assert (Status.OK, len(IDS), len(IDS)) == (later.status, later.written, later.trashed)
    same(rig, source)
    layout = Layout()
    told = {line["key"] for line in rig.feeds() if line["op"] == "trash"}
    assert told == {layout.task(name, name) for name in IDS}
    trash = [key for key in rig.files() if (found := layout.named(key)) and found.where == "trash"]
    assert len(trash) == len(IDS)
    stray = [key for key in rig.files() if not key.startswith(("_syncd/owner.json", "_syncd/changes/", *map(layout.folder, [*IDS, "all"])))]
    assert stray == []


def whole_bucket(kind: str, url: str, folder: Path) -> set[str]:
    everything = new_place(kind, url, folder)
    everything.settings["prefix"] = ""
    return {stat.key for page in everything.open().list("") for stat in page}


def test_nothing_stands_outside_the_place(kind: str, url: str, tmp_path: Path) -> None:
    before = set() if kind == "local" else whole_bucket(kind, url, tmp_path)  # other tests of this process may have left something
    place = new_place(kind, url, tmp_path)
    source = world()
    report = Rig(source, place.open, tmp_path / "state").run()
    assert Status.OK is report.status, report.error
    inside = len([key for page in place.open().list("") for key in page])
    if kind == "local":
        root = Path(place.settings["path"])
        everywhere = {path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(tmp_path / "state")}
        assert [path for path in everywhere if not path.is_relative_to(root)] == []
        assert inside == len([path for path in root.rglob("*") if path.is_file()])
    else:
        every = whole_bucket(kind, url, tmp_path)
        assert inside == len([key for key in every if key.startswith(place.settings["prefix"] + "/")])
        assert {key for key in every if not key.startswith("p-")} <= before


def test_files_of_one_collection_never_meet_those_of_another(kind: str, url: str, tmp_path: Path) -> None:
    """A Collection called like another one's folder, its trash or syncd's own place."""
    source = MemorySource()
    for name in ("a", "a/_trash", "a/_trash/2026-11-20", "_syncd", "_syncd/changes", "A", "a/a"):
        source.world[name] = MemoryCollection("title")
        source.put(name, "1", {"of": name})
        source.put(name, "_project", {"settings": name})
        source.put(name, "owner", {"marker": name})
    source.settings = lambda collection: {"id": collection.id}  # type: ignore[method-assign]
    rig = Rig(source, new_place(kind, url, tmp_path).open, tmp_path / "state")
    assert Status.OK is rig.run().status
    same(rig, source)
    settings = {key: data for key, data in rig.files().items() if key.endswith("/_project.json")}
    assert sorted(settings.values()) == sorted(encode.dumps({"id": name}) for name in source.world)
