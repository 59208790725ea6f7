"""What the contract tests of whole Runs share. Each module says with its own `kind` fixture which Targets it wants."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.rig import server


@pytest.fixture(scope="module")
def url(kind: str) -> Iterator[str]:
    """The server behind this kind of Target, one for each module."""
    with server(kind) as running:
        yield running
