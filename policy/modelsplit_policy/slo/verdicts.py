"""From what was counted to a finding: value, interval, verdict, error budget.

How many samples are enough: so many that one bad one among them is what the objective allows,
and twenty at least. With fewer, a quantile is the largest value and a rate is 0 or far off;
then there is never a pass, and a breach only of two bad ones at least, and if chance would make
so many of what holds in fewer than one of forty cases. Samples that are alike from one to the
next, as minutes are, say nothing before they are enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from modelsplit_policy.intervals import Estimate, at_least, difference, quantile_ranks, wilson
from modelsplit_policy.quantity import in_digits
from modelsplit_policy.slo.events import most_in_any_window
from modelsplit_policy.slo.objectives import HOUR_S, Holds
from modelsplit_policy.slo.report import ErrorBudget, Finding, Verdict
from modelsplit_policy.slo.tallies import WORST

if TYPE_CHECKING:
    from modelsplit_policy.slo.leaks import Growth
    from modelsplit_policy.slo.objectives import Objective
    from modelsplit_policy.slo.samples import Baseline
    from modelsplit_policy.slo.tallies import Events, Share, Values

LEVEL: Final = 0.95
LEAST: Final = 20
LEAST_BAD: Final = 2
"""A single failure is improbable where one in a hundred is allowed, and still tells nothing."""
LEAST_COMPARED: Final = 30
"""Jobs or reviews that each side of a comparison with the baseline needs."""
NO_JOBS: Final = "no client sends X-LLM-Job-Id"
_QUANTILES: Final = {"p95": 0.95, "p99": 0.99, "max": 0.99}


@dataclass(frozen=True, slots=True)
class Judged:
    """One row of the table with the bound and the window that hold for it."""

    objective: Objective
    bound: float
    window_s: int

    def finding(self, verdict: Verdict, **values: Any) -> Finding:
        """``values``: further fields of the finding."""
        if self.objective.bound != "of_baseline":
            values["target"] = self.bound
        return Finding(self.objective, self.window_s, self.bound, verdict, **values)

    def nothing(self, note: str, n: int = 0, target: float | None = None) -> Finding:
        return self.finding(Verdict.NOT_ENOUGH_DATA, note=note, n=n, target=target)

    def holds(self, value: float) -> bool:
        match self.objective.holds:
            case Holds.BELOW:
                return value < self.bound
            case Holds.AT_MOST:
                return value <= self.bound
            case Holds.AT_LEAST:
                return value >= self.bound

    def by(self, value: float) -> Verdict:
        return Verdict.PASS if self.holds(value) else Verdict.BREACH


class _Observed(NamedTuple):
    """A value of ``n`` samples, and its interval where one is known."""

    value: float
    low: float | None
    high: float | None
    n: int


def of_values(judged: Judged, values: Values, what: str, *, alike: bool = False) -> Finding:
    """A quantile of durations. ``what``: of which there were too few, in words.

    ``alike``: each is much like the one before it.
    """
    p, ranked = _QUANTILES[judged.objective.bound], values.ranked
    n = ranked.count
    if n == 0:
        return judged.nothing(f"no {what}")
    effective = values.share.effective(LEVEL)
    first = last = None
    if effective is not None:
        first, last = quantile_ranks(n, effective, p, LEVEL)
    low = None if first is None else ranked.at(first) / 1000
    high = None if last is None else ranked.at(last) / 1000
    observed = _Observed(ranked.quantile(p) / 1000, low, high, n)
    return _of_enough(judged, observed, values.share, 1 - p, what, alike=alike)


def of_share(judged: Judged, share: Share, what: str, *, alike: bool = False) -> Finding:
    """A share of what is bad, or of what is good where the bound is a least one.

    ``alike``: as of ``of_values``.
    """
    good = judged.objective.holds is Holds.AT_LEAST
    n, bound = share.total, judged.bound
    allowed = 1 - bound if good else bound
    if n == 0:
        return judged.nothing(f"no {what}")
    counted = n - share.bad if good else share.bad
    value, effective = counted / n, share.effective(LEVEL)
    low, high = (None, None) if effective is None else wilson(value, effective, LEVEL)
    observed = _Observed(value, low, high, n)
    return _of_enough(judged, observed, share, allowed, what, alike=alike)


def _of_enough(
    judged: Judged, observed: _Observed, share: Share, allowed: float, what: str, *, alike: bool
) -> Finding:
    """The finding, if there are samples enough. ``allowed``: which share of them may be bad."""
    n, needed = observed.n, enough(allowed)
    verdict, note = judged.by(observed.value), ""
    if n < needed and (alike or not _too_many(share.bad, n, allowed)):
        verdict, note = Verdict.NOT_ENOUGH_DATA, f"{n} of the {needed} {what} that are needed"
    return judged.finding(
        verdict,
        **observed._asdict(),
        note=note,
        worst=share.worst if verdict is Verdict.BREACH else (),
        budget=_budget(share, allowed),
    )


def of_classification(judged: Judged, share: Share, calls: int) -> Finding:
    """Every failed record has all its fields; where none failed, none lacks any."""
    if share.total or not calls:
        if share.total == 0:
            return judged.nothing("no calls")
        value = (share.total - share.bad) / share.total
        verdict = judged.by(value)
        worst = share.worst if verdict is Verdict.BREACH else ()
        return judged.finding(verdict, value=value, n=share.total, worst=worst)
    return judged.finding(Verdict.PASS, value=1.0, n=0, note=f"none of {calls} calls failed")


def of_events(judged: Judged, events: Events, span_s: int, what: str) -> Finding:
    """The most in any stretch of ``span_s`` seconds."""
    if events.share.total == 0:
        return judged.nothing(f"no {what}")
    found = events.sorted()
    most = most_in_any_window([at for at, _ in found], span_s * 1_000_000)
    verdict = judged.by(most.events)
    worst = [name for _, name in found[most.first : most.last + 1]][::-1][:WORST]
    return judged.finding(
        verdict,
        value=float(most.events),
        n=events.share.total,
        note=f"the most in any {span_s / HOUR_S:.3g} h",
        worst=tuple(worst) if verdict is Verdict.BREACH else (),
        budget=_event_budget(events.share, most.events, judged.bound, span_s),
    )


def of_timeouts(
    judged: Judged, events: Events, baseline: Baseline, covered_s: int, what: str
) -> Finding:
    """Timeouts of the window, scaled to the baseline's, against a share of the baseline."""
    share, span_s = events.share, baseline.timeouts_window_s
    allowed = judged.bound * baseline.timeouts
    count, n = len(events.sorted()), share.total
    if n == 0:
        return judged.nothing(f"no {what}", target=allowed)
    # A few minutes, scaled up to hours, would tell of chance alone.
    covered_s = max(covered_s, HOUR_S) if count > allowed else covered_s
    if covered_s < HOUR_S or (n < LEAST and count <= allowed):
        note = f"{n} {what} in {covered_s // 60} min; {LEAST} in an hour are needed"
        return judged.nothing(note, n, allowed)
    value = count * span_s / covered_s
    verdict = Verdict.PASS if value <= allowed else Verdict.BREACH
    was = f"{in_digits(baseline.timeouts)} in {span_s / HOUR_S:g} h ({baseline.source})"
    per_100 = f"{100 * count / n:.2g} per 100 calls"
    return judged.finding(
        verdict,
        target=allowed,
        value=value,
        n=n,
        note=f"{count} in {covered_s / HOUR_S:.3g} h, {per_100}; baseline {was}",
        worst=share.worst if verdict is Verdict.BREACH else (),
        budget=_event_budget(share, value, allowed, span_s),
    )


