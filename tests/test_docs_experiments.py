"""docs/experiments.md: its policy is the shipped one, and its rule is the code's."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest

from modelsplit_policy.comparison import End, Observation
from modelsplit_policy.config.parser import parse
from modelsplit_policy.experiments import arm_of
from modelsplit_policy.intervals import MIN_CLUSTERS
from modelsplit_proxy.cli import check
from modelsplit_proxy.config.policy_file import merge, shipped
from modelsplit_proxy.records import experiment_report
from modelsplit_proxy.records.experiment_data import MOST_CALLS, ExperimentData, KeptCalls

PAGE = (Path(__file__).parents[1] / "docs" / "experiments.md").read_text(encoding="utf-8")


class Calls(ExperimentData):
    """A hundred jobs of each arm of the example, made up and always the same."""

    def __init__(self) -> None:
        super().__init__(lambda _query, _values: [])

    def kept(self, since_us: int) -> list[KeptCalls]:
        noon = 1_795_435_200_000_000
        return [
            KeptCalls("planner-size", "PLANNER", len(self.calls("", "", since_us)), noon, 2 * noon)
        ]

    def calls(self, experiment: str, sticky: str, since_us: int) -> list[Observation]:
        del experiment, sticky, since_us
        chance = random.Random(2)
        return [
            Observation(
                arm=arm,
                cluster=f"job:{arm}-{job}",
                end=End.FAILED if chance.random() < 0.01 else End.ANSWERED,
                latency_s=(took := median_s * math.exp(own + chance.gauss(0, 0.3))),
                unfit=chance.random() < unfit,
                cost_usd=took * watts / 3.6e6 * 0.3,
                tokens_per_s=60 / median_s * math.exp(chance.gauss(0, 0.05)),
            )
            for arm, median_s, unfit, watts in (("4b", 1.0, 0.04, 160), ("8b", 1.7, 0.03, 200))
            for job in range(100)
            for own in [chance.gauss(0, 0.3)]
            for _ in range(chance.randint(1, 6))
        ]


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
    check.route(check.RouteAsked("planner", "", "", None, lambda: path), as_json=False)
    _, _, told = capsys.readouterr().out.partition("\n")
    assert re.search(rf"\$ modelsplit route planner\npolicy .*\n{re.escape(told)}```", PAGE)


def test_the_report_in_the_page_is_what_is_printed_for_such_calls() -> None:
    told = experiment_report.report(parse(running()), Calls(), None, 0)
    told["experiments"][0] |= {"last_at": "2026-11-30T12:00:00.000Z"}
    text = "\n".join(experiment_report.lines(told))
    assert f"```\n$ modelsplit experiments\n{text}\n```" in PAGE


def test_every_line_of_the_report_is_explained() -> None:
    section = PAGE.partition("\n## Read it\n")[2]
    said = ", ".join(re.findall(r"^\| ([^|]+) \| [^|]+ \|$", section, re.MULTILINE)[1:])
    assert said.split(", ") == [title for title, *_ in experiment_report.SHOWN.values()]


def test_the_numbers_in_the_page_are_the_codes() -> None:
    assert f"newest {MOST_CALLS} calls" in PAGE
    assert f"fewer than {MIN_CLUSTERS} jobs" in PAGE
