"""From recorded calls to demands: what is kept, what is drawn, what is said of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from modelsplit_sim.host_shape import HostShape, ModelShape
from modelsplit_sim.replay.demand import Demand, Retries
from modelsplit_sim.replay.from_trace import Behaviour, RecordedTraffic
from modelsplit_sim.replay.recorded import Recorded, RecordedAttempt, TraceError
from support.replays import PLAIN, rules

HOST = replace(PLAIN, models={"qwen3:4b": ModelShape(10.0, 2000.0, prompt_ms_per_token=1.0)})


def call(at: float, **more: Any) -> Recorded:
    """A planner's call that came at that second and took one."""
    fields: dict[str, Any] = {
        "route": "/api/chat",
        "role": "PLANNER",
        "requested_model": "planner",
        "outcome": "ok",
        "model": "qwen3:4b",
        "prompt_tokens": 20,
        "output_tokens": 100,
        "latency_ms": 1000.0,
    }
    fields |= more
    if "attempts" not in fields:
        attempt = RecordedAttempt(
            fields["model"],
            fields["outcome"],
            dispatched_ms=0.0,
            ended_ms=fields["latency_ms"],
            prompt_ms=20.0,
        )
        fields["attempts"] = (attempt,)
    return Recorded(arrived=1000.0 + at, **fields)


def left(at: float, after_s: float, **more: Any) -> Recorded:
    return call(at, outcome="E_CLIENT_GONE", output_tokens=None, latency_ms=1000 * after_s, **more)


def drawn(
    calls: list[Recorded], seed: int = 1, host: HostShape = HOST, **more: Any
) -> list[Demand]:
    traffic, _ = RecordedTraffic(calls, rules(), host, Behaviour(**more)).drawn(seed)
    return list(traffic.demands)


def test_what_was_recorded_is_kept() -> None:
    first, second = drawn([call(5.0), call(7.5, output_tokens=30, stream=True)])
    assert (first.at, first.output_tokens, first.prompt_tokens) == (0.0, 100, 20)
    assert (second.at, second.output_tokens, second.stream) == (2.5, 30, True)
    assert (first.model, first.role, first.patience_s) == ("planner", "", math.inf)


def test_a_role_that_the_name_does_not_say_was_asked_for_by_a_header() -> None:
    calls = [
        call(0, requested_model="mine:7b", role="EXECUTOR"),
        call(1, requested_model="mine:7b", role="CHAT"),
        call(2, requested_model="mine:7b", role="EXECUTOR", route_reason="claim"),
        call(3, route_reason="header"),
    ]
    assert [demand.role for demand in drawn(calls)] == ["EXECUTOR", "", "", "PLANNER"]


def test_a_length_nobody_waited_for_is_drawn_and_at_least_what_was_seen_of_it() -> None:
    """It computed for three seconds, which are three hundred tokens; 500 is the only longer one."""
    calls = [call(10.0 * n, output_tokens=n) for n in (50, 100, 200, 500)]
    calls.append(left(9000.0, 3.02))
    for seed in range(1, 6):
        assert drawn(calls, seed)[-1].output_tokens == 500


def test_time_beside_others_is_less_work_seen() -> None:
    shared = replace(HOST, contention=1.0)
    beside = call(0.0, latency_ms=3000.0, model="gemma3:12b", role="HEAVY", requested_model="heavy")
    calls = [call(10.0 * n, output_tokens=n) for n in (50, 100, 200, 500)]
    calls = [beside, left(0.0, 3.0), *calls[:]]
    lengths = {drawn(calls, seed, shared)[1].output_tokens for seed in range(1, 20)}
    assert lengths == {200, 500}, "half of three seconds: 150 tokens at least"


