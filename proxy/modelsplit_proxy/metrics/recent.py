"""What became of each role's calls in the last five minutes, and in the last one.

As ``windows``: copies of what is counted anyway, so that a call costs nothing more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from modelsplit_policy.failures import ErrorCode
from modelsplit_policy.verdict import is_trouble
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.metrics.calls import OTHER
from modelsplit_proxy.metrics.copies import Copies
from modelsplit_proxy.metrics.windows import Quantiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from modelsplit_proxy.metrics.calls import Totals
    from modelsplit_proxy.metrics.families import KeptSeries
    from modelsplit_proxy.runtime.clock import Clock

LENGTH_S: Final = 300.0
NOW_S: Final = 60.0
_EVERY_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class RoleRecently:
    """One role. ``failed``: by reason, the service's failures; ``refused``: what is none of them.

    ``left``: calls that their clients left. ``failed_now``: the failures of the last minute, or of
    a shorter time that was asked for. ``p50_s`` and ``p95_s``: of answered calls; None: there was
    none.
    """

    calls: int
    failed: Mapping[str, int]
    refused: Mapping[str, int]
    left: int
    failed_now: int
    p50_s: float | None
    p95_s: float | None

    def fields(self) -> dict[str, Any]:
        """For ``/stats``."""
        return {
            "calls": self.calls,
            "failed": sum(self.failed.values()),
            "reasons": dict(self.failed),
            "refused": dict(self.refused),
            "left": self.left,
            "p50_ms": _milliseconds(self.p50_s),
            "p95_ms": _milliseconds(self.p95_s),
        }


class Recent:
    """Keeps copies of what ``totals`` says. ``answered``: what it counts of answered calls."""

    def __init__(
        self, totals: Callable[[], Totals], answered: Mapping[Role, KeptSeries], clock: Clock
    ) -> None:
        self._totals = totals
        self._answered = answered
        self._clock = clock
        self._copies: Copies[Totals] = Copies(LENGTH_S)
        self.keep()

    async def watch(self) -> None:
        """Keep copies for ever; a task of the process."""
        while True:
            await asyncio.sleep(_EVERY_S)
            self.keep()

    def keep(self) -> None:
        """Keep a copy of what is counted now."""
        self._copies.keep(self._clock.now(), self._totals())

    def unrouted(self) -> Mapping[str, int]:
        """By reason: calls that were refused before they had a role, in the same time."""
        _, before = self._copies.oldest(self._clock.now())
        counts: Counter[str] = Counter()
        for code, reason, count in _errors(OTHER, self._totals(), before):
            if not _is_gone(code):
                counts[reason] += count
        return counts

    @property
    def window_s(self) -> float:
        """How far back it reaches; less than five minutes in a young process."""
        now = self._clock.now()
        return now - self._copies.oldest(now)[0]

    def failed(self) -> int:
        """How many calls the service has failed since it started."""
        errors = self._totals().errors.items()
        return sum(
            count
            for (role, code, reason), count in errors
            if not _is_gone(code) and is_trouble(role, code, reason)
        )

    def roles(self, now_s: float = NOW_S, length_s: float = LENGTH_S) -> dict[Role, RoleRecently]:
        """What became of each role's calls in the last ``length_s``, at most all that is kept.

        ``now_s``: how far back ``failed_now`` reaches.
        """
        at, now = self._clock.now(), self._totals()
        self._copies.oldest(at)
        before, lately = self._copies.before(at, length_s), self._copies.before(at, now_s)
        return {role: self._role(role, now, before, lately) for role in Role}

    def _role(self, role: Role, now: Totals, before: Totals, lately: Totals) -> RoleRecently:
        failed, refused = _by_reason(role, now, before)
        took = Quantiles(self._answered[role], before.answered[role])
        return RoleRecently(
            calls=now.calls.get(role, 0) - before.calls.get(role, 0),
            failed=failed,
            refused=refused,
            left=sum(count for code, _, count in _errors(role, now, before) if _is_gone(code)),
            failed_now=sum(_by_reason(role, now, lately)[0].values()),
            p50_s=took.at(0.5),
            p95_s=took.at(0.95),
        )


def _by_reason(role: Role, now: Totals, before: Totals) -> tuple[Counter[str], Counter[str]]:
    """The failures of the service, and what was refused else, since ``before``."""
    failed: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for code, reason, count in _errors(role, now, before):
        if not _is_gone(code):
            (failed if is_trouble(role, code, reason) else refused)[reason] += count
    return failed, refused


def _errors(role: str, now: Totals, before: Totals) -> Iterator[tuple[str, str, int]]:
    for (whose, code, reason), count in now.errors.items():
        more = count - before.errors.get((whose, code, reason), 0)
        if whose == role and more:
            yield code, reason, more


def _is_gone(code: str) -> bool:
    return code == ErrorCode.CLIENT_GONE


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
