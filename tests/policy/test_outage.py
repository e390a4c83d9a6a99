"""How long calls wait for a provider that went away."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.outage import WAIT_S, Outage


def test_calls_wait_for_ten_seconds_and_not_a_moment_longer() -> None:
    outage = Outage()
    assert not outage.back()
    assert outage.lost(100.0)
    assert not outage.lost(105.0), "that is no news"
    assert outage.left_s(105.0) == WAIT_S - 5.0
    assert outage.waits(109.9)
    assert not outage.waits(110.0)
    assert outage.back()
    assert not outage.back()
    assert not outage.waits(110.0)
    assert repr(outage) == "<Outage there>"


def test_nobody_waits_for_what_was_never_there() -> None:
    outage = Outage()
    assert outage.lost(0.0)
    assert not outage.waits(0.0)
    assert not outage.back(), "it has come, not come back"
    assert outage.lost(1.0)
    assert outage.waits(1.0)


def test_where_the_policy_says_so_nobody_waits() -> None:
    outage = Outage(0.0)
    outage.back()
    outage.lost(0.0)
    assert not outage.waits(0.0)
    assert outage.back()


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 20)), max_size=50))
def test_calls_wait_only_within_the_time_after_it_was_last_there(
    steps: list[tuple[bool, float]],
) -> None:
    outage, now, there_at, away_at = Outage(), 0.0, None, None
    for there, passed in steps:
        now += passed
        if there:
            outage.back()
            there_at, away_at = now, None
        else:
            outage.lost(now)
            away_at = now if away_at is None else away_at
        # The moment at which the wait ends, in the same arithmetic: sums of seconds are rounded.
        waits = away_at is not None and away_at + WAIT_S > now
        expected = there_at is not None and waits
        assert outage.waits(now) == expected
