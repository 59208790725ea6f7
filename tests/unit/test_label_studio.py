"""Label Studio as a Source, against the stand-in and its troubles. What the stand-in says of the wire, the real server confirms (tests/live)."""

from __future__ import annotations

import gc
import gzip
import ssl
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from syncd import encode
from syncd.checkpoint.base import Commit
from syncd.errors import AccessError, SourceError
from syncd.model import Collection, Counts, Failure, Gone, Kind
from syncd.sources import label_studio, label_studio_api, label_studio_reading
from syncd.sources.http import _asked_at
from syncd.sources.label_studio import LabelStudio
from tests.fakes.follower import Follower
from tests.fakes.label_studio import Reply, Request, StandIn, _Handler, error, html, html_login, reply
from tests.fakes.label_studio_project import Project
from tests.fakes.rig import TestClock

START = 1_790_000_000_000_000
RESULT = [{"from_name": "mood", "to_name": "text", "type": "choices", "value": {"choices": ["good"]}}]


@pytest.fixture
def studio() -> Iterator[StandIn]:
    with StandIn() as server:
        server.clock = TestClock(START).now
        yield server


@pytest.fixture
def cats(studio: StandIn) -> Project:
    project = studio.project("Cats")
    project.add([task(n) for n in range(1, 61)])
    return project


def task(number: int, **more: Any) -> dict[str, Any]:
    annotations = [{"result": RESULT, "completed_by": 1}] * (number % 2)
    return {"data": {"text": f"task {number}"}, "annotations": annotations, "predictions": [{"result": RESULT}] * (number % 3 == 0), **more}


OPENED: list[LabelStudio] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def settings_of(url: str, token: str, **fields: Any) -> label_studio.Config:
    return label_studio.Config.model_validate({"type": "label_studio", "url": url, "token": token, "retry_for": 2.0} | fields)


def connect(studio: StandIn, token: str = "", clock: TestClock | None = None, projects: list[str] | None = None, **fields: Any) -> LabelStudio:
    config = settings_of(studio.url, token or studio.token, **fields)
    OPENED.append(label_studio.open(config, {} if projects is None else {"projects": projects}, clock or TestClock(START)))
    return OPENED[-1]


@pytest.fixture
def follow(studio: StandIn, tmp_path: Path) -> Iterator[Callable[..., Follower]]:
    made: list[Follower] = []

    def start(project: Project, **fields: Any) -> Follower:
        source = connect(studio, **fields)
        made.append(Follower(source, tmp_path / f"state{len(made)}", Collection(str(project.id), project.title, project.created_at)))
        return made[-1]

    yield start
    for follower in made:
        follower.close()


def later(studio: StandIn, seconds: float = 3600.0) -> None:
    now = studio.clock() + int(seconds * 1e6)
    studio.clock = lambda: now


def api_tasks(project: Project) -> set[str]:
    return {str(row) for row in project.stored}


def once(studio: StandIn, fault: Callable[[Request], Reply | None], path: str = "/api/tasks", skip: int = 0, times: int = 1) -> list[Request]:
    """The request number `skip` and the `times - 1` after it get `fault`; returns those that did."""
    met: list[Request] = []
    counted = iter(range(10_000))

    def instead(request: Request) -> Reply | None:
        if request.path == path and skip <= next(counted) < skip + times:
            met.append(request)
            return fault(request)
        return None

    studio.instead = instead
    return met


def always(answer: Reply) -> Callable[[Request], Reply]:
    return lambda _: answer


# full readings


