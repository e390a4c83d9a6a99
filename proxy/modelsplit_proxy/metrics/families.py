"""Counters and histograms that cost a call next to nothing: plain numbers, told at the scrape.

prometheus_client's own take a lock and several calls for each observation, because any
thread may make one. All of ours are made on the event loop, and so is the scrape. So these
count, or a collector reads what others hold, and prometheus_client renders: nothing else.

    requests = Counters("modelsplit_requests", "Finished calls.", ("role",), registry)
    requests.at["CHAT",] += 1
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from functools import partial
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from modelsplit_policy.quantity import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import CollectorRegistry

Labels = tuple[str, ...]
# Of so many values a quantile is exact.
KEPT: Final = 500


class Counters:
    """One counter family. ``at``: label values to number; what is used begins at zero.

    Without labels its one series is there from the start, ``at[()]``.
    """

    def __init__(self, name: str, text: str, labels: Labels, registry: CollectorRegistry) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self.at: defaultdict[Labels, float] = defaultdict(float)
        if not labels:
            self.at[()] = 0.0
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, value in self.at.items():
            family.add_metric(labels, value)
        yield family


class Series:
    """One series of a histogram: how many values fell between its edges, and their sum."""

    __slots__ = ("_counts", "_total", "edges")

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges = edges
        self._counts = [0] * (len(edges) + 1)
        self._total = 0.0

    @property
    def counts(self) -> list[int]:
        """How many values fell between two edges, and beyond the last."""
        return self._counts

    @property
    def total(self) -> float:
        return self._total

    def observe(self, value: float) -> None:
        if not 0 <= value < LIMIT:
            return  # no quantity: it would spoil the sum for good
        self._counts[bisect_left(self.edges, value)] += 1
        self._total += value

    def upto(self, edges: tuple[float, ...]) -> list[int]:
        """How many were counted up to each of ``edges``, and in all; they are among its own."""
        upto = list(accumulate(self.counts))
        if edges == self.edges:
            return upto
        at = dict(zip(self.edges, upto, strict=False))
        return [*(at[edge] for edge in edges), upto[-1]]


class KeptSeries(Series):
    """A series that keeps its last values too, so that a quantile of few is one of them.

    What is observed is only noted, and counted when somebody reads: now and then at least, for
    until then it is held.
    """

    __slots__ = ("_last", "_new")

    def __init__(self, edges: tuple[float, ...]) -> None:
        super().__init__(edges)
        self._new: list[float] = []
        self._last: deque[float] = deque(maxlen=KEPT)

    @property
    def counts(self) -> list[int]:
        self._count()
        return self._counts

    @property
    def total(self) -> float:
        self._count()
        return self._total

    def observe(self, value: float) -> None:
        if not 0 <= value < LIMIT:
            return
        self._new.append(value)

    def last(self, count: int) -> list[float] | None:
        """The last so many values, in order of size; None: so many are not kept."""
        self._count()
        if count > len(self._last):
            return None
        return sorted(islice(self._last, len(self._last) - count, None))

    def _count(self) -> None:
        new, self._new = self._new, []
        for value in new:
            super().observe(value)
        self._last.extend(new)


class Histograms:
    """One histogram family. ``at``: label values to series, as for ``Counters``.

    ``edges``: the upper bounds of the buckets that a scrape shows, infinity left out. A series
    that somebody puts there may have more edges.
    """

    def __init__(
        self,
        name: str,
        text: str,
        labels: Labels,
        edges: tuple[float, ...],
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self._edges = edges
        self._bounds = [*map(str, edges), "+Inf"]
        self.at: defaultdict[Labels, Series] = defaultdict(partial(Series, edges))
        if not labels:
            self.at[()] = Series(edges)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for labels, series in self.at.items():
            buckets = list(zip(self._bounds, series.upto(self._edges), strict=True))
            family.add_metric(labels, buckets=buckets, sum_value=series.total)
        yield family
