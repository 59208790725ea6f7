"""The stand-in for Labelbox itself: what only it can do. That the vendor's SDK takes it for the real one is shown in tests/contract."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.labelbox import Labelbox
from tests.fakes.labelbox_exports import Content
from tests.fakes.labelbox_faults import cut, drop, edited, html, lines, null_header, short, status
from tests.fakes.labelbox_graphql import Refused, parse, run
from tests.fakes.labelbox_payloads import image, masked, png, skipped, video
from tests.fakes.labelbox_world import Project
from tests.fakes.rig import TestClock

HTTP = httpx.Client(trust_env=False)
EXPORT = "mutation X($input: ExportDataRowsInProjectInput!){exportDataRowsInProject(input: $input){taskId}}"
HEADER = """query H($where: WhereUniqueIdInput, $stream: TaskStreamType!)
    {task(where: $where){exportMetadataHeader(streamType: $stream){totalSize totalLines}}}"""
FILE = """query F($where: WhereUniqueIdInput, $stream: TaskStreamType!, $offset: UInt64!)
    {task(where: $where){exportFileFromOffset(streamType: $stream, offset: $offset){offsets{start end} file}}}"""


@pytest.fixture(scope="module", autouse=True)
def _connections() -> Iterator[None]:
    yield
    HTTP.close()


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def box(clock: TestClock) -> Iterator[Labelbox]:
    with Labelbox() as running:
        running.clock = clock.now
        yield running


def post(box: Labelbox, query: str, **variables: Any) -> httpx.Response:
    return HTTP.post(box.url, json={"query": query, "variables": variables}, headers={"Authorization": f"Bearer {box.key}"})


def data(box: Labelbox, query: str, **variables: Any) -> Any:
    answer = post(box, query, **variables)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def start(box: Labelbox, project: Project, *query: dict[str, Any]) -> dict[str, str]:
    """A new export, as the `where` of a task."""
    filters = {"projectId": project.id, "searchQuery": {"scope": None, "query": list(query)}}
    given = {"taskName": None, "filters": filters, "isStreamableReady": True, "params": {"includeLabelDetails": False}, "streamable": True}
    return {"id": data(box, EXPORT, input=given)["exportDataRowsInProject"]["taskId"]}


def file(box: Labelbox, where: dict[str, str], offset: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = data(box, FILE, where=where, stream="RESULT", offset=str(offset))["task"]["exportFileFromOffset"]
    return found


def ids(box: Labelbox, project: Project, *query: dict[str, Any]) -> list[str]:
    where = start(box, project, *query)
    if data(box, HEADER, where=where, stream="RESULT")["task"]["exportMetadataHeader"] is None:
        return []
    return sorted(orjson.loads(line)["data_row"]["id"] for line in HTTP.get(file(box, where)["file"]).content.splitlines())


def since(clock: TestClock, seconds: float = 0) -> dict[str, Any]:
    at = (clock.micros + int(seconds * 1e6)) // 1_000_000
    text = f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S+0000}"
    return {"type": "data_row_last_activity_at", "value": {"operator": "GREATER_THAN_OR_EQUAL", "timezone": "UTC", "value": text}}


@given(
    st.integers(0, 30),
    st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"") + b"\n"), max_size=6),
    st.integers(1, 40),
)
def test_a_stream_of_rows_made_from_their_number_is_the_same_in_every_piece(count: int, tail: list[bytes], size: int) -> None:
    content = Content(b"".join(tail), b'{"n":%(n)012d}\n' if count else b"", count)
    whole = content.read(0, content.size)
    assert whole == b"".join(b'{"n":%012d}\n' % n for n in range(count)) + b"".join(tail)
    pieces = [content.read(at, min(at + size, content.size)) for at in range(0, content.size, size)]
    assert b"".join(pieces) == whole
    assert content.lines == whole.count(b"\n")
    assert [content.line(at) for at in range(content.size)] == [whole.count(b"\n", 0, at) for at in range(content.size)]


def test_a_planned_fault_that_never_happened_fails_its_test() -> None:
    def planned() -> None:
        with Labelbox() as box:
            box.plan("projects", drop, times=2)
            with pytest.raises(httpx.HTTPError):
                post(box, "{projects{id}}")

    with pytest.raises(AssertionError, match="projects: happened 1 of 2 times"):
        planned()


def test_a_key_sent_to_another_host_fails_its_test() -> None:
    def leaking() -> None:
        with Labelbox() as box:
            cats = box.project("Cats")
            cats.add({})
            url = file(box, start(box, cats))["file"]
            assert HTTP.get(url, headers={"Authorization": f"Bearer {box.key}"}).status_code == 401

    with pytest.raises(AssertionError, match="sent to another host"):
        leaking()


def test_addresses_expire_by_its_own_clock_and_cannot_be_made_up(box: Labelbox, clock: TestClock) -> None:
    cats = box.project("Cats")
    cats.add({}, {})
    where = start(box, cats)
    url = file(box, where)["file"]
    assert HTTP.get(url).status_code == 200
    assert HTTP.get(url.replace("RESULT", "ERRORS")).status_code == 403
    clock.wait(box.files.url_seconds)
    assert (HTTP.get(url).status_code, HTTP.get(file(box, where)["file"]).status_code) == (400, 200)
    assert HTTP.get(file(box, where)["file"], headers={"Range": "bytes=3-5"}).content == HTTP.get(file(box, where)["file"]).content[3:6]


def test_files_end_inside_a_character_and_offsets_inside_a_file_find_it(box: Labelbox) -> None:
    box.files.chunk_size = 10
    cats = box.project("Cats")
    cats.add({"row_data": "€" * 50})
    where = start(box, cats)
    size = data(box, HEADER, where=where, stream="RESULT")["task"]["exportMetadataHeader"]["totalSize"]
    pieces = [HTTP.get(file(box, where, at)["file"]).content for at in range(0, size, 10)]
    assert orjson.loads(b"".join(pieces))["data_row"]["row_data"] == "€" * 50
    assert file(box, where, 25)["offsets"] == {"start": 20, "end": 29}
    assert any(piece[0] & 0xC0 == 0x80 for piece in pieces)  # begins with the rest of a character


def test_the_index_lags_behind_what_is_true(box: Labelbox, clock: TestClock) -> None:
    cats = box.project("Cats")
    box.index_lag = 30
    (one,) = cats.add({})
    assert (ids(box, cats), data(box, "query P($id: ID!){project(where: {id: $id}){dataRowCount}}", id=cats.id)) == (
        [],
        {"project": {"dataRowCount": 1}},
    )
    clock.wait(30)
    assert ids(box, cats) == [one]
    before = since(clock)
    cats.label(one, image())
    assert ids(box, cats, before) == []
    clock.wait(30)
    assert ids(box, cats, before) == [one]


def test_what_moves_the_last_activity_and_what_does_not(box: Labelbox, clock: TestClock) -> None:
    cats = box.project("Cats")
    (row,) = cats.add({"labels": [image(), image()]})

    def moved(change: Any) -> bool:
        clock.wait(60)
        asked = since(clock)
        change()
        return ids(box, cats, asked) == [row]

    told = [
        lambda: cats.touch(row),
        lambda: cats.label(row, image()),
        lambda: cats.edit_label(row, image("other")),
        lambda: cats.review(row),
        lambda: cats.delete_label(row),
        lambda: cats.set_status(row, "IN_REWORK"),
        lambda: box.edit_metadata(row, {"schema_name": "tag", "value": "x"}),
    ]
    silent = [
        lambda: box.silent(row, attachments=[{"type": "TEXT", "value": "x"}], row_data="https://elsewhere.example.com"),
        lambda: cats.set_priority(row, 1),
        lambda: cats.rename_feature("cat", "tiger"),
        lambda: setattr(cats.batches[0], "name", "renamed"),
    ]
    assert [moved(change) for change in told] == [True] * len(told)
    assert [moved(change) for change in silent] == [False] * len(silent)
    assert "tiger" in str(cats.members()[0][1].members[cats.id].labels)
    box.deleting_labels_is_activity = False
    assert not moved(lambda: cats.delete_label(row))
    cats.remove(row)
    assert ids(box, cats) == []
    cats.join(row)
    box.delete(row)
    assert ids(box, cats) == []


def test_masks_and_frames_are_behind_the_key_and_a_redirect(box: Labelbox) -> None:
    box.exports.frames_as_url = True
    cats = box.project("Cats", "VIDEO")
    cats.add({"labels": [video((1, 5))]}, {"labels": [skipped() | {"annotations": {"frames": {}}}]}, {"labels": [masked("m1")]})
    where = start(box, cats)
    rows = [orjson.loads(line) for line in HTTP.get(file(box, where)["file"]).content.splitlines()]
    found = {row["data_row"]["id"]: row["projects"][cats.id]["labels"][0] for row in rows}
    moving, nothing, sky = (label["annotations"] for _, label in sorted(found.items()))
    key = {"Authorization": f"Bearer {box.key}"}
    assert HTTP.get(nothing["frames"], headers=key).status_code == 204
    redirect = HTTP.get(moving["frames"], headers=key)
    assert redirect.status_code == 301
    assert [orjson.loads(line)["frameNumber"] for line in HTTP.get(redirect.headers["Location"]).content.splitlines()] == [1, 5]
    mask = sky["objects"][0]["composite_mask"]["url"]
    assert where["id"] in mask
    assert (HTTP.get(mask).status_code, HTTP.get(mask, headers=key).content) == (401, png("m1"))


def test_faults_of_answers(box: Labelbox) -> None:
    cats = box.project("Cats")
    cats.add({}, {})
    where = start(box, cats)
    box.plan("exportMetadataHeader", null_header)
    assert data(box, HEADER, where=where, stream="RESULT")["task"]["exportMetadataHeader"] is None
    box.plan("graphql", status(503))
    assert post(box, "{user{id}}").status_code == 503
    box.plan("user", html)
    assert post(box, "{user{id}}").text.startswith("<!doctype")
    box.plan("user", edited(lambda found: found.update(user={})), after=1)
    assert [post(box, "{user{id}}").json()["data"]["user"] for _ in range(2)][1] == {}
    url = file(box, where)["file"]
    box.plan("file", short(7))
    assert len(HTTP.get(url).content) == 7
    box.plan("file", cut(7))
    with pytest.raises(httpx.HTTPError):
        HTTP.get(url)


def test_faults_of_exports(box: Labelbox) -> None:
    cats = box.project("Cats")
    one, two = cats.add({}, {})
    box.plan_export(lines(lambda found: found[:1]))
    assert len(ids(box, cats)) == 1
    assert ids(box, cats) == [one, two]


def test_the_budget_of_a_minute(box: Labelbox, clock: TestClock) -> None:
    clock.micros = 1_790_000_040_000_000  # 40 s into a minute
    box.per_minute = 2
    assert [post(box, "{user{id}}").status_code for _ in range(3)] == [200, 200, 429]
    left = post(box, "{user{id}}").headers["Retry-After"]
    clock.wait(float(left))
    assert post(box, "{user{id}}").status_code == 200


def test_its_date_is_that_of_its_clock(box: Labelbox, clock: TestClock) -> None:
    assert post(box, "{user{id}}").headers["Date"] == "Mon, 21 Sep 2026 14:13:20 GMT"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{projects{name nmae}}", "GRAPHQL_VALIDATION_FAILED"),
        ("{projects}", "GRAPHQL_VALIDATION_FAILED"),
        ("{user{id{x}}}", "GRAPHQL_VALIDATION_FAILED"),
        ("{projects(were: 1){id}}", "GRAPHQL_VALIDATION_FAILED"),
        ("query X($id: ID!){project(where: {id: $id}){id}}", "GRAPHQL_VALIDATION_FAILED"),
        ("{projects{id}", "GRAPHQL_PARSE_FAILED"),
        ("{projects{id}}}", "GRAPHQL_PARSE_FAILED"),
        ('{project(where: {id: "nobody"}){id}}', "RESOURCE_NOT_FOUND"),
    ],
)
def test_queries_that_are_wrong(box: Labelbox, query: str, code: str) -> None:
    box.project("Cats")
    assert post(box, query).json()["errors"][0]["extensions"]["code"] == code


def test_the_language_of_queries() -> None:
    def node(id: str, first: int = 1) -> dict[str, Any]:  # noqa: A002 - GraphQL's name
        return {"id": id, "many": [{"n": n} for n in range(first)]}

    query = """query Q($x: ID!, $n: [Int!]! $off: Boolean) {  # two of them
        a: node(id: $x, first: 2) { id many { n } }, node(id: "q\\"") { id many @skip(if: $off) { n } } } # end"""
    found = run(parse(query), {"node": node}, {"x": "y", "n": [1], "off": True})
    assert found == {"a": {"id": "y", "many": [{"n": 0}, {"n": 1}]}, "node": {"id": 'q"'}}
    with pytest.raises(Refused):
        run(parse(query), {"node": node}, {"x": "y", "n": [1], "of": True})
