"""`syncd restore --to-label-studio`, and a server that loses answers, commits late, drops annotations and refuses tasks: each task once, or named."""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from syncd.errors import AccessError, OwnedError, SourceError, SyncdError, TransientError
from syncd.model import Counts
from syncd.sources import label_studio_api, label_studio_import
from syncd.sources.label_studio_import import Importer
from syncd.upkeep import restore_label_studio
from syncd.upkeep.asof import Found
from syncd.upkeep.restore import Restored
from syncd.upkeep.restore_compare import Crowd, differences
from syncd.upkeep.restore_work import locked, stage, staged
from tests.fakes.label_studio import Reply, Request, StandIn, error, reply
from tests.fakes.mortal import Died, Life, Mortal
from tests.fakes.rig import TestClock

ME = "me@example.com"
EFFECTS = frozenset({"create", "change", "send", "draft", "remove_draft", "remove_tasks", "remove"})
Task = dict[str, Any]


class Server:
    """The promises and the traps of the real importer. `trouble(call, number)`: lost | late | dropped | down, for one call; `refuse`: tasks that it
    does not take.
    """

    settable = ("label_config", "show_instruction")
    url = "http://studio"

    def __init__(self) -> None:
        self.projects: dict[str, dict[str, Any]] = {}
        self.tasks: dict[str, list[Task]] = {}
        self.trouble: Callable[[str, int], str] = lambda _call, _number: ""
        self.refuse: Callable[[Mapping[str, Any]], bool] = lambda _task: False
        self.calls = 0
        self._ids = itertools.count(100)
        self._late: list[Callable[[], object]] = []

    def whoami(self) -> str:
        return ME

    def people(self) -> frozenset[str]:
        return frozenset({ME, "bob@example.com"})

    def titled(self, start: str) -> list[str]:
        self._arrive(0.3)
        return [id_ for id_, project in self.projects.items() if project["title"].startswith(start)]

    def project(self, project: str) -> Mapping[str, object] | None:
        return self.projects.get(project)

    def create(self, title: str, settings: Mapping[str, object]) -> None:
        self._do("create", lambda: self._create(title, settings))

    def _create(self, title: str, settings: Mapping[str, object]) -> None:
        id_ = str(next(self._ids))
        self.projects[id_] = {name: settings[name] for name in self.settable if name in settings} | {"title": title}
        self.tasks[id_] = []

    def change(self, project: str, fields: Mapping[str, object]) -> None:
        self.projects[project] |= fields

    def send(self, project: str, tasks: Sequence[Mapping[str, object]]) -> tuple[list[int], Counts]:
        if any(map(self.refuse, tasks)):
            raise SourceError("400 Bad Request")
        body = orjson.loads(orjson.dumps(list(tasks)))
        dropped = self.trouble("send", self.calls) == "dropped"
        ids = self._do("send", lambda: self._add(project, copy.deepcopy(body), dropped=dropped))
        parts = (0 if dropped else sum(len(task[kind]) for task in body) for kind in ("annotations", "predictions"))
        return ids, Counts(len(body), *parts)

    def _add(self, project: str, tasks: list[Task], *, dropped: bool) -> list[int]:
        for task in tasks:
            task |= {"id": next(self._ids), "inner_id": len(self.tasks[project]) + 1, "drafts": [], "meta": task.get("meta", {})}
            for kind in ("annotations", "predictions"):
                for part in task[kind]:
                    part |= {"import_id": part.get("id"), "id": next(self._ids)}
                if dropped:
                    task[kind] = []
            self.tasks[project].append(task)
        return [task["id"] for task in tasks]

    def bodies(self, project: str, after: int = 0, among: Sequence[int] = ()) -> Iterator[list[Task]]:
        self._arrive(0.3)
        mine = (task for task in self.tasks[project] if task["id"] > after and (not among or task["id"] in among))
        found = sorted(mine, key=lambda task: int(task["id"]))
        for start in range(0, len(found), 3):
            yield copy.deepcopy(found[start : start + 3])

    def draft(self, task: object, annotation: object, draft: Mapping[str, object]) -> None:
        made = dict(draft) | {"annotation": annotation}
        self._do("draft", lambda: self._of(task)["drafts"].append(made | {"id": next(self._ids)}))

    def remove_draft(self, draft: object) -> None:
        for tasks in self.tasks.values():
            for task in tasks:
                task["drafts"] = [one for one in task["drafts"] if one["id"] != draft]

    def remove_tasks(self, ids: Sequence[int]) -> None:
        for project, tasks in self.tasks.items():
            self.tasks[project] = [task for task in tasks if task["id"] not in ids]

    def remove(self, project: str) -> None:
        del self.projects[project], self.tasks[project]

    def _of(self, id_: object) -> Task:
        return next(task for tasks in self.tasks.values() for task in tasks if task["id"] == id_)

    def _do(self, call: str, act: Callable[[], Any]) -> Any:
        """Act, or do as the trouble says."""
        self.calls += 1
        trouble = self.trouble(call, self.calls - 1)
        if trouble == "down":
            raise TransientError("503")
        if trouble == "late":
            self._late.append(act)
            raise TransientError("no answer in time")
        done = act()
        if trouble == "lost":
            raise TransientError("reset")
        return done

    def _arrive(self, chance: float) -> None:
        """What was sent long ago is committed now, perhaps."""
        while self._late and RANDOM.random() < chance:
            self._late.pop(0)()


