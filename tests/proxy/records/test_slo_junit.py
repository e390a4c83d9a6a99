"""The report as a build server reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from modelsplit_policy.config.parser import parse
from modelsplit_policy.slo.judge import judge
from modelsplit_proxy.records import slo_report
from modelsplit_proxy.records.slo_junit import junit
from support.slo_history import EMPTY, NOW_US, History, breaching

SLO = parse(json.loads((Path(__file__).parents[3] / "config/model-policy.json").read_text())).slo


def told(history: History) -> dict[str, Any]:
    return slo_report.fields(judge(history.samples(), SLO, NOW_US))


def test_a_breach_is_a_failure_and_missing_data_are_skipped() -> None:
    root = ET.fromstring(junit(told(breaching())))
    [gate] = [suite for suite in root if suite.get("name") == "gate 2"]
    assert (gate.get("tests"), gate.get("failures"), gate.get("skipped")) == ("4", "4", "0")
    failure = gate[0][0]
    assert (failure.tag, failure.get("message")) == ("failure", "9 s, not < 5 s")
    assert "worst: plan-9996" in (failure.text or "")
    assert (gate[-1].tag, gate[-1].text) == (
        "system-out",
        "150 planner calls in 5 h: 119 answered, 15 timed out, 16 refused",
    )
    empty = ET.fromstring(junit(told(EMPTY)))
    assert {case[0].tag for suite in empty for case in suite} == {"skipped"}
