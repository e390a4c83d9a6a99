"""What company costs, learned for the numbers that were seen."""

from __future__ import annotations

import pytest

from modelsplit_policy.contention import PaceAlone, Shares


def spent(**seconds: float) -> list[float]:
    """Seconds with n at once, as ``at2=1.5``."""
    times = [0.0] * 7
    for name, value in seconds.items():
        times[int(name[2:])] = value
    return times


def taught(*samples: tuple[float, list[float]]) -> Shares:
    shares = Shares(6)
    for work_s, times in samples:
        shares.learn(work_s, times)
    return shares


def test_a_call_that_took_six_times_as_long_beside_another_shows_a_sixth() -> None:
    shares = taught((1.0, spent(at2=6.0)))
    assert shares.share(2) == pytest.approx(1 / 6)
    assert shares.output(2) == pytest.approx(1 / 3)
    assert (shares.harms(2), shares.worth(1)) == (True, 1)
    assert shares.contention() == pytest.approx(5.0)


def test_only_what_was_seen_is_known() -> None:
    shares = taught((1.0, spent(at2=1.0)))
    assert (shares.share(2), shares.share(3), shares.harms(3)) == (1.0, None, None)
    assert shares.worth(1) == 2
    assert Shares(6).contention() is None


def test_the_part_of_a_call_that_was_alone_counts_as_alone() -> None:
    shares = taught((1.0, spent(at1=0.75, at2=1.5)))
    assert shares.share(2) == pytest.approx(1 / 6)


def test_a_call_alone_or_nearly_alone_says_nothing_of_company() -> None:
    shares = taught((1.0, spent(at1=1.0)), (1.0, spent(at1=0.9, at2=0.1)))
    assert shares.share(2) is None


def test_two_are_free_and_three_share() -> None:
    shares = taught(*[(1.0, spent(at2=1.0))] * 4, *[(1.0, spent(at3=1.5))] * 4)
    assert shares.worth(1) == 2
    assert shares.harms(3) is False, "three do as much as two"


def test_one_call_that_was_a_little_slow_beside_another_does_not_make_company_harmful() -> None:
    """Two share fairly: an output of 0.88 after one sample, 0.9 being harmless, is chance."""
    slow = (1.0, spent(at2=1 / 0.44))
    assert taught(slow).output(2) == pytest.approx(0.88)
    assert taught(slow).harms(2) is None
    assert taught(*[slow] * 10).harms(2) is None, "so little is never beyond doubt"
    assert taught(slow, *[(1.0, spent(at2=2.0))] * 3).harms(2) is False
    worse = (1.0, spent(at2=1 / 0.4))
    assert (taught(worse).harms(2), taught(*[worse] * 6).harms(2)) == (None, True)


def test_a_number_in_use_is_kept_until_it_is_clearly_not_worth_it() -> None:
    shares = taught(*[(1.0, spent(at2=1.54))] * 4)
    assert (shares.worth(1), shares.worth(2)) == (1, 2)


def test_several_numbers_in_one_call_are_told_apart_by_what_is_known() -> None:
    shares = taught(*[(1.0, spent(at2=2.0))] * 4, (1.0, spent(at2=1.0, at3=2.0)))
    assert shares.share(2) == pytest.approx(0.5)
    assert shares.share(3) == pytest.approx(0.25)


def test_what_changes_is_noticed() -> None:
    shares = taught(*[(1.0, spent(at2=1.0))] * 10, *[(1.0, spent(at2=4.0))] * 15)
    assert shares.worth(2) == 1


def test_the_pace_alone_is_that_of_the_better_calls() -> None:
    alone = PaceAlone()
    assert alone.seconds is None
    for seconds in [0.02, 0.06] * 8:
        alone.learn(seconds)
    assert alone.seconds == 0.02


def test_calls_that_merely_differ_do_not_make_company_look_dear() -> None:
    """The pace alone is their mean, not the best of them."""
    alone = PaceAlone()
    for seconds in [0.018, 0.020, 0.022, 0.020] * 4:
        alone.learn(seconds)
    assert alone.seconds == pytest.approx(0.020)


def test_a_short_time_in_company_counts_for_less_than_its_length() -> None:
    """What is off by a tenth of a call is off by half where a fifth was spent in company."""
    half = (1.0, spent(at1=0.5, at2=1.0))
    whole = (1.0, spent(at2=1.0))
    assert taught(half).share(2) == pytest.approx(0.5)
    assert taught(whole, half).share(2) == pytest.approx(0.87, abs=0.05)
    assert taught((1.0, spent(at1=0.8, at2=0.25))).share(2) is None, "too little to be believed"
