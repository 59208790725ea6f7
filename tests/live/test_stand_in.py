"""The stand-in answers as the real server does: the same project in both, the same requests to both, and equal answers.

Ids and dates differ between the two: tasks are compared by their rank, other ids and dates by their form.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest

from tests.fakes.label_studio import StandIn
from tests.fakes.label_studio_project import Project as StandInProject
from tests.fakes.label_studio_rows import show_time
from tests.live.compare import differences
from tests.live.server import CONFIGS, LabelStudio, Project, box, sample

pytestmark = pytest.mark.live

FLAT = "id,created_at,updated_at,total_annotations,cancelled_annotations,total_predictions,is_labeled,draft_exists"
PROJECT = (
    "id,title,created_at,task_number,total_annotations_number,total_predictions_number,skipped_annotations_number,finished_task_number,"
    "ground_truth_number,label_config,maximum_annotations,created_by"
)


class Twins:
    """The same project on both sides. Ids and dates differ between the two, so both are replaced by their rank before comparing."""

    def __init__(self, server: LabelStudio, real: Project, studio: StandIn, other: StandInProject) -> None:
        self.sides = ((server.url, server.api.http.headers["Authorization"], real.id), (studio.url, f"Token {studio.token}", other.id))
        self.real, self.other = real, other
        self.studio, self.server = studio, server
        self.tasks = (real.ids(), sorted(other.stored))
        dates = [task["updated_at"] for task in real.tasks(fields="task_only", include="id,updated_at")]
        self.times = (dates[len(dates) // 2], show_time(other.stored[self.tasks[1][len(dates) // 2]].updated_at) or "")

    def ask(self, path: str, **params: Any) -> tuple[httpx.Response, httpx.Response]:
        first, second = (
            httpx.get(
                url + self.fill(path, side),
                params={name: self.fill(value, side) for name, value in params.items()},
                headers={"Authorization": authorization},
                timeout=60,
            )
            for side, (url, authorization, _) in enumerate(self.sides)
        )
        return first, second

    def fill(self, value: Any, side: int) -> Any:
        """$PROJECT, $TASK0..., $ID0..., $NOW: what this side calls them."""
        if not isinstance(value, str):
            return value
        value = value.replace("$PROJECT", str(self.sides[side][2])).replace("$NOW", self.times[side])
        for number, task in enumerate(self.tasks[side]):
            value = value.replace(f'"$ID{number}"', str(task)).replace(f"$TASK{number}", str(task))
        return value

    def compare(self, path: str, **params: Any) -> None:
        first, second = self.ask(path, **params)
        names = ("content-type", "www-authenticate")
        assert (first.status_code, *(first.headers.get(n) for n in names)) == (second.status_code, *(second.headers.get(n) for n in names)), (
            second.text[:300]
        )
        if first.headers["content-type"] == "application/json":
            shapes = (_same(answer.json(), side, tasks) for answer, side, tasks in zip((first, second), self.sides, self.tasks, strict=True))
            assert not list(differences(*shapes))


def _same(value: Any, side: tuple[str, str, int], tasks: list[int], name: str = "", inside: str = "") -> Any:
    """The value with whatever the two sides may call differently made equal."""
    if isinstance(value, dict):
        error = {"detail": str(value["detail"])[:40], "validation_errors": bool(value.get("validation_errors"))} if "exc_info" in value else {}
        return error or {key: _same(part, side, tasks, key, name) for key, part in value.items()}
    if isinstance(value, list):
        return [_same(part, side, tasks, name) for part in value]
    if name == "task" or (name == "id" and inside in {"", "tasks"}):
        return f"task {tasks.index(value)}"
    if name in {"id", "annotation", "annotations_ids", "project", "annotations_results", "predictions_results"}:
        return bool(value)
    if value and name in {"created_at", "updated_at", "completed_at"}:
        return f"{len(value)} {value[-1]}"
    return value.replace(side[0], "") if value and name in {"next", "previous"} else value


def where(column: str, operator: str, kind: str, value: object) -> dict[str, object]:
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


@pytest.fixture(scope="module")
def twins(server: LabelStudio) -> Iterator[Twins]:
    seeds = [sample(n, annotations=n % 3, predictions=n % 2) for n in range(7)]
    for seed in seeds:
        for annotation in seed["annotations"]:
            annotation["ground_truth"] = False
    real = server.api.project("Twins", maximum_annotations=1)
    first = real.add(seeds)
    with StandIn() as studio:
        studio.clock = partial(next, itertools.count(1_700_000_000_000_001, 10))  # no two rows of the same moment, as on the real server
        studio.users = server.api.get("/api/users/")
        other = studio.project("Twins", label_config=CONFIGS["bbox"])
        second = other.add(seeds)
        for project, ids in ((real, first), (other, second)):
            project.annotate(ids[3], was_cancelled=True, lead_time=2.5, result=[box()])
            project.draft(ids[0], result=[box()])
            project.annotate(ids[6], result=[box()])
        real.api.patch(f"/api/tasks/{first[5]}/", {"total_annotations": 7})
        other.lie(second[5], total_annotations=7)
        yield Twins(server, real, studio, other)
    real.remove()


FILTERS: list[list[dict[str, object]]] = [
    [],
    [where("id", "greater", "Number", "$ID2")],
    [where("id", "greater_or_equal", "Number", "$ID2"), where("id", "less", "Number", "$ID5")],
    [where("id", "less_or_equal", "Number", "$ID2")],
    [where("id", "in", "Number", {"min": "$ID1", "max": "$ID3"})],
    [where("id", "not_in", "Number", {"min": "$ID1", "max": "$ID3"})],
    [where("id", "in_list", "List", ["$ID1", "$ID3", 999_999])],
    [where("id", "in_list", "Number", [])],
    [where("id", "not_in_list", "Number", ["$ID1"])],
    [where("id", "equal", "Number", "$ID1")],
    [where("id", "not_equal", "Number", "$ID1")],
    [where("id", "nonsense", "Number", "$ID1")],
    [where("id", "greater", "Number", "abc")],
    [where("id", "greater", "Number", 999_999)],
    [where("inner_id", "less", "Number", 3)],
    [where("updated_at", "greater_or_equal", "Datetime", "$NOW")],
    [where("updated_at", "greater", "Datetime", "$NOW")],
    [where("updated_at", "in", "Datetime", {"min": "2020-01-01T00:00:00.0Z", "max": "$NOW"})],
    [where("updated_at", "greater_or_equal", "Datetime", "2020-01-01T00:00:00Z")],
    [where("updated_at", "greater_or_equal", "Datetime", "2020-01-01T00:00:00.000000+00:00")],
    [where("created_at", "less", "Datetime", "2020-01-01T00:00:00.000000Z")],
    [where("draft_exists", "equal", "Boolean", "true")],
    [where("draft_exists", "equal", "Boolean", value=True)],
    [where("draft_exists", "equal", "Boolean", value=False)],
    [where("is_labeled", "equal", "Boolean", value=True)],
    [where("completed_at", "empty", "Datetime", value=False)],
    [where("completed_at", "empty", "Boolean", "True")],
    [where("total_annotations", "greater", "Number", 1)],
    [where("total_annotations", "empty", "Number", value=True)],
    [where("cancelled_annotations", "greater", "Number", 0)],
    [where("total_predictions", "equal", "Number", 1), where("id", "greater", "Number", "$ID2")],
    [where("annotations__id", "greater", "Number", 0)],
    [where("nonsense", "greater", "Number", 0)],
]


@pytest.mark.parametrize(
    "filters", FILTERS, ids=lambda filters: " ".join(f"{f['filter']} {f['operator']}".removeprefix("filter:tasks:") for f in filters)
)
def test_filters_select_the_same_tasks_and_totals(twins: Twins, filters: list[dict[str, object]]) -> None:
    for conjunction in ("and", "or"):
        query = json.dumps({"filters": {"conjunction": conjunction, "items": filters}, "ordering": ["tasks:id"]})
        twins.compare("/api/tasks", project="$PROJECT", query=query, include="id,total_annotations", page=1, page_size=4)


QUERY = json.dumps({"filters": {"conjunction": "and", "items": []}, "ordering": ["tasks:id"]})


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"fields": "all"},
        {"fields": "task_only"},
        {"include": FLAT},
        {"include": FLAT, "fields": "all"},
        {"include": ""},
        {"include": "id,annotations,predictions,drafts,data", "fields": "all"},
        {"omit": "annotations_results,predictions_results", "fields": "all"},
        {"omit": "data,result,created_ago", "fields": "all"},
        {"omit": "annotations_results,predictions_results", "expand": "annotations.completed_by", "fields": "all"},
        {"omit": "data,result,created_ago", "expand": "annotations.completed_by", "fields": "all"},
        {"page_size": 3, "page": 3, "include": "id"},
        {"page_size": 3, "page": 4, "include": "id"},
        {"page_size": 3, "page": 0, "include": "id"},
        {"page_size": 3, "page": "last", "include": "id"},
        {"page_size": 3, "page": "abc", "include": "id"},
        {"page_size": 0, "include": "id"},
        {"page_size": -1, "include": "id"},
        {"page_size": "abc", "include": "id"},
        {"query": "{"},
        {"query": '{"filters":{"conjunction":"and"}}'},
        {"query": '{"ordering":["-tasks:id"]}', "include": "id"},
        {"query": '{"selectedItems":{"all":false,"included":["$ID1","$ID2"]}}', "include": "id"},
        {"padding": "x" * 17_000},
    ],
    ids=str,
)
def test_lists_have_the_same_shape(twins: Twins, params: dict[str, Any]) -> None:
    twins.compare("/api/tasks", **({"project": "$PROJECT", "query": QUERY, "resolve_uri": "false"} | params))


def test_a_flat_listing_shows_draft_exists_only_when_a_filter_asks_for_it(twins: Twins) -> None:
    items = [where("draft_exists", "equal", "Boolean", value=True)]
    query = json.dumps({"filters": {"conjunction": "and", "items": items}, "ordering": ["tasks:id"]})
    twins.compare("/api/tasks", project="$PROJECT", query=query, include=FLAT)


@pytest.mark.parametrize(
    "path", ["/api/tasks/$TASK0/", "/api/tasks/$TASK3/", "/api/tasks/$TASK4/", "/api/tasks/999999/", "/api/projects/999999/", "/api/nothing/"]
)
def test_single_objects_have_the_same_shape(twins: Twins, path: str) -> None:
    twins.compare(path)
    twins.compare(path, include="id,annotations")


@pytest.mark.parametrize("params", [{}, {"project": 999_999}])
def test_a_list_of_no_project_is_refused_alike(twins: Twins, params: dict[str, Any]) -> None:
    twins.compare("/api/tasks", **params)


@pytest.mark.parametrize(
    "params",
    [
        {"include": PROJECT},
        {"include": "title", "ordering": "id"},
        {"include": "title", "ordering": "-id"},
        {"include": PROJECT, "page_size": 1, "page": 99},
    ],
)
def test_project_lists_have_the_same_shape(twins: Twins, params: dict[str, Any]) -> None:
    twins.compare("/api/projects/", **params)


def test_project_lists_page_alike(server: LabelStudio, twins: Twins) -> None:
    more = [server.api.project("Page") for _ in range(2)]
    for _ in more:
        twins.studio.project("Page")
    for page in (1, 2, 3):
        first, second = (answer.json() for answer in twins.ask("/api/projects/", include="title", page_size=1, page=page))
        assert _same(first, twins.sides[0], []) == _same(second, twins.sides[1], [])
    for project in more:
        project.remove()
    for number in sorted(twins.studio.projects)[-2:]:
        twins.studio.projects[number].remove()


def test_a_project_has_the_same_counts_and_settings(twins: Twins) -> None:
    first, second = (answer.json() for answer in twins.ask("/api/projects/$PROJECT/"))
    names = PROJECT.split(",")[3:]
    assert {name: first[name] for name in names} == {name: second[name] for name in names}


def test_users_have_the_same_shape(twins: Twins) -> None:
    first, second = (answer.json() for answer in twins.ask("/api/users/"))
    assert first == second


@pytest.mark.parametrize("authorization", ["", "Token bad", "Bearer bad", "Nonsense", "Token $PAT", "Bearer $PAT", "Bearer $ACCESS"])
def test_credentials_are_refused_alike(twins: Twins, authorization: str) -> None:
    answers = []
    for url, pat in ((twins.server.url, twins.server.pat()), (twins.studio.url, twins.studio.pat)):
        access = httpx.post(f"{url}/api/token/refresh/", json={"refresh": pat}).json()["access"]
        value = authorization.replace("$PAT", pat).replace("$ACCESS", access)
        answer = httpx.get(f"{url}/api/users/", headers={"Authorization": value} if value else {})
        answers.append((answer.status_code, answer.headers.get("www-authenticate"), answer.json()["detail"] if answer.is_error else ""))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("body", [{"refresh": "bad"}, {}])
def test_a_refresh_is_refused_alike(twins: Twins, body: dict[str, str]) -> None:
    first, second = (httpx.post(f"{url}/api/token/refresh/", json=body) for url in (twins.server.url, twins.studio.url))
    assert _same(first.json(), twins.sides[0], []) == _same(second.json(), twins.sides[1], [])
    assert (first.status_code, first.headers.get("www-authenticate")) == (second.status_code, second.headers.get("www-authenticate"))


def test_disabled_legacy_tokens_are_refused_alike(twins: Twins) -> None:
    twins.server.allow_legacy_tokens(allowed=False)
    twins.studio.legacy_allowed = False
    try:
        twins.compare("/api/users/")
    finally:
        twins.server.allow_legacy_tokens(allowed=True)
        twins.studio.legacy_allowed = True


def test_a_lone_surrogate_breaks_its_page_alike(server: LabelStudio, project: Project) -> None:
    server.api.call("POST", f"/api/projects/{project.id}/import", raw=b'[{"data":{"image":"\\ud800"}},{"data":{"image":"fine"}}]')
    with StandIn() as studio:
        other = studio.project("Cats")
        bad = other.add([{"data": {"image": "?"}}, {"data": {"image": "fine"}}])[0]
        other.poison(bad)
        twins = Twins(server, project, studio, other)
        for params in ({"fields": "all"}, {}, {"include": "id"}, {"page_size": 1, "page": 2, "include": "id,data"}):
            twins.compare("/api/tasks", project="$PROJECT", **params)
        twins.compare("/api/tasks/$TASK0/")
        twins.compare("/api/tasks/$TASK1/")
