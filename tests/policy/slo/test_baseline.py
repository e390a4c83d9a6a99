"""A baseline is the numbers of a window, with timeouts scaled to five hours."""

from __future__ import annotations

import pytest

from modelsplit_policy.slo.baseline import TooLittleError, baseline_of
from modelsplit_policy.slo.samples import Samples
from support.slo_history import DAY_US, HOUR_US, MINUTE_US, NOW_US, breaching, passing, planner


def test_a_week_as_a_baseline() -> None:
    made = baseline_of(passing().samples(), NOW_US - 7 * DAY_US, NOW_US, "last week")
    assert (made.source, made.timeouts, made.timeouts_window_s) == ("last week", 0, 18_000)
    assert (made.planner_p95_ms, made.jobs, made.jobs_ok) == (2000, 2016, 2016 - 21)
    assert (made.reviews, made.hallucinated) == (40, 0)


def test_timeouts_are_scaled_and_hallucinations_counted() -> None:
    made = baseline_of(breaching().samples(), NOW_US - 7 * DAY_US, NOW_US, "x")
    assert made.timeouts == pytest.approx(15 * 5 / 168, abs=0.01)
    assert made.hallucinated == 20


def test_too_little_is_no_baseline() -> None:
    calls = [planner(f"c{i}", NOW_US - i * MINUTE_US) for i in range(1, 20)][::-1]
    with pytest.raises(TooLittleError, match="19 answered planner calls in 30 min of records"):
        baseline_of(Samples(calls), NOW_US - HOUR_US, NOW_US, "x")