def test_a_full_reading_brings_every_body_once_in_order_of_id(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    seen = follow(cats).run()
    assert seen.tasks == [str(n) for n in sorted(cats.stored)]
    assert seen.missing == []
    assert seen.failed == []


def test_bodies_hold_everything_but_what_changes_by_itself_and_people_with_their_email(cats: Project, follow: Callable[..., Follower]) -> None:
    follower = follow(cats)
    cats.draft(2)
    follower.run()
    body = follower.files["3"]
    assert body["data"] == {"text": "task 3"}
    assert body["annotations"][0]["result"] == RESULT
    assert body["annotations"][0]["completed_by"] == {"id": 1, "email": "ann@example.com", "first_name": "Ann", "last_name": "Lee"}
    assert body["predictions"][0]["result"] == RESULT
    assert len(follower.files["2"]["drafts"]) == 1
    for part in (body, *body["annotations"], *body["predictions"], *follower.files["2"]["drafts"]):
        assert not part.keys() & {"created_ago", "created_username"}
    assert not body.keys() & (label_studio_api._SELF_CHANGING)
    assert body["annotations"][0].keys() >= {"updated_by", "created_at", "lead_time"}


def test_everybodys_drafts_are_kept_though_a_list_shows_only_ones_own(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    follower = follow(cats)
    cats.draft(2, user="eve@example.com")
    cats.draft(3)
    cats.draft(3, user="eve@example.com")
    follower.run()
    assert [["eve@example.com"], ["ann@example.com", "eve@example.com"]] == [[d["user"] for d in follower.files[n]["drafts"]] for n in ("2", "3")]
    cats.edit_draft(3, result=RESULT)
    cats.draft(4, user="eve@example.com")
    later(studio)
    follower.run()
    assert RESULT == follower.files["3"]["drafts"][1]["result"]
    assert 1 == len(follower.files["4"]["drafts"])


def test_pages_grow_while_tasks_are_small_and_shrink_when_they_are_heavy(studio: StandIn, follow: Callable[..., Follower]) -> None:
    project = studio.project("Heavy")
    project.add([{"data": {"text": "x" * (200_000 if 30 < n <= 60 else 10)}} for n in range(1, 201)])
    follow(project).run()
    sizes = [int(r.params["page_size"]) for r in studio.requests if r.params.get("fields") == "all"]
    assert sizes[:2] == [20, 80]
    assert 20 < sizes[2] < 80
    assert sizes[3] > sizes[2]


def test_a_killed_first_reading_goes_on_where_it_stopped(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    follower = follow(cats)
    first = follower.run(stop_after=1)
    assert first.tasks == [str(n) for n in range(1, 21)]
    cats.delete(3)
    rest = follower.run(position=first.positions[-1])
    assert rest.tasks == [str(n) for n in range(21, 61)]
    assert rest.missing == []


def test_tasks_that_appear_behind_the_last_page_are_still_read(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    def add(request: Request) -> None:
        if request.params.get("page_size") == "1":
            studio.instead = lambda _: None
            cats.add([task(61)])

    studio.instead = add
    assert follow(cats).run().tasks[-1] == "61"


def test_values_beyond_64_bits_survive(studio: StandIn, follow: Callable[..., Follower]) -> None:
    project = studio.project("Numbers")
    project.add([{"data": {"text": "0"}}])
    raw = b"123456789012345678901234567890"

    def instead(request: Request) -> Reply | None:
        if request.params.get("fields") != "all":
            return None
        studio.instead = lambda _: None
        answer = studio.answer(request)
        studio.instead = instead
        return Reply(200, answer.body.replace(b'{"text":"0"}', b'{"text":' + raw + b',"small":0.10}'))

    studio.instead = instead
    follower = follow(project)
    follower.run()
    assert raw in encode.dumps(follower.files["1"])


def test_the_cursor_is_the_servers_clock_before_the_first_listing(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    later(studio, 86_400)
    seen = follow(cats).run()
    assert START + 86_395_000_000 < (seen.cursor or 0) <= START + 86_400_000_000


def test_what_vanished_is_missing_in_a_full_reading_and_confirmed_by_its_id(cats: Project, follow: Callable[..., Follower]) -> None:
    follower = follow(cats)
    follower.run()
    cats.delete(1, 30, 59, 60)
    seen = follower.run(full=True)
    assert sorted(seen.missing, key=int) == ["1", "30", "59", "60"]
    assert set(seen.gone.values()) == {Gone.DELETED}
    assert follower.files.keys() == api_tasks(cats)


# incremental readings: what moved, and what did not


def test_a_quiet_project_costs_three_small_requests(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    follower = follow(cats)
    follower.run()
    later(studio)
    studio.requests.clear()
    seen = follower.run()
    assert seen.tasks == []
    assert len(studio.requests) == 3
    assert not any(request.params.get("fields") == "all" for request in studio.requests)
    assert seen.cursor is not None


def replace_task(project: Project, old: int) -> None:
    project.delete(old)
    project.add([task(1)])


def move_annotation(project: Project, giver: int, taker: int) -> None:
    project.row(taker).annotations.append(dict(project.row(giver).annotations[0]))
    project.row(taker).recount()


EVENTS: dict[str, Callable[[Project], Any]] = {
    "an edit": lambda p: p.edit(5, data={"text": "edited"}),
    "an annotation": lambda p: p.annotate(6, result=RESULT, completed_by=1),
    "a skip": lambda p: p.skip(6),
    "an import": lambda p: p.add([task(100), task(101)]),
    "a deletion": lambda p: p.delete(7),
    "the last task deleted": lambda p: p.delete(60),
    "a deletion and a creation": lambda p: replace_task(p, 9),
    "bulk predictions": lambda p: p.predict_in_bulk(8, 40, result=RESULT),
    "predictions deleted": lambda p: p.delete_predictions(3, 9),
    "a draft": lambda p: p.draft(12),
    "a late commit older than the overlap": lambda p: p.add([task(200)], at=START - 86_400_000_000),
    "everything deleted but one": lambda p: p.delete(*range(2, 61)),
    "counters that lie": lambda p: p.lie(4, total_annotations=7),
    "annotations moved without a date": lambda p: move_annotation(p, 11, 10),
}


@pytest.mark.parametrize("event", EVENTS)
def test_each_event_is_seen_by_the_next_incremental_reading(
    event: str, studio: StandIn, cats: Project, follow: Callable[..., Follower], tmp_path: Path
) -> None:
    follower = follow(cats)
    follower.run()
    later(studio)
    EVENTS[event](cats)
    later(studio)
    seen = follower.run()
    truth = follow(cats)
    truth.run()
    assert follower.files == truth.files
    assert len(seen.tasks) == len(set(seen.tasks))
    later(studio)
    studio.requests.clear()
    quiet = follower.run()
    assert quiet.missing == []
    assert len(studio.requests) <= 5  # a task with drafts costs one


def test_an_edited_draft_is_read_when_drafts_are_asked_for_and_only_then(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    follower = follow(cats)
    cats.draft(12)
    follower.run()
    cats.edit_draft(12, result=RESULT)
    later(studio)
    assert follower.run(drafts=False).tasks == []
    assert follower.run().tasks == ["12"]
    assert follower.files["12"]["drafts"][0]["result"] == RESULT
    cats.delete_drafts(12)
    assert follower.run().tasks == ["12"]
    assert follower.run().tasks == []


def test_a_reused_id_is_another_task(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    follower = follow(cats)
    follower.run()
    later(studio)
    cats.delete(60)
    cats.reuse_ids()
    assert cats.add([{"data": {"text": "another"}}]) == [60]
    later(studio)
    assert follower.run().tasks == ["60"]
    assert follower.files["60"]["data"] == {"text": "another"}


def test_the_overlap_does_not_read_bodies_again(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    follower = follow(cats)
    follower.run()
    assert follower.run().tasks == []


def test_one_deletion_among_many_costs_a_few_probes(tmp_path: Path) -> None:
    with StandIn() as studio:
        studio.clock = TestClock(START).now
        project = studio.project("Many")
        project.add([{"data": {"text": str(n)}} for n in range(3000)])
        follower = Follower(connect(studio), tmp_path, Collection(str(project.id), project.title, project.created_at))
        follower.run()
        later(studio)
        project.delete(1234)
        seen = follower.run()
        assert seen.gone == {"1234": Gone.DELETED}
        assert seen.tasks == []
        assert seen.requests <= 12
        follower.close()


def test_a_server_that_counts_rows_and_not_fields_settles_after_one_reading(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    """Older servers sum the rows, newer ones the fields; where a field lies, neither may cost a listing for ever."""

    def truthful(request: Request) -> Reply | None:
        if request.path != "/api/tasks":
            return None
        studio.instead = lambda _: None
        answer: Any = encode.parse(studio.answer(request).body)
        everything = {**request.params, "page_size": "100000", "include": "id"}
        rows: Any = encode.parse(studio.answer(Request("GET", request.path, everything, request.authorization)).body)
        studio.instead = truthful
        answer["total_annotations"] = sum(len(cats.row(row["id"]).annotations) for row in rows["tasks"])
        return reply(answer)

    cats.lie(4, total_annotations=7)
    studio.instead = truthful
    follower = follow(cats)
    follower.run()
    later(studio)
    assert "4" in follower.run(drafts=False).tasks
    studio.requests.clear()
    assert follower.run(drafts=False).tasks == []


EDITS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "edit",
                "annotate",
                "skip",
                "add",
                "late",
                "delete",
                "predict",
                "unpredict",
                "draft",
                "undraft",
                "reuse",
                "poison",
                "mend",
                "full",
                "run",
            ]
        ),
        st.integers(0, 70),
    ),
    max_size=25,
)


def happen(project: Project, event: str, number: int) -> None:
    ids = sorted(project.stored)
    one = ids[number % len(ids)] if ids else 0
    if event == "add" or not ids:
        project.add([task(number)])
    elif event == "late":
        project.add([task(number)], at=START - 86_400_000_000)
    elif event == "reuse":
        project.delete(ids[-1])
        project.reuse_ids()
    else:
        acts: dict[str, Callable[[], object]] = {
            "edit": lambda: project.edit(one, data={"text": f"edit {number}"}),
            "annotate": lambda: project.annotate(one, result=RESULT),
            "skip": lambda: project.skip(one),
            "delete": lambda: project.delete(one),
            "predict": lambda: project.predict_in_bulk(one, result=RESULT),
            "unpredict": lambda: project.delete_predictions(one),
            "draft": lambda: project.draft(one),
            "undraft": lambda: project.delete_drafts(one),
            "poison": lambda: project.poison(one),
            "mend": project.mend,
        }
        acts[event]()


def shows(project: Project, files: dict[str, Any]) -> bool:
    """Whether every file is the task as it is now, by what can tell; whatever a task holds that can't be read."""
    rows = {str(n): row for n, row in project.stored.items() if not row.poison}
    bad = {str(n) for n, row in project.stored.items() if row.poison}
    return files.keys() - bad == rows.keys() and all(
        files[n]["data"] == row.data
        and [a["id"] for a in files[n]["annotations"]] == [a["id"] for a in row.annotations]
        and [p["id"] for p in files[n]["predictions"]] == [p["id"] for p in row.predictions]
        and [d["id"] for d in files[n]["drafts"]] == [d["id"] for d in row.drafts]
        for n, row in rows.items()
    )


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EDITS, small=st.booleans())
def test_whatever_happens_the_next_readings_make_files_equal(events: list[tuple[str, int]], small: bool, studio: StandIn, tmp_path: Path) -> None:
    """Two events that cancel out in every total between two Runs are the full Run's; here at most one silent event happens per Run."""
    project = studio.project("Random")
    project.add([task(n) for n in range(1, 4 if small else 150)])
    follower = Follower(connect(studio), Path(tempfile.mkdtemp(dir=tmp_path)), Collection(str(project.id), project.title, project.created_at))
    silent = {"predict", "unpredict", "late", "delete", "reuse"}
    follower.run()
    for event, number in events:
        later(studio, 700)
        if event not in {"run", "full"}:
            happen(project, event, number)
        if event in silent or event in {"run", "full"}:
            follower.run(full=event == "full")
            assert shows(project, follower.files)
    later(studio, 700)
    assert len(set(tasks := follower.run().tasks)) == len(tasks)
    assert shows(project, follower.files)
    assert {int(task) for task in follower.known.failing()} <= {n for n, row in project.stored.items() if row.poison}, "no failure outlives its task"
    follower.close()


def test_several_lanes_read_the_same(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    one, many = follow(cats), follow(cats, concurrency=4)
    one.run()
    cats.poison(33)
    assert [f.task for f in many.run().failed] == ["33"]
    cats.row(33).poison = False
    later(studio)
    cats.delete(1, 2, 3)
    cats.edit(9, data={"text": "x"})
    later(studio)
    assert set(many.run().gone) == {"1", "2", "3"}
    one.run()
    assert one.files == many.files


def test_what_this_reading_yielded_and_nobody_recorded_yet_is_not_missed(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    """The pipeline reads ahead of its own commits."""
    follower = follow(cats)
    follower.run()
    later(studio)
    cats.add([task(61), task(62)])
    cats.annotate(7, result=RESULT)
    studio.requests.clear()
    batches = list(follower.source.changes(follower.collection, studio.clock() - 1, follower.known))
    assert [t.id for batch in batches for t in batch.tasks] == ["7", "61", "62"]
    assert len(studio.requests) == 4  # activity, bodies, drafts, count


def test_counts_that_were_recorded_differently_are_put_right_once(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    """A server that counted rows and sums fields since its upgrade must not cost a listing for ever."""
    follower = follow(cats)
    follower.run()
    later(studio)
    lease = follower.checkpoint.begin("cats", "wrong", Kind.INCREMENTAL, 1)
    entry = follower.known.entries(["4"])["4"]
    follower.checkpoint.commit(lease, follower.collection.id, Commit(entries=[entry._replace(counts=Counts(1, 5, 5))]))
    assert follower.run().tasks == ["4"]
    studio.requests.clear()
    assert follower.run().tasks == []
    assert len(studio.requests) == 3


def test_a_task_that_appears_behind_the_reader_is_not_overlooked_by_a_full_reading(
    studio: StandIn, cats: Project, follow: Callable[..., Follower]
) -> None:
    cats.delete(5)

    def late(request: Request) -> None:
        if request.params.get("page_size") == "1":
            studio.instead = lambda _: None
            cats.add([task(5)], ids=[5])

    studio.instead = late
    seen = follow(cats).run()
    assert "5" in seen.tasks
    assert set(seen.tasks) == api_tasks(cats)
    assert len(seen.tasks) <= 60 + 20, "one page is listed again"


def test_the_servers_date_is_taken_back_to_when_the_request_was_sent() -> None:
    response = httpx.Response(200, headers={"date": "Mon, 21 Sep 2026 14:13:20 GMT"})
    response.elapsed = timedelta(seconds=7.5)
    assert _asked_at(response) == START - 7_500_000
    assert _asked_at(httpx.Response(200)) is None


def test_without_a_date_the_cursor_stays(studio: StandIn, cats: Project, follow: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Handler, "date_time_string", lambda *_: "never")
    seen = follow(cats).run()
    assert seen.cursor is None
    assert len(seen.tasks) == 60


@pytest.mark.parametrize(
    ("url", "token"),
    [("", "0123456789abcd\nef0123456789"), ("", "t\u00f6k\u00e9n-456789"), ("http://a..b", "123456789"), ("http://\u200b.example.com", "123456789")],
)
def test_what_cannot_be_sent_is_told_at_once_and_never_shown(url: str, token: str, studio: StandIn) -> None:
    clock = TestClock(START)
    with pytest.raises(SourceError, match="check both") as told:
        label_studio.open(settings_of(url or studio.url, token), {}, clock).whoami()
    assert "456789" not in str(told.value)
    assert clock.micros == START


def test_a_session_never_stands_in_for_the_token(studio: StandIn, cats: Project) -> None:
    once(
        studio, lambda r: Reply(200, b'{"count":0,"next":null,"results":[]}', headers={"Set-Cookie": "sessionid=abc; Path=/"}), path="/api/projects/"
    )
    source = connect(studio)
    source.collections()
    assert len(source._http._client.cookies.jar) == 0


# labeled_only


def test_labeled_only_reads_labeled_tasks_and_removes_those_that_are_no_longer(
    studio: StandIn, cats: Project, follow: Callable[..., Follower]
) -> None:
    follower = follow(cats, labeled_only=True)
    cats.skip(2)
    assert follower.run().tasks == [str(n) for n in range(1, 61, 2)]
    later(studio)
    cats.edit(5)
    cats.row(5).annotations.clear()
    cats.row(5).recount()
    cats.annotate(8, result=RESULT)
    later(studio)
    seen = follower.run()
    assert seen.tasks == ["8"]
    assert seen.gone == {"5": Gone.REMOVED}


# trouble


def test_a_task_no_page_can_hold_fails_alone_and_is_forgotten_when_deleted(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    cats.poison(33)
    follower = follow(cats)
    seen = follower.run()
    assert [f.task for f in seen.failed] == ["33"]
    assert seen.failed[0].last_activity == START
    assert "delete it" in seen.failed[0].error
    assert len(seen.tasks) == 59
    follower.cursor = START
    seen = follower.run()
    assert [f.task for f in seen.failed] == ["33"]
    assert seen.tasks == []
    assert seen.requests < 20
    cats.delete(33)
    seen = follower.run()
    assert seen.missing == ["33"]
    assert list(follower.known.failing()) == []


def test_a_failing_task_that_never_had_a_file_is_forgotten_by_a_full_reading_too(cats: Project, follow: Callable[..., Follower]) -> None:
    cats.poison(33)
    follower = follow(cats)
    follower.run()
    cats.delete(33)
    assert follower.run(full=True).missing == ["33"]


def test_two_bad_tasks_alone_in_a_page_do_not_stop_the_others(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    follower = follow(cats)
    follower.run()
    later(studio)
    for bad in cats.add([task(70), task(71)]):
        cats.poison(bad)
    seen = follower.run()
    assert [f.task for f in seen.failed] == ["61", "62"]


def test_a_project_of_bad_tasks_alone_does_not_stop_the_run(studio: StandIn, follow: Callable[..., Follower]) -> None:
    project = studio.project("Bad")
    for bad in project.add([task(1), task(2)]):
        project.poison(bad)
    seen = follow(project).run()
    assert ([f.task for f in seen.failed], seen.tasks) == (["1", "2"], [])


def test_a_server_that_fails_on_every_body_is_an_error_and_not_many_failures(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    studio.instead = lambda request: html(500) if request.params.get("fields") == "all" else None
    with pytest.raises(SourceError, match="can be listed"):
        follow(cats).run()


def test_a_passing_500_costs_one_try(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    met = once(studio, lambda _: html(500), skip=1)
    seen = follow(cats).run()
    assert len(seen.tasks) == 60
    assert len(met) == 1


def cut(reply_: Reply) -> Reply:
    reply_.cut = True
    return reply_


def drop_last(body: Any) -> Any:
    body["tasks"] = body["tasks"][:-1]
    return body


def shuffled(body: Any) -> Any:
    body["tasks"].reverse()
    return body


def elsewhere(body: Any) -> Any:
    for row in body["tasks"]:
        row["project"] = 99
    return body


def hollow(body: Any) -> Any:
    for row in body["tasks"]:
        row["annotations"] = [{"id": a["id"]} for a in row["annotations"]]
    return body


def shape(edit: Callable[[Any], Any]) -> Callable[[StandIn, Request], Reply]:
    def instead(studio: StandIn, request: Request) -> Reply:
        trouble, studio.instead = studio.instead, lambda _: None
        answer = reply(edit(encode.parse(studio.answer(request).body)))
        studio.instead = trouble
        return answer

    return instead


TROUBLE: dict[str, Callable[[StandIn, Request], Reply]] = {
    "500": lambda *_: html(500),
    "502": lambda *_: html(502),
    "503 with a distant Retry-After": lambda *_: Reply(503, b"", headers={"Retry-After": "3600"}),
    "429": lambda *_: error(429, "Too many requests"),
    "an HTML login page with 200": lambda *_: html_login(),
    "a redirect": lambda *_: Reply(302, b"", headers={"Location": "https://elsewhere.example.com/login?secret=1"}),
    "401": lambda *_: error(401, "Invalid token."),
    "403": lambda *_: error(403, "You do not have permission to perform this action."),
    "404": lambda *_: error(404, "No Project matches the given query."),
    "an HTML 404": lambda *_: html(404),
    "truncated JSON": lambda *_: Reply(200, b'{"total":1,"total_annotations":0,"total_predictions":0,"tasks":[{"id":'),
    "a body cut short": lambda *_: cut(reply({"tasks": []})),
    "a reset": lambda *_: Reply(200, reset=True),
    "a foreign answer": lambda *_: reply({"id": 1, "detail": "hello"}),
    "a list": lambda *_: reply([]),
    "a page that lacks its end": shape(drop_last),
    "a page in another order": shape(shuffled),
}
BODIES_ONLY = {"another project's tasks": shape(elsewhere), "annotations cut down": shape(hollow)}


@pytest.mark.parametrize("fault", [*TROUBLE, *BODIES_ONLY])
@pytest.mark.parametrize("skip", [0, 1])
def test_trouble_that_stays_stops_a_full_reading_and_nothing_is_missing(
    fault: str, skip: int, studio: StandIn, cats: Project, follow: Callable[..., Follower]
) -> None:
    follower = follow(cats)
    follower.run()
    cats.delete(60)
    trouble = (TROUBLE | BODIES_ONLY)[fault]
    met = once(studio, lambda request: trouble(studio, request), skip=skip, times=1000)
    with pytest.raises(SourceError) as caught:
        follower.run(full=True)
    assert met
    assert studio.token not in str(caught.value)
    studio.instead = lambda _: None
    assert follower.run(full=True).gone == {"60": Gone.DELETED}


@pytest.mark.parametrize("fault", TROUBLE)
def test_trouble_that_stays_stops_an_incremental_reading(fault: str, studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    follower = follow(cats)
    follower.run()
    later(studio)
    cats.annotate(2, result=RESULT)
    cats.annotate(4, result=RESULT)
    met = once(studio, lambda request: TROUBLE[fault](studio, request), times=1000)
    with pytest.raises(SourceError):
        follower.run()
    assert met
    studio.instead = lambda _: None
    assert follower.run().tasks == ["2", "4"]


@pytest.mark.parametrize("fault", ["500", "502", "429", "a reset", "a body cut short", "truncated JSON", "a page that lacks its end"])
def test_trouble_that_passes_is_tried_again(fault: str, studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    met = once(studio, lambda request: TROUBLE[fault](studio, request), skip=1)
    assert len(follow(cats).run().tasks) == 60
    assert len(met) == 1


def test_an_empty_list_deletes_nothing(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    follower = follow(cats)
    follower.run()
    later(studio)
    studio.instead = lambda r: reply({"total": 0, "total_annotations": 0, "total_predictions": 0, "tasks": []}) if r.path == "/api/tasks" else None
    for full in (True, False):
        seen = follower.run(full=full)
        assert len(seen.missing) == 60
        assert seen.gone == {}
    studio.instead = lambda _: None
    assert follower.run().tasks == []


def test_a_list_cut_short_is_an_error_even_when_it_says_it_is_whole(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    """The count over the whole project exposes a last page that is not the last."""

    def short(request: Request) -> Reply | None:
        if request.params.get("fields") != "all":
            return None
        return shape(lambda body: body | {"total": 10, "tasks": body["tasks"][:10] if body["tasks"] and body["tasks"][0]["id"] == 1 else []})(
            studio, request
        )

    studio.instead = short
    with pytest.raises(SourceError):
        follow(cats).run()


def test_confirm_believes_only_the_apis_own_404(studio: StandIn, cats: Project) -> None:
    source = connect(studio)
    here = Collection(str(cats.id), cats.title)
    cats.delete(3)
    dogs = studio.project("Dogs")
    (moved,) = dogs.add([task(500)])
    assert source.confirm(here, ["3", "4", str(moved), "../projects/9", "x"]) == {"3": Gone.DELETED, str(moved): Gone.REMOVED}
    for trouble in (
        html(404),
        html_login(),
        error(401, "x"),
        error(403, "x"),
        reply({"id": 4}),
        error(500, "x"),
        Reply(404, b"{}"),
        reply({"detail": "no"}, 404),
    ):
        once(studio, always(trouble), path="/api/tasks/3/", times=100)
        with pytest.raises(SourceError):
            source.confirm(here, ["3"])


@pytest.mark.parametrize("location", ["", "http://[", "https://elsewhere.example.com/x?secret=1", "/user/login/"])
def test_any_redirect_is_an_error_that_shows_no_query(location: str, studio: StandIn, cats: Project) -> None:
    studio.instead = always(Reply(302, b"", headers={"Location": location}))
    with pytest.raises(SourceError, match="not followed") as caught:
        connect(studio).collections()
    assert "secret" not in str(caught.value)


# projects


def test_projects_by_id_and_title_with_their_creation(studio: StandIn) -> None:
    made = [studio.project(title) for title in ("Cats 1", "Cats 2", "Dogs")]
    found = connect(studio, projects=["Cats *", str(made[2].id), "77"]).collections()
    assert sorted(c.title for c in found) == ["Cats 1", "Cats 2", "Dogs"]
    assert {c.created_at for c in found} == {START}
    assert connect(studio, projects=["Cats"]).collections() == []


def test_the_list_of_projects_shows_counters_that_move_with_what_they_count(studio: StandIn, cats: Project) -> None:
    source = connect(studio)
    seen = [source.collections()[0].counters]
    for event in (
        lambda: cats.add([task(61)]),
        lambda: cats.annotate(1),
        lambda: cats.skip(2),
        lambda: cats.predict_in_bulk(1),
        lambda: cats.delete(2),
    ):
        event()
        seen.append(source.collections()[0].counters)
    assert len(set(seen)) == len(seen), seen
    studio.instead = lambda r: shape(lambda body: body | {"results": [row | {"ground_truth_number": None} for row in body["results"]]})(studio, r)
    assert source.collections()[0].counters == (), "another version may show fewer"


def test_more_projects_than_a_page_are_all_listed(studio: StandIn) -> None:
    for number in range(230):
        studio.project(f"P{number}")
    assert len({c.id for c in connect(studio).collections()}) == 230


def test_a_project_list_that_does_not_agree_with_its_count_is_refused(studio: StandIn, cats: Project) -> None:
    studio.instead = lambda r: shape(lambda body: body | {"count": 2})(studio, r) if r.path == "/api/projects/" else None
    with pytest.raises(SourceError, match="says 2 projects"):
        connect(studio).collections()


def test_a_project_is_gone_only_when_the_server_and_its_list_say_so(studio: StandIn, cats: Project) -> None:
    source = connect(studio)
    here = Collection(str(cats.id), cats.title)
    assert source.confirm_collection(here) is False
    studio.instead = lambda r: error(404, "No Project matches the given query.") if r.path == f"/api/projects/{cats.id}/" else None
    assert source.confirm_collection(here) is False
    studio.instead = lambda r: html(404) if r.path == f"/api/projects/{cats.id}/" else None
    with pytest.raises(SourceError):
        source.confirm_collection(here)
    studio.instead = lambda _: None
    cats.remove()
    assert source.confirm_collection(here) is True


def test_tasks_that_failed_before_are_tried_once_and_without_a_pause(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    """The danger: a hundred texts that are no Unicode, and each Run takes a minute and a thousand requests for them."""
    clock = TestClock(START)
    follower = follow(cats, clock=clock)
    follower.run()
    for bad in cats.add([task(n) for n in range(1, 61)])[10:50]:
        cats.poison(bad)
    assert len(follower.run().failed) == 40
    before = clock.micros
    seen = follower.run()
    assert (len(seen.failed), clock.micros) == (40, before)
    assert seen.requests < 4 * 40
    cats.mend()
    assert (len(follower.run().tasks), follower.run().tasks) == (40, [])


def test_each_project_that_is_gone_or_left_out_costs_one_request_however_many_there_are(studio: StandIn) -> None:
    """Each Run asks again until somebody confirms what the Guard stopped."""
    gone = [studio.project("Gone") for _ in range(5)]
    for project in gone:
        project.remove()
    for n in range(250):
        studio.project(f"Here {n}")
    source = connect(studio)
    source.collections()
    assert [source.confirm_collection(Collection(str(project.id + 1000), project.title)) for project in gone] == [True] * 5
    here = list(studio.projects)[:5]  # that the config does not name any more
    assert [source.confirm_collection(Collection(str(project), "Here")) for project in here] == [False] * 5
    assert source.requests == 3 + 5 + 5


def test_settings_follow_edits_and_not_work(studio: StandIn, cats: Project) -> None:
    source = connect(studio)
    here = Collection(str(cats.id), cats.title)
    before = source.settings(here)
    assert before["label_config"]
    cats.annotate(2, result=RESULT)
    cats.add([task(9)])
    assert source.settings(here) == before
    cats.fields["label_config"] = "<View><Text/></View>"
    assert source.settings(here) != before


# tokens


def test_a_personal_access_token_is_told_apart_and_renewed(studio: StandIn, cats: Project, tmp_path: Path) -> None:
    clock = TestClock(START)
    follower = Follower(connect(studio, studio.pat, clock), tmp_path, Collection(str(cats.id), cats.title))
    follower.run()
    assert studio.paths()[0] == "POST /api/token/refresh/"
    assert {r.authorization.split()[0] for r in studio.requests[1:]} == {"Bearer"}
    clock.wait(290)
    studio.requests.clear()
    follower.run()
    assert studio.paths().count("POST /api/token/refresh/") == 1
    follower.close()


def test_an_access_token_that_dies_in_the_middle_is_renewed_once_per_refusal(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    def instead(request: Request) -> None:
        if request.params.get("page_size") == "80":
            studio.instead = lambda _: None
            studio.expire_access_tokens()

    studio.instead = instead
    assert len(follow(cats, token=studio.pat).run().tasks) == 60
    assert studio.paths().count("POST /api/token/refresh/") == 2


@pytest.mark.parametrize(
    ("trouble", "advice"),
    [("disabled", "create a personal access token"), ("wrong", "copy it again"), ("revoked", "revoked"), ("foreign", "copy it again")],
)
def test_refused_credentials_say_what_to_do(trouble: str, advice: str, studio: StandIn, cats: Project) -> None:
    studio.legacy_allowed = trouble != "disabled"
    studio.pat_revoked = trouble == "revoked"
    token = {"disabled": studio.token, "wrong": "f" * 40, "revoked": studio.pat, "foreign": "a.b.c"}[trouble]
    with pytest.raises(AccessError, match=advice) as caught:
        connect(studio, token).collections()
    assert token not in str(caught.value)


@pytest.mark.parametrize("header", ["7", "Mon, 21 Sep 2026 14:13:27 GMT"])
def test_retry_after_is_obeyed_in_both_forms(header: str, studio: StandIn, cats: Project) -> None:
    clock = TestClock(START)
    once(studio, lambda _: Reply(429, b"{}", headers={"Retry-After": header}), path="/api/projects/")
    connect(studio, clock=clock, retry_for=60.0).collections()
    assert clock.micros - START >= 7_000_000


def test_every_try_is_counted(studio: StandIn, cats: Project) -> None:
    once(studio, lambda _: html(502), path="/api/projects/", times=2)
    source = connect(studio, studio.pat, retry_for=60.0)
    source.collections()
    assert source.requests == len(studio.requests) == 4
    assert source.failed.tries == 2


def test_nobody_listens(studio: StandIn) -> None:
    OPENED.append(label_studio.open(settings_of("http://127.0.0.1:9", "x"), {}, TestClock()))
    with pytest.raises(SourceError, match=r"127\.0\.0\.1:9"):
        OPENED[0].collections()


@pytest.mark.parametrize("url", ["studio.example.com", "ftp://x", "https://", "https://user:pw@x", "https://x?y=1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="address of a server"):
        settings_of(url, "x")


# dangers found by review


def test_a_project_emptied_costs_a_listing_and_not_one_for_each_hundred_tasks(tmp_path: Path) -> None:
    with StandIn() as studio:
        studio.clock = TestClock(START).now
        project = studio.project("Many")
        project.add([{"data": {"text": str(n)}} for n in range(3000)])
        follower = Follower(connect(studio), tmp_path, Collection(str(project.id), project.title, project.created_at))
        follower.run()
        later(studio)
        project.delete(*range(1, 3001))
        studio.requests.clear()
        batches = list(follower.source.changes(follower.collection, studio.clock() - 1, follower.known))
        assert len({task for batch in batches for task in batch.missing}) == 3000
        assert len(studio.requests) < 6
        follower.close()


def test_a_failing_task_that_vanished_is_named_even_when_its_file_is_kept(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    """Otherwise its failure stays and holds the Cursor for ever."""
    follower = follow(cats)
    follower.run()
    entry = follower.known.entries(["33"])["33"]
    lease = follower.checkpoint.begin("cats", "keep", Kind.INCREMENTAL, 1)
    follower.checkpoint.commit(lease, follower.collection.id, Commit(entries=[entry._replace(kept=True)]))
    follower.checkpoint.commit(lease, follower.collection.id, Commit(failed=[Failure(follower.collection.id, "33", "bad", START)]))
    cats.delete(33)
    later(studio)
    assert follower.run().missing == ["33"]


def test_a_changed_task_that_is_listed_and_not_handed_over_is_an_error(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    follower = follow(cats)
    follower.run()
    later(studio)
    cats.edit(7, data={"text": "edited"})
    nothing = {"total": 0, "total_annotations": 0, "total_predictions": 0, "tasks": []}
    studio.instead = lambda r: reply(nothing) if r.params.get("fields") == "all" else None
    with pytest.raises(SourceError, match="does not hand over"):
        follower.run()
    studio.instead = lambda _: None
    assert follower.run().tasks == ["7"]


def test_a_task_deleted_while_its_body_is_asked_for_is_no_error(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    follower = follow(cats)
    follower.run()
    later(studio)
    cats.edit(7, data={"text": "edited"})
    cats.edit(8, data={"text": "edited"})

    def vanish(request: Request) -> None:
        if request.params.get("fields") == "all":
            studio.instead = lambda _: None
            cats.delete(7)

    studio.instead = vanish
    seen = follower.run()
    assert (seen.tasks, seen.missing, seen.failed) == (["8"], ["7"], [])


def test_a_server_that_limits_pages_is_read_in_pages_of_its_size(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    """TASK_API_PAGE_SIZE_MAX silently cuts larger pages down."""

    def limited(request: Request) -> Reply | None:
        if int(request.params.get("page_size", "0")) <= 25 or request.path != "/api/tasks":
            return None
        studio.instead = lambda _: None
        answer = studio.answer(replace(request, params=request.params | {"page_size": "25"}))
        studio.instead = limited
        return answer

    cats.poison(33)
    studio.instead = limited
    follower = follow(cats)
    assert len(follower.run().tasks) == 59
    later(studio)
    for number in (*range(1, 33), *range(34, 61)):
        cats.edit(number, data={"text": "x"})
    later(studio)
    follower.source = connect(studio)  # learns the limit anew, from a listing of ids
    assert len(follower.run().tasks) == 59


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_pages_too_heavy_for_a_gateway_are_halved_and_not_the_end_of_the_run(
    seconds: float, studio: StandIn, cats: Project, follow: Callable[..., Follower]
) -> None:
    follower = follow(cats)

    def heavy(request: Request) -> Reply | None:
        if request.params.get("fields") != "all" or int(request.params["page_size"]) <= 6:
            return None
        cast("Any", follower.source)._http._retry._clock.wait(seconds)  # all that `retry_for` allows, and more
        return html(504)

    studio.instead = heavy
    seen = follower.run()
    assert (len(seen.tasks), seen.failed) == (60, [])


def test_a_page_larger_than_memory_should_hold_is_given_up_and_asked_for_in_parts(
    studio: StandIn, follow: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_studio_api, "HEAVIEST_PAGE", 200_000)
    project = studio.project("Heavy")
    project.add([{"data": {"text": "x" * (300_000 if n == 150 else 40_000 if n > 100 else 10)}} for n in range(1, 161)])
    seen = follow(project).run()
    assert (len(seen.tasks), seen.failed) == (160, [])


def test_a_gateway_that_is_back_after_a_moment_makes_no_task_fail(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    follower = follow(cats)
    follower.run()
    later(studio)
    cats.edit(7, data={"text": "edited"})
    met = once(studio, lambda _: html(502), skip=1, times=5)
    seen = follower.run()
    assert (len(met), seen.tasks, seen.failed) == (5, ["7"], [])


def test_a_project_that_shifts_while_projects_are_paged_is_not_left_out(studio: StandIn) -> None:
    made = [studio.project(f"P{number}") for number in range(150)]

    def shift(request: Request) -> None:
        if request.params.get("page") == "2":
            studio.instead = lambda _: None
            made[0].remove()

    studio.instead = shift
    assert {c.title for c in connect(studio).collections()} == {f"P{number}" for number in range(1, 150)}


def test_a_task_that_can_not_be_read_can_still_be_confirmed(studio: StandIn, cats: Project) -> None:
    cats.poison(2)
    source = connect(studio, labeled_only=True)
    assert source.confirm(Collection(str(cats.id), cats.title), ["1", "2"]) == {"2": Gone.REMOVED}


def test_an_import_into_an_empty_project_at_the_wrong_moment_is_read_and_no_error(studio: StandIn, follow: Callable[..., Follower]) -> None:
    empty = studio.project("Empty")

    def add(request: Request) -> None:
        if request.params.get("page_size") == "1":
            studio.instead = lambda _: None
            empty.add([task(1)])

    studio.instead = add
    assert follow(empty).run().tasks == ["1"]


def test_people_are_told_by_the_bodies_themselves(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    """Not by `/api/users/`, which a token may not be allowed to see and which costs a request."""
    follow(cats).run()
    assert {r.path for r in studio.requests} == {"/api/tasks"}


def test_a_server_that_stays_silent_over_a_large_page_is_asked_for_smaller_ones(cats: Project, follow: Callable[..., Follower]) -> None:
    follower = follow(cats)
    client = cast("Any", follower.source)._http._client
    ask, silent = client.stream, list[int]()

    def stream(method: str, path: str, **options: Any) -> Any:
        if options["params"].get("fields") == "all" and options["params"]["page_size"] > 6:
            silent.append(options["params"]["page_size"])
            cast("Any", follower.source)._http._retry._clock.wait(180)
            raise httpx.ReadTimeout("")
        return ask(method, path, **options)

    client.stream = stream
    assert len(follower.run().tasks) == 60
    assert silent[0] == 20
    assert len(silent) < 5, "each of them took minutes"


def test_what_a_proxy_compressed_is_the_same(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    def zipped(request: Request) -> Reply:
        studio.instead = lambda _: None
        answer = studio.answer(request)
        studio.instead = zipped
        body = gzip.compress(answer.body)
        seen.extend([1] * (request.params.get("page_size") == "80"))
        broken = request.params.get("page_size") == "80" and len(seen) == 1
        return Reply(200, body[: len(body) // 2] if broken else body, headers={"Content-Encoding": "gzip"})

    seen = list[int]()
    studio.instead = zipped
    follower = follow(cats)
    assert len(follower.run().tasks) == 60
    assert len(seen) == 2, "half a stream is no answer"


def test_ids_far_apart_cost_no_more_than_their_bits(studio: StandIn, follow: Callable[..., Follower]) -> None:
    project = studio.project("Sparse")
    project.add([task(n) for n in range(300)], ids=[*range(1, 150), *range(10**9, 10**9 + 151)])
    follower = follow(project)
    assert len(follower.run().tasks) == 300
    later(studio)
    project.delete(7, 10**9 + 100)
    seen = follower.run()
    assert set(seen.gone) == {"7", str(10**9 + 100)}
    assert seen.requests < 70


def test_thirty_scattered_deletions_are_all_found(tmp_path: Path) -> None:
    with StandIn() as studio:
        studio.clock = TestClock(START).now
        project = studio.project("Many")
        project.add([{"data": {"text": str(n)}} for n in range(3000)])
        follower = Follower(connect(studio), tmp_path, Collection(str(project.id), project.title, project.created_at))
        follower.run()
        for full in (False, True):
            later(studio)
            gone = [n for n in sorted(project.stored) if n % 97 == full]
            project.delete(*gone)
            seen = follower.run(full=full)
            assert sorted(map(int, seen.gone)) == gone
            assert len(set(seen.missing)) == len(seen.missing)
        follower.close()


def test_a_draft_deleted_and_predictions_imported_in_bulk_between_two_runs(studio: StandIn, cats: Project, follow: Callable[..., Follower]) -> None:
    follower = follow(cats)
    cats.draft(12)
    follower.run()
    later(studio)
    cats.delete_drafts(12)
    cats.predict_in_bulk(13, 12, result=RESULT)
    cats.delete(40)
    later(studio)
    seen = follower.run()
    assert (sorted(seen.tasks), set(seen.gone)) == (["12", "13"], {"40"})
    assert shows(cats, follower.files)


def test_what_was_told_and_is_recorded_is_not_remembered(studio: StandIn, follow: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays flat over a reading of any length."""
    monkeypatch.setattr(label_studio_reading, "TOLD", 100)
    project = studio.project("Many")
    project.add([task(n) for n in range(3000)])
    follower = follow(project)
    assert len(follower.run().tasks) == 3000
    with ThreadPoolExecutor(1) as pool:
        reading = label_studio_reading.Reading(cast("Any", follower.source)._api, follower.collection.id, follower.known, pool, 1)
        for _ in reading.full(None):
            assert len(reading._told) <= 1500


def test_a_source_for_each_run_leaves_no_trust_store_behind(studio: StandIn, cats: Project) -> None:
    """httpx keeps a closed client for the garbage collector, which a daemon's Runs seldom wake: 0.8 MB for each Run."""

    def stores() -> int:
        return sum(isinstance(thing, ssl.SSLContext) for thing in gc.get_objects())

    gc.disable()
    try:
        counts = []
        for _ in range(5):
            with closing(label_studio.open(settings_of(studio.url, studio.token), {}, TestClock(START))) as source:
                assert source.collections()
            counts.append(stores())
        assert counts[0] == counts[-1]
    finally:
        gc.enable()
