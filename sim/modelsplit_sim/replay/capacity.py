"""How much a policy and a host carry: the highest multiple of the traffic at which the goals hold.

Three goals: planner P95 below its objective; planners that were not served (failed, timed out,
turned away, left) below their rate; 95 of 100 calls of the other roles answered. A load *holds*
where all three do beyond doubt, it *breaks* where one of them does beyond doubt, and it is
*unclear* in between; of a load that is unclear more seeds are run, of one that misses a goal
threefold in its first run no second. What is found is therefore an
interval: the highest load that holds, and the lowest above it that breaks.

Nobody says that more load is always worse: more calls at once can keep a model loaded. So loads
below and above are looked at too, and a load that breaks below one that holds ends what is
carried.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from modelsplit_policy.intervals import student, wilson
from modelsplit_policy.vocabulary import Role

from .measures import LATENCY_P95, figures
from .run import play

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from modelsplit_policy.config.model import Policy
    from modelsplit_sim.host_shape import HostShape

    from .measures import RoleFigures, RunFigures
    from .run import Contender
    from .traffic import Source

    Beside = Callable[[Sequence[Callable[[], RunFigures]], Callable[[int], None]], list[RunFigures]]

# Where the policy has no bounds of its own.
_PLANNER_P95_S: Final = 5.0
_PLANNER_LOST: Final = 0.01
_OTHERS_LOST: Final = 0.05

LEVEL: Final = 0.95
LEAST: Final = 1 / 16
MOST: Final = 16.0
# How near the two ends of an interval are brought to each other, where noise lets them.
FINE: Final = 2 ** (1 / 8)
# Seeds before anything is decided; then twice as many, and so on.
_SEEDS_FIRST: Final = 3
# Loads that are looked at below what holds, and above what breaks.
_BELOW: Final = (0.4, 0.6, 0.8)
_ABOVE: Final = (1.3, 1.8)
# A load that misses a goal so many times over in its first run is not run again.
_FAR: Final = 3.0
# An interval wider than this tells no capacity.
_WIDE: Final = 1.5


class Verdict(StrEnum):
    """What several runs at one load say of the goals."""

    HOLDS = "holds"
    BREAKS = "breaks"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Goals:
    """``planner_lost`` and ``others_lost``: shares of 1."""

    planner_p95_s: float = _PLANNER_P95_S
    planner_lost: float = _PLANNER_LOST
    others_lost: float = _OTHERS_LOST


def goals_of(policy: Policy) -> Goals:
    """The policy's own bounds; where it has none 5 s and 1 %. Of the others always 5 %."""
    latency = policy.slo.get("planner_latency_ms")
    lost = policy.slo.get("planner_failure_rate")
    p95_ms = None if latency is None else latency.p95
    most = None if lost is None else lost.max
    return Goals(
        _PLANNER_P95_S if p95_ms is None else p95_ms / 1000,
        _PLANNER_LOST if most is None else most,
    )


class Bounds(NamedTuple):
    """A figure of several runs with its 95 % interval; of fewer than three the value thrice."""

    value: float
    low: float
    high: float


class Cause(NamedTuple):
    """How calls of a role were lost; ``share``: of all calls of the role."""

    code: str
    reason: str
    share: float


class Missed(NamedTuple):
    """A goal that the figures themselves miss. ``goal``: the name of its bound in ``Goals``.

    ``role``: whose figure it is. ``causes``: of a share that was lost, the most frequent first.
    """

    goal: str
    role: Role
    value: float
    bound: float
    causes: tuple[Cause, ...] = ()

    @property
    def times(self) -> float:
        """How many times its bound the figure is."""
        return self.value / self.bound if self.bound else math.inf


@dataclass(frozen=True, slots=True)
class Tried:
    """What the runs at one load come to. None: there was no such call.

    ``others_lost``: of all other roles together; ``worst``: of the role that fares worst, which
    is ``worst_role``. ``missed``: the goals that the figures miss, chance and all, worst first.
    """

    load: float
    seeds: int
    planner_p95_s: Bounds | None
    planner_lost: Bounds | None
    others_lost: Bounds | None
    worst: Bounds | None
    verdict: Verdict
    worst_role: Role | None = None
    missed: tuple[Missed, ...] = ()

    @property
    def meets(self) -> bool:
        """Whether the figures themselves, chance and all, meet the goals."""
        return not self.missed


