"""What proxies that count budgets together tell each other of them."""

from __future__ import annotations

import pytest

from modelsplit_proxy.limits.shared_sums import Sums


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
