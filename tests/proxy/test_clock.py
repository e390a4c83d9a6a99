"""Times as people read them, and a clock that does not go back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.clock import SystemClock, rfc3339


@pytest.mark.parametrize(
    ("wall", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1795393743.25, "2026-11-23T00:29:03.250Z"),
        (1795393743.9999, "2026-11-23T00:29:03.999Z"),
        (951782400.001, "2000-02-29T00:00:00.001Z"),
    ],
)
def test_a_moment_is_told_in_utc_with_milliseconds(wall: float, text: str) -> None:
    assert rfc3339(wall) == text


@given(first=st.floats(0, 4e9), second=st.floats(0, 4e9))
def test_the_order_of_texts_is_the_order_of_times(first: float, second: float) -> None:
    if first <= second:
        assert rfc3339(first) <= rfc3339(second)


def test_now_never_goes_back_and_is_finer_than_a_millisecond() -> None:
    clock = SystemClock()
    times = [clock.now() for _ in range(10_000)]
    assert times == sorted(times)
    assert min(b - a for a, b in pairwise(times) if b > a) < 0.001


def test_wall_is_the_time_of_this_century() -> None:
    assert "2020" < rfc3339(SystemClock().wall()) < "2100"
