"""The shapes that config fields share: every edge declares its own `Config` with them, the loader reads them all alike.

Refuses to read files or the environment: that is the loader's work. Secrets are never shown by any repr, log or error.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo, WithJsonSchema

from syncd.errors import hide

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LONGEST = 36500 * 86400.0  # the reach of dates ends somewhere behind
_DURATION_SCHEMA: dict[str, Any] = {"type": ["string", "integer"], "maximum": 0, "minimum": 0, "examples": ["60s", "24h", "30d"]}
_DURATION_SCHEMA["pattern"] = r"^(0|(\d+(\.\d+)?(ms|s|m|h|d|w))+)$"  # limits hold for numbers, the pattern for text
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")


def parse_duration(value: object) -> float:
    """Seconds of `60s`, `1h30m`, `30d`; a bare number is refused, since nobody knows its unit (0 alone needs none). Raises ValueError."""
    if value in (0, "0") and not isinstance(value, bool):
        return 0.0
    text = value.strip() if isinstance(value, str) else ""
    if not text or _DURATION.sub("", text):
        raise ValueError("not a duration: write a number and a unit, like 60s, 10m, 24h or 30d")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
    if seconds > _LONGEST:
        raise ValueError("longer than 100 years")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as these seconds, in one unit: `24h` for 86400."""
    for unit in ("w", "d", "h", "m", "s"):
        if seconds >= _UNITS[unit] and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    return f"{seconds * 1000:.0f}ms" if seconds else "0s"


def _seconds(value: object, info: ValidationInfo) -> float:
    # Code says seconds as a float; a file, which the loader reads with a context, must name the unit.
    return value if isinstance(value, float) and info.context is None else parse_duration(value)


Duration = Annotated[
    float,
    BeforeValidator(_seconds),
    WithJsonSchema(_DURATION_SCHEMA),
]
"""Seconds, written with a unit."""

Concurrency = Annotated[int, Field(ge=1, le=1000)]
"""How many at a time."""


class Secret(SecretStr):
    """Text that is never shown, even where a server gives it back. In the file, `x_file: PATH` may stand for any secret `x`."""

    def __init__(self, secret_value: str) -> None:
        super().__init__(secret_value)
        hide(secret_value.strip())


class Fields(BaseModel):
    """Base of every part of the config: unknown keys are errors, values never change after loading and never appear in error texts."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)
