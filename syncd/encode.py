"""Bytes to values and values to the bytes of a TaskFile, with every value exact (I7).

Pure. Refuses what no JSON reader would give back as it was sent: NaN and Infinity, lone surrogates, bytes that are not UTF-8, repeated keys, nesting
that cannot be written; each is a TaskError that names the JSON path.

Rules:
- orjson is trusted only as far as it proves itself: what it parsed is written again and compared. Equal but for white space: nothing was altered.
  Otherwise each number that binary64 or 64 bits may not hold is compared as a decimal.
- A number that would be altered becomes an `orjson.Fragment`, so that `dumps` writes it digit for digit; any other becomes the int or float that
  orjson makes of it. So one value has one spelling, whichever way its page took. Whoever looks into bodies must expect Fragments among the numbers.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

import orjson

from syncd.errors import TaskError
from syncd.model import TaskFile

DEEPEST = 254  # levels of arrays and objects that orjson writes

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
_SPACE = b" \t\r\n"
_SHOWN = 200  # characters of a path in a message
# 15 digits always survive binary64: only longer runs (a dot counts) and exponents can be altered. Inside a string a match costs time, not truth.
_NUMBER = re.compile(rb"[\s:,\[](-?[0-9](?:[0-9.]{16,}(?:[eE][-+]?[0-9]+)?|[0-9.]*[eE][-+]?[0-9]+))")


def parse(raw: bytes | memoryview, *, unique: bool = False) -> object:
    """The JSON value of `raw`, exact. `unique`: also refuse repeated keys, for text that was not written by a server from its own objects.

    Costs one orjson.dumps more than orjson (1.6 to 3.4 µs per 2 KB) when the sender spells as orjson does; else 15 to 35 µs. Raises TaskError.
    """
    raw = bytes(raw)
    try:
        value: object = orjson.loads(raw)
        again = orjson.dumps(value)
    except (ValueError, TypeError):
        return _exact(raw, unique=unique)  # a number beyond orjson, or a fault to name
    if _same(again, raw):
        return value
    if (unique and _may_repeat(again, raw)) or any(map(_altered, set(_NUMBER.findall(b" " + raw)))):
        return _exact(raw, unique=unique)
    return value


def dumps(value: object) -> bytes:
    """One line of JSON with sorted keys, and a newline. Raises TaskError."""
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except TypeError as error:
        raise TaskError(next(_faults(value), f"can't be written as JSON: {error}")) from None


def digest(data: bytes) -> bytes:
    """sha256, 32 bytes."""
    return hashlib.sha256(data).digest()


def task_file(key: str, body: Mapping[str, object] | bytes) -> TaskFile:
    """The TaskFile of a body: as `parse` gave it, or its very bytes. Raises TaskError."""
    data = body if isinstance(body, bytes) else dumps(body)
    return TaskFile(key, data, digest(data))


def _same(again: bytes, raw: bytes) -> bool:
    """Whether both are the same tokens: then no number was altered, no key repeated."""
    return again == raw or again.translate(None, _SPACE) == raw.translate(None, _SPACE)


def _may_repeat(again: bytes, raw: bytes) -> bool:
    """Whether a key may be repeated: a lost key takes its colon with it, and only an escape gives one back."""
    return again.count(b":") != raw.count(b":") or b"\\u003" in raw


def _exact(raw: bytes, *, unique: bool) -> object:
    """By the standard library, which hands over each number as text; orjson still judges the rest, since it is the stricter."""
    try:
        orjson.loads(_NUMBER.sub(lambda found: found[0][:1] + b"0", b" " + raw))
        value: object = json.loads(raw.decode(), parse_int=_number, parse_float=_number, object_pairs_hook=_distinct if unique else None)
        orjson.dumps(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise TaskError(_explain(raw, str(error), unique=unique)) from None
    return value


def _number(token: str) -> object:
    """What a number becomes: an int, a float, or a Fragment when neither is the same decimal value. Raises ValueError."""
    if "." not in token and "e" not in token and "E" not in token:
        integer = int(token) if len(token) <= 20 else 2**64  # noqa: PLR2004 - the longest 64-bit integers have 20 characters
        return integer if -(2**63) <= integer < 2**64 else orjson.Fragment(token)
    value = float(token)
    again = repr(value)
    if again == token:
        return value
    try:
        return value if Decimal(token) == Decimal(again) else orjson.Fragment(token)
    except ArithmeticError:  # an exponent beyond Decimal
        return orjson.Fragment(token)


def _altered(token: bytes) -> bool:
    try:
        return isinstance(_number(token.decode()), orjson.Fragment)
    except ValueError:  # 1.2.3.4: part of a string, since orjson took it
        return False


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is repeated")
    return found


class _Pairs(list[tuple[str, object]]):
    """An object with its repeated keys."""


class _Constant(str):
    """NaN, Infinity or -Infinity."""

    __slots__ = ()


def _explain(raw: bytes, reason: str, *, unique: bool) -> str:
    """Which path of a refused text is wrong, and what is. Slow and thorough: it runs for faults only."""
    text = raw.decode("utf-8", "surrogateescape")  # foreign bytes become lone surrogates, which `_faults` finds
    try:
        # `len`: numbers are never at fault, and int() refuses very long ones
        value: object = json.loads(text, parse_int=len, parse_float=len, parse_constant=_Constant, object_pairs_hook=_Pairs)
    except RecursionError:
        return f"$: nested deeper than {DEEPEST} levels"
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    return next(_faults(value, unique=unique), f"not JSON: {reason}")


def _faults(root: object, *, unique: bool = False) -> Iterator[str]:
    """`path: what is wrong`, in the order of the text."""
    stack: list[tuple[str, object, int]] = [("$", root, 1)]
    while stack:
        path, value, depth = stack.pop()
        shown = path if len(path) <= _SHOWN else f"{path[:_SHOWN]}..."
        if isinstance(value, _Constant):
            yield f"{shown}: {value} is no JSON value"
        elif isinstance(value, str) and not _encodable(value):
            yield f"{shown}: a lone surrogate, or bytes that are not UTF-8"
        elif isinstance(value, dict | list) and depth > DEEPEST:
            yield f"{shown}: nested deeper than {DEEPEST} levels"
        elif isinstance(value, dict | _Pairs):
            pairs = list(value.items()) if isinstance(value, dict) else value
            yield from (f"{shown}: a key with a lone surrogate, or bytes that are not UTF-8" for key, _ in pairs if not _encodable(key))
            if unique and (repeated := _repeated(pairs)) is not None:
                yield f"{shown}{_step(repeated)}: the key is repeated"
            stack.extend((path + _step(key), item, depth + 1) for key, item in reversed(pairs))
        elif isinstance(value, list):
            stack.extend((f"{path}[{index}]", value[index], depth + 1) for index in reversed(range(len(value))))


def _repeated(pairs: list[tuple[str, object]]) -> str | None:
    seen: set[str] = set()
    return next((key for key, _ in pairs if key in seen or seen.add(key)), None)  # type: ignore[func-returns-value]  # add answers None: not seen before


def _step(key: str) -> str:
    return f".{key}" if key.isidentifier() else f"[{json.dumps(key)}]"


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
