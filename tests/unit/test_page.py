"""The page as HTML: what it says in each state, that every value is escaped, and that it stays quick with many Syncs."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncd.clock import SECOND
from syncd.daemon import page
from syncd.daemon.ledger import State
from syncd.daemon.page import Page, spark
from syncd.daemon.schedule import ago, span
from syncd.daemon.service import ConfigState
from syncd.model import Failure, Status
from tests.fakes.service import HOSTILE, MINUTE, NOW, FakeService, history, ledger, run, sample

VOID = {"meta", "link", "input", "path", "use", "circle", "rect"}


class Tree(HTMLParser):
    """Every tag closed in order, its names counted, its text kept."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def __contains__(self, text: str) -> bool:
        return text in " ".join(" ".join(self.words).split())

    def rows(self) -> list[str]:
        return [attrs["id"] or "" for tag, attrs in self.tags if tag == "a" and (attrs.get("id") or "").startswith("sync-")]


PAGE = Page(FakeService())  # its templates are compiled once


def shown(service: FakeService) -> Page:
    PAGE._service = service
    return PAGE


def index(service: FakeService, state: str = "") -> Tree:
    return Tree(shown(service).index(state))


def one(service: FakeService, name: str) -> Tree:
    html = shown(service).sync(name)
    assert html is not None
    return Tree(html)


def test_every_state_is_a_word_and_a_shape() -> None:
    tree = index(sample())
    for word in ("needs a person", "failed", "tasks failed", "running", "ok", "never run"):
        assert word in tree
    shapes = {attrs["href"] for tag, attrs in tree.tags if tag == "use"}
    symbols = {f"#{attrs['id']}" for tag, attrs in tree.tags if tag == "symbol"}
    assert {f"#{state}" for state in State} <= shapes <= symbols


def test_what_needs_a_person_comes_first_and_running_hides_nothing() -> None:
    service = sample()
    service.ledgers = [*service.ledgers, ledger("again", State.RUNNING, run("again", Status.GUARDED, guard="all of them", plan_id="p1"))]
    assert [one.removeprefix("sync-") for one in index(service).rows()][:5] == ["street-scenes", "again", "xray-chest", HOSTILE, "invoices"]
    assert "5 of 9 Syncs need a look" in index(service)
    assert "syncd sync again --confirm-deletes p1" in one(service, "again")


def test_the_guard_comes_with_its_command() -> None:
    for tree in (index(sample()), one(sample(), "street-scenes")):
        assert "1204 of 1250 tasks" in tree
        assert "syncd sync street-scenes --confirm-deletes 9f3c1a7be02d -c /etc/syncd/syncd.yaml" in tree
    assert "--confirm-deletes" not in one(sample(), "cats")


def test_failures_are_told_in_words() -> None:
    assert "the token is refused; make a new one" in index(sample())
    assert "7 times in a row" in index(sample())
    tree = one(sample(), "invoices")
    assert "Not safe: 3 tasks" in tree
    assert "2207 the Target answered 403" in tree


def test_a_part_that_could_not_be_read_says_why_too() -> None:
    """The Checkpoint keeps failures of tasks alone; those of a folder or a page of a listing stand in the Report."""
    parts = [{"project": "p1", "task": None, "error": "p1/7.json: cut off", "last_activity": None, "about": None}]
    parts.append({"project": "p1", "task": None, "error": "p1/8.json: no id", "last_activity": None, "about": "8"})
    service = FakeService([ledger("cats", State.PARTIAL, run("cats", Status.PARTIAL, failed=parts), failing=2)])
    for words in ("p1 a part of it p1/7.json: cut off", "p1 8 p1/8.json: no id"):
        assert words in one(service, "cats")


def test_more_failed_tasks_than_fit_say_where_the_rest_is() -> None:
    many = [Failure("1", str(n), "too large") for n in range(page.FAILURES + 20)]
    service = FakeService([ledger("cats", State.PARTIAL, failing=len(many))], failing={"cats": many})
    assert "Not safe: 120 tasks" in one(service, "cats")
    assert "the first 100 are shown." in one(service, "cats")


def test_nothing_to_show_says_what_to_do() -> None:
    assert "Add one under syncs: in /etc/syncd/syncd.yaml" in index(FakeService())
    assert "No Sync is in state “zzz”" in index(sample(), "zzz")
    assert "the first Run starts in 30 s" in one(sample(), "new-project")
    assert "It has no schedule: give it every: in the config" in one(sample(), "on-call")
    assert "All is well" in index(FakeService([ledger("cats")]))


def test_trouble_with_the_config_and_the_daemon_stands_above() -> None:
    service = sample()
    service.config_state = ConfigState(Path("/etc/syncd.yaml"), NOW - 2 * MINUTE, ["/etc/syncd.yaml:3:5: syncs.cats.intervall: unknown key"])
    service.reasons = [f"source {n} does not answer" for n in range(7)]
    for tree in (index(service), one(service, "cats")):
        assert "In force is what /etc/syncd.yaml held 2 min ago" in tree
        assert "syncs.cats.intervall: unknown key" in tree
    assert "source 4 does not answer and 2 more" in index(service)


