"""How much a sample tells: estimates with intervals, and the interval of a difference.

Calls that belong together (of one job, of one client) are alike, so a hundred calls of ten
jobs tell less than a hundred calls of a hundred. A sample is therefore a list of clusters,
each with the values of one job, client or call. Everything goes through the *effective*
number of values: how many independent ones would tell as much. It is n over the design
effect, from the spread between clusters (how the mean moves when each is left out), with
Student's t for few clusters (Korn and Graubard 1998); where every value is a cluster of its
own it is n itself.

- A quantile gets the distribution-free interval of order statistics: ranks of the binomial
  distribution with the effective number (Woodruff 1952). It assumes no shape, and it says
  "unbounded" where a sample is too small for its tail.
- A rate gets Wilson's interval with the effective number.
- A mean gets Student's interval with the spread between clusters. Of values spread very
  unevenly, as costs are, it holds the truth in 90 to 94 cases of 100 instead of 95 while the
  clusters are few; a difference of two means does not suffer, because the two lean alike.
- A difference is put together from the two intervals (MOVER; for rates that is Newcombe's
  method 10), which holds because arms share no cluster.

Nothing is drawn by chance: the same calls give the same numbers.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    # The values of what belongs together.
    Cluster = Sequence[float]

MIN_CLUSTERS: Final = 20
"""With fewer, how alike clusters are cannot be told, and no interval is given."""

_EXACT_UP_TO: Final = 1_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, its interval (None: unbounded on that side), and what it rests on.

    ``n``: values. ``clusters``: how many groups of them. ``effective``: how many
    independent values would tell as much.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    clusters: int
    effective: float


@dataclass(frozen=True, slots=True)
class Difference:
    """One value less another, with an interval (None: unbounded on that side)."""

    value: float
    low: float | None
    high: float | None

    @property
    def is_told(self) -> bool:
        """Whether the interval excludes that there is no difference."""
        above = self.low is not None and self.low > 0
        return above or (self.high is not None and self.high < 0)


def quantile(sample: Sequence[Cluster], p: float, level: float) -> Estimate | None:
    """The ``p`` quantile (a value that occurred); None for a sample without a value."""
    ordered = sorted(value for cluster in sample for value in cluster)
    if not ordered:
        return None
    n, clusters = len(ordered), _count(sample)
    value = ordered[max(0, math.ceil(p * n) - 1)]
    below = [[float(x <= value) for x in cluster] for cluster in sample]
    effective = _effective(below, level)
    low = high = None
    if clusters >= MIN_CLUSTERS:
        low, high = _order_statistics(ordered, p, effective, level)
    return Estimate(value, low, high, n, clusters, effective)


def rate(sample: Sequence[Cluster], level: float) -> Estimate | None:
    """The share of ones among zeros and ones, with Wilson's interval."""
    n, clusters = sum(map(len, sample)), _count(sample)
    if n == 0:
        return None
    share = sum(map(sum, sample)) / n
    effective = _effective(sample, level)
    low = high = None
    if clusters >= MIN_CLUSTERS:
        low, high = wilson(share, effective, level)
    return Estimate(share, low, high, n, clusters, effective)


def mean(sample: Sequence[Cluster], level: float) -> Estimate | None:
    """The mean of all values, with Student's interval over clusters."""
    n, clusters = sum(map(len, sample)), _count(sample)
    if n == 0:
        return None
    value = math.fsum(map(math.fsum, sample)) / n
    low = high = None
    if clusters >= MIN_CLUSTERS:
        reach = student(level, clusters - 1) * math.sqrt(_variance_of_mean(sample, value))
        low, high = value - reach, value + reach
    return Estimate(value, low, high, n, clusters, _effective(sample, level))


def difference(left: Estimate, right: Estimate) -> Difference:
    """``left`` less ``right``, for estimates from samples that share no cluster."""
    value = left.value - right.value
    low = _beyond(left.value, left.low, right.value, right.high)
    high = _beyond(left.value, left.high, right.value, right.low)
    return Difference(
        value, None if low is None else value - low, None if high is None else value + high
    )


def _beyond(a: float, a_limit: float | None, b: float, b_limit: float | None) -> float | None:
    """How far two estimates may be off together, in the direction of these limits."""
    if a_limit is None or b_limit is None:
        return None
    return math.hypot(a - a_limit, b - b_limit)


def quantile_ranks(
    n: int, effective: float, p: float, level: float
) -> tuple[int | None, int | None]:
    """Ranks, from 1, between which the ``p`` quantile of ``n`` values is.

    ``effective``: how many independent values would tell as much. None: unbounded on that side.
    """
    m = max(1, math.floor(effective))
    first, last = _ranks(m, p, level)
    first, last = math.floor(first * n / m), math.ceil(last * n / m)
    return None if first < 1 else first, None if last > n else last


