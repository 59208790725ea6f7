"""Alarm rules and dashboard: right by promtool, and made of metrics that a running daemon really tells."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.deploy.daemon import Daemon
from tests.deploy.tools import DEPLOY, live, run, tool
from tests.live.server import Process, free_port

RULES = DEPLOY / "prometheus/rules.yaml"
DASHBOARD = DEPLOY / "grafana/dashboard.json"
VARIABLES = {"$sync": ".*", "$__rate_interval": "5m"}


def in_rules() -> Iterator[str]:
    yield from (rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"])


def in_dashboard() -> Iterator[str]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            assert "$" not in expression, expression
            yield expression


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Daemon(tmp_path_factory.mktemp("daemon")) as daemon:
        yield daemon.wait_for_a_run()


def test_the_rules_are_right() -> None:
    assert "SUCCESS" in run([tool("promtool"), "check", "rules", RULES])


def test_the_rules_ring_when_they_must_and_only_then() -> None:
    assert "SUCCESS" in run([tool("promtool"), "test", "rules", RULES.with_name("rules_test.yaml")])


def test_each_rule_is_tested_ringing_and_silent() -> None:
    tests = yaml.safe_load(RULES.with_name("rules_test.yaml").read_text())["tests"]
    asked = [case for test in tests for case in test["alert_rule_test"]]
    names = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    assert names == {case["alertname"] for case in asked if case.get("exp_alerts")}
    assert names == {case["alertname"] for case in asked if not case.get("exp_alerts")}


def test_every_expression_of_the_dashboard_is_right(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(in_dashboard())]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in run([tool("promtool"), "check", "rules", tmp_path / "panels.yaml"])


def test_promtool_finds_nothing_to_say_about_a_scrape(scrape: str) -> None:
    assert "" == run([tool("promtool"), "check", "metrics"], text=scrape)


def test_they_are_made_of_metrics_that_the_daemon_tells(scrape: str) -> None:
    told = set(re.findall(r"^([a-z_]+)[{ ]", scrape, flags=re.MULTILINE))
    used = {name for expression in (*in_rules(), *in_dashboard()) for name in re.findall(r"\b(?:syncd|process)_[a-z_]+", expression)}
    assert len(used) > 15
    assert used <= told


def test_no_two_panels_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[httpx.Client]:
    """The real one, watching a daemon by our rules."""
    with Daemon(tmp_path) as daemon:
        daemon.wait_for_a_run()
        jobs = [{"job_name": "syncd", "scrape_interval": "1s", "static_configs": [{"targets": [daemon.url.removeprefix("http://")]}]}]
        (tmp_path / "prometheus.yml").write_text(
            yaml.safe_dump({"global": {"evaluation_interval": "1s"}, "rule_files": [str(RULES)], "scrape_configs": jobs})
        )
        listen = f"127.0.0.1:{free_port()}"
        options = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/tsdb", f"--web.listen-address={listen}"]
        process = Process([tool("prometheus"), *options], tmp_path / "prometheus.log")
        try:
            with httpx.Client(base_url=f"http://{listen}/api/v1") as client:
                yield client
        finally:
            process.stop()


@live
def test_a_real_prometheus_shows_every_panel_and_takes_every_rule(prometheus: httpx.Client) -> None:
    end = time.monotonic() + 60
    while silent := [expression for expression in in_dashboard() if not shown(prometheus, expression)]:
        assert time.monotonic() < end, silent
        time.sleep(0.3)
    while "unknown" in (health := {rule["health"] for rule in ask(prometheus, "/rules")["groups"][0]["rules"]}):
        assert time.monotonic() < end
        time.sleep(0.3)
    assert {"ok"} == health
    assert [] == ask(prometheus, "/alerts")["alerts"]


def shown(prometheus: httpx.Client, expression: str) -> bool:
    return bool(ask(prometheus, "/query", query=expression).get("result")) or expression.endswith("> 0")  # nothing fails


def ask(prometheus: httpx.Client, path: str, **params: str) -> dict[str, Any]:
    with suppress(httpx.HTTPError):  # it is starting
        answer = prometheus.get(path, params=params)
        if answer.is_success:
            found: dict[str, Any] = answer.json()["data"]
            return found
    return {}
