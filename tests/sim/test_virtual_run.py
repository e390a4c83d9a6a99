"""Whole runs in virtual time: what the shipped policy makes of a host it was told nothing of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from modelsplit_policy.config.parser import parse
from modelsplit_policy.failures import Reason
from modelsplit_policy.rhythm import Rhythm
from modelsplit_policy.vocabulary import Role
from modelsplit_sim.virtual_run import PlainCaps, VirtualRun
from modelsplit_sim.virtual_traffic import Arrival, read_scenario

if TYPE_CHECKING:
    from modelsplit_policy.config.model import Policy
    from modelsplit_sim.virtual_run import VirtualCall

SHIPPED = Path(__file__).parents[2] / "config" / "model-policy.json"
SPLIT = {"PLANNER": "qwen3:4b", "EXECUTOR": "qwen3:8b", "HEAVY": "gemma3:12b", "CHAT": "qwen3:8b"}
SEEDS = range(1, 9)


def shipped(**over: Any) -> Policy:
    document = json.loads(SHIPPED.read_bytes())
    del document["$schema"]
    return parse(document | over)


def played(
    scenario: str, seed: int, line: Any = "admission", models: dict[str, str] | None = None
) -> VirtualRun:
    host, traffic = read_scenario(scenario)
    arrivals = traffic.trace(200, seed, spread=host.spread)
    run = VirtualRun(shipped(), host, arrivals, line=line, models=models, seed=seed)
    run.run()
    return run


def lost(run: VirtualRun, role: Role = Role.PLANNER) -> int:
    return sum(call.role is role and not call.ok for call in run.calls)


def caps() -> PlainCaps:
    return PlainCaps({Role.PLANNER: 2, Role.EXECUTOR: 5, Role.HEAVY: 1}, 6)


def fate(call: VirtualCall) -> tuple[object, ...]:
    return call.arrival, call.ended, call.seated, call.refused, call.gone


def test_the_same_seed_gives_the_same_run() -> None:
    first, second = played("fierce", 3), played("fierce", 3)
    assert [fate(call) for call in first.calls] == [fate(call) for call in second.calls]


def test_every_call_ends_once_and_no_seat_is_left_over() -> None:
    run = played("fierce", 5)
    assert all(call.ended is not None for call in run.calls)
    assert run.admission is not None
    assert (run.admission.running_local, run.host.running) == (0, [])


@pytest.mark.parametrize("scenario", ["fierce", "fair", "roomy", "moderate"])
def test_no_host_loses_more_planners_than_with_plain_caps(scenario: str) -> None:
    ours = sum(lost(played(scenario, seed)) for seed in SEEDS)
    plain = sum(lost(played(scenario, seed, caps())) for seed in SEEDS)
    assert ours <= plain + 3


def test_where_two_at_once_are_slower_than_one_after_the_other_planners_are_on_time() -> None:
    """Three leaks each fed itself: late calls, overdue calls and probes started in crowds."""
    runs = [played("fierce", seed) for seed in SEEDS]
    planners = sum(call.role is Role.PLANNER for run in runs for call in run.calls)
    assert sum(map(lost, runs)) <= 0.03 * planners
    wasted = sum(call.wasted_s for run in runs for call in run.calls)
    busy = sum(call.busy_s for run in runs for call in run.calls)
    assert wasted <= 0.03 * busy
    direct = sum(lost(played("fierce", seed, None, SPLIT)) for seed in SEEDS)
    assert direct > 0.3 * planners, "what is at stake"


def answered(line: Any, seed: int) -> float:
    """Tokens a second answered after the thirtieth call, where there is more to do than room."""
    scenario = read_scenario("roomy")
    host = replace(scenario.host, num_parallel=4)
    arrivals = scenario.traffic.trace(100, seed, 6.0, host.spread)
    run = VirtualRun(shipped(), host, arrivals, line=line, seed=seed)
    done = [call for call in run.run() if call.ok and (call.ended or 0.0) <= 100]
    began = sorted(call.ended or 0.0 for call in done)[29]
    tokens = sum(call.arrival.tokens for call in done if (call.ended or 0.0) > began)
    return tokens / (100 - began)


def test_where_there_is_room_it_is_found_and_used_within_thirty_calls() -> None:
    ours = sum(answered("admission", seed) for seed in SEEDS)
    assert ours >= 0.95 * sum(answered(caps(), seed) for seed in SEEDS)


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
    calls = VirtualRun(shipped(), host, arrivals).run()
    assert all(call.ok for call in calls)
    assert max(call.ended or 0.0 for call in calls) < 8.0


def test_a_model_too_slow_for_its_role_falls_back_once() -> None:
    host = replace(read_scenario("roomy").host, spread=0.0, max_loaded=4)
    arrivals = [Arrival(0.0, "PLANNER", 2000, 500.0, 1.0)]
    [call] = VirtualRun(shipped(), host, arrivals).run()
    assert call.ended == pytest.approx(15.0 + 29.4 + 0.06, abs=0.1)
    assert call.ok


def test_plain_caps_are_first_come_first_served_and_keep_the_shipped_waits() -> None:
    host = replace(read_scenario("moderate").host, spread=0.0, contention=0.0, num_parallel=9)
    arrivals = [Arrival(i / 1000, "HEAVY", 1000, 600.0, 1.0) for i in range(2)]
    first, second = VirtualRun(shipped(), host, arrivals, line=caps()).run()
    assert first.ok
    assert (second.refused, round(second.latency_s, 3)) == (Reason.QUEUE_TIMEOUT, 10.0)


def in_step(waits_for_planners: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[float, int]:
    """Planners' mean wait and the tokens of others: a planner every 2 s, executors in between."""
    arrivals = [Arrival(2.0 * i, "PLANNER", 30, 5.0, 1.0) for i in range(150)]
    arrivals += [Arrival(0.8 + 1.9 * i, "EXECUTOR", 70, 20.0, 1.0) for i in range(157)]
    host = replace(read_scenario("fierce").host, spread=0.0)
    with monkeypatch.context() as patched:
        if not waits_for_planners:
            patched.setattr(Rhythm, "hold_s", lambda *_: 0.0)
        calls = VirtualRun(shipped(), host, sorted(arrivals)).run()
    waits = [
        (call.seated or call.ended or 0.0) - call.arrival.at
        for call in calls
        if call.role is Role.PLANNER
    ]
    tokens = sum(call.arrival.tokens for call in calls if call.ok and call.role is Role.EXECUTOR)
    return sum(waits) / len(waits), tokens


def test_planners_in_step_find_the_host_free_and_the_others_keep_their_goodput(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wait_s, tokens = in_step(True, monkeypatch)
    plain_s, plain_tokens = in_step(False, monkeypatch)
    assert wait_s < 0.6 * plain_s
    assert tokens >= 0.9 * plain_tokens