RANDOM = random.Random(7)


def task(number: int, **fields: Any) -> Task:
    ann = {"id": 10 * number, "result": [{"x": number}], "was_cancelled": False, "ground_truth": True, "lead_time": 1.5, "created_at": "then"}
    return {
        "id": number, "project": 1, "data": {"text": f"task {number}"}, "meta": {}, "created_at": "2026-11-20T12:00:00Z",
        "annotations": [ann | {"completed_by": {"id": 2, "email": "bob@example.com"}}] * (number % 2),
        "predictions": [{"id": number, "result": [], "score": 0.5, "model_version": "m"}] * (number % 3),
        "drafts": [{"id": 1000 + number, "result": [], "lead_time": 2.5, "annotation": 10 * number if number % 2 else None}] * (number % 5 == 1),
    } | fields  # fmt: skip


def files(tasks: Sequence[Task], project: str = "1") -> list[Found]:
    settings = Found(project, None, f"{project}/_project.json", orjson.dumps({"title": "Cats", "label_config": "<View/>", "show_instruction": True}))
    return [settings, *(Found(project, str(body["id"]), f"{project}/{body['id']}.json", orjson.dumps(body)) for body in tasks)]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_label_studio, "_MOST_TASKS", 5)


def restore(server: Server, work: Path, found: Sequence[Found], life: Life | None = None, people: Mapping[str, str] | None = None) -> list[Restored]:
    stage(found, work, {})
    importer = cast("Importer", server if life is None else Mortal(server, life, EFFECTS))
    crowd = Crowd(server.whoami(), server.people(), people or {})
    return list(restore_label_studio.to_label_studio(importer, TestClock(), work, crowd, None))


def right(server: Server, done: Sequence[Restored], tasks: Sequence[Task]) -> None:
    """Asserts that everything is there, once, and nothing else."""
    (one,) = done
    assert one.failed == []
    assert {id_: project["title"] for id_, project in server.projects.items()} == {one.new_project: "Cats"}
    there = server.tasks[one.new_project]
    assert sorted(found["data"]["text"] for found in there) == sorted(body["data"]["text"] for body in tasks)
    wanted = {body["data"]["text"]: body for body in tasks}
    for found in there:
        again = copy.deepcopy(found)
        assert not list(differences(wanted[found["data"]["text"]], again, Crowd(ME, server.people(), {})))


TASKS = [task(number) for number in range(1, 23)]


def test_drafts_by_several_people_come_back_and_what_people_draft_meanwhile_stays(work: Path) -> None:
    people, server = ("ann@example.com", "bob@example.com"), Server()
    body = task(2, drafts=[{"id": 7 + n, "user": user, "result": [{"x": n}], "annotation": None} for n, user in enumerate(people)])
    (done,) = restore(server, work, files([body]))
    assert done.failed == []
    ((made,),) = server.tasks.values()
    assert [(draft["import_id"], draft["result"]) for draft in made["drafts"]] == [(7, [{"x": 0}]), (8, [{"x": 1}])]
    made["drafts"] += [{"id": 9000 + n, "user": user, "result": [], "import_id": None, "annotation": None} for n, user in enumerate(people)]
    restore(server, work, files([body]))
    assert [draft["import_id"] for draft in made["drafts"]] == [7, 8, None, None]


