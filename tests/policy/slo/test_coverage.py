"""How much of a window has records, in quarters of an hour from its end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.slo.coverage import STEP_US, Coverage

NOW = 10**15
HOUR = 4 * STEP_US


def test_a_record_covers_its_quarter_of_an_hour() -> None:
    coverage = Coverage(NOW - HOUR, NOW)
    assert coverage.seconds == 0
    for at in (NOW, NOW - 1, NOW - STEP_US + 1):
        coverage.take(at)
    assert coverage.seconds == 900
    coverage.take(NOW - STEP_US)
    assert coverage.seconds == 1800


def test_what_is_outside_the_window_covers_nothing() -> None:
    coverage = Coverage(NOW - HOUR, NOW)
    coverage.take(NOW + 1)
    coverage.take(NOW - HOUR - 1)
    assert coverage.seconds == 0


def test_before_the_first_record_of_all_nothing_is_covered() -> None:
    """A minute after the first start, a minute is covered and not the quarter."""
    young = Coverage(NOW - HOUR, NOW, kept_since_us=NOW - 60_000_000)
    assert young.seconds == 0
    for age in (0, 30_000_000, 60_000_000):
        young.take(NOW - age)
    assert young.seconds == 60
    # Records that are older than the window say nothing about its beginning.
    old = Coverage(NOW - HOUR, NOW, kept_since_us=NOW - 10 * HOUR)
    old.take(NOW - 60_000_000)
    assert old.seconds == 900
    future = Coverage(NOW - HOUR, NOW, kept_since_us=NOW + 1)
    future.take(NOW)
    assert future.seconds == 0


def test_a_window_is_never_covered_for_longer_than_it_is() -> None:
    coverage = Coverage(NOW - 10_000_000, NOW)
    coverage.take(NOW)
    assert coverage.seconds == 10


@given(ages=st.lists(st.integers(0, HOUR - 1)))
def test_the_order_of_records_does_not_matter(ages: list[int]) -> None:
    coverage = Coverage(NOW - HOUR, NOW)
    for age in ages:
        coverage.take(NOW - age)
    assert coverage.seconds == 900 * len({age // STEP_US for age in ages})
