"""A call's record: its times and names, and the flat object that logs and answers show."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from modelsplit_policy.call import Event
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.prices import Price
from modelsplit_proxy.protocol.stream_end import Usage
from modelsplit_proxy.records.values import log_fields
from support.records import (
    PLANNER,
    REFUSED,
    answered,
    begun,
    fallen_back,
    routed,
    routing,
    turned_away,
)

ALWAYS = {
    *("ts", "event", "request_id", "job_id", "purpose", "client", "route", "dialect", "started_at"),
    *("llm_role", "llm_context", "llm_provider", "requested_model", "llm_model", "llm_attempt"),
    *("fallback_used", "fallback_cause", "route_reason", "status", "outcome", "state", "stream"),
    *("client_retry", "llm_queue_wait_ms", "llm_latency_ms", "ttfb_ms", "call_e2e_latency_ms"),
    *("load_ms", "prompt_tokens", "output_tokens", "finish_reason", "cost_usd"),
}
ON_FAILURE = {"error", "error_code", "error_context", "error_provider", "reason"}


def shown(fields: dict[str, Any]) -> Any:
    """The fields as a reader of the log gets them."""
    return orjson.loads(orjson.dumps(fields))


def test_an_answered_call_is_one_flat_object() -> None:
    assert (
        log_fields(answered()).items()
        >= {
            "ts": "2026-11-23T00:29:06.250Z",
            "started_at": "2026-11-23T00:29:03.250Z",
            "event": "request",
            "request_id": "req-1",
            "job_id": None,
            "route": "/api/chat",
            "dialect": "ollama",
            "llm_role": "PLANNER",
            "llm_context": "PLANNER",
            "llm_provider": "LOCAL",
            "requested_model": "planner",
            "llm_model": "qwen3:4b",
            "llm_attempt": 1,
            "fallback_used": False,
            "fallback_cause": None,
            "route_reason": "alias",
            "status": 200,
            "outcome": "ok",
            "state": "completed",
            "llm_queue_wait_ms": 500.0,
            "llm_latency_ms": 2500.0,
            "ttfb_ms": 1000.0,
            "call_e2e_latency_ms": 3000.0,
            "planner_latency_ms": 3000.0,
            "load_ms": 250.0,
            "prompt_tokens": 11,
            "output_tokens": 6,
            "finish_reason": "stop",
        }.items()
    )


def test_the_same_fields_are_there_however_a_call_ended() -> None:
    unrouted = begun()
    unrouted.failure = Failure(ErrorCode.BAD_REQUEST, Reason.BAD_JSON, "x", "X")
    assert set(log_fields(answered())) >= ALWAYS
    assert set(log_fields(turned_away())) >= ALWAYS | ON_FAILURE
    assert set(log_fields(unrouted)) >= ALWAYS | ON_FAILURE
    assert not ON_FAILURE & set(log_fields(answered()))


def test_a_fallback_counts_both_waits_and_the_latency_of_the_answer() -> None:
    fields = log_fields(fallen_back())
    assert (fields["llm_model"], fields["llm_attempt"]) == ("qwen3:8b", 2)
    assert (fields["fallback_used"], fields["fallback_cause"]) == (True, "E_UNREACHABLE_LOCAL")
    assert (fields["llm_queue_wait_ms"], fields["llm_latency_ms"]) == (250.0, 2750.0)
    assert (fields["ttfb_ms"], fields["call_e2e_latency_ms"]) == (2000.0, 4000.0)


def test_a_call_turned_away_waited_until_then_and_had_no_model() -> None:
    fields = log_fields(turned_away())
    assert fields["llm_queue_wait_ms"] == 2000.0
    assert fields["llm_latency_ms"] is None
    assert fields["ttfb_ms"] is None
    assert (fields["outcome"], fields["state"]) == ("E_OVERLOAD_THROTTLED", "rejected")
    assert (fields["error_code"], fields["reason"]) == ("E_OVERLOAD_THROTTLED", "queue_full")
    assert fields["error"] == "its queue is full"


def test_a_second_attempt_without_a_seat_leaves_the_first_ones_latency() -> None:
    record = routed()
    first = record.attempt(PLANNER.candidates[0], 100.0)
    first.seated, first.dispatched, first.ended = 100.0, 100.5, 103.0
    record.attempt(PLANNER.candidates[1], 103.0).ended = 105.0
    assert record.llm_latency_s == 2.5
    assert record.queue_wait_s == 2.0


def test_a_client_that_left_is_its_own_outcome() -> None:
    record = routed()
    record.call.step(Event.CLIENT_GONE)
    record.failure = Failure(ErrorCode.CLIENT_GONE, Reason.QUEUED, "gone", "Gone")
    assert record.outcome == "client_gone"
    assert log_fields(record)["error_code"] == "E_CLIENT_GONE"


def test_a_call_that_started_at_the_fallback_used_it() -> None:
    record = answered()
    routing(record).starts_at_fallback = True
    assert log_fields(record)["fallback_used"] is True
    assert log_fields(record)["fallback_cause"] is None


def test_the_scene_of_an_error_names_the_model_asked_last() -> None:
    scene = fallen_back().scene()
    assert (scene.model, scene.attempt, scene.fallback_used) == ("qwen3:8b", 2, True)
    assert (begun().scene().model, begun().scene().attempt) == (None, 1)


@pytest.mark.parametrize("name", ["m" * 10_000_000, "模" * 1000])
def test_a_name_as_long_as_a_body_does_not_fill_the_records(name: str) -> None:
    record = begun()
    record.requested_model = name
    record.failure = REFUSED
    assert len(orjson.dumps(log_fields(record))) < 4000
    assert record.scene().model == name[:256]


def test_only_a_planners_call_has_a_planner_latency() -> None:
    assert log_fields(answered())["planner_latency_ms"] == 3000.0
    assert log_fields(begun())["planner_latency_ms"] is None


def test_the_record_holds_no_text_of_the_conversation() -> None:
    texts = {value for value in shown(log_fields(answered())).values() if isinstance(value, str)}
    assert texts == {
        *("2026-11-23T00:29:06.250Z", "2026-11-23T00:29:03.250Z", "request", "req-1"),
        *("127.0.0.1", "/api/chat", "ollama", "PLANNER", "LOCAL", "planner", "qwen3:4b"),
        *("alias", "ok", "completed", "stop"),
    }


# -- what it costs --------------------------------------------------------------------------------

OPUS = Price(15.0, 75.0)


def test_a_call_costs_what_its_tokens_cost() -> None:
    record = answered()
    record.attempts[0].price = OPUS
    assert log_fields(record)["cost_usd"] == 0.000615  # 11 x 15 + 6 x 75, by the million


def test_an_hour_of_computing_is_charged_from_dispatch_to_the_end() -> None:
    record = answered()
    record.attempts[0].price = Price(usd_per_hour=3.6)
    assert log_fields(record)["cost_usd"] == 0.0025  # 2.5 seconds


def test_both_attempts_count() -> None:
    record = fallen_back()
    for attempt in record.attempts:
        attempt.sent, attempt.price = True, OPUS
        attempt.usage = Usage(prompt_tokens=1000, output_tokens=1000)
    assert record.cost_usd == pytest.approx(0.18)


def test_an_attempt_that_tells_no_tokens_makes_the_cost_unknown() -> None:
    record = fallen_back()
    for attempt in record.attempts:
        attempt.price = OPUS
    record.attempts[1].usage = Usage(prompt_tokens=1000, output_tokens=1000)
    record.attempts[0].sent = True
    assert log_fields(record)["cost_usd"] is None
    record = fallen_back()
    record.attempts[1].price = OPUS
    record.attempts[1].usage = Usage(prompt_tokens=1000, output_tokens=1000)
    assert log_fields(record)["cost_usd"] == 0.09, "the first attempt reached nobody"


def test_a_call_that_reached_nobody_costs_nothing() -> None:
    assert log_fields(turned_away())["cost_usd"] == 0.0
    assert log_fields(begun())["cost_usd"] == 0.0
