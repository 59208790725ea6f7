"""Where two JSON values differ, by path: what a person wants to read when a comparison of whole projects fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_MISSING = "(missing)"


def differences(first: Any, second: Any, path: str = "$") -> Iterator[str]:
    """One line per place. 1 and 1.0 and True differ: values are sacred (I7)."""
    if isinstance(first, dict) and isinstance(second, dict):
        for name in sorted(first.keys() | second.keys()):
            yield from differences(first.get(name, _MISSING), second.get(name, _MISSING), f"{path}.{name}")
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for number, (one, other) in enumerate(zip(first, second, strict=True)):
            yield from differences(one, other, f"{path}[{number}]")
    elif type(first) is not type(second) or first != second:
        yield f"{path}: {first!r:.200} != {second!r:.200}"
