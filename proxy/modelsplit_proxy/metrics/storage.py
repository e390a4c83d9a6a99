"""How the state file does, as statistics and as metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from modelsplit_proxy.runtime.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from modelsplit_proxy.records.recorder import Recorder
    from modelsplit_proxy.storage.writer import Store


def fields(store: Store, recorder: Recorder) -> dict[str, Any]:
    """What ``/stats`` and ``/healthz`` say of it."""
    return {
        "error": store.error,
        "waiting": store.waiting,
        "dropped": recorder.dropped,
        "checked": store.checked,
        "set_aside": None if store.set_aside is None else store.set_aside.name,
        "counts_lost_at": None if store.lost_at is None else rfc3339(store.lost_at),
    }


class StoreMetrics:
    """The same for Prometheus, read at the scrape."""

    def __init__(self, store: Store, recorder: Recorder) -> None:
        self._store = store
        self._recorder = recorder

    def collect(self) -> Iterator[Metric]:
        store = self._store
        yield GaugeMetricFamily(
            "modelsplit_state_error",
            "1 while the state file cannot be written.",
            value=int(store.error is not None),
        )
        yield GaugeMetricFamily(
            "modelsplit_state_replaced",
            "1 if this start found a damaged state file, set it aside and began a new one.",
            value=int(store.fresh_after_corruption),
        )
        yield CounterMetricFamily(
            "modelsplit_state_commits", "Transactions written to the state file.", store.commits
        )
        yield CounterMetricFamily(
            "modelsplit_records_dropped",
            "Records of finished calls that could not be kept.",
            self._recorder.dropped,
        )
