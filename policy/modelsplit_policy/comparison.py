"""What the calls of an experiment say about its arms, and whether they say it yet.

Every arm gets its measures with 95 % intervals. Every other arm is compared with the first
one, measure by measure, and the intervals of all these differences hold *together* in 95
cases of 100 (each is made wider for it, after Bonferroni): an experiment whose arms are the
same says "no difference yet" of everything in at least 95 of 100 reports, however many
measures it has. That is for one look at a time fixed beforehand; who looks every day and
stops at the first difference will find one.

What an arm is judged by: the time of answered calls as their clients saw it, queue and
fallback included; errors among the calls that ended here (not those whose client left, and
not those turned away before any model was asked, because the line is shared by all arms);
how often the arm's own model, in attempt 1, did not fit the schema it was held to; the cost
of all attempts; and how fast the arm's own model generated.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from modelsplit_policy.intervals import MIN_CLUSTERS, difference, mean, quantile, rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from modelsplit_policy.intervals import Cluster, Difference, Estimate

LEVEL: Final = 0.95


class End(StrEnum):
    """How a call of an experiment ended."""

    ANSWERED = "answered"
    FAILED = "failed"
    CLIENT_GONE = "client_gone"
    TURNED_AWAY = "turned_away"


@dataclass(frozen=True, slots=True)
class Observation:
    """One call. ``cluster``: what it belongs together with. None: it says nothing of that.

    ``unfit``: the arm's own answer was held to a schema and did not fit. ``fell_back``: it was
    answered by the role's fallback, not by the arm's model.
    """

    arm: str
    cluster: str
    end: End
    latency_s: float
    unfit: bool | None = None
    cost_usd: float | None = None
    tokens_per_s: float | None = None
    fell_back: bool = False


@dataclass(frozen=True, slots=True)
class Measure:
    """Something arms are compared by. ``less``, ``more``: what an arm is that has so."""

    name: str
    unit: str
    less: str
    more: str
    value: Callable[[Observation], float | None]
    estimate: Callable[[Sequence[Cluster], float], Estimate | None]
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Arm:
    """The calls of one arm, and what they measure (by name; without what nobody measured).

    ``fallbacks``: how many of those answered were answered by the role's fallback.
    """

    name: str
    calls: int
    clusters: int
    ends: Mapping[End, int]
    measures: Mapping[str, Estimate]
    fallbacks: int = 0


class Verdict(StrEnum):
    """What can be said of a difference."""

    DIFFERENT = "different"
    NO_DIFFERENCE_YET = "no difference yet"
    NOT_ENOUGH_DATA = "not enough data"


@dataclass(frozen=True, slots=True)
class Finding:
    """One measure of ``arm`` less that of ``against``; ``text`` says it in words."""

    measure: str
    arm: str
    against: str
    verdict: Verdict
    difference: Difference
    text: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """``level``: that of each difference alone, so that all together have ``LEVEL``.

    ``moved``: clusters with calls in more than one arm, which a changed weight leaves behind.
    They belong to no sample: their calls are counted in ``calls`` and measured nowhere.
    """

    arms: tuple[Arm, ...]
    findings: tuple[Finding, ...]
    level: float
    moved: int


def _latency(call: Observation) -> float | None:
    return call.latency_s if call.end is End.ANSWERED else None


def _failed(call: Observation) -> float | None:
    return float(call.end is End.FAILED) if call.end in {End.ANSWERED, End.FAILED} else None


def _unfit(call: Observation) -> float | None:
    return None if call.unfit is None else float(call.unfit)


def _cost(call: Observation) -> float | None:
    return None if call.end is End.TURNED_AWAY else call.cost_usd


MEASURES: Final = (
    Measure("p50", "s", "faster", "slower", _latency, lambda s, level: quantile(s, 0.5, level)),
    Measure("p95", "s", "faster", "slower", _latency, lambda s, level: quantile(s, 0.95, level)),
    Measure("errors", "points", "failing less", "failing more", _failed, rate, 100.0),
    Measure("schema", "points", "unfit less often", "unfit more often", _unfit, rate, 100.0),
    Measure("cost", "USD a call", "cheaper", "dearer", _cost, mean),
    Measure(
        "tokens_per_s",
        "tokens/s",
        "slower",
        "faster",
        lambda call: call.tokens_per_s,
        lambda s, level: quantile(s, 0.5, level),
    ),
)


def compare(
    calls: Iterable[Observation], arms: Sequence[str] = (), dealt: str = "calls"
) -> Comparison:
    """The report.

    ``arms``: their order, the first being what others are compared with. ``dealt``: what
    keeps its arm, for words: jobs, clients or calls.
    """
    by_arm: dict[str, list[Observation]] = {name: [] for name in arms}
    for call in calls:
        by_arm.setdefault(call.arm, []).append(call)
    moved = _moved(by_arm.values())
    samples = {
        name: _samples(call for call in observed if call.cluster not in moved)
        for name, observed in by_arm.items()
    }
    pairs = [*_pairs(samples)]
    level = 1 - (1 - LEVEL) / max(1, len(pairs))
    return Comparison(
        arms=tuple(_arm(name, observed, samples[name]) for name, observed in by_arm.items()),
        findings=tuple(
            _finding(measure, arm, against, samples, level, dealt)
            for measure, arm, against in pairs
        ),
        level=level,
        moved=len(moved),
    )


def _moved(arms: Iterable[Iterable[Observation]]) -> set[str]:
    """Clusters that are in more than one arm."""
    seen: set[str] = set()
    moved: set[str] = set()
    for observed in arms:
        clusters = {call.cluster for call in observed}
        moved |= seen & clusters
        seen |= clusters
    return moved


_Samples = dict[str, list[list[float]]]


def _samples(calls: Iterable[Observation]) -> _Samples:
    """The clusters of every measure that any call says something of."""
    by_measure: dict[str, dict[str, list[float]]] = {}
    for call in calls:
        for measure in MEASURES:
            value = measure.value(call)
            if value is not None:
                clusters = by_measure.setdefault(measure.name, {})
                clusters.setdefault(call.cluster, []).append(value)
    return {name: [*clusters.values()] for name, clusters in by_measure.items()}


def _arm(name: str, calls: Sequence[Observation], samples: _Samples) -> Arm:
    ends = {end: sum(1 for call in calls if call.end is end) for end in End}
    measures = {
        measure.name: estimate
        for measure in MEASURES
        if (estimate := measure.estimate(samples.get(measure.name, []), LEVEL)) is not None
    }
    fallbacks = sum(1 for call in calls if call.fell_back and call.end is End.ANSWERED)
    clusters = len({call.cluster for call in calls})
    return Arm(name, len(calls), clusters, ends, measures, fallbacks)


def _pairs(samples: Mapping[str, _Samples]) -> Iterator[tuple[Measure, str, str]]:
    """What is compared: whatever was measured in both arms, and costs anything at all."""
    against, *others = [*samples] or [""]
    for arm in others:
        for measure in MEASURES:
            both = [samples[name].get(measure.name, []) for name in (arm, against)]
            free = measure.name == "cost" and not any(any(c) for sample in both for c in sample)
            if all(both) and not free:
                yield measure, arm, against


def _finding(
    measure: Measure,
    arm: str,
    against: str,
    samples: Mapping[str, _Samples],
    level: float,
    dealt: str,
) -> Finding:
    own = measure.estimate(samples[arm][measure.name], level)
    reference = measure.estimate(samples[against][measure.name], level)
    assert own is not None
    assert reference is not None
    gap = difference(own, reference)
    verdict = Verdict.DIFFERENT if gap.is_told else Verdict.NO_DIFFERENCE_YET
    if min(own.clusters, reference.clusters) < MIN_CLUSTERS:
        verdict = Verdict.NOT_ENOUGH_DATA
        have = f"{own.clusters} {dealt} in {arm}, {reference.clusters} in {against}"
        text = f"{verdict}: {have}; {MIN_CLUSTERS} are needed in each"
    elif gap.is_told:
        word = measure.less if gap.value < 0 else measure.more
        text = f"{arm} is {word} by {_size(measure, gap)}"
    else:
        text = f"{verdict} ({_span(measure, gap.low, gap.high)} {measure.unit})"
    return Finding(measure.name, arm, against, verdict, gap, text)


def _size(measure: Measure, gap: Difference) -> str:
    """How large a difference is, whatever its sign, with its interval."""
    low, high = gap.low, gap.high
    if gap.value < 0:
        low, high = _less(gap.high), _less(gap.low)
    size = f"{abs(gap.value) * measure.scale:.3g} {measure.unit}"
    return f"{size} ({_span(measure, low, high, sign='')})"


def _less(value: float | None) -> float | None:
    return None if value is None else -value


def _span(measure: Measure, low: float | None, high: float | None, sign: str = "+") -> str:
    ends = ["?" if end is None else f"{end * measure.scale:{sign}.3g}" for end in (low, high)]
    return f"{ends[0]}..{ends[1]}"
