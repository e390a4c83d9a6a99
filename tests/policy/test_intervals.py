"""Intervals hold what they promise: shown on seeded samples whose truth is known.

Shares are compared with what chance allows: so many repetitions of a true 95 per cent fall
below the limits given here less than once in ten thousand runs, and the seeds are fixed.
"""

from __future__ import annotations

import math
import random
from statistics import NormalDist
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelsplit_policy.intervals import (
    MIN_CLUSTERS,
    Difference,
    Estimate,
    at_least,
    difference,
    effective_share,
    mean,
    normal,
    quantile,
    quantile_ranks,
    rate,
    student,
    wilson,
)

if TYPE_CHECKING:
    from collections.abc import Callable

REPEATS = 400
# Latencies as they are: a long tail, e to the power of a normal number.
SPREAD = 0.8


def latency(chance: random.Random, own: float) -> float:
    return math.exp(chance.gauss(own, SPREAD))


def mishap(chance: random.Random, own: float) -> float:
    """One in ten, more or less of them in a cluster of its own kind."""
    return float(chance.random() < 0.1 * math.exp(own - 0.125 * (own != 0)))


def sample(
    chance: random.Random,
    clusters: int,
    size: int,
    draw: Callable[[random.Random, float], float],
    alike: float = 0.5,
) -> list[list[float]]:
    """``size`` 1: values by themselves. Else jobs of 1 to 2 * size - 1 calls that are alike."""
    found = []
    for _ in range(clusters):
        own = chance.gauss(0, alike) if size > 1 else 0.0
        calls = chance.randint(1, 2 * size - 1)
        found.append([draw(chance, own) for _ in range(calls)])
    return found


def covers(found: Estimate | None, truth: float) -> bool:
    assert found is not None
    low = found.low is None or found.low <= truth
    return low and (found.high is None or truth <= found.high)


@pytest.mark.parametrize(("clusters", "size"), [(60, 1), (250, 1), (40, 5), (100, 3)])
@pytest.mark.parametrize("p", [0.5, 0.95])
def test_a_quantile_is_within_its_interval_in_95_of_100_samples(
    clusters: int, size: int, p: float
) -> None:
    chance = random.Random(f"{clusters} {size} {p}")
    width = SPREAD if size == 1 else math.hypot(SPREAD, 0.5)
    truth = math.exp(NormalDist(0, width).inv_cdf(p))
    hits = sum(
        covers(quantile(sample(chance, clusters, size, latency), p, 0.95), truth)
        for _ in range(REPEATS)
    )
    assert hits / REPEATS >= 0.91


@pytest.mark.parametrize(("clusters", "size"), [(60, 1), (250, 1), (40, 5), (100, 3)])
def test_a_rate_is_within_its_interval_in_95_of_100_samples(clusters: int, size: int) -> None:
    chance = random.Random(f"{clusters} {size}")
    hits = sum(
        covers(rate(sample(chance, clusters, size, mishap), 0.95), 0.1) for _ in range(REPEATS)
    )
    assert 0.91 <= hits / REPEATS <= 0.99


@pytest.mark.parametrize(("clusters", "size"), [(60, 1), (250, 1), (40, 5), (100, 3)])
def test_the_mean_of_uneven_values_is_within_its_interval_in_90_of_100_samples(
    clusters: int, size: int
) -> None:
    chance = random.Random(f"{clusters} {size}")
    own = 0.0 if size == 1 else 0.5
    truth = math.exp((SPREAD**2 + own**2) / 2)
    hits = sum(
        covers(mean(sample(chance, clusters, size, latency), 0.95), truth) for _ in range(REPEATS)
    )
    assert 0.87 <= hits / REPEATS <= 0.99


def p50(found: list[list[float]], level: float) -> Estimate | None:
    return quantile(found, 0.5, level)


def p95(found: list[list[float]], level: float) -> Estimate | None:
    return quantile(found, 0.95, level)


