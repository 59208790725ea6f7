"""From a file to a Config: every problem in one pass, each with its place and what to do.

Rules:
- Relative paths, in every field, start at the folder of the config file (where the process was started does not matter); `~/` is $HOME.
- For any secret `x`, `x_file` names a file that holds it; a newline at its end is not part of it.
- No message quotes a value of a secret field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TypeVar, get_args

from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails

from syncd.config import rules
from syncd.config.document import Document, Where, read
from syncd.config.edges import NAMES, config_class
from syncd.config.shape import Config, MaxDelete, SyncConfig
from syncd.fields import Fields

F = TypeVar("F", bound=Fields)

_MUST_BE = {
    "string_type": ("must be text", "put it in quotes"),
    "dict_type": ("must be a mapping of keys and values", ""),
    "model_type": ("must be a mapping of keys and values", ""),
    "tuple_type": ("must be a list", "write it as [a, b]"),
    "too_short": ("names nothing", ""),
}

_BLANK = SyncConfig.model_construct()


def load(path: Path, env: Mapping[str, str]) -> Config:
    """The config in `path`, with variables from `env`. Raises ConfigError with every problem; touches nothing."""
    return _Loader(read(path, env), path.absolute().parent, env).load()


@cache
def secret_fields(model: type[Fields]) -> list[str]:
    """Names of the fields that hold secrets; each may be given as `x_file`, unless the edge has a field of that name."""
    return [x for x, field in model.model_fields.items() if _is(SecretStr, field.annotation) and f"{x}_file" not in model.model_fields]


@cache
def _path_fields(model: type[Fields]) -> list[str]:
    return [name for name, field in model.model_fields.items() if _is(Path, field.annotation)]


def _is(wanted: type, annotation: object) -> bool:
    return annotation is wanted or any(_is(wanted, part) for part in get_args(annotation))


class _Loader:
    def __init__(self, document: Document, folder: Path, env: Mapping[str, str]) -> None:
        self._document = document
        self._folder = folder
        self._env = env

    def load(self) -> Config:
        root = self._document.value
        if isinstance(root, dict):
            root = {key: value for key, value in root.items() if not key.startswith("x-")}  # the user's own, say for anchors
        else:
            self._document.problem((), "must hold sources, targets and syncs", "config/minimal.yaml shows the smallest config")
            root = {}
        edges = {section: {name: self._edge(section, value, (section, name)) for name, value in _items(root.get(section))} for section in NAMES}
        names = {"source": edges["sources"], "target": edges["targets"]}
        syncs = {name: self._sync(value, ("syncs", name), names) for name, value in _items(root.get("syncs"))}
        rules.check(self._document, edges["sources"], edges["targets"], syncs)
        config = self._fields(Config, self._root(root, {**edges, "syncs": syncs}), ())
        self._document.raise_problems()
        assert config is not None
        return config

    def _root(self, root: dict[str, object], parts: Mapping[str, Mapping[str, Fields | None]]) -> dict[str, object]:
        """What `Config` is made from. Parts with problems of their own are blank, so that only what the root itself lacks is found."""
        default = self._env.get("STATE_DIRECTORY", "").split(":")[0] or ".syncd"  # systemd lists several with colons
        read = {section: part for section, part in parts.items() if isinstance(root.get(section), dict)}
        return {"state": default} | root | {section: {name: made or _BLANK for name, made in part.items()} for section, part in read.items()}

    def _sync(self, value: object, where: Where, names: Mapping[str, Iterable[str]]) -> SyncConfig | None:
        if isinstance(value, dict):
            rules.check_names(self._document, value, where, names)
        return self._fields(SyncConfig, value, where)

    def _edge(self, section: str, value: object, where: Where) -> Fields | None:
        known = ", ".join(NAMES[section])
        if not isinstance(value, dict):
            self._complain(where, *_MUST_BE["dict_type"])
        elif "type" not in value:
            self._complain(where, "type is missing", f"one of: {known}")
        elif value["type"] not in NAMES[section]:
            self._complain((*where, "type"), "there is no such type", rules.suggest(str(value["type"]), NAMES[section]))
        else:
            return self._fields(config_class(section, value["type"]), value, where)
        return None

    def _fields(self, model: type[F], value: object, where: Where) -> F | None:
        """The model, or None when its problems are noted."""
        before = len(self._document.problems)
        if isinstance(value, dict):
            value = self._paths(model, self._secrets(model, value, where))
        try:
            made = model.model_validate(value, context={})
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_context=True, include_input=False):
                self._translate(model, detail, where)
            return None
        return made if len(self._document.problems) == before else None

    def _secrets(self, model: type[Fields], value: dict[str, object], where: Where) -> dict[str, object]:
        """`value` with each `x_file` replaced by the secret in that file."""
        value = dict(value)
        for name in secret_fields(model):
            if f"{name}_file" not in value:
                if value.get(name) == "" and model.model_fields[name].is_required():
                    self._complain((*where, name), "is empty", f"or give {name}_file")
                elif value.get(name) == "":
                    del value[name]  # "${TOKEN:-}": there is none
                continue
            path, place = value.pop(f"{name}_file"), (*where, f"{name}_file")
            if name in value:
                self._document.problem(place, f"{name} is given too", "keep one of the two", at_key=True)
            elif not isinstance(path, str):
                self._complain(place, "must be the path of a file", "")
            elif text := self._secret(path, place):
                value[name] = text
                continue
            self._document.spoiled.add((*where, name))  # or it would be called missing as well
        return value

    def _secret(self, path: str, where: Where) -> str:
        try:
            text = self._resolve(path).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            self._complain(where, f"can't be read: {error.strerror}", f"syncd looked for {self._resolve(path)}")
        except ValueError:  # not UTF-8, or a path with NUL
            self._complain(where, "does not hold text", "")
        else:
            if not text:
                self._complain(where, "the file is empty", "")
            return text
        return ""

    def _paths(self, model: type[Fields], value: dict[str, object]) -> dict[str, object]:
        return value | {
            name: self._resolve(text) for name in _path_fields(model) if isinstance(text := value.get(name), str) and text and "://" not in text
        }

    def _resolve(self, path: str) -> Path:
        if path.startswith("~/") and self._env.get("HOME"):
            return Path(self._env["HOME"], path[2:])
        return self._folder / path

    def _complain(self, where: Where, message: str, hint: str) -> None:
        if where not in self._document.spoiled:
            self._document.problem(where, message, hint)

    def _translate(self, model: type[Fields], detail: ErrorDetails, where: Where) -> None:
        """One fault found by pydantic, in a user's words."""
        kind, inner = detail["type"], tuple(part for part in detail["loc"] if part != "[key]")
        place = (*where, *inner)
        if place in self._document.spoiled:
            return
        if kind == "missing":
            name = str(inner[-1])
            either = f" or {name}_file" if name in secret_fields(model) else ""
            self._complain(place[:-1], f"{name} is missing", f"add {name}{either}")
        elif kind == "extra_forbidden":
            owner = MaxDelete if inner[:-1] == ("max_delete",) else model
            known = [*owner.model_fields, *(f"{name}_file" for name in secret_fields(owner))]
            self._document.problem(place, "unknown key", rules.suggest(str(inner[-1]), known), at_key=True)
        else:
            message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
            self._complain(place, *_MUST_BE.get(kind, (message, "")))


def _items(value: object) -> list[tuple[str, object]]:
    return list(value.items()) if isinstance(value, dict) else []
