"""From a run to figures: per role, and of the host."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from modelsplit_policy.vocabulary import Role

from .gates import judged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from modelsplit_policy.config.model import Policy

    from .attempt import CallRun
    from .gates import Judged
    from .run import Played

ABANDONED: Final = ("E_CLIENT_GONE", "left")


@dataclass(slots=True)
class RoleFigures:
    """One role's calls in one run, each as its client knows it: with all that its library tried.

    ``failures``: by code and reason, those that were not answered in the end. ``retries``: how
    often a library tried again. ``within``: answered within the role's objective. ``waits``: in
    line and inside Ollama together. Seconds.
    """

    calls: int = 0
    retries: int = 0
    within: int = 0
    fallbacks: int = 0
    unfit: int = 0
    cost_usd: float = 0.0
    latencies: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    upstream_waits: list[float] = field(default_factory=list)
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)

    def finish(self) -> RoleFigures:
        for values in (self.latencies, self.waits, self.upstream_waits):
            values.sort()
        return self


@dataclass(slots=True)
class RunFigures:
    """One run. ``seats``: held on average; ``busy``: the share of time the host computed.

    ``judged``: what the gates say.
    """

    roles: dict[Role, RoleFigures]
    loads: dict[str, int]
    seats: float
    busy: float
    shed_s: float
    seconds: float
    judged: list[Judged]


def objective_s(policy: Policy, role: Role) -> float | None:
    """How long a call of the role may take to count as good; None: an answer is good.

    The policy has such an objective for planners alone, in ``slo.planner_latency_ms``.
    """
    row = policy.slo.get("planner_latency_ms")
    if role is not Role.PLANNER or row is None:
        return None
    bound_ms = row.p95 if row.p95 is not None else row.p99
    return None if bound_ms is None else bound_ms / 1000


def figures(played: Played, policy: Policy) -> RunFigures:
    """What a run comes to."""
    roles: dict[Role, RoleFigures] = {}
    first: dict[int, float] = {}
    last: dict[int, CallRun] = {}
    for call in played.calls:
        first.setdefault(call.number, call.arrived)
        last[call.number] = call
    for call in played.calls:
        role = _role(call)
        own = roles.get(role)
        if own is None:
            own = roles[role] = RoleFigures()
        own.cost_usd += sum(attempt.cost_usd or 0.0 for attempt in call.attempts)
        own.retries += call.retry > 0
        if last[call.number] is call:
            _count(own, call, first[call.number], objective_s(policy, role))
    seconds = max(played.seconds, 1e-9)
    return RunFigures(
        {role: own.finish() for role, own in roles.items()},
        played.loads,
        played.seat_s / seconds,
        played.busy_s / seconds,
        played.shed_s,
        seconds,
        judged(played, policy),
    )


def _role(call: CallRun) -> Role:
    route = getattr(call, "route", None)
    return Role.CHAT if route is None else route.role


def _count(own: RoleFigures, call: CallRun, came: float, objective: float | None) -> None:
    own.calls += 1
    own.fallbacks += call.fallback_used
    own.unfit += call.unfit
    if not call.ok:
        told = call.failure
        own.failures[ABANDONED if told is None else (str(told.code), str(told.reason))] += 1
        return
    assert call.ended is not None
    took_s = call.ended - came
    own.latencies.append(took_s)
    inside_s = call.attempts[-1].upstream_wait_s or 0.0
    own.waits.append(call.waited_s + inside_s)
    own.upstream_waits.append(inside_s)
    own.within += objective is None or took_s < objective


def quantile(ordered: Sequence[float], p: float) -> float | None:
    """A value that occurred, of values in order; None where there is none."""
    return ordered[max(0, math.ceil(p * len(ordered)) - 1)] if ordered else None


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of a role. ``unit``: s, %, $ or calls. ``least``: a smaller change is none.

    ``leads``: it is one of the few that a verdict is about.
    """

    name: str
    said: str
    unit: str
    least: float
    of: Callable[[RoleFigures], float | None]
    leads: bool = False


def _share(part: Callable[[RoleFigures], int]) -> Callable[[RoleFigures], float | None]:
    return lambda own: 100 * part(own) / own.calls if own.calls else None


def _latency(p: float) -> Callable[[RoleFigures], float | None]:
    return lambda own: quantile(own.latencies, p)


def _wait(p: float) -> Callable[[RoleFigures], float | None]:
    return lambda own: quantile(own.waits, p)


LATENCY_P95: Final = Measure("latency_p95_s", "P95", "s", 0.05, _latency(0.95), leads=True)
FAILED: Final = Measure(
    "failed", "failed", "%", 0.1, _share(lambda own: own.failures.total()), leads=True
)
# In the order in which changes are told.
MEASURES: Final = (
    LATENCY_P95,
    FAILED,
    Measure("llm_queue_wait_p95_s", "wait P95", "s", 0.05, _wait(0.95), leads=True),
    Measure("goodput", "goodput", "%", 0.1, _share(lambda own: own.within), leads=True),
    Measure("fallback", "fallbacks", "%", 0.1, _share(lambda own: own.fallbacks), leads=True),
    Measure("cost_usd", "cost", "$", 0.005, lambda own: own.cost_usd, leads=True),
    Measure("latency_p50_s", "P50", "s", 0.02, _latency(0.5)),
    Measure("latency_p99_s", "P99", "s", 0.1, _latency(0.99)),
    Measure("llm_queue_wait_p50_s", "wait P50", "s", 0.02, _wait(0.5)),
    Measure("llm_queue_wait_p99_s", "wait P99", "s", 0.1, _wait(0.99)),
    Measure(
        "upstream_wait_p95_s",
        "wait in Ollama P95",
        "s",
        0.05,
        lambda own: quantile(own.upstream_waits, 0.95),
    ),
)