def test_everything_comes_back_once_in_order_and_a_second_try_does_nothing(work: Path) -> None:
    server = Server()
    right(server, restore(server, work, files(TASKS)), TASKS)
    ids = [orjson.loads(line) for line in (work / "ids.ndjson").read_bytes().splitlines()]
    assert [int(line["task"]) for line in ids] == [body["id"] for body in TASKS]
    assert [int(line["new_task"]) for line in ids] == [found["id"] for found in next(iter(server.tasks.values()))]
    calls = server.calls
    right(server, restore(server, work, files(TASKS)), TASKS)
    assert server.calls == calls


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_before_and_after_each_thing_it_does(work: Path, tmp_path: Path, after: bool) -> None:
    counting = Life()
    restore(Server(), work, files(TASKS), counting)
    for k in range(1, counting.effects + 1):
        server, folder = Server(), tmp_path / f"work-{k}"
        folder.mkdir()
        with pytest.raises(Died):
            restore(server, folder, files(TASKS), Life(k, after=after))
        right(server, restore(server, folder, files(TASKS)), TASKS)


@pytest.mark.parametrize("seed", range(40))
def test_lost_late_and_dropped_answers_and_kills_at_random(work: Path, seed: int) -> None:
    """Whatever happens, the last try ends with each task once; what a server commits after that, the next one removes."""
    chance, server = random.Random(seed), Server()
    server.trouble = lambda call, _number: chance.choice(["", "", "lost", "late", "down", "dropped" if call == "send" else ""])
    for _ in range(6):
        try:
            restore(server, work, files(TASKS), Life(chance.randrange(1, 8), after=chance.random() < 0.5))
        except (Died, SourceError):
            continue
    server.trouble = lambda _call, _number: ""
    restore(server, work, files(TASKS))
    server._arrive(1.0)
    done = restore(server, work, files(TASKS))
    right(server, done, TASKS)


def test_a_chunk_that_is_committed_after_it_was_sent_again_is_removed(work: Path) -> None:
    server = Server()
    server.trouble = lambda call, number: "late" if (call, number) == ("send", 1) else ""
    RANDOM.seed(99)
    right(server, restore(server, work, files(TASKS)), TASKS)


def test_what_was_taken_before_a_kill_is_not_sent_again(work: Path) -> None:
    server = Server()
    with pytest.raises(Died):
        restore(server, work, files(TASKS), Life(3, after=True))  # the project, a chunk, and a chunk whose answer nobody heard
    (one,) = server.tasks
    assert len(server.tasks[one]) == 10
    calls, drafts = server.calls, sum(len(body["drafts"]) for body in TASKS)
    right(server, restore(server, work, files(TASKS)), TASKS)
    assert server.calls - calls == 3 + drafts, "the three chunks that were left"


def test_a_project_that_is_made_late_does_not_stay(work: Path) -> None:
    class Slow(Server):
        patience = 12

        def _arrive(self, chance: float) -> None:
            self.patience -= 1
            super()._arrive(1.0 if self.patience < 0 else 0.0)

    server = Slow()
    server.trouble = lambda call, number: "late" if (call, number) == ("create", 0) else ""
    with pytest.raises(SourceError, match="run this again"):
        restore(server, work, files(TASKS))
    right(server, restore(server, work, files(TASKS)), TASKS)
    assert server.patience < 0


def test_a_refused_task_is_named_and_the_others_come(work: Path) -> None:
    server = Server()
    server.refuse = lambda body: body["data"]["text"] in {"task 7", "task 22"}
    (done,) = restore(server, work, files(TASKS))
    assert done.failed == [("7", "400 Bad Request"), ("22", "400 Bad Request")]
    assert len(server.tasks[done.new_project]) == 20
    assert restore(server, work, files(TASKS))[0].failed == done.failed
    assert len(server.tasks[done.new_project]) == 20


def test_a_server_that_always_drops_annotations_is_found_out(work: Path) -> None:
    server = Server()
    server.trouble = lambda call, _number: "dropped" if call == "send" else ""
    with pytest.raises(SourceError, match="the server took"):
        restore(server, work, files(TASKS))
    assert all(not body["annotations"] and not body["predictions"] for tasks in server.tasks.values() for body in tasks)
    server.trouble = lambda _call, _number: ""
    restored = restore(server, work, files(TASKS))
    right(server, restored, TASKS)


