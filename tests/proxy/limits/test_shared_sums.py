"""What proxies that count budgets together tell each other of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_proxy.limits.shared_link import _GRACE_S
from modelsplit_proxy.limits.shared_sums import _LEAST_S, TIMEOUT_S, Patience, Sums


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=50))
def test_all_questions_of_an_attempt_take_less_than_300_ms_however_many_there_are(
    shares: list[float],
) -> None:
    patience, waited = Patience(), 0.0
    for share in shares:
        if patience.is_over:
            break
        # Each answer comes when it comes, or not at all.
        took = share * patience.next_s
        waited += took
        patience.spend(took)
    # The last one may be given up, which is decided a moment later.
    assert waited <= TIMEOUT_S + 2 * _LEAST_S + 1e-9
    assert TIMEOUT_S + 2 * _LEAST_S + _GRACE_S < 0.3


@pytest.mark.parametrize(
    ("calls_wait_s", "money_wait_s", "has_room"),
    [
        (0.0, 0.0, True),
        (3.0, 0.0, False),
        (0.0, 3.0, False),
        (None, 0.0, False),
        (0.0, None, False),
    ],
)
def test_there_is_room_where_neither_calls_nor_money_has_to_wait(
    calls_wait_s: float | None, money_wait_s: float | None, *, has_room: bool
) -> None:
    assert Sums(1, 0, 60.0, calls_wait_s, money_wait_s).has_room is has_room


def test_that_this_process_was_late_takes_nothing_from_the_next_question() -> None:
    patience = Patience()
    patience.spend(3.0)
    assert not patience.is_over
    assert patience.next_s == _LEAST_S
    patience.spend(3.0)
    assert patience.is_over
