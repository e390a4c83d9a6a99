"""The policy document's own names: five histograms in milliseconds, and the event loop's lag.

Each is counted once, in seconds and in fine buckets, by whoever knows what it means: ``calls``,
``jobs``. A scrape shows the edges that our own histograms have; the quantiles over time
(``windows``) are those of the fine buckets.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily

from modelsplit_proxy.metrics.buckets import FINE_S, LATENCY_S, WAIT_S
from modelsplit_proxy.metrics.families import KeptSeries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from modelsplit_proxy.runtime.loop_lag import LoopLag

LAG: Final = "event_loop_lag_p99"
# Name: what it means, and the edges that a scrape shows.
_HISTOGRAMS: Final = MappingProxyType(
    {
        "job_e2e_latency_ms": ("Jobs that were finished: from start to finish.", LATENCY_S),
        "planner_latency_ms": ("Answered calls of PLANNER: their whole time.", LATENCY_S),
        "llm_latency_ms": (
            "Answered calls: from dispatch to the end, less load and upstream wait.",
            LATENCY_S,
        ),
        "tool_latency_ms": ("Time of tools as jobs report them.", LATENCY_S),
        "llm_queue_wait_ms": (
            "Answered calls: time in line and, where known, inside the upstream.",
            WAIT_S,
        ),
    }
)


class DocumentNames:
    """One series of seconds for each name; a collector of metrics. ``lag``: also listened to."""

    def __init__(self, lag: LoopLag) -> None:
        self._lag = lag
        self.job_e2e = KeptSeries(FINE_S)
        self.planner = KeptSeries(FINE_S)
        self.llm = KeptSeries(FINE_S)
        self.tool = KeptSeries(FINE_S)
        self.queue_wait = KeptSeries(FINE_S)
        lags = KeptSeries(FINE_S)
        lag.listen(lags.observe)
        series = (self.job_e2e, self.planner, self.llm, self.tool, self.queue_wait, lags)
        names = (*_HISTOGRAMS, LAG)
        self.series: Mapping[str, KeptSeries] = dict(zip(names, series, strict=True))

    def collect(self) -> Iterator[Metric]:
        for name, (text, edges) in _HISTOGRAMS.items():
            yield _in_milliseconds(name, text, edges, self.series[name])
        yield GaugeMetricFamily(
            LAG,
            "P99 of event loop lag over the sliding window, in milliseconds.",
            value=self._lag.quantile(0.99) * 1000,
        )


def _in_milliseconds(name: str, text: str, edges: tuple[float, ...], series: KeptSeries) -> Metric:
    bounds = [*(f"{edge * 1000:g}" for edge in edges), "+Inf"]
    buckets = list(zip(bounds, series.upto(edges), strict=True))
    family = HistogramMetricFamily(name, f"{text} Milliseconds.")
    family.add_metric([], buckets=buckets, sum_value=series.total * 1000)
    return family
