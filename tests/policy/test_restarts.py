"""What failed is started again: soon the first time, later each time, and forgiven in the end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.restarts import FIRST_S, LONGEST_S, WELL_S, Restarts


def test_each_time_waits_twice_as_long_up_to_a_minute() -> None:
    restarts, now, waits = Restarts(), 0.0, []
    for _ in range(9):
        waits.append(restarts.failed("KeyError: 'x'", now))
        now += waits[-1]
        restarts.started(now)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert repr(restarts) == "<Restarts 9 failures, last: KeyError: 'x'>"


def test_one_that_has_run_for_long_begins_again_with_a_second() -> None:
    restarts = Restarts()
    assert restarts.is_well(0.0)
    assert restarts.failed("a", 0.0) == 1.0
    assert not restarts.is_well(WELL_S * 2)
    restarts.started(1.0)
    assert restarts.failed("a", 5.0) == 2.0
    restarts.started(7.0)
    assert not restarts.is_well(7.0 + WELL_S - 0.1)
    assert restarts.is_well(7.0 + WELL_S)
    assert restarts.failed("b", 7.0 + WELL_S) == 1.0
    assert (restarts.failures, restarts.error) == (3, "b")


@given(st.lists(st.floats(0, 1000), max_size=2000))
def test_a_wait_is_never_outside_its_bounds(ran: list[float]) -> None:
    restarts, now = Restarts(), 0.0
    for ran_s in ran:
        now += ran_s
        wait_s = restarts.failed("e", now)
        assert FIRST_S <= wait_s <= LONGEST_S
        now += wait_s
        restarts.started(now)
