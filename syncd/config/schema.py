"""JSON Schema of the config file, for editors (yaml-language-server) and checks without syncd.

Made from the same models that load the file; says what one value may be, not the rules between parts.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from syncd.config.edges import NAMES, config_class
from syncd.config.loader import secret_fields
from syncd.config.shape import Config
from syncd.fields import Fields, format_duration

_REF = "#/$defs/{model}"
_VARIABLE = {"type": "string", "pattern": r"\$\{", "description": "${VAR}, ${VAR:-default} or ${VAR:?message}"}
_NARROW = ("enum", "pattern", "const")  # what a text with a variable in it could not be


def json_schema() -> dict[str, Any]:
    """Draft 2020-12; imports every edge."""
    edges = {section: [config_class(section, name) for name in names] for section, names in NAMES.items()}
    models: list[type[Fields]] = [Config, *(model for section in edges.values() for model in section)]
    references, schema = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    definitions: dict[str, Any] = schema["$defs"]
    names = {model: references[model, "validation"]["$ref"].removeprefix("#/$defs/") for model in models}
    for model in models[1:]:
        _secret_files(definitions[names[model]], model)
    for definition in definitions.values():
        for name, value in definition.get("properties", {}).items():
            definition["properties"][name] = value if name == "type" else _or_variable(value)
    root = definitions.pop(names[Config])
    definitions.pop("Fields", None)
    for section, classes in edges.items():
        root["properties"][section]["additionalProperties"] = {"oneOf": [{"$ref": f"#/$defs/{names[model]}"} for model in classes]}
    root["required"] = [name for name in root["required"] if name != "state"]
    root["patternProperties"] = {"^x-": {"description": "Yours: a place for anchors."}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **root, "title": "syncd", "$defs": {**definitions, "Variable": _VARIABLE}}


def _secret_files(definition: dict[str, Any], model: type[Fields]) -> None:
    """Each secret may come from a file instead."""
    for name in secret_fields(model):
        definition["properties"][f"{name}_file"] = {"type": "string", "description": f"A file that holds `{name}`."}
        choice = [{"required": [name]}, {"required": [f"{name}_file"]}]
        if name in definition.get("required", ()):
            definition["required"].remove(name)
            definition.setdefault("allOf", []).append({"oneOf": choice})
        else:
            definition.setdefault("allOf", []).append({"not": {"allOf": choice}})


def _or_variable(value: dict[str, Any]) -> dict[str, Any]:
    """A value that is no free text may also be written as a variable."""
    choices = value.get("anyOf", [value])
    open_text = any(choice.get("type") == "string" and not any(word in choice for word in _NARROW) for choice in choices)
    if open_text or any(choice.get("type") in ("object", "array") or "$ref" in choice for choice in choices):
        return value
    about: dict[str, Any] = {word: value[word] for word in ("description", "default") if word in value}
    if isinstance(about.get("default"), float) and any("pattern" in choice for choice in choices):
        about["default"] = format_duration(about["default"])
    plain = {word: rest for word, rest in value.items() if word not in about}
    return {**about, "anyOf": [*plain.pop("anyOf", []), *([plain] if plain else []), {"$ref": "#/$defs/Variable"}]}