def tried(
    load: float, runs: Sequence[RunFigures], goals: Goals, *, by_value: bool = False
) -> Tried:
    """Judge the runs of one load. ``by_value``: by the figures alone, whatever chance had in them.

    So are fewer than three runs.
    """
    of_role = {role: [run.roles[role] for run in runs if role in run.roles] for role in Role}
    planners = of_role[Role.PLANNER]
    p95s = [p95 for own in planners if (p95 := LATENCY_P95.of(own)) is not None]
    enough = math.inf if by_value else _SEEDS_FIRST
    lost = {
        role: share for role, own in of_role.items() if (share := _lost(own, enough)) is not None
    }
    planner_lost = lost.pop(Role.PLANNER, None)
    worst_role = max(lost, key=lambda role: lost[role], default=None)
    result = Tried(
        load,
        len(runs),
        _mean(p95s, enough) if p95s else None,
        planner_lost,
        _lost([_together(run) for run in runs], enough),
        None if worst_role is None else lost[worst_role],
        Verdict.UNCLEAR,
        worst_role,
    )
    missed = sorted(_missed(result, lost, of_role, goals), key=lambda own: -own.times)
    return _with_verdict(replace(result, missed=tuple(missed)), tuple(lost.values()), goals)


def _missed(
    result: Tried,
    others: Mapping[Role, Bounds],
    of_role: Mapping[Role, Sequence[RoleFigures]],
    goals: Goals,
) -> Iterator[Missed]:
    """``others``: what each role but planners has lost."""
    p95 = result.planner_p95_s
    if p95 is not None and p95.value > goals.planner_p95_s:
        yield Missed("planner_p95_s", Role.PLANNER, p95.value, goals.planner_p95_s)
    planners = {} if result.planner_lost is None else {Role.PLANNER: result.planner_lost}
    for role, share in (planners | dict(others)).items():
        bound = _bound(role, goals)
        if share.value > bound:
            goal = "planner_lost" if role is Role.PLANNER else "others_lost"
            yield Missed(goal, role, share.value, bound, _causes(of_role[role]))


def _causes(runs: Sequence[RoleFigures]) -> tuple[Cause, ...]:
    calls = sum(run.calls for run in runs)
    counts = sum((run.failures for run in runs), Counter[tuple[str, str]]())
    return tuple(
        Cause(code, reason, count / calls) for (code, reason), count in counts.most_common()
    )


def _with_verdict(result: Tried, shares: Sequence[Bounds], goals: Goals) -> Tried:
    pairs = [
        (bounds, bound)
        for bounds, bound in (
            (result.planner_p95_s, goals.planner_p95_s),
            (result.planner_lost, goals.planner_lost),
            (result.others_lost, goals.others_lost),
        )
        if bounds is not None
    ]
    worst = result.worst.value if result.worst is not None else 0.0
    verdict = Verdict.UNCLEAR
    if any(bounds.low > bound for bounds, bound in pairs) or any(
        share.low > goals.others_lost for share in shares
    ):
        verdict = Verdict.BREAKS
    elif worst <= goals.others_lost and all(bounds.high <= bound for bounds, bound in pairs):
        verdict = Verdict.HOLDS
    return replace(result, verdict=verdict)


def _is_far_off(run: RunFigures, goals: Goals) -> bool:
    """Whether one run misses a goal so far that more runs are for nothing."""
    shares = [
        (_Count(own.failures.total(), own.calls), _bound(role, goals))
        for role, own in run.roles.items()
        if own.calls
    ]
    planner = run.roles.get(Role.PLANNER)
    p95_s = None if planner is None else LATENCY_P95.of(planner)
    return (p95_s is not None and p95_s > _FAR * goals.planner_p95_s) or any(
        wilson(count.lost / count.calls, count.calls, LEVEL)[0] > _FAR * bound
        for count, bound in shares
    )


def _bound(role: Role, goals: Goals) -> float:
    return goals.planner_lost if role is Role.PLANNER else goals.others_lost


class _Count(NamedTuple):
    lost: int
    calls: int


def _together(run: RunFigures) -> _Count:
    own = [figure for role, figure in run.roles.items() if role is not Role.PLANNER]
    return _Count(sum(row.failures.total() for row in own), sum(row.calls for row in own))


