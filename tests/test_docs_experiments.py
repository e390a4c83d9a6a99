"""docs/experiments.md: its policy is the shipped one, and its rule is the code's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from modelsplit_policy.config import parse
from modelsplit_policy.experiments import arm_of
from modelsplit_proxy import check, policyfile
from modelsplit_proxy.policyfile import merge, shipped

PAGE = (Path(__file__).parents[1] / "docs" / "experiments.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


def running() -> dict[str, Any]:
    """The policy of the page's example, whole."""
    said: dict[str, Any] = json.loads(block("json"))
    assert said.pop("extends") == "default"
    return merge(shipped(), said)


def test_the_example_is_the_shipped_experiment_switched_on() -> None:
    [ours] = parse(shipped()).experiments
    [said] = parse(running()).experiments
    assert not ours.enabled
    assert said == ours.model_copy(update={"enabled": True})


def test_the_rule_in_the_page_gives_the_same_arms() -> None:
    scope: dict[str, Any] = {}
    exec(block("python"), scope)
    [test] = parse(running()).experiments
    weights = {arm.name: arm.weight for arm in test.arms}
    for key in (f"job:{number}" for number in range(200)):
        assert scope["arm"](test.name, weights, key) == arm_of(test, key).name


def test_the_dry_run_in_the_page_is_what_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "policy.json"
    path.write_text(block("json"))
    check.route(policyfile.load(path), "planner", "", as_json=False)
    assert f"$ modelsplit route planner\n{capsys.readouterr().out}```" in PAGE
