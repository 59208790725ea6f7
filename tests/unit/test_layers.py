"""Imports go down only, and each vendor's library lives inside its own file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = [  # from the bottom up
    {"errors", "model", "clock", "known", "context"},
    {"cron", "encode", "fields", "keys", "pace", "plan", "reconcile", "retry", "scratch"},
    {"sources", "targets", "checkpoint"},
    {"config"},
    {"run", "upkeep"},
    {"daemon"},
    {"cli"},
]
EDGES = {"sources", "targets", "checkpoint"}
SHARED = {"base", "http", "objects", "rows", "split", "folders"}  # what the edges of one package may share
VENDORS = {
    "boto3": {"targets/s3.py"},
    "botocore": {"targets/s3.py"},
    "google": {"targets/gcs.py"},
    "apscheduler": {"daemon/*"},
    "cronsim": {"cron.py"},
    "httpx": {"sources/http.py", "daemon/notify.py"},
    "jinja2": {"daemon/page.py"},
    "msgspec": {"sources/labelbox_rows.py"},
    "obstore": {"targets/objects.py", "targets/s3.py", "targets/gcs.py"},
    "prometheus_client": {"daemon/metrics.py"},
    "rich": {"cli/*"},
    "sqlite3": {"checkpoint/*", "scratch.py", "sources/files.py"},
    "starlette": {"daemon/web.py", "daemon/hooks.py"},
    "typer": {"cli/*"},
    "uvicorn": {"daemon/web.py"},
    "watchdog": {"daemon/*"},
    "yaml": {"config/*", "cli/*"},
}
MODULES = sorted((ROOT / "syncd").rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(part: str) -> int:
    found = [number for number, names in enumerate(LAYERS) if part in names]
    assert found, f"syncd.{part} has no layer: give it one"
    return found[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    parts = path.relative_to(ROOT / "syncd").with_suffix("").parts
    if parts in {("__init__",), ("__main__",)}:
        return
    for name in imports(path):
        target = name.split(".")
        if target[0] != "syncd" or len(target) == 1 or target[1] == "__version__":
            continue
        assert layer(target[1]) <= layer(parts[0]), f"{name} is above {parts[0]}"
        if parts[0] in EDGES and target[1] in EDGES:
            assert target[1] == parts[0], f"edges never import each other: {name}"
            family = parts[-1].split("_")[0]  # label_studio may be in two files, a Checkpoint in three
            assert len(target) < 3 or target[2] in SHARED or target[2].startswith(family), f"{name} is another edge"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_vendors_stay_in_their_own_files(path: Path) -> None:
    here = str(path.relative_to(ROOT / "syncd"))
    for name in imports(path):
        homes = VENDORS.get(name.split(".")[0])
        assert homes is None or here in homes or f"{here.split('/', maxsplit=1)[0]}/*" in homes, f"{name} does not belong here"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_time_has_one_door(path: Path) -> None:
    if path.name == "clock.py":
        return
    assert not {"time", "time.time", "time.sleep", "datetime.datetime"} & set(imports(path)), "ask the Clock"


def test_every_module_says_what_it_is_for() -> None:
    silent = [str(path) for path in MODULES if path.read_text("utf-8").strip() and not ast.get_docstring(ast.parse(path.read_text("utf-8")))]
    assert silent == []
