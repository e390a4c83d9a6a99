"""Metrics of calls without a process, and what a scrape says, parsed as Prometheus does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from modelsplit_proxy.config import policy_file
from modelsplit_proxy.metrics.calls import CallMetrics
from modelsplit_proxy.metrics.document_names import DocumentNames
from modelsplit_proxy.runtime.loop_lag import LoopLag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client import CollectorRegistry

POLICY = policy_file.load(None).policy


def call_metrics(lag: LoopLag | None = None) -> CallMetrics:
    """Of the shipped policy; the document's names are in its registry too."""
    documents = DocumentNames(lag or LoopLag())
    metrics = CallMetrics(POLICY, documents)
    metrics.registry.register(documents)
    return metrics


class Scraped:
    """The families and samples of one scrape."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.text = generate_latest(registry).decode()
        self.families = {f.name: f for f in text_string_to_metric_families(self.text)}
        self.samples = [s for family in self.families.values() for s in family.samples]

    def values(self, name: str, **labels: str) -> list[float]:
        return [
            sample.value
            for sample in self.samples
            if sample.name == name and sample.labels.items() >= labels.items()
        ]

    def total(self, name: str, **labels: str) -> float:
        return sum(self.values(name, **labels))

    def buckets(self, name: str, where: Mapping[str, str]) -> dict[str, float]:
        """Cumulative counts by edge, summed over the series that match."""
        out: dict[str, float] = {}
        for sample in self.samples:
            if sample.name == f"{name}_bucket" and sample.labels.items() >= where.items():
                edge = sample.labels["le"]
                out[edge] = out.get(edge, 0.0) + sample.value
        return out

    def series(self) -> set[tuple[str, ...]]:
        return {(s.name, *(f"{k}={v}" for k, v in sorted(s.labels.items()))) for s in self.samples}
