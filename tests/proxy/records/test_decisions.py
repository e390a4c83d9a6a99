"""What is told of a call beside its log line: only what is unusual, and the right reason."""

from __future__ import annotations

from typing import Any

import pytest

from modelsplit_policy.call import Event
from modelsplit_policy.failures import ErrorCode, Failure, Reason
from modelsplit_policy.roles import Candidate
from modelsplit_policy.tickets import Crowd, Hold, Seats
from modelsplit_proxy.protocol.request_headers import Asked
from modelsplit_proxy.records import decisions
from modelsplit_proxy.records.record import Attempt, CallRecord
from support.records import (
    QUEUE_FULL,
    REFUSED,
    answered,
    begun,
    fallen_back,
    routed,
    routing,
    turned_away,
)

CROWD = Crowd(Hold.ROLE_CAP, {"PLANNER": 2}, {"m": 2}, {"PLANNER": 1}, {"m": 1})


RESET = Failure(ErrorCode.UNREACHABLE_LOCAL, Reason.RESET, "the connection broke", "Unreachable")
DRAINED = Failure(ErrorCode.OVERLOAD_THROTTLED, Reason.DRAINING, "is drained", "Draining")
USED_UP = Failure(ErrorCode.BUDGET_EXHAUSTED, Reason.CALLS, "used up", "Budget Exhausted")
NOT_APPROVED = Failure(ErrorCode.BUDGET_NOT_APPROVED, Reason.NO_APPROVAL, "none", "Not Approved")
DENIED = Failure(ErrorCode.FORBIDDEN, Reason.EGRESS_DENIED, "may not leave", "Egress Denied")


def failed(failure: Failure = RESET, **changes: Any) -> CallRecord:
    """One attempt that a second model might have been spared, and nobody else was asked."""
    record = routed(**changes)
    attempt = record.attempt(Candidate("qwen3:4b", 15.0), 100.0)
    attempt.failure, attempt.ended = failure, 101.0
    record.failure, record.ended = failure, 101.0
    return record


def stepped(record: CallRecord, *events: Event) -> CallRecord:
    for event in events:
        record.call.step(event)
    return record


def test_a_call_that_went_well_has_nothing_to_tell() -> None:
    assert decisions.of_call(answered()) == {}
    assert decisions.of_attempt(answered().attempts[0], 100.0) == {}


def test_a_fallback_tells_who_might_have_answered() -> None:
    assert decisions.of_call(fallen_back()) == {"candidates": ["qwen3:4b", "qwen3:8b"]}


def alone() -> CallRecord:
    record = failed()
    routing(record).candidates = routing(record).candidates[:1]
    return record


def at_the_fallback() -> CallRecord:
    record = failed()
    routing(record).starts_at_fallback = True
    return record


def no_seat() -> CallRecord:
    record = failed()
    record.unseated = Attempt("qwen3:8b", 101.0, failure=QUEUE_FULL)
    return record


def no_budget() -> CallRecord:
    record = failed()
    record.unseated = Attempt("qwen3:8b", 101.0, failure=USED_UP)
    return record


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (answered(), None),
        (fallen_back(), None),
        (begun(failure=REFUSED), "not_asked"),
        (turned_away(), "same_line"),
        (failed(DRAINED), "drained"),
        (failed(NOT_APPROVED), "not_allowed"),
        (failed(USED_UP), "not_allowed"),
        (failed(DENIED), "not_allowed"),
        (failed(REFUSED), "no_cause"),
        (alone(), "none"),
        (failed(asked=Asked(no_fallback=True)), "not_wanted"),
        (failed(bound=True), "bound"),
        (at_the_fallback(), "none_left"),
        (no_seat(), "no_seat"),
        (no_budget(), "no_budget"),
        (stepped(failed(), Event.ADMIT, Event.DISPATCH, Event.COMMIT, Event.BREAK), "begun"),
        (stepped(failed(), Event.ENQUEUE, Event.CLIENT_GONE), "client_gone"),
    ],
)
def test_why_there_was_no_second_attempt(record: CallRecord, why: str | None) -> None:
    assert decisions.why_no_fallback(record) == why


def test_a_second_attempt_without_a_seat_is_told() -> None:
    record = no_seat()
    assert record.unseated is not None
    record.unseated.crowd = CROWD
    told = decisions.of_call(record)["unseated"]
    assert (told["model"], told["error"]) == ("qwen3:8b", "its queue is full")
    assert told["crowd"]["hold"] == "role_cap"


def test_an_attempt_tells_its_failure_its_line_and_its_trial() -> None:
    attempt = Attempt("m", 1.0, crowd=CROWD, crowd_at_end=CROWD, trial=True, gone_s=0.75)
    attempt.failure = Failure(ErrorCode.OVERLOAD_THROTTLED, Reason.SHED, "no", "Shed")
    attempt.seats = Seats(2, 2, 5, 6, 1, None, 6, "CRITICAL: late")
    assert decisions.of_attempt(attempt, 1.0) == {
        "error": "no",
        "health": "CRITICAL: late",
        "trial": True,
        "crowd": CROWD._asdict(),
        "crowd_at_end": CROWD._asdict(),
        "gone_ms": 750.0,
    }


@pytest.mark.parametrize(
    ("seats", "text"),
    [
        (Seats(2, 2, 5, 6, 1, None, 6, ""), "2/2 5/6 1/- 6"),
        (Seats(1, None, 1, 6, 1, 1, 3, "x"), "1/- 1/6 1/1 3"),
    ],
)
def test_limits_are_kept_in_few_bytes(seats: Seats, text: str) -> None:
    assert decisions.seats_text(seats) == text
    read = decisions.read_seats(text)
    assert read == {
        "role": {"running": seats.role, "cap": seats.role_cap},
        "local": {"running": seats.local, "cap": seats.local_cap},
        "model": {"running": seats.model, "cap": seats.model_cap},
        "useful": seats.useful,
    }


def test_an_attempt_that_never_asked_has_no_limits() -> None:
    assert decisions.seats_text(None) is None
    assert decisions.read_seats(None) is None