@pytest.mark.parametrize(("clusters", "size"), [(60, 1), (40, 5)])
@pytest.mark.parametrize(
    ("draw", "estimate"), [(latency, p50), (latency, p95), (mishap, rate), (latency, mean)]
)
def test_two_samples_of_the_same_show_no_difference_in_95_of_100_pairs(
    draw: Callable[[random.Random, float], float],
    estimate: Callable[[list[list[float]], float], Estimate | None],
    clusters: int,
    size: int,
) -> None:
    chance = random.Random(f"{estimate.__name__} {clusters} {size}")
    told = 0
    for _ in range(REPEATS):
        one, other = (estimate(sample(chance, clusters, size, draw), 0.95) for _ in range(2))
        assert one is not None
        assert other is not None
        told += difference(one, other).is_told
    assert told / REPEATS <= 0.09


def test_taking_calls_of_a_job_for_independent_would_promise_too_much() -> None:
    """Why clusters are needed: the same values, cut loose from their jobs, miss far too often."""
    chance = random.Random(5)
    hits = 0
    for _ in range(REPEATS):
        found = sample(chance, 40, 10, mishap, alike=1.0)
        loose = [[value] for cluster in found for value in cluster]
        with_jobs, without = rate(found, 0.95), rate(loose, 0.95)
        assert with_jobs is not None
        assert without is not None
        assert with_jobs.effective <= without.effective
        truth = 0.1 * math.exp(0.5 - 0.125)
        hits += covers(without, truth)
    assert hits / REPEATS < 0.85


def test_a_true_difference_is_found_once_there_is_enough() -> None:
    chance = random.Random(10)
    slow = quantile([[2 * x for x in c] for c in sample(chance, 200, 1, latency)], 0.5, 0.95)
    fast = quantile(sample(chance, 200, 1, latency), 0.5, 0.95)
    assert slow is not None
    assert fast is not None
    found = difference(slow, fast)
    assert found.is_told
    assert found.low is not None
    assert found.high is not None
    assert found.low < 1 < found.high, "twice the median of 1 is 1 more"


# --- By hand --------------------------------------------------------------------------------


def test_the_interval_of_a_median_is_that_of_the_textbook() -> None:
    # Twenty values: the 6th and the 15th hold the median with 95.9 %, and no closer pair does.
    found = quantile([[float(n)] for n in range(1, 21)], 0.5, 0.95)
    assert found == Estimate(10.0, 6.0, 15.0, 20, 20, 20.0)


@pytest.mark.parametrize(("n", "high"), [(71, None), (72, 72.0)])
def test_a_tail_is_unbounded_until_the_sample_reaches_into_it(n: int, high: float | None) -> None:
    # 0.95 to the power of 72 is 2.5 %: only then is the largest of all likely beyond it.
    found = quantile([[float(value)] for value in range(1, n + 1)], 0.95, 0.95)
    assert found is not None
    assert found.high == high
    assert found.low is not None


def test_ranks_of_large_samples_agree_with_the_exact_ones() -> None:
    exact = quantile([[float(n)] for n in range(1, 1001)], 0.95, 0.95)
    approximate = quantile([[float(n)] for n in range(1, 1002)], 0.95, 0.95)
    assert exact is not None
    assert approximate is not None
    for end in ("low", "high"):
        assert getattr(exact, end) == pytest.approx(getattr(approximate, end), abs=2)


def test_wilsons_interval_is_that_of_the_literature() -> None:
    # Newcombe (1998), table I: 15 of 148, and none of 20.
    assert wilson(15 / 148, 148, 0.95) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0.0, 20, 0.95) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1.0, 20, 0.95) == pytest.approx((0.8389, 1.0), abs=5e-5)


def test_the_difference_of_two_rates_is_newcombes() -> None:
    # Newcombe (1998), table II, method 10: 56/70 less 48/80.
    def of(hits: int, n: int) -> Estimate:
        return Estimate(hits / n, *wilson(hits / n, n, 0.95), n, n, n)

    found = difference(of(56, 70), of(48, 80))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_limits_of_the_normal_and_of_students_distribution() -> None:
    for level in (0.5, 0.9, 0.95, 0.99, 0.9999):
        assert normal(level) == pytest.approx(NormalDist().inv_cdf((1 + level) / 2))
    table = {5: 2.5706, 19: 2.0930, 60: 2.0003, 1000: 1.9623}
    for freedom, limit in table.items():
        assert student(0.95, freedom) == pytest.approx(limit, rel=0.002)
    assert student(0.99, 19) == pytest.approx(2.8609, rel=0.001)


