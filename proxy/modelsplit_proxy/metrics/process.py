"""The process as it stands at the scrape: seats, lines, health, breakers, connections, loop lag."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from modelsplit_policy.health import SEVERITY
from modelsplit_policy.health_samples import everywhere
from modelsplit_policy.vocabulary import Role
from modelsplit_proxy.metrics.buckets import LAG_S
from modelsplit_proxy.metrics.families import Histograms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from modelsplit_policy.admission import Admission
    from modelsplit_policy.breaker import BreakerView
    from modelsplit_policy.health import Level
    from modelsplit_proxy.http.upstream_pool import UpstreamPool
    from modelsplit_proxy.runtime.loop_lag import LoopLag
    from modelsplit_proxy.watch.health import HealthMonitor


class ProcessMetrics:
    """Read at the scrape. ``model_label``: bounds what models are told apart.

    ``level``: how the service does.
    """

    def __init__(
        self,
        admission: Admission,
        pools: Sequence[UpstreamPool],
        monitor: HealthMonitor,
        model_label: Callable[[str], str],
        level: Callable[[], Level],
    ) -> None:
        self._admission = admission
        self._pools = tuple(pools)
        self._monitor = monitor
        self._model_label = model_label
        self._level = level

    def collect(self) -> Iterator[Metric]:
        yield from self._lines()
        yield from self._learned()
        yield GaugeMetricFamily(
            "modelsplit_health_level",
            "How the service does, as /healthz and status say: 0 OK, 1 DEGRADED, 2 CRITICAL.",
            value=SEVERITY[self._level()],
        )
        open_breakers = GaugeMetricFamily(
            "modelsplit_breaker_open",
            "1 while calls to it are stopped.",
            labels=["provider", "model"],
        )
        # Several models outside the policy share one label; a series may be told only once.
        stopped = everywhere(self._monitor.open_breakers(), self._admission.hosts)
        for labels in {self._breaker_labels(view) for view in stopped}:
            open_breakers.add_metric(labels, 1)
        yield open_breakers
        yield GaugeMetricFamily(
            "modelsplit_upstream_connections",
            "Open connections to the upstream.",
            value=sum(pool.open_connections for pool in self._pools),
        )

    def _breaker_labels(self, view: BreakerView) -> tuple[str, str]:
        model = view.key.model
        return view.key.provider, "" if model is None else self._model_label(model)

    def _learned(self) -> Iterator[Metric]:
        """What is useful to run at once, and how often a foreseen wait was wrong."""
        learned = [host.parallelism for host in self._admission.hosts]
        forecast = self._admission.forecast
        yield GaugeMetricFamily(
            "modelsplit_parallelism_host",
            "Calls at once that are worth running on the host.",
            value=sum(host.host for host in learned),
        )
        yield GaugeMetricFamily(
            "modelsplit_parallelism_contention",
            "How much one more call slows the others: 0 not at all, 1 by its whole share.",
            value=max(host.contention for host in learned),
        )
        yield GaugeMetricFamily(
            "modelsplit_seats_lent",
            "Reserved seats in other roles' use.",
            value=self._admission.lent,
        )
        counts = CounterMetricFamily(
            "modelsplit_forecasts",
            "Calls whose wait was foreseen to be too long, by what became of them.",
            labels=["what"],
        )
        for what in ("refused", "checked", "wrong"):
            counts.add_metric([what], getattr(forecast, what))
        yield counts

    def _lines(self) -> Iterator[Metric]:
        in_flight = GaugeMetricFamily(
            "modelsplit_in_flight", "Calls holding a seat.", labels=["role"]
        )
        depth = GaugeMetricFamily("modelsplit_queue_depth", "Calls in line.", labels=["role"])
        for role in Role:
            in_flight.add_metric([role], self._admission.running(role))
            depth.add_metric([role], self._admission.waiting(role))
        yield in_flight
        yield depth


def measure_lag(lag: LoopLag, registry: CollectorRegistry) -> None:
    """Count from now on how late the event loop is."""
    histogram = Histograms(
        "modelsplit_event_loop_lag_seconds",
        "How late the event loop came to a fixed tick.",
        (),
        LAG_S,
        registry,
    )
    lag.listen(histogram.at[()].observe)
