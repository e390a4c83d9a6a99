"""What is kept of very many samples so that an objective can be judged: counts and worst ones.

Each has a ``clock``, which says what is looked back over; what came before counts for the
burn rates only, where these look back further. Nothing here grows with the number of
samples but the values of a quantile and the moments of rare events.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappush, heappushpop
from typing import Final

from modelsplit_policy.intervals import effective_share
from modelsplit_policy.slo.ranked import Ranked

WORST: Final = 5
_HOUR_US: Final = 3_600_000_000
SHORT_US: Final = _HOUR_US
LONG_US: Final = 5 * _HOUR_US


@dataclass(frozen=True, slots=True)
class Clock:
    """``since_us`` to ``now_us`` is looked at; wall clock."""

    since_us: int
    now_us: int

    @property
    def earliest_us(self) -> int:
        """Nothing before this is of any use."""
        return min(self.since_us, self.now_us - LONG_US)


class Share:
    """How many of all are bad: in the window, in its last hour and in its last five."""

    def __init__(self, clock: Clock) -> None:
        self._since_us = clock.since_us
        self._short_us = clock.now_us - SHORT_US
        self._long_us = clock.now_us - LONG_US
        self.total = self.bad = 0
        self.short_total = self.short_bad = 0
        self.long_total = self.long_bad = 0
        self._worst: list[tuple[int, str]] = []
        # Of each cluster how many there are and how many of them are bad.
        self._clusters: dict[str, list[int]] = {}

    def take(
        self,
        at_us: int,
        bad: bool,
        name: str,
        severity: int | None = None,
        cluster: str | None = None,
    ) -> None:
        """``name``: its id. ``severity``: how bad it is; None: the later, the worse.

        ``cluster``: what it belongs to with others that are like it; None: to nothing.
        """
        if at_us >= self._long_us:
            self.long_total += 1
            self.long_bad += bad
            if at_us >= self._short_us:
                self.short_total += 1
                self.short_bad += bad
        if at_us < self._since_us:
            return
        self.total += 1
        if cluster is not None:
            counts = self._clusters.setdefault(cluster, [0, 0])
            counts[0] += 1
            counts[1] += bad
        if bad:
            self.bad += 1
            self._note(at_us if severity is None else severity, name)

    def effective(self, level: float) -> float | None:
        """How many independent ones would tell as much; None: clusters are too few to say."""
        alone = self.total - sum(size for size, _ in self._clusters.values())
        alone_bad = self.bad - sum(bad for _, bad in self._clusters.values())
        clusters = ((size, bad) for size, bad in self._clusters.values())
        return effective_share(clusters, alone, alone_bad, level)

    def _note(self, severity: int, name: str) -> None:
        if len(self._worst) < WORST:
            heappush(self._worst, (severity, name))
        else:
            heappushpop(self._worst, (severity, name))

    @property
    def worst(self) -> tuple[str, ...]:
        """The ids of the worst bad ones, the worst first."""
        return tuple(name for _, name in sorted(self._worst, reverse=True))


class Values:
    """Durations, ranked, and the share of them that are not below ``bound_us``."""

    def __init__(self, clock: Clock, bound_us: float) -> None:
        self._since_us = clock.since_us
        self._bound_us = bound_us
        self.ranked = Ranked()
        self.share = Share(clock)

    def take(self, at_us: int, value_us: int, name: str, cluster: str | None = None) -> None:
        self.share.take(at_us, value_us >= self._bound_us, name, value_us, cluster)
        if at_us >= self._since_us:
            self.ranked.add(value_us)


class Events:
    """What should be rare: when each came. ``moments`` is sorted when it is read."""

    def __init__(self, clock: Clock) -> None:
        self._since_us = clock.since_us
        self._events: list[tuple[int, str]] = []
        # Among how many.
        self.share = Share(clock)

    def take(self, at_us: int, event: bool, name: str) -> None:
        self.share.take(at_us, event, name)
        if event and at_us >= self._since_us:
            self._events.append((at_us, name))

    def sorted(self) -> list[tuple[int, str]]:
        """Every event of the window: its moment and its id, by time."""
        return sorted(self._events)