def test_calls_that_are_all_alike_within_jobs_are_worth_their_number_of_jobs() -> None:
    found = rate([[float(job % 2)] * 10 for job in range(40)], 0.95)
    assert found is not None
    assert (found.n, found.clusters) == (400, 40)
    assert found.effective == pytest.approx(40, rel=0.1)


def test_where_nothing_happened_jobs_count_once() -> None:
    found = rate([[0.0] * 10 for _ in range(40)], 0.95)
    assert found is not None
    assert (found.effective, found.low) == (40.0, 0.0)
    assert found.high == pytest.approx(wilson(0.0, 40, 0.95)[1])


@pytest.mark.parametrize("estimate", [rate, mean, p50])
def test_too_few_clusters_have_no_interval(
    estimate: Callable[[list[list[float]], float], Estimate | None],
) -> None:
    few = estimate([[0.0, 1.0]] * (MIN_CLUSTERS - 1), 0.95)
    enough = estimate([[0.0, 1.0]] * MIN_CLUSTERS, 0.95)
    assert few is not None
    assert enough is not None
    assert (few.low, few.high) == (None, None)
    assert enough.low is not None
    assert estimate([], 0.95) is None
    assert estimate([[], []], 0.95) is None


def test_a_difference_is_told_when_both_ends_are_on_one_side() -> None:
    assert Difference(2.0, 1.0, None).is_told
    assert Difference(-2.0, None, -1.0).is_told
    assert not Difference(2.0, -1.0, 5.0).is_told
    assert not Difference(2.0, None, None).is_told
    assert not Difference(0.0, 0.0, 0.0).is_told


values = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))
clusters_ = st.lists(st.lists(values, max_size=5), max_size=60)


@given(clusters_, st.floats(0.05, 0.99), st.floats(0.8, 0.999))
def test_whatever_the_sample_an_estimate_is_within_its_interval(
    found: list[list[float]], p: float, level: float
) -> None:
    for estimate in (quantile(found, p, level), mean(found, level)):
        if estimate is None:
            assert not any(found)
            continue
        tolerance = 1e-6 * max(1.0, abs(estimate.value))
        assert estimate.low is None or estimate.low <= estimate.value + tolerance
        assert estimate.high is None or estimate.high >= estimate.value - tolerance
        assert 1.0 <= estimate.effective <= estimate.n


def test_how_probable_it_is_that_so_many_are() -> None:
    assert at_least(0, 10, 0.01) == 1
    assert at_least(1, 10, 0.01) == pytest.approx(1 - 0.99**10)
    assert at_least(2, 10, 0.01) == pytest.approx(1 - 0.99**10 - 10 * 0.01 * 0.99**9)
    assert at_least(10, 10, 0.5) == pytest.approx(0.5**10)


@pytest.mark.parametrize(
    ("n", "effective", "ranks"),
    [
        (5, 5, (4, None)),
        (100, 100, (90, 100)),
        (1, 1, (None, None)),
        (200, 100, (180, 200)),
        (10, 0.5, (None, None)),
    ],
)
def test_ranks_around_a_quantile(
    n: int, effective: float, ranks: tuple[int | None, int | None]
) -> None:
    assert quantile_ranks(n, effective, 0.95, 0.95) == ranks


@given(
    clusters=st.lists(
        st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=6), min_size=0, max_size=30
    ),
    alone=st.lists(st.sampled_from([0.0, 1.0]), max_size=40),
)
def test_counts_of_clusters_are_worth_as_much_as_their_values(
    clusters: list[list[float]], alone: list[float]
) -> None:
    counts = [(len(cluster), int(sum(cluster))) for cluster in clusters]
    found = effective_share(counts, len(alone), int(sum(alone)), 0.95)
    known = rate([*clusters, *([value] for value in alone)], 0.95)
    if known is None:
        assert found == 0
    elif clusters and known.clusters < MIN_CLUSTERS:
        assert found is None
    else:
        assert found == pytest.approx(known.effective)
