"""Every file in config/ loads, fits the JSON Schema and, where it promises to, names every key."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it ships no types

from syncd.config import load
from syncd.config.edges import NAMES, config_class
from syncd.config.schema import _parts, json_schema
from syncd.config.shape import Config
from syncd.fields import Fields

FOLDER = Path(__file__).parents[2] / "config"
FILES = sorted(FOLDER.glob("*.yaml"))


def env(text: str) -> dict[str, str]:
    return dict.fromkeys(re.findall(r"\$\{(\w+)", text), "x")


def errors(value: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(json_schema()).iter_errors(value)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_example_loads_and_fits_the_schema(path: Path) -> None:
    text = path.read_text()
    assert load(path, env(text)).syncs
    assert errors(yaml.safe_load(text)) == []


def test_the_smallest_example_has_six_lines() -> None:
    assert len((FOLDER / "minimal.yaml").read_text().splitlines()) == 6


def test_the_full_example_names_every_key() -> None:
    text = (FOLDER / "full.yaml").read_text()
    edges: list[type[Fields]] = [config_class(section, name) for section, names in NAMES.items() for name in names]
    outer: list[type[Fields]] = [Config, *edges]
    models = [model for top in outer for model in (top, *_parts(top))]
    keys = {key for model in models for key in model.model_fields}
    assert {key for key in keys if not re.search(rf"\b{key}:", text)} == set()


def test_the_schema_file_is_the_schema() -> None:
    """Made anew with: syncd schema > config/syncd.schema.json"""
    assert json.loads((FOLDER / "syncd.schema.json").read_text()) == json_schema()


def test_every_reference_of_the_schema_leads_somewhere() -> None:
    schema = json_schema()
    assert set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema))) <= set(schema["$defs"])


def test_the_schema_is_one_and_explains_each_key() -> None:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    assert schema["required"] == ["sources", "targets", "syncs"]
    assert {name for name, value in schema["$defs"]["SyncConfig"]["properties"].items() if "description" not in value} == set()


GOOD: dict[str, Any] = {
    "sources": {"s": {"type": "label_studio", "url": "http://s.test", "token": "t"}},
    "targets": {"t": {"type": "local", "path": "./b"}},
    "syncs": {"x": {"source": "s", "target": "t"}},
}


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({"http": "127.0.0.1:8642"}, True),
        ({"http": {"listen": "127.0.0.1:8642", "username": "ann", "password_file": "./f"}}, True),
        ({"http": {"listen": "127.0.0.1:8642", "username": "ann", "password": "p", "password_file": "./f"}}, False),
        ({"http": {"username": "ann"}}, False),
        ({"notify": {"heartbeat_file": "./f", "webhook": "${HOOK}"}}, True),
        ({"notify": {"hartbeat": "https://x.test"}}, False),
        ({"workers": 2}, True),
        ({"workers": "${N}"}, True),
        ({"workers": 0}, False),
    ],
)
def test_an_editor_is_told_the_same_at_the_top(fields: dict[str, Any], fits: bool) -> None:
    assert (errors(GOOD | fields) == []) is fits


@pytest.mark.parametrize(
    ("section", "fields", "fits"),
    [
        ("sources", {"token": "${T}"}, True),
        ("sources", {"token": "t", "token_file": "./f"}, False),
        ("sources", {"concurrency": "${N:-4}"}, True),
        ("sources", {"concurrency": "four"}, False),
        ("sources", {"labeled_onyl": True}, False),
        ("sources", {"retry_for": "90s"}, True),
        ("sources", {"retry_for": 90}, False),
        ("syncs", {"projects": [12, "Cats *"]}, True),
        ("syncs", {"projects": []}, False),
        ("syncs", {"on_delete": "thrash"}, False),
        ("syncs", {"on_delete": "${MODE}"}, True),
        ("syncs", {"max_delete": {"fraction": 2}}, False),
        ("syncs", {"every": "1h30m", "drafts_every": "0s"}, True),
        ("syncs", {"source": None}, False),
        ("syncs", {"hook_secret_file": "./f", "model_runs": ["a"], "notify": {"webhook_file": "./f"}}, True),
        ("syncs", {"hook_secret": "s", "hook_secret_file": "./f"}, False),
    ],
)
def test_an_editor_is_told_what_the_loader_would_say(section: str, fields: dict[str, Any], fits: bool) -> None:
    name = next(iter(GOOD[section]))
    value = GOOD | {section: {name: GOOD[section][name] | fields}}
    assert (errors(value) == []) is fits


def test_a_secret_in_a_file_is_enough_for_the_schema() -> None:
    source = {"type": "label_studio", "url": "http://s.test", "token_file": "./f"}
    assert errors(GOOD | {"sources": {"s": source}}) == []
    assert errors(GOOD | {"sources": {"s": {"type": "label_studio", "url": "http://s.test"}}}) != []
