"""A call that was turned away is tried again within the seconds asked for, and only then."""

from __future__ import annotations

import pytest

from modelsplit_client import CallError, OverloadThrottledError
from modelsplit_client.errors import Told
from modelsplit_client.patience import Patience


def refusal(retry_after: float | None = 2.0, *, should_retry: bool | None = None) -> CallError:
    told = Told(retry_after=retry_after, should_retry=should_retry)
    return OverloadThrottledError("overloaded", told)


def test_tries_begin_within_the_seconds_after_the_first_refusal() -> None:
    patience = Patience(5.0)
    assert patience.pause(refusal(2.0), now=100.0) == 2.0
    assert patience.pause(refusal(2.0), now=103.0) == 2.0
    assert patience.pause(refusal(2.0), now=103.1) is None


@pytest.mark.parametrize("seconds", [0.0, 1.9])
def test_a_wait_that_is_longer_than_asked_for_is_none(seconds: float) -> None:
    assert Patience(seconds).pause(refusal(2.0), now=0.0) is None


def test_nothing_is_tried_again_without_a_time_or_against_advice() -> None:
    assert Patience(60.0).pause(refusal(None), now=0.0) is None
    assert Patience(60.0).pause(refusal(should_retry=False), now=0.0) is None
    assert Patience(60.0).pause(refusal(should_retry=True), now=0.0) == 2.0


def test_without_patience_a_refusal_that_says_at_once_is_tried_at_once() -> None:
    assert Patience(0.0).pause(refusal(0.0), now=0.0) == 0.0
