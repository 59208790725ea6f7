"""Ids become keys one-to-one, on every store, and never leave their place (I6)."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from syncd.clock import parse_time
from syncd.keys import OWNER, SIDE, Layout, Named, decode, encode, feed

DAY = 1_795_000_000_000_000  # 2026-11-18
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)([. ]|$)", re.IGNORECASE)

hostile = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "a\\b",
    "a\x00b",
    "x" * 300,
    "X" * 300,
    "é" * 100,
    "e\u0301",
    "\u00e9",
    "A",
    "a",
    "_trash",
    "_project",
    "_syncd",
]
hostile += [
    "CON",
    "con",
    "con.txt",
    "Com1",
    "%2e",
    "%2E",
    "%",
    "~",
    "a~1",
    "A~1",
    "a ",
    " a",
    "a.",
    ".a",
    "a\n",
    "\n",
    "a.json",
    "a.JSON",
    "\ud800",
    "\udcff",
]
hostile += ["\u212a", "K", "k", "\u017f", "\u0130", "ß", "SS", "\U0001f600", "a\u202eb", "1", "01", "-1", "x" * 180, "x" * 181, "{task}", "{project}"]
ids = st.one_of(
    st.sampled_from(hostile),
    st.text(alphabet=st.characters(codec=None, exclude_characters=SIDE), max_size=12),
    st.text(alphabet="aAbB_.~%/ 1", max_size=6),
)


def folded(key: str) -> set[str]:
    """What file systems may make of a name."""
    return {unicodedata.normalize(form, key).casefold() for form in ("NFC", "NFD")}


@pytest.mark.parametrize("text", ["1", "12345", "ckx9z3abc0001", "cats", "my cats", "a-b_c.d", "user@example.com", "2024,x=1"])
def test_an_ordinary_id_stays_itself(text: str) -> None:
    assert text == encode(text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("Cats", "Cats~1"),
        ("IMG_01", "IMG_01~7"),
        ("_trash", "%5Ftrash"),
        ("../x", "%2E.%2Fx"),
        ("a/b", "a%2Fb"),
        ("con", "%63on"),
        ("nul.txt", "%6Eul.txt"),
        ("%2e", "%252e"),
        ("é", "%C3%A9"),
        ("a.", "a%2E"),
        ("a.json", "a%2Ejson"),
        ("", "~"),
    ],
)
def test_what_a_store_can_not_hold_is_spelled_out(text: str, part: str) -> None:
    assert part == encode(text)


def test_hostile_ids_are_pairwise_apart() -> None:
    keys = [frozenset(folded(encode(text))) for text in dict.fromkeys(hostile)]
    assert len(set(keys)) == len(keys)


@settings(max_examples=600, deadline=None)
@given(ids, ids)
@example("A", "a")
@example("a~1", "A")
@example("%41", "A")
@example("e\u0301", "\u00e9")
@example("X" * 300, "x" * 300)
def test_two_ids_never_share_a_key_even_folded_or_normalised(one: str, two: str) -> None:
    assert (one == two) == bool(folded(encode(one)) & folded(encode(two)))


@settings(max_examples=600, deadline=None)
@given(ids, ids)
def test_no_id_leaves_its_place_or_takes_a_reserved_name(project: str, task: str) -> None:
    layout = Layout()
    key = layout.task(project, task)
    parts = key.split("/")
    assert len(parts) == 2
    assert key.startswith(layout.folder(project))
    assert key.isascii()
    assert key.isprintable()
    for part in (parts[0], encode(task)):
        assert 1 <= len(part) <= 180
        assert part[0] not in "_. "
        assert part[-1] not in ". "
        assert not _DEVICE.match(part)
        assert not set(part) & set('/\\:*?"<>|\x00')


@given(ids, ids)
def test_no_task_folder_is_another_ones_file(one: str, two: str) -> None:
    """Side files stand in `<task>/`: on a file system that name can't also be a file."""
    assert encode(one).casefold() != f"{encode(two)}.json".casefold()


@given(ids, ids)
def test_a_key_in_the_trash_says_whose_it_was(project: str, task: str) -> None:
    for layout in (Layout(), Layout("labels/p={project}/x/{task}.json")):
        for whose, shown in ((task, decode(encode(task))), (None, None)):
            home = layout.settings(project) if whose is None else layout.task(project, whose)
            found = layout.named(layout.trash(project, whose, b"\xab" * 32, DAY))
            assert found == Named(decode(encode(project)), shown, home, "trash", parse_time("2026-11-18"))
    assert decode(encode(task)) in {task, encode(task)}
    assert "~~" in encode(task) or decode(encode(task)) == task


