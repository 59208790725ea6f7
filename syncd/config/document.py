"""A YAML file as plain values, each with the line and column it was written at, its variables expanded.

Refuses to know what the keys mean. Rules:
- Variables are expanded in values after parsing, so that a variable can never add structure; an expanded value is text, and a field that
  wants a number or true/false takes text that spells one.
- Keys are text as written (`on:` and `12:` too), a key stands once, merge keys (`<<`) give way to keys written beside them.
- A problem never quotes a value, since any value may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from syncd.errors import ConfigError, Problem

Where = tuple[str | int, ...]
"""The way to a value: keys and list indexes from the root."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a PyYAML built without libyaml is right too, three times slower
_SCALARS = yaml.constructor.SafeConstructor()
_TAG = "tag:yaml.org,2002:"
_PLAIN = {_TAG + "int": "construct_yaml_int", _TAG + "float": "construct_yaml_float", _TAG + "bool": "construct_yaml_bool"}
_TEXT = (_TAG + "str", _TAG + "timestamp", _TAG + "value")  # a date is text to us
_MERGE = _TAG + "merge"
_VARIABLE = re.compile(r"\$(?:\$|\{([A-Za-z_]\w*)(?:(:-|:\?)([^{}]*))?\}|(\{))")
_MOST_VALUES = 300_000
_DEEPEST = 30


@dataclass(slots=True)
class Document:
    """One file read: its value, where everything stands, and every problem found so far."""

    file: str
    value: object = None
    keys: dict[Where, tuple[int, int]] = field(default_factory=dict)
    values: dict[Where, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    spoiled: set[Where] = field(default_factory=set)  # values already complained about: what else is wrong with them is noise

    def problem(self, where: Where, message: str, hint: str = "", *, at_key: bool = False) -> None:
        """Note a problem at a value, at its key, or at the nearest thing around it that stands in the file."""
        places = (self.keys, self.values) if at_key else (self.values, self.keys)
        line, column = next((place[where[:n]] for n in range(len(where), -1, -1) for place in places if where[:n] in place), (0, 0))
        name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")
        self.problems.append(Problem(self.file, line, column, f"{name}: {message}" if name else message, hint))

    def raise_problems(self) -> None:
        """ConfigError with every problem in the order of the file, if there is one."""
        if self.problems:
            raise ConfigError(sorted(dict.fromkeys(self.problems), key=lambda p: (p.line, p.column)))


def read(path: Path, env: Mapping[str, str]) -> Document:
    """The file's values. Raises ConfigError when it can't be read or is no YAML; finer problems wait in `problems`."""
    document = Document(str(path))
    try:
        node = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=_LOADER)
    except OSError as error:
        raise _unusable(path, f"can't be read: {error.strerror}", hint="name the file with -c FILE or $SYNCD_CONFIG") from error
    except UnicodeDecodeError as error:
        raise _unusable(path, "is not UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        # only the parser's own words: what stands at that place may be a secret
        problem = re.sub(r"(alias|anchor|tag|handle) .*", r"\1", error.problem or "not YAML")
        raise _unusable(path, problem, error.problem_mark, 'text with : # { [ * & ! or % in it needs "quotes"') from error
    except yaml.YAMLError as error:
        raise _unusable(path, "holds a character that YAML does not allow") from error
    if node is not None:
        document.value = _Reader(document, env).value(node, ())
    return document


def _unusable(path: Path, message: str, mark: yaml.Mark | None = None, hint: str = "") -> ConfigError:
    return ConfigError([Problem(str(path), mark.line + 1 if mark else 0, mark.column + 1 if mark else 0, message, hint)])


def expand(text: str, env: Mapping[str, str]) -> tuple[str, list[tuple[str, str]]]:
    """`text` with `${VAR}`, `${VAR:-default}`, `${VAR:?message}` and `$$` replaced, and (message, hint) for each that could not be.

    As in a shell, `:-` and `:?` also catch a variable that is empty; any other `$` stays.
    """
    faults: list[tuple[str, str]] = []

    def replace(match: re.Match[str]) -> str:
        name, operator, rest, malformed = match.groups()
        if malformed:
            faults.append(("not a variable: write ${NAME}, ${NAME:-default} or ${NAME:?message}", "write $${ for the characters ${"))
        elif name is None:
            return "$"
        elif env.get(name) or (operator is None and name in env):
            return env[name]
        elif operator == ":-":
            return str(rest)
        else:
            faults.append((f"variable {name} is not set" + (f": {rest}" if rest else ""), f"set {name}, or write ${{{name}:-default}}"))
        return ""

    return _VARIABLE.sub(replace, text), faults


class _Reader:
    """One walk from nodes to values."""

    def __init__(self, document: Document, env: Mapping[str, str]) -> None:
        self._document = document
        self._env = env
        self._count = 0

    def value(self, node: yaml.Node, where: Where) -> object:
        self._count += 1
        self._document.values[where] = _at(node)
        if self._count > _MOST_VALUES or len(where) > _DEEPEST:  # an anchor that holds itself, or aliases that multiply
            self._document.problem(where[:3], "too deep or too large; does an anchor hold itself?")
            self._document.raise_problems()
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*where, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, where)

    def _scalar(self, node: yaml.Node, where: Where) -> object:
        if node.tag in _TEXT:
            text, faults = expand(node.value, self._env) if "$" in node.value else (node.value, [])
            for message, hint in faults:
                self._spoil(where, message, hint)
            return text
        if node.tag == _TAG + "null":
            return None
        try:
            return getattr(_SCALARS, _PLAIN[node.tag])(node)
        except KeyError:
            self._spoil(where, "YAML tags are not used here", 'text that starts with "!" needs quotes')
        except ValueError:
            self._spoil(where, "can't be read as the number it looks like", "put it in quotes if it is text")
        return None

    def _mapping(self, node: yaml.MappingNode, where: Where) -> dict[str, object]:
        own: dict[str, object] = {}
        merged: dict[str, object] = {}
        pairs = [(key, value) for key, value in node.value if key.tag == _MERGE]
        # merged values first, so that the places of the keys written here win
        for _, value in reversed(pairs):
            for source in reversed(value.value if isinstance(value, yaml.SequenceNode) else [value]):
                if isinstance(source, yaml.MappingNode):
                    merged |= self._mapping(source, where)
                else:
                    self._spoil(where, "<< needs a mapping, or a list of them")
        for key, value in node.value:
            if key.tag == _MERGE:
                continue
            if not isinstance(key, yaml.ScalarNode):
                self._spoil(where, "a key must be one word")
                continue
            name = key.value
            self._document.keys[*where, name] = _at(key)
            if name in own:
                self._document.problem((*where, name), "stands twice", "remove one of them: only one can be meant", at_key=True)
            own[name] = self.value(value, (*where, name))
        return merged | own

    def _spoil(self, where: Where, message: str, hint: str = "") -> None:
        self._document.problem(where, message, hint)
        self._document.spoiled.add(where)


def _at(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
