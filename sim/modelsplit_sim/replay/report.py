"""What a simulation reports: each contender's figures, what differs, and the sentence about it.

Each seed is one run of each contender with the same calls. A figure is the mean over the
seeds, with the 95 % interval of that mean by Student's t. A difference is taken seed by seed.
It counts as a change where it is larger than chance, and than nothing worth speaking of. Many
figures are looked at at once, so for that verdict, not for the interval that is shown, the level
is divided by how many they are (Bonferroni), and only those that lead are looked at.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from modelsplit_policy.intervals import student
from modelsplit_policy.vocabulary import Role

from .gates import gate_fields
from .measures import FAILED, LATENCY_P95, MEASURES, figures, objective_s, quantile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .measures import Measure, RoleFigures, RunFigures
    from .run import Contender, Played

LEVEL: Final = 0.95
_SHARES: Final = (0.01, *(step / 20 for step in range(1, 20)), 0.97, 0.99, 1.0)
# How many changes fit into one sentence.
_TOLD_MOST: Final = 5


class Interval(NamedTuple):
    """A mean, and its interval; None: unknown, for one run tells nothing of chance."""

    value: float
    low: float | None
    high: float | None


class Difference(NamedTuple):
    """What one measure of a role was, and is. ``told``: it is a change beyond chance."""

    role: Role
    measure: Measure
    before: float
    after: float
    gap: Interval
    told: bool


def interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The mean of at least one value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, None, None)
    reach = student(level, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - reach, mean + reach)


class Report:
    """The runs so far of one contender, or of two that are compared."""

    def __init__(self, contenders: Sequence[Contender]) -> None:
        self._contenders = contenders
        self._runs: dict[str, list[RunFigures]] = {each.name: [] for each in contenders}

    def __repr__(self) -> str:
        return f"<Report {[(name, len(runs)) for name, runs in self._runs.items()]}>"

    def add(self, contender: Contender, played: Played) -> None:
        """Count one more run; of two contenders the same seeds in the same order."""
        self._runs[contender.name].append(figures(played, contender.policy))

    def differences(self) -> list[Difference]:
        """The last contender less the first; none where there is only one."""
        if len(self._contenders) < 2:
            return []
        before, after = (self._runs[each.name] for each in self._contenders)
        pairs = list(_pairs(before, after))
        leading = sum(measure.leads for _, measure, _ in pairs)
        level = 1 - (1 - LEVEL) / max(1, leading)
        return [_difference(*pair, level) for pair in pairs]

    def summary(self) -> str:
        """The differences in one sentence; of one contender, how its roles fare."""
        if len(self._contenders) < 2:
            return "; ".join(_fares(role, self._of(role)) for role in self._roles())
        told = sorted((gap for gap in self.differences() if gap.told), key=_weight)
        if not told:
            return "nothing changes beyond chance"
        said = [_said(gap) for gap in told[:_TOLD_MOST]]
        more = len(told) - len(said)
        rest = f"{more} more in the table" if more else "nothing else changes beyond chance"
        return "; ".join([*said, rest])

    def fields(self) -> dict[str, Any]:
        """Everything as plain values, for JSON and for whoever shows it."""
        return {
            "summary": self.summary(),
            "seeds": len(next(iter(self._runs.values()))),
            "policies": [self._contender_fields(each) for each in self._contenders],
            "differences": [_difference_fields(gap) for gap in self.differences()],
        }

    def _roles(self) -> list[Role]:
        seen = {role for runs in self._runs.values() for run in runs for role in run.roles}
        return [role for role in Role if role in seen]

    def _of(self, role: Role) -> list[RoleFigures]:
        runs = self._runs[self._contenders[-1].name]
        return [run.roles[role] for run in runs if role in run.roles]

    def _contender_fields(self, contender: Contender) -> dict[str, Any]:
        runs = self._runs[contender.name]
        loads = Counter[str]()
        for run in runs:
            loads.update(run.loads)
        roles = [role for role in Role if any(role in run.roles for run in runs)]
        return {
            "name": contender.name,
            "roles": {
                str(role): _role_fields([run.roles[role] for run in runs if role in run.roles])
                | {"objective_s": objective_s(contender.policy, role)}
                for role in roles
            },
            "model_loads": {model: count / len(runs) for model, count in sorted(loads.items())},
            "seats_held": _interval_fields([run.seats for run in runs]),
            "seats": contender.policy.global_.max_concurrent,
            "host_busy": _interval_fields([100 * run.busy for run in runs]),
            "shed_s": _interval_fields([run.shed_s for run in runs]),
            "gates": gate_fields([run.judged for run in runs]),
            "simulated_s": statistics.fmean(run.seconds for run in runs),
        }


def _role_fields(runs: Sequence[RoleFigures]) -> dict[str, Any]:
    failures = Counter[tuple[str, str]]()
    for run in runs:
        failures.update(run.failures)
    values = {
        measure.name: [value for run in runs if (value := measure.of(run)) is not None]
        for measure in MEASURES
    }
    return {
        "calls": statistics.fmean(run.calls for run in runs),
        "retries": statistics.fmean(run.retries for run in runs),
        "failures": [
            {"code": code, "reason": reason, "calls": count / len(runs)}
            for (code, reason), count in failures.most_common()
        ],
        **{name: _interval_fields(own) if own else None for name, own in values.items()},
        "latency_curve": _curve(runs),
    }


def _curve(runs: Sequence[RoleFigures]) -> list[tuple[float, float]]:
    """Shares of the answered calls, each with the seconds within which so many were answered."""
    curve = []
    for share in _SHARES:
        values = [value for run in runs if (value := quantile(run.latencies, share)) is not None]
        if values:
            curve.append((share, statistics.fmean(values)))
    return curve


def _interval_fields(values: Sequence[float]) -> dict[str, float | None]:
    return interval(values)._asdict()


def _pairs(
    before: Sequence[RunFigures], after: Sequence[RunFigures]
) -> Iterator[tuple[Role, Measure, list[tuple[float, float]]]]:
    """By role and measure: the values of both, seed by seed, where both have one."""
    for role in Role:
        both = [
            (old.roles[role], new.roles[role])
            for old, new in zip(before, after, strict=True)
            if role in old.roles and role in new.roles
        ]
        for measure in MEASURES:
            values = [
                (old_value, new_value)
                for old, new in both
                if (old_value := measure.of(old)) is not None
                and (new_value := measure.of(new)) is not None
            ]
            if values:
                yield role, measure, values


def _difference(
    role: Role, measure: Measure, values: Sequence[tuple[float, float]], level: float
) -> Difference:
    gaps = [new - old for old, new in values]
    before = statistics.fmean(old for old, _ in values)
    after = statistics.fmean(new for _, new in values)
    differs = measure.leads and abs(after - before) >= measure.least
    told = differs and _excludes_nought(interval(gaps, level))
    return Difference(role, measure, before, after, interval(gaps), told)


def _excludes_nought(gap: Interval) -> bool:
    return gap.low is not None and gap.high is not None and (gap.low > 0 or gap.high < 0)


def _weight(gap: Difference) -> tuple[int, int]:
    """Where in the sentence a change stands: its measure first, then its role."""
    return MEASURES.index(gap.measure), list(Role).index(gap.role)


def _said(gap: Difference) -> str:
    unit = gap.measure.unit
    values = f"{number(gap.before, unit)} → {number(gap.after, unit)}"
    return f"{gap.role.lower()} {gap.measure.said} {values} {unit}"


def number(value: float, unit: str) -> str:
    """A value with as many digits as it can be read to."""
    if unit == "$":
        return f"{value:.2f}"
    return f"{value:.2f}" if abs(value) < 1 and unit == "s" else f"{value:.1f}"


def _fares(role: Role, runs: Sequence[RoleFigures]) -> str:
    latencies = [value for run in runs if (value := LATENCY_P95.of(run)) is not None]
    failed = statistics.fmean(FAILED.of(run) or 0.0 for run in runs)
    p95 = f"P95 {number(statistics.fmean(latencies), 's')} s" if latencies else "never answered"
    return f"{role.lower()} {p95}, {failed:.1f} % failed"


def _difference_fields(gap: Difference) -> Mapping[str, Any]:
    return {
        "role": str(gap.role),
        "measure": gap.measure.name,
        "unit": gap.measure.unit,
        "before": gap.before,
        "after": gap.after,
        "difference": gap.gap.value,
        "low": gap.gap.low,
        "high": gap.gap.high,
        "leads": gap.measure.leads,
        "told": gap.told,
    }
