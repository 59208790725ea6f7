"""Alarm rules and dashboard: right by promtool, and made of metrics that a running daemon really tells."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.deploy.daemon import Daemon
from tests.deploy.tools import DEPLOY, run, tool

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