def _lost(runs: Iterable[RoleFigures | _Count], enough: float) -> Bounds | None:
    """The share that was not served: Wilson's, with runs that differ more than chance has it.

    Of fewer runs than are ``enough`` there is no interval.
    """
    counts = [
        run if isinstance(run, _Count) else _Count(run.failures.total(), run.calls) for run in runs
    ]
    counts = [count for count in counts if count.calls]
    calls = sum(count.calls for count in counts)
    if not calls:
        return None
    share = sum(count.lost for count in counts) / calls
    if len(counts) < enough:
        return Bounds(share, share, share)
    return Bounds(share, *wilson(share, calls / _dispersion(counts, share), LEVEL))


def _dispersion(counts: Sequence[_Count], share: float) -> float:
    """How much more runs differ than if each call were a draw of its own; 1 at least."""
    if not 0 < share < 1:
        return 1.0
    spread = sum((count.lost - share * count.calls) ** 2 / count.calls for count in counts)
    return max(1.0, spread / (share * (1 - share)) / (len(counts) - 1))


def _mean(values: Sequence[float], enough: float) -> Bounds:
    value = statistics.fmean(values)
    if len(values) < enough:
        return Bounds(value, value, value)
    sd = statistics.stdev(values) / math.sqrt(len(values))
    reach = student(LEVEL, len(values) - 1) * sd
    return Bounds(value, value - reach, value + reach)


@dataclass(frozen=True, slots=True)
class Capacity:
    """``low``: the highest load that holds, with none that breaks below it; 0: none does.

    ``high``: the lowest load above it that breaks; None: none does. ``value``: the same by the
    figures alone, chance and all. ``again``: loads that hold though a lower one breaks.
    ``tried``: by load.
    """

    low: float
    value: float
    high: float | None
    again: tuple[float, ...]
    tried: tuple[Tried, ...]

    @property
    def is_determined(self) -> bool:
        """Whether both ends were found, near to each other."""
        return self.low > 0 and self.high is not None and self.high <= _WIDE * self.low

    @property
    def ended_by(self) -> Tried | None:
        """The lowest load whose figures miss a goal; None: of those tried none does."""
        return next((row for row in self.tried if row.missed), None)


def capacity(
    at_load: Callable[[float], Tried],
    most: float = MOST,
    *,
    start: float = 1.0,
    fine: float = FINE,
    careful: bool = True,
) -> Capacity:
    """Find it. ``at_load``: runs one load. ``start``: the first one that is tried.

    ``fine``: how near the ends are brought, as a ratio. ``careful``: look below and above too.
    """
    search = _Search(at_load)
    first: float | None = min(most, max(LEAST, start))
    while first is not None:
        between = _bracket(search, first, most)
        low = _highest(search, between, fine, lambda verdict: verdict is Verdict.HOLDS)
        above = max(low, LEAST), between[1]
        _highest(search, above, fine, lambda verdict: verdict is not Verdict.BREAKS)
        if not careful:
            break
        for share in _BELOW if low else ():
            search.verdict(max(LEAST, low * share))
        # What breaks below a load that holds is where it ends: again from there.
        broken = search.first(Verdict.BREAKS)
        first = broken if broken is not None and broken < low else None
    broken = search.first(Verdict.BREAKS)
    for times in _ABOVE if careful and broken is not None else ():
        search.verdict(min(most, (broken or 0.0) * times))
    return search.found()


class _Search:
    """Every load that was run, once."""

    def __init__(self, at_load: Callable[[float], Tried]) -> None:
        self._at_load = at_load
        self._tried: dict[float, Tried] = {}

    def verdict(self, load: float) -> Verdict:
        known = self._tried.get(load)
        if known is None:
            known = self._tried[load] = self._at_load(load)
        return known.verdict

    def first(self, verdict: Verdict) -> float | None:
        """The lowest load of which that was said."""
        return min(
            (row.load for row in self._tried.values() if row.verdict is verdict), default=None
        )

    def found(self) -> Capacity:
        high = self.first(Verdict.BREAKS)
        holding = sorted(row.load for row in self._tried.values() if row.verdict is Verdict.HOLDS)
        below = [load for load in holding if high is None or load < high]
        again = tuple(load for load in holding if load not in below)
        rows = tuple(self._tried[load] for load in sorted(self._tried))
        missing = min((row.load for row in rows if row.missed), default=math.inf)
        value = max((row.load for row in rows if row.load < missing), default=0.0)
        return Capacity(max(below, default=0.0), value, high, again, rows)


