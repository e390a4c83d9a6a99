"""What judging comes to: a finding for each objective, gates of findings, one verdict."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from modelsplit_policy.slo.facts import End
    from modelsplit_policy.slo.objectives import Objective
    from modelsplit_policy.slo.samples import Baseline


class Verdict(StrEnum):
    PASS = "pass"  # noqa: S105
    BREACH = "breach"
    NOT_ENOUGH_DATA = "not enough data"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True, slots=True)
class ErrorBudget:
    """How much of what an objective allows is used, 1.0 being all of it, and how fast.

    A burn rate of 1 uses up the allowance exactly by the end of the objective's window; of 2,
    in half of it. ``burn_1h``, ``burn_5h``: over the last hour and the last five; None: nothing
    came in that time.
    """

    used: float
    burn_1h: float | None
    burn_5h: float | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One objective judged.

    ``bound``: as the policy has it; None: not judged. ``target``: what the value is compared
    with; None: the baseline does not say. ``value``: what was observed; None: nothing was.
    ``low``, ``high``: its interval at 95 per cent; None: it has none, or is unbounded on that
    side. ``n``: samples. ``note``: what else a reader must know.
    ``worst``: the worst calls or jobs behind a breach, by id; ``worst_at_us``: or when.
    """

    objective: Objective
    window_s: int
    bound: float | None
    verdict: Verdict
    target: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    note: str = ""
    worst: tuple[str, ...] = ()
    worst_at_us: tuple[int, ...] = ()
    budget: ErrorBudget | None = None

    @property
    def holds(self) -> bool | None:
        """None: nobody can say, or it is not asked."""
        return {Verdict.PASS: True, Verdict.BREACH: False}.get(self.verdict)


@dataclass(frozen=True, slots=True)
class PlannerCalls:
    """PLANNER calls of a window by how they ended; ``window_s``: the window."""

    window_s: int
    ends: Mapping[End, int]


@dataclass(frozen=True, slots=True)
class RoleTimeouts:
    """Calls of a role, those with a timeout, and how many of these that is in five hours.

    ``per_5h`` None: too little of the window is covered to say.
    """

    role: str
    calls: int
    timeouts: int
    per_5h: float | None


@dataclass(frozen=True, slots=True)
class Gate:
    """``number`` None: targets that no gate asks for."""

    number: int | None
    verdict: Verdict
    findings: tuple[Finding, ...]
    planner: PlannerCalls | None


@dataclass(frozen=True, slots=True)
class Report:
    """``covered_s``: how much of ``window_s``, the longest window, has records."""

    now_us: int
    verdict: Verdict
    gates: tuple[Gate, ...]
    timeouts: tuple[RoleTimeouts, ...]
    timeouts_window_s: int
    window_s: int
    covered_s: int
    baseline: Baseline


def worst_of(verdicts: Iterable[Verdict]) -> Verdict:
    """A breach wins over missing data, that over a pass, that over what is not judged."""
    ranking = (Verdict.BREACH, Verdict.NOT_ENOUGH_DATA, Verdict.PASS)
    seen = frozenset(verdicts)
    return next((verdict for verdict in ranking if verdict in seen), Verdict.NOT_JUDGED)
