"""GraphQL as the stand-in for Labelbox needs it: read a query's text, then pick from plain values what it asks for.

A value to pick from is a dict of fields: each a plain value, another such dict, a list of them, or a function of the field's arguments. `Leaf` marks
a dict or list that is one scalar (`Json`). Asking for a field that is not there fails as on a real server, so a misspelt query is found out
(but in a listing that is empty).
Knows fields, aliases, arguments, variables, `@include` and `@skip`; no fragments, no input types.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_NOTHING = re.compile(r"(?:[\s,]|#[^\n]*)*")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\$\w+|[A-Za-z_]\w*|-?\d+(?:\.\d+)?|[!(){}\[\]:@]')


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """An error as the server tells it: `code` goes into `extensions.code`; `status` is the answer's own."""

    def __init__(self, code: str, message: str, status: int = 200) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


@dataclass(frozen=True, slots=True)
class Leaf:
    """A dict or list that is one value of type Json: no fields are chosen from it."""

    value: Any


@dataclass(slots=True)
class Field:
    name: str
    alias: str
    arguments: dict[str, Any] = field(default_factory=dict)
    directives: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    fields: list[Field] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Variable:
    name: str


@dataclass(slots=True)
class Operation:
    kind: str
    name: str
    variables: dict[str, str]  # name: its type as written
    fields: list[Field]


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0

    def operation(self) -> Operation:
        kind = self._next() if self._peek() != "{" else "query"
        if kind not in {"query", "mutation"}:
            raise Refused("GRAPHQL_PARSE_FAILED", f"Syntax Error: Unexpected Name {kind!r}.", 400)
        name = self._next() if self._peek() not in {"(", "{"} else ""
        found = Operation(kind, name, self._declared() if self._peek() == "(" else {}, self._fields())
        if self._at != len(self._tokens):
            raise Refused("GRAPHQL_PARSE_FAILED", f"Syntax Error: Unexpected {self._peek()!r}.", 400)
        return found

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else "<EOF>"

    def _next(self, expected: str = "") -> str:
        token = self._peek()
        if token == "<EOF>" or (expected and token != expected):
            raise Refused("GRAPHQL_PARSE_FAILED", f"Syntax Error: Expected {expected or 'a name'!r}, found {token!r}.", 400)
        self._at += 1
        return token

    def _declared(self) -> dict[str, str]:
        self._next("(")
        found = {}
        while self._peek() != ")":
            name = self._next().removeprefix("$")
            self._next(":")
            kind = ""
            while not self._peek().startswith("$") and self._peek() != ")":
                kind += self._next()
            found[name] = kind
        self._next(")")
        return found

    def _fields(self) -> list[Field]:
        self._next("{")
        found = []
        while self._peek() != "}":
            found.append(self._field())
        self._next("}")
        if not found:
            raise Refused("GRAPHQL_PARSE_FAILED", "Syntax Error: Expected Name, found '}'.", 400)
        return found

    def _field(self) -> Field:
        name = alias = self._next()
        if self._peek() == ":":
            self._next()
            name = self._next()
        made = Field(name, alias)
        if self._peek() == "(":
            made.arguments = self._arguments()
        while self._peek() == "@":
            self._next()
            made.directives.append((self._next(), self._arguments()))
        if self._peek() == "{":
            made.fields = self._fields()
        return made

    def _arguments(self) -> dict[str, Any]:
        self._next("(")
        found = {}
        while self._peek() != ")":
            name = self._next()
            self._next(":")
            found[name] = self._value()
        self._next(")")
        return found

    def _value(self) -> Any:
        token = self._next()
        if token.startswith("$"):
            return Variable(token[1:])
        if token == "[":
            items = []
            while self._peek() != "]":
                items.append(self._value())
            self._next("]")
            return items
        if token == "{":
            fields = {}
            while self._peek() != "}":
                name = self._next()
                self._next(":")
                fields[name] = self._value()
            self._next("}")
            return fields
        return _literal(token)


def _literal(token: str) -> Any:
    if token.startswith('"'):
        return token[1:-1].encode().decode("unicode_escape")
    if re.fullmatch(r"-?\d+", token):
        return int(token)
    return {"true": True, "false": False, "null": None}.get(token, token)


def _tokens(text: str) -> Iterator[str]:
    at = 0
    while (at := _NOTHING.match(text, at).end()) < len(text):  # type: ignore[union-attr]  # it matches everywhere
        found = _TOKEN.match(text, at)
        if found is None:
            raise Refused("GRAPHQL_PARSE_FAILED", f"Syntax Error: Unexpected character {text[at]!r}.", 400)
        yield found[0]
        at = found.end()


def parse(text: str) -> Operation:
    """The operation in a query's text. Raises Refused."""
    return _Parser(text).operation()


def run(operation: Operation, root: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    """What the operation asks of `root`. Raises Refused."""
    unknown = variables.keys() - operation.variables.keys()
    if unknown:
        raise Refused("GRAPHQL_VALIDATION_FAILED", f"Variable ${min(unknown)} is not defined by operation {operation.name!r}.", 400)
    for name, kind in operation.variables.items():
        if kind.endswith("!") and variables.get(name) is None:
            raise Refused("GRAPHQL_VALIDATION_FAILED", f"Variable ${name} of required type {kind} was not provided.", 400)
    picked = _pick(operation.fields, root, variables, operation.kind)
    assert isinstance(picked, dict)
    return picked


def _pick(fields: list[Field], value: Any, variables: Mapping[str, Any], where: str) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return [_pick(fields, item, variables, where) for item in value]
    if isinstance(value, Mapping) != bool(fields):
        raise Refused("GRAPHQL_VALIDATION_FAILED", f"Field {where!r} must {'not ' if fields else ''}have a selection of subfields.", 400)
    if isinstance(value, Leaf):
        return value.value
    if not isinstance(value, Mapping):
        return value
    found = {}
    for one in fields:
        if all(_filled(arguments, variables)["if"] == (name == "include") for name, arguments in one.directives):
            found[one.alias] = _pick(one.fields, _resolve(one, value, variables, where), variables, one.name)
    return found


def _resolve(one: Field, value: Mapping[str, Any], variables: Mapping[str, Any], where: str) -> Any:
    if one.name not in value:
        raise Refused("GRAPHQL_VALIDATION_FAILED", f'Cannot query field "{one.name}" on {where!r}.', 400)
    found, arguments = value[one.name], _filled(one.arguments, variables)
    if callable(found):
        try:
            inspect.signature(found).bind(**arguments)
        except TypeError as error:
            raise Refused("GRAPHQL_VALIDATION_FAILED", f"Field {one.name!r}: {error}", 400) from error
        return found(**arguments)
    if arguments:
        raise Refused("GRAPHQL_VALIDATION_FAILED", f'Unknown argument "{min(arguments)}" on field {one.name!r}.', 400)
    return found


def _filled(value: Any, variables: Mapping[str, Any]) -> Any:
    if isinstance(value, Variable):
        return variables.get(value.name)
    if isinstance(value, dict):
        given = {name: part for name, part in value.items() if not isinstance(part, Variable) or part.name in variables}
        return {name: _filled(part, variables) for name, part in given.items()}
    if isinstance(value, list):
        return [_filled(part, variables) for part in value]
    return value
