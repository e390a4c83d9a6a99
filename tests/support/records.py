"""Records of calls, made by hand with round numbers: what headers, logs and metrics start from."""

from __future__ import annotations

from typing import Any

from modelsplit_policy.call import Event
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.roles import Candidate, Route
from modelsplit_policy.vocabulary import Context, Provider, Role, RouteReason
from modelsplit_proxy.protocol.stream_end import Usage
from modelsplit_proxy.records.record import CallRecord, Routing
from support.endpoints import endpoint

PLANNER = Route(
    role=Role.PLANNER,
    context=Context.PLANNER,
    provider=Provider.LOCAL,
    requested_model="planner",
    candidates=(Candidate("qwen3:4b", 15.0), Candidate("qwen3:8b", 30.0)),
    reason=RouteReason.ALIAS,
)
CHAT = Route(
    role=Role.CHAT,
    context=Context.CHAT,
    provider=Provider.LOCAL,
    requested_model="llava:7b",
    candidates=(Candidate("llava:7b", None),),
    reason=RouteReason.DEFAULT,
)
REFUSED = Failure(
    ErrorCode.UNREACHABLE_LOCAL, Reason.CONNECT_REFUSED, "Ollama is not answering", "Unreachable"
)
BROKEN = Failure(
    ErrorCode.STREAM_BROKEN_LOCAL, Reason.UNTERMINATED, "Ollama broke off", "Stream Broken"
)
QUEUE_FULL = Failure(
    ErrorCode.OVERLOAD_THROTTLED, Reason.QUEUE_FULL, "its queue is full", "Queue Full", 4
)


def begun(**changes: Any) -> CallRecord:
    """A call that arrived at second 100, at 2026-11-23T00:29:03.250Z."""
    values: dict[str, Any] = {
        "request_id": "req-1",
        "endpoint": endpoint("/api/chat"),
        "client": "127.0.0.1",
        "started": 100.0,
        "started_wall": 1795393743.25,
    }
    return CallRecord(**(values | changes))


def routed(route: Route = PLANNER, **changes: Any) -> CallRecord:
    """The same with a route; ``variant``: the arm it was given."""
    variant = changes.pop("variant", None)
    record = begun(**changes)
    record.routed(route).variant = variant
    return record


def routing(record: CallRecord) -> Routing:
    """Of a call that has one."""
    assert record.routing is not None
    return record.routing


def answered(route: Route = PLANNER, **changes: Any) -> CallRecord:
    """0.5 s in line, the first byte after 1 s, done after 3 s."""
    record = routed(route, **changes)
    attempt = record.attempt(route.candidates[0], 100.0)
    attempt.seated, attempt.dispatched, attempt.sent = 100.5, 100.5, True
    attempt.first_byte, attempt.ended = 101.0, 103.0
    _walk(record, Event.ENQUEUE, Event.ADMIT, Event.DISPATCH, Event.COMMIT, Event.FINISH)
    record.status, record.ended = 200, 103.0
    attempt.usage = Usage(prompt_tokens=11, output_tokens=6, load_s=0.25, finish_reason="stop")
    return record


def fallen_back(**changes: Any) -> CallRecord:
    """Attempt 1 finds no upstream after 1 s; attempt 2 waits 0.25 s and is done after 4 s."""
    record = routed(**changes)
    first = record.attempt(PLANNER.candidates[0], 100.0)
    first.seated, first.dispatched, first.ended = 100.0, 100.0, 101.0
    first.failure = REFUSED
    second = record.attempt(PLANNER.candidates[1], 101.0)
    second.seated, second.dispatched, second.sent = 101.25, 101.25, True
    second.first_byte, second.ended = 102.0, 104.0
    _walk(record, Event.ADMIT, Event.DISPATCH, Event.FALL_BACK)
    _walk(record, Event.ENQUEUE, Event.ADMIT, Event.DISPATCH, Event.COMMIT, Event.FINISH)
    record.status, record.ended = 200, 104.0
    return record


def broken_off(**changes: Any) -> CallRecord:
    """As answered, but Ollama ended its stream 2 s after the first byte, without its end."""
    record = routed(**changes)
    attempt = record.attempt(PLANNER.candidates[0], 100.0)
    attempt.seated, attempt.dispatched, attempt.sent = 100.5, 100.5, True
    attempt.first_byte, attempt.ended = 101.0, 103.0
    _walk(record, Event.ENQUEUE, Event.ADMIT, Event.DISPATCH, Event.COMMIT, Event.BREAK)
    record.status, record.ended = 200, 103.0
    record.failure = BROKEN
    attempt.failure = BROKEN
    return record


def turned_away(failure: Failure = QUEUE_FULL, **changes: Any) -> CallRecord:
    """2 s in line for nothing."""
    record = routed(**changes)
    record.attempt(PLANNER.candidates[0], 100.0).ended = 102.0
    _walk(record, Event.ENQUEUE, Event.REJECT)
    record.failure, record.status, record.ended = failure, failure.status, 102.0
    return record


def _walk(record: CallRecord, *events: Event) -> None:
    for event in events:
        record.call.step(event)
