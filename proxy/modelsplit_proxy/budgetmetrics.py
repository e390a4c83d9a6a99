"""Where budgets stand, for Prometheus and for ``/stats``. Budget names come from the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from modelsplit_policy.budgets import dollars
from modelsplit_proxy import budgetwords

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from modelsplit_proxy.purse import Purse


class BudgetMetrics:
    """Read from the purse at the scrape."""

    def __init__(self, purse: Purse) -> None:
        self._purse = purse

    def collect(self) -> Iterator[Metric]:
        labels = ["budget", "unit"]
        used = GaugeMetricFamily(
            "modelsplit_budget_used", "Used of a budget in its window.", labels=labels
        )
        limit = GaugeMetricFamily("modelsplit_budget_limit", "The budget's limit.", labels=labels)
        for standing in self._purse.standing():
            if standing.max_calls is not None:
                used.add_metric([standing.name, "calls"], standing.calls)
                limit.add_metric([standing.name, "calls"], standing.max_calls)
            if standing.max_nano_usd is not None:
                used.add_metric([standing.name, "usd"], dollars(standing.nano_usd))
                limit.add_metric([standing.name, "usd"], dollars(standing.max_nano_usd))
        yield used
        yield limit
        yield self._refusals()
        yield GaugeMetricFamily(
            "modelsplit_approved_usd",
            "What is left of the approvals of the cloud that are in force.",
            value=self._purse.approved()[1],
        )
        yield GaugeMetricFamily(
            "modelsplit_state_taken_over",
            "1 once another modelsplit has opened the state file: what counts is refused here.",
            value=int(self._purse.error is not None),
        )

    def _refusals(self) -> Metric:
        counted = self._purse.refusals
        refusals = CounterMetricFamily(
            "modelsplit_budget_refusals",
            "Calls that a budget had no room for.",
            labels=["budget", "shadow"],
        )
        for standing in self._purse.standing():
            count = (counted.shadow if standing.shadow else counted.refused)[standing.name]
            refusals.add_metric([standing.name, "true" if standing.shadow else "false"], count)
        return refusals


def fields(purse: Purse) -> dict[str, Any]:
    """For ``/stats``."""
    valid, left = purse.approved()
    return {
        "budgets": [budgetwords.fields(standing) for standing in purse.standing()],
        "approvals": len(valid),
        "approved_usd_left": left,
        "open": purse.is_open,
        "error": purse.error,
        "state": str(purse.state),
    }
