"""How much a policy and a host can carry: the highest load at which the goals hold.

The goals are those of the gates, as one number each: planner P95 below its objective, planners
that were not served (failures, timeouts, refusals, clients that left) below their rate, and of
every other role at least 95 of 100 calls answered.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from modelsplit_policy.vocabulary import Role

from .measures import LATENCY_P95, figures
from .run import play

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from modelsplit_policy.config.model import Policy
    from modelsplit_sim.host_shape import HostShape

    from .measures import RoleFigures, RunFigures
    from .run import Contender
    from .traffic import Source

# Where the policy has no bounds of its own.
_PLANNER_P95_S: Final = 5.0
_PLANNER_LOST: Final = 0.01
_OTHERS_SERVED: Final = 0.95
_LEAST: Final = 1 / 32
_MOST: Final = 32.0
_BISECTIONS: Final = 5


@dataclass(frozen=True, slots=True)
class Goals:
    """``planner_lost`` and ``others_served``: shares of 1."""

    planner_p95_s: float = _PLANNER_P95_S
    planner_lost: float = _PLANNER_LOST
    others_served: float = _OTHERS_SERVED


def goals_of(policy: Policy) -> Goals:
    """The policy's own bounds, or the mission's."""
    latency = policy.slo.get("planner_latency_ms")
    lost = policy.slo.get("planner_failure_rate")
    p95_ms = None if latency is None else latency.p95
    most = None if lost is None else lost.max
    return Goals(
        _PLANNER_P95_S if p95_ms is None else p95_ms / 1000,
        _PLANNER_LOST if most is None else most,
    )


@dataclass(frozen=True, slots=True)
class Attained:
    """What several runs come to. ``others``: the share served of the role that fares worst.

    None: there was no such call.
    """

    planner_p95_s: float | None
    planner_lost: float | None
    others: float | None

    def meets(self, goals: Goals) -> bool:
        return self.excess(goals) <= 0

    def excess(self, goals: Goals) -> float:
        """How far it is from the goals, in their own measure: 0 or less: they hold."""
        parts = [0.0]
        if self.planner_lost is not None:
            parts.append(self.planner_lost / goals.planner_lost - 1)
        if self.planner_p95_s is not None:
            parts.append(self.planner_p95_s / goals.planner_p95_s - 1)
        if self.others is not None:
            lost, allowed = 1 - self.others, 1 - goals.others_served
            parts.append(lost / allowed - 1)
        return max(parts[1:], default=0.0)


def attained(runs: Sequence[RunFigures]) -> Attained:
    """Calls of all runs together, and of the P95 the mean."""
    planners = [run.roles[Role.PLANNER] for run in runs if Role.PLANNER in run.roles]
    p95s = [p95 for own in planners if (p95 := LATENCY_P95.of(own)) is not None]
    others = [
        served
        for role in Role
        if role is not Role.PLANNER
        and (served := _served(run.roles[role] for run in runs if role in run.roles)) is not None
    ]
    served = _served(planners)
    return Attained(
        statistics.fmean(p95s) if p95s else None,
        None if served is None else 1 - served,
        min(others, default=None),
    )


def _served(runs: Iterable[RoleFigures]) -> float | None:
    calls = failed = 0
    for own in runs:
        calls += own.calls
        failed += own.failures.total()
    return 1 - failed / calls if calls else None


def at_load(
    contender: Contender, host: HostShape, source: Source, seeds: Iterable[int], load: float
) -> Attained:
    """What the contender attains with everything coming ``load`` times as often."""
    runs = []
    for seed in seeds:
        traffic, _ = source.drawn(seed, load)
        played = play(contender, host, traffic, seed)
        runs.append(figures(played, contender.policy))
    return attained(runs)


def capacity(
    contender: Contender,
    host: HostShape,
    source: Source,
    seeds: Sequence[int],
    told: Callable[[float, Attained], None] | None = None,
) -> float:
    """The highest multiple of the load at which the goals hold; 0: at none that was tried.

    ``told``: each load that was tried, with what came of it.
    """
    goals = goals_of(contender.policy)

    def holds(load: float) -> bool:
        result = at_load(contender, host, source, seeds, load)
        if told is not None:
            told(load, result)
        return result.meets(goals)

    low, high = _bracket(holds)
    if low == 0.0 or low >= _MOST:
        return low
    for _ in range(_BISECTIONS):
        middle = (low * high) ** 0.5
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


def _bracket(holds: Callable[[float], bool]) -> tuple[float, float]:
    """A load that holds and twice that, which does not; 0 where none holds."""
    load = 1.0
    if holds(load):
        while load < _MOST and holds(2 * load):
            load *= 2
        return load, 2 * load
    while load > _LEAST:
        load /= 2
        if holds(load):
            return load, 2 * load
    return 0.0, load
