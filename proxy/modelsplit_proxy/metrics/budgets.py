"""Where budgets stand, for Prometheus and for ``/stats``. Budget names come from the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from modelsplit_policy.budgets import dollars
from modelsplit_proxy.protocol import budget_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from modelsplit_proxy.limits.budgets import BudgetKeeper


class BudgetMetrics:
    """Read from the budget_keeper at the scrape."""

    def __init__(self, budget_keeper: BudgetKeeper) -> None:
        self._budget_keeper = budget_keeper

    def collect(self) -> Iterator[Metric]:
        labels = ["budget", "unit"]
        used = GaugeMetricFamily(
            "modelsplit_budget_used", "Used of a budget in its window.", labels=labels
        )
        limit = GaugeMetricFamily("modelsplit_budget_limit", "The budget's limit.", labels=labels)
        for standing in self._budget_keeper.standing():
            is_known = standing.lease is None
            if standing.max_calls is not None:
                if is_known:
                    used.add_metric([standing.name, "calls"], standing.calls)
                limit.add_metric([standing.name, "calls"], standing.max_calls)
            if standing.max_nano_usd is not None:
                if is_known:
                    used.add_metric([standing.name, "usd"], dollars(standing.nano_usd))
                limit.add_metric([standing.name, "usd"], dollars(standing.max_nano_usd))
        yield used
        yield limit
        yield self._refusals()
        yield GaugeMetricFamily(
            "modelsplit_approved_usd",
            "What is left of the approvals of the cloud that are in force.",
            value=self._budget_keeper.approved()[1],
        )
        yield GaugeMetricFamily(
            "modelsplit_state_taken_over",
            "1 once another modelsplit has opened the state file: what counts is refused here.",
            value=int(self._budget_keeper.error is not None),
        )
        yield from self._shared()
        yield CounterMetricFamily(
            "modelsplit_budget_writes_lost",
            "Writes of what is counted that the state file did not take.",
            self._budget_keeper.writes_lost,
        )

    def _shared(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "modelsplit_shared_budgets_open",
            "1 while budgets can be counted together with other proxies; nothing without --shared.",
        )
        if (shared := self._budget_keeper.shared) is not None:
            family.add_metric([], int(shared.error is None))
        yield family
        leased = CounterMetricFamily(
            "modelsplit_shared_budgets_leased_calls",
            "Calls sent on a lease while the shared Redis was away; nothing without --shared.",
        )
        if shared is not None:
            leased.add_metric([], shared.leased)
        yield leased

    def _refusals(self) -> Metric:
        counted = self._budget_keeper.refusals
        refusals = CounterMetricFamily(
            "modelsplit_budget_refusals",
            "Calls that a budget had no room for.",
            labels=["budget", "shadow"],
        )
        for standing in self._budget_keeper.standing():
            count = (counted.shadow if standing.shadow else counted.refused)[standing.name]
            refusals.add_metric([standing.name, "true" if standing.shadow else "false"], count)
        return refusals


def fields(budget_keeper: BudgetKeeper) -> dict[str, Any]:
    """For ``/stats``."""
    valid, left = budget_keeper.approved()
    shared = budget_keeper.shared
    return {
        "shared": None if shared is None else shared.fields(),
        "budgets": [budget_text.fields(standing) for standing in budget_keeper.standing()],
        "approvals": len(valid),
        "approved_usd_left": left,
        "approved": [budget_keeper.approval_fields(approval) for approval in valid],
        "open": budget_keeper.is_open,
        "error": budget_keeper.error,
        "writes_lost": budget_keeper.writes_lost,
        "state": str(budget_keeper.state),
    }
