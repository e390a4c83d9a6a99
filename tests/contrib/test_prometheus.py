"""The rules and alerts beside modelsplit: right by promtool, and about metrics that there are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from modelsplit_policy.failures import ErrorCode
from modelsplit_policy.slo import facts
from support.fleets import fleet_up

CONTRIB = Path(__file__).parents[2] / "contrib"
FOLDER = CONTRIB / "prometheus"
RULES = (FOLDER / "modelsplit.rules.yml").read_text()
TESTS = (FOLDER / "modelsplit.rules.test.yml").read_text()
ALERTS = re.findall(r"alert: (\w+)", RULES)
METRIC = re.compile(r"\b(?:modelsplit_\w+|event_loop_lag_p99)\b(?=[{\[ )\n])")


@pytest.mark.tools("promtool")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "modelsplit.rules.yml"),
        ("test", "rules", "modelsplit.rules.test.yml"),
    ],
    ids=lambda arguments: arguments[1],
)
def test_promtool_is_content(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=FOLDER, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


@pytest.mark.parametrize("alert", ALERTS)
def test_of_every_alert_it_is_tried_when_it_fires_and_that_it_does_not(alert: str) -> None:
    quiet = re.findall(rf"alertname: {alert}, eval_time: \w+, exp_alerts: \[\]", TESTS)
    fired = rf"alertname: {alert}\n +eval_time: \w+\n +exp_alerts:\n +- exp_labels"
    fires = re.findall(fired, TESTS)
    assert quiet
    assert fires


def test_every_alert_is_described_with_its_severity() -> None:
    page = (CONTRIB / "README.md").read_text()
    rows = re.findall(r"^\| `(Modelsplit\w+)` \| (\w+) \|", page, re.MULTILINE)
    severities = re.findall(r"alert: (\w+)\n(?:.*\n)*?        labels: {severity: (\w+)}", RULES)
    assert rows == severities
    assert [name for name, _ in rows] == ALERTS


def test_what_its_clients_did_wrong_is_no_failure_of_the_planner() -> None:
    said = {code for codes in re.findall(r'code!~"(.*?)"', RULES) for code in codes.split("|")}
    assert said == facts._CLIENTS_OWN | {str(ErrorCode.CLIENT_GONE)}


async def test_they_are_about_metrics_that_there_are() -> None:
    named = {re.sub(r"_bucket$", "", name) for name in METRIC.findall(_expressions(RULES))}
    async with fleet_up(a=(None, {}), b=(None, {})) as fleet, fleet.up.admin() as admin:
        text = (await admin.request("GET", "/metrics")).body.decode()
    known = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    assert named
    assert named - known - {f"{name}_count" for name in known} == set()


def _expressions(text: str) -> str:
    """The rules without what they say and what they are called."""
    return re.sub(r"(?m)^ +(- record|summary|description|#).*$", "", text)