def of_job_success(judged: Judged, share: Share, baseline: Baseline) -> Finding:
    """Jobs that ended well, against the baseline: worse only if the interval says so."""
    n = share.total
    before = None
    if baseline.jobs >= LEAST_COMPARED:
        before = _rate(baseline.jobs_ok, baseline.jobs, judged.bound)
    target = None if before is None else before.value
    if n == 0:
        return judged.nothing(NO_JOBS, target=target)
    own = _rate(n - share.bad, n)
    verdict, note = Verdict.NOT_ENOUGH_DATA, _too_few(n, baseline.jobs, "ended jobs")
    if n >= LEAST_COMPARED and before is not None:
        gap = difference(own, before)
        low, high = gap.low or 0.0, gap.high or 0.0
        verdict = Verdict.BREACH if high < 0 else Verdict.PASS
        note = f"{low * 100:+.2g} to {high * 100:+.2g} points against {baseline.jobs} jobs before"
    return _compared(judged, verdict, own, share, target, note)


def of_hallucinations(judged: Judged, share: Share, baseline: Baseline) -> Finding:
    """Answers that reviewers called hallucinated, against a share of the baseline's."""
    n = share.total
    target = None
    if baseline.reviews >= LEAST_COMPARED:
        target = judged.bound * baseline.hallucinated / baseline.reviews
    note = _too_few(n, baseline.reviews, "reviewed calls")
    if n == 0:
        return judged.nothing(note, target=target)
    own, verdict = _rate(share.bad, n), Verdict.NOT_ENOUGH_DATA
    if n >= LEAST_COMPARED and target is not None:
        verdict = Verdict.PASS if own.value <= target else Verdict.BREACH
        note = f"against {baseline.reviews} reviewed calls before"
    return _compared(judged, verdict, own, share, target, note)


