"""A YAML file as plain values, each with the line and column it was written at, its variables expanded.

Refuses to know what the keys mean. Rules:
- Variables are expanded in values after parsing, so that a variable can never add structure; an expanded value is text, and a field that
  wants a number or true/false takes text that spells one.
- Keys are text as written (`on:` and `12:` too), a key stands once, merge keys (`<<`) give way to keys written beside them.
- A problem never quotes a value, since any value may be a secret. One value has one problem: what else is wrong with it is noise.
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
_TEXT = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("str", "timestamp", "value"))  # a date is text to us
_MERGE = "tag:yaml.org,2002:merge"
_VARIABLE = re.compile(r"\$(?:\$|\{([A-Za-z_]\w*)(?:(:-|:\?)([^{}]*))?\}|(\{))")
_NO_VARIABLE = ("not a variable: write ${NAME}, ${NAME:-default} or ${NAME:?message}", "write $${ for the characters ${")
_QUOTES = 'check the indentation; text with : # { [ * & ! or % in it needs "quotes", and so does "${VAR}" between { }'
_TABS = "indent with spaces: YAML takes no tabs"


@dataclass(slots=True)
class Document:
    """One file read: its value, where everything stands, and every problem found so far."""

    file: str
    value: object = None
    places: dict[Where, tuple[int, int]] = field(default_factory=dict)
    problems: dict[Where, Problem] = field(default_factory=dict)

    def problem(self, where: Where, message: str, hint: str = "") -> None:
        """Note a problem at its key, or at the nearest thing around it that stands in the file."""
        line, column = next((self.places[where[:n]] for n in range(len(where), -1, -1) if where[:n] in self.places), (0, 0))
        name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")
        self.problems.setdefault(where, Problem(self.file, line, column, f"{name}: {message}" if name else message, hint))

    def raise_problems(self) -> None:
        """ConfigError with every problem in the order of the file, if there is one."""
        if self.problems:
            raise ConfigError(sorted(self.problems.values(), key=lambda p: (p.line, p.column)))


def read(path: Path, env: Mapping[str, str]) -> Document:
    """The file's values. Raises ConfigError when it can't be read or is no YAML; finer problems wait in `problems`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        node = yaml.compose(text, Loader=_LOADER)
    except OSError as error:
        raise _unusable(path, f"can't be read: {error.strerror}", hint="name the file with -c FILE or $SYNCD_CONFIG") from error
    except UnicodeDecodeError as error:
        raise _unusable(path, "is not UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        # only the parser's own words: what stands at that place may be a secret
        problem, mark = re.sub(r"(alias|anchor|tag|handle) .*", r"\1", error.problem or "not YAML"), error.problem_mark
        raise _unusable(path, problem, mark, _TABS if re.search(r"^ *\t", text, re.MULTILINE) else _QUOTES) from error
    except yaml.YAMLError as error:
        raise _unusable(path, "holds a character that YAML does not allow") from error
    document = Document(str(path))
    try:
        document.value = node and _Reader(document, env).value(node, ())
    except RecursionError as error:
        raise _unusable(path, "an anchor holds itself") from error
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
            faults.append(_NO_VARIABLE)
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


class _Reader(yaml.constructor.SafeConstructor):
    """One walk from nodes to values; PyYAML's own rules for numbers and merge keys."""

    def __init__(self, document: Document, env: Mapping[str, str]) -> None:
        super().__init__()
        self._document = document
        self._env = env
        self._merged: set[int] = set()

    def value(self, node: yaml.Node, where: Where) -> object:
        self._document.places.setdefault(where, _at(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, where)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*where, index)) for index, item in enumerate(node.value)]
            return self._text(node, where) if node.tag in _TEXT else self.construct_object(node)
        except yaml.constructor.ConstructorError as error:
            merge = "merging" in str(error.problem)
            hint = 'text that starts with "!" needs quotes'
            self._document.problem(where, "<< needs a mapping, or a list of them" if merge else "YAML tags are not used here", "" if merge else hint)
        except ValueError:
            self._document.problem(where, "can't be read as the number it looks like", "put it in quotes if it is text")
        return None

    def _text(self, node: yaml.Node, where: Where) -> str:
        text, faults = expand(node.value, self._env)
        for message, hint in faults:
            self._document.problem(where, message, hint)
        return node.value if faults else text

    def _mapping(self, node: yaml.MappingNode, where: Where) -> dict[str, object]:
        if id(node) not in self._merged:  # an alias comes here again
            self._merged.add(id(node))
            self._stands_once(node, where)
            self.flatten_mapping(node)  # merged values come first, so that keys written here win
        found: dict[str, object] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                inner = (*where, key.value)
                self._document.places[inner] = _at(key)
                found[key.value] = self.value(value, inner)
            else:
                self._document.problem(where, "a key must be one word")
        return found

    def _stands_once(self, node: yaml.MappingNode, where: Where) -> None:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in seen:
                    self._document.places[*where, key.value] = _at(key)
                    self._document.problem((*where, key.value), "stands twice", "remove one of them: only one can be meant")
                seen.add(key.value)


def _at(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
