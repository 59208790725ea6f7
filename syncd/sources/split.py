"""One file of JSON into the pieces that are one task each, at the memory of the largest piece.

Lexical only: it knows strings and braces, and leaves values to `encode.parse`, so that one bad piece fails alone and the others go on. Content tells
an array of objects from lines of objects, split on the newline byte only (strings may hold U+2028), and from one object. A leading BOM is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO, NamedTuple

import orjson

from syncd.errors import TaskError

_READ = 1 << 20  # bytes read at a time, more while one piece is larger
_SPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_OUTSIDE = re.compile(rb'(?:[^"{}]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)  # up to the next brace that is not in a string, or to an open string


class Piece(NamedTuple):
    """where: what a message says before its text; line: from a file of lines, which has no end of its own; alone: the file's only piece."""

    data: bytes
    where: str = ""
    line: bool = False
    alone: bool = False


def pieces(stream: BinaryIO, *, lines_only: bool) -> Iterator[Piece]:
    """The pieces in order. lines_only: the name says that it is a file of lines, which may be empty. TaskError when the text between is broken."""
    head = stream.readline(_READ)
    first = head.removeprefix(_BOM)
    while head and not first.strip(_SPACE):
        head = first = stream.readline(_READ)
    if first.lstrip(_SPACE).startswith(b"["):
        yield from _elements(stream, first)
    elif first or not lines_only:
        yield from _lines_or_one(stream, first, lines_only=lines_only)


def _lines_or_one(stream: BinaryIO, first: bytes, *, lines_only: bool) -> Iterator[Piece]:
    if not first.endswith(b"\n"):
        first += stream.readline()
    second = stream.readline()
    while second and not second.strip(_SPACE):
        second = stream.readline()
    if not second:
        if not first.strip(_SPACE):
            raise TaskError("the file is empty")
        yield Piece(first, alone=True, line=lines_only)
    elif _complete(first) or second.startswith(b"{"):
        for number, line in enumerate(chain((first, second), stream), 1):
            if line.strip(_SPACE):
                yield Piece(line, f"line {number}: ", line=True)
    else:
        yield Piece(first + second + stream.read(), alone=True)


def _complete(line: bytes) -> bool:
    """Whether it is JSON by itself: then no line after it can belong to it."""
    try:
        orjson.loads(line)
    except ValueError:
        return False
    return True


def _elements(stream: BinaryIO, text: bytes) -> Iterator[Piece]:
    """The objects of one array."""
    start = at = depth = number = 0  # start: of the element, or of what stands before it
    expected = b"["
    while True:
        at = _OUTSIDE.match(text, at).end()  # type: ignore[union-attr]  # it also matches nothing
        if at == len(text) or text[at : at + 1] == b'"':
            more = stream.read(max(_READ, len(text) - start))
            if not more:
                break
            text, at, start = text[start:] + more, at - start, 0
            continue
        opens = text[at : at + 1] == b"{"
        if opens and depth == 0:
            _between(text[start:at], expected, number)
            start, expected = at, b","
            number += 1
        depth += 1 if opens else -1
        at += 1
        if depth < 0:
            raise TaskError(f"a brace is closed that was never opened, after element {number}")
        if depth == 0:
            yield Piece(text[start:at], f"element {number}: ")
            start = at
    if depth:
        raise TaskError(f"element {number} is cut off: the file ends inside it")
    _between(text[start:], b"]" if number else b"[]", number)


def _between(text: bytes, expected: bytes, number: int) -> None:
    found = text.translate(None, _SPACE)
    if found == expected:
        return
    if not found:
        what = "a comma is missing" if expected == b"," else "cut off: the array does not end"
        raise TaskError(f"{what} after element {number}")
    raise TaskError(f"not an array of tasks: {found[:40].decode('utf-8', 'replace')!r} stands after element {number}")
