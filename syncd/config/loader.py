"""From a file to a Config: every problem in one pass, each with its place and what to do.

Rules:
- Relative paths, in every field, start at the folder of the config file (where the process was started does not matter); `~/` is $HOME.
- For any secret `x`, `x_file` names a file that holds it; a newline at its end is not part of it.
- An empty text stands for a key left out, so that `${VAR:-}` can mean none.
- No message quotes a value of a secret field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from syncd.config import rules
from syncd.config.document import Document, Where, read
from syncd.config.edges import NAMES, config_class
from syncd.config.shape import Config
from syncd.fields import Fields, Secret

F = TypeVar("F", bound=Fields)

_MAPPING = ("must be a mapping of keys and values", "write it as {key: value}, or as lines below it that are indented")
_NAME = ("a name is made of letters, digits, . _ and -, at most 100 of them", "")
_MUST_BE = {
    "string_type": ("must be text", "put it in quotes"),
    "dict_type": _MAPPING,
    "model_type": _MAPPING,
    "tuple_type": ("must be a list", "write it as [a, b]"),
    "path_type": ("must be a path", ""),
    "int_parsing": ("must be a whole number", ""),
    "float_parsing": ("must be a number", ""),
    "too_short": ("names nothing", ""),
    "string_pattern_mismatch": _NAME,
    "string_too_long": _NAME,
}


def load(path: Path, env: Mapping[str, str], secrets: set[Path] | None = None) -> Config:
    """The config in `path`, with variables from `env`. Raises ConfigError with every problem; touches nothing.

    secrets: gets the path of every file that a secret is read from, or could not be.
    """
    document = read(path, env)
    config = _Loader(document, path.absolute().parent, env, set() if secrets is None else secrets).load()
    document.raise_problems()
    assert config is not None
    return config


def secret_fields(model: type[Fields]) -> list[str]:
    """Names of the fields that hold secrets; each may be given as `x_file`."""
    return [name for name, field in model.model_fields.items() if _is(Secret, field.annotation)]


def part_of(annotation: object) -> type[Fields] | None:
    """The model of what a field holds, once or by name; None when it holds plain values."""
    if isinstance(annotation, type) and issubclass(annotation, Fields):
        return annotation
    return next(filter(None, map(part_of, get_args(annotation))), None)


def _owner(model: type[Fields], way: Where) -> type[Fields]:
    """The model that has the last key of `way`."""
    parts = iter(way[:-1])
    for part in parts:
        annotation = field.annotation if (field := model.model_fields.get(str(part))) else None
        model = part_of(annotation) or model
        if get_origin(annotation) is dict:
            next(parts, None)
    return model


def _is(wanted: type, annotation: object) -> bool:
    return annotation is wanted or any(_is(wanted, part) for part in get_args(annotation))


@dataclass(frozen=True)
class _Loader:
    document: Document
    folder: Path
    env: Mapping[str, str]
    secrets: set[Path]

    def load(self) -> Config | None:
        """None when there are problems that leave no Config."""
        if not isinstance(self.document.value, dict):
            self.document.problem((), "must hold sources, targets and syncs", "config/minimal.yaml shows the smallest config")
            return None
        # the first folder of several that systemd names; keys with x- are the user's own, say for anchors
        root: dict[str, object] = {"state": self.env.get("STATE_DIRECTORY", "").split(":")[0] or ".syncd"}
        root |= {key: value for key, value in self.document.value.items() if not key.startswith("x-")}
        edges = {section: {name: self._edge(section, name, value) for name, value in _items(root, section)} for section in NAMES}
        root |= {section: part for section, part in edges.items() if isinstance(root.get(section), dict)}
        root = self._filled(Config, root, ())
        rules.check(self.document, edges, {name: sync for name, sync in _items(root, "syncs") if isinstance(sync, dict)})
        return self._validated(Config, root, ())

    def _edge(self, section: str, name: str, value: object) -> Fields:
        """Its `Config`; a blank one when it has problems, so that the others are found too."""
        known = NAMES[section]
        if not isinstance(value, dict):
            self.document.problem((section, name), *_MAPPING)
        elif "type" not in value:
            self.document.problem((section, name, "type"), "is missing", f"one of: {', '.join(known)}")
        elif value["type"] not in known:
            self.document.problem((section, name, "type"), "there is no such type", rules.suggest(str(value["type"]), known))
        else:
            model, where = config_class(section, value["type"]), (section, name)
            return self._validated(model, self._filled(model, value, where), where) or Fields()
        return Fields()

    def _validated(self, model: type[F], value: object, where: Where) -> F | None:
        """The model, or None when its problems are noted."""
        try:
            return model.model_validate(value, context={})
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_input=False):
                self._translate(model, detail, where)
            return None

    def _filled(self, model: type[Fields], value: Mapping[str, object], where: Where) -> dict[str, object]:
        """`value` with secrets read from their files, paths made absolute, and without what is empty, at any depth."""
        value = dict(value)
        for name in secret_fields(model):
            if f"{name}_file" in value:
                value[name] = self._secret(value.pop(f"{name}_file"), (*where, f"{name}_file"), twice=name in value)
        for name, field in model.model_fields.items():
            if value.get(name) == "":
                if field.is_required():
                    self.document.problem((*where, name), "is empty", f"or give {name}_file" if _is(Secret, field.annotation) else "")
                del value[name]
            elif _is(Path, field.annotation) and isinstance(value.get(name), str):
                value[name] = self._path(str(value[name]), (*where, name))
            elif (part := part_of(field.annotation)) and isinstance(inner := value.get(name), dict):
                named = get_origin(field.annotation) is dict
                value[name] = self._filled_each(part, inner, (*where, name)) if named else self._filled(part, inner, (*where, name))
        return value

    def _filled_each(self, part: type[Fields], values: Mapping[str, object], where: Where) -> dict[str, object]:
        return {name: self._filled(part, value, (*where, name)) if isinstance(value, dict) else value for name, value in values.items()}

    def _secret(self, path: object, where: Where, *, twice: bool) -> str:
        """The secret in that file; any text when there is a problem, or the secret would be called missing as well."""
        if twice:
            self.document.problem(where, "the secret itself is given too", "keep one of the two")
            return "?"
        file = self._path(str(path), where)
        self.secrets.add(file)
        try:
            text = file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:  # the path is not shown: it may be the secret, given by mistake
            fault = getattr(error, "strerror", "it holds no text")
            self.document.problem(where, f"can't be read: {fault}", f"relative paths start at {self.folder}")
            return "?"
        if not text:
            self.document.problem(where, "the file is empty")
        return text or "?"

    def _path(self, text: str, where: Where) -> Path:
        if "://" in text or "\0" in text:
            self.document.problem(where, "must be a path on this machine")
            return self.folder
        if text.startswith("~/") and self.env.get("HOME"):
            return Path(self.env["HOME"], text[2:])
        return self.folder / text

    def _translate(self, model: type[Fields], detail: ErrorDetails, where: Where) -> None:
        """One fault found by pydantic, in a user's words."""
        kind, inner = detail["type"], tuple(part for part in detail["loc"] if part != "[key]")
        owner = _owner(model, inner)
        if inner and (*where, *inner[:-1], f"{inner[-1]}_file") in self.document.problems:
            return
        if kind == "missing":
            either = f" or {inner[-1]}_file" if inner[-1] in secret_fields(owner) else ""
            self.document.problem((*where, *inner), "is missing", f"add {inner[-1]}{either}")
        elif kind == "extra_forbidden":
            known = [*owner.model_fields, *(f"{name}_file" for name in secret_fields(owner))]
            self.document.problem((*where, *inner), "unknown key", rules.suggest(str(inner[-1]), known))
        else:
            message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
            self.document.problem((*where, *inner), *_MUST_BE.get(kind, (message, "")))


def _items(root: Mapping[str, object], section: str) -> list[tuple[str, object]]:
    part = root.get(section)
    return list(part.items()) if isinstance(part, dict) else []