def test_a_task_that_makes_the_server_fail_is_named_and_tried_again(work: Path) -> None:
    class Failing(Server):
        bad = "task 3"

        def send(self, project: str, tasks: Sequence[Mapping[str, object]]) -> tuple[list[int], Counts]:
            if self.bad in str(tasks):
                raise TransientError("500")
            return super().send(project, tasks)

    server = Failing()
    (done,) = restore(server, work, files(TASKS[:9]))
    assert (done.failed, len(server.tasks[done.new_project])) == ([("3", "500")], 8)
    server.bad = "nothing"
    right(server, restore(server, work, files(TASKS[:9])), TASKS[:9])


def test_a_server_that_is_down_ends_it_soon_and_it_goes_on_later(work: Path) -> None:
    server = Server()
    server.trouble = lambda call, number: "down" if call == "send" and number > 2 else ""
    with pytest.raises(SourceError, match="run this again"):
        restore(server, work, files(TASKS))
    assert server.calls < 30
    server.trouble = lambda _call, _number: ""
    right(server, restore(server, work, files(TASKS)), TASKS)


def test_refused_credentials_end_it_at_once(work: Path) -> None:
    class Refusing(Server):
        def send(self, project: str, tasks: Sequence[Mapping[str, object]]) -> tuple[list[int], Counts]:
            raise AccessError("401")

    with pytest.raises(AccessError):
        restore(Refusing(), work, files(TASKS))


def test_annotations_of_people_who_are_not_there_are_the_tokens_users(work: Path) -> None:
    server = Server()
    people = [task(n, drafts=[]) for n in (1, 3, 5, 7)]
    for body, person in zip(people, ({"email": "bob@example.com"}, {"email": "ann@example.com"}, {"email": "old@example.com"}, 17), strict=True):
        body["annotations"][0]["completed_by"] = person
    (done,) = restore(server, work, files(people), people={"old@example.com": "bob@example.com"})
    assert done.failed == []
    by = [found["annotations"][0]["completed_by"]["email"] for found in server.tasks[done.new_project]]
    assert by == ["bob@example.com", ME, "bob@example.com", ME]
    assert done.remarks == {
        f"annotations of ann@example.com are by {ME} now": 1,
        "annotations of old@example.com are by bob@example.com now": 1,
        f"annotations of user 17 are by {ME} now": 1,
    }


def test_what_differs_is_named(work: Path) -> None:
    server = Server()
    (done,) = restore(server, work, files(TASKS))
    there = server.tasks[done.new_project]
    there[0]["annotations"][0]["result"] = []
    there[1]["data"]["text"] = "other"
    del there[2]
    server.projects[done.new_project]["show_instruction"] = False
    server._add(done.new_project, [task(77)], dropped=False)
    (again,) = restore(server, work, files(TASKS))
    assert [name for name, _ in again.failed] == ["", "1", "2", "3"]
    assert "annotations" in again.failed[1][1]
    assert "data" in again.failed[2][1]
    assert "gone" in again.failed[3][1]
    assert again.remarks == {"tasks of the new project are not of this restore": 1}


def test_longer_numbers_than_a_server_holds_are_no_reason_to_send_again(work: Path) -> None:
    """Its answer is lost, and what it made of the numbers is not what was sent: it is found all the same, and the difference is named."""
    server, long = Server(), files([task(1), task(2)])
    long[1] = long[1]._replace(data=(long[1].data or b"").replace(b'"task 1"', b'"task 1","n":0.12345678901234567890123'))
    server.trouble = lambda call, _number: "lost" if call == "send" else ""
    (done,) = restore(server, work, long)
    assert [name for name, _ in done.failed] == ["1"]
    assert len(server.tasks[done.new_project]) == 2


def test_predictions_that_are_only_ids_are_named(work: Path) -> None:
    """As Label Studio's own export has them."""
    server = Server()
    (done,) = restore(server, work, files([task(1, predictions=[17, 18]), task(2)]))
    assert done.failed == [("1", f"restored as task {server.tasks[done.new_project][0]['id']}, but not as it was: predictions (0 instead of 2)")]


def test_what_people_write_by_hand_is_taken_as_far_as_it_can_be(work: Path) -> None:
    server = Server()
    bare = {"id": "own", "result": [{"x": 1}], "lead_time": 3}
    (done,) = restore(server, work, files([task(1, annotations=[bare, {"id": 7, "result": None}], drafts=[{"id": 9, "result": []}])]))
    (made,) = server.tasks[done.new_project]
    assert [(one["import_id"], one["was_cancelled"], one["ground_truth"]) for one in made["annotations"]] == [(None, False, False), (7, False, False)]
    assert done.failed == [("1", f"restored as task {made['id']}, but not as it was: annotations")], "no result is another thing than an empty one"
    assert len(made["drafts"]) == 1


