"""Several hosts as they stand at the scrape, and the calls that each was sent."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from modelsplit_policy.health_samples import not_closed
from modelsplit_policy.tickets import Placed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric

    from modelsplit_policy.admission import Admission
    from modelsplit_proxy.limits.breakers import BreakerKeeper
    from modelsplit_proxy.records.record import CallRecord
    from modelsplit_proxy.watch.fleet import Fleet


class HostMetrics:
    """Read at the scrape. There are no such families where the policy names no hosts."""

    def __init__(
        self,
        fleet: Fleet,
        admission: Admission,
        breakers: BreakerKeeper,
        model_label: Callable[[str], str],
    ) -> None:
        self._fleet = fleet
        self._admission = admission
        self._breakers = breakers
        self._model_label = model_label
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._placed: Counter[tuple[str, Placed]] = Counter()

    def call_ended(self, record: CallRecord) -> None:
        """A call has ended: count its attempts that were sent to a host."""
        for attempt in record.attempts:
            if attempt.host is not None and attempt.placed is not None:
                self._placed[attempt.host, attempt.placed] += 1
            if attempt.host is not None and attempt.sent:
                failed = attempt.failure is not None
                self._attempts[attempt.host, "failed" if failed else "ok"] += 1

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "modelsplit_host_up", "1 while the host answers its probe.", labels=["host"]
        )
        drained = GaugeMetricFamily(
            "modelsplit_host_drained", "1 while the host takes no new calls.", labels=["host"]
        )
        in_flight = GaugeMetricFamily(
            "modelsplit_host_in_flight", "Calls holding a seat of the host.", labels=["host"]
        )
        useful = GaugeMetricFamily(
            "modelsplit_host_parallelism",
            "Calls at once that are worth running on the host.",
            labels=["host"],
        )
        for host in self._fleet.hosts:
            seats = self._admission.host(host.name)
            up.add_metric([host.name], host.probe.up is True)
            drained.add_metric([host.name], seats.drained)
            in_flight.add_metric([host.name], seats.running)
            useful.add_metric([host.name], seats.parallelism.host)
        yield from (up, drained, in_flight, useful)
        yield from (self._stopped(), self._decided(), self._sent())

    def _stopped(self) -> Metric:
        stopped = GaugeMetricFamily(
            "modelsplit_host_breaker_open",
            "1 while a breaker stops calls to the host.",
            labels=["host", "model"],
        )
        names = {host.name for host in self._fleet.hosts}
        # Several models outside the policy share one label; a series may be told only once.
        for host, model in {
            (view.key.host, "" if view.key.model is None else self._model_label(view.key.model))
            for view in not_closed(self._breakers.snapshot())
            if view.key.host in names
        }:
            stopped.add_metric([host, model], 1)
        return stopped

    def _decided(self) -> Metric:
        placed = CounterMetricFamily(
            "modelsplit_host_placements",
            "Seats given on the host, by what decided for it.",
            labels=["host", "reason"],
        )
        for host in self._fleet.hosts:
            for reason in Placed:
                placed.add_metric([host.name, reason], self._placed[host.name, reason])
        return placed

    def _sent(self) -> Metric:
        attempts = CounterMetricFamily(
            "modelsplit_host_attempts",
            "Attempts that were sent to the host, by how they ended.",
            labels=["host", "outcome"],
        )
        for host in self._fleet.hosts:
            for outcome in ("ok", "failed"):
                attempts.add_metric([host.name, outcome], self._attempts[host.name, outcome])
        return attempts
