"""One server for the whole session, one project for each test. Skips, with the reason, what cannot run here."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.live.server import LabelStudio, Postgres, Project, missing

pytest.register_assert_rewrite("tests.live.backup", "tests.live.events_annotations", "tests.live.events_tasks")  # helpers that assert


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = "set SYNCD_LIVE=1 to run against the real Label Studio (make test-live)" if os.environ.get("SYNCD_LIVE") != "1" else missing()
    for item in items:
        if item.get_closest_marker("live") and reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def server() -> Iterator[LabelStudio]:
    with LabelStudio() as running:
        yield running


@pytest.fixture
def project(server: LabelStudio) -> Iterator[Project]:
    made = server.api.project("test")
    yield made
    made.api.http.delete(f"/api/projects/{made.id}/")  # the test itself may have removed it


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    if Postgres.missing():
        pytest.skip(Postgres.missing())
    with Postgres() as running:
        yield running


@pytest.fixture(scope="session")
def pair(postgres: Postgres) -> Iterator[tuple[LabelStudio, LabelStudio]]:
    """Two server processes on one database."""
    with LabelStudio(database=postgres) as first, LabelStudio(database=postgres) as second:
        yield first, second
