"""When a number is a pass, a breach, or too little to say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.slo.leaks import Growth
from modelsplit_policy.slo.objectives import Holds, Objective
from modelsplit_policy.slo.report import Finding, Verdict
from modelsplit_policy.slo.samples import Baseline
from modelsplit_policy.slo.tallies import Clock, Events, Share, Values
from modelsplit_policy.slo.verdicts import (
    Judged,
    enough,
    of_classification,
    of_coverage,
    of_events,
    of_growth,
    of_hallucinations,
    of_job_success,
    of_share,
    of_timeouts,
    of_values,
)

HOUR = 3_600_000_000
NOW = 1000 * HOUR
PASS, BREACH, NOT_ENOUGH = Verdict.PASS, Verdict.BREACH, Verdict.NOT_ENOUGH_DATA
BASELINE = Baseline("before", 26, 18_000, 10_000, 100, 90, 100, 20)


def judged(bound: float, holds: Holds = Holds.BELOW, key: str = "p95") -> Judged:
    return Judged(Objective("x", key, 1, holds), bound, 18_000)


def share(bad: int, total: int) -> Share:
    counted = Share(Clock(NOW - 5 * HOUR, NOW))
    for number in range(total):
        counted.take(NOW - 1 - number, number < bad, f"c{number}")
    return counted


def values(*milliseconds: float, bound: float = 5000) -> Values:
    counted = Values(Clock(NOW - 5 * HOUR, NOW), bound * 1000)
    for number, value in enumerate(milliseconds):
        counted.take(NOW - 1 - number, int(value * 1000), f"c{number}")
    return counted


def latency(*milliseconds: float) -> Finding:
    return of_values(judged(5000), values(*milliseconds), "calls")


# --- Quantiles ----------------------------------------------------------------------------


def test_a_quantile_below_its_bound_passes_and_one_at_it_is_a_breach() -> None:
    assert latency(*[4999.999] * 20).verdict is PASS
    assert latency(*[5000.0] * 20).verdict is BREACH


def test_one_slow_call_in_twenty_is_what_a_p95_allows() -> None:
    found = latency(*[100] * 19, 9000)
    assert (found.verdict, found.value) == (PASS, 100)
    assert found.budget is not None
    assert found.budget.used == pytest.approx(1.0)
    assert latency(*[100] * 18, 9000, 9000).verdict is BREACH


def test_the_interval_is_between_ranks_and_open_where_the_tail_is_too_short() -> None:
    found = latency(*range(1, 41))
    assert (found.value, found.low, found.high) == (38, 35, None)


def test_too_few_calls_never_pass() -> None:
    found = latency(*[1] * 19)
    assert (found.verdict, found.note) == (NOT_ENOUGH, "19 of the 20 calls that are needed")
    assert latency().note == "no calls"


def test_too_few_calls_are_a_breach_where_it_can_hardly_be_chance() -> None:
    assert latency(9000).verdict is NOT_ENOUGH
    assert latency(9000, 9000).verdict is BREACH
    assert latency(*[9000] * 2, *[1] * 10).verdict is NOT_ENOUGH
    assert latency(*[9000] * 3, *[1] * 10).verdict is BREACH


def test_where_one_in_a_hundred_is_allowed_the_first_failure_is_no_breach() -> None:
    rate = judged(0.01, Holds.AT_MOST, "max")
    assert of_share(rate, share(1, 1), "calls").verdict is NOT_ENOUGH
    assert of_share(rate, share(2, 2), "calls").verdict is BREACH
    slowest = judged(70_000, key="p99")
    assert of_values(slowest, values(71_000, bound=70_000), "jobs").verdict is NOT_ENOUGH


def test_what_is_alike_from_one_to_the_next_is_judged_only_where_it_is_enough() -> None:
    lag = judged(100, key="max")
    for count, verdict in ((1, NOT_ENOUGH), (99, NOT_ENOUGH), (100, BREACH)):
        found = of_values(lag, values(*[195] * count, bound=100), "heartbeats", alike=True)
        assert (found.verdict, found.value) == (verdict, 195)
    up = judged(0.99, Holds.AT_LEAST, "min")
    assert of_share(up, share(50, 99), "minutes", alike=True).verdict is NOT_ENOUGH
    assert of_share(up, share(50, 100), "minutes", alike=True).verdict is BREACH


def test_a_breach_names_the_slowest_first() -> None:
    assert latency(*[6000] * 20, 9000, 8000).worst[:2] == ("c20", "c21")
    assert latency(*[1] * 30, 9000).worst == ()


# --- Rates --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("holds", "bad", "total", "verdict"),
    [
        (Holds.BELOW, 0, 100, PASS),
        (Holds.BELOW, 1, 100, BREACH),
        (Holds.AT_MOST, 1, 100, PASS),
        (Holds.AT_MOST, 2, 100, BREACH),
        (Holds.AT_MOST, 0, 99, NOT_ENOUGH),
        (Holds.AT_MOST, 1, 10, NOT_ENOUGH),
        (Holds.AT_MOST, 2, 10, BREACH),
    ],
)
def test_a_rate_of_one_per_cent(holds: Holds, bad: int, total: int, verdict: Verdict) -> None:
    assert of_share(judged(0.01, holds, "max"), share(bad, total), "calls").verdict is verdict


@pytest.mark.parametrize(
    ("bad", "total", "verdict"),
    [(0, 100, PASS), (1, 100, PASS), (2, 100, BREACH), (0, 99, NOT_ENOUGH), (30, 40, BREACH)],
)
def test_a_least_rate_of_ninety_nine_per_cent(bad: int, total: int, verdict: Verdict) -> None:
    found = of_share(judged(0.99, Holds.AT_LEAST, "min"), share(bad, total), "minutes")
    assert found.verdict is verdict
    assert found.value == (total - bad) / total


def test_a_rate_has_wilsons_interval_and_a_budget() -> None:
    found = of_share(judged(0.1, key="max"), share(5, 100), "calls")
    assert found.low == pytest.approx(0.0215, abs=1e-3)
    assert found.high == pytest.approx(0.1118, 1e-2)
    assert found.budget is not None
    assert (found.budget.used, found.budget.burn_1h, found.budget.burn_5h) == pytest.approx(
        (0.5, 0.5, 0.5)
    )


def test_calls_of_few_jobs_have_no_interval() -> None:
    share_, durations = Share(Clock(0, NOW)), Values(Clock(0, NOW), 5e6)
    for number in range(100):
        share_.take(number, False, "c", cluster=f"job-{number // 10}")
        durations.take(number, 1000, "c", f"job-{number // 10}")
    for found in (
        of_share(judged(0.1, key="max"), share_, "calls"),
        of_values(judged(5000), durations, "calls"),
    ):
        assert (found.verdict, found.low, found.high) == (PASS, None, None)


def test_nothing_in_the_last_hour_has_no_burn_rate() -> None:
    counted = Share(Clock(NOW - 5 * HOUR, NOW))
    counted.take(NOW - 2 * HOUR, False, "c")
    found = of_share(judged(0.1, key="max"), counted, "calls")
    assert found.budget is not None
    assert (found.budget.burn_1h, found.budget.burn_5h) == (None, 0)


def test_how_many_are_enough() -> None:
    assert [enough(allowed) for allowed in (0.05, 0.01, 1 - 0.95, 1 - 0.99, 0.5, 0, 0.001)] == [
        *(20, 100, 20, 100, 20, 1, 1000)
    ]


@given(bad=st.integers(0, 50), total=st.integers(1, 300), holds=st.sampled_from(Holds))
def test_one_more_bad_one_never_helps(bad: int, total: int, holds: Holds) -> None:
    bound = 0.95 if holds is Holds.AT_LEAST else 0.05
    rank = [PASS, NOT_ENOUGH, BREACH]
    before, after = (
        of_share(judged(bound, holds, "max"), share(min(count, total), total), "calls").verdict
        for count in (bad, bad + 1)
    )
    assert rank.index(after) >= rank.index(before)


def test_where_no_call_failed_no_failure_lacks_a_field() -> None:
    all_of = judged(1, Holds.AT_LEAST, "min")
    found = of_classification(all_of, share(0, 0), 7)
    assert (found.verdict, found.note) == (PASS, "none of 7 calls failed")
    assert of_classification(all_of, share(0, 0), 0).verdict is NOT_ENOUGH
    assert of_classification(all_of, share(0, 3), 7).verdict is PASS
    found = of_classification(all_of, share(1, 3), 7)
    assert (found.verdict, found.worst) == (BREACH, ("c0",))


# --- Rare events --------------------------------------------------------------------------


def events(*hours_ago: float, among: int = 50) -> Events:
    counted = Events(Clock(NOW - 168 * HOUR, NOW))
    for number in range(among):
        counted.take(NOW - 1 - number, False, f"fine{number}")
    for hours in hours_ago:
        counted.take(NOW - int(hours * HOUR), True, f"late{hours:g}")
    return counted


def test_fewer_than_five_in_any_five_hours() -> None:
    most = judged(5, key="max")
    spread = of_events(most, events(*range(1, 100, 2)), 18_000, "calls")
    assert (spread.value, spread.verdict) == (3, PASS)
    full = of_events(most, events(50, 51, 52, 53, 54, 90), 18_000, "calls")
    assert (full.value, full.verdict, full.note) == (5, BREACH, "the most in any 5 h")
    assert full.worst == ("late50", "late51", "late52", "late53", "late54")
    assert of_events(most, events(among=0), 18_000, "calls").verdict is NOT_ENOUGH


def test_burn_rates_of_events_are_against_an_even_spending() -> None:
    found = of_events(judged(5, key="max"), events(0.5, 0.6, 3), 18_000, "calls")
    assert found.budget is not None
    assert (found.budget.used, found.budget.burn_1h, found.budget.burn_5h) == (0.6, 2.0, 0.6)


# --- Against the baseline -----------------------------------------------------------------

HALF = judged(0.5, Holds.AT_MOST, "of_baseline")


@pytest.mark.parametrize(
    ("timeouts", "covered_h", "value", "verdict"),
    [(13, 5, 13, PASS), (14, 5, 14, BREACH), (13, 2.5, 26, BREACH), (5, 5, 5, PASS)],
)
def test_half_of_the_baselines_timeouts(
    timeouts: int, covered_h: float, value: float, verdict: Verdict
) -> None:
    seen = events(*(0.1 + number / 100 for number in range(timeouts)))
    found = of_timeouts(HALF, seen, BASELINE, int(covered_h * 3600), "planner calls")
    assert (found.value, found.verdict) == (value, verdict)


def test_a_few_minutes_of_records_say_nothing_of_five_hours() -> None:
    found = of_timeouts(HALF, events(0.1), BASELINE, 900, "planner calls")
    assert (found.verdict, found.n) == (NOT_ENOUGH, 51)
    found = of_timeouts(HALF, events(among=3), BASELINE, 7200, "planner calls")
    assert found.note == "3 planner calls in 120 min; 20 in an hour are needed"
    # What is too much for five hours is too much already.
    many = events(*(number / 100 for number in range(1, 15)))
    assert of_timeouts(HALF, many, BASELINE, 900, "planner calls").verdict is BREACH


@pytest.mark.parametrize(
    ("failed", "n", "verdict"),
    [(4, 40, PASS), (8, 40, PASS), (16, 40, BREACH), (0, 29, NOT_ENOUGH)],
)
def test_jobs_are_worse_than_before_only_if_the_interval_says_so(
    failed: int, n: int, verdict: Verdict
) -> None:
    no_worse = judged(1, Holds.AT_LEAST, "of_baseline")
    found = of_job_success(no_worse, share(failed, n), BASELINE)
    assert found.verdict is verdict
    assert found.value == (n - failed) / n


def test_without_jobs_in_the_baseline_nothing_is_compared() -> None:
    no_worse = judged(1, Holds.AT_LEAST, "of_baseline")
    bare = Baseline("before", 26, 18_000, 10_000)
    found = of_job_success(no_worse, share(40, 40), bare)
    assert (found.verdict, found.note) == (
        NOT_ENOUGH,
        "the baseline has 0 of the 30 ended jobs that are needed",
    )


@pytest.mark.parametrize(
    ("hallucinated", "n", "verdict"),
    [(3, 30, PASS), (4, 30, BREACH), (0, 29, NOT_ENOUGH), (29, 29, NOT_ENOUGH)],
)
def test_half_of_the_baselines_hallucinations(hallucinated: int, n: int, verdict: Verdict) -> None:
    assert of_hallucinations(HALF, share(hallucinated, n), BASELINE).verdict is verdict


def test_without_reviews_in_the_baseline_nothing_is_compared() -> None:
    bare = Baseline("before", 26, 18_000, 10_000)
    found = of_hallucinations(HALF, share(0, 30), bare)
    assert found.note == "the baseline has 0 of the 30 reviewed calls that are needed"
    assert of_hallucinations(HALF, share(0, 0), bare).verdict is NOT_ENOUGH


# --- Gate 0 -------------------------------------------------------------------------------


def test_too_short_a_time_is_no_breach() -> None:
    hours = Judged(Objective("covered_hours", "min", 0, Holds.AT_LEAST), 12, 43_200)
    assert (of_coverage(hours, 43_200).verdict, of_coverage(hours, 43_199).verdict) == (
        *(PASS, NOT_ENOUGH),
    )
    days = Judged(Objective("covered_days", "min", 4, Holds.AT_LEAST), 6, 604_800)
    assert of_coverage(days, 6 * 86_400).value == 6


def test_growth_is_held_to_its_bound_once_there_is_a_run_that_is_long_enough() -> None:
    bound = judged(0.1, key="max")
    little, much = Growth(0.09, 12.0, 720, 100, 109), Growth(0.1, 12.0, 720, 100, 110)
    assert of_growth(bound, little, 6, 1, "tasks").verdict is PASS
    found = of_growth(bound, much, 6, 10, "MiB")
    assert (found.verdict, found.note) == (BREACH, "at the least 10 MiB, later 11")
    short = of_growth(bound, Growth(None, 2.0, 120), 6, 1, "tasks")
    assert short.note == "the process has run for 2.0 h of the 6 h needed"
    assert of_growth(bound, Growth(None, 0.0, 0), 6, 1, "tasks").note == "no heartbeats"
