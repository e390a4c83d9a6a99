"""Quantiles of what was counted lately: over the last five minutes and the last five hours.

A series only ever counts up. So a copy of its counts is kept now and then, and what happened
since is the difference: nothing is done when a value is observed. A figure of a few hundred values
is one of them, of more it is as fine as the series' buckets; it begins with the process, and how
far back it reaches is told with it.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from itertools import accumulate
from math import ceil
from operator import sub
from typing import TYPE_CHECKING, Any, Final

from modelsplit_proxy.metrics.copies import Copies
from modelsplit_proxy.runtime.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from modelsplit_proxy.metrics.families import KeptSeries
    from modelsplit_proxy.runtime.clock import Clock

LENGTHS_S: Final = (("5m", 300.0), ("5h", 18000.0))
# Copies kept of a window. It is never shorter than its name says, and longer by one part.
_PARTS: Final = 30
_EVERY_S: Final = LENGTHS_S[0][1] / _PARTS
# A timer may fire by so much too early.
_EARLY_S: Final = 0.1
_QUANTILES: Final = (("p95", 0.95), ("p99", 0.99))

Counts = tuple[int, ...]


class Windows:
    """Keeps what was counted in each of ``series`` (seconds), by name."""

    def __init__(self, series: Mapping[str, KeptSeries], clock: Clock) -> None:
        self._series = series
        self._clock = clock
        self._windows: dict[str, Copies[Mapping[str, Counts]]] = {
            name: Copies(length_s, length_s / _PARTS - _EARLY_S) for name, length_s in LENGTHS_S
        }
        self.keep()

    async def watch(self) -> None:
        """Keep copies for ever; a task of the process."""
        while True:
            await asyncio.sleep(_EVERY_S)
            self.keep()

    def keep(self) -> None:
        """Keep a copy of what is counted now, for each window that is due one."""
        now = self._clock.now()
        counts = {name: tuple(series.counts) for name, series in self._series.items()}
        for window in self._windows.values():
            window.keep(now, counts)

    def fields(self) -> dict[str, dict[str, dict[str, Any]]]:
        """For ``/stats``: by name and window, quantiles in milliseconds, of how many and since."""
        now, wall = self._clock.now(), self._clock.wall()
        out: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in self._series}
        for label, window in self._windows.items():
            since, before = window.oldest(now)
            covered = {"since": rfc3339(wall - (now - since)), "window_s": round(now - since, 3)}
            for name, series in self._series.items():
                out[name][label] = covered | _figures(series, before[name])
        return out


def _figures(series: KeptSeries, before: Counts) -> dict[str, Any]:
    found = Quantiles(series, before)
    values = ((name, found.at(q)) for name, q in _QUANTILES)
    return {
        "n": found.count,
        **{name: None if value is None else round(value * 1000, 3) for name, value in values},
    }


class Quantiles:
    """Of what ``series`` has counted since its counts were ``before``. ``count``: how many."""

    def __init__(self, series: KeptSeries, before: Counts) -> None:
        self._edges = series.edges
        self._upto = list(accumulate(map(sub, series.counts, before)))
        self.count: int = self._upto[-1]
        self._values = series.last(self.count)

    def at(self, q: float) -> float | None:
        """The value of that rank, or of many about that; None: nothing was counted."""
        if not self._values:
            return quantile(self._edges, self._upto, q)
        return self._values[max(0, ceil(q * self.count) - 1)]


def quantile(edges: Sequence[float], upto: Sequence[int], q: float) -> float | None:
    """Within the bucket of the value that has this rank, by its share of the bucket's.

    As Prometheus's ``histogram_quantile``: beyond the last edge it is the last edge. ``upto``:
    how many were counted up to each edge, and in all; None: nothing was counted.
    """
    rank = q * upto[-1]
    if not rank:
        return None
    at = bisect_left(upto, rank)
    if at == len(edges):
        return edges[-1]
    lower, below = (edges[at - 1], upto[at - 1]) if at else (0.0, 0)
    return lower + (edges[at] - lower) * (rank - below) / (upto[at] - below)