@pytest.mark.parametrize("odd", [{"annotations": 7}, {"predictions": "x"}, {"drafts": {"id": 1}}, {"data": []}])
def test_what_is_no_task_of_label_studio_is_named_and_the_others_come(work: Path, odd: Task) -> None:
    server = Server()
    (done,) = restore(server, work, files([task(1, **odd), task(2)]))
    assert [("1", True)] == [(id_, why.startswith("no task of Label Studio")) for id_, why in done.failed]
    assert ["task 2"] == [made["data"]["text"] for made in server.tasks[done.new_project]]


def test_a_reading_that_was_cut_short_begins_anew(work: Path) -> None:
    def cut() -> Iterator[Found]:
        yield from files(TASKS)[:9]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage(cut(), work, {})
    server = Server()
    right(server, restore(server, work, files(TASKS)), TASKS)


def test_another_restore_may_not_use_the_folder(work: Path) -> None:
    restore(Server(), work, files(TASKS))
    with pytest.raises(SyncdError, match="another restore"):
        stage(files(TASKS), work, {"task": "1"})
    with locked(work), pytest.raises(OwnedError), locked(work):
        pass


def test_a_torn_journal_and_several_projects(work: Path) -> None:
    server = Server()
    found = [*files(TASKS[:3]), *files(TASKS[3:6], "2"), Found("", "99", "", None, "no such task")]
    done = restore(server, work, found)
    assert [(one.project, one.tasks, one.failed) for one in done] == [("1", 3, []), ("2", 3, []), ("", 0, [("99", "no such task")])]
    with (work / "1.journal.ndjson").open("ab") as journal:
        journal.write(b'{"begin": 0, "en')
    assert [one.failed for one in restore(server, work, found)] == [[], [], [("99", "no such task")]]
    assert [len(tasks) for tasks in server.tasks.values()] == [3, 3]
    for project in staged(work):
        assert b"\n" not in project.line(0)[:-1] if len(project) else True
        project.close()


def test_tasks_that_are_too_heavy_together_are_read_back_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_studio_api, "HEAVIEST_PAGE", 4_000)
    with StandIn() as studio:
        project = studio.project("Heavy")
        ids = project.add([{"data": {"text": "x" * 1_500}} for _ in range(6)] + [{"data": {"text": "x" * 5_000}}])
        server = label_studio_import.open(studio.url, studio.token, TestClock())
        with closing(server):
            assert [body["id"] for page in server.bodies(str(project.id)) for body in page] == ids
            assert [body["id"] for page in server.bodies(str(project.id), among=ids[2:5]) for body in page] == ids[2:5]


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"task_ids": [7]},
        {"task_ids": [], "task_count": 1, "annotation_count": 0, "prediction_count": 0},
        {"task_ids": [7], "task_count": 1, "annotation_count": "0", "prediction_count": 0},
    ],
)
def test_an_answer_that_does_not_say_what_was_made_leaves_it_in_doubt(told: dict[str, object]) -> None:
    """The server has made the tasks, maybe: they must be looked for, not sent again in halves."""
    with StandIn() as studio:
        studio.instead = lambda request: reply(told, 201) if request.method == "POST" else None
        server = label_studio_import.open(studio.url, studio.token, TestClock())
        with closing(server), pytest.raises(TransientError, match="ids of the new tasks"):
            server.send("1", [{"data": {}}])


def test_what_the_server_refuses_is_said_in_its_own_words(work: Path) -> None:
    """A label config that an older one doesn't know, and a task."""

    def instead(request: Request) -> Reply | None:
        if request.method == "POST":
            return error(400, "Validation error", validation_errors={"label_config": ["<Magic> is no tag"]})
        return reply([]) if request.path == "/api/users/" else None

    with StandIn() as studio:
        studio.instead = instead
        with closing(label_studio_import.open(studio.url, studio.token, TestClock())) as server:
            with pytest.raises(SourceError, match=r'refuses it: \{"label_config":\["<Magic> is no tag"\]\}; is this Label Studio older'):
                server.create("Cats", {"label_config": "<Magic/>"})
            with pytest.raises(SourceError, match=r"tag\"\]\}$"):
                server.send("1", [{"data": {}}])
