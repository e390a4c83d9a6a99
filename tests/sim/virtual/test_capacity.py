"""How much load a policy and a host carry, as far as chance lets it be told."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.runtime.side_by_side import results
from modelsplit_sim.replay.capacity import (
    LEAST,
    MOST,
    Cause,
    Goals,
    Missed,
    Runner,
    Tried,
    Verdict,
    capacity,
    goals_of,
    tried,
)
from modelsplit_sim.replay.measures import RoleFigures, RunFigures
from modelsplit_sim.replay.run import Contender
from modelsplit_sim.replay.traffic import DrawnWorkload
from modelsplit_sim.replay.workload import workload_of
from support.replays import PLAIN, rules

if TYPE_CHECKING:
    from collections.abc import Callable

STEADY: dict[str, Any] = {
    "about": "planners of a second each, one every ten",
    "seconds": 1200,
    "calls": {"plan": {"model": "planner", "output": [100, 100], "prompt": [1, 1]}},
    "streams": [{"call": "plan", "every_s": 10}],
}
# One call at a time, each of a second.
ONE = replace(PLAIN, num_parallel=1, contention=5.0, spread=0.0)
HOLDS, BREAKS, UNCLEAR = Verdict.HOLDS, Verdict.BREAKS, Verdict.UNCLEAR


def told(verdict_of: Callable[[float], Verdict]) -> Callable[[float], Tried]:
    """Runs whose verdict is known, with figures that fit it."""

    def at_load(load: float) -> Tried:
        verdict = verdict_of(load)
        missed = (Missed("planner_p95_s", Role.PLANNER, 6.0, 5.0),) if verdict is BREAKS else ()
        return Tried(load, 3, None, None, None, None, verdict, missed=missed)

    return at_load


def test_the_two_ends_are_brought_near_to_where_it_ends() -> None:
    found = capacity(told(lambda load: HOLDS if load <= 0.7 else BREAKS))
    assert found.high is not None
    assert found.low <= 0.7 < found.high <= 1.1 * found.low
    assert found.is_determined
    assert found.again == ()


def test_where_noise_decides_there_is_an_interval_and_no_number() -> None:
    found = capacity(
        told(lambda load: HOLDS if load < 1 else UNCLEAR if load < 3 else BREAKS),
    )
    assert found.high is not None
    assert 0.9 <= found.low < 1
    assert 3 <= found.high <= 3.3
    assert not found.is_determined
    assert found.low < found.value < found.high, "by the figures alone it is in between"


def test_more_load_need_not_be_worse() -> None:
    """It breaks from 0.45 to 0.85, and holds below and above."""

    def verdict(load: float) -> Verdict:
        return BREAKS if 0.45 < load < 0.85 or load > 1.5 else HOLDS

    found = capacity(told(verdict))
    assert found.high is not None
    assert 0.45 < found.high < 0.85
    assert found.low <= 0.45
    assert found.again, "what holds above a load that breaks is told, and not counted"
    assert min(found.again) >= 0.85


def test_what_never_breaks_and_what_never_holds() -> None:
    most = capacity(told(lambda _: HOLDS))
    assert (most.low, most.high) == (MOST, None)
    none = capacity(told(lambda _: BREAKS))
    assert (none.low, none.high) == (0.0, LEAST)
    assert not none.is_determined
    unclear = capacity(told(lambda _: UNCLEAR))
    assert (unclear.low, unclear.high) == (0.0, None)


def test_no_load_is_run_twice() -> None:
    asked: list[float] = []

    def verdict(load: float) -> Verdict:
        asked.append(load)
        return HOLDS if load < 0.3 else BREAKS

    capacity(told(verdict))
    assert len(asked) == len(set(asked))


def run(planners: int, lost: int, p95_s: float, chats: int = 0, chats_lost: int = 0) -> RunFigures:
    """A run in which so many were lost, and all others took so long."""
    roles = {Role.PLANNER: figures(planners, lost, p95_s)}
    if chats:
        roles[Role.CHAT] = figures(chats, chats_lost, 1.0)
    return RunFigures(roles, {}, 0.0, 0.0, 0.0, 3600.0, [])


def figures(calls: int, lost: int, took_s: float) -> RoleFigures:
    failures = Counter({("E_QUEUE_TIMEOUT", "queue_timeout"): lost})
    return RoleFigures(calls, latencies=[took_s] * (calls - lost), failures=failures)


@pytest.mark.parametrize(
    ("runs", "verdict"),
    [
        ([run(400, 0, 3.0)] * 3, HOLDS),
        ([run(400, 0, 6.0)] * 3, BREAKS),
        ([run(400, 40, 3.0)] * 3, BREAKS),
        ([run(40, 0, 3.0)] * 3, UNCLEAR),  # of 120 none was lost: that may be 3 of 100
        ([run(400, 0, 4.0), run(400, 0, 6.0), run(400, 0, 4.5)], UNCLEAR),
        ([run(400, 0, 3.0, 200, 2)] * 3, HOLDS),
        ([run(400, 0, 3.0, 200, 40)] * 3, BREAKS),
        ([run(400, 0, 3.0, 20, 1)] * 3, UNCLEAR),
    ],
)
def test_goals_hold_or_break_beyond_doubt_or_neither(
    runs: list[RunFigures], verdict: Verdict
) -> None:
    assert tried(1.0, runs, Goals()).verdict is verdict


def test_what_ends_it_is_told_by_goal_role_and_code() -> None:
    """Planners at twice their time, chats lost at four times their share, the others well."""
    runs = [run(400, 0, 10.0, 200, 40)] * 3
    row = tried(1.0, runs, Goals())
    cause = Cause("E_QUEUE_TIMEOUT", "queue_timeout", 0.2)
    assert row.missed == (
        Missed("others_lost", Role.CHAT, 0.2, 0.05, (cause,)),
        Missed("planner_p95_s", Role.PLANNER, 10.0, 5.0),
    )
    assert row.worst_role is Role.CHAT
    assert not row.meets
    lost = tried(1.0, [run(400, 40, 3.0)] * 3, Goals()).missed
    assert [(own.goal, own.role, own.value) for own in lost] == [
        ("planner_lost", Role.PLANNER, 0.1)
    ]
    assert tried(1.0, [run(400, 0, 3.0, 200, 2)] * 3, Goals()).missed == ()


def test_what_ends_a_capacity_is_its_lowest_load_that_misses_a_goal() -> None:
    found = capacity(told(lambda load: HOLDS if load <= 0.7 else BREAKS))
    assert found.ended_by is not None
    assert found.ended_by.load == min(row.load for row in found.tried if not row.meets)
    assert capacity(told(lambda _: HOLDS)).ended_by is None


def test_runs_that_differ_more_than_chance_tell_less() -> None:
    alike = tried(1.0, [run(400, 2, 3.0)] * 4, Goals(planner_lost=0.02))
    apart = [run(400, 0, 3.0), run(400, 8, 3.0), run(400, 0, 3.0), run(400, 0, 3.0)]
    uneven = tried(1.0, apart, Goals(planner_lost=0.02))
    assert alike.planner_lost is not None
    assert uneven.planner_lost is not None
    assert alike.planner_lost.value == uneven.planner_lost.value
    assert alike.planner_lost.high < uneven.planner_lost.high
    assert (alike.verdict, uneven.verdict) == (HOLDS, UNCLEAR)


def test_of_fewer_than_three_runs_the_figures_are_taken_as_they_are() -> None:
    assert tried(1.0, [run(40, 0, 3.0)] * 2, Goals()).verdict is HOLDS
    assert tried(1.0, [run(40, 0, 3.0)] * 3, Goals(), by_value=True).verdict is HOLDS


def test_goals_are_the_policys_bounds() -> None:
    assert goals_of(rules()) == Goals(5.0, 0.01, 0.05)
    own = rules(slo={"planner_latency_ms": {"p95": 2500}, "planner_failure_rate": {"max": 0.2}})
    assert goals_of(own) == Goals(2.5, 0.2, 0.05)


def runner(raw: dict[str, Any] = STEADY, seeds: int = 3) -> Runner:
    contender = Contender("x", rules(**{"global": {"max_concurrent": 6, "parallel": 1}}))
    return Runner(contender, ONE, DrawnWorkload(workload_of(raw, "x")), range(1, seeds + 1))


def test_a_server_of_one_second_a_call() -> None:
    """A P95 below five seconds ends at about two thirds busy: 6.7 times one call every ten."""
    own = runner(STEADY | {"seconds": 400})
    found = capacity(lambda load: own.at(load, Runner.run), 8, start=4, fine=1.3, careful=False)
    assert 4 <= found.value < 8


def test_an_unclear_load_is_run_with_more_seeds() -> None:
    assert runner(STEADY | {"seconds": 300}, seeds=5).at(1.0, Runner.run).seeds == 5
    long = runner(STEADY | {"seconds": 4000}, seeds=5)
    assert long.at(1.0, Runner.run).seeds == 3, "of 1,200 planners none was lost"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.parametrize("load", [1.0, 40.0])
def test_runs_beside_each_other_come_to_the_same_and_each_is_told(load: float) -> None:
    alone = runner(STEADY | {"seconds": 300}, seeds=5)
    seen: list[tuple[float, int, int]] = []
    beside = replace(alone, beside=partial(results, 2), ran=lambda *told: seen.append(told))
    assert beside.at(load, Runner.run) == alone.at(load, Runner.run)
    assert seen[:3] == [(load, 1, 3), (load, 2, 3), (load, 3, 3)]
    assert [told[1] for told in seen[3:]] == ([4, 5] if load == 1.0 else [])


def test_a_load_far_from_the_goals_is_run_once() -> None:
    row = runner(STEADY | {"seconds": 100}, seeds=7).at(40.0, Runner.run)
    assert (row.seeds, row.verdict) == (1, BREAKS)
