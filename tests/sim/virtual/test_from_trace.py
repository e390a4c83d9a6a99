"""From recorded calls to demands: what is kept, what is drawn, what is said of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from modelsplit_policy.failures import ErrorCode, Reason
from modelsplit_sim.host_shape import HostShape, ModelShape
from modelsplit_sim.replay.demand import Demand, Kind, Retries, Shares
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
    status = Kind(ErrorCode.UPSTREAM_LOCAL, Reason.STATUS, 1.0)
    assert shares == {("PLANNER", "qwen3:4b"): Shares(0.15, 0.1, kinds=(status,))}


def ended(at: float, outcome: str, reason: str | None = None, **more: Any) -> Recorded:
    attempt = RecordedAttempt("qwen3:4b", outcome, 0, 0, 0, reason=reason)
    return call(at, outcome=outcome, attempts=(attempt,), **more)


def test_what_was_recorded_of_how_attempts_failed_is_kept() -> None:
    calls = [
        *(ended(n, "E_UNREACHABLE_LOCAL", "connect_refused") for n in (0, 1, 2)),
        ended(3, "E_UPSTREAM_LOCAL", "runner_failed"),
        ended(4, "E_UPSTREAM_LOCAL", "of another version"),
        *(ended(n, "ok") for n in range(5, 20)),
    ]
    assert RecordedTraffic(calls, rules(), HOST).shares["PLANNER", "qwen3:4b"] == Shares(
        failing=0.25,
        kinds=(
            Kind(ErrorCode.UNREACHABLE_LOCAL, Reason.CONNECT_REFUSED, 0.6),
            Kind(ErrorCode.UPSTREAM_LOCAL, Reason.RUNNER_FAILED, 0.8),
            Kind(ErrorCode.UPSTREAM_LOCAL, Reason.STATUS, 1.0),
        ),
    )


def test_an_answer_does_not_fit_as_often_as_those_that_had_to() -> None:
    calls = [
        *(ended(n, "E_SCHEMA_INVALID", "schema", schema_asked=True) for n in (0, 1)),
        ended(2, "E_SCHEMA_INVALID", "cut", schema_asked=True),
        *(ended(n, "ok", schema_asked=True) for n in range(3, 10)),
        *(ended(n, "ok", schema_asked=False) for n in range(10, 30)),
    ]
    traffic = RecordedTraffic(calls, rules(), HOST)
    assert traffic.shares["PLANNER", "qwen3:4b"] == Shares(unfit=0.2, cut=0.1)
    demands, _ = traffic.drawn(1)
    assert [demand.schema for demand in demands.demands] == [True] * 10 + [False] * 20


def test_what_a_client_asked_for_is_asked_for_again() -> None:
    [demand, plain] = drawn(
        [
            call(0, max_wait_ms=0, timeout_ms=4500, no_fallback=True, retry_level=1),
            call(1),
        ]
    )
    assert (demand.max_wait_s, demand.timeout_s) == (0.0, 4.5)
    assert (demand.no_fallback, demand.retry_level) == (True, 1)
    assert (plain.max_wait_s, plain.timeout_s, plain.schema) == (None, None, None)
    assert (plain.no_fallback, plain.retry_level) == (False, 0)


def test_nothing_was_computed_while_a_model_did_not_come_to_be_loaded() -> None:
    """Else such a call would be taken for one of an answer of 3000 tokens at least."""
    calls = [call(10.0 * n, output_tokens=50) for n in range(5)]
    calls.append(
        ended(90.0, "E_TIMEOUT_LOCAL", "load_timeout", output_tokens=None, latency_ms=30_000.0)
    )
    assert drawn(calls)[-1].output_tokens == 50


def test_a_trace_of_which_nothing_can_be_replayed_is_an_error() -> None:
    with pytest.raises(TraceError, match="none of its calls can be replayed"):
        RecordedTraffic([call(0.0, role=None)], rules(), HOST)
    with pytest.raises(TraceError, match="nobody knows how long answers are; replay more calls"):
        drawn([left(0.0, 1.0)])


def test_calls_of_a_role_that_answered_none_are_left_out_and_told() -> None:
    calls = [call(0.0), ended(1.0, "E_MODEL_NOT_FOUND", role="CLOUD", output_tokens=None)]
    traffic, coverage = RecordedTraffic(calls, rules(), HOST).drawn(1)
    assert [demand.at for demand in traffic.demands] == [0.0]
    assert (coverage.calls, coverage.unanswered) == (1, {"CLOUD": 1})
