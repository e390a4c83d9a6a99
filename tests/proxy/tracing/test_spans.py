"""Ended calls as spans, by OpenTelemetry's names."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import error_attributes, http_attributes

from modelsplit_policy.call import Event
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_proxy.protocol.endpoints import ENDPOINTS
from modelsplit_proxy.records.record import Variant
from modelsplit_proxy.tracing import spans
from support.endpoints import endpoint
from support.records import answered, begun, broken_off, fallen_back, routed, turned_away

WALL_NS = 1795393743250000000
KNOWN = {
    value
    for module in (gen_ai_attributes, error_attributes, http_attributes)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
}
OPERATIONS = {value.value for value in gen_ai_attributes.GenAiOperationNameValues}


def seconds(moment: int) -> float:
    """After the call's start."""
    return (moment - WALL_NS) / 1e9


def test_an_answered_call() -> None:
    call = spans.of_call(answered(job_id="job-1"))
    assert call.name == "chat planner"
    assert (seconds(call.started), seconds(call.ended)) == (0, 3)
    assert call.error is None
    assert call.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "ollama",
        "gen_ai.request.model": "planner",
        "gen_ai.response.model": "qwen3:4b",
        "http.request.method": "POST",
        "http.route": "/api/chat",
        "http.response.status_code": 200,
        "modelsplit.request_id": "req-1",
        "modelsplit.job_id": "job-1",
        "modelsplit.client": "127.0.0.1",
        "modelsplit.outcome": "ok",
        "modelsplit.state": "completed",
        "modelsplit.llm_attempt": 1,
        "modelsplit.fallback_used": False,
        "modelsplit.llm_queue_wait_ms": 500.0,
        "modelsplit.llm_role": "PLANNER",
        "modelsplit.llm_context": "PLANNER",
        "modelsplit.llm_provider": "LOCAL",
        "modelsplit.route_reason": "alias",
    }


def test_its_attempt() -> None:
    [attempt] = spans.of_attempts(answered())
    assert attempt.name == "chat qwen3:4b"
    assert (seconds(attempt.started), seconds(attempt.ended)) == (0, 3)
    assert attempt.events == (
        ("seated", WALL_NS + 500_000_000),
        ("dispatched", WALL_NS + 500_000_000),
        ("first_byte", WALL_NS + 1_000_000_000),
    )
    assert attempt.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "ollama",
        "gen_ai.request.model": "qwen3:4b",
        "gen_ai.response.model": "qwen3:4b",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 6,
        "modelsplit.llm_attempt": 1,
        "modelsplit.sent": True,
        "modelsplit.llm_queue_wait_ms": 500.0,
        "modelsplit.load_ms": 250.0,
    }


def test_a_fallback_is_two_attempts_and_the_first_says_why() -> None:
    record = fallen_back()
    first, second = spans.of_attempts(record)
    assert (first.name, second.name) == ("chat qwen3:4b", "chat qwen3:8b")
    assert first.error == "E_UNREACHABLE_LOCAL connect_refused"
    assert first.attributes["error.type"] == "E_UNREACHABLE_LOCAL"
    assert first.attributes["modelsplit.sent"] is False
    assert "gen_ai.response.model" not in first.attributes
    assert (seconds(second.started), seconds(second.ended)) == (1, 4)
    assert second.error is None
    call = spans.of_call(record)
    assert (call.error, call.attributes["modelsplit.fallback_used"]) == (None, True)


def test_a_refusal_in_line_is_an_error_of_the_call_and_of_its_attempt() -> None:
    record = turned_away()
    [attempt] = spans.of_attempts(record)
    for span in (spans.of_call(record), attempt):
        assert span.error == "E_OVERLOAD_THROTTLED queue_full"
        assert span.attributes["error.type"] == "E_OVERLOAD_THROTTLED"
        assert span.attributes["modelsplit.reason"] == "queue_full"
        assert seconds(span.ended) == 2
    assert attempt.attributes["modelsplit.llm_queue_wait_ms"] == 2000.0


def test_a_stream_that_broke_is_an_error_though_its_status_is_200() -> None:
    call = spans.of_call(broken_off())
    assert call.error == "E_STREAM_BROKEN_LOCAL unterminated"
    assert call.attributes["http.response.status_code"] == 200


def test_what_the_client_did_is_no_error_of_the_servers_span() -> None:
    left = routed()
    left.call.step(Event.CLIENT_GONE)
    left.failure = Failure(ErrorCode.CLIENT_GONE, Reason.QUEUED, "gone", "Gone")
    left.status = 499
    wrong = begun(failure=Failure(ErrorCode.BAD_REQUEST, Reason.BAD_JSON, "x", "X"), status=400)
    for record, code in ((left, "E_CLIENT_GONE"), (wrong, "E_BAD_REQUEST")):
        call = spans.of_call(record)
        assert (call.error, call.attributes["error.type"]) == (None, code)
    assert spans.of_call(wrong).name == "chat"
    assert spans.of_attempts(wrong) == []


def test_an_experiments_arm_is_told() -> None:
    call = spans.of_call(answered(variant=Variant("t", "a")))
    assert call.attributes["modelsplit.experiment"] == "t"
    assert call.attributes["modelsplit.variant"] == "a"


def test_no_sentence_of_an_error_is_in_a_span() -> None:
    record = turned_away()
    assert record.failure is not None
    told = [spans.of_call(record), *spans.of_attempts(record)]
    assert not any(record.failure.message in repr(span) for span in told)


@pytest.mark.parametrize("row", ENDPOINTS, ids=lambda row: str(row.label))
def test_every_route_does_something_that_has_a_name(row: Any) -> None:
    assert row.operation in OPERATIONS
    call = spans.of_call(answered(endpoint=endpoint(row.label)))
    assert call.name == f"{row.operation} planner"


@pytest.mark.parametrize("record", [answered(schema="valid"), fallen_back(), turned_away()])
def test_every_name_is_one_of_the_conventions_or_ours(record: Any) -> None:
    for span in (spans.of_call(record), *spans.of_attempts(record)):
        names = {name for name in span.attributes if not name.startswith("modelsplit.")}
        assert names <= KNOWN
