"""The fullest sliding window, against counting in every one of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.slo.events import NONE, most_in_any_window


def counted(moments: list[int], length: int) -> int:
    """In each window that ends at a moment: its end included, its beginning not."""
    return max((sum(1 for m in moments if end - length < m <= end) for end in moments), default=0)


@given(moments=st.lists(st.integers(0, 200)), length=st.integers(1, 80))
def test_it_is_the_fullest_of_all_windows(moments: list[int], length: int) -> None:
    moments.sort()
    most = most_in_any_window(moments, length)
    assert most.events == counted(moments, length)
    within = moments[most.first : most.last + 1]
    assert len(within) == most.events
    assert not within or within[-1] - within[0] < length


def test_five_hours_begin_behind_the_moment_five_hours_ago() -> None:
    hour = 3600
    assert most_in_any_window([0, 5 * hour], 5 * hour).events == 1
    assert most_in_any_window([1, 5 * hour], 5 * hour).events == 2


def test_of_several_as_full_the_last_is_told() -> None:
    assert most_in_any_window([0, 1, 100, 101], 10) == (2, 2, 3)


def test_without_events_no_window_is_full() -> None:
    assert most_in_any_window([], 10) == NONE