def test_draws_differ_by_seed_and_not_by_what_else_is_recorded() -> None:
    calls = [call(float(n), output_tokens=10 * n + 10) for n in range(20)]
    calls += [
        call(30.0 + n, outcome="E_OVERLOAD_THROTTLED", output_tokens=None, attempts=())
        for n in range(5)
    ]
    lengths = [[demand.output_tokens for demand in drawn(calls, seed)[20:]] for seed in (1, 1, 2)]
    assert lengths[0] == lengths[1] != lengths[2]
    same = [replace(calls[0], output_tokens=11), *calls[1:]]
    assert [demand.pace for demand in drawn(calls)] == [demand.pace for demand in drawn(same)]


def test_patience_comes_from_the_clients_that_left() -> None:
    calls = [call(float(n)) for n in range(10)] + [left(20.0, 5.0), left(30.0, 5.0)]
    patience = [demand.patience_s for demand in drawn(calls)]
    assert patience == [5.0] * 12, "nobody waited longer, so five seconds is what they wait"


def test_where_nobody_left_patience_is_endless_and_it_is_said() -> None:
    _, coverage = RecordedTraffic([call(0.0), call(9.0)], rules(), HOST).drawn(1)
    assert coverage.parts["patience"] == {"assumed endless": 2}
    assert (coverage.calls, coverage.seconds) == (2, 9.0)


def test_a_prompt_that_was_read_too_fast_was_known() -> None:
    quick = RecordedAttempt("qwen3:4b", "ok", 0, 0, 0, 1, 1000.0, prompt_ms=200.0)
    whole = replace(quick, prompt_ms=950.0)
    calls = [
        call(float(n), prompt_tokens=1000, attempts=(each,))
        for n, each in enumerate((quick, whole))
    ]
    assert [demand.known_tokens for demand in drawn(calls)] == [800, 0]


def test_calls_of_a_job_follow_each_other_and_those_at_once_follow_the_same_one() -> None:
    calls = [
        call(0.0, job="a"),
        call(1.5, job="a"),
        call(1.6, job="a"),
        call(9.0, job="a"),
        call(0.5, job="b"),
        call(2.0),
    ]
    demands = drawn(sorted(calls, key=lambda each: each.arrived))
    followed = {round(demand.at, 6): (demand.after, round(demand.think_s, 6)) for demand in demands}
    assert followed == {
        0.0: (None, 0.0),
        0.5: (None, 0.0),
        1.5: (0, 0.5),
        1.6: (0, 0.6),
        2.0: (None, 0.0),
        9.0: (3, 6.4),
    }
    assert all(demand.after is None for demand in drawn(calls, chained="none"))


def test_what_a_library_tried_again_is_left_out_where_it_will_try_again_itself() -> None:
    calls = [call(0.0), call(1.0, client_retry=True)]
    traffic, coverage = RecordedTraffic(calls, rules(), HOST, Behaviour(retries=Retries(2))).drawn(
        1
    )
    assert len(traffic.demands) == 1
    assert coverage.left_out == {"tried again by a library, as it will here": 1}
    assert len(drawn(calls)) == 2


def test_shares_of_failures_come_from_the_attempts_that_were_sent() -> None:
    outcomes = ["E_SCHEMA_INVALID"] * 3 + ["E_UPSTREAM_LOCAL"] * 2 + ["ok"] * 15
    calls = [
        call(float(n), outcome=outcome, attempts=(RecordedAttempt("qwen3:4b", outcome, 0, 0, 0),))
        for n, outcome in enumerate(outcomes)
    ]
    shares = RecordedTraffic(calls, rules(), HOST).shares
    assert shares == {("PLANNER", "qwen3:4b"): (0.15, 0.1)}


def test_a_trace_of_which_nothing_can_be_replayed_is_an_error() -> None:
    with pytest.raises(TraceError, match="none of its calls can be replayed"):
        RecordedTraffic([call(0.0, role=None)], rules(), HOST)
    with pytest.raises(TraceError, match="nobody knows how long its answers are"):
        drawn([left(0.0, 1.0)])