def test_words_without_end_are_cut() -> None:
    """A token that sees no project any more: each of them is a sentence of the Guard."""
    words = "; ".join(f"Collection {n} is gone with all of its 12 tasks" for n in range(300))
    last = run("cats", Status.GUARDED, guard=words, error=words, plan_id="p1")
    service = FakeService([ledger("cats", State.GUARDED, last)], {"cats": [last] * 20}, reasons=[words] * 9)
    service.config_state = ConfigState(Path("syncd.yaml"), NOW, [f"syncd.yaml:{n}:1: unknown key" for n in range(2000)])
    for html in (shown(service).index(""), shown(service).sync("cats") or ""):
        assert len(html) < 20_000
        assert "Collection 3 is gone" in html
        assert "and 1,990 more: <code>syncd validate</code>" in html
        assert "--confirm-deletes p1" in html


def test_a_run_that_was_cut_off_is_not_called_running() -> None:
    cut = run("cats", None)
    assert "cut off" in one(FakeService([ledger("cats")], {"cats": [cut, run("cats")]}), "cats")
    assert "cut off" not in one(FakeService([ledger("cats", State.RUNNING)], {"cats": [cut, run("cats")]}), "cats")


TEXT = st.text(st.sampled_from("<>&\"'`/\\={} \n\x00\x1f\u2028abc"), max_size=30) | st.sampled_from(
    [HOSTILE, '"><img src=x onerror=alert(1)>', "{{7*7}}"]
)
TEXT = TEXT.map("x".__add__)  # an empty text is left out, tags and all


@given(TEXT, TEXT, TEXT)
@settings(max_examples=60, deadline=None)
def test_no_value_becomes_markup(name: str, error: str, query: str) -> None:
    """Hostile text anywhere leaves the tags as they are for tame text; attributes hold it whole."""

    def pages(name: str, error: str, query: str) -> list[Tree]:
        last = run(name, Status.GUARDED, error=error, guard=error, plan_id=error, written=3)
        hostile = ledger(name, State.GUARDED, last, failing=1)
        hostile.wiring = hostile.rules.model_copy(update={"source": error, "target": error, "cron": error}), *hostile.wiring[1:]
        service = FakeService([hostile], {name: [last]}, {name: [Failure(error, error, error)]}, reasons=[error])
        service.config_state = ConfigState(Path(error), NOW, [error])
        return [index(service), one(service, name), index(service, query + "\x00none"), Tree(shown(service).fault(404, error))]

    for tree, tame in zip(pages(name, error, query), pages("cats", "x", "dogs"), strict=True):
        assert [(tag, sorted(attrs)) for tag, attrs in tree.tags] == [(tag, sorted(attrs)) for tag, attrs in tame.tags]
        assert [attrs["src"] for tag, attrs in tree.tags if tag == "script"] == [attrs["src"] for tag, attrs in tame.tags if tag == "script"]


def test_a_state_may_be_looked_at_alone() -> None:
    assert index(sample(), "failed").rows() == ["sync-xray-chest", f"sync-{HOSTILE}"]
    assert index(sample(), "ok").rows() == ["sync-cats"]


def test_many_syncs_are_one_page_of_modest_size() -> None:
    service = sample(extra=500)
    assert len(set(index(service).rows())) == 508
    assert len(shown(service).index("")) < 700_000, "bytes"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (3601, "1 h"),
        (90_061, "1 d 1 h"),
        (-5, "0 s"),
    ],
)
def test_spans(seconds: float, words: str) -> None:
    assert span(seconds) == words


@pytest.mark.parametrize(("seconds", "words"), [(0, "now"), (12, "12 s ago"), (179, "2 min ago"), (-30, "in 30 s"), (-3700, "in 1 h 1 min")])
def test_ago(seconds: int, words: str) -> None:
    assert ago(NOW - seconds * SECOND, NOW) == words


@given(st.integers(-(10**9), 10**9))
def test_spans_read_well(seconds: int) -> None:
    assert re.fullmatch(r"\d+ (d|h|min|s)( \d+ (h|min|s))?", span(seconds))


def test_the_sparkline_shows_the_last_runs_oldest_first() -> None:
    paths, label = spark(history("cats", 60, bad=(0, 3)))
    assert label == "Last 24 Runs: 22 ok, 2 failed. At most 950 changed files in one."
    bars = re.findall(r"M(\d+) (\d+)v(-?\d+)", "".join(paths.values()))
    ups = {int(x): int(height) for x, y, height in bars if y == "19"}
    assert sorted(ups) == [2 + 5 * n for n in range(24)]
    assert {int(x) for x, y, _ in bars if y == "21"} == {117, 102}, "what did not end well hangs below the line"
    assert min(ups.values()) == -18
    assert spark([])[1] == "No Run has ended yet."
    assert len(spark([run("cats", None), run("cats")])[0]) == 1
