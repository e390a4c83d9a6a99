"""When the next call of a role is likely to come, and whether holding a seat free pays."""

from __future__ import annotations

import math
import random

import pytest

from modelsplit_policy.rhythm import LONGEST_S, NEEDED, SHARE, Rhythm


def rhythm(*gaps: float) -> tuple[Rhythm, float]:
    """One that has seen these gaps, and the moment of its last call."""
    one, now = Rhythm(), 0.0
    one.note(now)
    for gap in gaps:
        now += gap
        one.note(now)
    return one, now


def test_before_there_is_a_rhythm_calls_come_as_if_at_random_and_are_not_waited_for() -> None:
    one, last = rhythm(*[3.0] * (NEEDED - 1))
    assert (one.known, one.learned) == (True, False)
    assert one.chance(last, 3.0) == pytest.approx(1 - 1 / math.e)
    assert one.hold_s(last + 2.9, 2.0) == 0.0


def test_nothing_is_likely_before_the_second_call() -> None:
    one, last = rhythm()
    assert (one.known, one.chance(last, 100.0)) == (True, 0.0)
    assert not Rhythm().known


def test_after_calls_of_one_moment_the_next_is_certain() -> None:
    one, last = rhythm(0.0, 0.0)
    assert one.chance(last, 1.0) == 1.0


def test_how_likely_the_next_call_is_within_some_seconds() -> None:
    one, last = rhythm(*[1.0, 2.0, 3.0, 4.0] * 5)
    assert one.chance(last, 2.5) == 0.5
    assert one.chance(last + 2.5, 1.0) == 0.5
    assert one.chance(last + 5.0, 9.0) == 0.0, "later than any was"


def test_calls_in_step_are_worth_a_short_wait() -> None:
    one, last = rhythm(*[3.0] * 20)
    assert one.hold_s(last + 2.8, 2.0) == pytest.approx(0.24, abs=0.03)
    assert one.hold_s(last + 1.0, 2.0) == 0.0, "too long to wait for"
    assert one.hold_s(last + 2.8, 0.1) == 0.0, "over before the next one comes"


def test_calls_at_random_are_not_waited_for() -> None:
    chance = random.Random(1)
    one, last = rhythm(*[chance.expovariate(1 / 6) for _ in range(64)])
    assert [one.hold_s(last + after, 1.3) for after in (0.0, 0.5, 2.0, 6.0)] == [0.0] * 4


def test_what_is_held_free_is_a_small_share_of_the_time() -> None:
    one, now = rhythm(*[0.5] * 40)
    began, held = now, 0.0
    for _ in range(2000):
        hold_s = one.hold_s(now + 0.3, 2.0)
        assert hold_s <= LONGEST_S
        if hold_s:
            one.held(now + 0.3, holding=True)
            one.held(now + 0.5, holding=False)
            held += 0.2
        now += 0.5
        one.note(now)
    assert 0 < held <= SHARE * (now - began) + 4.0
