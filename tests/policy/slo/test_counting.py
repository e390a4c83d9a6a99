"""What is counted once for all objectives, and that each call is looked at by those it concerns."""

from __future__ import annotations

from modelsplit_policy.slo.counting import Counts, Row
from modelsplit_policy.slo.facts import End
from modelsplit_policy.slo.objectives import Holds, Objective
from modelsplit_policy.slo.samples import Samples
from modelsplit_policy.slo.tallies import Clock
from support.slo_history import HOUR_US, NOW_US, executor, heartbeat, planner


def row(hours: int, name: str = "planner_latency_ms", bound: float | None = 5000) -> Row:
    clock = Clock(NOW_US - hours * HOUR_US, NOW_US)
    objective = Objective(name, "p95", 2, Holds.BELOW)
    return Row(objective, bound, clock, hours * 3600, 18_000)


def counts(*rows: Row) -> Counts:
    return Counts(rows, 10 * 3600, NOW_US, 5 * 3600)


def test_each_window_counts_what_came_in_it() -> None:
    five, ten = row(5), row(10)
    seen = counts(five, ten)
    calls = [planner(f"c{hours}", NOW_US - hours * HOUR_US) for hours in (11, 9, 4)]
    seen.take(Samples(calls), [])
    assert (five.values.ranked.count, ten.values.ranked.count) == (1, 2)
    assert (seen.calls[5 * 3600], seen.calls[10 * 3600]) == (1, 2)
    assert seen.ends[10 * 3600] == {End.ANSWERED: 2}
    assert seen.coverage[10 * 3600].seconds == 1800


def test_the_planners_ends_are_the_planners_alone() -> None:
    seen = counts()
    seen.call(executor("e", NOW_US - HOUR_US))
    seen.call(planner("late", NOW_US - HOUR_US, 9000, "E_TIMEOUT_LOCAL"))
    assert seen.ends[5 * 3600] == {End.TIMEOUT: 1}
    told = {row.role: (row.calls, row.timeouts) for row in seen.role_timeouts()}
    assert told == {"PLANNER": (1, 1), "EXECUTOR": (1, 0)}


def test_less_than_an_hour_is_not_scaled_up() -> None:
    seen = counts()
    seen.call(planner("late", NOW_US - 1, 9000, "E_TIMEOUT_LOCAL"))
    assert seen.role_timeouts()[0].per_5h is None
    for quarter in range(4):
        seen.heartbeat(heartbeat(NOW_US - quarter * HOUR_US // 4))
    assert seen.role_timeouts()[0].per_5h == 5.0


def test_a_call_without_a_role_is_a_call() -> None:
    seen = counts()
    seen.call(planner("c", NOW_US - 1, 1, "E_BAD_REQUEST")._replace(role=None))
    assert seen.calls[5 * 3600] == 1
    assert seen.role_timeouts() == ()


def test_a_row_without_a_bound_counts_nothing() -> None:
    unjudged = row(5, bound=None)
    seen = counts(unjudged)
    seen.call(planner("c", NOW_US - 1))
    assert unjudged.values.ranked.count == 0
