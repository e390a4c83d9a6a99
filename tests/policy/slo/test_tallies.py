"""Counts of a window, of its last hour and its last five, and the worst of what is bad."""

from __future__ import annotations

import pytest

from modelsplit_policy.slo.tallies import Clock, Events, Share, Values

HOUR = 3_600_000_000
NOW = 1000 * HOUR


def test_a_share_counts_the_window_and_its_last_hours() -> None:
    share = Share(Clock(NOW - 10 * HOUR, NOW))
    for hours, bad in ((11, True), (10, True), (6, False), (5, True), (2, False), (1, True)):
        share.take(NOW - hours * HOUR, bad, f"c{hours}")
    assert (share.total, share.bad) == (5, 3)
    assert (share.long_total, share.long_bad) == (3, 2)
    assert (share.short_total, share.short_bad) == (1, 1)


def test_burn_rates_look_back_further_than_a_short_window() -> None:
    clock = Clock(NOW - HOUR // 2, NOW)
    assert clock.earliest_us == NOW - 5 * HOUR
    share = Share(clock)
    share.take(NOW - 3 * HOUR, True, "c")
    assert (share.total, share.long_bad, share.worst) == (0, 1, ())


def test_the_worst_are_the_five_latest_or_the_five_largest() -> None:
    latest, largest = Share(Clock(0, NOW)), Share(Clock(0, NOW))
    for number in range(9):
        latest.take(number, True, f"c{number}")
        largest.take(number, True, f"c{number}", severity=-number)
    assert latest.worst == ("c8", "c7", "c6", "c5", "c4")
    assert largest.worst == ("c0", "c1", "c2", "c3", "c4")


def test_what_belongs_together_tells_less() -> None:
    jobs, apart = Share(Clock(0, NOW)), Share(Clock(0, NOW))
    for number in range(200):
        bad = number % 40 < 4
        jobs.take(number, bad, "c", cluster=f"job-{number // 4}")
        apart.take(number, bad, "c")
    assert apart.effective(0.95) == 200
    effective = jobs.effective(0.95)
    assert effective is not None
    assert effective == pytest.approx(50, rel=0.1)
    few = Share(Clock(0, NOW))
    for number in range(20):
        few.take(number, False, "c", cluster=f"job-{number // 2}")
    assert few.effective(0.95) is None


def test_what_is_not_bad_is_not_among_the_worst() -> None:
    share = Share(Clock(0, NOW))
    share.take(1, False, "good")
    assert share.worst == ()


def test_a_value_at_its_bound_is_bad() -> None:
    values = Values(Clock(HOUR, NOW), 2000)
    for at, value in ((0, 9000), (HOUR, 1999), (2 * HOUR, 2000)):
        values.take(at, value, str(value))
    assert (values.ranked.count, values.share.bad, values.share.worst) == (2, 1, ("2000",))


def test_events_are_kept_by_time_and_counted_among_all() -> None:
    events = Events(Clock(HOUR, NOW))
    for at, event in ((0, True), (3 * HOUR, True), (2 * HOUR, True), (4 * HOUR, False)):
        events.take(at, event, f"c{at // HOUR}")
    assert events.sorted() == [(2 * HOUR, "c2"), (3 * HOUR, "c3")]
    assert (events.share.total, events.share.bad) == (3, 2)
