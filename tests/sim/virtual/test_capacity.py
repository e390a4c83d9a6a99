"""How much load a policy and a host carry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from modelsplit_sim.replay.capacity import Attained, Goals, attained, capacity, goals_of
from modelsplit_sim.replay.measures import figures
from modelsplit_sim.replay.run import Contender
from modelsplit_sim.replay.traffic import DrawnWorkload
from modelsplit_sim.replay.workload import workload_of
from support.replays import PLAIN, plan, replayed, rules

STEADY: dict[str, Any] = {
    "about": "planners of a second each, one every ten",
    "seconds": 600,
    "calls": {"plan": {"model": "planner", "output": [100, 100], "prompt": [1, 1]}},
    "streams": [{"call": "plan", "every_s": 10}],
}
# One call at a time, each of a second.
ONE = replace(PLAIN, num_parallel=1, contention=5.0, spread=0.0)
TOGETHER = {"max_concurrent": 6, "parallel": 1}


def carried(raw: dict[str, Any] = STEADY) -> float:
    contender = Contender("x", rules(**{"global": TOGETHER}))
    return capacity(contender, ONE, DrawnWorkload(workload_of(raw, "x")), [1, 2])


def test_the_highest_load_at_which_the_goals_hold_is_found() -> None:
    """A server of one second a call: a P95 below five seconds ends at about two thirds busy."""
    assert 4.5 <= carried() <= 8.5


def test_twice_the_traffic_is_carried_half_as_often() -> None:
    twice = STEADY | {"streams": [{"call": "plan", "every_s": 5}]}
    assert carried(twice) == pytest.approx(carried() / 2, rel=0.25)


def test_what_cannot_be_carried_at_all_is_nought() -> None:
    long = {"model": "planner", "output": [900, 900], "prompt": [1, 1]}
    endless = STEADY | {"calls": {"plan": long}}
    assert carried(endless) == 0.0


def test_goals_are_the_policys_bounds() -> None:
    assert goals_of(rules()) == Goals(5.0, 0.01, 0.95)
    own = rules(slo={"planner_latency_ms": {"p95": 2500}, "planner_failure_rate": {"max": 0.2}})
    assert goals_of(own) == Goals(2.5, 0.2, 0.95)


def test_how_far_off_the_goals_it_is_tells_in_their_own_measure() -> None:
    goals = Goals()
    assert Attained(4.0, 0.005, 0.99).meets(goals)
    assert Attained(None, None, None).meets(goals)
    assert not Attained(4.0, 0.02, 0.99).meets(goals)
    assert Attained(4.0, 0.02, 0.99).excess(goals) == pytest.approx(1.0)
    assert Attained(10.0, 0.0, 0.99).excess(goals) == pytest.approx(1.0)
    assert Attained(1.0, 0.0, 0.85).excess(goals) == pytest.approx(2.0)


def test_clients_that_leave_are_not_served() -> None:
    demands = [plan(20.0 * n, 1000, patience_s=5.0 if n % 2 else 60.0) for n in range(10)]
    found = attained([figures(replayed(rules(), demands), rules())])
    assert found.planner_lost == 0.5
    assert found.others is None
