"""How often what counts ended calls has failed, by what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from modelsplit_proxy.records.call_ended import CallEnded


class CallEndedMetrics:
    """Read at the scrape; one series for each listener, from the start."""

    def __init__(self, ended: CallEnded) -> None:
        self._ended = ended

    def collect(self) -> Iterator[Metric]:
        failures = CounterMetricFamily(
            "modelsplit_call_end_failures",
            "Ended calls that a part of the process failed to count or keep.",
            labels=["listener"],
        )
        for name, count in self._ended.failures.items():
            failures.add_metric([name], count)
        yield failures