def _compared(
    judged: Judged,
    verdict: Verdict,
    own: Estimate,
    share: Share,
    target: float | None,
    note: str,
) -> Finding:
    return judged.finding(
        verdict,
        target=target,
        value=own.value,
        low=own.low,
        high=own.high,
        n=own.n,
        note=note,
        worst=share.worst if verdict is Verdict.BREACH else (),
    )


def of_coverage(judged: Judged, covered_s: int) -> Finding:
    """How long there are records; too short is not a breach, there is only not enough."""
    unit_s = HOUR_S if judged.objective.name == "covered_hours" else 24 * HOUR_S
    value = covered_s / unit_s
    verdict = Verdict.PASS if judged.holds(value) else Verdict.NOT_ENOUGH_DATA
    return judged.finding(verdict, value=value)


def of_growth(judged: Judged, growth: Growth, needed_hours: int, scale: int, unit: str) -> Finding:
    """Whether the floor of what a process holds grows. ``scale``: so much is one ``unit``."""
    if growth.share is None:
        note = f"the process has run for {growth.hours:.1f} h of the {needed_hours} h needed"
        return judged.nothing(note if growth.n else "no heartbeats", growth.n)
    return judged.finding(
        judged.by(growth.share),
        value=growth.share,
        n=growth.n,
        note=f"at the least {growth.early / scale:.0f} {unit}, later {growth.late / scale:.0f}",
    )


def enough(allowed: float) -> int:
    """How many samples an objective needs that allows such a share of bad ones."""
    if allowed <= 0:
        return 1
    # Less a hair: 1 / (1 - 0.95) is a little more than twenty.
    return max(LEAST, math.ceil(1 / allowed - 1e-9))


def _too_many(bad: int, n: int, allowed: float) -> bool:
    """Whether it can hardly be chance that so many of a few are bad."""
    return bad >= LEAST_BAD and at_least(bad, n, allowed) <= (1 - LEVEL) / 2


def _too_few(n: int, before: int, what: str) -> str:
    if n < LEAST_COMPARED:
        return f"{n} of the {LEAST_COMPARED} {what} that are needed"
    return f"the baseline has {before} of the {LEAST_COMPARED} {what} that are needed"


def _rate(count: int, n: int, scale: float = 1.0) -> Estimate:
    low, high = wilson(count / n, n, LEVEL)
    return Estimate(scale * count / n, scale * low, scale * high, n, n, float(n))


def _budget(share: Share, allowed: float) -> ErrorBudget | None:
    if allowed <= 0:
        return None
    return ErrorBudget(
        used=share.bad / (share.total * allowed),
        burn_1h=_burn(share.short_bad, share.short_total, allowed),
        burn_5h=_burn(share.long_bad, share.long_total, allowed),
    )


def _burn(bad: int, total: int, allowed: float) -> float | None:
    return bad / total / allowed if total else None


def _event_budget(share: Share, used: float, allowed: float, span_s: int) -> ErrorBudget | None:
    if allowed <= 0:
        return None
    per_hour = allowed * HOUR_S / span_s
    return ErrorBudget(
        used=used / allowed,
        burn_1h=share.short_bad / per_hour if share.short_total else None,
        burn_5h=share.long_bad / (5 * per_hour) if share.long_total else None,
    )