def effective_share(
    clusters: Iterable[tuple[int, int]], alone: int, alone_ones: int, level: float
) -> float | None:
    """How many independent zeros and ones would tell as much as these.

    ``clusters``: of each how many there are and how many of them are ones. ``alone``: how many
    are clusters of their own, ``alone_ones`` of which are ones. None: clusters are too few to
    tell how alike they are.
    """
    sizes = [*clusters]
    n = alone + sum(size for size, _ in sizes)
    k = alone + len(sizes)
    if n == k:
        return float(n)
    if k < MIN_CLUSTERS:
        return None
    value = (alone_ones + sum(ones for _, ones in sizes)) / n
    off = math.fsum(((value * size - ones) / (n - size)) ** 2 for size, ones in sizes)
    off += (alone - alone_ones) * (value / (n - 1)) ** 2
    off += alone_ones * ((1 - value) / (n - 1)) ** 2
    between = (k - 1) / k * off
    if between == 0:
        return float(k)
    few = student(level, max(5, n - 1)) / student(level, max(5, k - 1))
    each = n * value * (1 - value) / (n - 1)
    return max(1.0, min(float(n), each / between * few**2))


def at_least(count: int, n: int, p: float) -> float:
    """How probable it is that so many of ``n`` or more are, where each is with probability ``p``.

    0 < ``p`` < 1; ``n``: some hundreds at most.
    """
    return 1.0 if count <= 0 else max(0.0, 1.0 - _binomial(n, p)[count - 1])


def wilson(share: float, n: float, level: float) -> tuple[float, float]:
    """Wilson's score interval of a share out of ``n``."""
    z = normal(level)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and 1 the limits are these numbers themselves, which floats miss by a hair.
    low = 0.0 if share == 0 else max(0.0, middle - reach)
    return low, 1.0 if share == 1 else min(1.0, middle + reach)


def normal(level: float) -> float:
    """The two-sided limit of the normal distribution: 1.96 for 0.95."""
    z = 1.0
    # Newton's method, from below: the distribution function is concave there.
    for _ in range(60):
        step = (level - math.erf(z / math.sqrt(2))) * math.sqrt(math.pi / 2) * math.exp(z * z / 2)
        z += step
        if abs(step) < 1e-12:
            break
    return z


def student(level: float, freedom: int) -> float:
    """The two-sided limit of Student's distribution, for five degrees of freedom or more.

    The expansion in 1/freedom (Abramowitz and Stegun 26.7.5): right to 0.2 per cent.
    """
    z = normal(level)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / freedom**power for power, term in enumerate(terms, 1))


# --- How many independent values a sample is worth -----------------------------------------


def _count(sample: Sequence[Cluster]) -> int:
    return sum(1 for cluster in sample if cluster)


def _variance_of_mean(sample: Sequence[Cluster], value: float) -> float:
    """The variance of a mean over clusters of different sizes: leave out one at a time."""
    n, k = sum(map(len, sample)), _count(sample)
    if k < 2:
        return 0.0
    # Without a cluster, the mean would differ from ``value`` by this much.
    off = ((value * len(c) - sum(c)) / (n - len(c)) for c in sample if c)
    return (k - 1) / k * math.fsum(x * x for x in off)


def _effective(sample: Sequence[Cluster], level: float) -> float:
    n, k = sum(map(len, sample)), _count(sample)
    if n == k or k < 2:
        return float(k)  # every value by itself; or one cluster, which is one thing seen
    value = math.fsum(map(math.fsum, sample)) / n
    between = _variance_of_mean(sample, value)
    if between == 0:
        return float(k)  # all the same: nothing tells how alike clusters are
    alone = math.fsum((x - value) ** 2 for cluster in sample for x in cluster) / (n - 1)
    few = student(level, max(5, n - 1)) / student(level, max(5, k - 1))
    return max(1.0, min(float(n), alone / between * few**2))


# --- Ranks ---------------------------------------------------------------------------------


def _order_statistics(
    ordered: Sequence[float], p: float, effective: float, level: float
) -> tuple[float | None, float | None]:
    """The values at the ranks between which the true quantile is, at least at this level."""
    m, n = math.floor(effective), len(ordered)
    first, last = _ranks(m, p, level)
    # The same part of the sample as of a sample of independent values.
    first, last = math.floor(first * n / m), math.ceil(last * n / m)
    low = None if first < 1 else ordered[first - 1]
    return low, None if last > n else ordered[last - 1]


def _ranks(m: int, p: float, level: float) -> tuple[int, int]:
    """Ranks (from 1) around the ``p`` quantile of ``m`` values; 0 and m + 1: none."""
    tail = (1 - level) / 2
    if m > _EXACT_UP_TO:
        reach = normal(level) * math.sqrt(m * p * (1 - p))
        return max(0, math.floor(m * p - reach)), min(m + 1, math.ceil(m * p + reach) + 1)
    sums = _binomial(m, p)  # sums[i]: at most i of m are below the quantile
    return bisect_right(sums, tail), min(m + 1, bisect_right(sums, 1 - tail) + 1)


def _binomial(m: int, p: float) -> list[float]:
    """The distribution function of the binomial distribution, at 0 to m."""
    total, sums = 0.0, []
    choose = math.lgamma(m + 1)
    for i in range(m + 1):
        ways = choose - math.lgamma(i + 1) - math.lgamma(m - i + 1)
        total += math.exp(ways + i * math.log(p) + (m - i) * math.log1p(-p))
        sums.append(total)
    return sums
