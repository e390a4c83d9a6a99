"""Budget time: what the wall clock does to it, and what it does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.budget_clock import Anchor, ClockReading, drift_s, resume

DAY = 86_400.0
THEN = Anchor(ClockReading("boot-1", 1000.0, 50_000.0), 70_000.0)

moments = st.floats(0, 1e9)
boots = st.sampled_from([None, "boot-1", "boot-2"])
readings = st.builds(ClockReading, boots, moments, moments)


def test_a_ledger_begins_at_the_walls_time() -> None:
    assert resume(None, ClockReading("boot-1", 5.0, 1_795_393_743.25)) == 1_795_393_743.25


@pytest.mark.parametrize("jump", [-DAY, 0.0, DAY])
def test_within_one_boot_the_wall_clock_counts_for_nothing(jump: float) -> None:
    assert resume(THEN, ClockReading("boot-1", 1600.0, 50_600.0 + jump)) == 70_600.0


def test_from_boot_to_boot_the_wall_clock_says_what_passed() -> None:
    assert resume(THEN, ClockReading("boot-2", 30.0, 50_000.0 + DAY)) == 70_000.0 + DAY


def test_a_wall_clock_put_back_leaves_the_time_since_the_boot() -> None:
    assert resume(THEN, ClockReading("boot-2", 30.0, 50_000.0 - DAY)) == 70_030.0


def test_a_hidden_boot_counts_what_is_certain_either_way() -> None:
    # The same boot 600 s later, or another that has been up for 1600 s: 600 s have passed.
    assert resume(THEN, ClockReading(None, 1600.0, 50_000.0 + DAY)) == 70_600.0


def test_a_shorter_time_since_the_boot_is_another_boot_however_hidden() -> None:
    assert resume(THEN, ClockReading(None, 30.0, 50_000.0 + DAY)) == 70_000.0 + DAY


@given(readings, readings, moments)
def test_it_never_goes_back(then: ClockReading, now: ClockReading, ledger: float) -> None:
    assert resume(Anchor(then, ledger), now) >= ledger


@given(readings, moments, st.floats(0, 1e6), st.floats(-2 * DAY, 2 * DAY))
def test_no_setting_of_the_wall_clock_opens_anything_within_a_boot(
    then: ClockReading, ledger: float, passed: float, jump: float
) -> None:
    boot = then.boot
    now = ClockReading(boot, then.since_boot + passed, then.wall + passed + jump)
    told = resume(Anchor(then, ledger), now)
    assert told == ledger + (now.since_boot - then.since_boot)


def test_drift_is_how_far_the_wall_clock_was_set() -> None:
    assert drift_s(THEN, ClockReading("boot-1", 1600.0, 50_600.0)) == 0.0
    assert drift_s(THEN, ClockReading("boot-1", 1600.0, 50_600.0 - DAY)) == DAY
