"""The alerts: valid, tested one by one by promtool, with a runbook each."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.monitoring import MissingError, program
from tests.deploy.promql import selectors, unknown, without_comparison

FOLDER = Path("deploy/prometheus")
GROUPS = yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))["groups"]
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in GROUPS for rule in group["rules"]
}
RUNBOOK = Path("docs/operations.md").read_text("utf-8")


def promtool(*arguments: str) -> str:
    """Run promtool in the rules' folder; without it the test is skipped, in words."""
    try:
        path = program("promtool")
    except MissingError as missing:
        pytest.skip(f"alerts not checked: {missing}")
    done = subprocess.run(
        [path, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_the_rules() -> None:
    """``promtool check rules`` finds all of them, and nothing to complain about."""
    assert f"SUCCESS: {len(ALERTS)} rules found" in promtool("check", "rules", "alerts.yml")


def test_promtool_takes_the_configuration() -> None:
    """So it does what Prometheus is started with, the rules included."""
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")


def test_every_alert_fires_when_it_should_and_not_before() -> None:
    """``promtool test rules``: silent, silent while it waits, firing with these words."""
    promtool("test", "rules", "alerts.test.yml")


def test_every_alert_has_such_a_case() -> None:
    """Of each: a time at which it is silent, and one at which it fires."""
    cases: dict[str, list[bool]] = {}
    for test in yaml.safe_load((FOLDER / "alerts.test.yml").read_text("utf-8"))["tests"]:
        for case in test["alert_rule_test"]:
            cases.setdefault(case["alertname"], []).append(bool(case.get("exp_alerts")))
    assert cases.keys() == ALERTS.keys()
    for alert, fired in cases.items():
        assert fired.count(True) >= 1, alert
        assert fired.count(False) >= 1, alert


@pytest.mark.parametrize("alert", ALERTS)
def test_it_asks_for_what_the_catalogue_has(alert: str) -> None:
    """Names and labels of its expression, and labels of its words."""
    rule = ALERTS[alert]
    assert selectors(rule["expr"])
    assert not unknown(rule["expr"])
    told = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    grouped = re.findall(r"\bby ?\(([^)]*)\)", rule["expr"])
    by = {label.strip() for labels in grouped for label in labels.split(",")} or {"instance", "job"}
    assert told <= by


@pytest.mark.parametrize("alert", ALERTS)
def test_it_has_a_runbook(alert: str) -> None:
    """A section of its name, where the annotation says, and it ends in one comparison."""
    rule = ALERTS[alert]
    assert rule["annotations"]["runbook"] == f"docs/operations.md#{alert.lower()}"
    assert re.search(rf"^### {alert}$", RUNBOOK, re.MULTILINE)
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert without_comparison(rule["expr"]) != rule["expr"]


def test_the_runbook_has_no_alerts_that_are_gone() -> None:
    """Sections and alerts are the same."""
    assert set(re.findall(r"^### (Hearback\w+)$", RUNBOOK, re.MULTILINE)) == set(ALERTS)
