"""From runs to a report: figures, differences beyond chance, one sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from modelsplit_policy.vocabulary import Role
from modelsplit_sim.replay.demand import Retries
from modelsplit_sim.replay.measures import figures
from modelsplit_sim.replay.report import Report, interval
from modelsplit_sim.replay.run import Contender, Traffic, play
from support.replays import PLAIN, one_at_a_time, plan, replayed, rules

if TYPE_CHECKING:
    from modelsplit_policy.config.model import Policy
    from modelsplit_sim.replay.demand import Demand

HOST = replace(PLAIN, num_parallel=2)


def demands(seed: int, calls: int = 60) -> list[Demand]:
    """Pairs of planners, every three seconds, of one to two seconds each."""
    return [plan(3.0 * (n // 2), 100 + 7 * (n * seed % 13)) for n in range(calls)]


def two_at_a_time() -> Policy:
    return one_at_a_time(max_concurrent=2, models={"qwen3:4b": {"parallel": 2}})


def reported(before: Policy, after: Policy, seeds: int = 6) -> Report:
    contenders = [Contender("old", before), Contender("new", after)]
    report = Report(contenders)
    for seed in range(1, seeds + 1):
        for contender in contenders:
            report.add(contender, play(contender, HOST, Traffic(demands(seed)), seed))
    return report


def test_the_figures_of_a_run() -> None:
    budget = {"name": "few", "role": "PLANNER", "calls": 4, "window": "1h"}
    calls = [plan(10.0 * n, 100 * (n + 1)) for n in range(6)]
    own = figures(replayed(rules(budgets=[budget]), calls), rules()).roles[Role.PLANNER]
    assert own.calls == 6
    assert own.latencies == pytest.approx([1.0, 2.0, 3.0, 4.0])
    assert dict(own.failures) == {("E_BUDGET_EXHAUSTED", "calls"): 2}
    assert own.within == 4, "all that were answered were so within five seconds"


def test_a_call_that_was_tried_again_counts_once_from_its_first_arrival() -> None:
    from_first = figures(
        replayed(
            one_at_a_time(max_queue=1),
            [plan(0.0, 700), plan(0.5), plan(1.0)],
            retries=Retries(5),
        ),
        rules(),
    ).roles[Role.PLANNER]
    assert from_first.calls == 3
    assert from_first.retries >= 1


def test_two_equal_policies_differ_in_nothing() -> None:
    report = reported(rules(), rules())
    assert report.summary() == "nothing changes beyond chance"
    assert all(gap.gap == (0.0, 0.0, 0.0) for gap in report.differences())


def test_what_changes_beyond_chance_is_said_in_one_sentence() -> None:
    report = reported(one_at_a_time(), two_at_a_time())
    gaps = {gap.measure.name: gap for gap in report.differences()}
    assert gaps["latency_p95_s"].told
    assert gaps["latency_p95_s"].gap.value < 0
    said = report.summary()
    assert said.startswith("planner P95 ")
    assert "→" in said
    assert said.endswith("nothing else changes beyond chance")


def test_one_run_tells_nothing_of_chance() -> None:
    report = reported(one_at_a_time(), two_at_a_time(), seeds=1)
    assert report.summary() == "nothing changes beyond chance"
    assert interval([2.0]) == (2.0, None, None)


def test_one_policy_alone_is_described() -> None:
    contender = Contender("x", rules())
    report = Report([contender])
    report.add(contender, replayed(rules(), [plan(0.0)]))
    assert report.summary() == "planner P95 1.0 s, 0.0 % failed"
    fields = report.fields()
    assert fields["differences"] == []
    assert fields["policies"][0]["roles"]["PLANNER"]["latency_p95_s"]["value"] == 1.0


def test_an_interval_of_a_mean_is_students() -> None:
    assert interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, -0.484, 4.484), abs=0.02)
