"""The real Label Studio's API in few words, for tests that seed it, change it and ask what it holds. Every answer's status is checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Self

import httpx

IMPORT_CHUNK = 500  # larger imports may lose annotations on SQLite

CONFIGS = {
    "bbox": '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image"><Label value="Cat"/><Label value="Dog"/>'
    "</RectangleLabels></View>",
    "ner": '<View><Labels name="ner" toName="text"><Label value="PER"/><Label value="ORG"/></Labels><Text name="text" value="$text"/></View>',
    "choices": '<View><Text name="text" value="$text"/><Choices name="mood" toName="text"><Choice value="good"/>'
    '<Choice value="bad"/></Choices></View>',
    "audio": '<View><Audio name="audio" value="$audio"/><TextArea name="words" toName="audio"/></View>',
}


class Client:
    """The server's API in few words; every answer's status is checked. Safe for one thread."""

    def __init__(self, url: str, authorization: str) -> None:
        self.http = httpx.Client(base_url=url, headers={"Authorization": authorization}, timeout=300)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.http.close()

    def call(self, method: str, path: str, body: object = None, *, raw: bytes | None = None, **params: Any) -> Any:
        """The parsed answer (None without one). AssertionError for any status but 2xx."""
        content = {"content": raw, "headers": {"Content-Type": "application/json"}} if raw is not None else {"json": body}
        answer = self.http.request(method, path, params=params, **(content if body is not None or raw is not None else {}))
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text[:600]}"
        return answer.json() if answer.content else None

    def get(self, path: str, **params: Any) -> Any:
        return self.call("GET", path, **params)

    def post(self, path: str, body: object = None, **params: Any) -> Any:
        return self.call("POST", path, body, **params)

    def patch(self, path: str, body: object) -> Any:
        return self.call("PATCH", path, body)

    def delete(self, path: str) -> Any:
        return self.call("DELETE", path)

    def project(self, title: str = "Cats", config: str = "bbox", **fields: Any) -> Project:
        """A new project; `config` names one of CONFIGS."""
        made = self.post("/api/projects/", {"title": title, "label_config": CONFIGS[config], **fields})
        return Project(self, int(made["id"]))

    def user(self, email: str, first_name: str = "", last_name: str = "") -> int:
        """A new member of the organisation; its id."""
        made = self.post("/api/users/", {"email": email, "username": email.split("@", 1)[0], "first_name": first_name, "last_name": last_name})
        return int(made["id"])


class Project:
    """One project and what tests do to it."""

    def __init__(self, api: Client, project_id: int) -> None:
        self.api = api
        self.id = project_id

    def add(self, tasks: Sequence[Mapping[str, Any]], chunk: int = IMPORT_CHUNK) -> list[int]:
        """Import tasks and return their ids in order. What the server says it took is compared with what was sent."""
        ids: list[int] = []
        for start in range(0, len(tasks), chunk):
            part = tasks[start : start + chunk]
            answer = self.api.post(f"/api/projects/{self.id}/import", part, return_task_ids="true")
            took = answer["task_count"], answer["annotation_count"], answer["prediction_count"]
            assert took == (len(part), sum(len(t.get("annotations", ())) for t in part), sum(len(t.get("predictions", ())) for t in part)), took
            ids += answer["task_ids"]
        return ids

    def ids(self) -> list[int]:
        return [int(task["id"]) for task in self.tasks(fields="task_only", include="id")]

    def tasks(self, **params: Any) -> list[dict[str, Any]]:
        """Every task as the list API shows it (fields=all, resolve_uri=false), by id."""
        found: list[dict[str, Any]] = []
        params = {"fields": "all", "resolve_uri": "false"} | params
        while True:
            items = [{"filter": "filter:tasks:id", "operator": "greater", "type": "Number", "value": int(found[-1]["id"]) if found else 0}]
            query = {"filters": {"conjunction": "and", "items": items}, "ordering": ["tasks:id"]}
            page = self.api.get("/api/tasks", project=self.id, page=1, page_size=1000, query=json.dumps(query), **params)["tasks"]
            if not page:
                return found
            found += page

    def task(self, task_id: int) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get(f"/api/tasks/{task_id}/", resolve_uri="false")
        return found

    def annotate(self, task_id: int, **fields: Any) -> int:
        return int(self.api.post(f"/api/tasks/{task_id}/annotations/", {"result": [box()], **fields})["id"])

    def predict(self, task_id: int, **fields: Any) -> int:
        return int(self.api.post("/api/predictions/", {"task": task_id, "result": [box()], "score": 0.5, "model_version": "m1", **fields})["id"])

    def draft(self, task_id: int, annotation: int | None = None, **fields: Any) -> int:
        path = f"/api/tasks/{task_id}/" + (f"annotations/{annotation}/drafts" if annotation else "drafts")
        return int(self.api.post(path, {"result": [box()], "lead_time": 1.5, **fields})["id"])

    def action(self, name: str, tasks: Sequence[int] | None = None, **fields: Any) -> Any:
        """A Data Manager action on these tasks, or on all."""
        chosen = {"all": True, "excluded": []} if tasks is None else {"all": False, "included": list(tasks)}
        body = {"ordering": [], "filters": {"conjunction": "and", "items": []}, "selectedItems": chosen, **fields}
        return self.api.post("/api/dm/actions", body, id=name, project=self.id)

    def change(self, **fields: Any) -> None:
        self.api.patch(f"/api/projects/{self.id}/", fields)

    def remove(self) -> None:
        self.api.delete(f"/api/projects/{self.id}/")


def box(label: str = "Cat", x: float = 10.0) -> dict[str, Any]:
    """One region of the `bbox` config."""
    value = {"x": x, "y": 20, "width": 30, "height": 40.5, "rotation": 0, "rectanglelabels": [label]}
    return {
        "id": f"r{x}",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": 640,
        "original_height": 480,
        "value": value,
    }


def sample(number: int, annotations: int = 1, predictions: int = 0, **data: Any) -> dict[str, Any]:
    """One importable task of the `bbox` config."""
    return {
        "data": {"image": f"https://images.example.com/{number}.jpg", "n": number, **data},
        "annotations": [{"result": [box(x=float(n))], "lead_time": 1.25} for n in range(annotations)],
        "predictions": [{"result": [box("Dog", x=float(n))], "score": 0.25, "model_version": "m1"} for n in range(predictions)],
    }
