"""What a client is told that gets no seat, or comes while we restart."""

from __future__ import annotations

import pytest

from modelsplit_policy.admission import Refusal
from modelsplit_policy.failures import Reason
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.protocol import overload


@pytest.mark.parametrize(
    ("reason", "what", "phrase"),
    [
        (Reason.QUEUE_FULL, "its queue is full", "Queue Full"),
        (Reason.QUEUE_TIMEOUT, "no seat came free in 8.0 s", "Queue Timeout"),
    ],
)
def test_a_refusal_is_told_with_the_numbers(reason: Reason, what: str, phrase: str) -> None:
    refusal = Refusal(
        reason=reason,
        role=Role.PLANNER,
        running=2,
        seats=2,
        waiting=64,
        max_queue=64,
        retry_after_s=7,
    )
    failure = overload.failure_of_refusal(refusal, 8.01)
    assert failure.message == (
        f"role PLANNER is overloaded: {what} (2/2 running, 64/64 waiting); retry in 7 s"
    )
    assert (failure.status, failure.phrase, failure.retry_after_s) == (503, phrase, 7)


def test_draining_says_when_to_come_back() -> None:
    failure = overload.draining()
    assert (failure.status, failure.reason, failure.retry_after_s) == (503, "draining", 2)
