"""JSON Schema of the config file, for editors (yaml-language-server) and checks without syncd.

Made from the same models that load the file; says what one value may be, not the rules between parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from syncd.config.edges import NAMES, config_class
from syncd.config.loader import part_of, secret_fields
from syncd.config.shape import NAME, Config
from syncd.fields import Fields, format_duration

_VARIABLE = {"type": "string", "pattern": r"\$\{", "description": "${VAR}, ${VAR:-default} or ${VAR:?message}"}
_NARROW = ("enum", "pattern", "const")  # what a text with a variable in it could not be


def json_schema() -> dict[str, Any]:
    """Draft 2020-12; imports every edge."""
    root = Config.model_json_schema()
    definitions = root.pop("$defs")
    del definitions["Fields"]
    models = set(_parts(Config))
    for section, names in NAMES.items():
        edges = [config_class(section, name) for name in names]
        schemas = [edge.model_json_schema() for edge in edges]
        for edge, schema in zip(edges, schemas, strict=True):
            definitions |= schema.pop("$defs", {})
            models |= set(_parts(edge))
            _complete(edge, schema)
        root["properties"][section]["patternProperties"] = {NAME: {"oneOf": schemas}}
    for model in models:
        _complete(model, definitions[model.__name__])
    _allow_variables(root["properties"])
    root["required"].remove("state")
    root["patternProperties"] = {"^x-": {"description": "Yours: a place for anchors."}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **root, "title": "syncd", "$defs": {**definitions, "Variable": _VARIABLE}}


def _parts(model: type[Fields]) -> Iterator[type[Fields]]:
    """The models inside this one, at any depth."""
    for field in model.model_fields.values():
        if (part := part_of(field.annotation)) and part is not Fields:
            yield part
            yield from _parts(part)


def _complete(model: type[Fields], schema: dict[str, Any]) -> None:
    """What a model takes from a file: variables, and each secret from a file of its own instead."""
    _allow_variables(schema["properties"])
    for name in secret_fields(model):
        schema["properties"][f"{name}_file"] = {"type": "string", "description": f"A file that holds `{name}`."}
        either = [{"required": [name]}, {"required": [f"{name}_file"]}]
        needed = name in schema.get("required", ())
        schema.setdefault("allOf", []).append({"oneOf": either} if needed else {"not": {"allOf": either}})
        if needed:
            schema["required"].remove(name)


def _allow_variables(properties: dict[str, Any]) -> None:
    """A value that is no free text may also be written as a variable."""
    for name, value in properties.items():
        choices = value.get("anyOf", [value])
        free = any(choice.get("type") == "string" and not any(word in choice for word in _NARROW) for choice in choices)
        if name == "type" or free or any(choice.get("type") in ("object", "array") or "$ref" in choice for choice in choices):
            continue
        about = {word: value.pop(word) for word in ("title", "description", "default") if word in value}
        if isinstance(about.get("default"), float) and any("pattern" in choice for choice in choices):
            about["default"] = format_duration(about["default"])
        properties[name] = {**about, "anyOf": [*value.get("anyOf", [value]), {"$ref": "#/$defs/Variable"}]}