def _bracket(search: _Search, load: float, most: float) -> tuple[float, float]:
    """A load that holds (0: none does), and a higher one that does not; by doubling and halving.

    The upper one may hold where no more is looked for.
    """
    if search.verdict(load) is Verdict.HOLDS:
        while load < most and search.verdict(min(most, 2 * load)) is Verdict.HOLDS:
            load = min(most, 2 * load)
        top = min(most, 2 * load)
    else:
        while load > LEAST and search.verdict(max(LEAST, load / 2)) is not Verdict.HOLDS:
            load = max(LEAST, load / 2)
        top = load
        load = 0.0 if load <= LEAST else max(LEAST, load / 2)
    # Above what holds, something that breaks beyond doubt, if there is any.
    while top < most and search.verdict(top) is not Verdict.BREAKS:
        top = min(most, 2 * top)
    return load, top


def _highest(
    search: _Search, between: tuple[float, float], fine: float, is_so: Callable[[Verdict], bool]
) -> float:
    """Bisect, on a scale of ratios: the highest load at which it is so, below one where it is not.

    0: at none.
    """
    low, high = max(between[0], LEAST), between[1]
    if is_so(search.verdict(high)):
        return high
    if not is_so(search.verdict(low)):
        return 0.0
    while high > low * fine:
        middle = round(math.sqrt(low * high), 4)
        if middle in (low, high):
            break
        if is_so(search.verdict(middle)):
            low = middle
        else:
            high = middle
    return low


def _in_turn(
    jobs: Sequence[Callable[[], RunFigures]], ended: Callable[[int], None]
) -> list[RunFigures]:
    found: list[RunFigures] = []
    for job in jobs:
        found.append(job())
        ended(len(found))
    return found


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs one contender at any load, with more seeds until its goals are clear.

    ``seeds``: the most; the same for every contender, so that they meet the same calls.
    ``by_value``: all of them are run, and their figures are taken as they are. ``ran``: told
    of a load how many of its runs have ended, and how many there will be before it is judged.
    ``beside``: does several runs at once, and returns what comes of each, in their order; it is
    given what to call when one has ended, with how many have. None: one follows the other.
    """

    contender: Contender
    host: HostShape
    source: Source
    seeds: Sequence[int]
    told: Callable[[Tried], None] | None = None
    by_value: bool = False
    beside: Beside | None = None
    ran: Callable[[float, int, int], None] | None = None

    def at(self, load: float, play_one: Callable[[Runner, int, float], RunFigures]) -> Tried:
        """Run that load, and judge it. ``play_one``: makes each run, ``Runner.run`` or more."""
        goals = goals_of(self.contender.policy)
        steps = [*self._steps()]
        # Where several cost no more time than one does, none is waited for.
        runs = self._play(play_one, [], 1 if self.beside is None else steps[0], load)
        result = tried(load, runs[:1], goals)
        if _is_far_off(runs[0], goals):
            return self._tell(replace(result, verdict=Verdict.BREAKS))
        for wanted in steps:
            runs = self._play(play_one, runs, wanted, load)
            result = self._tell(tried(load, runs, goals, by_value=self.by_value))
            if result.verdict is not Verdict.UNCLEAR:
                break
        return result

    def _play(
        self,
        play_one: Callable[[Runner, int, float], RunFigures],
        runs: Sequence[RunFigures],
        wanted: int,
        load: float,
    ) -> list[RunFigures]:
        """``runs`` with those of the next seeds, so that there are as many as ``wanted``."""
        before = len(runs)

        def ended(count: int) -> None:
            if self.ran is not None:
                self.ran(load, before + count, wanted)

        jobs = [partial(play_one, self, seed, load) for seed in self.seeds[before:wanted]]
        return [*runs, *(self.beside or _in_turn)(jobs, ended)]

    def _tell(self, result: Tried) -> Tried:
        if self.told is not None:
            self.told(result)
        return result

    def _steps(self) -> Iterator[int]:
        """How many seeds are run before each judgement, after the first one."""
        seeds = len(self.seeds)
        wanted = seeds if self.by_value else min(_SEEDS_FIRST, seeds)
        while wanted < seeds:
            yield wanted
            wanted = min(seeds, 2 * wanted)
        yield seeds

    def run(self, seed: int, load: float) -> RunFigures:
        """One run."""
        traffic, _ = self.source.drawn(seed, load)
        return figures(play(self.contender, self.host, traffic, seed), self.contender.policy)
