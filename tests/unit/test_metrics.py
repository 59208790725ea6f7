"""The text that Prometheus reads, checked with Prometheus' own parser for Python."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from syncd import __version__
from syncd.clock import SECOND
from syncd.daemon.ledger import Ledger, State, wiring
from syncd.daemon.metrics import metrics
from syncd.daemon.service import ConfigState
from syncd.model import Kind, Report, Status
from syncd.run.standing import Standing
from tests.fakes.motion import config
from tests.fakes.service import HOSTILE, NOW, FakeService, ledger, run, sample

OF_THE_PROCESS = {"process_cpu_seconds", "process_open_fds", "process_max_fds", "process_resident_memory_bytes"}


def scrape(service: FakeService) -> dict[str, Metric]:
    families = list(text_string_to_metric_families(metrics(service).decode()))
    assert len({family.name for family in families}) == len(families), "each is written once"
    return {family.name: family for family in families}


def value(families: dict[str, Metric], name: str, **labels: str) -> float | None:
    found = [sample.value for sample in families[name.removesuffix("_total")].samples if sample.name == name and sample.labels == labels]
    assert len(found) <= 1
    return found[0] if found else None


def test_names_kinds_and_labels_keep_prometheus_rules() -> None:
    families = scrape(sample())
    for family in families.values():
        assert re.fullmatch(r"(syncd|process)_[a-z_]+", family.name), family.name
        assert family.documentation.endswith(".")
        assert family.type in {"counter", "gauge"}
        for one in family.samples:
            assert (family.type == "counter") == one.name.endswith("_total"), one.name
            if family.name in {"syncd_runs", "syncd_source_requests", "syncd_target_requests"}:
                assert set(one.labels) == {"sync", "status" if family.name == "syncd_runs" else "outcome"}
            elif family.name != "syncd_build_info":
                assert set(one.labels) <= {"sync"}
    assert OF_THE_PROCESS <= families.keys()


def test_the_units_are_in_the_names() -> None:
    units = {"seconds", "bytes"}
    told = {name for name in scrape(sample()) if name.startswith("syncd_") and any(unit in name for unit in units)}
    assert {name.rsplit("_", 1)[1] for name in told} <= units | {"written"}


def test_a_sync_is_told_as_the_board_has_it() -> None:
    service = sample()
    cats = ledger("cats", State.PARTIAL, lag=1.5, failed_in_a_row=2, collections=3, tasks=12_480, failing=9)
    cats.totals = Counter({
        "runs ok": 41, "runs failed": 2, "tasks_written": 7, "bytes_written": 8_000, "deletions": 3, "failures": 4, "hooks": 5, "hooks_refused": 6,
        "source_requests ok": 91, "source_requests failed": 9, "target_requests ok": 49, "target_requests failed": 1,
    })  # fmt: skip
    service.ledgers = [cats, *service.ledgers[1:]]
    families = scrape(service)
    for name, expected in {
        "syncd_last_success_timestamp_seconds": (NOW - 60 * SECOND) / SECOND, "syncd_last_run_timestamp_seconds": NOW / SECOND - 58.6,
        "syncd_oldest_unsynced_change_seconds": 1.5, "syncd_running": 0, "syncd_guard_tripped": 0, "syncd_runs_failed_in_a_row": 2,
        "syncd_collections": 3, "syncd_tasks": 12_480, "syncd_tasks_failing": 9, "syncd_tasks_written_total": 7,
        "syncd_bytes_written_total": 8_000, "syncd_deletions_total": 3, "syncd_failures_total": 4,
        "syncd_hooks_total": 5, "syncd_hooks_refused_total": 6,
    }.items():  # fmt: skip
        assert value(families, name, sync="cats") == pytest.approx(expected), name
    for side, ok, failed in (("source", 91, 9), ("target", 49, 1)):
        assert value(families, f"syncd_{side}_requests_total", sync="cats", outcome="ok") == ok
        assert value(families, f"syncd_{side}_requests_total", sync="cats", outcome="failed") == failed
    ends = {status.value: value(families, "syncd_runs_total", sync="cats", status=status) for status in Status}
    assert ends == {"ok": 41, "partial": 0, "failed": 2, "guarded": 0}, "all four from the start, or the first failure is no increase"


def test_what_a_report_counts_is_summed_for_its_sync() -> None:
    ledger = Ledger("cats", wiring(config({"cats": {}}), "cats"), Standing(), None)
    told = Report("cats", "r", Kind.FULL, source_requests=9, target_requests=5, source_requests_failed=4, target_requests_failed=1)
    ledger.end(told, Standing())
    ledger.end(told, Standing())
    asked = [ledger.totals[f"{side}_requests {outcome}"] for side in ("source", "target") for outcome in ("ok", "failed")]
    assert asked == [10, 8, 8, 2]


def test_guard_and_running_are_told_together() -> None:
    """A Run that goes on does not hide that the Guard still holds deletions back."""
    service = FakeService([ledger("cats", State.RUNNING, run("cats", Status.GUARDED))])
    families = scrape(service)
    assert (value(families, "syncd_running", sync="cats"), value(families, "syncd_guard_tripped", sync="cats")) == (1, 1)


def test_what_is_not_known_is_not_told() -> None:
    families = scrape(FakeService([ledger("new", State.NEVER)]))
    for name in ("syncd_last_success_timestamp_seconds", "syncd_last_run_timestamp_seconds", "syncd_oldest_unsynced_change_seconds"):
        assert families[name].samples == []
    assert value(families, "syncd_tasks", sync="new") == 0


def test_the_daemon_itself() -> None:
    service = sample()
    families = scrape(service)
    assert value(families, "syncd_ready") == 1
    assert value(families, "syncd_config_last_reload_successful") == 1
    (build,) = families["syncd_build_info"].samples
    assert (build.labels["version"], build.value) == (__version__, 1)
    service.reasons, service.waiting, service.config_state = ["studio"], (7, 4), ConfigState(Path("syncd.yaml"), NOW, ["a typo"])
    families = scrape(service)
    assert [value(families, f"syncd_{name}") for name in ("ready", "runs_waiting", "runs_going_on")] == [0, 7, 4]
    assert value(families, "syncd_config_last_reload_successful") == 0
    assert value(families, "syncd_config_last_reload_success_timestamp_seconds") == NOW / SECOND


@pytest.mark.parametrize("name", [HOSTILE, 'quote" back\\slash', "line\nbreak", '"} 1\nsyncd_ready 0', "Ünï{}code,=", " "])
def test_a_hostile_name_is_one_label(name: str) -> None:
    families = scrape(FakeService([ledger(name), ledger("other")]))
    assert value(families, "syncd_tasks", sync=name) == 12_480
    assert {one.labels["sync"] for one in families["syncd_runs"].samples} == {name, "other"}
    assert value(families, "syncd_ready") == 1


def test_no_project_and_no_task_becomes_a_series() -> None:
    """2,000 Syncs stay 46,000 lines, however many tasks fail."""
    text = metrics(sample()).decode()
    assert "1041" not in text
    lines = sum('sync="cats"' in line for line in text.splitlines())
    assert lines == 23