@example("datasets/d", "a/b", "mask.png")
@example("datasets", "x.json", None)
@given(ids, ids, ids | st.none())
def test_a_key_tells_whose_file_it_is_unless_it_is_shortened(project: str, task: str, side: str | None) -> None:
    task = task.replace(SIDE, "") + (f"{SIDE}{side.replace(SIDE, '')}" if side else "")
    for layout in (Layout(), Layout("labels/p={project}/x/t-{task}.json")):
        key, settings_key = layout.task(project, task), layout.settings(project)
        shown = tuple(decode(encode(part)) for part in (task.partition(SIDE)[0], side or ""))
        whose = project if project.startswith("datasets/") else decode(encode(project))
        named = Named(whose, shown[0] + (SIDE + decode(encode(side.replace(SIDE, ""))) if side else ""), key)
        assert layout.named(key) == named
        assert "~~" in key or (named.project, named.task) == (project, task)
        assert layout.named(settings_key) == Named(whose, None, settings_key)


@pytest.mark.parametrize(
    "key", ["notes.txt", "1/notes.txt", "1/.DS_Store", "1/A.json", "1/%61.json", "_syncd/owner.json", "1/_history/7/x.json", "1/a/b/c", ""]
)
def test_a_key_that_syncd_never_writes_is_nobodys(key: str) -> None:
    assert Layout().named(key) is None


@pytest.mark.parametrize(
    "key",
    [
        "MyData/_trash/2020-01-01/7.0123456789ab.json",
        "1/_trash/2020-01-01/FOO.0123456789ab.json",
        "..~~/_trash/2020-01-01/7.0123456789ab.json",
        "1/_trash/2020-13-01/7.0123456789ab.json",
        "1/_trash/9999-12-31/7.0123456789ab.json",
    ],
)
def test_what_syncd_never_puts_into_a_trash_is_not_in_one(key: str) -> None:
    """Nobody else's folder is emptied because it looks like ours (I6)."""
    assert Layout().named(key) is None


def test_a_collection_has_its_folder_settings_and_trash() -> None:
    layout = Layout()
    assert layout.folder("12") == "12/"
    assert layout.task("12", "34") == "12/34.json"
    assert layout.settings("12") == "12/_project.json"
    assert layout.trash("12", "34", b"\xab" * 32, DAY) == "12/_trash/2026-11-18/34.abababababab.json"
    assert feed("20261118120000-ab12") == "_syncd/changes/2026-11-18/20261118120000-ab12.ndjson"
    assert OWNER == "_syncd/owner.json"


def test_a_template_moves_every_file_of_its_collection_together() -> None:
    layout = Layout("labels/project={project}/tasks/{task}.json")
    assert layout.task("12", "34") == "labels/project=12/tasks/34.json"
    assert layout.folder("12") == "labels/project=12/"
    assert layout.settings("12") == "labels/project=12/_project.json"
    assert layout.trash("12", "34", bytes(32), DAY).startswith("labels/project=12/_trash/")


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{task}.json", "{project} and {task}"),
        ("{project}/x.json", "{project} and {task}"),
        ("{project}/{task}/{task}.json", "each once"),
        ("{project}/{task}{title}.json", "no other field"),
        ("{project!r}/{task}.json", "no other field"),
        ("{project}/{task:>9}.json", "no other field"),
        ("{project}/{{task}}.json", "ASCII letters"),
        ("{project}_{task}.json", "/ between"),
        ("{task}/{project}.json", "before"),
        ("{project}/{task}", "end in .json"),
        ("/{project}/{task}.json", "empty"),
        ("{project}//{task}.json", "empty"),
        ("../{project}/{task}.json", "begin with"),
        ("{project}/../{task}.json", "begin with"),
        ("{project}/./{task}.json", "begin with"),
        ("_syncd/{project}/{task}.json", "begin with"),
        ("{project}/_trash/{task}.json", "begin with"),
        ("{project}/_{task}.json", "begin with"),
        ("a./{project}/{task}.json", "end with a dot"),
        ("a b/{project}/{task}.json", "ASCII letters"),
        ("a%/{project}/{task}.json", "ASCII letters"),
        ("a\\{project}/{task}.json", "ASCII letters"),
        ("a~1/{project}/{task}.json", "ASCII letters"),
        ("x" * 76 + "{project}/{task}.json", "75 characters"),
    ],
)
def test_a_template_that_is_not_one_to_one_is_refused_in_a_sentence(template: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        Layout(template)
