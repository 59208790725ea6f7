"""The image is built once, for those who start it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deploy.image import Image


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    with Image() as built:
        yield built
