"""What a client is told that gets no seat, asks a stopped model, or comes while we restart."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy import overload
from modelsplit_policy.failures import Reason


@pytest.mark.parametrize(
    ("reason", "expected", "what", "phrase"),
    [
        (Reason.QUEUE_FULL, None, "is overloaded: its queue is full", "Queue Full"),
        (Reason.QUEUE_TIMEOUT, None, "is overloaded: no seat came free in 8.0 s", "Queue Timeout"),
        (
            Reason.QUEUE_TIMEOUT,
            (41.2, 10.0),
            "is overloaded: expected wait 41 s, at most 10 s",
            "Queue Timeout",
        ),
        (
            Reason.QUEUE_TIMEOUT,
            (0.123, 0.06),
            "is overloaded: expected wait 0.12 s, at most 0.06 s",
            "Queue Timeout",
        ),
        (Reason.SHED, None, "is shed: the service is overloaded", "Shed"),
    ],
)
def test_who_gets_no_seat_is_told_with_the_numbers(
    reason: Reason, expected: tuple[float, float] | None, what: str, phrase: str
) -> None:
    failure = overload.no_seat(
        reason,
        "PLANNER",
        running=(2, 2),
        waiting=(64, 64),
        retry_after_s=7,
        waited_s=8.01,
        expected=expected,
    )
    assert failure.message == (f"role PLANNER {what} (2/2 running, 64/64 waiting); retry in 7 s")
    assert (failure.status, failure.reason, failure.phrase) == (503, reason, phrase)
    assert failure.retry_after_s == 7


def test_a_stopped_model_is_told_with_the_reason() -> None:
    failure = overload.stopped("LOCAL/m", "5 failures in a row", 1.2)
    assert (failure.status, failure.reason) == (503, Reason.BREAKER_OPEN)
    assert (
        failure.message == "calls to LOCAL/m are stopped for now: 5 failures in a row; retry in 2 s"
    )
    assert failure.retry_after_s == 2


def test_a_name_cannot_write_sentences() -> None:
    message = overload.stopped("m\nERROR\x1b[31m" + "x" * 1000, "5 failures in a row", 1.0).message
    assert message.isprintable()
    assert len(message) <= 200


@given(st.floats(-10.0, 1e9))
def test_when_to_come_back_is_in_whole_seconds_never_too_few_and_never_long(wait_s: float) -> None:
    told = overload.retry_after(wait_s)
    assert 1 <= told <= 30
    assert told >= min(wait_s, 30)
    assert told - wait_s < 1 or told == 1


def test_a_wait_without_end_is_told_as_the_longest() -> None:
    assert overload.retry_after(math.inf) == 30


def test_a_restart_says_when_to_come_back() -> None:
    for failure in (overload.draining(), overload.cut_short()):
        assert (failure.status, failure.reason, failure.retry_after_s) == (503, "draining", 2)
        assert failure.message.startswith("modelsplit is restarting and ")
