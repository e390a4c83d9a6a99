"""Whole runs in virtual time: what the shipped policy makes of a host it was told nothing of."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from modelsplit_policy.failures import Reason
from modelsplit_policy.rhythm import Rhythm
from modelsplit_policy.vocabulary import Role
from modelsplit_sim.replay.line import PlainCaps
from modelsplit_sim.replay.run import Contender, Run, Traffic
from modelsplit_sim.virtual_traffic import Arrival, read_scenario
from support.replays import fates, rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from modelsplit_sim.host_shape import HostShape
    from modelsplit_sim.replay.attempt import CallRun
    from modelsplit_sim.replay.run import Played

CAPS = partial(PlainCaps, {Role.PLANNER: 2, Role.EXECUTOR: 5, Role.HEAVY: 1}, 6)
OURS = Contender("as shipped", rules())
PLAIN = Contender("plain caps", rules(), line=CAPS)
SPLIT = Contender("direct, split", rules(), direct="")
LOADED = ("qwen3:4b", "qwen3:8b", "gemma3:12b")
SEEDS = range(1, 9)


def run_of(
    contender: Contender, host: HostShape, arrivals: Iterable[Arrival], seed: int = 0
) -> Run:
    demands = [arrival.demand("qwen3:8b") for arrival in arrivals]
    return Run(contender, host, Traffic(demands), seed, loaded=LOADED)


def scenario(name: str, seed: int, contender: Contender = OURS) -> Run:
    host, traffic = read_scenario(name)
    return run_of(contender, host, traffic.trace(200, seed, spread=host.spread), seed)


def played(name: str, seed: int, contender: Contender = OURS) -> Played:
    return scenario(name, seed, contender).play()


def calls_of(
    contender: Contender, host: HostShape, arrivals: Iterable[Arrival]
) -> Sequence[CallRun]:
    return run_of(contender, host, arrivals).play().calls


def of_role(run: Played, role: Role) -> list[CallRun]:
    return [call for call in run.calls if call.route.role is role]


def lost(run: Played) -> int:
    return sum(not call.ok for call in of_role(run, Role.PLANNER))


def test_the_same_seed_gives_the_same_run() -> None:
    assert fates(played("fierce", 3)) == fates(played("fierce", 3))


def test_every_call_ends_once_and_no_seat_is_left_over() -> None:
    run = scenario("fierce", 5)
    assert all(call.ended is not None for call in run.play().calls)
    assert run.proxy is not None
    assert (run.proxy.admission.running_local, run.host.running) == (0, [])


@pytest.mark.parametrize("name", ["fierce", "fair", "roomy", "moderate"])
def test_no_host_loses_more_planners_than_with_plain_caps(name: str) -> None:
    ours = sum(lost(played(name, seed)) for seed in SEEDS)
    plain = sum(lost(played(name, seed, PLAIN)) for seed in SEEDS)
    assert ours <= plain + 3


def test_where_two_at_once_are_slower_than_one_after_the_other_planners_are_on_time() -> None:
    """Three leaks each fed itself: late calls, overdue calls and probes started in crowds."""
    runs = [played("fierce", seed) for seed in SEEDS]
    planners = sum(len(of_role(run, Role.PLANNER)) for run in runs)
    assert sum(map(lost, runs)) <= 0.03 * planners
    calls = [call for run in runs for call in run.calls]
    wasted = sum(call.wasted_s for call in calls)
    assert wasted <= 0.03 * sum(call.busy_s for call in calls)
    direct = sum(lost(played("fierce", seed, SPLIT)) for seed in SEEDS)
    assert direct > 0.3 * planners, "what is at stake"


def answered(contender: Contender, seed: int) -> float:
    """Tokens a second answered after the thirtieth call, where there is more to do than room."""
    host, traffic = read_scenario("roomy")
    host = replace(host, num_parallel=4)
    run = run_of(contender, host, traffic.trace(100, seed, 6.0, host.spread), seed)
    done = [call for call in run.play().calls if call.ok and ended(call) <= 100]
    began = sorted(map(ended, done))[29]
    tokens = sum(call.demand.output_tokens for call in done if ended(call) > began)
    return tokens / (100 - began)


def ended(call: CallRun) -> float:
    return call.arrived + call.latency_s


def test_where_there_is_room_it_is_found_and_used_within_thirty_calls() -> None:
    ours = sum(answered(OURS, seed) for seed in SEEDS)
    assert ours >= 0.95 * sum(answered(PLAIN, seed) for seed in SEEDS)


def test_a_busy_start_on_a_host_that_takes_six_refuses_nobody() -> None:
    """Nine executors and six chats at once, answers of 1.2 s, nothing known."""
    host = replace(
        read_scenario("roomy").host,
        num_parallel=6,
        contention=0.0,
        spread=0.0,
        ms_per_token=12.0,
        prompt_ms=0.0,
    )
    roles = ["EXECUTOR"] * 9 + ["CHAT"] * 6
    arrivals = [Arrival(i / 1000, role, 100, 60.0, 1.0) for i, role in enumerate(roles)]
    calls = calls_of(OURS, host, arrivals)
    assert all(call.ok for call in calls)
    assert max(map(ended, calls)) < 8.0


def test_a_model_too_slow_for_its_role_falls_back_once() -> None:
    host = replace(read_scenario("roomy").host, spread=0.0, max_loaded=4)
    arrivals = [Arrival(0.0, "PLANNER", 2000, 500.0, 1.0)]
    [call] = calls_of(OURS, host, arrivals)
    assert call.ended == pytest.approx(15.0 + 29.4 + 0.06, abs=0.1)
    assert call.ok


def test_plain_caps_are_first_come_first_served_and_keep_the_shipped_waits() -> None:
    host = replace(read_scenario("moderate").host, spread=0.0, contention=0.0, num_parallel=9)
    arrivals = [Arrival(i / 1000, "HEAVY", 1000, 600.0, 1.0) for i in range(2)]
    first, second = calls_of(PLAIN, host, arrivals)
    assert first.ok
    assert second.failure is not None
    assert (second.failure.reason, round(second.latency_s, 3)) == (Reason.QUEUE_TIMEOUT, 10.0)


def in_step(waits_for_planners: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[float, int]:
    """Planners' mean wait and the tokens of others: a planner every 2 s, executors in between."""
    arrivals = [Arrival(2.0 * i, "PLANNER", 30, 5.0, 1.0) for i in range(150)]
    arrivals += [Arrival(0.8 + 1.9 * i, "EXECUTOR", 70, 20.0, 1.0) for i in range(157)]
    host = replace(read_scenario("fierce").host, spread=0.0)
    with monkeypatch.context() as patched:
        if not waits_for_planners:
            patched.setattr(Rhythm, "hold_s", lambda *_: 0.0)
        run = run_of(OURS, host, sorted(arrivals)).play()
    waits = [call.waited_s for call in of_role(run, Role.PLANNER)]
    tokens = sum(call.demand.output_tokens for call in of_role(run, Role.EXECUTOR) if call.ok)
    return sum(waits) / len(waits), tokens


def test_planners_in_step_find_the_host_free_and_the_others_keep_their_goodput(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wait_s, tokens = in_step(True, monkeypatch)
    plain_s, plain_tokens = in_step(False, monkeypatch)
    assert wait_s < 0.6 * plain_s
    assert tokens >= 0.9 * plain_tokens
